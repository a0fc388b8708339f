"""Stages a product in Zarr v3 as the Zarr v2 product with the same content: each chunk is decoded once, as it arrives.

What is eager is told of each array that lies there as Zarr v2, while the large ones are still on their way.

The pixels stay packed as they are; scale and offset are the store's own attributes, and nobody else's. A second reader,
zarr-python, then reads both and compares: what decodes here is not its own judge.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from geozarr_runner.source import claims, native, whole
from geozarr_runner.source.agreement import Agreement
from geozarr_runner.source.arrive import Arrived, bring
from geozarr_runner.source.complete import Allowance
from geozarr_runner.source.eager import Eager
from geozarr_runner.source.noted import Noted, Watch, forget, noted_in, unless_replaced
from geozarr_runner.source.preflight import Plan
from geozarr_runner.source.samples import Blocks
from geozarr_runner.source.shards import Cells, Region, fill_of, limits_of
from geozarr_runner.source.stage import Staged, corrupt_source, prepare
from stac_watch.model.errors import Defect, InputError, write_failure
from stac_watch.model.files import replace_file
from stac_watch.model.zarr3 import ROOT, StoredArray, StoredTree, fingerprint

log = logging.getLogger(__name__)

_WHOLE = 4_000_000  #: pixels up to which an array is compared whole, beyond: one chunk in each quarter


@dataclass(frozen=True)
class Transcoded:
    """The Zarr v2 counterpart of what was fetched, and what is known of the store."""

    staged: Staged
    fingerprint: str
    watch: Watch  # asks whether the store is still what was fetched


def stage(
    plan: Plan,
    folder: Path,
    *,
    advance: Callable[[int], None],
    called_off: threading.Event,
    eager: Eager | None = None,
    allow_empty: bool = False,
) -> Transcoded:
    """Fetches what the selection needs and writes it as Zarr v2; what an earlier attempt fetched is used again.

    Args:
        plan: what to bring.
        folder: where both copies live.
        advance: told of every object that is there.
        called_off: ends the work early.
        eager: who is told of the arrays that lie there as Zarr v2.
        allow_empty: a person takes for nodata what is absent.

    Raises:
        SourceNotThere: chunks are missing that cannot be empty.
        InputError: an object is broken at the source, or holds another band.
        Temporary | Refused | CannotWrite: see `source.classify`.
    """
    if plan.tree is None:
        raise Defect("a product in Zarr v2 is staged as it is")
    root, objects = folder / "product.zarr", folder / "objects"
    keep_objects(objects, plan.root)
    prepare(plan, root)
    arrays = {a.path: plan.tree.arrays[a.path] for a in plan.selection.arrays}
    others = whole.witnesses(native.sources(plan.tree), arrays)
    samples, write = Blocks(arrays | others), _Writer(root)

    def see(array: StoredArray, at: Region, cells: Cells | None) -> None:
        samples.see(array, at, cells)
        write.chunk(array, at, cells)

    noted = noted_for(plan, folder)
    with unless_replaced(plan, objects, noted, called_off) as absent, Agreement(plan) as agreement:
        arrived = bring(
            plan.source, objects, arrays.values(), noted, advance=advance, called_off=called_off, see=see,
            lost=write.nothing, eager=None if eager is None else replace(eager, begin=lambda _: eager.begin(root)),
        )  # fmt: skip
        agreement.require()
        absent |= arrived.missing
        if others and whole.calls_for_witnesses(arrays, arrived.missing, samples):
            with suppress(InputError):  # a witness that is broken says nothing
                bring(plan.source, objects, others.values(), noted, advance=_told, called_off=threading.Event(), see=samples.see)
        odd = whole.require_whole(arrays, arrived.missing, samples, plan.source.url, allow_empty=allow_empty)
        if (found := whole.identity(samples)).verdict == "failed":
            raise corrupt_source([found.detail], plan.source.url)
        _compare(plan.tree, arrived, objects, root, arrays)
        sizes = _sizes(plan, arrived, called_off)
        said = claims.contradiction_of_store(plan, arrays, arrived.missing, samples, sizes)
        claims.require(said, plan.source.url, Allowance(allow_empty=allow_empty))
    staged = Staged(root, frozenset(), len(arrived.objects), arrived.bytes, odd, allow_empty=allow_empty)
    watch = Watch(plan, objects, noted, arrived.missing, called_off)
    return Transcoded(staged, fingerprint(plan.root, sizes, {}), watch)


def _sizes(plan: Plan, arrived: Arrived, called_off: threading.Event) -> dict[str, int]:
    """Returns the bytes of every object of the store that is there."""
    limits = limits_of(plan.tree.keys() if plan.tree is not None else {})
    rest = {key: most for key, most in limits.items() if key not in arrived.objects and key not in arrived.missing}
    return {**arrived.sizes, **plan.source.sizes(rest, called_off)}


def noted_for(plan: Plan, folder: Path) -> Noted:
    """Returns what is noted of objects: beside those that were fetched; nothing of what is read where it lies."""
    return Noted() if plan.source.local is not None else noted_in(folder)


def _told(_: int) -> None:
    pass


def keep_objects(folder: Path, root: bytes) -> None:
    """Makes the folder that objects are fetched into, and empties it when they belong to another root: it was published anew."""
    stored = folder / ROOT
    try:
        if stored.exists() and stored.read_bytes() == root:
            return
        shutil.rmtree(folder, ignore_errors=True)
        forget(folder.parent)
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(stored, root, sync=True)
    except OSError as error:
        raise write_failure(error, folder) from error


class _Writer:
    """Writes chunks of Zarr v2; called from many threads, each chunk by one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._codec = numcodecs.get_codec(dict(native.COMPRESSOR))

    def chunk(self, array: StoredArray, at: Region, cells: Cells | None) -> None:
        chunks = native.v2_chunks(array)
        dtype = np.dtype(native.v2_dtype(array))
        if cells is not None and cells.dtype == dtype and cells.shape == chunks:
            full = cells
        else:
            full = np.full(chunks, fill_of(array), dtype)
            if cells is not None:
                here = tuple(slice(0, n) for n in cells.shape)
                full[here] = cells.view(full.dtype) if full.dtype.kind in "Mm" else cells
        name = ".".join(str(s.start // n) for s, n in zip(at, chunks, strict=True)) or "0"
        path = self._root / array.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._codec.encode(full) if array.shape else full.tobytes())
        except OSError as error:
            raise write_failure(error, path) from error

    def nothing(self, array: StoredArray, place: tuple[int, ...]) -> None:
        """Writes what a whole object was left out for, whether or not it may be: that is judged when all is there."""
        starts = [p * n for p, n in zip(place, array.stored, strict=True)]
        ends = [min(s + n, size) for s, n, size in zip(starts, array.stored, array.shape, strict=True)]
        grid = [range(a, b, i) for a, b, i in zip(starts, ends, array.inner, strict=True)]
        for corner in np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, len(grid)) if grid else [()]:
            self.chunk(array, tuple(slice(int(c), int(c)) for c in corner), None)


