"""Is a finished GeoZarr whole, and is each band the one that it is called? Asked of what `samples` kept.

Chunks that are absent read as "no data", whoever left them out. So they are believed only where nothing else of the same tile that
sees the same ground has data. A shard in another band's place is whole and decodes: what gives it away is that the coarser levels
of another band look like it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from geozarr_runner.source.complete import HINT, Odd
from geozarr_runner.source.evidence import LEAST, PROBABILITY, word_on
from geozarr_runner.source.product import NATIVE_LEVELS, OVERVIEWS, REFLECTANCE
from geozarr_runner.source.samples import Blocks, Sampled
from geozarr_runner.source.shards import Cells, Region
from stac_watch.model.errors import SourceNotThere
from stac_watch.model.outcome import Check
from stac_watch.model.zarr3 import StoredArray

MAX_VALID_SHARE = 0.05
"""Of the ground of an absent chunk, that another array may have data on: bands see the edge of a swath up to 300 m apart."""
EDGE = 300.0  #: metres by which bands end elsewhere; data farther inside is ground, however little of it
_FULL = 0.9  #: share of a block's pixels that have to be valid; single pixels are lost everywhere
_ZEROS_ARE_LEGAL = ("quality/mask", "quality/probability", "conditions/mask/l1c_classification")
"""Flags and probabilities: all zero in a cloudless tile, so that a chunk of them may be absent unless somebody speaks of it."""
_GROUND = (f"{REFLECTANCE}/", "conditions/mask/l2a_classification/", "conditions/mask/detector_footprint/")
_SEES = (*_GROUND, "quality/atmosphere/")
"""What has data on all ground that the sensor saw."""
_OVERVIEWS = tuple(f"{REFLECTANCE}/{level}/" for level in OVERVIEWS)
_LEVELS = (f"{REFLECTANCE}/", "quality/atmosphere/")
_CLEARLY = 3.0  #: times nearer to another band than to its own: noise between two processings of one band is far below
_LEAST = 100  #: blocks that a comparison needs


def require_whole(
    arrays: Mapping[str, StoredArray], missing: frozenset[str], samples: Blocks, where: str, *, allow_empty: bool
) -> tuple[Odd, ...]:
    """Returns what is absent although it cannot be empty, where a person takes it for nodata.

    Raises:
        SourceNotThere: nobody does.
    """
    lost = holes(arrays, missing, samples)
    if lost and not allow_empty:
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")  # a line's worth
        raise SourceNotThere(
            f"{where} is still being uploaded: {len(lost)} chunks are missing ({shown})",
            hint=HINT,
        )
    return tuple(Odd(key, "other arrays have data there") for key in lost)


def lacks_ground(arrays: Mapping[str, StoredArray], missing: frozenset[str], samples: Blocks) -> bool:
    """Says whether objects, or chunks within shards, are absent of arrays that have data wherever the tile was seen."""
    return _lacks(_SEES, arrays, missing, samples)


def calls_for_witnesses(arrays: Mapping[str, StoredArray], missing: frozenset[str], samples: Blocks) -> bool:
    """Says whether there are absences that arrays which were not chosen can speak about."""
    return _lacks((*_SEES, PROBABILITY), arrays, missing, samples)


def _lacks(kinds: tuple[str, ...], arrays: Mapping[str, StoredArray], missing: frozenset[str], samples: Blocks) -> bool:
    ground = {path for path in samples.of if path in arrays and path.startswith(kinds)}
    return any(samples.of[path].absent for path in ground) or any(_owner(arrays, key).path in ground for key in missing)


def witnesses(tree: Mapping[str, StoredArray], arrays: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """Returns arrays that were not chosen and see the same ground, of each kind the smallest."""
    outside = [a for path, a in tree.items() if path not in arrays and len(a.shape) == 2]  # (y, x)
    kinds = [[a for a in outside if a.path.startswith(kind) and a.group.rpartition("/")[2] in NATIVE_LEVELS] for kind in _SEES]
    found = [min(kind, key=lambda a: (a.pixels, a.path)) for kind in kinds if kind]
    return {array.path: array for array in found}


def seen(arrays: Mapping[str, StoredArray], samples: Blocks) -> float:
    """Returns the share of the tile that reflectance has data on, as the coarsest band that was fetched has it."""
    bands = [samples.of[path] for path in arrays if path.startswith(f"{REFLECTANCE}/") and path in samples.of]
    if not bands:
        return 1.0
    band = min(bands, key=lambda s: (s.array.pixels, s.array.path))
    return sum(size - nothing for size, nothing in band.pixels.values()) / max(1, band.array.pixels)


def holes(arrays: Mapping[str, StoredArray], missing: frozenset[str], samples: Blocks) -> list[str]:
    """Returns what is absent and must not be: keys of objects, and chunks within shards, as `path[y, x]`."""
    found = []
    for key in sorted(missing):
        array = _owner(arrays, key)
        if array.path.startswith(_OVERVIEWS) and len(array.shape) == 2 and samples.of:  # (y, x)
            found += [key for k, at in _objects(array) if k == key and _has_ground(array, at, samples)]
        elif array.pixels > 1 and array.path not in samples.of and not _may_be_alike(array, arrays, missing):
            found.append(key)
        elif array.path in samples.of:
            samples.of[array.path].absent.extend(place for k, place in _objects(array) if k == key)
    for path, sampled in samples.of.items():
        judge = _is_spoken_of if path.startswith(_ZEROS_ARE_LEGAL) else _has_ground
        if path in arrays:
            found += [
                f"{path}[{', '.join(str(s.start) for s in at)}]" for at in sampled.absent if judge(sampled.array, at, samples)
            ]
    return found


def lost(arrays: Mapping[str, StoredArray], absent: frozenset[str], samples: Blocks) -> list[str]:
    """Returns those of a store's absent objects that must be there, although nobody looked into the rest of their arrays.

    Args:
        arrays: all of the store.
        absent: objects of arrays that were not fetched.
        samples: of those that were.
    """
    found = []
    for key in sorted(absent):
        array = _owner(arrays, key)
        at = next(at for k, at in _objects(array) if k == key)
        if array.path.startswith(_SEES) or (len(at) == len(samples.edges) and _is_spoken_of(array, at, samples)):
            found.append(key)
    return found


def _may_be_alike(array: StoredArray, arrays: Mapping[str, StoredArray], missing: frozenset[str]) -> bool:
    """Says whether an array that is not on the grid may be absent: flags, and the axes of flags of which nothing is there."""
    if not array.path.startswith(_ZEROS_ARE_LEGAL):
        return False
    beside = (key for a in arrays.values() if a.group == array.group for key, _ in a.keys())  # noqa: SIM118  # no mapping
    return len(array.shape) > 1 or all(key in missing for key in beside)


def identity(samples: Blocks) -> Check:
    """Compares each band of a level with the bands of every other one: its own must be the nearest, seen from either.

    Bands of one name come from one measurement, whichever level they are at. Which level was made of which is not asked.
    """
    compared, wrong = 0, []
    for prefix in _LEVELS:
        levels: defaultdict[str, dict[str, Sampled]] = defaultdict(dict)  # level -> name -> samples
        for path, sampled in samples.of.items():
            if path.startswith(prefix):
                levels[path.split("/")[-2]][sampled.array.name] = sampled
        ordered = sorted(levels, key=_metres)
        for fine, coarse in ((a, b) for n, a in enumerate(ordered) for b in ordered[n + 1 :]):
            gaps = {
                (a, b): gap for a, x in levels[fine].items() for b, y in levels[coarse].items() if (gap := _gap(x, y)) is not None
            }
            for name in levels[fine].keys() & levels[coarse].keys():
                compared += 1
                there = ((fine, coarse, {b: gap for (a, b), gap in gaps.items() if a == name}),
                         (coarse, fine, {a: gap for (a, b), gap in gaps.items() if b == name}))  # fmt: skip
                for level, at, near in there:
                    if other := _nearer(name, near):
                        wrong.append(f"{levels[level][name].array.path} looks like {at}/{other}, not like {at}/{name}")
    if wrong:
        return Check("band identity", "failed", "; ".join(sorted(wrong)[:5]))
    if not compared:
        return Check("band identity", "skipped", "no band is there at two levels")
    return Check("band identity", "passed", f"{compared} pairs of levels, each band nearest to its own name")


def _metres(level: str) -> int:
    """Returns the pixel size that a level is named after."""
    return int(level.strip("rm"))


def _nearer(name: str, near: Mapping[str, float]) -> str:
    """Returns the name of the band that is clearly nearer than the own one; empty = none is."""
    if name not in near:
        return ""
    best = min(near, key=lambda other: near[other])
    return best if best != name and near[name] > _CLEARLY * near[best] and near[name] > 1e-6 else ""


def _gap(one: Sampled, other: Sampled) -> float | None:
    """Returns the median distance of two bands, in physical values; None where too little is seen by both."""
    a, b = _physical(one), _physical(other)
    both = (one.valid == 1) & (other.valid == 1) & np.isfinite(a) & np.isfinite(b)
    return float(np.median(np.abs(a[both] - b[both]))) if np.count_nonzero(both) >= _LEAST else None


def _physical(sampled: Sampled) -> Cells:
    attributes = sampled.array.attributes
    scaled: Cells = sampled.mean * float(attributes.get("scale_factor", 1)) + float(attributes.get("add_offset", 0))
    return scaled


def _has_ground(array: StoredArray, at: Region, samples: Blocks) -> bool:
    """Says whether any other array that sees the ground has data where a chunk is absent: on much of it, or well inside."""
    near = math.ceil(EDGE / samples.metres)
    for path, other in samples.of.items():
        if path == array.path or not path.startswith(_GROUND):
            continue
        seen = _part(other.valid, array, at)
        known = seen[np.isfinite(seen)]
        if known.size and (float(known.mean()) > MAX_VALID_SHARE or _is_deep(seen, 2 * near + 1)):
            return True
    return False


def _is_deep(seen: Cells, edge: int) -> bool:
    """Says whether somewhere a square of so many blocks an edge has data."""
    if min(seen.shape) < edge:
        return False
    full: Cells = np.cumsum(np.cumsum(np.pad(seen >= _FULL, ((1, 0), (1, 0))), axis=0), axis=1)  # summed-area table
    sums = full[edge:, edge:] - full[:-edge, edge:] - full[edge:, :-edge] + full[:-edge, :-edge]
    return bool((sums == edge * edge).any())


def _is_spoken_of(array: StoredArray, at: Region, samples: Blocks) -> bool:
    """Says whether another array says of a chunk's pixels what there would not be without it; see `evidence`."""
    word = word_on(array.path, array.attributes)
    for path, other in samples.of.items():
        if path != array.path and word in other.marks:
            said = _part(other.marks[word], array, at)
            known = said[np.isfinite(said)]
            if known.size and float(known.mean()) > LEAST[word]:
                return True
    return False


def _part(blocks: Cells, array: StoredArray, at: Region) -> Cells:
    """Returns the blocks that a chunk of an array lies on."""
    rows, columns = (
        slice(s.start * n // size, -(-s.stop * n // size)) for s, n, size in zip(at, blocks.shape, array.shape, strict=True)
    )
    return blocks[rows, columns]


def _owner(arrays: Mapping[str, StoredArray], key: str) -> StoredArray:
    parts = key.split("/")
    return next(arrays[path] for n in range(len(parts), 0, -1) if (path := "/".join(parts[:n])) in arrays)


def _objects(array: StoredArray) -> Iterator[tuple[str, Region]]:
    for key, place in array.keys():  # noqa: SIM118  # no mapping
        yield key, tuple(slice(p * n, min((p + 1) * n, size)) for p, n, size in zip(place, array.stored, array.shape, strict=True))
