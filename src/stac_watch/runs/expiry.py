"""What lies on the volume of its run is there for as long as that: then the conversion is no longer done, but expired."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta

from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow, Move
from stac_watch.ledger.session import StaleState
from stac_watch.model.outcome import DATA
from stac_watch.model.states import Fact

SETTLED = timedelta(minutes=5)  # since it was done: the volumes were listed before the ledger was read


def is_gone(row: ConversionRow, volumes: Collection[str]) -> bool:
    """Tells whether the output of a done conversion lay on a volume that is not there any more.

    Args:
        row: a conversion that is done.
        volumes: the names of the runs whose volumes are there.
    """
    return row.output_zarr.startswith(f"{DATA}/") and row.run not in volumes


def expire(ledger: Ledger, volumes: Collection[str], now: datetime, keep: timedelta) -> int:
    """Notes which outputs have gone with their volumes; returns how many.

    An answer without a single volume is believed only of outputs that are older than `keep`, for which Workflows, and with them
    volumes, stay: a look at the wrong namespace, or one that its account sees nothing of, would expire all that is done.
    """
    found, oldest = 0, SETTLED if volumes else max(SETTLED, keep)
    for row in ledger.conversions.on_volumes():
        if is_gone(row, volumes) and now - row.changed_at >= oldest:
            why = f"the volume of run {row.run} is gone, and with it the only copy"
            with suppress(StaleState):  # a person replayed it meanwhile
                ledger.conversions.move(row, Move(Fact.EXPIRED, why, reason=why), now)
                found += 1
    return found
