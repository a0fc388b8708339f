"""Brings an older ledger up to date, one step for each schema version. The DDL is Alembic's, alike on both databases.

A newer ledger is refused; the caller commits.

A step is written once and never changed; it says everything by itself and does not read `schema`, which moves on. Tables that a
step does not know are created from `schema` after the last one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stac_watch.ledger import schema as t
from stac_watch.model.errors import ConfigError

if TYPE_CHECKING:
    from alembic.operations import Operations


UNFINISHED = 0
"""The version of a ledger into which another one is being copied: no verb but that one uses it."""


def is_current(tx: sa.Connection) -> bool:
    """Tells whether there is nothing to do; writes nothing, and waits for nobody."""
    return version_of(tx) == t.SCHEMA_VERSION


def migrate(tx: sa.Connection, *, upgrade: bool = True) -> None:
    """Creates a new ledger, or takes an older one to the current schema if it may.

    Raises:
        ConfigError: the ledger is of a newer schema, or of an older one and must stay so.
    """
    if tx.dialect.name == "postgresql":
        tx.exec_driver_sql("SET LOCAL statement_timeout = 0")  # a step over a million rows takes what it takes
    found = version_of(tx)
    if found == UNFINISHED:
        said = f"the ledger {tx.engine.url.render_as_string()} is an unfinished copy"
        raise ConfigError(said, hint="run the same `stac-watch ledger copy` again to continue")
    differs = f"the ledger {tx.engine.url.render_as_string()} has schema {found}, this stac-watch knows {t.SCHEMA_VERSION}"
    if found is not None and found > t.SCHEMA_VERSION:
        raise ConfigError(differs, hint="install the newer stac-watch")
    if found is not None and found < t.SCHEMA_VERSION:
        if not upgrade:  # an older watcher that may still run would refuse to start after it
            hint = "`stac-watch watch` brings it up to date, once no older one runs; or use the older stac-watch"
            raise ConfigError(differs, hint=hint)
        from alembic.migration import MigrationContext  # a tenth of every verb's start, and an older ledger is opened once
        from alembic.operations import Operations

        op = Operations(MigrationContext.configure(tx))
        for version in range(found + 1, t.SCHEMA_VERSION + 1):
            STEPS[version](tx, op)
    create(tx)
    if found != t.SCHEMA_VERSION:
        tx.execute(sa.delete(t.schema_version))
        tx.execute(sa.insert(t.schema_version).values(version=t.SCHEMA_VERSION))


def create(tx: sa.Connection) -> None:
    """Makes the tables and indexes that are not there."""
    t.metadata.create_all(tx)
    if tx.dialect.name == "postgresql":
        tx.exec_driver_sql("CREATE INDEX IF NOT EXISTS outbox_posted ON outbox (key) WHERE posts > 0")


def version_of(tx: sa.Connection) -> int | None:
    """Returns a ledger's schema version; None where there is no ledger."""
    if not sa.inspect(tx).has_table(t.schema_version.name):
        return None
    return tx.execute(sa.select(t.schema_version.c.version)).scalar()


def _to_2(tx: sa.Connection, op: Operations) -> None:
    """Sources and lanes in the outbox, counts in `funnel`, what a run waits for."""
    op.add_column("conversion", sa.Column("waits_for", sa.Text()))
    op.add_column("conversion", sa.Column("cause", sa.String(160), nullable=False, server_default=""))
    tx.exec_driver_sql(
        "UPDATE conversion SET cause = substr(reason, 1, 160) WHERE state IN ('skipped', 'dead') AND reason IS NOT NULL"
    )
    op.add_column("outbox", sa.Column("source", sa.String(64), nullable=False, server_default=""))
    tx.exec_driver_sql("UPDATE outbox SET source = (SELECT source FROM conversion WHERE conversion.key = outbox.key)")
    op.drop_index("outbox_by_due", "outbox")
    op.create_index("outbox_by_due", "outbox", ["due"])
    op.create_index("outbox_by_age", "outbox", ["source", "priority", "sensing", "key", "due"])
    posted = sa.text("posts > 0")
    op.create_index("outbox_posted", "outbox", ["key"], sqlite_where=posted, postgresql_where=posted)
    op.create_index("item_by_sensing", "item", ["source", "sensing"])
    op.create_index("item_by_update", "item", ["source", "updated"])
    op.create_index("item_by_sight", "item", ["source", "first_seen"])
    op.create_index("conversion_by_source", "conversion", ["source", "state", "changed_at"])
    op.create_index("conversion_by_change", "conversion", ["changed_at"])
    names = (("source", 64), ("lane", 8), ("state", 8), ("cause", 160))
    columns = [sa.Column(name, sa.String(length), primary_key=True) for name, length in names]
    op.create_table("funnel", *columns, sa.Column("n", sa.Integer, nullable=False))
    tx.exec_driver_sql(
        "INSERT INTO funnel (source, lane, state, cause, n)"
        " SELECT source, lane, state, cause, count(*) FROM conversion GROUP BY source, lane, state, cause"
    )


