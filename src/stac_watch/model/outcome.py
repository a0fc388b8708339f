"""How a run ended, and the marker that makes an output whole: the same JSON, written by the runner and read by the poller.

Both are public: members may be added, and readers ignore what they do not know. The text comes from a process that reads strangers'
data, so nothing is taken on trust: a member that has not its form is left out, once, here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from stac_watch.model.signatures import masked
from stac_watch.model.texts import bounded, visible

MARKER = "stac-watch.json"
"""The marker's name inside an output."""
MOST_BYTES = 256 * 1024  # of an outcome in the ledger; one has some kilobytes
DATA = "/data"
"""Where a run's volume is mounted: what lies there has a path that begins with it."""


@dataclass(frozen=True)
class Check:
    """One question that was asked of the output, and the answer."""

    name: str
    verdict: str  # passed | failed | skipped
    detail: str = ""  # empty where it was pruned


@dataclass(frozen=True)
class Package:
    """The archive beside an output."""

    href: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Counts:
    """Sizes of what was read and written; `files` and `bytes_written` are the output's, the marker not counted."""

    arrays: int = 0
    chunks: int = 0
    files: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended. The order of the fields is that of the JSON.

    A run that left no word has an outcome all the same, with what the engine saw; that is why each field has a default.
    """

    code: int | None = None
    reason: str = ""  # "done", "already done", or one line of what went wrong
    hint: str = ""
    stage: str = ""  # the stage in which the run ended
    key: str = ""
    revision: str = ""
    run: str = ""
    attempt: int = 0
    item_id: str = ""
    fence: str = ""  # orders the revisions of the item
    installation: str = ""  # whose conversion it was
    source: str = ""
    output_zarr: str = ""
    package: Package | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    counts: Counts = Counts()
    checks: tuple[Check, ...] = ()
    groups: tuple[str, ...] = ()
    engine: str = ""  # fast, or stock and why; mirror, reference
    form: str = ""  # of the product, see `model.forms`
    fingerprint: str = ""  # of a finished GeoZarr that was taken as it is, see `model.zarr3`
    digest: str = ""  # of the checksums of all objects of the output, see `model.checksums`
    files: Mapping[str, str] = field(default_factory=dict)  # what lies beside: report, report_json, quicklook, checksums, item
    finished: str = ""  # RFC 3339
    others: Mapping[str, Any] = field(default_factory=dict)  # members of a later version
    empty: frozenset[str] = frozenset()  # members that were given, and hold what a missing one means

    def document(self, *, whole: bool = False) -> dict[str, Any]:
        """Returns the JSON document: what is said, as it is stored and shown; the `whole` with empty members, too.

        What signs a URL is masked: it lies beside outputs, where many may read.
        """
        members = {name: _plain(getattr(self, name)) for name in _READERS}
        members |= {name: masked(members[name]) for name in ("source", "reason", "hint")}
        said = {name: value for name, value in members.items() if whole or name in self.empty or value != _NOTHING[name]}
        return {**said, **self.others}

    def bounded(self) -> Outcome:
        """Returns the outcome as the ledger keeps it: lists that a product made endless are left out."""
        if len(json.dumps(self.document())) <= MOST_BYTES:
            return self
        return replace(self, versions={}, seconds={}, checks=(), groups=(), files={}, others={}, empty=frozenset())

    def as_json(self) -> str:
        """Returns the text of the runner's files: every member, one order for all."""
        return json.dumps(self.document(whole=True), indent=2) + "\n"

    def as_line(self) -> str:
        """Returns the same in one line: Argo keeps it twice in each Workflow, and a third of the text is how it is set."""
        return json.dumps(self.document(whole=True), separators=(",", ":")) + "\n"


def parse_outcome(text: str | bytes) -> Outcome | None:
    """Returns the outcome that a text holds; None when it is no JSON object, or says nothing."""
    return outcome_of(read_document(text))


def read_document(text: str | bytes) -> dict[str, Any] | None:
    """Returns the JSON object that a text holds, if it is one."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def outcome_of(document: Mapping[str, Any] | None) -> Outcome | None:
    """Returns the outcome that a document says, without members that have not their form; None when nothing is left."""
    given = document or {}
    said = {name: found for name, read in _READERS.items() if name in given and (found := read(given[name])) is not None}
    others = {name: value for name, value in given.items() if name not in _READERS}
    empty = {name for name, value in said.items() if _plain(value) == _NOTHING[name]}
    if "package" in given and given["package"] is None:
        empty.add("package")
    return Outcome(**said, others=others, empty=frozenset(empty)) if said or others or empty else None


# -- the form of each member: its reader returns None for what has another ------------------------------------------------------


def _number(value: object) -> float | None:
    """Returns a number that a database and a sum can hold; JSON as Python reads it also knows NaN and integers of any length."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18 else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and _number(value) is not None else None


def _text(value: object) -> str | None:
    return bounded(value) if isinstance(value, str) else None


def _sentence(value: object) -> str | None:
    return visible(value) if isinstance(value, str) else None


def _map_of[T](read: Callable[[object], T | None]) -> Callable[[object], dict[str, T] | None]:
    def read_map(value: object) -> dict[str, T] | None:
        if not isinstance(value, dict):
            return None
        found = {name: one for name, entry in value.items() if (one := read(entry)) is not None}
        return found if len(found) == len(value) else None

    return read_map


def _list_of[T](read: Callable[[object], T | None]) -> Callable[[object], tuple[T, ...] | None]:
    def read_list(value: object) -> tuple[T, ...] | None:
        if not isinstance(value, list):
            return None
        found = tuple(one for entry in value if (one := read(entry)) is not None)
        return found if len(found) == len(value) else None

    return read_list


def _check(value: object) -> Check | None:
    if not isinstance(value, dict) or not (isinstance(value.get("name"), str) and isinstance(value.get("verdict"), str)):
        return None
    return Check(value["name"], value["verdict"], _text(value.get("detail")) or "")


def _package(value: object) -> Package | None:
    if not isinstance(value, dict):
        return None
    href, size, digest = _text(value.get("href")), _whole(value.get("bytes")), _text(value.get("sha256"))
    return Package(href, size, digest) if href is not None and size is not None and digest is not None else None


def _counts(value: object) -> Counts | None:
    numbers = _map_of(_whole)(value)
    return Counts(**{f.name: numbers[f.name] for f in fields(Counts) if f.name in numbers}) if numbers is not None else None


_READERS: dict[str, Callable[[object], Any]] = {
    "code": _whole, "reason": _sentence, "hint": _sentence, "stage": _sentence, "key": _text, "revision": _text, "run": _text,
    "attempt": _whole, "item_id": _text,
    "fence": _text, "installation": _text, "source": _text, "output_zarr": _text, "package": _package, "versions": _map_of(_text),
    "seconds": _map_of(_number), "counts": _counts, "checks": _list_of(_check), "groups": _list_of(_text), "engine": _text,
    "form": _text, "fingerprint": _text, "digest": _text, "files": _map_of(_text), "finished": _text,
}  # fmt: skip


def _plain(value: object) -> Any:  # noqa: ANN401  # a JSON value
    if isinstance(value, Check | Package | Counts):
        members = {f.name: getattr(value, f.name) for f in fields(value)}
        return {name: member for name, member in members.items() if member or name != "detail"}
    if isinstance(value, Mapping):
        return dict(value)
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


_NOTHING = Outcome().document(whole=True)
