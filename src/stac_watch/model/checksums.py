"""The checksums of an output's objects: a text as `sha256sum` writes it, and the one digest of it that the marker holds. Pure.

`cd ITEM.zarr && sha256sum --check ../ITEM.zarr.sha256` compares them without any program of ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

SUFFIX = ".sha256"
"""Of the file beside an output."""
CHECKSUMS = "checksums"
"""Its name among the files that the marker names."""
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def as_text(sums: Mapping[str, str]) -> str:
    """Returns the file's text: a line for each object, sorted; `sums` are SHA-256 in hex, by the object's name in the store."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def digest_of(sums: Mapping[str, str]) -> str:
    """Returns the SHA-256 of the text: two stores with the same one have the same objects."""
    return hashlib.sha256(as_text(sums).encode()).hexdigest()


def parse(text: str) -> dict[str, str] | None:
    """Returns the checksums that a text holds, None when it is not such a text."""
    lines = [_LINE.fullmatch(line) for line in text.split("\n") if line]
    return None if None in lines else {line[2]: line[1] for line in lines if line is not None}
