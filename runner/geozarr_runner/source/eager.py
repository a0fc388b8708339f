"""Who works with what is there while the rest is on its way, and when he is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Eager:
    """Told in the caller's thread, of arrays by their paths."""

    rank: Callable[[str], int]  # the lowest is fetched first
    begin: Callable[[Path], None]  # all of rank 0 is there; once
    arrived: Callable[[str], None]  # after that: all chunks of an array are there, or absent


class Landing:
    """Counts the objects that are there, and tells of every array whose objects are."""

    def __init__(self, eager: Eager, root: Path, paths: Mapping[str, str]) -> None:
        """Takes the array's path of each object that is still to come; `root` is where whoever is eager reads."""
        self._eager, self._root, self._paths = eager, root, paths
        self._left = Counter(paths.values())
        self._first = sum(number for path, number in self._left.items() if not eager.rank(path))
        self._whole: list[str] = []
        self._begun = False

    def landed(self, key: str) -> None:
        """Takes the next object that is there, or is known to be nowhere."""
        path = self._paths[key]
        self._left[path] -= 1
        self._first -= not self._eager.rank(path)
        if not self._left[path]:
            self._whole.append(path)
        if self._first:
            return
        if not self._begun:
            self._begun = True
            self._eager.begin(self._root)
        while self._whole:
            self._eager.arrived(self._whole.pop(0))
