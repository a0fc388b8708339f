"""What an item says of an acquisition: taken from whoever knows it, checked against what can be computed, set right. Pure.

Catalogs copy each other's mistakes: `view:sun_elevation` holds the sun's zenith angle in the items of both generations of EOPF, and
the designator of Sentinel-2A stands in those of all three satellites.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from stac_watch.model import sun
from stac_watch.model.identity import parse_product_id, tile_of
from stac_watch.model.mgrs import square
from stac_watch.model.stamps import parse_stamp, stamp

DESIGNATORS = {"sentinel-2a": "2015-028A", "sentinel-2b": "2017-013A", "sentinel-2c": "2024-157A"}
"""COSPAR designators of the satellites."""
STRIP = timedelta(minutes=40)  # after the datatake begins its last tile is sensed: half an orbit is 50 minutes
EXACT, ROUGH = 2.0, 8.0  # degrees between an angle and the computed one: at the time that the azimuth tells, or that the item has
_TIMES = ("start_datetime", "end_datetime", "published")
_DURATION = re.compile(r"P(?=.)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")


@dataclass(frozen=True)
class Acquired:
    """The properties of an item, and a sentence for each that was set right."""

    properties: dict[str, Any]
    notes: tuple[str, ...]


def gathered(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what may be said of an acquisition, each from the first of several that says it in its right form.

    Args:
        sources: properties of items, or of the product itself, the best one first.
    """
    found: dict[str, Any] = {}
    for name, form in _FORMS.items():
        for given in sources:
            value = given.get(name, _former(given, name))
            if value is not None and form(value):
                moment = parse_stamp(value) if name in _TIMES else None
                found[name] = value if moment is None else stamp(moment)
                break
    if ("start_datetime" in found) != ("end_datetime" in found):  # STAC knows only both
        found = {name: value for name, value in found.items() if name not in ("start_datetime", "end_datetime")}
    return found


def checked(
    properties: Mapping[str, Any],
    item_id: str,
    *,
    sensed: datetime | None,
    bbox: Sequence[float] | None,
    crs: str = "",
    metres: Sequence[float] = (),
) -> Acquired:
    """Returns the properties with what can be computed set right.

    Args:
        properties: what is said.
        item_id: of the product; its parts are what the others are held against.
        sensed: when, aware.
        bbox: west, south, east, north of the footprint, degrees.
        crs: of the output, as `EPSG:32632`.
        metres: left, bottom, right, top of the output in that projection.
    """
    said, notes = dict(properties), list[str]()
    parts = parse_product_id(item_id)
    if parts is not None:
        _expect(said, "platform", f"sentinel-{parts['platform'][1:].lower()}", notes)
        _expect(said, "processing:level", parts["level"], notes)
        _expect(said, "processing:version", f"{parts['baseline'][:2]}.{parts['baseline'][2:]}", notes)
        _expect(said, "sat:relative_orbit", int(parts["orbit"]), notes)
        said |= {"constellation": "sentinel-2", "instruments": ["msi"]}
    designator = DESIGNATORS.get(str(said.get("platform")))
    if designator is not None and "sat:platform_international_designator" in said:
        _expect(said, "sat:platform_international_designator", designator, notes)
    _place(said, item_id, crs, metres, notes)
    if sensed is not None and bbox is not None:
        _sun(said, sensed, bbox, notes)
    return Acquired(said, tuple(notes))


def _expect(said: dict[str, Any], name: str, right: object, notes: list[str]) -> None:
    given = said.get(name)
    if given is not None and given != right:
        notes.append(f"{name} said {given}, it is {right}")
    said[name] = right


def _place(said: dict[str, Any], item_id: str, crs: str, metres: Sequence[float], notes: list[str]) -> None:
    """Names the tile, where it is where its projection and its extent say."""
    for name in ("grid:code", "mgrs:utm_zone", "mgrs:latitude_band", "mgrs:grid_square"):
        said.pop(name, None)
    tile = square(tile_of(item_id))
    if tile is None:
        return
    if crs and crs != tile.epsg:
        notes.append(f"grid:code is left out: {tile.code} is in {tile.epsg}, the output in {crs}")
    elif len(metres) == 4 and not tile.holds(metres):  # left, bottom, right, top
        notes.append(f"grid:code is left out: the output's extent {list(metres)} is not that of {tile.code}")
    else:
        said |= {"grid:code": tile.code, "mgrs:utm_zone": tile.zone, "mgrs:latitude_band": tile.band}
        said["mgrs:grid_square"] = tile.square


