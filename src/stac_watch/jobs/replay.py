"""Tries again what people name: by id, by state, by error, from a file; or posts one stored event once more.

A selection becomes targets, each with what would be done or the reason why not. What is on its way is not moved, nor an older
revision; an item that the ledger does not know is taken from the catalog, and from nowhere else. What was asked for with another
recipe than today's becomes a conversion of its own, unless it is wanted as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from stac_watch.config.model import Source
from stac_watch.discover.intake import Comparison, Intake
from stac_watch.discover.recipes import as_of_now, asked_by, asked_now, differences, is_as_of_now
from stac_watch.discover.revisions import HELD
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow, Move, Sighting
from stac_watch.ledger.session import StaleState
from stac_watch.model.errors import Exit, InputError
from stac_watch.model.event import fence_of, parse_event
from stac_watch.model.files import fault
from stac_watch.model.identity import event_id
from stac_watch.model.item import ItemDocument, SkipReason
from stac_watch.model.states import FINAL, Fact, State
from stac_watch.runs.engine import Answer, Engine, Receipt

MOST = 100_000  # conversions of one selection
FROM_CATALOG = frozenset({"missing", "stale"})
"""Kinds of an audit's gaps that the catalog is asked about first: there is a revision that the ledger does not have."""


@dataclass(frozen=True)
class Wish:
    """One item that somebody names; `source` and `kind` where it comes from an audit."""

    item: str
    source: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class ReplayTarget:
    """One item, and what becomes of it."""

    item: str
    source: str
    key: str | None
    state: State | None
    action: str  # what is or would be done; empty when refused
    refusal: str | None

    @property
    def from_catalog(self) -> bool:
        """The catalog is asked for it."""
        return self.refusal is None and self.key is None


