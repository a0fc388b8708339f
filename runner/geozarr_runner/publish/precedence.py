"""Whether a run may put its output where one with a marker lies: over no newer revision's, other item's or installation's."""

from __future__ import annotations

from datetime import datetime, timedelta

from geozarr_runner.request import Identity
from stac_watch.model.errors import CannotWrite, InputError, Superseded
from stac_watch.model.outcome import Outcome
from stac_watch.model.stamps import parse_stamp

AHEAD = timedelta(days=2)
"""As far as a fence may lie before this machine's clock: clocks differ, and a poller puts none into the future."""


def require_possible(mine: Identity, now: datetime) -> None:
    """Refuses a fence that nothing could ever follow: whoever wrote such an event would keep every later revision out.

    Raises:
        InputError: it lies in the future, or is none.
    """
    fence = parse_stamp(mine.fence) if mine.fence else now
    if fence is None or fence > now + AHEAD:
        raise InputError(
            f"the fence {mine.fence[:80]!r} is no time that has come",
            hint="post the event as `stac-watch event ITEM` prints it; if it is that one, see the clock of this machine",
        )


def check(found: Outcome | None, mine: Identity, href: str, *, overwrite: bool) -> None:
    """Compares what lies there with who asks; nothing follows from a marker that does not say it.

    Args:
        found: the marker that lies there, None where there is none.
        mine: who asks. By hand (no installation) another's output is replaced where `overwrite` says so.
        href: the output, for the message.
        overwrite: whether it is to be converted again.

    Raises:
        CannotWrite: it is another installation's, or another item's.
        Superseded: it is of a later revision of the item.
    """
    if found is None:
        return
    if found.installation and found.installation != mine.installation and (mine.installation or not overwrite):
        asks = f"installation {mine.installation!r}" if mine.installation else "a run by hand"
        raise CannotWrite(
            f"{href} is an output of installation {found.installation!r}, and {asks} must not replace it",
            hint="give each installation a place of its own (recipe.output), or the same name (installation)",
        )
    others = found.item_id and mine.item_id and found.item_id != mine.item_id
    if others and (mine.installation or not overwrite):
        raise CannotWrite(
            f"{href} is the output of item {found.item_id!r}, and item {mine.item_id!r} must not replace it",
            hint="each item has a place of its own (recipe.output); post events as `stac-watch event ITEM` prints them",
        )
    if found.key != mine.key and found.fence and mine.fence and found.fence > mine.fence:
        raise Superseded(
            f"{href} holds a later revision: of {found.fence}, this one is of {mine.fence}",
            hint="nothing to do: the newer one is there",
        )
