"""One round of registering: what is due is prepared, the collection made ready, each item sent, read back, compared, noted.

What is to be taken out is removed, looked for once more, and noted. Killed at any moment and begun again, it sends the same once
more, which changes nothing. Of a catalog that does not answer nothing is concluded: what is due stays due, and the catalog is left
alone for a while.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from stac_watch.catalog.answers import Rejected
from stac_watch.catalog.writing import TargetCollection
from stac_watch.config.register import Register
from stac_watch.ledger.ledger import Ledger
from stac_watch.model.errors import InputError, StacWatchError, Temporary, Unavailable
from stac_watch.model.outcome import Outcome
from stac_watch.model.patience import Rest
from stac_watch.model.publication import WAITING, Publication, PublicationState
from stac_watch.register import collection as collections
from stac_watch.register.compared import difference, unlike
from stac_watch.register.due import ENOUGH, OtherEnd
from stac_watch.register.item import Outputs, Postable, postable

BATCH = 64  # publications of one round
WITHOUT_SOURCE = 4  # tries for the source's own item; then it is registered without what only that says
FRESH = timedelta(minutes=10)  # the collection is looked at again


@dataclass(frozen=True)
class Made:
    """What runs left: read from beside an output, as it is now."""

    marker: Callable[[str], Outcome | None]  # raises Unavailable where it cannot look
    item: Callable[[str], dict[str, Any] | None]  # idem
    source_item: Callable[[str, str], Mapping[str, Any] | None]  # by source and id; raises where the catalog does not answer


@dataclass(frozen=True)
class Round:
    """What one round did."""

    registered: int = 0
    failed: int = 0
    later: int = 0
    withdrawn: int = 0


@dataclass(frozen=True)
class _Ready:
    """An item that can be sent."""

    row: Publication
    item: Postable


class Registrar:
    """Publications of one ledger, sent to one collection."""

    def __init__(
        self,
        ledger: Ledger,
        target: TargetCollection,
        register: Register,
        outputs: Outputs,
        made: Made,
        now: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        self._ledger, self._target, self._register, self._outputs, self._made = ledger, target, register, outputs, made
        self._now = now
        self._end = OtherEnd(ledger.publications.is_due, ledger.publications.bring_forward, now, rng)
        self._paced: Rest | None = None  # until the rate allows more
        self._collection: dict[str, Any] | None = None  # as it was last seen, or sent
        self._seen: Rest | None = None  # as long as that counts

    def is_due(self) -> bool:
        """Tells whether there is something to send, and the catalog is not left alone."""
        return not (self._paced is not None and self._paced.lasts(self._now())) and self._end.is_due()

    def round(self) -> Round:
        """Sends what is due.

        Raises:
            Temporary: the catalog does not answer; it is left alone for a while.
            Refused: it wants credentials, or others; the same.
            ConfigError: it takes no items, or what is configured cannot be used; the same.
        """
        began = self._now()
        rows = self._ledger.publications.due(began, BATCH)
        with ThreadPoolExecutor(self._register.at_once, thread_name_prefix="register") as pool:
            leaving = [row for row in rows if row.state is PublicationState.WITHDRAWING]
            prepared = list(pool.map(self._prepared, (row for row in rows if row.state is PublicationState.PENDING)))
            ready = [one for one in prepared if isinstance(one, _Ready)]
            done = [one for one in prepared if isinstance(one, PublicationState)]
            try:
                if ready:
                    self._make_ready([one.item.document for one in ready])
                done += self._done(
                    [pool.submit(self._sent, one) for one in ready] + [pool.submit(self._taken_out, row) for row in leaving]
                )
            except StacWatchError as error:
                self._end.failed(error.message)
                raise
        self._end.worked()
        self._paced = Rest(began, began + timedelta(seconds=(len(ready) + len(leaving)) / self._register.rate))
        counted = {state: done.count(state) for state in PublicationState}
        later = sum(counted[state] for state in WAITING)
        return Round(
            counted[PublicationState.REGISTERED], counted[PublicationState.FAILED], later, counted[PublicationState.WITHDRAWN]
        )

    def prepare(self, row: Publication) -> Postable:
        """Returns the item of a publication, as it would be sent now.

        Raises:
            InputError: there is nothing that can be sent.
            Temporary: not now: what it needs does not answer, or is not what it should be yet.
        """
        try:
            described, marker = self._made.item(row.output_zarr), self._made.marker(row.output_zarr)
        except Unavailable as error:
            raise Temporary(error.message, hint=error.hint) from error
        if marker is None or marker.key != row.key:
            found = f"is of key {marker.key}" if marker is not None else "has no marker"
            raise Temporary(f"{row.output_zarr} {found}, not of {row.key}", hint="`stac-watch audit` finds what was lost")
        if described is None:
            raise InputError(
                f"no item lies beside {row.output_zarr}", hint="`stac-watch replay ITEM` converts it again, with its item"
            )
        written = described.get("properties", {}).get("processing:datetime")
        if described.get("id") != row.item_id or (marker.finished and written != marker.finished):
            raise Temporary(f"the item beside {row.output_zarr} is not that of its marker", hint="a run may be replacing both")
        return postable(
            described, self._register, self._outputs,
            output=row.output_zarr, item_href=self._item_href(row.key), source=self._source_item(row),
        )  # fmt: skip

    def _source_item(self, row: Publication) -> Mapping[str, Any] | None:
        try:
            return self._made.source_item(row.source, row.item_id)
        except Temporary:
            if row.attempts < WITHOUT_SOURCE:
                raise
        except StacWatchError:  # it refuses us, or is no catalog any more: what it would say is not needed
            pass
        return None

    def _item_href(self, key: str) -> str:
        events = self._ledger.conversions.events(key)
        return str(json.loads(events[-1])["data"].get("item_href", "")) if events else ""

    def _prepared(self, row: Publication) -> _Ready | PublicationState:
        try:
            item = self.prepare(row)
        except Temporary as error:
            never = row.attempts + 1 >= ENOUGH and error.message.startswith((row.output_zarr, "the item beside"))
            return self._settle(row, PublicationState.FAILED if never else PublicationState.PENDING, _said(error))
        except InputError as error:
            return self._settle(row, PublicationState.FAILED, _said(error))
        if row.digest == item.digest and row.target == self._target.url:
            return self._settle(row, PublicationState.REGISTERED, digest=item.digest)
        return _Ready(row, item)

    def _done(self, tried: Iterable[Future[PublicationState]]) -> list[PublicationState]:
        """Returns what became of each; raises what is wrong with the catalog when each has been tried, and was not taken."""
        done, trouble = list[PublicationState](), list[StacWatchError]()
        for sent in tried:
            try:
                done.append(sent.result())
            except StacWatchError as error:
                trouble.append(error)
        taken = PublicationState.REGISTERED in done or PublicationState.WITHDRAWN in done
        if trouble and (not taken or not isinstance(trouble[0], Temporary)):
            raise trouble[0]
        return done

    def _sent(self, one: _Ready) -> PublicationState:
        try:
            self._target.put(one.item.document)
            found = self._target.item(one.row.item_id)
        except Rejected as error:
            return self._settle(one.row, PublicationState.FAILED, _said(error))
        except StacWatchError as error:  # of the catalog; this item waits a little longer, so that no single one stops all
            self._settle(one.row, PublicationState.PENDING, _said(error))
            raise
        wrong = "it is not there when it is read back" if found is None else difference(one.item.document, found)
        if wrong:
            said = f"{self._target.url} took the item and gives back another: {wrong}"
            never = one.row.attempts + 1 >= ENOUGH
            return self._settle(one.row, PublicationState.FAILED if never else PublicationState.PENDING, said)
        return self._settle(one.row, PublicationState.REGISTERED, digest=one.item.digest)

    def _taken_out(self, row: Publication) -> PublicationState:
        """Removes an item, and looks whether it is gone; until it is, that is tried again."""
        if row.target not in ("", self._target.url):
            return self._settle(row, PublicationState.WITHDRAWING, f"it is registered in {row.target}, not in {self._target.url}")
        try:
            self._target.remove(row.item_id)
            found = self._target.item(row.item_id)
        except Rejected as error:
            return self._settle(row, PublicationState.WITHDRAWING, _said(error))
        except StacWatchError as error:
            self._settle(row, PublicationState.WITHDRAWING, _said(error))
            raise
        if found is not None:
            return self._settle(row, PublicationState.WITHDRAWING, f"{self._target.url} removed the item, and still shows it")
        return self._settle(replace(row, digest="", target="", registered_at=None), PublicationState.WITHDRAWN)

    def _settle(
        self, row: Publication, state: PublicationState, reason: str | None = None, *, digest: str = ""
    ) -> PublicationState:
        now, done = self._now(), state is PublicationState.REGISTERED
        after = replace(
            row, state=state, attempts=row.attempts + 1, due=self._end.again(row.attempts), changed_at=now,
            reason=reason, digest=digest or row.digest, target=self._target.url if done else row.target,
            registered_at=now if done else row.registered_at,
        )  # fmt: skip
        self._ledger.publications.settle(row, after)  # where a later revision is done meanwhile, that one is sent next
        return state

    def _make_ready(self, items: Iterable[dict[str, Any]]) -> None:
        """Creates the collection, or widens it, before its items come."""
        now = self._now()
        there = self._collection if self._seen is not None and self._seen.lasts(now) else self._target.described()
        name, path = self._target.collection, self._register.collection_file
        wanted = collections.read(path, name) if path is not None else None
        base = collections.default(name) if there is None and wanted is None else wanted or {}
        whole = collections.without_servers_links(collections.widened(collections.merged(there, base), items))
        said = {name: value for name, value in whole.items() if name not in ("links", "stac_extensions")}
        if unlike(said, there, "collection"):
            self._target.describe(whole, there=there is not None)
        self._collection, self._seen = {**(there or {}), **whole}, Rest(now, now + FRESH)


def _said(error: StacWatchError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message