def wishes(path: Path) -> list[Wish]:
    """Reads a file of ids, keys, or an audit's lines.

    Raises:
        InputError: it cannot be read, or a line is neither.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {fault(error)}", hint="one id, key or line of `audit --file` per line") from None
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            found.append(_wish(text, f"{path}, line {number}"))
    return found


def _wish(text: str, where: str) -> Wish:
    if not text.startswith("{"):
        return Wish(text)
    try:
        entry = json.loads(text)
        return Wish(str(entry["item"]), str(entry["source"]), str(entry["kind"]))
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{where} is not a line of an audit", hint="`stac-watch audit … --file F` writes such files") from None


def held(source: str, ledger: Ledger) -> list[Wish]:
    """Returns what is held because nothing but the host of its product changed: whoever asks for it has decided."""
    return [
        Wish(item, source, "stale") for name, item, why in ledger.absences.unreadable() if name == source and why.startswith(HELD)
    ]


type Recipes = Mapping[str, Intake]
"""Sources by name whose recipe of now counts; what is of none of them is asked for as it was."""
AS_THEY_WERE: Recipes = MappingProxyType({})


def chosen(
    rows: Iterable[ConversionRow], ledger: Ledger, recipes: Recipes = AS_THEY_WERE, *, urgent: bool = False
) -> list[ReplayTarget]:
    """Returns what a replay of these conversions would do."""
    return [_target(row, ledger, recipes, urgent=urgent) for row in rows]


def preview(targets: Sequence[ReplayTarget], intakes: Mapping[str, Intake]) -> list[ReplayTarget]:
    """Returns the targets with what the catalog says of those that it would be asked for; nothing is written.

    Raises:
        CatalogUnavailable: a catalog gives no usable answer.
    """
    results = [t for t in targets if not t.from_catalog]
    for name in dict.fromkeys(t.source for t in targets if t.from_catalog):
        ids = [t.item for t in targets if t.from_catalog and t.source == name]
        intakes[name].ensure_abilities()
        documents = intakes[name].catalog.fetch(ids)
        refused, taken = _verdicts(ids, intakes[name].source, documents, intakes[name].compare(documents, "replay"))
        results += refused + taken
    return results


def named(
    names: Sequence[Wish],
    ledger: Ledger,
    sources: Sequence[str],
    recipes: Recipes = AS_THEY_WERE,
    *,
    urgent: bool = False,
) -> list[ReplayTarget]:
    """Returns what a replay of items by whatever names them would do, in their order, each once.

    `urgent` includes those that are queued: they go out now, and not at the time that they wait for.

    Raises:
        InputError: a name may be several items.
    """
    found: dict[tuple[str, str], ReplayTarget] = {}
    for wish in names:
        for target in _of_wish(wish, ledger, sources, recipes, urgent=urgent):
            found.setdefault((target.source, target.key or target.item), target)
    return list(found.values())


def _of_wish(wish: Wish, ledger: Ledger, sources: Sequence[str], recipes: Recipes, *, urgent: bool) -> list[ReplayTarget]:
    rows = [r for r in _meant(wish, ledger) if wish.source in (None, r.source)]
    if rows and wish.kind not in FROM_CATALOG:
        return [_target(row, ledger, recipes, urgent=urgent) for row in rows]
    where = wish.source or (sources[0] if len(sources) == 1 else None)
    if where is None or where not in sources:
        why = f"the ledger does not know it, and there are several sources: {', '.join(sources)}"
        return [ReplayTarget(wish.item, wish.source or "", None, None, "", why)]
    return [ReplayTarget(wish.item, where, None, None, "read from the catalog and admitted", None)]


def _meant(wish: Wish, ledger: Ledger) -> list[ConversionRow]:
    """Returns a key's conversion, whatever its revision, and otherwise those of the item's current one."""
    by_key = ledger.conversions.get(wish.item)
    if by_key is not None:
        return [by_key]
    called = ledger.conversions.called(wish.item) if wish.kind is None else ledger.conversions.find(item_id=wish.item)
    return [row for row in called if not ledger.conversions.superseded(row)]


def _target(row: ConversionRow, ledger: Ledger, recipes: Recipes, *, urgent: bool = False) -> ReplayTarget:
    why = None
    if row.state is State.QUEUED:
        if urgent:
            return ReplayTarget(row.item_id, row.source, row.key, row.state, f"attempt {row.attempt} goes out now", None)
        why = "it is already queued; --now sends it at once"
    elif row.state not in FINAL:
        why = f"it is {row.state.value}, already in progress"
    elif ledger.conversions.superseded(row):
        why = f"revision {row.revision} is not the item's current one"
    elif row.state is State.SKIPPED and row.reason in (SkipReason.WITHDRAWN, SkipReason.SUPERSEDED, SkipReason.DEPRECATED):
        why = f"it is skipped as {row.reason}"
    action = "" if why else f"attempt {row.attempt + 1}" + (", converts again" if row.state is State.DONE else "")
    if not why and (found := renewed(row, ledger, recipes)) is not None:
        action = f"a new conversion with the current recipe ({'; '.join(found[1])})"
    return ReplayTarget(row.item_id, row.source, row.key, row.state, action, why)


def renewed(row: ConversionRow, ledger: Ledger, recipes: Recipes) -> tuple[Sighting, list[str]] | None:
    """Returns what a conversion would be with the recipe of now, and what is different then; None where it is that already."""
    intake = recipes.get(row.source)
    if intake is None or is_as_of_now(row, intake.source, intake.recipe):
        return None
    item, body = ledger.items.get(row), ledger.items.last_events([row.key]).get(row.key)
    if item is None or body is None:
        return None
    known = ledger.items.known(row.source, [row.item_id]).get(row.item_id)
    now = as_of_now(row, item, known, body, intake.source, intake.recipe)
    now = replace(now, conversion=replace(now.conversion, installation=intake.installation))
    different = differences(asked_by(body), asked_now(now.conversion))
    return (now, different) if different else None


def fit_for_empty(targets: Iterable[ReplayTarget], ledger: Ledger) -> list[ReplayTarget]:
    """Refuses those that the wish to take missing chunks for nodata cannot reach any more, or not yet."""
    results = []
    for target in targets:
        why = None
        if target.from_catalog:
            why = "it is read from the catalog anew; replay it without --allow-empty, and again with it when chunks are missing"
        elif target.state is State.QUEUED and target.refusal is None:
            waits = ledger.outbox.of([target.key or ""]).get(target.key or "")
            if waits is None or waits.posts:
                why = "its event has gone out, and is not changed any more; --allow-empty reaches it when that run has ended"
        results.append(target if why is None else replace(target, action="", refusal=why))
    return results


def execute(
    targets: Sequence[ReplayTarget],
    ledger: Ledger,
    intakes: Mapping[str, Intake],
    now: Callable[[], datetime],
    *,
    allow_empty: bool = False,
    as_was: bool = False,
) -> list[ReplayTarget]:
    """Does what the targets say; returns them as they turned out.

    Args:
        targets: what to do.
        ledger: where.
        intakes: by source.
        now: the clock.
        as_was: the recipe is the one that each had, not that of now.
        allow_empty: the runs take chunks that are missing for nodata; what that does not reach is refused (`fit_for_empty`).

    Raises:
        CatalogUnavailable: a catalog gives no usable answer; what was moved before stays moved.
    """
    hosts = {name: ",".join(intake.source.hosts()) for name, intake in intakes.items()}
    recipes = AS_THEY_WERE if as_was else intakes
    targets = fit_for_empty(targets, ledger) if allow_empty else targets
    mine = [t for t in targets if not t.from_catalog]
    results = [_again(t, ledger, recipes, hosts.get(t.source, ""), now(), allow_empty=allow_empty) for t in mine]
    for name in dict.fromkeys(t.source for t in targets if t.from_catalog):
        results += _fetched([t.item for t in targets if t.from_catalog and t.source == name], intakes[name])
    return results


def _again(
    target: ReplayTarget, ledger: Ledger, recipes: Recipes, hosts: str, now: datetime, *, allow_empty: bool = False
) -> ReplayTarget:
    row = ledger.conversions.get(target.key or "")
    if target.refusal is not None or row is None:
        return target
    try:
        current = _target(row, ledger, recipes, urgent=target.state is State.QUEUED)
        if current.refusal is not None:
            return current
        if row.state is State.QUEUED:
            if ledger.outbox.hasten(row.key, now, allow_empty=allow_empty):
                return current
            return replace(current, action="", refusal="it moved meanwhile")
        if (found := renewed(row, ledger, recipes)) is not None:
            return _anew(row, found[0], ledger, now, allow_empty=allow_empty)
        again = row.state is State.DONE  # whoever asks for what is done wants it made again, not to hear that it is done
        # what met a later revision's output that the ledger knows nothing of: a person says that this is the one
        fence = fence_of(None, now, row.fence or "") if row.exit_code == Exit.SUPERSEDED else ""
        asked = Move(
            Fact.REPLAYED, "a person asked for it", lane="replay", overwrite=again, allow_empty=allow_empty,
            allowed_hosts=hosts, fence=fence,
        )  # fmt: skip
        ledger.conversions.move(row, asked, now)
    except StaleState:
        return ReplayTarget(row.item_id, row.source, row.key, row.state, "", "it moved meanwhile")
    return ReplayTarget(row.item_id, row.source, row.key, State.QUEUED, f"attempt {row.attempt + 1}", None)


def _verdicts(
    ids: Sequence[str], source: Source, documents: Sequence[ItemDocument], seen: Comparison
) -> tuple[list[ReplayTarget], list[ReplayTarget]]:
    """Returns the items that the catalog's answer or the rules refuse, and those that are taken."""
    bad = {entry.item_id: entry.why for entry in seen.unreadable}
    skipped = {s.item.item_id: f"the source's rules skip it: {s.skip}" for s in seen.sightings if s.skip is not None}
    shown = {str(document.get("id")) for document in documents}
    refused, taken = [], []
    for item in ids:
        why = bad.get(item) or skipped.get(item) if item in shown else f"catalog {source.api} has no such item"
        if why is None:
            taken.append(ReplayTarget(item, source.name, None, None, "taken as the catalog shows it now", None))
        else:
            state = State.SKIPPED if item in skipped else None
            refused.append(ReplayTarget(item, source.name, None, state, "", why))
    return refused, taken


