"""What the address of a page asks for, and the addresses that ask for something else.

What is not known is not taken: the error names the parameter, the value and what there is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TypedDict, get_args
from urllib.parse import urlencode

from stac_watch.ledger.records import Scope
from stac_watch.model.errors import InputError
from stac_watch.model.event import Lane
from stac_watch.model.identity import ITEM_ID
from stac_watch.model.states import State

MOST = 1000  # items of one answer
PERIODS: Mapping[str, timedelta | None] = {"hour": timedelta(hours=1), "day": timedelta(days=1), "all": None}
LANES: tuple[Lane, ...] = get_args(Lane)


class Choice(TypedDict):
    """Which items are asked for."""

    source: str | None
    state: State | None
    limit: int


@dataclass(frozen=True)
class View:
    """Which part of the ledger the status page shows."""

    period: str = "all"
    source: str | None = None
    lane: Lane | None = None

    def scope(self, now: datetime) -> Scope:
        """Returns the conversions that it shows."""
        length = PERIODS[self.period]
        return Scope(now - length if length is not None else None, self.source, self.lane)

    def href(self, **change: str | None) -> str:
        """Returns the address of the same page with something changed."""
        asked = {k: v for k, v in asdict(replace(self, **change)).items() if v is not None and (k, v) != ("period", "all")}  # type: ignore[arg-type]  # names and values are those of the template
        return f"?{urlencode(asked)}" if asked else "."


def view(asked: Mapping[str, str]) -> View:
    """Returns what the status page is asked for: `period`, `source`, `lane`.

    Raises:
        InputError: a parameter or a value that there is not.
    """
    _known(asked, ("period", "source", "lane"))
    period, lane = asked.get("period", "all"), asked.get("lane")
    if period not in PERIODS:
        raise InputError(f"no period {period[:80]!r}", hint=f"one of {', '.join(PERIODS)}")
    if lane is not None and lane not in LANES:
        raise InputError(f"no lane {lane[:80]!r}", hint=f"one of {', '.join(LANES)}")
    return View(period, _source(asked), next((known for known in LANES if known == lane), None))


def items(asked: Mapping[str, str]) -> Choice:
    """Returns what `items` is asked for: `state`, `source`, `limit`.

    Raises:
        InputError: a parameter or a value that there is not.
    """
    _known(asked, ("state", "source", "limit"))
    state, limit = asked.get("state"), asked.get("limit", "50")
    if state is not None and state not in list(State):
        raise InputError(f"no state {state[:80]!r}", hint=f"one of {', '.join(State)}")
    number = int(limit) if re.fullmatch(r"[0-9]{1,9}", limit) else 0
    if not 1 <= number <= MOST:
        raise InputError(f"limit {limit[:80]!r} is not a number from 1 to {MOST}", hint="`stac-watch items` has all")
    return {"source": _source(asked), "state": State(state) if state else None, "limit": number}


def _known(asked: Mapping[str, str], names: tuple[str, ...]) -> None:
    if unknown := sorted(asked.keys() - set(names)):
        raise InputError(f"no parameter {unknown[0][:80]!r}", hint=f"there are {', '.join(names[:-1])} and {names[-1]}")


def _source(asked: Mapping[str, str]) -> str | None:
    source = asked.get("source")
    if source is not None and not ITEM_ID.fullmatch(source):
        raise InputError(f"no source {source[:80]!r}", hint="as in the configuration")
    return source
