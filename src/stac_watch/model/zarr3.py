"""A Zarr v3 store as its root metadata tells it: nodes, arrays, the key of every object; and its fingerprint. Pure.

Both programs need it: the runner to take a store in, the poller to find out cheaply whether a known one was published anew.

Sources: Zarr v3 core specification (nodes, chunk key encodings), sharding codec 1.0 (index), RFC 3720 B.4 (CRC-32C).
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stac_watch.model.documents import document
from stac_watch.model.errors import InputError, printable

ROOT = "zarr.json"
OURS = "stac-watch."
"""What the names of our own files in an output begin with: a store that is taken as it is must have none."""
MAX_OBJECTS = 200_000
"""Of one store; the most finely chunked real product has 3,014. Beyond it, metadata is wrong or hostile."""
ENTRY, CRC = 16, 4
"""Bytes of one entry of a shard's index (offset and length), and of the checksum behind them."""
_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_LARGEST, _DIMENSIONS = 2**31, 8
"""Pixels along a dimension, and dimensions: a real product has 10,980, and four."""
_INDEX_CODECS = ["bytes", "crc32c"]


@dataclass(frozen=True)
class PlacedArray:
    """An array in a store, whatever its format: where it lies, and how large it is."""

    path: str  # relative to the store's root, without a leading slash
    shape: tuple[int, ...]

    @property
    def group(self) -> str:
        """The path of the group that holds it."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """Its name within the group."""
        return self.path.rpartition("/")[2]

    @property
    def pixels(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class StoredArray(PlacedArray):
    """One array: what its `zarr.json` says."""

    stored: tuple[int, ...]  # pixels of one object: of a shard, or of a chunk where there are no shards
    inner: tuple[int, ...]  # pixels of one chunk
    data_type: Any = field(repr=False)  # a name, or an object with name and configuration
    fill_value: Any = field(repr=False)
    codecs: tuple[Mapping[str, Any], ...] = field(repr=False)  # of one chunk
    sharded: bool
    index_first: bool  # the index stands at the beginning of a shard
    separator: str
    prefix: str  # `c/`, or nothing in the encoding of v2
    dimensions: tuple[str, ...]  # empty where it names none
    attributes: Mapping[str, Any] = field(repr=False)

    @property
    def index_bytes(self) -> int:
        """Bytes of a shard's index; 0 where there are no shards."""
        chunks = math.prod(s // i for s, i in zip(self.stored, self.inner, strict=True))
        return chunks * ENTRY + CRC if self.sharded else 0

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of objects along each dimension."""
        return tuple(-(-size // n) for size, n in zip(self.shape, self.stored, strict=True))

    def keys(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields the key of each object and its place in the grid, in C order."""
        if not self.shape:
            yield f"{self.path}/{'c' if self.prefix else '0'}", ()
            return
        for index in itertools.product(*map(range, self.grid)):
            yield f"{self.path}/{self.prefix}{self.separator.join(map(str, index))}", index


@dataclass(frozen=True)
class StoredTree:
    """A store: its nodes' documents by path (the root's is ""), and its arrays."""

    nodes: Mapping[str, Mapping[str, Any]] = field(repr=False)
    arrays: Mapping[str, StoredArray] = field(repr=False)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The root's attributes."""
        return attributes_of(self.nodes.get("", {}))

    def keys(self) -> dict[str, StoredArray]:
        """Returns the key of every object that holds pixels, with its array."""
        return {key: array for array in self.arrays.values() for key, _ in array.keys()}  # noqa: SIM118  # no mapping

    def documents(self) -> list[str]:
        """Returns the key of every metadata document, the root's first."""
        return [ROOT, *(f"{path}/{ROOT}" for path in sorted(self.nodes) if path)]


def attributes_of(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a node's attributes; empty where it has none that can be read."""
    found = node.get("attributes")
    return found if isinstance(found, dict) else {}


def consolidated(root: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nodes that a root's consolidated metadata holds, by path; empty where it has none."""
    inline = root.get("consolidated_metadata")
    nodes = inline.get("metadata") if isinstance(inline, dict) else None
    return nodes if isinstance(nodes, dict) else {}


def read_json(raw: bytes, where: str) -> dict[str, Any]:
    """Returns the JSON object that a node's document is.

    Raises:
        InputError: it is none.
    """
    try:
        found = document(raw)
    except ValueError as error:
        raise InputError(f"{where} is not JSON", hint="is this really the product's URL?") from error
    if not isinstance(found, dict) or found.get("zarr_format") != 3:  # the number in the specification
        raise InputError(f"{where} is not Zarr v3 metadata", hint="is this really the product's URL?")
    return found


def tree_of(nodes: Mapping[str, Any], where: str) -> StoredTree:
    """Returns the store that nodes' documents describe, by path; the root's is "".

    Raises:
        InputError: they are not Zarr v3 metadata, or use what is not known here.
    """
    arrays = {}
    for path, node in nodes.items():
        if path and (not _NAME.fullmatch(path) or ".." in path or path.startswith(OURS)):
            raise InputError(f"the metadata of {where} names an illegal path {path[:80]!r}")
        if not isinstance(node, dict):
            raise InputError(f"the metadata of {where} has a node {path[:80]!r} that is no JSON object")
        if node.get("node_type") == "array":
            try:
                arrays[path] = _array(path, node)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"the metadata of {where} is not Zarr v3 that is known here: {path}: {error}") from error
    objects = sum(math.prod(a.grid) for a in arrays.values())
    if objects > MAX_OBJECTS:
        raise InputError(f"{where} has {objects} objects, more than {MAX_OBJECTS}", hint="no Sentinel-2 product has so many")
    return StoredTree(nodes, arrays)


def _array(path: str, node: Mapping[str, Any]) -> StoredArray:
    shape, stored = _sizes(node["shape"], 0), _sizes(node["chunk_grid"]["configuration"]["chunk_shape"], 1)
    codecs = _codecs(node["codecs"])
    if node["chunk_grid"]["name"] != "regular" or len(shape) != len(stored):
        raise ValueError(f"shape {shape} and chunk grid {node['chunk_grid']}")
    sharded = codecs[0]["name"] == "sharding_indexed"
    inner, first = stored, False
    if sharded:
        shard = codecs[0]["configuration"]
        inner, first = _sizes(shard["chunk_shape"], 1), shard.get("index_location", "end") == "start"
        if len(codecs) > 1 or [c["name"] for c in shard["index_codecs"]] != _INDEX_CODECS:
            raise ValueError("a shard whose index has no CRC32C, or is encoded again")
        if len(inner) != len(stored) or any(s % i for s, i in zip(stored, inner, strict=True)):
            raise ValueError(f"shards of {stored} and chunks of {inner}")
        codecs = _codecs(shard["codecs"])
    encoding = node["chunk_key_encoding"]
    named = encoding["name"]
    separator = (encoding.get("configuration") or {}).get("separator", "/" if named == "default" else ".")
    if named not in ("default", "v2") or separator not in ("/", "."):
        raise ValueError(f"chunk keys {encoding}")
    dimensions = node.get("dimension_names") or ()
    return StoredArray(
        path=path, shape=shape, stored=stored, inner=inner, data_type=node["data_type"], fill_value=node["fill_value"],
        codecs=tuple(codecs), sharded=sharded, index_first=first, separator=separator,
        prefix=f"c{separator}" if named == "default" else "", dimensions=tuple(str(n) for n in dimensions),
        attributes=attributes_of(node),
    )  # fmt: skip


def _sizes(value: Any, least: int) -> tuple[int, ...]:  # noqa: ANN401  # of a stranger's JSON
    sizes = tuple(n for n in value if isinstance(n, int) and not isinstance(n, bool) and least <= n <= _LARGEST)
    if len(sizes) != len(value) or len(sizes) > _DIMENSIONS:
        raise ValueError(f"sizes {printable(repr(value), 80)}")
    return sizes


def _codecs(value: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401  # idem
    """Returns codecs that each have a name, and a configuration or none."""
    found = [c for c in value if isinstance(c, dict) and isinstance(c.get("name"), str)]
    if not found or len(found) != len(value) or not all(isinstance(c.get("configuration", {}), dict) for c in found):
        raise ValueError(f"codecs {printable(repr(value), 80)}")
    return [*found]


# -- fingerprint --------------------------------------------------------------------------------------------------------------


def fingerprint(root: bytes, sizes: Mapping[str, int], indexes: Mapping[str, int]) -> str:
    """Returns what tells a store from another under the same name, without its pixels: three digests, joined by `-`.

    Args:
        root: the root's metadata document, as it was read.
        sizes: bytes of every object with pixels that is there.
        indexes: CRC-32C of every shard's index; it covers where each chunk lies and how long it is. Empty = not looked at.
    """
    parts = (root, _table(sizes), _table(indexes) if indexes else b"")
    return "-".join(hashlib.blake2b(part, digest_size=8).hexdigest() if part else "" for part in parts)


def same_store(known: str, found: str) -> bool:
    """Tells whether two fingerprints may be of one store: no part that both have differs."""
    pairs = list(itertools.zip_longest(known.split("-"), found.split("-"), fillvalue=""))
    return all(a == b for a, b in pairs if a and b)


def _table(values: Mapping[str, int]) -> bytes:
    return "\n".join(f"{key} {value}" for key, value in sorted(values.items())).encode()


_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_CRCS = tuple(_crc_of(byte) for byte in range(256))


def crc32c(data: bytes) -> int:
    """Returns the CRC-32C of a few bytes: of an index, 2 kB at most in a real store."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRCS[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def index_crc(index: bytes) -> int | None:
    """Returns the checksum of a shard's index, as it stands behind the entries; None where it is not that of the entries."""
    stated = int.from_bytes(index[-CRC:], "little")
    return stated if len(index) > CRC and crc32c(index[:-CRC]) == stated else None
