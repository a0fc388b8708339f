"""Brings the objects that a conversion needs onto the work volume, each whole or not at all, and accounts for every one.

What an earlier attempt left is not fetched again where the source can be asked whether it is still the same (`noted`). No object
may be longer than its array's chunks can be, and each is measured before anybody decodes it (`codecs`). An absent chunk is nodata
only where nobody sees data (`complete`).

Why stage at all: the converter reads some chunks three to five times (4.9x the bytes, measured), takes a missing chunk for fill
values without a word, and never tries again. Staged, network faults end before the conversion begins.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from geozarr_runner.source import claims, codecs, complete, metadata
from geozarr_runner.source.agreement import Agreement
from geozarr_runner.source.complete import Allowance, Odd
from geozarr_runner.source.eager import Eager, Landing
from geozarr_runner.source.faults import Forbidden
from geozarr_runner.source.noted import METADATA, Noted, forget, noted_in, unless_replaced
from geozarr_runner.source.preflight import Plan
from geozarr_runner.source.product import Selection, ZarrArray
from geozarr_runner.source.refusals import Refusals
from geozarr_runner.source.store import stat_validator
from geozarr_runner.source.threads import in_threads
from stac_watch.model.errors import InputError, SourceNotThere, write_failure
from stac_watch.model.files import replace_file
from stac_watch.model.outcome import Check

COPY = "product.zarr"  #: within the folder where it is staged
_FIRST_LOOK = Allowance()


@dataclass(frozen=True)
class Staged:
    """The source as the converter will read it."""

    root: Path
    absent: frozenset[str]  # chunk keys that are legally absent: all fill
    objects: int
    bytes: int  # fetched by this attempt
    odd: tuple[Odd, ...] = ()  # absent chunks that others see data in, and that a person takes for nodata
    noted: Noted = field(default_factory=Noted)  # what the source said of each object
    allow_empty: bool = False

    @property
    def completeness(self) -> Check:
        """What became of the chunks that are not there."""
        if self.odd:
            detail = f"{len(self.odd)} chunks are missing and taken for nodata, as was asked: {self.odd[0].key} (…)"
        else:
            detail = f"{self.objects} chunks are there, {len(self.absent)} are absent where no array sees data"
        return Check("completeness", "passed", detail)


def stage(
    plan: Plan,
    folder: Path,
    *,
    advance: Callable[[int], None],
    called_off: threading.Event,
    eager: Eager | None = None,
    looked: Allowance = _FIRST_LOOK,
) -> Staged:
    """Makes the product local. A local product is used where it lies.

    Args:
        plan: what to bring.
        folder: where the copy lives; what is there already is kept when it belongs to the same metadata.
        advance: told of every object that is there.
        called_off: ends the downloads early.
        eager: who is told of what has arrived. Nobody is when the product is local already.
        looked: how absent chunks are taken.

    Raises:
        SourceNotThere: chunks are missing that cannot be empty: still being uploaded.
        InputError: an object is corrupt at the source.
        Temporary | Refused | CannotWrite: see `source.classify`.
    """
    if plan.source.local is not None:
        return _in_place(plan, plan.source.local, folder, advance, looked, called_off)
    root = folder / COPY
    prepare(plan, root)
    noted = noted_in(folder)
    by_key = {key: array for array in plan.selection.arrays for key in array.chunk_keys()}
    wanted = [key for key in by_key if not (noted.vouches(key) and (root / key).exists())]
    advance(len(by_key) - len(wanted))
    if eager is not None:
        wanted.sort(key=lambda key: eager.rank(by_key[key].path))
    bringing = _Bringing(plan, root, noted, by_key, called_off, Refusals(plan.source, METADATA))
    with unless_replaced(plan, root, noted, called_off) as gone, Agreement(plan) as agreement:
        fetched, absent = _fetch_all(bringing, wanted, advance, eager)
        agreement.require()
        gone |= absent
        others = complete.witnesses(plan.selection, plan.product, absent)
        bringing.witnesses(others)
        with bringing.refusals.told():
            odd = complete.require(plan.selection, absent, root, plan.source.url, looked, others)
            claims.require(claims.contradiction(plan, absent, root, called_off), plan.source.url, looked)
    return Staged(root, absent, len(by_key) - len(absent), fetched, odd, noted, looked.allow_empty)


def corrupt(selection: Selection, root: Path) -> list[str]:
    """Returns the staged chunks that cannot be decoded. Reads everything: for use after a failure."""
    return [key for array in selection.arrays for key in array.chunk_keys() if _undecodable(array, root / key)]


def discard(staged: Staged, keys: Iterable[str]) -> None:
    """Removes staged chunks, so that the next staging fetches them again."""
    for key in keys:
        (staged.root / key).unlink(missing_ok=True)


def _in_place(
    plan: Plan, product: Path, folder: Path, advance: Callable[[int], None], looked: Allowance, called_off: threading.Event
) -> Staged:
    noted = Noted()
    with unless_replaced(plan, product, noted, called_off) as absent, Agreement(plan) as agreement:
        agreement.require()
        cut = [key for array in plan.selection.arrays for key in _cut(array, product, noted, absent, advance)]
        if cut:
            raise corrupt_source(cut, plan.source.url)
        gone = frozenset(absent)
        others = complete.witnesses(plan.selection, plan.product, gone)
        odd = complete.require(plan.selection, gone, product, plan.source.url, looked, others)
        claims.require(claims.contradiction(plan, gone, product, called_off), plan.source.url, looked)
    root = product if _as_it_is(plan) else _without_strangers(plan, product, folder)
    return Staged(root, gone, len(plan.selection.keys) - len(gone), 0, odd, noted, looked.allow_empty)


def _cut(array: ZarrArray, product: Path, noted: Noted, absent: set[str], advance: Callable[[int], None]) -> Iterator[str]:
    """Notes an array's objects where they lie, and yields the keys of those that are not as long as they say."""
    for key in array.chunk_keys():
        try:
            noted.add(key, stat_validator(product / key))
        except OSError:
            absent.add(key)
        else:
            if not codecs.measures(array, product / key):
                yield key
        advance(1)


