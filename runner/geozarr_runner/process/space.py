"""Room on the disk where a run works: a warning before, and the need and what is free when there was none."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stac_watch.model.errors import CannotWrite, cannot_write

if TYPE_CHECKING:
    from geozarr_runner.source.preflight import Estimate

log = logging.getLogger(__name__)


def warn(estimate: Estimate, place: Path) -> None:
    """Says beforehand that there may be too little room. It is no reason to refuse: the estimate is an upper end."""
    need, free = estimate.staged + estimate.output + estimate.package, shutil.disk_usage(place).free
    if free < need:
        log.warning("%.1f GB free in %s, up to %.1f GB may be needed", free / 1e9, place, need / 1e9)


def require(estimate: Estimate, room: int) -> None:
    """Makes sure that a run fits into a folder of its pod, before anything is fetched: who takes more is evicted without a word.

    Raises:
        CannotWrite: it may need more than that.
    """
    if estimate.volume > room:
        raise CannotWrite(
            f"the run may need {estimate.quantity}, and has {room / 1024**3:.3g}Gi on its node's disk",
            hint=f"set `runs.scratch: {estimate.quantity}` in the values, or `runs.volume: claim`, and render the manifests",
        )


@contextlib.contextmanager
def writing(folder: Path, estimate: Estimate) -> Iterator[None]:
    """Turns what the operating system says while we write into the error that names the place, the need and what is free."""
    try:
        yield
    except (OSError, CannotWrite) as error:
        known = error if isinstance(error, CannotWrite) else cannot_write(error, folder)
        if known is None:
            raise
        need = estimate.staged + estimate.output + estimate.package
        hint = f"{known.hint}; the run needs up to {need / 1e6:.0f} MB there ({need} bytes)"
        raise CannotWrite(known.message, hint=hint) from error
