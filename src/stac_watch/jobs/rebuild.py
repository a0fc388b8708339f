"""Makes the rows of a lost ledger again, out of what outputs and Workflows say of themselves: without a run, and without a catalog.

What was not done is not there to be found: an audit names it afterwards. Nothing is written over what the ledger knows; stopped or
killed, the same command reads only the markers that it has not taken in.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import batched

from stac_watch.config.model import Recipe, Source
from stac_watch.discover.recipes import conversion
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Regained
from stac_watch.model.errors import IdentityError, InputError
from stac_watch.model.event import Conversion, build_event, run_name
from stac_watch.model.forms import Form
from stac_watch.model.identity import check_item_id, event_id, key_in_name, parse_event_id, parse_product_id, tile_of
from stac_watch.model.item import Item
from stac_watch.model.outcome import Outcome
from stac_watch.model.stamps import ordered_stamp, parse_stamp
from stac_watch.model.states import Fact

BATCH = 500  # outputs whose markers are read at once, and written in one transaction
_SENSED = re.compile(r"-(\d{4})(\d\d)(\d\d)t(\d\d)(\d\d)(\d\d)-")  # in a run's name


@dataclass(frozen=True)
class Remnant:
    """What an output, or a Workflow, says of a conversion."""

    output_zarr: str
    said: Outcome
    fact: Fact = Fact.SUCCEEDED
    source: str = ""  # the source's name, where it is known
    at: datetime | None = None


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild found, or has written."""

    done: bool  # whether it was written, or only counted
    complete: bool  # whether all places were looked at
    outputs: int  # places that were looked at
    known: int  # of them, that the ledger has as done
    added: int  # conversions that it gets
    left: dict[str, int]  # why others are left out -> how many


@dataclass(frozen=True)
class Owners:
    """Whose what is found may be."""

    sources: Sequence[Source]
    recipe: Recipe
    installation: str

    def regained(self, found: Remnant, now: datetime) -> Regained | str:
        """Returns the conversion that something found says, or why it cannot be one of this ledger."""
        said = found.said
        if found.fact is Fact.SUCCEEDED and said.code:
            return "their markers say that they failed"
        if said.installation not in ("", self.installation):
            return f"of installation {said.installation}"
        try:
            item_id = check_item_id(said.item_id)
            key, attempt = parse_event_id(event_id(said.key, max(1, said.attempt)))
        except IdentityError:
            return "they name no item or no key"
        meant = self._meant(found, item_id)
        if meant is None:
            return "of no source that is configured"
        source, asked = meant
        run = run_name(asked, attempt).replace(key_in_name(asked.key), key_in_name(key))
        item = _item(said, source, item_id)
        at = found.at or parse_stamp(said.finished) or now
        fence = said.fence or ordered_stamp(at)
        body = _event(asked, key, attempt, run, known=asked.key == key)
        return Regained(source.name, item, key, attempt, run, body, found.output_zarr, found.fact, said, fence, at)

    def _meant(self, found: Remnant, item_id: str) -> tuple[Source, Conversion] | None:
        """Returns the source, and what it asks for: by the key, else by the place, else the only one there is."""
        asked = []
        for source in self.sources:
            if found.source in ("", source.name):
                made = conversion(_item(found.said, source, item_id), source, self.recipe, "backfill", replaced=False)
                installed = replace(made, fence=found.said.fence, installation=self.installation)
                asked.append((source, replace(installed, output_zarr=found.output_zarr), made.output_zarr))
        right = [(source, c) for source, c, _ in asked if c.key == found.said.key]
        right = right or [(s, c) for s, c, place in asked if place.replace(c.key, found.said.key) == found.output_zarr]
        right = right or ([asked[0][:2]] if len(asked) == 1 else [])
        return right[0] if right else None


