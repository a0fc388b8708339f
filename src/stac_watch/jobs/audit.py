"""Looks for what is missing, stale or doubled: catalog, ledger, runs and outputs side by side, over a range of acquisition times.

Each gap has its kind and its remedy; a file of them is what `replay --file` takes. An audit changes nothing, and does not count as
well what it could not look at.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from stac_watch.discover.intake import Intake
from stac_watch.jobs.replay import renewed
from stac_watch.ledger.records import ConversionRow, Sighting
from stac_watch.model.errors import Unavailable, write_failure
from stac_watch.model.files import replace_file
from stac_watch.model.item import Retirement
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import FINAL, State
from stac_watch.runs.engine import Engine, Phase, Run
from stac_watch.runs.expiry import is_gone
from stac_watch.runs.markers import Damage

READERS = 16  # markers read at once: each is one small object
KEYS = 500  # conversions whose runs are asked for at once
WHOLE = Damage()


class GapKind(StrEnum):
    """Everything that an audit finds wrong; documented in docs/backfill-and-replay.md."""

    MISSING = "missing"  #: in the catalog and wanted, and the ledger does not know it, or skipped it
    STALE = "stale"  #: the catalog or the output has another revision than the ledger
    FAILED = "failed"  #: the conversion failed
    UNFINISHED = "unfinished"  #: on its way
    LOST = "lost"  #: done, and its output is not there
    DAMAGED = "damaged"  #: done, and something of its output is not there, or not what was written
    UNVERIFIED = "unverified"  #: done, and neither a marker nor the run's outcome says so
    DOUBLED = "doubled"  #: two runs at once for one conversion, or two items with one output
    DRIFTED = "drifted"  #: done and whole, but with another recipe, at another place, or by another runner than now
    EXPIRED = "expired"  #: it was done, and its only copy went with its run's volume
    GONE = "gone"  #: no longer in the catalog, and not done, or `on_gone` asks for more than to keep its output
    UNREADABLE = "unreadable"  #: in the catalog, and cannot be acted on
    UNREGISTERED = "unregistered"  #: done, and its item is not in the catalog of outputs
    MISREGISTERED = "misregistered"  #: the catalog of outputs has the item of an earlier output
    FOREIGN = "foreign"  #: in the catalog of outputs, and no output of ours


REMEDY = {
    GapKind.MISSING: "replay",
    GapKind.STALE: "replay",
    GapKind.FAILED: "see `stac-watch explain`, then replay",
    GapKind.LOST: "replay",
    GapKind.DAMAGED: "replay",
    GapKind.UNVERIFIED: "replay",
    GapKind.DRIFTED: "replay, or backfill the range",
    GapKind.EXPIRED: "replay",
    GapKind.UNFINISHED: "wait; `stac-watch explain` says for what",
    GapKind.DOUBLED: "stop one of the two runs",
    GapKind.GONE: "`stac-watch retire` does what `on_gone` says",
    GapKind.UNREADABLE: "tell the catalog",
    GapKind.UNREGISTERED: "`stac-watch register ITEM --yes`",
    GapKind.MISREGISTERED: "`stac-watch register ITEM --yes`",
    GapKind.FOREIGN: "is it somebody else's? else remove it there",
}
REPLAYABLE = (
    GapKind.MISSING, GapKind.STALE, GapKind.FAILED, GapKind.LOST, GapKind.DAMAGED, GapKind.UNVERIFIED, GapKind.DRIFTED,
    GapKind.EXPIRED,
)  # fmt: skip


@dataclass(frozen=True)
class Gap:
    """One thing that is wrong."""

    kind: GapKind
    source: str
    item: str
    key: str | None
    state: State | None
    why: str
    remedy: str
    objects: tuple[str, ...] = ()  # of its output, that are not what was written; found by a deep audit


@dataclass(frozen=True)
class Audit:
    """What an audit found."""

    source: str
    start: datetime
    end: datetime
    at: datetime
    items: int  # in the catalog
    done: int  # verified: by marker or outcome
    unseen: int  # of them: the output could not be looked at from here, and counts because its run's outcome says so
    checked: int  # of them: every byte of the output was compared with its checksum
    skipped: int
    retired: int  # done, verified, and no longer in the catalog: their outputs stay, as `on_gone` says
    kinds: dict[str, int]
    gaps: list[Gap]


@dataclass(frozen=True)
class Evidence:
    """What shows whether the ledger is right: runs and outputs."""

    engine: Engine
    find_marker: Callable[[str], Outcome | None]  # raises Unavailable where it cannot look
    visible: Callable[[str], bool]  # whether an output lies where its marker can be read
    damage: Callable[[str, Outcome], Damage] = lambda *_: WHOLE  # what is not there of what a marker says; raises Unavailable
    volumes: Callable[[], Collection[str]] | None = None  # of runs, by their names; None where outputs lie on no run's volume
    give_up: Callable[[], None] = lambda: None  # told when nobody waits for answers any more


@dataclass(frozen=True)
class Looked:
    """What lies under an output's name."""

    marker: Outcome | None = None
    visible: bool = False  # whether it could be looked for
    damage: Damage = WHOLE


