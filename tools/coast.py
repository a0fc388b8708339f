"""Writes src/stac_watch/report/web/templates/land.path, the status page's coast, from Natural Earth 1:110m (public domain).

In: `land-110m.json` of npm's world-atlas 2.0.2, a TopoJSON. Out: an SVG path, x = degrees east, y = degrees south, simplified to a
quarter of a degree. Never: a line across the map: rings that cross the antimeridian are cut there.

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
    python tools/coast.py package/land-110m.json
"""

from __future__ import annotations

import json
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

from shapely import MultiPolygon, Polygon, box, union_all
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

PATH = Path(__file__).parents[1] / "src" / "stac_watch" / "report" / "web" / "templates" / "land.path"
TOLERANCE = 0.25  # degrees
SMALLEST = 0.5  # square degrees
type Ring = list[tuple[float, float]]


def polygons(topology: dict[str, Any]) -> list[list[Ring]]:
    """Returns the land's polygons, each an outer ring and its lakes, as longitude and latitude."""
    (sx, sy), (tx, ty) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = [
        [(x * sx + tx, y * sy + ty) for x, y in accumulate(map(tuple, arc), lambda a, b: (a[0] + b[0], a[1] + b[1]))]
        for arc in topology["arcs"]
    ]
    [land] = topology["objects"]["land"]["geometries"]
    return [[_joined(arcs, ring) for ring in polygon] for polygon in land["arcs"]]


def _joined(arcs: list[Ring], numbers: list[int]) -> Ring:
    ring: Ring = []
    for number in numbers:  # ~n is arc n, backwards; the first point of each is the last one of that before it
        arc = arcs[number] if number >= 0 else arcs[~number][::-1]
        ring += arc[1:] if ring else arc
    return ring


def cut(ring: Ring) -> BaseGeometry:
    """Returns the ring's area between 180 degrees west and east."""
    unrolled: Ring = ring[:1]
    for x, y in ring[1:]:
        before = unrolled[-1][0]
        unrolled.append((x + 360 * round((before - x) / 360), y))
    if abs(unrolled[-1][0] - unrolled[0][0]) > 180:  # it goes around the pole
        unrolled += [(unrolled[-1][0], -90.0), (unrolled[0][0], -90.0)]
    whole = Polygon(unrolled).buffer(0)
    return union_all([translate(whole, xoff=turn) & box(-180, -90, 180, 90) for turn in (-360, 0, 360)])


def path(land: BaseGeometry) -> str:
    """Returns the SVG path."""
    simple = land.simplify(TOLERANCE)
    parts = simple.geoms if isinstance(simple, MultiPolygon) else [simple]
    big = [part for part in parts if isinstance(part, Polygon) and part.area >= SMALLEST]
    rings = (ring for part in big for ring in (orient(part).exterior, *orient(part).interiors))  # a lake runs the other way round
    return "\n".join("M" + " ".join(f"{x:.1f} {-y:.1f}".replace(".0", "") for x, y in ring.coords[:-1]) + "Z" for ring in rings)


if __name__ == "__main__":
    found = polygons(json.loads(Path(sys.argv[1]).read_text()))
    PATH.write_text(
        path(union_all([cut(outer).difference(union_all([cut(lake) for lake in lakes])) for outer, *lakes in found])) + "\n"
    )
