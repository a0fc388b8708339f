"""What other people wrote, as a terminal, a log, a page and a database can bear it: bounded, and without characters that act. Pure.

A control character sets a terminal's title or clears it; a mark of the writing direction shows a line other than it is.
"""

from __future__ import annotations

import re

MOST = 4096  # characters of one text: a sentence has a hundred, a list of names some hundreds
_ACTS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def bounded(text: str) -> str:
    """Returns a text, cut where it is too long, with how long it was."""
    return text if len(text) <= MOST else f"{text[: MOST - 40]}… ({len(text)} characters)"


def visible(text: str, *, lines: bool = False) -> str:
    """Returns a text, cut, with what acts and is not seen spelled out; with `lines` it may have several."""
    shown = bounded(text)
    if not lines:
        shown = " ".join(shown.splitlines())
    return _ACTS.sub(lambda found: found[0].encode("unicode_escape").decode(), shown)