def _anew(row: ConversionRow, asked: Sighting, ledger: Ledger, now: datetime, *, allow_empty: bool) -> ReplayTarget:
    if allow_empty:
        options = {**asked.conversion.options, "allow_empty": "true"}
        asked = replace(asked, conversion=replace(asked.conversion, options=options))
    key = asked.conversion.key
    ledger.items.commit(row.source, [asked], [], None, now)
    made = ledger.conversions.get(key)
    if made is None or made.state in FINAL:
        return ReplayTarget(row.item_id, row.source, row.key, row.state, "", "it moved meanwhile")
    return ReplayTarget(row.item_id, row.source, key, made.state, f"attempt {made.attempt} with the recipe of now", None)


def _fetched(ids: Sequence[str], intake: Intake) -> list[ReplayTarget]:
    """Reads items from the catalog, and admits those that the rules admit; one that did not change is tried again."""
    intake.ensure_abilities()
    source, ledger = intake.source, intake.ledger
    documents = intake.catalog.fetch(ids)
    seen = intake.compare(documents, "replay")
    results, admitted = _verdicts(ids, source, documents, seen)
    intake.commit(seen)
    rows = ledger.items.current(source.name, ids)
    moved = {s.item.item_id for s in seen.sightings}
    for target in admitted:
        row = rows.get(target.item)
        if target.item in moved and row is not None:
            results.append(ReplayTarget(target.item, source.name, row.key, row.state, f"attempt {row.attempt}", None))
        elif row is not None:
            again = _target(row, ledger, AS_THEY_WERE)
            results.append(_again(again, ledger, AS_THEY_WERE, ",".join(source.hosts()), intake.now()))
    return results