def _sun(said: dict[str, Any], sensed: datetime, bbox: Sequence[float], notes: list[str]) -> None:
    """Sets the sun's angles right. A tile is sensed up to half an hour after its datatake began; its azimuth tells when."""
    east = bbox[2] + (360 if bbox[2] < bbox[0] else 0)
    where = (bbox[0] + east) / 2, (bbox[1] + bbox[3]) / 2
    elevation, azimuth = said.get("view:sun_elevation"), said.get("view:sun_azimuth")
    moment = sun.when(azimuth, sensed, *where, STRIP) if azimuth is not None else None
    computed = sun.position(moment or sensed, *where)
    reach = EXACT if moment is not None else ROUGH
    if azimuth is None or (moment is None and abs(sun.turned(azimuth - computed[1])) > 3 * ROUGH):
        said["view:sun_azimuth"] = round(computed[1], 1)
        notes += [f"view:sun_azimuth said {azimuth:g}, it is about {computed[1]:.1f}"] if azimuth is not None else []
    if elevation is None:
        said["view:sun_elevation"] = round(computed[0], 1)
    elif abs(90 - elevation - computed[0]) < min(reach, abs(elevation - computed[0])):
        said["view:sun_elevation"] = 90 - elevation
        notes.append(f"view:sun_elevation said {elevation:.4g}, the sun's zenith angle; it is {90 - elevation:.4g}")
    elif abs(elevation - computed[0]) > reach:
        said["view:sun_elevation"] = round(computed[0], 1)
        notes.append(f"view:sun_elevation said {elevation:.4g}, it is about {computed[0]:.1f}")


def _former(given: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401  # a JSON value
    """Returns what an EOPF product calls otherwise."""
    if name == "instruments" and isinstance(one := given.get("instrument"), str):
        return [one.lower()]
    return given.get({"eopf:datatake_id": "eopf:data_take_id", "processing:version": "eopf:baseline"}.get(name, ""))


# -- the form of each property: what has another is nobody's to repeat -----------------------------------------------------------


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable() and len(value) <= 300  # characters


def _number(low: float, high: float) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high  # NaN is not

    return fits


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _moment(value: object) -> bool:
    return parse_stamp(value) is not None


def _one_of(*words: str) -> Callable[[object], bool]:
    return lambda value: value in words if isinstance(value, str) else False


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_text, value))


def _duration(value: object) -> bool:
    return isinstance(value, str) and _DURATION.fullmatch(value) is not None


def _providers(value: object) -> bool:
    def good(one: object) -> bool:
        roles = one.get("roles", []) if isinstance(one, dict) else None
        known = {"producer", "licensor", "processor", "host"}
        return isinstance(roles, list) and isinstance(one, dict) and _text(one.get("name")) and known.issuperset(map(str, roles))

    return isinstance(value, list) and bool(value) and all(map(good, value))


_FORMS: dict[str, Callable[[object], bool]] = {
    "start_datetime": _moment, "end_datetime": _moment, "published": _moment, "platform": _text, "constellation": _text,
    "mission": _text, "instruments": _texts, "providers": _providers, "license": _text, "gsd": _number(0.1, 1000),
    "eo:cloud_cover": _number(0, 100), "eo:snow_cover": _number(0, 100),
    "product:type": _text, "product:timeliness": _duration, "product:timeliness_category": _text,
    "sat:orbit_state": _one_of("ascending", "descending"), "sat:absolute_orbit": _count, "sat:relative_orbit": _count,
    "sat:platform_international_designator": _text, "view:sun_azimuth": _number(0, 360), "view:sun_elevation": _number(-90, 90),
    "processing:level": _text, "processing:version": _text, "processing:lineage": _text, "sci:doi": _text,
    "eopf:datatake_id": _text, "eopf:datastrip_id": _text, "eopf:instrument_mode": _text,
}  # fmt: skip
