"""What the address of a page asks for, and the addresses that ask for something else.

What is not known is not taken: the error names the parameter, the value and what there is. What is empty is not asked for, as a
form sends it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypedDict, get_args
from urllib.parse import urlencode

from stac_watch.ledger.naming import Sort
from stac_watch.ledger.records import Scope, Where
from stac_watch.model.errors import InputError
from stac_watch.model.event import Lane
from stac_watch.model.identity import ITEM_ID, tile_name
from stac_watch.model.states import State

MOST = 1000  # items of one answer
PAGES = 10_000  # of a list; who turns more of them wants `stac-watch items`
LONGEST = 200  # letters of a text
PERIODS: Mapping[str, timedelta | None] = {"hour": timedelta(hours=1), "day": timedelta(days=1), "all": None}
LANES: tuple[Lane, ...] = get_args(Lane)
PLACE = ("source", "state", "tile", "text")


class Choice(TypedDict):
    """Which items are asked for."""

    scope: Scope
    state: State | None
    where: Where
    limit: int


@dataclass(frozen=True)
class View:
    """Which part of the ledger the status page shows, and which of it its list."""

    period: str = "all"
    source: str | None = None
    lane: Lane | None = None
    state: State | None = None  # this and what follows: of the list only
    tile: str | None = None
    text: str | None = None
    error: str | None = None  # what failures have in common
    sort: Sort = Sort.CHANGED
    page: int = 1

    def scope(self, now: datetime) -> Scope:
        """Returns the conversions that it shows."""
        length = PERIODS[self.period]
        return Scope(now - length if length is not None else None, self.source, self.lane)

    @property
    def where(self) -> Where:
        """Which items its list shows."""
        return Where(tile=self.tile, text=self.text)

    @property
    def searches(self) -> bool:
        """Whether its list shows fewer than are counted."""
        return (self.state, self.tile, self.text, self.error) != (None, None, None, None)

    def href(self, **change: Any) -> str:  # noqa: ANN401  # a field's
        """Returns the address of the same page with something changed, from its first page on."""
        asked = asdict(replace(self, **{"page": 1, **change}))
        usual = asdict(View())
        chosen = {name: value for name, value in asked.items() if value != usual[name]}
        return f"?{urlencode(chosen)}" if chosen else "."

    def everything(self) -> str:
        """Returns the address of the same page with the whole list."""
        return self.href(state=None, tile=None, text=None, error=None, sort=Sort.CHANGED)


def view(asked: Mapping[str, str], names: Collection[str] = ()) -> View:
    """Returns what the status page is asked for; `names` are the sources that there are, empty = any.

    Raises:
        InputError: a parameter or a value that there is not.
    """
    _known(asked, tuple(asdict(View())))
    page = asked.get("page") or "1"
    number = int(page) if re.fullmatch(r"[0-9]{1,9}", page) else 0
    if not 1 <= number <= PAGES:
        raise InputError(f"page {page[:80]!r} is not a number from 1 to {PAGES}", hint="`stac-watch items` has all")
    source = _source(asked)
    if source is not None and names and source not in names:
        raise InputError(f"no source {source!r}", hint=f"there is {', '.join(sorted(names))}")
    lane = _one_of("lane", asked, LANES)
    return View(
        period=_one_of("period", asked, PERIODS) or "all", source=source, lane=next((x for x in LANES if x == lane), None),
        state=_state(asked), tile=_tile(asked), text=_text("text", asked), error=_text("error", asked),
        sort=Sort(_one_of("sort", asked, Sort) or Sort.CHANGED), page=number,
    )  # fmt: skip


def items(asked: Mapping[str, str]) -> Choice:
    """Returns what `items` is asked for: `state`, `source`, `tile`, `text`, `limit`.

    Raises:
        InputError: a parameter or a value that there is not.
    """
    _known(asked, (*PLACE, "limit"))
    limit = asked.get("limit", "50")
    number = int(limit) if re.fullmatch(r"[0-9]{1,9}", limit) else 0
    if not 1 <= number <= MOST:
        raise InputError(f"limit {limit[:80]!r} is not a number from 1 to {MOST}", hint="`stac-watch items` has all")
    where = Where(tile=_tile(asked), text=_text("text", asked))
    return {"scope": Scope(source=_source(asked)), "state": _state(asked), "where": where, "limit": number}


def _known(asked: Mapping[str, str], names: tuple[str, ...]) -> None:
    if unknown := sorted(asked.keys() - set(names)):
        raise InputError(f"no parameter {unknown[0][:80]!r}", hint=f"there are {', '.join(names[:-1])} and {names[-1]}")


def _one_of(name: str, asked: Mapping[str, str], there: Iterable[str]) -> str | None:
    value, names = asked.get(name) or None, [str(known) for known in there]
    if value is not None and value not in names:
        raise InputError(f"no {name} {value[:80]!r}", hint=f"one of {', '.join(names)}")
    return value


def _state(asked: Mapping[str, str]) -> State | None:
    state = _one_of("state", asked, State)
    return State(state) if state else None


def _source(asked: Mapping[str, str]) -> str | None:
    source = asked.get("source") or None
    if source is not None and not ITEM_ID.fullmatch(source):
        raise InputError(f"no source {source[:80]!r}", hint="as in the configuration")
    return source


def _tile(asked: Mapping[str, str]) -> str | None:
    tile = (asked.get("tile") or "").strip()
    try:
        return tile_name(tile[:LONGEST]) if tile else None
    except ValueError as error:
        raise InputError(str(error), hint="`text` finds parts of an id") from None


def _text(name: str, asked: Mapping[str, str]) -> str | None:
    text = (asked.get(name) or "").strip()
    if len(text) > LONGEST or "\0" in text:
        raise InputError(f"{name} {text[:80]!r} is no text of at most {LONGEST} letters")
    return text or None