# -- one event as it is --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """An event in a file, compared with the ledger."""

    event: str
    item: str
    state: State | None
    note: str


def stored(body: bytes, ledger: Ledger) -> Stored:
    """Compares an event with what the ledger has.

    Raises:
        InputError: it is no event of ours, the ledger does not know it, or has another one under its id.
    """
    document = parse_event(body)
    data, row = document["data"], ledger.conversions.get(document["data"]["key"])
    bodies = {parse_event(b)["id"]: b for b in ledger.conversions.events(data["key"])}
    hint = "`stac-watch event ITEM` prints the one that is stored; `stac-watch send FILE` posts anything"
    if row is not None and data["attempt"] < row.attempt and document["id"] not in bodies:
        raise InputError(f"the ledger has event {document['id']} no more: `ledger prune` keeps the last one", hint=hint)
    if row is None or document["id"] not in bodies:
        raise InputError(f"the ledger has no event {document['id']}", hint=hint)
    if bodies[document["id"]] != body:
        raise InputError(f"event {document['id']} is not byte for byte the one that the ledger has", hint=hint)
    note = "the same run is meant: where it exists nothing happens"
    if data["attempt"] != row.attempt:
        note = f"attempt {row.attempt} is the current one; a run of this one is not looked for"
    elif row.state in FINAL:
        note = f"it is {row.state.value}; a run of it is not looked for (`stac-watch replay {row.item_id}` makes the next attempt)"
    return Stored(document["id"], row.item_id, row.state, note)


def read_event(path: Path) -> bytes:
    """Reads an event's bytes from a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="`stac-watch event ITEM > FILE` writes one") from None


def repost(body: bytes, ledger: Ledger, engine: Engine, now: datetime) -> Receipt:
    """Posts an event as it is; the ledger notes it where it waited for just that.

    Raises:
        InputError: not an event of ours.
        Refused: the engine takes nothing until a person acts.
    """
    data = parse_event(body)["data"]
    receipt = engine.submit(body)
    row = ledger.conversions.get(data["key"])
    waits = (
        row is not None and row.state is State.QUEUED and event_id(row.key, row.attempt) == event_id(data["key"], data["attempt"])
    )
    if row is not None and waits and receipt.answer is Answer.ACCEPTED:
        ledger.conversions.move(row, Move(Fact.ACCEPTED, "posted by a person"), now)
    return receipt
