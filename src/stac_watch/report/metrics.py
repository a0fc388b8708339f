"""What Prometheus is told: the ledger's totals and the loop's counts as metric families.

No label is an item's id: a million of them would be a million series. No sum is told that `status` does not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

from stac_watch.model.announcement import DeliveryState
from stac_watch.model.publication import WAITING
from stac_watch.model.states import Fact, State
from stac_watch.report.freshness import Burn
from stac_watch.report.totals import Totals

PREFIX = "stac_watch"
GROUPS = 20  # of failures; what is rarer is counted as one group
OTHER = "other"
type Histogram = tuple[Sequence[tuple[str, float]], float]
"""Upper bounds with cumulated counts, and the sum of all values."""


@dataclass(frozen=True)
class Loop:
    """What is counted of the loop; from zero when the process began."""

    version: str
    ticks: int
    last_tick: datetime
    leads: bool
    ailing: frozenset[str]  # sources, or `engine`
    answered: Mapping[str, datetime] = field(default_factory=dict)
    problems: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[Fact, int] = field(default_factory=dict)
    posts: Mapping[str, int] = field(default_factory=dict)
    sightings: Mapping[tuple[str, str], int] = field(default_factory=dict)
    installation: str = ""  # whose loop it is
    steps: Mapping[tuple[str, str, str], Histogram] = field(default_factory=dict)  # by source, lane and step
    products: Mapping[tuple[str, str, str], int] = field(default_factory=dict)  # by source, form and state
    hints: Mapping[str, int] = field(default_factory=dict)  # by what became of them
    hinted: Mapping[tuple[str, str], int] = field(default_factory=dict)  # polls by source and what they found


def families(whole: Totals | None, loop: Loop, sources: tuple[str, ...], burns: Sequence[Burn] = ()) -> Iterator[Metric]:
    """Yields every family; without totals, because the ledger does not answer, only the loop's. `burns`: of the objective."""
    yield _gauge("ledger_up", "1 when the ledger answered", {(): whole is not None})
    yield from _of_loop(loop, sources)
    if whole is not None:
        yield from _of_ledger(whole)
        yield from _of_objective(burns)


def _of_objective(burns: Sequence[Burn]) -> Iterator[Metric]:
    by = ("source", "window")
    text = "Items that were to be available within the objective, by how long ago that ended"
    yield _gauge("objective_due", text, {(b.source, b.window): b.due for b in burns}, by)
    yield _gauge("objective_late", "Those of them that were not", {(b.source, b.window): b.late for b in burns}, by)
    text = "Share of them that were late, by the share that the objective allows: above 1 it is not kept"
    yield _gauge("objective_burn_rate", text, {(b.source, b.window): b.rate for b in burns}, by)


def _of_ledger(whole: Totals) -> Iterator[Metric]:
    places = {(s.source, lane, state): n for s in whole.sources for lane, states in s.lanes.items() for state, n in states.items()}
    yield _gauge("conversions", "Conversions by where they are", places, ("source", "lane", "state"))
    yield _gauge("outbox_events", "Events that wait to be sent", {(): whole.states[State.QUEUED.value]})
    yield _gauge("skipped", "Skipped conversions by reason", {(reason,): n for reason, n in whole.skipped.items()}, ("reason",))
    yield _gauge("failures", "Failed conversions by what their errors have in common", _failures(whole), ("source", "fingerprint"))
    yield _gauge("unreadable_items", "Items that cannot be read", {(): whole.unreadable})
    oldest = (whole.at - whole.waiting_since).total_seconds() if whole.waiting_since is not None else 0.0
    yield _gauge(
        "oldest_waiting_seconds",
        "How long the longest has waited since it was admitted",
        {(): oldest},
    )
    newest = {
        (s.source, of): (whole.at - moment).total_seconds()
        for s in whole.sources
        for of, moment in (("published", s.newest_published), ("seen", s.newest_seen), ("done", s.newest_done))
        if moment is not None
    }
    text = "Age of the newest change stamp, of the last new item, of the last conversion that was done"
    yield _gauge("lag_seconds", text, newest, ("source", "of"))
    overlap = {(s.source,): s.overlap for s in whole.sources if s.overlap is not None}
    yield _gauge("overlap_seconds", "How far before the cursor polls read again", overlap, ("source",))
    withdrawn = {(s.source,): s.withdrawn for s in whole.sources}
    yield _gauge("withdrawn_items", "Items that are gone from the catalog", withdrawn, ("source",))
    retired = {(s.source, what): n for s in whole.sources for what, n in s.retired.items()}
    yield _gauge("retired_outputs", "Outputs of items that are gone from the catalog", retired, ("source", "output"))
    looks = {(s.source, found): n for s in whole.sources for found, n in s.restamped.items()}
    text = "Known items that were stamped anew: to be looked at, and what looks of the last day found"
    yield _gauge("restamped_items", text, looks, ("source", "found"))
    held = {(s.source,): bool(s.backfill.held) for s in whole.sources if s.backfill is not None}
    yield _gauge("backfill_held", "1 while a backfill is stopped, by its canary or its failures", held, ("source",))
    yield from _of_publications(whole)
    yield from _of_deliveries(whole)
    yield from _of_discovery(whole)
    yield _gauge("ledger_bytes", "What the ledger takes on its disk", {(): whole.ledger_bytes})


