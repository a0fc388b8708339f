"""What follows from the checks of an output: it may be published, the product is at fault, or we are."""

from __future__ import annotations

from collections.abc import Iterable

from stac_watch.model.errors import Defect, InputError
from stac_watch.model.outcome import Check

_OF_THE_SOURCE = {"ground": "geozarr-runner run --allow-empty true takes for nodata what is missing"}
"""Checks that fail when the product contradicts itself, and what can be done."""


def require(checks: Iterable[Check], where: str) -> None:
    """Raises unless every check passed.

    Raises:
        InputError: the product contradicts itself.
        Defect: the output is not what the product says.
    """
    failed = [check for check in checks if check.verdict == "failed"]
    ours = next((check for check in failed if check.name not in _OF_THE_SOURCE), None)
    if ours is not None:
        raise Defect(
            f"the output is not what the source says: check {ours.name!r} failed: {ours.detail}",
            hint="nothing was published; please report it with the versions in the outcome",
        )
    if failed:
        raise InputError(f"{where} contradicts itself: {failed[0].detail}", hint=_OF_THE_SOURCE[failed[0].name])
