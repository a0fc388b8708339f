"""The rows of the ledger as values, so that the stages above it never see a database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stac_watch.model.event import Conversion, Lane
from stac_watch.model.item import Item, SkipReason
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import Fact, State


@dataclass(frozen=True)
class Sighting:
    """One item as a page showed it, with what follows from it."""

    item: Item
    conversion: Conversion
    skip: SkipReason | None


@dataclass(frozen=True)
class Rivals:
    """Other sources that have the same acquisitions under the same ids: one of them converts each."""

    ahead: frozenset[str] = frozenset()  # sources that are preferred to this one
    behind: frozenset[str] = frozenset()  # sources that this one is preferred to

    def __bool__(self) -> bool:
        return bool(self.ahead or self.behind)


NO_RIVALS = Rivals()


@dataclass(frozen=True)
class Findings:
    """What a window tells besides its items: written in the same transaction."""

    superseded: Mapping[str, str] = field(default_factory=dict)  # items that a newer processing takes the place of, and why
    readable: Collection[str] = ()  # ids of items that can be read
    cleared: tuple[str, str] | None = None  # what was hidden under a name in `[low, high)` is so no longer
    lateness: Mapping[int, int] = field(default_factory=dict)  # new items by how late they were: see `Sources.lateness`
    preexisting: Mapping[str, str] = field(default_factory=dict)  # items that were there before the watch, and their traces
    places: Mapping[str, str] = field(default_factory=dict)  # where the products of items that wait can be had now
    moved: Collection[str] = ()  # items that are announced although nothing changed but the host of their product
    present: Collection[str] = ()  # items that were missing, and are there
    missing: Collection[str] = ()  # items that this sweep did not find
    restamped: Mapping[str, tuple[datetime, str]] = field(default_factory=dict)  # known, without a checksum: new stamp, product
    sweep: int = 0  # its number
    rivals: Rivals = NO_RIVALS  # who may have the same acquisitions; tells nothing by itself


NOTHING = Findings()


@dataclass(frozen=True)
class Known:
    """What the ledger knows of an item when a page shows it again."""

    revision: str
    key: str
    state: State
    cause: str = ""  # skip reason, or the fingerprint of the error
    updated: datetime | None = None  # when the catalog said that it changed
    trace: str | None = None  # the revision, whatever host the product lies on; None where an earlier version noted it
    overtaken: bool = False  # its run found the output of a later revision
    restamped: datetime | None = None  # the last new stamp for which it was, or is to be, looked at


@dataclass(frozen=True)
class ConversionRow:
    """The conversion of one item revision as it stands."""

    key: str
    source: str
    item_id: str
    revision: str
    state: State
    attempt: int
    failures: int
    waits: int
    queued_at: datetime
    lane: Lane
    reason: str | None
    exit_code: int | None
    run: str | None
    output_zarr: str
    outcome: Outcome | None
    created_at: datetime
    changed_at: datetime
    cause: str = ""  # skip reason, or the fingerprint of the error
    fence: str = ""  # orders the revisions of an item; empty = not known
    waits_for: str | None = None  # why its run does not start


@dataclass(frozen=True)
class Where:
    """Which items a person means; None = any."""

    tile: str | None = None  # T32TQM
    sensed: tuple[datetime, datetime] | None = None  # acquired in `[first, last)`
    text: str | None = None  # in the item's id or the run's name, or at the start of the key


@dataclass(frozen=True)
class OutboxRow:
    """An event that waits to be sent."""

    key: str
    event_id: str
    body: bytes
    posts: int
    due: datetime


@dataclass(frozen=True)
class Queue:
    """One queue of the outbox, in which events have an order: a lane of a source."""

    source: str
    lane: Lane


@dataclass(frozen=True)
class Place:
    """One line of the funnel: where conversions are."""

    source: str
    lane: Lane
    state: State
    cause: str


@dataclass(frozen=True)
class Load:
    """What is under way when an event is due."""

    funnel: Mapping[Place, int]
    unclear: int  # events that wait to be posted again because a post had no clear answer: a run of theirs may exist


@dataclass(frozen=True)
class Order:
    """What the last `backfill --yes` of a source asked for."""

    source: str
    start: datetime
    end: datetime  # exclusive
    created_at: datetime
    canary: int  # how many are converted first, before the rest is sent; 0 = no canary
    max_failures: int | None
    held: str | None  # why nothing more of it is sent


@dataclass(frozen=True)
class ItemRow:
    """An item as the catalog last described it."""

    source: str
    item_id: str
    revision: str
    key: str
    updated: datetime | None
    sensing: datetime
    tile: str
    bbox: list[float]
    cloud_cover: float | None
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True)
class Footprint:
    """Where the item of a conversion lies."""

    item_id: str
    state: State
    bbox: list[float]  # of an item, so 4 or 6 numbers, degrees
    tile: str = ""  # T32TQM; empty where the item says none


@dataclass(frozen=True)
class Lag:
    """How far a source has come."""

    published: datetime | None  # newest change stamp seen
    seen: datetime | None  # when an item was last new
    done: datetime | None  # when one was last done
    done_last_hour: int
    done_last_day: int
    withdrawn: int  # items that the catalog no longer has
    to_look: int = 0  # known items that were stamped anew and are to be looked at
    same: int = 0  # looked at within a day: what was known is there
    changed: int = 0  # within a day: another store under the name; converted again
    retried: int = 0  # within a day: had failed, and is tried again
    unclear: int = 0  # within a day: nobody could tell
    kept: int = 0  # outputs of items that the catalog no longer has, as they were
    deprecated: int = 0  # such outputs, marked as not to be used
    deleted: int = 0  # such outputs, removed


@dataclass(frozen=True)
class Sums:
    """What conversions and items add up to, at one moment."""

    funnel: dict[Place, int]
    lags: dict[str, Lag]  # by source
    waiting_since: datetime | None  # of those that are to move on, when the first was admitted or replayed
    unreadable: int
    ledger_bytes: int  # on its disk


@dataclass(frozen=True)
class HistoryRow:
    """One move of one conversion."""

    src: str | None
    fact: str
    dst: str
    attempt: int
    at: datetime
    why: str


@dataclass(frozen=True)
class Tally:
    """How many sightings of a window were new, replaced, admitted, skipped or unchanged."""

    seen: int = 0
    admitted: int = 0
    skipped: int = 0
    unreadable: int = 0
    lagging: int = 0  # older answers than the one that is known: a replica of the catalog that is behind


@dataclass(frozen=True)
class Regained:
    """A conversion as its output's marker, or its Workflow, says it: for a ledger that was lost."""

    source: str
    item: Item
    key: str
    attempt: int
    run: str
    body: bytes  # its event
    output_zarr: str
    fact: Fact  # what is known of it: succeeded, failed_permanent, accepted
    outcome: Outcome | None
    fence: str
    at: datetime  # when that was so


