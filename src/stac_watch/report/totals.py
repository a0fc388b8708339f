"""How much is where, and how far each source has got: what `/metrics` tells, and what a status begins with. Counts only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stac_watch.catalog.abilities import STAMPS, Abilities, restore, summary
from stac_watch.config.model import Source
from stac_watch.discover.overlap import overlap_of
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Audited, Lag, Order, Place, Remembered, Sums
from stac_watch.model.announcement import DeliveryCount
from stac_watch.model.publication import PublicationCount
from stac_watch.model.states import FINAL, State

NOTHING = Lag(None, None, None, 0, 0, 0)


@dataclass(frozen=True)
class SourceStatus:
    """One source: its funnel by lane, and how far it has got."""

    source: str
    lanes: dict[str, dict[str, int]]  # lane -> state -> conversions
    newest_published: datetime | None
    newest_seen: datetime | None
    newest_done: datetime | None
    done_last_hour: int
    done_last_day: int
    unfinished: int
    eta: datetime | None  # at the last hour's rate
    backfill: Order | None
    catalog: str | None  # what the probe found, in one line
    probed: datetime | None
    overlap: float | None  # seconds; None where the source is not configured any more
    lateness_samples: int | None  # None = it is not sized by them
    withdrawn: int
    retired: dict[str, int]  # outputs of items that the catalog no longer has: `kept`, `deprecated`, `deleted`
    restamped: dict[str, int]  # known items that were stamped anew: `waiting` for a look; by what looks of the last day found
    cursor: datetime | None  # every change up to then was read
    swept: datetime | None  # when the last sweep of recent days ended
    audited: Audited | None


@dataclass(frozen=True)
class Totals:
    """What everything adds up to; nothing in it is about one item."""

    at: datetime
    states: dict[str, int]
    skipped: dict[str, int]  # by reason
    failures: dict[tuple[str, str], int]  # by source and by what the errors have in common, the most frequent first
    unreadable: int
    waiting_since: datetime | None  # of those that are to move on, when the first was admitted or replayed
    sources: list[SourceStatus]
    ledger_bytes: int  # on its disk
    publications: list[PublicationCount] = field(default_factory=list)  # of each source in each state; none where none are made
    deliveries: list[DeliveryCount] = field(default_factory=list)  # of each sink in each state; none where nobody is told


def read(ledger: Ledger, sources: Sequence[Source], now: datetime) -> Totals:
    """Sums up the ledger with the same few statements whatever is in it.

    Sources that are no longer configured are shown as long as the ledger has something of them.
    """
    sums = ledger.counts.sums(now)
    configured = {source.name: source for source in sources}
    names = [*configured, *sorted({place.source for place in sums.funnel} - configured.keys())]
    remembered = ledger.sources.remembered([f"{name}:{stamp}" for name in names for stamp in (*STAMPS, "datetime")])
    orders = {order.source: order for order in ledger.orders.all()}
    return Totals(
        at=now,
        states=states_of(sums.funnel),
        skipped=skipped_of(sums.funnel),
        failures=failures_of(sums.funnel),
        unreadable=sums.unreadable,
        waiting_since=sums.waiting_since,
        sources=[source_status(name, configured.get(name), sums, remembered, orders.get(name), now) for name in names],
        ledger_bytes=sums.ledger_bytes,
        publications=ledger.publications.counts(),
        deliveries=ledger.deliveries.counts(),
    )


def source_status(
    name: str, source: Source | None, sums: Sums, remembered: Remembered, order: Order | None, now: datetime
) -> SourceStatus:
    """Sums up one source; there is no overlap where it is not configured."""
    lag = sums.lags.get(name, NOTHING)
    unfinished = sum(n for p, n in sums.funnel.items() if p.source == name and p.state not in FINAL)
    kept = remembered.abilities.get(name)
    found = restore(kept[0]) if kept is not None else None
    overlap, samples = _overlap(source, found, remembered.lateness.get(name, {})) if source is not None else (None, None)
    return SourceStatus(
        source=name,
        lanes=lanes_of(sums.funnel, name),
        newest_published=lag.published,
        newest_seen=lag.seen,
        newest_done=lag.done,
        done_last_hour=lag.done_last_hour,
        done_last_day=lag.done_last_day,
        unfinished=unfinished,
        eta=now + timedelta(hours=unfinished / lag.done_last_hour) if unfinished and lag.done_last_hour else None,
        backfill=order,
        catalog=summary(found) if found else None,
        probed=kept[1] if kept else None,
        overlap=overlap,
        lateness_samples=samples,
        withdrawn=lag.withdrawn,
        retired={"kept": lag.kept, "deprecated": lag.deprecated, "deleted": lag.deleted},
        restamped={
            "waiting": lag.to_look,
            "same": lag.same,
            "changed": lag.changed,
            "retried": lag.retried,
            "unclear": lag.unclear,
        },
        cursor=remembered.positions.get(f"{name}:{found.stamp}") if found else None,
        swept=remembered.swept.get(name),
        audited=remembered.audits.get(name),
    )


def _overlap(source: Source, found: Abilities | None, lateness: Mapping[int, int]) -> tuple[float, int | None]:
    stamp = (found or Abilities()).stamp
    sized = source.poll.overlap == "auto" and stamp != "datetime"
    return overlap_of(source, stamp, lateness).total_seconds(), sum(lateness.values()) if sized else None


def states_of(funnel: Mapping[Place, int]) -> dict[str, int]:
    """Returns how many conversions are in each state."""
    return {s.value: sum(n for p, n in funnel.items() if p.state is s) for s in State}


def skipped_of(funnel: Mapping[Place, int]) -> dict[str, int]:
    """Returns how many conversions were skipped for each reason."""
    skipped: dict[str, int] = defaultdict(int)
    for place, n in sorted(funnel.items(), key=lambda entry: entry[0].cause):
        if place.state is State.SKIPPED:
            skipped[place.cause] += n
    return dict(skipped)


def failures_of(funnel: Mapping[Place, int]) -> dict[tuple[str, str], int]:
    """Returns how many conversions failed, by source and by what their errors have in common; the most frequent first."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for place, n in funnel.items():
        if place.state is State.FAILED:
            counts[place.source, place.cause] += n
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0][1])))


def lanes_of(funnel: Mapping[Place, int], source: str) -> dict[str, dict[str, int]]:
    """Returns a source's funnel by lane."""
    lanes: dict[str, dict[str, int]] = {}
    for place, n in sorted(funnel.items(), key=lambda entry: entry[0].lane):
        if place.source == source:
            lane = lanes.setdefault(place.lane, {s.value: 0 for s in State})
            lane[place.state.value] += n
    return lanes
