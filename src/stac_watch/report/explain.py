"""The question `explain`, and its answer: what the catalog said, the rule, every event, post, run and check, and what is next."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stac_watch.config.model import Limits
from stac_watch.ledger.deliveries import Told
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow, HistoryRow, ItemRow, Order, OutboxRow
from stac_watch.model.announcement import DeliveryState
from stac_watch.model.errors import InputError
from stac_watch.model.item import Retirement
from stac_watch.model.outcome import Outcome
from stac_watch.model.publication import WAITING, Publication, PublicationState
from stac_watch.model.signatures import masked
from stac_watch.model.states import State
from stac_watch.report.lines import Line, line
from stac_watch.report.times import when

STARTED = frozenset({State.SUBMITTED.value, State.RUNNING.value, State.DONE.value, State.FAILED.value})
SHOWN = 10  # events of an output
PRUNED = "the first and the last move and the last event are left; `stac-watch ledger prune` removed the others"


@dataclass(frozen=True)
class Next:
    """What happens next to a conversion, and when; no time where it is not known or nothing happens by itself."""

    what: str
    at: datetime | None


@dataclass(frozen=True)
class Explanation:
    """The whole chain of one conversion."""

    line: Line
    item: ItemRow | None
    rule: str
    history: list[HistoryRow]
    events: list[dict[str, Any]]
    posts: int
    outcome: Outcome | None
    next: Next
    log: str | None
    pruned: bool  # moves and events of it were forgotten by `ledger prune`
    gone: str  # since when the catalog no longer has the item, and what became of the output; else empty
    publications: list[Publication]  # of its item, where this conversion's output is, or is to be, registered
    restamped: str  # what became of its item's last new stamp, where that had to be looked at
    replaced: str = ""  # by which revision and when, where that one's output lies in this one's place
    deliveries: list[Told] = field(default_factory=list)  # what sinks were told of this conversion's output, or are to be
    has_output: bool = True  # False where none was ever to be, and where another revision's lies in its place


@dataclass(frozen=True)
class Circumstances:
    """What decides when a queued event goes out."""

    waits: OutboxRow | None
    blocker: ConversionRow | None  # in flight for the same output
    held: str | None  # why the source's backfill is stopped


def read(
    ledger: Ledger, item: str, limits: Limits, now: datetime, log_of: Callable[[str | None], Path | None]
) -> list[Explanation]:
    """Reads the chains of an item's conversions, by its id, a key, a run's name, a tile, or a part of one.

    Raises:
        InputError: the ledger has none, or several items are called so.
    """
    orders, rows = {order.source: order for order in ledger.orders.all()}, known(ledger, item)
    told = {name: ledger.deliveries.of_item(name) for name in {row.item_id for row in rows}}
    return [
        explanation(
            row, now, limits, item=ledger.items.get(row), history=ledger.conversions.history(row.key),
            bodies=ledger.conversions.events(row.key),
            around=circumstances(ledger, row, orders), log=log_of(row.run),
            gone=_gone(*ledger.retirements.of(row.source, row.item_id)),
            publications=[p for p in ledger.publications.of(row.item_id) if p.key == row.key],
            restamped=_restamped(ledger.restamps.get(row.source, row.item_id)),
            replaced=_replaced(row, ledger.conversions.find(item_id=row.item_id)),
            deliveries=told[row.item_id].get(row.key, []),
        )
        for row in rows
    ]  # fmt: skip


def known(ledger: Ledger, item: str) -> list[ConversionRow]:
    """Returns the conversions of an item, by whatever names it alone.

    Raises:
        InputError: the ledger has none, or several items are called so.
    """
    rows = ledger.conversions.called(item)
    if not rows:
        raise InputError(
            f"the ledger knows no item, key, run or tile {item!r}",
            hint="`stac-watch items` lists what it knows; --tile, --sensed, --text select",
        )
    return rows


def circumstances(ledger: Ledger, row: ConversionRow, orders: Mapping[str, Order]) -> Circumstances:
    """Returns what decides when a conversion's event goes out."""
    if row.state is not State.QUEUED:
        return Circumstances(None, None, None)
    order = orders.get(row.source)
    return Circumstances(
        ledger.outbox.of([row.key]).get(row.key), ledger.conversions.waiting_for(row.key), order.held if order else None
    )


