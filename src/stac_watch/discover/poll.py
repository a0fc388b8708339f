"""One look at what a catalog published since the last one.

The cursor moves with the items of its window, in one transaction, and never past a window that was not read completely.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from stac_watch.catalog.abilities import EXPENSIVE
from stac_watch.catalog.client import Catalog
from stac_watch.catalog.http import BadAnswer, Rejected
from stac_watch.catalog.reader import leaves
from stac_watch.catalog.windows import advance, next_window
from stac_watch.config.model import Recipe, Source
from stac_watch.discover.intake import add, commit, ensure_abilities, heal, look, note_lateness
from stac_watch.discover.overlap import overlap_of
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Tally


def discover(source: Source, recipe: Recipe, catalog: Catalog, ledger: Ledger, now: Callable[[], datetime]) -> Tally:
    """Reads everything that changed since the cursor, window by window; each is committed before the next is asked.

    Raises:
        CatalogUnavailable: no usable answer; what was committed stays, the cursor stands before the window that failed.
        ConfigError: there is no such collection.
    """
    ensure_abilities(source, catalog, ledger, now())
    try:
        return _poll(source, recipe, catalog, ledger, now)
    except (Rejected, BadAnswer):
        ledger.sources.invalidate_abilities(source.name)
        raise


def _poll(source: Source, recipe: Recipe, catalog: Catalog, ledger: Ledger, now: Callable[[], datetime]) -> Tally:
    stamp, server_now = catalog.abilities.stamp, catalog.clock()
    name = f"{source.name}:{stamp}"
    origin = ledger.sources.position(f"{source.name}:origin")
    if origin is None:
        origin = min(server_now, now()) - source.poll.since  # a `Date` that is ahead once would make all until then no news
        ledger.sources.set_position(f"{source.name}:origin", origin, now())
    before = _position(ledger, name, server_now, now())
    start, floor = _reach(source, catalog, ledger, server_now, now())
    window = next_window(
        stamp, start or before or origin, overlap_of(source, stamp, ledger.sources.lateness(source.name)), server_now, origin=origin
    )
    cursor, total = before or origin, Tally()
    for leaf in leaves(catalog, window, source.poll.page, floor=floor):
        cursor = advance(cursor, leaf.window, leaf.server_now)
        seen = look(leaf.documents, source, recipe, ledger, now(), lane="live")
        total = add(total, commit(seen, leaf.hidden, source, ledger, now(), cursor=(name, cursor)))
        heal(seen, leaf, source, ledger, whole=floor is None)
        if before is not None:
            note_lateness(source, ledger, before, seen.fresh)
    if floor is None and catalog.abilities.idle > EXPENSIVE:
        ledger.sources.set_position(f"{name}:all", cursor, now())
    return total


def _position(ledger: Ledger, name: str, server_now: datetime, now: datetime) -> datetime | None:
    """Returns a cursor, the server's time where it lies in the future: a `Date` that was wrong once would blind us until then.

    Both clocks must say so: a server's that is behind once would take the cursor back to before the watch.
    """
    position = ledger.sources.position(name)
    if position is None or position <= max(server_now, now):
        return position
    ledger.sources.set_position(name, server_now, now)
    return server_now


def _reach(
    source: Source, catalog: Catalog, ledger: Ledger, server_now: datetime, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """Returns where an unusual window starts, and the acquisition time that a usual one is limited to.

    Without an index on the stamp a query costs 0.6-1.2 s per 100,000 items on pgstac, with a limit on the acquisition time a
    tenth of it. So polls have that limit, and once per sweep one goes without it, from where the last such one ended.
    """
    a = catalog.abilities
    if a.idle <= EXPENSIVE or a.stamp == "datetime":
        return None, None
    last = _position(ledger, f"{source.name}:{a.stamp}:all", server_now, now)
    if last is None or server_now - last >= source.poll.sweep:
        return last, None
    return None, server_now - source.poll.sweep_back
