"""What a watcher says while it works: the live picture on a terminal, and sentences in a log, each piece of news once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stac_watch.config.model import OURS
from stac_watch.ledger.records import Place, Tally
from stac_watch.model.causes import fingerprint
from stac_watch.model.errors import StacWatchError
from stac_watch.model.identity import parse_product_id, title_of
from stac_watch.model.stamps import parse_stamp
from stac_watch.model.states import Fact, State
from stac_watch.report.lines import STYLE, Line, one_line
from stac_watch.report.times import span
from stac_watch.report.totals import skipped_of, states_of

_FIRST = (State.RUNNING, State.SUBMITTED, State.QUEUED, State.FAILED, State.DONE, State.EXPIRED, State.SKIPPED)


def watching(
    lines: Iterable[Line], problems: Mapping[str, StacWatchError], standby: str = "", totals: Sequence[str] = ()
) -> RenderableType:
    """Returns the live picture of a watcher: totals by source, what runs, waits and ended, and what is wrong."""
    notes = [Text(trouble(name, error), style="yellow") for name, error in problems.items()]
    notes += [Text(waiting(standby), style="yellow")] if standby else []
    return Group(*(Text(total, style="bold") for total in totals), *notes, _table(lines))


def _table(lines: Iterable[Line]) -> Table:
    """Returns a row of one line for each conversion, first what runs and waits: a small screen cuts the end."""
    result = Table(header_style="bold", expand=True)
    for column in ("item", "state", "for", "attempt"):
        result.add_column(column, no_wrap=True, justify="right" if column in ("for", "attempt") else "left")
    result.add_column("stage", no_wrap=True, overflow="ellipsis", ratio=1)  # takes what the others leave
    for entry in sorted(lines, key=lambda entry: _FIRST.index(entry.state)):
        state = Text(entry.state.value, style=STYLE[entry.state])
        stage = Text(one_line(entry.stage))
        result.add_row(Text(_titled(entry.item)), state, span(entry.seconds), str(entry.attempt), stage)
    return result


def _titled(item_id: str) -> str:
    parts = parse_product_id(item_id)
    sensed = parse_stamp(parts["sensing"]) if parts else None
    return title_of(item_id, sensed).rpartition(" N")[0] if sensed else item_id


def total(source: str, funnel: Mapping[Place, int], every: timedelta) -> str:
    """Returns one line that says where the conversions of a source are, and how often its catalog is asked."""
    mine = {place: n for place, n in funnel.items() if place.source == source}
    counts = [f"{n} {state}" for state, n in states_of(mine).items() if n and state != State.SKIPPED]
    return f"{source}: {' · '.join(counts + _skipped(mine)) or 'nothing yet'} · asked every {span(every.total_seconds())}"


def _skipped(funnel: Mapping[Place, int]) -> list[str]:
    reasons = skipped_of(funnel)
    return [f"{sum(reasons.values())} skipped ({', '.join(reasons)})"] if reasons else []


def ended(sources: int, moved: Mapping[Place, int], failed: str | None) -> str:
    """Returns the last line of a round: what became of what it found, and the next command; `failed` is an item that did."""
    counts = [f"{n} {state}" for state, n in states_of(moved).items() if n and state != State.SKIPPED]
    said = f"asked {sources} source{'s' if sources != 1 else ''}: {', '.join(counts + _skipped(moved)) or 'nothing new'}"
    if failed is not None:
        return f"{said}\n  → `stac-watch explain {failed}` says why; `stac-watch status` groups failures by cause"
    return f"{said}\n  → `stac-watch items --state done` lists the outputs" if "done" in said else said


def trouble(name: str, error: StacWatchError) -> str:
    """Returns one line about a source, the engine or the ledger that gives no answer; nothing is lost meanwhile."""
    remedy = f" ({error.hint})" if error.hint else ""
    return f"{_who(name)}: {error.message}{remedy}; asked again"


def over(name: str) -> str:
    """Returns the line that ends a trouble."""
    return f"{_who(name)}: answers again"


def _who(name: str) -> str:
    return name if name in OURS else f"source {name}"


@dataclass(frozen=True)
class News:
    """What is said once and not in every round."""

    begun: Mapping[str, StacWatchError]  # trouble that began, or says something else than before
    ended: Sequence[str]  # names of what works again
    standby: str | None  # who has the ledger now, empty when it is this watcher; None when that is nothing new


class Troubles:
    """Which of a round's troubles are news."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._standby: str | None = None

    def news(self, ailing: Mapping[str, StacWatchError], standby: str = "") -> News:
        """Returns what the round before had not; counts and times make no other trouble."""
        changed = standby if standby != self._standby else None
        self._standby = standby
        if standby:  # it asks nobody: what was wrong is not over
            return News({}, (), changed)
        before, self._said = self._said, {name: fingerprint(error.message) for name, error in ailing.items()}
        begun = {name: ailing[name] for name, text in self._said.items() if before.get(name) != text}
        return News(begun, sorted(before.keys() - self._said.keys()), changed)


def waiting(standby: str) -> str:
    """Returns the line of a watcher that waits for another one's end."""
    return f"standby: {standby} has this ledger; this one takes over when it ends, or 30 s after it is killed"


def sentence(tallies: Mapping[str, Tally], facts: Mapping[Fact, int], accepted: int, unknown: int) -> str:
    """Returns one line that says what a tick moved."""
    parts = [
        f"{name}: {t.admitted} admitted, {t.skipped} skipped, {t.unreadable} unreadable"
        for name, t in tallies.items()
        if t.admitted or t.skipped or t.unreadable
    ]
    if any(t.unreadable for t in tallies.values()):
        parts.append("`stac-watch items --unreadable` says why")
    parts += [f"{n} {fact.value.replace('_', ' ')}" for fact, n in facts.items()]
    parts += [f"{accepted} sent"] if accepted else []
    parts += [f"{unknown} without a clear answer, sent again later"] if unknown else []
    return "; ".join(parts) or "nothing new"
