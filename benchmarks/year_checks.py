"""What must hold at the end of a simulated year, whatever happened in it.

In: the year, run and drained. Out: a sentence for each thing that does not hold, and the gaps that an audit must find. Never: a
change.
"""

from __future__ import annotations

from datetime import timedelta

from year_catalog import API
from year_clock import START
from year_engine import ANOTHERS
from year_ledger import recount
from year_plan import Kind, evil_name, has_evil, is_native, name_of, number_of
from year_simulation import Year

from stac_watch.discover.items import read_item
from stac_watch.jobs import audit as auditing
from stac_watch.ledger.records import ConversionRow
from stac_watch.model.item import Item, SkipReason
from stac_watch.model.publication import PublicationState
from stac_watch.model.states import FINAL, State


def check(year: Year) -> list[str]:
    """Returns what does not hold, one sentence each."""
    wrong = [*year.cluster.wrong, *year.target.wrong]
    rows: dict[int, ConversionRow] = {}
    for row in _rows(year):
        i = number_of(row.item_id)
        if i in rows:
            wrong.append(f"{row.item_id} is twice in the ledger")
        rows[i] = row
        wrong += _item(year, i, row)
    known = set(rows)
    wrong += _registrations(year, rows)
    missing = (i for i in range(year.shape.items) if i not in known and _shows(year, i) and not unreadable(year, i))
    wrong += [f"{name_of(year.plan, i)} is not in the ledger" for i in missing]
    bad, expected = (
        {item for _, item, _ in year.operator.absences.unreadable()},
        {name_of(year.plan, i) for i in all_unreadable(year)} | evil(year),
    )
    wrong += [f"{item} is wrongly unreadable, or not" for item in sorted(bad ^ expected)]
    funnel = year.operator.counts.funnel()
    wrong += [f"{n} are {place.state} in the end" for place, n in funnel.items() if place.state not in FINAL]
    counted = recount(year.url)
    if funnel != counted:
        wrong.append(f"the funnel says {funnel}, counted are {counted}")
    return wrong


def _item(year: Year, i: int, row: ConversionRow) -> list[str]:
    """Returns what is wrong with an item's current conversion."""
    p, pub = year.plan, year.catalog.current[i]
    where = f"{row.item_id} ({row.key}, {row.state}, {row.reason})"
    if p.kind[pub] == Kind.GONE:
        return [] if row.state in (State.DONE, State.SKIPPED) else [f"{where} was withdrawn"]
    source = year.sources["native" if is_native(i) else "s2"]
    document, hosts = year.catalogs[source.name].document(i), source.hosts()
    item = read_item(document, collection=source.collection, api=API, on="content", allowed_hosts=hosts)
    if not isinstance(item, Item) or item.revision != row.revision:
        return [f"{where} is not of the item's last revision"]
    reason = SkipReason.DEPRECATED if p.kind[pub] == Kind.DEPRECATED else SkipReason.TOO_CLOUDY if p.cloudy[i] else None
    if reason is not None:
        return [] if (row.state, row.reason) == (State.SKIPPED, reason) else [f"{where} should be skipped as {reason}"]
    if p.hopeless[pub]:
        return [] if row.state is State.FAILED else [f"{where} should have failed"]
    found = []
    if row.state is State.FAILED and row.reason == ANOTHERS and year.cluster.owner[i] != year.installation:
        return []  # the other installation was there first, and its output stays
    if row.state is not State.DONE:
        found.append(f"{where} should be done")
    held = year.cluster.holds[i]  # of an earlier publication where the item came back to its product before anybody looked
    if held < 0 or p.version[held] != p.version[pub]:
        found.append(f"{where} is done, and its output is of another revision")
    elif year.cluster.results[held] != 1:
        found.append(f"{where} has {year.cluster.results[held]} results")
    return found


def _rows(year: Year) -> list[ConversionRow]:
    """Returns every item's current conversion."""
    until = START + timedelta(days=year.shape.days + 1)
    return [row for name in year.sources for row in year.operator.items.within(name, START, until)]


def _shows(year: Year, i: int) -> bool:
    """Tells whether a collection shows an item in the end."""
    return year.catalog.shows(i) or year.natives.shows(i)


def _registrations(year: Year, rows: dict[int, ConversionRow]) -> list[str]:
    """Returns what is wrong with what readers of the target find: it is what lies under the outputs' names, and all of that."""
    p, made, wrong = year.plan, year.target.made, list[str]()
    for i, row in rows.items():
        gone, done = p.kind[year.catalog.current[i]] == Kind.GONE, row.state is State.DONE
        told = {one.state for one in year.operator.publications.of(row.item_id)}
        where = f"{row.item_id} ({row.key}, {row.state}, registered as of {made.get(i)}, {', '.join(told) or 'no publication'})"
        if gone and i in made:
            wrong.append(f"{where} is gone, and was to be taken out of the target")
        if not gone and done and (i not in made or told != {PublicationState.REGISTERED}):
            wrong.append(f"{where} is done, and is not registered")
        if i in made and (made[i] != year.cluster.finished(i) or year.cluster.owner[i] != year.installation):
            wrong.append(f"{where} is registered as another output than that of {year.cluster.finished(i)}")
    return wrong + [f"{name_of(p, i)} is registered, and not in the ledger" for i in made.keys() - rows.keys()]


def unreadable(year: Year, i: int) -> bool:
    """Tells whether an item has no product's href in the end."""
    return _shows(year, i) and year.plan.kind[year.catalog.current[i]] == Kind.UNREADABLE


def evil(year: Year) -> set[str]:
    """Returns the ids of the evil items that the catalog shows in the end."""
    return {evil_name(year.plan, i) for i in range(year.shape.items) if has_evil(i) and year.catalog.current[i] >= 0}


def all_unreadable(year: Year) -> list[int]:
    """Returns the items that must be unreadable in the end."""
    return [i for i in range(year.shape.items) if unreadable(year, i)]


def foreseen(year: Year) -> set[tuple[str, str]]:
    """Returns the gaps that an audit must find, and no others: what can never be converted, and what is done and was withdrawn."""
    p = year.plan
    found = {(auditing.GapKind.UNREADABLE.value, name_of(p, i)) for i in all_unreadable(year)}
    found |= {(auditing.GapKind.UNREADABLE.value, name) for name in evil(year)}
    for row in _rows(year):
        i = number_of(row.item_id)
        if p.kind[year.catalog.current[i]] == Kind.GONE and row.state not in (State.SKIPPED, State.DONE):  # what is done is retired
            found.add((auditing.GapKind.GONE.value, row.item_id))
        elif row.state is State.FAILED and (p.hopeless[year.catalog.current[i]] or row.reason == ANOTHERS):
            found.add((auditing.GapKind.FAILED.value, row.item_id))
    return found
