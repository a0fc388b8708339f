"""A first configuration, as a commented file: what was answered, and beside it what else there is. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LONGEST = 31  # letters of a source's name


@dataclass(frozen=True)
class Draft:
    """What a first configuration says."""

    api: str
    collection: str
    filter: Mapping[str, Any] = field(default_factory=dict)  # bbox, intersects, tiles, max_cloud_cover
    hosts: Sequence[str] = ()  # where products lie
    output: str = "var/outputs/{collection}/{item_id}.zarr"


def source_name(collection: str) -> str:
    """Returns a source's name for a collection."""
    name = re.sub(r"[^a-z0-9]+", "-", collection.lower()).replace("sentinel-2", "s2")[:LONGEST].strip("-")
    return name if name not in ("", "engine", "ledger", "register") else "source"


def compose(draft: Draft) -> str:
    """Returns the file. Values are written as JSON, which is YAML."""
    conditions = "".join(f"      {name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in draft.filter.items())
    others = "".join(f"      # {line}\n" for name, line in _CONDITIONS.items() if name not in draft.filter)
    wanted = f"    filter:  # every condition must hold\n{conditions}" if conditions else "    filter: {}  # empty: all of it\n"
    return f"""\
# A configuration of stac-watch, written by `stac-watch init`. Relative paths are relative to this file.
ledger: sqlite:///var/stac-watch.db  # what is known of every item; keep it
sources:
  - name: {source_name(draft.collection)}  # your choice
    api: {json.dumps(draft.api)}
    collection: {json.dumps(draft.collection, ensure_ascii=False)}
{wanted}{others}    allowed_hosts: {json.dumps(list(draft.hosts))}  # where products may lie; empty: on the catalog's own host only
    # poll: {{since: 1d}}  # how far back the first look goes; what is older is converted by `stac-watch backfill`
recipe:
  output: {json.dumps(draft.output, ensure_ascii=False)}  # a path, or s3://bucket/…
  # groups: "measurements/reflectance/r10m"  # only these; empty: the whole product
engine:
  kind: local  # runs are processes on this machine; `argo` runs them on a cluster
  limits: {{max_in_flight: 2}}  # at once; each needs memory and disk for a full tile
# web: {{port: 8080}}  # the status page
"""


_CONDITIONS = {
    "bbox": "bbox: [10, 45, 12, 47]  # west, south, east, north in degrees",
    "intersects": "intersects: area.geojson  # GeoJSON in degrees",
    "tiles": "tiles: [T32TQM]",
    "max_cloud_cover": "max_cloud_cover: 60  # per cent",
}
