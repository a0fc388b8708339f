"""What a page opens with: whether the watcher lives, and what a person should do something about, the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from stac_watch.config.model import Source
from stac_watch.report.health import Health
from stac_watch.report.status import Status
from stac_watch.report.times import span
from stac_watch.report.web.query import View

USUAL = ("answers", "has the ledger", "takes events", "its first round is under way")  # what a check says that finds nothing
LATE = timedelta(days=1)  # what waits longer is worth a look


@dataclass(frozen=True)
class Standing:
    """How the watcher does."""

    health: Health
    loop: Health  # whether its rounds end
    rounds: int  # that ended since it began
    answered: Mapping[str, datetime]  # when a source last answered


@dataclass(frozen=True)
class Notice:
    """One thing that a person should know of."""

    what: str
    bad: bool = True  # else it is only to be known
    command: str = ""  # what helps, or shows more
    href: str = ""  # the list that it is about


def alarm(standing: Standing, status: Status) -> str:
    """Returns why nothing moves now, in a sentence; empty while a watcher works."""
    if not standing.loop.ok:
        return f"The watcher hangs: {standing.loop.checks[0].said}. Nothing moves until it is started again."
    if standing.rounds and status.watcher is None:
        return "No watcher holds the ledger. Nothing moves until `stac-watch watch` runs."
    return ""


def notices(standing: Standing, status: Status, asked: View) -> list[Notice]:
    """Returns what needs attention in a view; failures are told in groups of their own."""
    found = [Notice(f"{c.name}: {c.said}", bad=not c.ok) for c in standing.health.checks if c.said not in USUAL]
    for source in status.sources:
        if asked.source not in (None, source.source):
            continue
        if source.backfill is not None and source.backfill.held:
            what = f"the backfill of {source.source} is held: {source.backfill.held}"
            found.append(Notice(what, command="the same command with --yes goes on"))
        if source.audited is not None and (gaps := [f"{n} {kind}" for kind, n in source.audited.gaps.items() if n]):
            start, end = source.audited.start, source.audited.end
            command = f"stac-watch audit {source.source} --start {start:%Y-%m-%d} --end {end:%Y-%m-%d}"
            found.append(Notice(f"the last audit of {source.source} found {', '.join(gaps)}", command=command))
    found += _waiting(status, asked)
    if status.unregistered:
        first = status.unregistered[0]
        why = first.reason or first.state.value
        found.append(Notice(f"not registered, the last: {first.item_id}: {why}", command="stac-watch register --failed --yes"))
    if status.unreadable:
        found.append(Notice(f"{status.unreadable:,} items cannot be read", command="stac-watch items --unreadable"))
    return sorted(found, key=lambda notice: not notice.bad)


def _waiting(status: Status, asked: View) -> Iterator[Notice]:
    late = [w for w in status.waiting if w.seconds > LATE.total_seconds()]
    if late:
        what = f"waits for {span(late[0].seconds)}: {late[0].line.item} ({late[0].why})"
        yield Notice(what, bad=False, href=asked.href(state=late[0].line.state, sort="waiting"))


def beginnings(standing: Standing, sources: Sequence[Source], now: datetime) -> list[str]:
    """Returns what happens next of each source while nothing was seen yet."""
    told = []
    for source in sources:
        every = span(source.poll.interval.total_seconds())
        last = standing.answered.get(source.name)
        if last is None:
            told.append(f"{source.name}: its first look at {source.api} is under way, or begins in a moment")
        else:
            ago = span((now - last).total_seconds())
            told.append(f"{source.name}: {source.api} answered {ago} ago and has nothing new; it is asked every {every}")
    return told