def _of_publications(whole: Totals) -> Iterator[Metric]:
    counts = {(c.source, c.state.value): c.n for c in whole.publications}
    yield _gauge("publications", "Items that are registered, or are to be, by state", counts, ("source", "state"))
    since = [(c.source, c.since) for c in whole.publications if c.state in WAITING]
    waits = {(name,): max(0.0, *((whole.at - at).total_seconds() for one, at in since if one == name)) for name, _ in since}
    yield _gauge("oldest_publication_seconds", "How long the item waits that is longest to be sent or removed", waits, ("source",))


def _of_deliveries(whole: Totals) -> Iterator[Metric]:
    counts = {(c.sink, c.state.value): c.n for c in whole.deliveries}
    yield _gauge("deliveries", "Events that sinks were told, or are to be, by state", counts, ("sink", "state"))
    waits = {
        (c.sink,): max(0.0, (whole.at - c.since).total_seconds()) for c in whole.deliveries if c.state is DeliveryState.WAITING
    }
    yield _gauge("oldest_delivery_seconds", "Since the last try of the event that a sink waits longest for", waits, ("sink",))


def _of_discovery(whole: Totals) -> Iterator[Metric]:
    for name, text, moments in (
        ("cursor_age_seconds", "Age of the stamp up to which every change was read", {s.source: s.cursor for s in whole.sources}),
        ("sweep_age_seconds", "Since the last sweep of recent days ended", {s.source: s.swept for s in whole.sources}),
        (
            "audit_age_seconds", "Since the last audit",
            {s.source: s.audited.at if s.audited else None for s in whole.sources},
        ),
    ):  # fmt: skip
        ages = {(source,): (whole.at - moment).total_seconds() for source, moment in moments.items() if moment is not None}
        yield _gauge(name, text, ages, ("source",))
    gaps = {(s.source, kind): n for s in whole.sources if s.audited for kind, n in s.audited.gaps.items()}
    yield _gauge("audit_gaps", "What the last audit found missing, stale or doubled", gaps, ("source", "kind"))


def _failures(whole: Totals) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for number, ((source, cause), n) in enumerate(whole.failures.items()):
        key = (source, cause if number < GROUPS else OTHER)
        found[key] = found.get(key, 0.0) + n
    return found


def _of_loop(loop: Loop, sources: tuple[str, ...]) -> Iterator[Metric]:
    which = {"version": loop.version, "installation": loop.installation}
    yield InfoMetricFamily(f"{PREFIX}_build", "Which stac-watch this is, and of which installation", value=which)
    yield _counter("ticks", "Rounds of the loop", {(): loop.ticks})
    yield _gauge("last_tick_timestamp_seconds", "When the last round ended", {(): loop.last_tick.timestamp()})
    yield _gauge("leads", "1 when this watcher has the ledger, 0 when it stands by", {(): loop.leads})
    names = (*sources, "engine", "register", "sinks")
    ailing = {(name,): name in loop.ailing for name in names}
    yield _gauge(
        "ailing",
        "1 while a source, the engine, the catalog to register in (`register`), or one of `sinks`, gives no usable answer",
        ailing,
        ("name",),
    )
    problems = {(name,): loop.problems.get(name, 0) for name in names}
    yield _counter(
        "problems", "Answers of sources, engine, catalog to register in and sinks that could not be used", problems, ("name",)
    )
    answered = {(name,): moment.timestamp() for name, moment in loop.answered.items()}
    yield _gauge("answered_timestamp_seconds", "When a source last answered", answered, ("source",))
    facts = {(fact.value,): loop.facts.get(fact, 0) for fact in Fact}
    yield _counter("facts", "What was observed of conversions", facts, ("fact",))
    posts = {(answer,): loop.posts.get(answer, 0) for answer in ("accepted", "refused", "unknown")}
    yield _counter("posts", "Events that were posted, by the engine's answer", posts, ("answer",))
    yield _counter("sightings", "Items that the catalog showed, by verdict", loop.sightings, ("source", "verdict"))
    yield _counter("products", "New conversions by the form of their product", loop.products, ("source", "form", "state"))
    hints = {(result,): n for result, n in loop.hints.items()}
    yield _counter("hints", "Hints that were posted, by what became of them", hints, ("result",))
    yield _counter("hinted_polls", "Polls that hints asked for, by what they found", loop.hinted, ("source", "found"))
    steps = HistogramMetricFamily(
        f"{PREFIX}_step_seconds", "How long conversions took to a step from the one before", labels=("source", "lane", "step")
    )
    for labels, (buckets, seconds) in loop.steps.items():
        steps.add_metric(labels, list(buckets), seconds)
    yield steps


def _gauge[K: tuple[str, ...]](name: str, text: str, values: Mapping[K, float], names: tuple[str, ...] = ()) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=names)
    for labels, value in values.items():
        family.add_metric(labels, float(value))
    return family


def _counter[K: tuple[str, ...]](
    name: str, text: str, values: Mapping[K, float], names: tuple[str, ...] = ()
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=names)
    for labels, value in values.items():
        family.add_metric(labels, float(value))
    return family