def _as_it_is(plan: Plan) -> bool:
    return not plan.product.left_out and metadata.in_order(json.loads(plan.metadata)["metadata"])


def _without_strangers(plan: Plan, product: Path, folder: Path) -> Path:
    """Returns a copy of a local product without what is left out of it: its metadata, in order, and links to its arrays."""
    root = folder / COPY
    shutil.rmtree(root, ignore_errors=True)
    try:
        for path in plan.product.arrays:
            if (product / path).is_dir():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).symlink_to(product / path)
        _write_metadata(plan, root)
    except OSError as error:
        raise write_failure(error, root) from error
    return root


def prepare(plan: Plan, root: Path) -> None:
    """Makes the folder, and empties it when what it holds belongs to other metadata: the product was replaced meanwhile."""
    stored = root / ".zmetadata"
    try:
        if stored.exists() and stored.read_bytes() == _consolidated(plan):
            return
        shutil.rmtree(root, ignore_errors=True)
        forget(root.parent)
        _write_metadata(plan, root)
    except OSError as error:
        raise write_failure(error, root) from error


def _write_metadata(plan: Plan, root: Path) -> None:
    for key, document in plan.documents.items():  # zarr asks for the single documents too
        path = root / key
        if not path.parent.is_symlink():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document))
    replace_file(root / ".zmetadata", _consolidated(plan), sync=True)  # last: where it lies, the rest is there


def _consolidated(plan: Plan) -> bytes:
    return json.dumps({"zarr_consolidated_format": 1, "metadata": plan.documents}).encode()


@dataclass
class _Bringing:
    """One staging: what the threads that fetch have in common."""

    plan: Plan
    root: Path
    noted: Noted
    by_key: Mapping[str, ZarrArray]
    called_off: threading.Event
    refusals: Refusals

    def fetch(self, key: str) -> int | None:
        """Fetches one object under a temporary name and renames it; None when it is not there. A cut one is fetched once more."""
        array, target = self.by_key[key], self.root / key
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                fetched = self.plan.source.fetch(key, temporary, limit=codecs.encoded_limit(array))
                if codecs.measures(array, temporary):
                    temporary.replace(target)
                    self.noted.add(key, fetched.validator)
                    return fetched.size
                self.noted.broken[key] = fetched.validator
        except SourceNotThere:
            target.unlink(missing_ok=True)  # of an earlier attempt, that nobody vouches for
            return None
        except Forbidden:
            self.refusals.take_for_absent(key)
            target.unlink(missing_ok=True)  # idem
            return None
        except OSError as error:
            raise write_failure(error, target) from error
        finally:
            temporary.unlink(missing_ok=True)
        raise corrupt_source([key], self.plan.source.url)

    def witnesses(self, arrays: tuple[ZarrArray, ...]) -> None:
        """Fetches arrays that are not converted; one that is corrupt says nothing."""
        keys = {key: array for array in arrays for key in array.chunk_keys()}
        bringing = replace(self, by_key=keys)

        def one(key: str) -> None:
            with suppress(InputError):
                bringing.fetch(key)

        in_threads(one, list(keys), self.called_off)


def _fetch_all(
    bringing: _Bringing, wanted: list[str], advance: Callable[[int], None], eager: Eager | None
) -> tuple[int, frozenset[str]]:
    called_off = bringing.called_off

    def one(key: str) -> int | None:
        if called_off.is_set():
            return 0
        size = bringing.fetch(key)
        advance(1)
        return size

    paths = {key: bringing.by_key[key].path for key in wanted}
    landed = Landing(eager, bringing.root, paths).landed if eager is not None else None
    sizes = dict(zip(wanted, in_threads(one, wanted, called_off, landed), strict=True))
    return sum(size or 0 for size in sizes.values()), frozenset(key for key, size in sizes.items() if size is None)


def corrupt_source(keys: list[str], where: str) -> InputError:
    """Returns the error that names the chunks which the source has, and nobody can decode."""
    return InputError(
        f"{where} is corrupt: {len(keys)} chunks cannot be decoded ({', '.join(keys[:5])})",
        hint="the producer has to publish it again; replay the item when it has",
    )


def _undecodable(array: ZarrArray, path: Path) -> bool:
    if not path.exists():
        return False
    try:
        codecs.decode(array, path.read_bytes())
    except (RuntimeError, ValueError, TypeError):
        return True
    return False