def audit(
    intake: Intake,
    evidence: Evidence,
    start: datetime,
    end: datetime,
    expect: Callable[[int], None] = lambda _: None,
    *,
    runner: str = "",
) -> Audit:
    """Compares a range of acquisition times.

    `expect` is told the bytes that the outputs there should have, packages included; `runner` is the release that they should be
    of, empty = any.

    Raises:
        CatalogUnavailable: no usable answer.
        Temporary: the engine does not answer.
    """
    intake.ensure_abilities()
    source, ledger = intake.source.name, intake.ledger
    shown, gaps = _against_catalog(intake, start, end)
    named = {gap.item for gap in gaps}
    volumes = evidence.volumes() if evidence.volumes is not None else None
    done = skipped = unseen = checked = retired = 0
    owners: dict[str, list[ConversionRow]] = defaultdict(list)
    rows = list(ledger.items.within(source, start, end))
    expect(sum(_bytes_of(row) for row in rows))
    for row, looked, runs in _observed(rows, evidence):
        owners[row.output_zarr].append(row)
        in_catalog = row.item_id in shown
        may_go = in_catalog or (row.state is State.DONE and _is_retired(intake, row))
        gap = examine(row, looked, runs, in_catalog=may_go) or _expired(row, volumes)
        gap = gap or (drifted(row, looked.marker or row.outcome, intake, runner) if in_catalog else None)
        right = gap is None and row.state is State.DONE
        done, unseen, checked = done + right, unseen + (right and not looked.visible), checked + (right and looked.damage.compared)
        retired += right and not in_catalog
        skipped += gap is None and row.state is State.SKIPPED
        if gap is not None and row.item_id not in named:
            gaps.append(gap)
    for sharing in owners.values():
        wanted = [row for row in sharing if row.state is not State.SKIPPED]
        gaps += [_gap(GapKind.DOUBLED, r.source, r.item_id, r, f"{len(wanted)} items write {r.output_zarr}") for r in wanted[1:]]
    kinds = Counter(gap.kind.value for gap in gaps)
    return Audit(
        source, start, end, intake.now(), len(shown), done, unseen, checked, skipped, retired, dict(sorted(kinds.items())), gaps
    )


def _is_retired(intake: Intake, row: ConversionRow) -> bool:
    """Tells whether an output may stay although its item is gone: nothing else is asked for, or that was done."""
    if intake.source.on_gone == "keep":
        return True
    return (
        intake.ledger.retirements.of(row.source, row.item_id)[1] is Retirement.DEPRECATED and intake.source.on_gone == "deprecate"
    )


def _against_catalog(intake: Intake, start: datetime, end: datetime) -> tuple[set[str], list[Gap]]:
    """Returns the items that the catalog shows, and what discovery would do that it did not."""
    source, shown, gaps = intake.source.name, set[str](), list[Gap]()
    for leaf, seen in intake.read_days(start, end, "live"):
        shown |= {str(document.get("id")) for document in leaf.documents}
        unreadable = [*seen.unreadable, leaf.hidden] if leaf.hidden is not None else seen.unreadable
        gaps += [_gap(GapKind.UNREADABLE, source, entry.item_id, None, entry.why) for entry in unreadable]
        rows = intake.ledger.items.current(source, [s.item.item_id for s in seen.sightings])
        news = [s for s in seen.sightings if s.item.item_id not in seen.shared]
        gaps += [gap for s in news if (gap := unknown(source, s, rows.get(s.item.item_id)))]
    return shown, gaps


def unknown(source: str, s: Sighting, row: ConversionRow | None) -> Gap | None:
    """Returns what is wrong with an item that the catalog shows and that would move something, had discovery seen it."""
    name = s.item.item_id
    if s.skip is not None:
        return None
    if row is None:
        return _gap(GapKind.MISSING, source, name, None, "the ledger does not know it")
    if row.revision != s.item.revision:
        return _gap(GapKind.STALE, source, name, row, f"the catalog has revision {s.item.revision}, the ledger {row.revision}")
    return _gap(GapKind.MISSING, source, name, row, f"skipped as {row.reason}, and the rules admit it now")


def _bytes_of(row: ConversionRow) -> int:
    outcome = row.outcome if row.state is State.DONE else None
    return (
        outcome.counts.bytes_written + (outcome.package.bytes if outcome.package is not None else 0) if outcome is not None else 0
    )