def rebuild(
    ledger: Ledger,
    owners: Owners,
    outputs: Iterable[str],
    read: Callable[[Sequence[str]], Mapping[str, Outcome | None]],
    runs: Iterable[Remnant],
    now: Callable[[], datetime],
    *,
    yes: bool,
    batch: int = BATCH,
    wait: Callable[[float], bool] = lambda _: False,
    show: Callable[[int], None] = lambda _: None,
    begin: Callable[[], None] = lambda: None,
) -> Rebuilt:
    """Reads markers and Workflows, part by part; with `yes` what they say is written at once.

    Args:
        ledger: new, or one of before.
        owners: whose what is found may be.
        outputs: the places to look at.
        read: returns the markers of some of them.
        runs: what Workflows say.
        now: the time.
        yes: write it; else count only.
        batch: outputs in one part.
        wait: called between two parts; True when asked to stop.
        show: told how many places were looked at.
        begin: called before each part that is written: makes sure that no watcher writes meanwhile.

    Raises:
        Unavailable: the place of the outputs does not answer; run again, it goes on.
    """
    counts, left = Counter[str](), Counter[str]()
    for part in batched(_parts(ledger, outputs, read, runs, counts, batch), batch):
        gained = list[Regained]()
        for found in part:
            one = owners.regained(found, now())
            if isinstance(one, str):
                left[one] += 1
            else:
                gained.append(one)
        begin()
        counts["added"] += ledger.rebuilding.add(gained, now()) if yes else len({r.key for r in gained})
        show(counts["outputs"])
        if wait(0):
            return _told(counts, left, yes=yes, complete=False)
    return _told(counts, left, yes=yes, complete=True)


def _parts(
    ledger: Ledger,
    outputs: Iterable[str],
    read: Callable[[Sequence[str]], Mapping[str, Outcome | None]],
    runs: Iterable[Remnant],
    counts: Counter[str],
    batch: int,
) -> Iterator[Remnant]:
    for places in batched(outputs, batch):
        known = ledger.rebuilding.done_at(places)
        counts["outputs"] += len(places)
        counts["known"] += len(known)
        for place, said in read([place for place in places if place not in known]).items():
            if said is not None:
                yield Remnant(place, said)
    yield from runs


def _told(counts: Counter[str], left: Counter[str], *, yes: bool, complete: bool) -> Rebuilt:
    return Rebuilt(yes, complete, counts["outputs"], counts["known"], counts["added"], dict(left.most_common()))


def _item(said: Outcome, source: Source, item_id: str) -> Item:
    """Returns what is known of the item: the catalog will say more of it when it changes."""
    form = Form(said.form) if said.form in set(Form) else Form.EOPF_V2
    return Item(
        collection=source.collection, item_id=item_id, revision=said.revision, updated=parse_stamp(said.fence),
        datetime=_sensed(said), product_href=said.source,
        item_href=f"{source.api}/collections/{source.collection}/items/{item_id}", bbox=(),
        cloud_cover=None, tile=tile_of(item_id), deprecated=False, form=form,
    )  # fmt: skip


def _sensed(said: Outcome) -> datetime:
    if (match := _SENSED.search(said.run)) is not None:
        moment = parse_stamp("{}-{}-{}T{}:{}:{}Z".format(*match.groups()))
        if moment is not None:
            return moment
    parts = parse_product_id(said.item_id)
    text = parts["sensing"] if parts is not None else ""
    spelled = f"{text[:4]}-{text[4:6]}-{text[6:11]}:{text[11:13]}:{text[13:15]}Z"
    found = parse_stamp(spelled) or parse_stamp(said.finished) or parse_stamp(said.fence)
    if found is None:
        raise InputError(f"nothing says when item {said.item_id!r} was sensed")
    return found


def _event(asked: Conversion, key: str, attempt: int, run: str, *, known: bool) -> bytes:
    """Returns the event of a conversion; what it asked of the converter is only known where its key is that of today's recipe."""
    document = json.loads(build_event(asked, attempt))
    data = document["data"] | {"key": key, "run": run}
    if not known:
        data |= {"options": {"overwrite": "false"}, "groups": ""}
    return json.dumps({**document, "id": event_id(key, attempt), "data": data}).encode()
