"""The stores of a simulated year's finished products: one name for ever, and another content with each publication.

In: the plan as the catalog has it now. Out: a value that stands where `Stores` stands, and fingerprints. Never: HTTP.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from year_catalog import Catalog
from year_plan import is_down, number_of

from stac_watch.model.errors import Temporary
from stac_watch.model.zarr3 import fingerprint

KEY = "a/c/0"
ARRAY = {
    "zarr_format": 3, "node_type": "array", "shape": [1], "data_type": "uint8", "fill_value": 0, "codecs": [{"name": "bytes"}],
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}}, "chunk_key_encoding": {"name": "default"},
}  # fmt: skip


def _root(version: int) -> bytes:
    """Returns the root's metadata: every other version differs in nothing but the size of an object."""
    nodes = {"a": ARRAY}
    said = {"zarr_format": 3, "node_type": "group", "attributes": {"v": version // 2}, "consolidated_metadata": {"metadata": nodes}}
    return json.dumps(said).encode()


def _size(version: int) -> int:
    return 1000 + version


def fingerprint_of(version: int) -> str:
    """Returns what a run notes of a store of that version."""
    return fingerprint(_root(version), {KEY: _size(version)}, {})


@dataclass
class Stores:
    """Products as they lie under their names; what `Stores` is to the looks at them."""

    catalog: Catalog
    looks: int = 0

    def _version(self, href: str) -> int | None:
        p, now = self.catalog.plan, self.catalog.clock.seconds
        if is_down(p.down["stores"], now):
            raise Temporary("objects.example answers 503", hint="it is asked again")
        pub = self.catalog.current[number_of(href.rpartition("/")[2].removesuffix(".zarr"))]
        return None if p.ready[pub] > now else p.version[pub]

    def root(self, href: str) -> bytes | None:
        """Returns the root's metadata; None where nothing lies there yet."""
        self.looks += 1
        version = self._version(href)
        return _root(version) if version is not None else None

    def size(self, href: str, key: str) -> int | None:
        """Returns an object's size."""
        assert key == KEY  # noqa: S101  # the only one
        version = self._version(href)
        return _size(version) if version is not None else None

    def begun(self, href: str, root: bytes) -> dict[str, int | None]:
        """Returns nothing: no look of one request is ever broken off."""
        del href, root
        return {}

    def ended(self) -> None:
        """Has nothing to forget."""
