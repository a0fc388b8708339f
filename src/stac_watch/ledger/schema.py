"""The ledger's tables, for SQLite and PostgreSQL alike.

A change here needs a step in `migrations`; a test compares the two.
Invariants that the ledger keeps: a conversion is `queued` exactly when one outbox row with its key exists, and `funnel` counts
the conversions.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from stac_watch.ledger.columns import Body, Ending, Stamp, Words

SCHEMA_VERSION = 12


metadata = MetaData()
_serial = BigInteger().with_variant(Integer, "sqlite")

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

item = Table(
    "item",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("item_id", String(128), primary_key=True),
    Column("revision", String(32), nullable=False),
    Column("key", String(20), nullable=False),  # of the current revision's conversion
    Column("trace", String(32)),  # the revision, whatever host the product lies on; null in rows of an earlier version
    Column("updated", Stamp),
    Column("sensing", Stamp, nullable=False),
    Column("tile", String(8), nullable=False),
    Column("bbox", JSON, nullable=False),
    Column("cloud_cover", Float),
    Column("first_seen", Stamp, nullable=False),
    Column("last_seen", Stamp, nullable=False),
    Index("item_by_sensing", "source", "sensing"),
    Index("item_by_update", "source", "updated"),
    Index("item_by_sight", "source", "first_seen"),
)

conversion = Table(
    "conversion",
    metadata,
    Column("key", String(20), primary_key=True),
    Column("source", String(64), nullable=False),
    Column("item_id", String(128), nullable=False),
    Column("revision", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False, default=0),  # temporary ones since `queued_at`
    Column("waits", Integer, nullable=False, default=0),  # times the source was not there yet since `queued_at`
    Column("queued_at", Stamp, nullable=False),  # when discovery or a person last queued it
    Column("lane", String(8), nullable=False),
    Column("reason", Words),  # skip reason, or the error that made it fail or late
    Column("cause", String(160), nullable=False),  # skip reason, or the error's fingerprint, else empty: what `funnel` counts by
    Column("waits_for", Words),  # why its run does not start, as Kubernetes says it; null when it does not wait
    Column("exit_code", Integer),
    Column("run", String(63)),
    Column("output_zarr", Text, nullable=False),
    Column("fence", String(32)),  # orders the revisions of an item; null in rows of an earlier version
    Column("outcome", Ending),
    Column("created_at", Stamp, nullable=False),
    Column("changed_at", Stamp, nullable=False),
    Index("conversion_by_state", "state", "changed_at"),
    Index("conversion_by_wait", "state", "queued_at"),
    Index("conversion_by_source", "source", "state", "changed_at"),
    Index("conversion_by_change", "changed_at"),
    Index("conversion_by_item", "item_id", "source"),
    Index("conversion_by_output", "output_zarr", "state"),
)

event = Table(
    "event",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key", String(20), ForeignKey("conversion.key"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("body", Body, nullable=False),  # byte for byte what is posted
    Column("created_at", Stamp, nullable=False),
    Index("event_by_key", "key", "attempt"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("key", String(20), ForeignKey("conversion.key"), primary_key=True),
    Column("event_id", String(32), ForeignKey("event.id"), nullable=False),
    Column("source", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("due", Stamp, nullable=False),
    Column("posts", Integer, nullable=False, default=0),
    Column("sensing", Stamp, nullable=False),
    Index("outbox_by_age", "source", "priority", "sensing", "key", "due"),
    Index("outbox_by_due", "due"),
    # on PostgreSQL `migrations` makes it: to say so here loads that dialect at every start, a tenth of what `status` takes
    Index("outbox_posted", "key", sqlite_where=text("posts > 0")).ddl_if(dialect="sqlite"),
)

history = Table(
    "history",
    metadata,
    Column("id", _serial, primary_key=True, autoincrement=True),
    Column("key", String(20), ForeignKey("conversion.key"), nullable=False),
    Column("src", String(16)),
    Column("fact", String(20), nullable=False),
    Column("dst", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Stamp, nullable=False),
    Column("why", Words, nullable=False),
    Index("history_by_key", "key", "id"),
)

cursor = Table(
    "cursor",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("position", Stamp, nullable=False),
    Column("changed_at", Stamp, nullable=False),
)

unreadable = Table(
    "unreadable",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("item_id", String(200), primary_key=True),
    Column("why", Words, nullable=False),
    Column("first_seen", Stamp, nullable=False),
    Column("last_seen", Stamp, nullable=False),
)

funnel = Table(  # how many conversions are where, kept with each move: `status` must not read a million rows
    "funnel",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("lane", String(8), primary_key=True),
    Column("state", String(16), primary_key=True),
    Column("cause", String(160), primary_key=True),
    Column("n", Integer, nullable=False),
)

lease = Table(  # who may watch; whoever holds it says so with each write
    "lease",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(128), nullable=False),
    Column("until", Stamp, nullable=False),
)

backfill = Table(  # what the last `backfill --yes` of a source asked for; the watcher keeps to it
    "backfill",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("start", Stamp, nullable=False),
    Column("end", Stamp, nullable=False),
    Column("created_at", Stamp, nullable=False),
    Column("canary", Integer, nullable=False),  # how many are converted first; 0 = no canary, or it went well
    Column("max_failures", Integer),
    Column("held", Words),  # why nothing more of it is sent
)

second_look = Table(  # superseded conversions of which a run may yet come, and write the output last
    "second_look",
    metadata,
    Column("key", String(20), ForeignKey("conversion.key"), primary_key=True),
    Column("since", Stamp, nullable=False),
    Column("due", Stamp, nullable=False),
    Index("second_look_by_due", "due"),
)

publication = Table(  # the item of a done conversion in the catalog where it is registered: one row for each item
    "publication",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("item_id", String(128), primary_key=True),
    Column("key", String(20), ForeignKey("conversion.key"), nullable=False),  # whose output is, or is to be, registered
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),  # since it was asked for
    Column("due", Stamp, nullable=False),
    Column("asked_at", Stamp, nullable=False),
    Column("changed_at", Stamp, nullable=False),
    Column("reason", Words),  # why it is late, or has failed
    Column("digest", String(64), nullable=False),  # of what was sent last and found there; empty = nothing
    Column("target", Text, nullable=False),  # where it was sent
    Column("registered_at", Stamp),
    Index("publication_by_state", "state", "due"),
    Index("publication_by_count", "state", "source", "asked_at"),
    Index("publication_by_key", "key"),
    Index("publication_by_item", "item_id"),
)

announcement = Table(  # what others are told: a CloudEvent each, numbered in the order in which it happened
    "announcement",
    metadata,
    Column("id", _serial, primary_key=True, autoincrement=True),
    Column("event_id", String(32), nullable=False),
    Column("type", String(64), nullable=False),
    Column("topic", Text, nullable=False),  # an item, or a cause of failures: what one is told of in order
    Column("body", Body, nullable=False),  # byte for byte what is posted
    Column("created_at", Stamp, nullable=False),
    Index("announcement_by_topic", "topic", "id"),
    Index("announcement_by_time", "created_at"),
)

delivery = Table(  # an announcement, and a sink that is to have it
    "delivery",
    metadata,
    Column("sink", Text, primary_key=True),
    Column("announcement", _serial, ForeignKey("announcement.id"), primary_key=True, autoincrement=False),
    Column("topic", Text, nullable=False),
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Stamp, nullable=False),
    Column("changed_at", Stamp, nullable=False),
    Column("reason", Words),  # why it is late, or was refused
    Index("delivery_by_due", "sink", "state", "due"),
    Index("delivery_by_topic", "topic", "sink", "state", "announcement"),
    Index("delivery_by_count", "state", "sink", "changed_at"),
)

incident = Table(  # conversions of a source that fail, or failed, with one cause
    "incident",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("cause", String(160), primary_key=True),
    Column("since", Stamp, nullable=False),
    Column("last", Stamp, nullable=False),
    Column("n", Integer, nullable=False),
    Column("first_item", String(128), nullable=False),
    Column("reason", Words, nullable=False),
    Column("resolved_at", Stamp),
)

# -- what discovery remembers --------------------------------------------------------------------------------------------------

probe = Table(  # what a source's catalog was found to do
    "probe",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("found", JSON, nullable=False),
    Column("at", Stamp, nullable=False),
    Column("invalidated", Integer, nullable=False),  # 1 after an error: it is probed again
)

lateness = Table(  # new items by how far before the cursor they were stamped, in powers of two seconds
    "lateness",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("n", Integer, nullable=False),
)

sweep = Table(  # the last or current sweep of each kind
    "sweep",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("kind", String(8), primary_key=True),  # recent, all
    Column("number", Integer, nullable=False),
    Column("start", Stamp, nullable=False),
    Column("end", Stamp, nullable=False),
    Column("position", Stamp, nullable=False),  # windows before it are done
    Column("begun_at", Stamp, nullable=False),
    Column("done_at", Stamp),
)

audited = Table(  # the last audit of each source
    "audited",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("at", Stamp, nullable=False),
    Column("start", Stamp, nullable=False),
    Column("end", Stamp, nullable=False),
    Column("gaps", JSON, nullable=False),  # kind -> how many
)

baseline = Table(  # items that were there before the source was watched, and are not wanted unless they change
    "baseline",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("item_id", String(128), primary_key=True),
    Column("revision", String(32)),  # as of its trace: whatever the host; null = noted before this was kept
)

moved = Table(  # items of which nothing changed but the host of the product, and which were announced for it
    "moved",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("item_id", String(128), primary_key=True),
    Column("at", Stamp, nullable=False),
)

absent = Table(  # items that a sweep did not find where they were
    "absent",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("item_id", String(128), primary_key=True),
    Column("missed_at", Stamp, nullable=False),
    Column("sweeps", Integer, nullable=False),
    Column("last_sweep", Integer, nullable=False),
    Column("withdrawn_at", Stamp),
    Column("output", String(12)),  # what became of the output; null = none was made
    Index("absent_by_output", "source", "output"),
)

restamp = Table(  # known items without a checksum that were stamped anew: their products may have changed
    "restamp",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("item_id", String(128), primary_key=True),
    Column("stamp", Stamp, nullable=False),  # the item's own
    Column("href", Text, nullable=False),  # where the product lies
    Column("since", Stamp, nullable=False),
    Column("due", Stamp, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("found", String(8), nullable=False),  # empty = not looked at yet; same, changed, retried, unclear
    Column("looked_at", Stamp),
    Index("restamp_by_due", "source", "found", "due"),
    Index("restamp_by_look", "source", "looked_at"),
)