def explanation(
    row: ConversionRow,
    now: datetime,
    limits: Limits,
    *,
    item: ItemRow | None,
    history: list[HistoryRow],
    bodies: list[bytes],
    around: Circumstances,
    log: Path | None,
    gone: str = "",
    publications: Sequence[Publication] = (),
    restamped: str = "",
    replaced: str = "",
    deliveries: Sequence[Told] = (),
) -> Explanation:
    """Puts the chain of one conversion together; of what was skipped at once no run, event or output: there are none."""
    entry = line(row, now, due=around.waits.due if around.waits else None, item=item)
    never = row.state is State.SKIPPED and not any(h.dst in STARTED for h in history) and row.attempt == 1
    return Explanation(
        line=replace(entry, run=None) if never else entry,
        item=item,
        rule=history[0].why if history else "",
        history=history,
        events=[] if never else [json.loads(masked(body.decode())) for body in bodies],
        posts=around.waits.posts if around.waits else 0,
        outcome=row.outcome,
        next=Next(f"nothing; {replaced}", None) if replaced else what_next(row, now, limits, around),
        log=str(log) if log else None,
        pruned=len(bodies) < row.attempt or any(after.src != move.dst for move, after in pairwise(history)),
        gone=gone,
        publications=list(publications),
        restamped=restamped,
        replaced=replaced,
        deliveries=list(deliveries),
        has_output=not never and not replaced,
    )


def _replaced(row: ConversionRow, of_item: Sequence[ConversionRow]) -> str:
    """Returns which later revision's output lies in the place of this one's."""
    done = [r for r in of_item if r.state is State.DONE and r.output_zarr == row.output_zarr]
    later = [r for r in done if r.changed_at > row.changed_at]
    if row.state is not State.DONE or not later:
        return ""
    return f"replaced by revision {later[0].revision} at {when(later[0].changed_at)}: its own output is gone"


def what_next(row: ConversionRow, now: datetime, limits: Limits, around: Circumstances) -> Next:
    """Returns what happens next to a conversion."""
    if row.state is State.QUEUED:
        return _queued(row, now, around)
    if row.state is State.SUBMITTED:
        again = row.changed_at + limits.confirm_after
        return Next(
            f"waiting for its run to appear; otherwise the same event goes out again ({row.waits_for or 'none yet'})", again
        )
    if row.state is State.RUNNING:
        return Next(row.waits_for or "its run is in progress; its result decides", None)
    if row.state is State.FAILED:
        return Next(f"nothing automatically; `stac-watch replay {row.item_id} --yes` retries once the cause is fixed", None)
    if row.state is State.EXPIRED:
        return Next(f"nothing automatically; `stac-watch replay {row.item_id} --yes` makes it again", None)
    if row.state is State.SKIPPED:
        gone = row.reason in ("superseded", "withdrawn", "retired")
        return Next("nothing" if gone else "judged again whenever the catalog shows it; converted once the rules admit it", None)
    return Next("nothing, unless the item changes or is replayed", None)


def _queued(row: ConversionRow, now: datetime, around: Circumstances) -> Next:
    if around.waits is None:
        return Next("its event is about to be written", None)
    event = around.waits.event_id
    if around.held is not None and row.lane == "backfill":
        return Next(f"event {event} is held: {around.held}; `stac-watch backfill {row.source} … --yes` resumes it", None)
    if around.waits.due > now:
        return Next(f"event {event} goes out ({row.reason or 'no clear answer to its last post'})", around.waits.due)
    if around.blocker is not None:
        return Next(f"event {event} goes out when run {around.blocker.run} for the same output has ended", None)
    return Next(f"event {event} goes out when there is room", around.waits.due)


