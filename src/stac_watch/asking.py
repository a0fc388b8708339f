"""What people ask the ledger for: `status`, `items`, `explain`. Reads, and hands over to `views`.

In: a ledger, the configuration, the time. Out: views. Never: writes, asks the engine or the catalogue: it works beside a watcher,
and without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from stac_watch.config import Limits
from stac_watch.errors import InputError
from stac_watch.ledger import Ledger
from stac_watch.records import ConversionRow, Order
from stac_watch.states import State
from stac_watch.views.explain import Circumstances, Explanation, explanation, what_next
from stac_watch.views.lines import Line, line
from stac_watch.views.status import SourceStatus, Status, Waiting, source_status
from stac_watch.views.status import status as summed_up

SHOWN = 20  # lines of a kind; `items` has all
LONGEST = 5
WAITING = (State.QUEUED, State.SENT, State.RUNNING)


@dataclass(frozen=True)
class Unreadable:
    """An item that cannot be acted on, and why."""

    source: str
    item: str
    why: str


def status(ledger: Ledger, sources: tuple[str, ...], limits: Limits, now: datetime) -> Status:
    """Sums up the ledger; sources that are no longer configured are shown as long as the ledger has something of them."""
    funnel = ledger.funnel()
    orders = {order.source: order for order in ledger.orders()}
    names = [*sources, *sorted({place.source for place in funnel} - set(sources))]
    parts: list[SourceStatus] = [
        source_status(
            name, funnel, ledger.lag(name), orders.get(name), now,
            ledger.done_since(name, now - timedelta(hours=1)), ledger.done_since(name, now - timedelta(days=1)),
        )
        for name in names
    ]  # fmt: skip
    dead = ledger.conversions(state=State.DEAD, limit=1000)
    in_flight = [r for s in (State.RUNNING, State.SENT) for r in ledger.conversions(state=s, limit=SHOWN)]
    oldest = [r for s in WAITING for r in ledger.conversions(state=s, limit=LONGEST, oldest=True)]
    oldest = sorted(oldest, key=lambda row: row.changed_at)[:LONGEST]
    held = ledger.holder()
    return summed_up(
        funnel,
        now,
        quarantined=len(ledger.quarantined()),
        watcher=held[0] if held is not None and held[1] > now else None,
        sources=parts,
        waiting=[Waiting(line(r, now), what_next(r, now, limits, circumstances(ledger, r, orders)).what) for r in oldest],
        dead=dead,
        lines=[line(r, now) for r in [*in_flight, *dead[:SHOWN]]],
    )


def items(
    ledger: Ledger,
    now: datetime,
    *,
    source: str | None = None,
    state: State | None = None,
    limit: int = 50,
) -> list[Line]:
    """Returns conversions as lines, the last changed first."""
    rows = ledger.conversions(source=source, state=state, limit=limit)
    waits = ledger.outbox([row.key for row in rows if row.state is State.QUEUED])
    return [line(row, now, due=waits[row.key].due if row.key in waits else None) for row in rows]


def quarantined(rows: Sequence[tuple[str, str, str]]) -> list[Unreadable]:
    """Returns items that cannot be acted on."""
    return [Unreadable(*row) for row in rows]


def explain(
    ledger: Ledger, item: str, limits: Limits, now: datetime, log_of: Callable[[str | None], Path | None]
) -> list[Explanation]:
    """Returns the chains of an item's conversions, by its id or a key.

    Raises:
        InputError: the ledger has none.
    """
    orders = {order.source: order for order in ledger.orders()}
    return [
        explanation(
            row, now, limits, item=ledger.item(row), history=ledger.history(row.key), bodies=ledger.events(row.key),
            around=circumstances(ledger, row, orders), log=log_of(row.run),
        )
        for row in known(ledger, item)
    ]  # fmt: skip


def circumstances(ledger: Ledger, row: ConversionRow, orders: dict[str, Order]) -> Circumstances:
    """Returns what decides when a conversion's event goes out."""
    if row.state is not State.QUEUED:
        return Circumstances(None, None, None)
    order = orders.get(row.source)
    return Circumstances(ledger.outbox([row.key]).get(row.key), ledger.waiting_for(row.key), order.held if order else None)


def known(ledger: Ledger, item: str) -> list[ConversionRow]:
    """Returns the conversions of an item, by its id or a key.

    Raises:
        InputError: the ledger has none.
    """
    rows = ledger.conversions(item_id=item) or [row for row in [ledger.get(item)] if row is not None]
    if not rows:
        raise InputError(f"the ledger knows no item or key {item!r}", hint="`stac-watch items` lists what it knows")
    return rows
