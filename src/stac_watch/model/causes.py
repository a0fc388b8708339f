"""What failures have in common: an error's sentence without what differs from run to run. Pure."""

from __future__ import annotations

import re

LENGTH = 160  # characters; the ledger counts failures by it

_VARIES = (
    (re.compile(r"[a-z][a-z0-9+.-]*://\S+"), "URL"),
    (re.compile(r"(?<![\w.])/[\w.@=+-]+(?:/[\w.@=+-]+)+/?"), "PATH"),
    (re.compile(r"\b\w*\d{8}T\d{6}\w*(?:\.zarr)?"), "ID"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b"), "ID"),
    (re.compile(r"\d+(?:\.\d+)?"), "N"),
)


def fingerprint(sentence: str) -> str:
    """Returns the sentence with URLs, paths, ids and numbers replaced, at most 160 characters."""
    for pattern, word in _VARIES:
        sentence = pattern.sub(word, sentence)
    printable = "".join(c if c.isprintable() else " " for c in sentence)
    return " ".join(printable.split())[:LENGTH]