def _compare(tree: StoredTree, arrived: Arrived, objects: Path, root: Path, arrays: Mapping[str, StoredArray]) -> None:
    """Has zarr-python read both stores: all of small arrays, a chunk in each quarter of large ones.

    Raises:
        Defect: they differ.
    """
    import zarr  # a quarter of a second, which nobody waits for while objects are on their way

    where = arrived.root
    if where == objects:
        write_nodes(
            {path: node for path, node in tree.nodes.items() if path}, objects
        )  # the root's tells the next attempt whose they are
    there, staged = (zarr.open_group(str(p), mode="r", use_consolidated=False) for p in (where, root))
    for path, array in arrays.items():
        a: Any = there[path]
        b: Any = staged[path]
        for block in _blocks(array):
            one, other = np.asarray(a[block]), np.asarray(b[block])
            if not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
                raise Defect(
                    f"{path} was staged with other values than it has at {block}", hint="please report it with the product"
                )
    log.info("%d arrays read alike by zarr-python, %d objects", len(arrays), len(arrived.objects))


def write_nodes(nodes: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Writes nodes' documents as a store has them, without what is consolidated."""
    for path, node in nodes.items():
        target = folder / path / ROOT
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({k: v for k, v in node.items() if k != "consolidated_metadata"}))


def _blocks(array: StoredArray) -> list[Region]:
    if array.pixels <= _WHOLE:
        return [tuple(slice(0, n) for n in array.shape)]
    corners = [[n // 4 // i * i, 3 * n // 4 // i * i] for n, i in zip(array.shape, array.inner, strict=True)]
    places = np.stack(np.meshgrid(*corners, indexing="ij"), -1).reshape(-1, len(corners))
    return [tuple(slice(int(c), int(c) + i) for c, i in zip(place, array.inner, strict=True)) for place in places]
