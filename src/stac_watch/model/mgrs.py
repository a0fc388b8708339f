"""What the name of an MGRS square says of where it lies. Pure.

Source: NGA.STND.0037 (lettering); Sentinel-2's tiles begin at the square's upper left corner, moved outwards by less than 60 m.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NAME = re.compile(r"T?(?P<zone>\d{1,2})(?P<band>[C-HJ-NP-X])(?P<square>[A-HJ-NP-Z][A-HJ-NP-V])")
_COLUMNS = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")  # by zone modulo 3
_ROWS = "ABCDEFGHJKLMNPQRSTUV"  # every 2,000 km again; in even zones shifted by five
_SIDE = 100_000  # metres
_SLACK = 20_000  # metres; a tile reaches 9.8 km beyond its square


@dataclass(frozen=True)
class Square:
    """One square of 100 km."""

    zone: int
    band: str
    square: str

    @property
    def code(self) -> str:
        """As the grid extension names it: `MGRS-32TQM`."""
        return f"MGRS-{self.zone:02d}{self.band}{self.square}"

    @property
    def epsg(self) -> str:
        """Its projection: `EPSG:32632`."""
        return f"EPSG:{(32600 if self.band >= 'N' else 32700) + self.zone}"

    def holds(self, box: Sequence[float]) -> bool:
        """Tells whether left, bottom, right, top in metres of its projection is this square, or a part of its tile."""
        left = (_COLUMNS[self.zone % 3].index(self.square[0]) + 1) * _SIDE
        bottom = (_ROWS.index(self.square[1]) - (5 if self.zone % 2 == 0 else 0)) % len(_ROWS) * _SIDE
        below = (box[1] - bottom + _SLACK) % (len(_ROWS) * _SIDE) - _SLACK
        return left - _SLACK <= box[0] <= box[2] <= left + _SIDE + _SLACK and below + box[3] - box[1] <= _SIDE + _SLACK


def square(name: str) -> Square | None:
    """Returns the square of a name such as `T32TQM`; None where that names none."""
    found = _NAME.fullmatch(name)
    if found is None or not 1 <= int(found["zone"]) <= 60 or found["square"][0] not in _COLUMNS[int(found["zone"]) % 3]:
        return None
    return Square(int(found["zone"]), found["band"], found["square"])
