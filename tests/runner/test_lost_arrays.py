"""An array that is lost as a whole, its only object perhaps, is missed by what sees or says the same; and what cannot be known.

In: a finished GeoZarr that was looked into once, and a product in Zarr v2; of each, every array is taken away alone.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from geozarr_runner.source import complete, forms, whole
from geozarr_runner.source.arrive import bring
from geozarr_runner.source.metadata import parse
from geozarr_runner.source.noted import Noted
from geozarr_runner.source.product import select
from geozarr_runner.source.samples import Blocks
from geozarr_runner.source.store import Patience, open_source

from stac_watch.model.zarr3 import StoredTree

UNKNOWN = {"conditions/mask/l1c_classification/r60m/b00"}
"""The clouds and snow of another algorithm than the scene classification's: where one has none, the other may have some."""
SNOW = "quality/probability/r20m/snw"


class Looked:
    """A store in Zarr v3 that is all there, and what is remembered of it."""

    def __init__(self, store: Path) -> None:
        source = open_source(str(store), allowed_hosts=(), patience=Patience(), wait=threading.Event().wait)
        tree = forms.recognise(source).tree
        assert tree is not None
        self.tree: StoredTree = tree
        self.samples = Blocks(tree.arrays)
        off = threading.Event()
        self.absent = bring(
            source, store, tree.arrays.values(), Noted(), advance=lambda _: None, called_off=off, see=self.samples.see
        ).missing

    def without(self, path: str) -> list[str]:
        """Returns what is missed when all of an array's objects are gone."""
        before = {p: list(s.absent) for p, s in self.samples.of.items()}
        keys = {key for key, _ in self.tree.arrays[path].keys()}  # noqa: SIM118  # no mapping
        found = whole.holes(self.tree.arrays, self.absent | keys, self.samples)
        for p, sampled in self.samples.of.items():
            sampled.absent[:] = before[p]
        return found


@pytest.fixture(scope="module")
def looked(native) -> Looked:
    return Looked(native)


def _several(arrays) -> list[str]:
    return [path for path, array in arrays.items() if array.pixels > 1]


def test_each_array_of_a_finished_geozarr_is_missed(looked):
    assert {path for path in _several(looked.tree.arrays) if not looked.without(path)} == UNKNOWN


def test_each_array_of_a_product_in_zarr_v2_is_missed(product):
    found = parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here")
    selection = select(found, "")
    unmissed = {
        array.path
        for array in selection.arrays
        if array.pixels > 1 and not complete.judge(selection, frozenset(array.chunk_keys()), product)
    }
    assert unmissed == UNKNOWN


def test_where_the_scene_classification_has_no_snow_the_probability_of_snow_may_be_left_out(native):
    looked = Looked(native)
    for path, sampled in looked.samples.of.items():
        if "l2a_classification" in path:
            sampled.marks["snw"][:] = 0
    assert not looked.without(SNOW)
    assert looked.without(SNOW.replace("snw", "cld"))


@pytest.mark.parametrize(("edge", "missed"), [(6, False), (12, True)])
def test_a_little_ground_is_ground_where_it_is_farther_from_the_swaths_edge_than_bands_differ(native, edge, missed):
    """Of a tile that was seen at its corner only: blocks of 60 m here."""
    looked = Looked(native)
    for sampled in looked.samples.of.values():
        rows, columns = np.indices(sampled.valid.shape)
        sampled.valid[:] = (rows < edge) & (columns < edge) if edge * edge < 0.1 * rows.size else 0
    assert bool(looked.without("measurements/reflectance/r10m/b02")) is missed
