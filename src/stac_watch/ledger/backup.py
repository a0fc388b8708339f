"""A copy of a SQLite ledger while it is written to: whole, checked, and never at the cost of the ledger's own disk.

A ledger in PostgreSQL has the means of its server. Source: SQLite, "Using the SQLite Online Backup API": in one step it is one
reader, which in WAL mode holds up no writer.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from stac_watch.model.errors import CannotWrite, Defect, InputError, write_failure

PREFIX, SUFFIX, PART = "stac-watch-", ".db", ".part"
MARGIN = 1.1  # of the ledger's size: it is written to meanwhile


@dataclass(frozen=True)
class Backup:
    """What was copied, and what had to go."""

    path: str
    bytes: int
    kept: int  # copies that are there now
    removed: tuple[str, ...]


def free_space(folder: Path) -> int:
    """Returns the bytes that can be written there."""
    return shutil.disk_usage(folder).free


def back_up(database: Path, folder: Path, name: str, keep: int, *, free: Callable[[Path], int] = free_space) -> Backup:
    """Copies a ledger to FOLDER/stac-watch-NAME.db; the oldest copies beyond `keep` go when the new one is whole.

    Where there is no room, older copies go first, but never the last one.

    Raises:
        InputError: there is no such ledger.
        CannotWrite: there is no room, or on the ledger's own disk not for as much again; nothing was written.
        Defect: the copy is damaged, and was removed; the ledger is likely to be, too.
    """
    if not database.is_file():
        raise InputError(f"there is no ledger {database}", hint="a ledger in PostgreSQL is backed up with pg_dump")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{PREFIX}*{PART}"):  # of a call that was killed
            left.unlink()
        removed = _make_room(database, folder, free)
        part, path = folder / f"{PREFIX}{name}{SUFFIX}{PART}", folder / f"{PREFIX}{name}{SUFFIX}"
        try:
            _copy(database, part)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(path)
        removed += _prune(folder, keep)
    except OSError as error:
        raise write_failure(error, folder) from None
    except sqlite3.OperationalError as error:  # full after all, or locked
        raise CannotWrite(f"the ledger cannot be copied to {folder}: {error}", hint="is there room, and who holds it?") from None
    except sqlite3.DatabaseError as error:
        raise Defect(f"the ledger {database} is damaged: {error}", hint="keep the last backup") from None
    return Backup(str(path), path.stat().st_size, len(copies(folder)), tuple(removed))


def copies(folder: Path) -> list[Path]:
    """Returns the whole copies in a folder, the oldest first."""
    return sorted(folder.glob(f"{PREFIX}*{SUFFIX}"))


def _size(database: Path) -> int:
    """Returns the bytes of a ledger with what is in its journal."""
    journal = database.with_name(f"{database.name}-wal")
    return database.stat().st_size + (journal.stat().st_size if journal.exists() else 0)


def _make_room(database: Path, folder: Path, free: Callable[[Path], int]) -> list[str]:
    size = _size(database)
    same = folder.stat().st_dev == database.stat().st_dev
    needed = int(size * MARGIN) + (size if same else 0)  # on the ledger's own disk it must be able to double afterwards
    removed = []
    there = copies(folder)
    while free(folder) < needed and len(there) > 1:
        oldest = there.pop(0)
        oldest.unlink()
        removed.append(oldest.name)
    if free(folder) < needed:
        where = "on the ledger's own disk" if same else "there"
        raise CannotWrite(
            f"no room for a backup in {folder}: {needed:,} bytes are needed {where}, {free(folder):,} are free",
            hint="give the backups a larger volume of their own, or `stac-watch ledger prune` first",
        )
    return removed


def _copy(database: Path, part: Path) -> None:
    with closing(sqlite3.connect(database, timeout=30)) as source, closing(sqlite3.connect(part)) as target:
        source.execute("PRAGMA query_only = 1")
        source.backup(target)
        [(said,)] = target.execute("PRAGMA quick_check(1)").fetchall()
        target.execute("PRAGMA journal_mode = DELETE")  # one file, without what lies beside it
    if said != "ok":
        raise Defect(f"the copy of {database} is damaged: {said}", hint="keep the last backup; the ledger itself may be damaged")
    with part.open("rb") as file:
        os.fsync(file.fileno())


def _prune(folder: Path, keep: int) -> list[str]:
    old = copies(folder)[:-keep]
    for path in old:
        path.unlink()
    return [path.name for path in old]
