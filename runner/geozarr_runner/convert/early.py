"""The part of a conversion that is done while the source is still being fetched.

The metadata pass begins once the small arrays are staged, a band once all of its chunks are. The stock engine begins nothing early.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from geozarr_runner.convert.engine import Options, in_order, injections, reason_for_stock, written_arrays
from geozarr_runner.request import Offer
from geozarr_runner.source.eager import Eager
from geozarr_runner.source.product import Selection

if TYPE_CHECKING:
    from geozarr_runner.convert.fast import Begun


class Early(ExitStack):
    """The beginning of a conversion while its source is on its way; ends with the block, whatever is left of it.

    The metadata pass takes 4 s of one core for a full tile, and staging leaves the cores idle; then they have the first bands.
    What is written here is no output yet: if the source turns out to be incomplete, it is thrown away.
    """

    def __init__(self, selection: Selection, folder: Path, options: Options, level: str, offer: Offer | None) -> None:
        super().__init__()
        self._selection, self._folder, self._options, self._level, self._offer = selection, folder, options, level, offer
        arrays = written_arrays(selection, options)
        origins = {origin.path for origin, _ in injections(selection, arrays, level).values()}
        self._ranks = {array.path: number for number, array in enumerate(in_order(arrays, origins), 1)}
        self.begun: Begun | None = None

    @property
    def eager(self) -> Eager:
        """This, as staging knows it."""
        return Eager(self.rank, self.begin, self.arrived)

    def rank(self, path: str) -> int:
        """Returns when an array is wanted: those of rank 0 before `begin`, the rest in order."""
        return self._ranks.get(path, 0)

    def begin(self, source: Path) -> None:
        """Begins what can be; nothing when the stock engine will do it all."""
        if not reason_for_stock(self._selection, self._options, self._level):
            from geozarr_runner.convert import fast as chunks

            began = chunks.begin(source, self._selection, self._folder, self._options, self._level, self._offer)
            self.begun = self.enter_context(began)

    def arrived(self, path: str) -> None:
        """Goes on with an array that is there."""
        if self.begun is not None:
            self.begun.bands.begin(path)
