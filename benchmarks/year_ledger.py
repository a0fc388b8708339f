"""A simulated year's ledger from outside: its rows counted by plain SQL, and how much of the disk it takes.

In: a database URL. Out: numbers. Never: stac-watch's own queries, which are what is on trial.
"""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import NullPool, create_engine, text

from stac_watch.ledger.records import Place
from stac_watch.model.states import State

RECOUNT = "SELECT source, lane, state, cause, count(*) FROM conversion GROUP BY source, lane, state, cause"


def recount(url: str) -> dict[Place, int]:
    """Counts the conversions by plain SQL."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as db:
        return {Place(r[0], r[1], State(r[2]), r[3]): r[4] for r in db.execute(text(RECOUNT))}


def ledger_mb(url: str) -> float:
    """Returns how large the ledger is on disk, MB."""
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        path = engine.url.database or ""
        return sum(os.path.getsize(p) for p in (path, f"{path}-wal") if Path(p).exists()) / 1e6  # noqa: PTH202
    with engine.connect() as db:
        sizes = (
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        return float(db.execute(text(sizes)).scalar() or 0) / 1e6


def vacuumed_mb(url: str) -> float:
    """Lets the database give back what is free; returns how large the ledger is then, MB."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(text("VACUUM FULL" if engine.dialect.name != "sqlite" else "VACUUM"))
        if engine.dialect.name == "sqlite":
            db.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    return ledger_mb(url)
