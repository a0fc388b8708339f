"""The nodes of a Zarr v3 product that consolidates nothing, as CPM 3.0 writes it: the known tree is asked for, node by node.

An object store behind HTTP lists nothing. What a later CPM adds to the tree is not seen there; on this machine all is.
Source: structures of published L1C and L2A products, 2025 and 2026.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from geozarr_runner.source.product import REFLECTANCE
from geozarr_runner.source.store import SourceStore
from geozarr_runner.source.threads import in_threads
from stac_watch.model.errors import Refused, SourceNotThere
from stac_watch.model.zarr3 import ROOT, read_json

_ALL = "b01 b02 b03 b04 b05 b06 b07 b08 b09 b10 b11 b12 b8a"
_TREE = {
    **{f"{REFLECTANCE}/r{gsd}m": _ALL for gsd in (10, 20, 60)},
    **{f"conditions/mask/detector_footprint/r{gsd}m": _ALL for gsd in (10, 20, 60)},
    **{f"quality/mask/r{gsd}m": _ALL for gsd in (10, 20, 60)},
    **{f"quality/atmosphere/r{gsd}m": "aot wvp" for gsd in (10, 20, 60)},
    **{f"conditions/mask/l2a_classification/r{gsd}m": "scl" for gsd in (20, 60)},
    "conditions/mask/l1c_classification/r60m": "b00",
    "quality/probability/r20m": "cld snw band",
    "conditions/geometry": "angle band detector mean_sun_angles mean_viewing_incidence_angles sun_angles viewing_incidence_angles",
    "conditions/meteorology/cams": "aod1240 aod469 aod550 aod670 aod865 bcaod550 duaod550 omaod550 ssaod550 suaod550 z "
    "isobaricInhPa latitude longitude number step surface time valid_time",
    "conditions/meteorology/ecmwf": "msl r tco3 tcwv u10 v10 isobaricInhPa latitude longitude number step surface time valid_time",
}
_AXES = "x y spatial_ref"


def walk(source: SourceStore, root: dict[str, Any], called_off: threading.Event) -> dict[str, Any]:
    """Returns every node's document by path, the root's as given.

    Raises:
        InputError: a document is not Zarr v3.
        Temporary: see `source.classify`.
    """
    if source.local is not None:
        found = (path.parent.relative_to(source.local).as_posix() for path in sorted(source.local.rglob(ROOT)))
        paths = [path for path in found if path != "."]
    else:
        paths = list(_known())

    def one(path: str) -> dict[str, Any] | None:
        # once the root can be read, a store that refuses one node means that it does not have it (S3 without ListBucket)
        with contextlib.suppress(SourceNotThere, Refused):
            return read_json(source.read(f"{path}/{ROOT}"), f"{source.url}/{path}/{ROOT}")
        return None

    there = zip(paths, in_threads(one, paths, called_off), strict=True)
    return {"": root, **{path: document for path, document in there if document is not None}}


def _known() -> Iterator[str]:
    """Yields the paths of all nodes that a product may have, groups before what is in them."""
    groups = {parent.as_posix() for group in _TREE for parent in (PurePosixPath(group), *PurePosixPath(group).parents)} - {"."}
    yield from sorted(groups)
    for group, names in _TREE.items():
        yield from (f"{group}/{name}" for name in f"{names} {_AXES}".split())
