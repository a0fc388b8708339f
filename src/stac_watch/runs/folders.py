"""What may be removed of the local engine's folder: runs that ended, and what was staged for conversions that are over.

A run that lives stays, and so do the run whose end the watcher has yet to read and what the next attempt goes on from. Outputs lie
elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stac_watch.ledger.records import ConversionRow
from stac_watch.model.states import FINAL
from stac_watch.runs.cleaning import Cleaning, Leftover, LeftoverKind, spelled
from stac_watch.runs.local import WORK, event_of, is_alive

type Get = Callable[[str], ConversionRow | None]


def plan(folder: Path, get: Get, now: datetime, older_than: timedelta) -> Cleaning:
    """Returns which run folders and staged sources may go; `get` gives a key's conversion."""
    remove: list[Leftover] = []
    keep: list[Leftover] = []
    living: set[str] = set()
    for run in sorted(path for path in folder.glob("gz-*") if path.is_dir()):
        data = event_of(run)
        row = get(str(data.get("key"))) if data is not None else None
        if is_alive(run):
            living.add(row.key if row is not None else "")
            reason = "it is not over"
        elif data is not None and row is None:
            reason = "the ledger does not know it"
        elif row is not None and row.state not in FINAL and row.run == run.name:
            reason = "the watcher may not have seen its end"
        else:
            reason = _young(run, now, older_than)
        why = reason or (f"its conversion is {row.state.value}" if row is not None else "it never started")
        (keep if reason else remove).append(Leftover(LeftoverKind.RUN, run.name, "", why))
    for staged in sorted(path for path in (folder / WORK / "stage").glob("*") if path.is_dir()):
        row = get(staged.name)
        over = row is not None and row.state in FINAL and staged.name not in living
        reason = _young(staged, now, older_than) if over else "the next attempt continues from it"
        why = reason or f"its conversion is {row.state.value}" if row is not None else "the ledger does not know it"
        (keep if reason else remove).append(Leftover(LeftoverKind.STAGED, staged.name, "", why, _size(staged)))
    return Cleaning(tuple(remove), tuple(keep))


def carry_out(folder: Path, get: Get, cleaning: Cleaning) -> Iterator[tuple[Leftover, bool]]:
    """Removes what the plan says, and yields each with whether it was removed: what was taken up meanwhile stays."""
    for item in cleaning.remove:
        if item.kind is LeftoverKind.RUN:
            path, taken = folder / item.name, is_alive(folder / item.name)
        else:
            path, row = folder / WORK / "stage" / item.name, get(item.name)
            taken = row is None or row.state not in FINAL
        if not taken:
            shutil.rmtree(path, ignore_errors=True)
        yield item, not path.exists()


def _young(path: Path, now: datetime, older_than: timedelta) -> str:
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return f"it changed less than {spelled(older_than)} ago" if now - changed < older_than else ""


def _size(folder: Path) -> str:
    return f"{sum(path.lstat().st_size for path in folder.rglob('*')) / 1e6:,.0f} MB"