def _to_3(tx: sa.Connection, op: Operations) -> None:
    """What the last audit of each source found: a table of its own, and nothing else."""


def _to_4(tx: sa.Connection, op: Operations) -> None:
    """The glossary's words: what was dead has failed, what was sent is submitted, what was in quarantine is unreadable."""
    columns = (("conversion", "state"), ("history", "src"), ("history", "dst"), ("funnel", "state"))
    for table, column in columns:
        if tx.dialect.name == "postgresql":  # SQLite does not hold a text to its length
            op.alter_column(table, column, type_=sa.String(16))
        for old, new in (("dead", "failed"), ("sent", "submitted")):
            tx.exec_driver_sql(f"UPDATE {table} SET {column} = '{new}' WHERE {column} = '{old}'")  # noqa: S608  # names of ours
    op.rename_table("quarantine", "unreadable")
    present = sa.inspect(tx).get_table_names()
    if "probe" in present:
        op.alter_column("probe", "doubted", new_column_name="invalidated")
    if "audited" in present:  # kinds of gaps are counted in a JSON document
        for source, gaps in tx.execute(sa.text("SELECT source, gaps FROM audited")).all():
            counted = json.loads(gaps) if isinstance(gaps, str) else gaps
            renamed = json.dumps({"failed" if kind == "dead" else kind: n for kind, n in counted.items()})
            cast = "CAST(:gaps AS json)" if tx.dialect.name == "postgresql" else ":gaps"
            tx.execute(sa.text(f"UPDATE audited SET gaps = {cast} WHERE source = :source"), {"gaps": renamed, "source": source})  # noqa: S608


def _to_5(tx: sa.Connection, op: Operations) -> None:
    """Longer keys, and a fence for each conversion. What has a key of 12 digits keeps it: its runs and markers carry it."""
    if tx.dialect.name == "postgresql":  # SQLite does not hold a text to its length
        for table in ("item", "conversion", "event", "outbox", "history"):
            op.alter_column(table, "key", type_=sa.String(20))
    op.add_column("conversion", sa.Column("fence", sa.String(32)))


def _to_6(tx: sa.Connection, op: Operations) -> None:
    """Revisions apart from their hosts, also of what was there before the watch: not known of what was noted until now."""
    op.add_column("item", sa.Column("trace", sa.String(32)))
    if "baseline" in sa.inspect(tx).get_table_names():
        op.add_column("baseline", sa.Column("revision", sa.String(32)))


def _to_7(tx: sa.Connection, op: Operations) -> None:
    """Superseded conversions of which a run may yet come: a table of its own, and nothing else."""


def _to_8(tx: sa.Connection, op: Operations) -> None:
    """What was stamped anew and is to be looked at: a table of its own, and nothing else."""


def _to_9(tx: sa.Connection, op: Operations) -> None:
    """What becomes of outputs whose items are gone: those that are there were kept."""
    if "absent" not in sa.inspect(tx).get_table_names():
        return
    op.add_column("absent", sa.Column("output", sa.String(12)))
    op.create_index("absent_by_output", "absent", ["source", "output"])
    tx.exec_driver_sql(
        "UPDATE absent SET output = 'kept' WHERE withdrawn_at IS NOT NULL AND EXISTS (SELECT 1 FROM item JOIN conversion"
        " ON conversion.key = item.key WHERE item.source = absent.source AND item.item_id = absent.item_id"
        " AND conversion.state = 'done')"
    )


def _to_10(tx: sa.Connection, op: Operations) -> None:
    """Publications: a table of its own, and nothing else."""


def _to_11(tx: sa.Connection, op: Operations) -> None:
    """What others are told, and of which causes of failures: tables of their own, and nothing else."""


def _to_12(tx: sa.Connection, op: Operations) -> None:
    """Waits are counted from admission: an index finds the longest."""
    if "conversion" in sa.inspect(tx).get_table_names():
        op.create_index("conversion_by_wait", "conversion", ["state", "queued_at"])


STEPS: dict[int, Callable[[sa.Connection, Operations], None]] = {
    2: _to_2,
    3: _to_3,
    4: _to_4,
    5: _to_5,
    6: _to_6,
    7: _to_7,
    8: _to_8,
    9: _to_9,
    10: _to_10,
    11: _to_11,
    12: _to_12,
}