@dataclass(frozen=True)
class SecondLook:
    """A superseded conversion of which a run may yet come."""

    row: ConversionRow
    since: datetime


@dataclass(frozen=True)
class Retired:
    """An output whose item is gone from its catalog, or is back there."""

    row: ConversionRow
    since: datetime | None  # None = it is back


@dataclass(frozen=True)
class Restamp:
    """A known item without a checksum that was stamped anew."""

    source: str
    item_id: str
    stamp: datetime
    href: str  # of its product, as the item has it now
    tries: int  # looks that gave no answer
    row: ConversionRow  # what it is known by


@dataclass(frozen=True)
class Move:
    """A fact about one conversion, and what goes with it."""

    fact: Fact
    why: str  # one sentence for the history
    due: datetime | None = None  # when a queued event may go out; None = at once
    reason: str | None = None  # skip reason, or the error that people should see
    outcome: Outcome | None = None
    lane: Lane | None = None
    attempt: int | None = None  # the next attempt's number, where it is not just the next
    look_at: datetime | None = None  # a run may come all the same: when to look at what lies under the output's name
    fence: str = ""  # the item returned to this revision: it is the newest again
    allowed_hosts: str = ""  # of the source as it is configured now, comma-separated; empty = as they were
    allow_empty: bool = False  # the next attempt takes chunks that are missing for nodata
    overwrite: bool = False  # the next attempt converts again although an output with the key exists
    conversion: Conversion | None = None  # the next attempt asks for this, of whichever source; None = for the same as before
    asked: str = ""  # why the next attempt's event is made, as it says; empty = what the fact means


@dataclass(frozen=True)
class Audited:
    """What the last audit of a source found."""

    source: str
    at: datetime
    start: datetime  # acquisitions from then on
    end: datetime  # exclusive
    gaps: dict[str, int]  # by kind; empty = nothing is missing, stale or doubled


@dataclass(frozen=True)
class Remembered:
    """What discovery remembers, of all sources."""

    abilities: dict[str, tuple[dict[str, Any], datetime]]  # what was found, and when
    lateness: dict[str, dict[int, int]]
    positions: dict[str, datetime]  # of the cursors that were asked for, by name
    swept: dict[str, datetime]  # when the last sweep of recent days ended
    audits: dict[str, Audited]


@dataclass(frozen=True)
class Moved:
    """A move as it was committed, for whoever listens: logs and metrics."""

    source: str
    item_id: str
    key: str
    lane: Lane
    attempt: int
    run: str | None
    src: State | None
    fact: Fact
    dst: State
    at: datetime
    since: datetime | None  # when it entered the state that it left; for a new live one, when it was published, if known
    why: str
    form: str = ""  # of a new one's product, as its item announces it


@dataclass(frozen=True)
class Scope:
    """Which conversions a person wants to see; None = all."""

    since: datetime | None = None  # last changed then or later
    source: str | None = None
    lane: Lane | None = None

    def has(self, source: str, lane: str) -> bool:
        """Tells whether conversions of a source's lane belong to it, whenever they changed."""
        return self.source in (None, source) and self.lane in (None, lane)


@dataclass(frozen=True)
class Journey:
    """When a done conversion reached each step; None if not known."""

    published: datetime | None  # by the catalog's change stamp; of the live lane only
    seen: datetime
    accepted: datetime | None  # of the attempt that was done
    running: datetime | None
    done: datetime


@dataclass(frozen=True)
class SweepRow:
    """One sweep of a source by acquisition time."""

    source: str
    kind: str  # recent | all
    number: int  # 1, 2, 3 … of either kind
    start: datetime
    end: datetime  # exclusive
    position: datetime  # windows before it are done
    begun_at: datetime
    done_at: datetime | None


@dataclass(frozen=True)
class SourceState:
    """What the ledger remembers of a source and its catalog."""

    positions: Mapping[str, datetime]  # of its cursors; those that are not there are not set
    abilities: tuple[dict[str, Any], datetime, bool] | None  # what a probe found, when, and whether it is invalidated since
    lateness: Mapping[int, int]
    sweeps: Mapping[str, SweepRow]  # the last or current one of each kind
