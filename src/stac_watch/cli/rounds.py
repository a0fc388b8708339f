"""What `watch` shows of its rounds: a table on a terminal, a sentence for each that moved something elsewhere, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.live import Live

from stac_watch import app
from stac_watch.model.errors import Exit, Refused, Temporary
from stac_watch.model.states import State
from stac_watch.report.lines import Line
from stac_watch.report.log import as_line, over_line, standby_line, trouble_line
from stac_watch.report.watching import News, Troubles, ended, over, sentence, total, trouble, waiting, watching
from stac_watch.watch.loop import Parts, Tick, Watcher


def watch_on(parts: Parts, report: Callable[[Tick], None], note: Callable[[Tick], None]) -> int:
    """Loops until a signal; a stop by SIGTERM is an orderly end."""

    def told(tick: Tick) -> None:
        note(tick)
        report(tick)

    Watcher(parts).run(told)
    return Exit.OK


def watch_once(parts: Parts, *, as_json: bool) -> int:
    """Returns 0 when everything that was due ended well, 1 when something has failed, 130 when interrupted."""
    started = parts.now()
    with reporter(parts, as_json=as_json) as report:
        if not Watcher(parts).drain(report):
            return Exit.INTERRUPTED
    failed = parts.ledger.conversions.find(state=State.FAILED, since=started, limit=1)
    if not as_json:
        said = ended(len(parts.sources), parts.ledger.counts.moved_since(started), failed[0].item_id if failed else None)
        print(said, flush=True)
    return Exit.NOT_ALL_WELL if failed else Exit.OK


@contextmanager
def reporter(parts: Parts, *, as_json: bool) -> Iterator[Callable[[Tick], None]]:
    """Yields what shows a tick: JSON if that is asked for, a live table on a terminal, a line per change elsewhere."""
    console, troubles = Console(markup=False, emoji=False), Troubles()
    if as_json:
        parts.ledger.listen(lambda moved: _write(as_line(moved)))
        yield lambda tick: write_news(troubles.news(tick.ailing, tick.standby), parts.now())
        return
    if not console.is_terminal:
        yield lambda tick: print_tick(tick, troubles.news(tick.ailing, tick.standby))
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield lambda tick: live.update(watching(_lines(parts), tick.ailing, tick.standby, _totals(parts)))


def _totals(parts: Parts) -> list[str]:
    """Returns a line for each source; none while the ledger does not answer."""
    try:
        funnel = parts.ledger.counts.funnel()
    except (Temporary, Refused):
        return []
    return [total(source.name, funnel, source.poll.interval) for source in parts.sources]


def _lines(parts: Parts) -> list[Line]:
    """Returns the table's lines; none while engine or ledger do not answer, which the tick says."""
    try:
        return app.lines(parts)
    except (Temporary, Refused):
        return []


def write_news(news: News, now: datetime) -> None:
    """Writes what is wrong as JSON; what moved was written when it was committed."""
    for name, problem in news.begun.items():
        _write(trouble_line(name, problem, now))
    for name in news.ended:
        _write(over_line(name, now))
    if news.standby:
        _write(standby_line(news.standby, now))


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")  # in one piece: sources commit in threads of their own
    sys.stdout.flush()


def print_tick(tick: Tick, news: News) -> None:
    """Prints what a tick moved; nothing when nothing moved."""
    for name, problem in news.begun.items():
        print(trouble(name, problem), flush=True)
    for name in news.ended:
        print(over(name), flush=True)
    if news.standby:
        print(waiting(news.standby), flush=True)
    if not tick.standby and not tick.idle:
        print(sentence(tick.tallies, tick.facts, tick.sent.accepted, tick.sent.unknown), flush=True)