def render_explanation(view: Explanation) -> RenderableType:
    """Returns the chain of one conversion, oldest first."""
    entry, item = view.line, view.item
    head = Table.grid(padding=(0, 2))
    said = None
    if item is not None:
        cloud = "" if item.cloud_cover is None else f", {item.cloud_cover:g} % cloud"
        published = "" if item.updated is None else f", published {when(item.updated)}"
        said = f"sensed {when(item.sensing)}{published}, seen {when(item.first_seen)}, last {when(item.last_seen)}{cloud}"
    for name, value in (
        ("item", entry.item), ("catalog", said), ("gone", view.gone), ("stamped anew", view.restamped), ("rule", view.rule),
        ("key", f"{entry.key} (revision {entry.revision})"),
        ("state", f"{entry.state.value}{', ' if view.replaced else ''}{view.replaced} · {entry.source}, {entry.lane}"),
        ("events", ", ".join(f"{e['id']} ({e['data']['reason']})" for e in view.events)),
        ("pruned", PRUNED if view.pruned else None), ("run", entry.run), ("output", entry.output if view.has_output else None),
        ("posts", f"{view.posts} without a clear answer" if view.posts else None), ("exit code", _exit_code(view.outcome)),
        ("registered", registration(view.publications)), ("told", tidings(view.deliveries)),
        ("reason", entry.reason), ("hint", view.outcome.hint if view.outcome is not None else None), ("log", view.log),
    ):  # fmt: skip
        if value:
            head.add_row(Text(name, style="bold"), Text(str(value)))
    moves = Table(title="what happened", title_justify="left", header_style="bold")
    moves.add_column("when", no_wrap=True)
    for column in ("from", "fact", "to", "attempt", "why"):
        moves.add_column(column, overflow="fold")
    for h in view.history:
        moves.add_row(when(h.at), h.src or "-", h.fact, h.dst, str(h.attempt), Text(h.why))
    checks = view.outcome.checks if view.outcome is not None else ()
    verdicts = Text(" · ".join(f"{check.name}: {check.verdict}" for check in checks), style="green")
    at = f" at {when(view.next.at)}" if view.next.at else ""
    after = Text(f"next{at}: {view.next.what}", style="bold red" if entry.state is State.FAILED else "")
    return Group(head, moves, verdicts, after)


def registration(rows: Sequence[Publication]) -> str:
    """Returns where the registration of an output stands."""
    parts = []
    for p in rows:
        place = f"{p.target}/items/{p.item_id}" if p.target else "nowhere yet"
        if p.state is PublicationState.WITHDRAWN:
            place = f"taken out of the catalog {when(p.changed_at)}"
        late = f", try {p.attempts} went wrong: {p.reason}" if p.reason and p.state is not PublicationState.REGISTERED else ""
        again = f"; again {when(p.due)}" if p.state in WAITING and p.attempts else ""
        since = f" {when(p.registered_at)}" if p.registered_at is not None else ""
        parts.append(f"{p.state.value}: {place}{since}{late}{again}")
    return "; ".join(parts)


def tidings(told: Sequence[Told]) -> str:
    """Returns which events of an output went to which sink, and which wait, a line each; of many the last."""
    lines = [f"{len(told) - SHOWN} earlier ones: `stac-watch announce {told[0].topic}` shows them"] if len(told) > SHOWN else []
    for one in told[-SHOWN:]:
        failed = one.attempts > 0 and one.state is not DeliveryState.DELIVERED
        late = f", try {one.attempts} went wrong: {one.reason}" if failed else ""
        waits = one.state is DeliveryState.WAITING
        at = f"since {when(one.created_at)}" if waits else when(one.changed_at)
        lines.append(f"{one.type.rpartition('.')[2]} to {one.sink}: {one.state.value} {at}{late}")
    return "\n".join(lines)


def _restamped(found: tuple[datetime, str, datetime | None] | None) -> str:
    if found is None:
        return ""
    stamped, what, looked_at = found
    if looked_at is None:
        return f"{when(stamped)}, without a checksum: its product is to be looked at"
    return f"{when(stamped)}; its product was looked at {when(looked_at)}: {what}"


def _gone(since: datetime | None, output: Retirement | None) -> str:
    if since is None:
        return ""
    return f"from the catalog since {when(since)}" + (f"; its output is {output.value}" if output is not None else "")


def _exit_code(outcome: Outcome | None) -> str | None:
    return None if outcome is None or outcome.code is None else str(outcome.code)


def render_explanations(chains: Sequence[Explanation]) -> RenderableType:
    """Returns the chains of an item's conversions, the latest revision first."""
    return Group(*(render_explanation(chain) for chain in chains))
