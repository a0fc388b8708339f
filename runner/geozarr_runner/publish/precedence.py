"""Whether a run may put its output where one with a marker lies: never over a newer revision, nor over another installation's."""

from __future__ import annotations

from geozarr_runner.request import Identity
from stac_watch.model.errors import CannotWrite, Superseded
from stac_watch.model.outcome import Outcome


def check(found: Outcome | None, mine: Identity, href: str, *, overwrite: bool) -> None:
    """Compares what lies there with who asks; nothing follows from a marker that does not say it.

    Args:
        found: the marker that lies there, None where there is none.
        mine: who asks. By hand (no installation) another's output is replaced where `overwrite` says so.
        href: the output, for the message.
        overwrite: whether it is to be converted again.

    Raises:
        CannotWrite: it is another installation's.
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
    if found.key != mine.key and found.fence and mine.fence and found.fence > mine.fence:
        raise Superseded(
            f"{href} holds a later revision: of {found.fence}, this one is of {mine.fence}",
            hint="nothing is to be done: the newer one is there",
        )