def examine(row: ConversionRow, looked: Looked, runs: Sequence[Run], *, in_catalog: bool) -> Gap | None:
    """Returns what is wrong with a conversion that the ledger has."""
    active = [run.name for run in runs if run.phase in (Phase.PENDING, Phase.RUNNING)]
    if len(active) > 1:
        return _gap(GapKind.DOUBLED, row.source, row.item_id, row, f"runs at once: {', '.join(sorted(active))}")
    if row.state is State.SKIPPED:
        return None
    if not in_catalog:
        return _gap(GapKind.GONE, row.source, row.item_id, row, f"it is {row.state.value}, and the catalog does not have it")
    if row.state is State.EXPIRED:
        return _gap(GapKind.EXPIRED, row.source, row.item_id, row, row.reason or "its volume is gone")
    if row.state is State.FAILED:
        return _gap(GapKind.FAILED, row.source, row.item_id, row, row.reason or "it gave no reason")
    if row.state not in FINAL:
        why = row.waits_for or row.reason or "its run has not ended"
        return _gap(
            GapKind.UNFINISHED, row.source, row.item_id, row, f"{row.state.value} since {row.changed_at:%Y-%m-%d %H:%M}: {why}"
        )
    return _examine_output(row, looked)


def _examine_output(row: ConversionRow, looked: Looked) -> Gap | None:
    marker, damage = looked.marker, looked.damage
    if not looked.visible:
        told = row.outcome is not None and row.outcome.key == row.key
        return None if told else _gap(GapKind.UNVERIFIED, row.source, row.item_id, row, "its run left no outcome with its key")
    if marker is None:
        return _gap(GapKind.LOST, row.source, row.item_id, row, f"no marker in {row.output_zarr}")
    if marker.key != row.key:
        why = f"{row.output_zarr} holds {_told(marker, row)}"
        return _gap(GapKind.STALE, row.source, row.item_id, row, why)
    if (marker.code or 0) != 0:
        return _gap(GapKind.UNVERIFIED, row.source, row.item_id, row, f"its marker says {marker.code}")
    if damage.why:
        return replace(
            _gap(GapKind.DAMAGED, row.source, row.item_id, row, f"{row.output_zarr}: {damage.why}"), objects=damage.objects
        )
    return None


def _expired(row: ConversionRow, volumes: Collection[str] | None) -> Gap | None:
    """Returns that a done output went with its volume, where the watcher has not noted it yet."""
    if row.state is not State.DONE or volumes is None or not is_gone(row, volumes):
        return None
    return _gap(GapKind.EXPIRED, row.source, row.item_id, row, f"the volume of run {row.run} is gone, and with it the only copy")


def _told(marker: Outcome, row: ConversionRow) -> str:
    """Returns what another conversion's marker says of itself."""
    if marker.revision != row.revision:
        return f"revision {marker.revision or 'unknown'}, not {row.revision}"
    whose = f" of installation {marker.installation}" if marker.installation else ""
    return f"this revision, but of conversion {marker.key or 'unknown'}{whose}, not of {row.key}: another recipe made it"


def drifted(row: ConversionRow, made: Outcome | None, intake: Intake, runner: str) -> Gap | None:
    """Returns how a done conversion differs from what would be made of its item now."""
    if row.state is not State.DONE:
        return None
    found = renewed(row, intake.ledger, {intake.source.name: intake})
    different = found[1] if found is not None else []
    by = made.versions.get("geozarr-runner", "an unknown release") if made is not None else "an unknown release"
    if runner and by != runner:
        different = [*different, f"made by geozarr-runner {by}, not {runner}"]
    return _gap(GapKind.DRIFTED, row.source, row.item_id, row, "; ".join(different)) if different else None


def _observed(rows: Sequence[ConversionRow], evidence: Evidence) -> Iterator[tuple[ConversionRow, Looked, list[Run]]]:
    """Yields conversions with their markers and runs."""
    with ThreadPoolExecutor(READERS) as readers:
        try:
            for first in range(0, len(rows), KEYS):
                part = rows[first : first + KEYS]
                runs: dict[str, list[Run]] = defaultdict(list)
                for run in evidence.engine.runs([row.key for row in part]):
                    runs[run.key].append(run)
                for row, found in zip(part, readers.map(lambda row: _looked(row, evidence), part), strict=True):
                    yield row, found, runs[row.key]
        except BaseException:  # an order to end, most of all: the pool is waited for
            evidence.give_up()
            raise


def _looked(row: ConversionRow, evidence: Evidence) -> Looked:
    if row.state is not State.DONE or not evidence.visible(row.output_zarr):
        return Looked()
    try:
        marker = evidence.find_marker(row.output_zarr)
        ours = marker is not None and marker.key == row.key
        return Looked(marker, True, evidence.damage(row.output_zarr, marker) if marker is not None and ours else WHOLE)
    except Unavailable:
        return Looked()


def _gap(kind: GapKind, source: str, item: str, row: ConversionRow | None, why: str) -> Gap:
    return Gap(kind, source, item, row.key if row else None, row.state if row else None, why, REMEDY[kind])


def write(found: Audit, path: Path) -> int:
    """Writes the gaps that a replay can close, one JSON document a line; returns how many.

    Raises:
        CannotWrite: the file cannot be written.
    """
    lines = [json.dumps(asdict(gap)) for gap in found.gaps if gap.kind in REPLAYABLE]
    try:
        replace_file(path, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise write_failure(error, path, "choose another file") from error
    return len(lines)
