"""The part of a conversion that needs no big array, done while these are still being fetched.

In: a conversion's selection, folder and options; the staged source once its small arrays are there. Out: the fast engine's metadata
pass, begun. Never: begins what the stock engine does, or leaves a process behind.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from geozarr_runner.engine import Options, big_arrays, reason_for_stock
from geozarr_runner.product import Selection

if TYPE_CHECKING:
    from geozarr_runner.chunks import Verdicts


class Early(ExitStack):
    """The beginning of a conversion while its big arrays are still on their way; ends with the block, whatever is left of it.

    What the fast engine does besides them takes 4 s of one core for a full tile, and staging leaves the cores idle.
    """

    def __init__(self, selection: Selection, folder: Path, options: Options, level: str) -> None:
        super().__init__()
        self._selection, self._folder, self._options, self._level = selection, folder, options, level
        self.finished: Verdicts | None = None

    def needs(self, path: str) -> bool:
        """Says whether `begin` needs this array."""
        return path not in self._big

    @cached_property
    def _big(self) -> frozenset[str]:
        return frozenset(big_arrays(self._selection))

    def begin(self, source: Path) -> None:
        """Begins what can be; nothing when the stock engine will do it all."""
        if not reason_for_stock(self._selection, self._options, self._level):
            from geozarr_runner import chunks

            size = self._options.spatial_chunk
            self.finished = self.enter_context(chunks.metadata_pass(source, self._selection, self._folder, size))
