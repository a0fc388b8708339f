"""Every way in which stac-watch or its runner says no: one tree, its exit codes, and what to do next.

The message names the field, the value and the place; the hint is the next command or remedy. Only the two command lines print them
and exit.

    StacWatchError                70  a defect of ours, unless a subclass says otherwise
    ├── ConfigError               78  the configuration cannot be used as it is
    ├── InputError                65  this item, product, event or file can never be converted
    │   └── IdentityError         65  an id, name or href that must not be used as a name
    ├── SourceNotThere            66  the source is not there, or not yet whole: later
    ├── Unavailable               69  something on this machine is in use or missing (a port, a tool)
    ├── Defect                    70  a state that the code says cannot happen
    ├── CannotWrite               73  the output or a folder cannot be written; disk full
    ├── Temporary                 75  network, 5xx, throttling: the same again may work
    │   └── CatalogUnavailable    75  the catalog does not answer, or answers nonsense
    ├── Refused                   77  credentials or permissions; of an object store it may mean absent: a few times again
    └── Superseded                79  a later revision of the item is there already

The numbers are those of BSD's sysexits.h, and the first one behind them; the WorkflowTemplate's retry expression and `reconcile`
decide by them.
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from enum import IntEnum
from pathlib import Path
from typing import ClassVar

from stac_watch.model.signatures import masked
from stac_watch.model.texts import visible


class Exit(IntEnum):
    """Exit codes of `stac-watch` and `geozarr-runner`; a public contract."""

    OK = 0
    NOT_ALL_WELL = 1  # the command ran, and what it reports is not all well (audit gaps, failed items)
    USAGE = 2
    BAD_INPUT = 65
    SOURCE_NOT_THERE = 66
    UNAVAILABLE = 69
    DEFECT = 70
    CANNOT_WRITE = 73
    TEMPORARY = 75
    REFUSED = 77
    CONFIG = 78
    SUPERSEDED = 79  # a run that would have replaced a later revision, and did not
    INTERRUPTED = 130
    TERMINATED = 143


MAX_TEXT = 4096
"""Characters of a message or a hint: strangers' names and texts get into them, and from there into ledger, page and terminal."""
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a cursor, hides or turns text, or has no place in UTF-8."""


def printable(text: str, limit: int = MAX_TEXT, *, lines: bool = False) -> str:
    """Returns a text that can be shown, stored and sent as it is: control characters escaped, the end cut off beyond `limit`.

    Args:
        text: what may come from strangers.
        limit: characters of the result, at most.
        lines: whether line ends may stay.
    """
    shown = _UNSEEN.sub(lambda m: m[0] if lines and m[0] == "\n" else ascii(m[0])[1:-1], text[: limit + 1])
    if len(text) <= limit and len(shown) <= limit:
        return shown
    end = f"… ({len(text)} characters in all)"
    return shown[: max(0, limit - len(end))] + end


class StacWatchError(Exception):
    """Base of the tree: one line of what and where, and a hint of what to do next. `printable`, and what signs a URL masked."""

    exit_code: ClassVar[Exit] = Exit.DEFECT

    def __init__(self, message: str, *, hint: str = "") -> None:
        # they may quote what a catalog or a product wrote
        self.message = visible(masked(printable(message, lines=True)), lines=True)
        self.hint = visible(masked(printable(hint, lines=True)), lines=True)
        super().__init__(self.message)


class ConfigError(StacWatchError):
    """The configuration cannot be used as it is."""

    exit_code = Exit.CONFIG


class InputError(StacWatchError):
    """This item, product, event or file can never be converted; trying again changes nothing."""

    exit_code = Exit.BAD_INPUT


class IdentityError(InputError):
    """An id, name or href that must not be used as a name."""


class SourceNotThere(StacWatchError):  # noqa: N818  # named after the state that people see, "source not there yet"
    """The source is not there, or is still being uploaded."""

    exit_code = Exit.SOURCE_NOT_THERE


class Unavailable(StacWatchError):  # noqa: N818  # a state of this machine, not a class of mistakes
    """Something on this machine is in use or missing: a port, a tool, a package."""

    exit_code = Exit.UNAVAILABLE


class Defect(StacWatchError):  # noqa: N818  # what it is called in reports
    """A state that the code says cannot happen."""


class CannotWrite(StacWatchError):  # noqa: N818  # reads as the sentence it is
    """The output or a folder cannot be written."""

    exit_code = Exit.CANNOT_WRITE


class Temporary(StacWatchError):  # noqa: N818  # kopf's word for it: the same again may work
    """Network, 5xx, throttling."""

    exit_code = Exit.TEMPORARY


class CatalogUnavailable(Temporary):
    """The catalog does not answer, or answers something that is not STAC."""


class Refused(StacWatchError):  # noqa: N818  # the answer, as HTTP 401/403 gives it
    """Credentials or permissions are wrong; a store that may not be listed refuses so what is not there yet, too."""

    exit_code = Exit.REFUSED


class Superseded(StacWatchError):  # noqa: N818  # the fact that follows from it
    """A later revision of the item has its output there: this one is not published, now or later."""

    exit_code = Exit.SUPERSEDED


EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN})
"""The machine or this process has no more of something just now: open files, memory, buffers, threads."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
WRITE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG})


def of_data(error: BaseException) -> bool:
    """Tells whether an error is what some data made of code, ours or a library's, rather than of a place, or an order to end.

    Extensions in Rust raise their panics past `Exception`.
    """
    if isinstance(error, StacWatchError):
        return isinstance(error, InputError | Defect)
    return not isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | MemoryError | OSError)


def told(error: BaseException) -> str:
    """Returns an error of whatever kind in one line: what, and where in the code."""
    if isinstance(error, StacWatchError):
        return error.message
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error)[:1000].split())}{where}"


NO_SPACE = "no space left"
"""What every sentence about a full disk says: that passes, other reasons why nothing can be written do not."""


def room(path: str, number: int | None = errno.ENOSPC) -> str:
    """Says how much is free where `path` was to be written, after one of `FULL`."""
    if number == errno.EDQUOT:
        return "the quota there is used up"
    there = next(place for place in (Path(path).absolute(), *Path(path).absolute().parents) if place.exists())
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    return f"{free / 1e6:.0f} MB ({free} bytes) are free there"


def cannot_write(error: OSError, path: object) -> CannotWrite | None:
    """Returns the error to raise when `error` says that `path` cannot be written, else None."""
    if error.errno not in WRITE_ERRNOS:
        return None
    if error.errno in FULL:
        hint = f"{room(str(path), error.errno)}; free space there, or choose another output folder"
        return CannotWrite(f"{NO_SPACE} while writing {path}", hint=hint)
    return CannotWrite(f"cannot write {path}: {error.strerror}", hint="check the folder's owner and mount, or choose another")


def exhausted(error: OSError, what: str) -> Temporary:
    """Returns the error to raise for one of `EXHAUSTED`; `what` is what could not be done."""
    return Temporary(f"{what}: {error.strerror}", hint="the machine is short of it; fewer runs at a time, or a higher limit")


def write_failure(error: OSError, path: object, hint: str = "check the path, or choose another") -> CannotWrite | Temporary:
    """Returns the error to raise for whatever the operating system says while `path`, which is ours to write, is written."""
    if error.errno in EXHAUSTED:
        return exhausted(error, f"cannot write {path}")
    return cannot_write(error, path) or CannotWrite(f"cannot write {path}: {error.strerror or error}", hint=hint)
