"""What lies in the output, what has to, and what the consolidated documents say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.core.group import GroupMetadata

from geozarr_runner.source.product import REFLECTANCE, Selection
from geozarr_runner.verify.expected import is_time
from stac_watch.model.outcome import Check


def check(selection: Selection, output: Path, there: Mapping[str, Any], expected: set[str]) -> Check:
    """Compares what lies on disk with what has to be there, and with what the consolidated metadata promises."""
    wanted = {*selection.groups, *(f"{REFLECTANCE}/{level}" for level in selection.overviews)}
    found = {path.rpartition("/")[0] for path in there}
    times = {a.path for a in selection.arrays if a.group in selection.groups and a.shape and is_time(a)}
    lost, extra = sorted((wanted - found) | ((expected | times) - there.keys())), sorted(found - wanted)
    if lost or extra:
        detail = "; ".join(
            f"{len(names)} {word}: {', '.join(names[:5])}" for names, word in ((lost, "missing"), (extra, "unexpected")) if names
        )
        return Check("structure", "failed", detail)
    consolidated = zarr.open_group(str(output), mode="r").metadata.consolidated_metadata
    nodes = consolidated.flattened_metadata if consolidated else {}
    differ = sorted({path for path, node in nodes.items() if not isinstance(node, GroupMetadata)} ^ there.keys())
    if differ:
        return Check("structure", "failed", f"the consolidated metadata differs in {len(differ)} arrays, first {differ[0]}")
    if stale := _stale(output):
        return Check("structure", "failed", f"the consolidated metadata of {len(stale)} nodes is not their own, first {stale[0]}")
    return Check("structure", "passed", f"{len(wanted)} groups, {len(there)} arrays, consolidated")


def _stale(output: Path) -> list[str]:
    """Returns the nodes of which a consolidated document says something else than their own."""
    found = set()
    for holder in (path for path in ("", REFLECTANCE) if (output / path / "zarr.json").is_file()):
        below = json.loads((output / holder / "zarr.json").read_bytes()).get("consolidated_metadata", {}).get("metadata", {})
        for path, copy in below.items():
            own = json.loads((output / holder / path / "zarr.json").read_bytes())
            if any(json.dumps(own.get(name)) != json.dumps(copy.get(name)) for name in own.keys() - {"consolidated_metadata"}):
                found.add(f"{holder}/{path}".strip("/"))
    return sorted(found)
