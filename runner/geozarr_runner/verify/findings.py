"""What a verification found, in words of its own: whoever only tells of it loads no reader."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stac_watch.model.outcome import Check

if TYPE_CHECKING:
    from geozarr_runner.verify.expected import Kind
    from geozarr_runner.verify.source import Block

REGION = 5120  #: pixels; neighbours are compared together, so that few rows of a source chunk are decoded
SMALL = 4_000_000  #: pixels; what is made of no more, 60 m and coarser, is compared whole


@dataclass(frozen=True)
class Sample:
    """Which chunks of large arrays are compared: those whose region, then whose row, then whose place, a hash ranks first."""

    seed: str
    share: float  # of an array's chunks
    small: int = SMALL  # pixels up to which an array is compared whole

    def __str__(self) -> str:
        """Says what was compared, so that it can be repeated."""
        if self.share >= 1:
            return "every pixel was compared"
        return (
            f"{self.share:.1%} of the chunks of arrays above {self.small / 1e6:.0f} Mpx were compared, ranked by SHA-256 of "
            f"'{self.seed}/<array>/<region of {REGION} px>', then '…/<first row>', then '…/<chunk>'; absent or cut chunks and all "
            f"smaller arrays in full"
        )

    def choose(self, path: str, blocks: list[Block]) -> list[Block]:
        """Returns the chosen blocks, at least one."""
        if self.share >= 1:
            return blocks

        def rank(block: Block) -> tuple[bytes, ...]:
            region = ".".join(str(s.start // REGION) for s in block)
            return tuple(self._hash(path, name) for name in (region, str(block[0].start), name_of(block)))

        ranked = sorted(blocks, key=rank)
        return ranked[: max(1, math.ceil(self.share * len(blocks)))]

    def _hash(self, path: str, name: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/{path}/{name}".encode()).digest()


@dataclass(frozen=True)
class Compared:
    """What comparing one output array with its expectation showed."""

    path: str
    kind: Kind
    pixels: int = 0
    nan: int = 0
    wrong: int = 0  # values that differ
    holes: int = 0  # NaN where a value is expected
    false_data: int = 0  # a value where NaN is expected
    missing: tuple[str, ...] = ()  # chunk keys that must be there
    whole: bool = True  # every pixel was compared
    where: str = ""  # the first difference

    @property
    def good(self) -> bool:
        """True when nothing differs and nothing is missing."""
        return not (self.wrong or self.holes or self.false_data or self.missing or self.where)


@dataclass(frozen=True)
class Verification:
    """The verdict on an output."""

    checks: tuple[Check, ...]
    findings: tuple[Compared, ...] = field(repr=False)
    sample: Sample

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed; empty = the output may be published."""
        return tuple(c for c in self.checks if c.verdict == "failed")


def name_of(block: Block) -> str:
    """Returns a block's name: where it begins."""
    return ".".join(str(s.start) for s in block)
