"""The metadata pass of the fast engine: `python -m geozarr_runner.convert.skeleton PARENT_PID`, with what to do on standard input.

It writes everything of the output but the chunks of the big arrays, by eopf-geozarr's public functions, and prints as JSON what the
validators say of it. It ends with the runner that started it.

Every big array is replaced, in memory, by one that knows its shape only; its dask graph is recognised by a tag and not
computed. An array that is computed all the same raises.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from geozarr_runner.convert import encoding, engine, georeference
from geozarr_runner.convert import stock as convert
from geozarr_runner.source.product import Selection
from geozarr_runner.verify import conformance
from stac_watch.model.errors import Defect, Exit
from stac_watch.model.outcome import Check

_TAG = "not-computed-"
_PR_SET_PDEATHSIG = 1


class ShapeOnly:
    """An array without data. Not a numpy array: dask would copy those, 10 GB for a tile."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:  # noqa: ANN401  # whatever numpy takes
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)

    def __getitem__(self, _key: object) -> Any:  # noqa: ANN401  # never returns
        raise Defect("the metadata pass computed a big array")


def write(source: Path, selection: Selection, folder: Path, options: engine.Options, level: str) -> tuple[Check, ...]:
    """Writes the skeleton and returns what the validators say of it.

    Raises:
        InputError | Unavailable | OSError: as `convert.convert`.
        Unexpected: the converter wrote other metadata than it was thought to.
        Defect: a group mixes what is written here with what is not.
    """
    with convert.quiet():
        converter = convert.load()
        convert.require_xarray()
        tree = convert.opened(converter, source, selection, level)
        empty(tree, selection, options.spatial_chunk, level)
        with _computing_only_the_rest():
            convert.run_converter(converter, tree, folder, options)
        if selection.scaffold is not None:
            convert.trim(folder, selection)
        georeference.settle(folder)
        encoding.declare(folder, encoding.stored(selection, options, level), sharded=options.sharding)
        return conformance.check(folder)


def empty(tree: Any, selection: Selection, chunk: int, level: str) -> None:  # noqa: ANN401  # xarray.DataTree
    """Replaces the big arrays of the tree, and adds the injected ones: what is present, the converter does not compute."""
    import xarray as xr

    big = engine.big_arrays(selection)
    for group in sorted({a.group for a in big.values()}):
        dataset = tree[group].to_dataset(inherit=False)
        replaced = {}
        for name, found in dataset.data_vars.items():
            if f"{group}/{name}" in big:
                replaced[name] = found.variable.copy(deep=False, data=_placeholder(found.shape, found.dtype, chunk))
                replaced[name].encoding = dict(found.encoding)
        tree[group].dataset = dataset.assign(replaced)
        left = [n for n, v in tree[group].to_dataset(inherit=False).variables.items() if v.chunks and n not in replaced]
        if left:
            raise Defect(f"{group} holds {left[0]} besides big arrays: it would not be written")
    injected = engine.injections(selection, big, level)
    for path in sorted(injected, key=_turn):
        origin, factor = injected[path]
        band = tree[origin.path]
        shape = tuple(n // factor for n in band.shape)
        fine = origin.group.rpartition("/")[2]
        attributes = {**band.attrs, "_derived_from": fine, "_factor": factor, "_resampling_mode": "mean"}
        group, _, name = path.rpartition("/")
        variable = xr.Variable(band.dims, _placeholder(shape, band.dtype, chunk), attributes, encoding=dict(band.encoding))
        tree[group].dataset = tree[group].to_dataset(inherit=False).assign({name: variable})


def _turn(path: str) -> int:
    """Returns when the converter injects a band: it writes the members of a group in that order."""
    from eopf_geozarr.s2_optimization.s2_band_mapping import BAND_INFO

    return [*BAND_INFO].index(path.rpartition("/")[2])


def _placeholder(shape: tuple[int, ...], dtype: Any, chunk: int) -> Any:  # noqa: ANN401  # a dask array
    import dask.array

    return dask.array.from_array(  # type: ignore[no-untyped-call]  # dask has no types
        ShapeOnly(shape, dtype),
        chunks=tuple(min(chunk, n) for n in shape),
        name=f"{_TAG}{'-'.join(map(str, shape))}-{np.dtype(dtype).name}",
        asarray=False,
        meta=np.empty((0,) * len(shape), dtype),  # without it dask asks for empty slices
    )


@contextmanager
def _computing_only_the_rest() -> Iterator[None]:
    import dask
    import dask.threaded

    def get(graph: Any, keys: Any, **options: Any) -> Any:  # noqa: ANN401  # dask's scheduler interface
        tasks = graph.__dask_graph__() if hasattr(graph, "__dask_graph__") else graph
        if any(_TAG in str(key) for key in tasks):
            return [None for _ in keys]
        return dask.threaded.get(graph, keys, **options)

    with dask.config.set({"scheduler": get, "optimization.fuse.active": False}):  # fused tasks lose the tag
        yield


def _die_with(parent: int) -> None:
    """Ends this process when the runner is killed: it must not write into a folder that the next attempt clears (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before we asked
        sys.exit(1)


if __name__ == "__main__":
    _die_with(int(sys.argv[1]))
    gc.disable()  # a seventh of the pass, for 5 MB of cycles (measured)
    try:
        verdicts = write(*pickle.load(sys.stdin.buffer))  # noqa: S301  # our own parent's words, over a pipe
    except OSError as error:  # a full disk is one for the other engine, too
        sys.stdout.write(json.dumps({"errno": error.errno, "strerror": error.strerror or str(error), "filename": error.filename}))
        sys.exit(Exit.CANNOT_WRITE)
    sys.stdout.write(json.dumps([asdict(verdict) for verdict in verdicts]))
