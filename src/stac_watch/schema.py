"""The ledger's tables, for SQLite and PostgreSQL alike.

In: nothing. Out: SQLAlchemy metadata. Never: queries; those are the named methods of `ledger`.
Invariant that the ledger keeps: a conversion is `queued` exactly when one outbox row with its key exists.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

SCHEMA_VERSION = 1


class Stamp(TypeDecorator[datetime]):
    """An aware datetime in UTC on both databases; SQLite itself keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  # interface
        """Converts to UTC; a naive datetime is a mistake of ours."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"naive datetime {value} must not reach the ledger")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ANN401, ARG002  # interface
        """Returns an aware datetime."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


metadata = MetaData()
_serial = BigInteger().with_variant(Integer, "sqlite")

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

item = Table(
    "item",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("item_id", String(128), primary_key=True),
    Column("revision", String(32), nullable=False),
    Column("key", String(12), nullable=False),  # of the current revision's conversion
    Column("updated", Stamp),
    Column("sensing", Stamp, nullable=False),
    Column("tile", String(8), nullable=False),
    Column("bbox", JSON, nullable=False),
    Column("cloud_cover", Float),
    Column("first_seen", Stamp, nullable=False),
    Column("last_seen", Stamp, nullable=False),
)

conversion = Table(
    "conversion",
    metadata,
    Column("key", String(12), primary_key=True),
    Column("source", String(64), nullable=False),
    Column("item_id", String(128), nullable=False),
    Column("revision", String(32), nullable=False),
    Column("state", String(8), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False, default=0),  # temporary ones since `queued_at`
    Column("waits", Integer, nullable=False, default=0),  # times the source was not there yet since `queued_at`
    Column("queued_at", Stamp, nullable=False),  # when discovery or a person last queued it
    Column("lane", String(8), nullable=False),
    Column("reason", Text),  # skip reason, or the error that made it dead or late
    Column("exit_code", Integer),
    Column("run", String(63)),
    Column("output_zarr", Text, nullable=False),
    Column("outcome", JSON),
    Column("created_at", Stamp, nullable=False),
    Column("changed_at", Stamp, nullable=False),
    Index("conversion_by_state", "state", "changed_at"),
    Index("conversion_by_item", "item_id", "source"),
    Index("conversion_by_output", "output_zarr", "state"),
)

event = Table(
    "event",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key", String(12), ForeignKey("conversion.key"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),  # byte for byte what is posted
    Column("created_at", Stamp, nullable=False),
    Index("event_by_key", "key", "attempt"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("key", String(12), ForeignKey("conversion.key"), primary_key=True),
    Column("event_id", String(32), ForeignKey("event.id"), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("due", Stamp, nullable=False),
    Column("posts", Integer, nullable=False, default=0),
    Column("sensing", Stamp, nullable=False),
    Index("outbox_by_due", "priority", "due"),
)

history = Table(
    "history",
    metadata,
    Column("id", _serial, primary_key=True, autoincrement=True),
    Column("key", String(12), ForeignKey("conversion.key"), nullable=False),
    Column("src", String(8)),
    Column("fact", String(20), nullable=False),
    Column("dst", String(8), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Stamp, nullable=False),
    Column("why", Text, nullable=False),
    Index("history_by_key", "key", "id"),
)

cursor = Table(
    "cursor",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("position", Stamp, nullable=False),
    Column("changed_at", Stamp, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("item_id", String(200), primary_key=True),
    Column("why", Text, nullable=False),
    Column("first_seen", Stamp, nullable=False),
    Column("last_seen", Stamp, nullable=False),
)
