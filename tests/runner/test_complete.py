"""A missing chunk is told from one that was left out because it holds nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr
from geozarr_runner.source import complete, ground, preflight, stage
from geozarr_runner.source.metadata import parse
from geozarr_runner.source.noted import Watch
from geozarr_runner.source.product import Selection, select
from geozarr_runner.source.store import Patience
from shelf import Shelf, served

from stac_watch.demo.product import write_product
from stac_watch.model.errors import SourceNotThere

pytestmark = pytest.mark.long

BANDS = "measurements/reflectance"
MASKS = "conditions/mask"
ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"


@pytest.fixture
def tiled(made_once, tmp_path) -> Path:
    """A product of six by six chunks in each array, with a swath edge. Chunks may be removed, not written to."""
    made = made_once("tiled-for-absences", lambda folder: write_product(folder, ITEM_ID, size=360, tiled=True))
    mine = tmp_path / f"{ITEM_ID}.zarr"
    return Path(shutil.copytree(made / mine.name, mine, copy_function=os.link))


def _selection(product: Path, groups: str = "") -> Selection:
    return select(parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here"), groups)


def _judged(product: Path, groups: str = "") -> tuple[complete.Odd, ...]:
    found = parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here")
    selection = select(found, groups)
    absent = frozenset(key for key in selection.keys if not (product / key).exists())
    return complete.judge(selection, absent, product, complete.witnesses(selection, found, absent))


def _remove(product: Path, arrays: str, chunks: str) -> set[str]:
    """Removes chunks by pattern and returns their keys; the tile's lower left corner is ground with data."""
    gone = {
        p.relative_to(product).as_posix()
        for p in product.rglob("*")
        if p.is_file() and re.fullmatch(arrays, p.parent.relative_to(product).as_posix()) and re.fullmatch(chunks, p.name)
    }
    assert gone
    for key in gone:
        (product / key).unlink()
    return gone


@pytest.mark.parametrize(
    ("arrays", "chunks", "groups"),
    [
        (f"{BANDS}/r10m/b..", "[345].[0-5]", BANDS),
        (f"{BANDS}/r10m/b..", "[345].[0-5]", f"{BANDS}/r10m"),  # only the scaffold is left to see it
        (f"{BANDS}/r10m/b..", "4.1", BANDS),
        (f"{BANDS}/r20m/b..", "4.1", BANDS),
        (f"{BANDS}/r60m/b..", "4.1", ""),
        (f"{BANDS}/r10m/b03", "4.1", BANDS),
        (f"{BANDS}/r60m/b09", "[0-5].[0-5]", BANDS),
        (f"{MASKS}/l2a_classification/r20m/scl", "[345].[0-5]", ""),
        ("quality/atmosphere/r10m/.*", "[345].[0-5]", ""),
        (f"{MASKS}/detector_footprint/r.*/b..", "4.1", ""),
        (f"{BANDS}/.*/b..", "[345].[0-5]", BANDS),  # all of what was chosen: what was not chosen sees it
        (f"{BANDS}/.*/b..", "[0-5].[0-5]", BANDS),
        (f"{BANDS}/.*/b..|quality/atmosphere/.*/...", "4.1", f"{BANDS}/r20m quality/atmosphere/r20m"),
        (f"{MASKS}/l2a_classification/.*/scl|{BANDS}/r60m/.*", "4.1", f"{MASKS}/l2a_classification"),
    ],
)
def test_a_chunk_is_missing_where_another_array_has_data(tiled, arrays, chunks, groups):
    gone = _remove(tiled, arrays, chunks)
    odd = _judged(tiled, groups)
    lacking_data = {o.key for o in odd}
    assert lacking_data <= gone
    assert any("4.1" in key for key in lacking_data)
    assert all(" has data there" in o.why for o in odd)


@pytest.mark.parametrize(
    ("arrays", "chunks"),
    [
        (f"{BANDS}/r10m/x", "0"),
        ("conditions/meteorology/cams/aod550|conditions/meteorology/cams/aod469", "0.*"),
        ("conditions/geometry/sun_angles", "0.*"),
        ("conditions/geometry/band", "0"),
    ],
)
def test_axes_angles_and_weather_cannot_be_all_alike(tiled, arrays, chunks):
    gone = _remove(tiled, arrays, chunks)
    assert {o.key for o in _judged(tiled)} == gone


def test_flags_of_one_band_tell_of_nodata_that_the_others_must_flag(tiled):
    metadata = json.loads((tiled / ".zmetadata").read_text())["metadata"]
    assert metadata["quality/mask/r10m/b02/.zarray"]["fill_value"] is None
    flagged = zarr.open_array(str(tiled / "quality/mask/r10m/b02"), mode="r")[...] != 0
    edge = flagged.shape[0] // 6
    full = next(f"{i}.{j}" for i, j in np.ndindex(6, 6) if flagged[i * edge : (i + 1) * edge, j * edge : (j + 1) * edge].any())
    gone = _remove(tiled, "quality/mask/r10m/b03", re.escape(full))
    odd = _judged(tiled)
    assert {o.key for o in odd} == gone
    assert all(o.why.startswith("quality/mask/") and o.why.endswith(" flags nodata there") for o in odd)


def test_flags_of_another_resolution_tell_of_it_too(tiled):
    gone = _remove(tiled, "quality/mask/r10m/b..", "[0-5].[0-5]")
    odd = {o.key for o in _judged(tiled)}
    assert odd
    assert odd < gone


@pytest.mark.parametrize(("name", "word"), [("cld", "clouds"), ("snw", "snow")])
@pytest.mark.parametrize("groups", ["", "quality/probability"])
def test_the_scene_classification_tells_of_probabilities_that_must_be_there(tiled, name, word, groups):
    classes = {"cld": (8, 9), "snw": (11,)}[name]
    scl = np.isin(zarr.open_array(str(tiled / "conditions/mask/l2a_classification/r60m/scl"), mode="r")[...], classes)
    edge = scl.shape[0] // 6
    there = {f"{i}.{j}": scl[i * edge : (i + 1) * edge, j * edge : (j + 1) * edge].mean() for i, j in np.ndindex(6, 6)}
    gone = _remove(tiled, f"quality/probability/r20m/{name}", "[0-5].[0-5]")
    odd = {o.key.rpartition("/")[2]: o.why for o in _judged(tiled, groups)}
    assert {key for key, share in there.items() if share > 0.02} <= odd.keys() <= {key.rpartition("/")[2] for key in gone}
    assert odd
    assert all(why.endswith(f" has {word} there") for why in odd.values())


def test_axes_of_flags_are_missing_unless_the_whole_group_is(tiled):
    gone = _remove(tiled, "quality/probability/r20m/x", "0")
    assert {o.key for o in _judged(tiled)} == gone


type Values = np.ndarray


def _zero(_path: str, values: Values) -> Values:
    return np.zeros_like(values)


def _clear(path: str, values: Values) -> Values:
    """Neither clouds nor snow, as the scene classification has it, too."""
    return np.where(np.isin(values, (8, 9, 11)), 5, values) if path.endswith("scl") else np.zeros_like(values)


def _corner(_path: str, values: Values) -> Values:
    """A quarter of the tile was seen."""
    steps = np.arange(values.shape[0]) / values.shape[0]
    return np.where(steps[None, :] + steps[:, None] > 0.7, 0, values)


def _ragged(path: str, values: Values) -> Values:
    """Each band ends at the edge of the swath a little elsewhere."""
    steps = np.arange(values.shape[0]) / values.shape[0]
    further = int(path[-2:], 16) / 4000 if path.startswith(BANDS) else 0
    return np.where(steps[None, :] + steps[:, None] > 0.7 + further, 0, values)


_SEEING = f"{BANDS}/.*/b..|quality/atmosphere/.*/(aot|wvp)|.*/scl|.*footprint.*/b.."


@pytest.mark.parametrize(
    ("arrays", "edit", "groups"),
    [
        ("quality/mask/.*|.*l1c_classification.*/b00", _zero, ""),
        ("quality/probability/.*/(cld|snw)|.*/scl", _clear, ""),
        (".*/(valid_)?time|.*/number|.*/surface|.*/step", _zero, ""),
        (_SEEING, _corner, ""),
        (_SEEING, _ragged, BANDS),
        (_SEEING, _corner, BANDS),
        (_SEEING, _zero, BANDS),
        ("quality/mask/.*", _zero, ""),
    ],
    ids=["no-flags", "no-clouds", "times-of-zero", "corner", "ragged", "corner-of-reflectance", "nodata", "flags-and-axes"],
)
def test_what_holds_nothing_may_be_left_out(made_once, tmp_path, arrays, edit, groups):
    made = made_once("tiled-for-absences", lambda folder: write_product(folder, ITEM_ID, size=360, tiled=True))
    product = tmp_path / "p.zarr"
    shutil.copytree(made / f"{ITEM_ID}.zarr", product, copy_function=os.link)
    changed = 0
    for path in parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here").arrays:
        if re.fullmatch(arrays, path):
            stored = zarr.open_array(str(product / path), mode="r+")
            values = stored[...]
            shutil.rmtree(product / path / "c", ignore_errors=True)
            for chunk in list((product / path).glob("[0-9]*")):
                chunk.unlink()
            stored[...] = edit(path, values)  # zarr-python leaves empty chunks out, those of a null fill value, too
            changed += 1
    assert changed
    selection = _selection(product, groups)
    assert not all((product / key).exists() for key in selection.keys)
    assert _judged(product, groups) == ()


def test_what_is_odd_is_said_and_a_person_may_allow_it(tiled, runner, tmp_path):
    _remove(tiled, f"{BANDS}/r10m/b..", "4.1")
    asked: Callable = partial(runner, tiled, tmp_path / "o.zarr", groups=f"{BANDS}/r10m {BANDS}/r60m", package="none")
    refused = asked(attempt=3)
    assert refused.code == 66
    reason = refused.outcome["reason"]
    for word in (f"{BANDS}/r10m/b02/4.1", "has data there", "at 3 looks", "4 of "):
        assert word in reason
    assert "--allow-empty" in refused.outcome["hint"]
    allowed = asked(allow_empty="true")
    assert allowed.code == 0
    said = next(c for c in allowed.outcome["checks"] if c["name"] == "completeness")
    assert "4 chunks are missing and taken for nodata" in said["detail"]


def _staged(where: str, groups: str, folder: Path, **looked: bool) -> stage.Staged:
    plan = preflight.plan(where, groups, allowed_hosts=(), patience=Patience(attempts=1), wait=threading.Event().wait)
    allowance = complete.Allowance(**looked)
    return stage.stage(plan, folder, advance=lambda _: None, called_off=threading.Event(), looked=allowance)


@pytest.mark.parametrize("absent", [404, 403])
def test_what_was_not_chosen_is_fetched_to_see_the_ground_of_a_hole_in_all_that_was(tiled, tmp_path, absent):
    group = f"{BANDS}/r60m"
    _remove(tiled, f"{BANDS}/.*/b..", "[345].[0-5]")
    objects = {f"{tiled.name}/{p.relative_to(tiled)}": p.read_bytes() for p in tiled.rglob("*") if p.is_file()}
    with served(Shelf(objects, absent=absent)) as shelf:
        where = f"{shelf.url}/{tiled.name}"
        for _ in range(2):
            with pytest.raises(SourceNotThere, match="has data there"):
                _staged(where, group, tmp_path / "s")
            assert any("l2a_classification" in path for path in shelf.asked)
            witness = next(key for key in objects if key.endswith("l2a_classification/r60m/scl/4.1"))
            objects[witness] = b"rot"  # one that cannot be read says nothing; others do
        staged = _staged(where, group, tmp_path / "s", allow_empty=True)
        assert len(staged.odd) > 3
        plan = preflight.plan(where, group, allowed_hosts=(), patience=Patience(), wait=threading.Event().wait)
        Watch(plan, staged.root, staged.noted, staged.absent, threading.Event()).require_unchanged()


@pytest.mark.parametrize(
    ("properties", "assets", "words"),
    [
        ({"s2:nodata_pixel_percentage": 7.5}, {}, "7.5 % of the pixels hold nothing"),
        ({}, {"product": {"file:size": 10**8}}, "the product has 100000000 bytes"),
        ({}, {"r10m": {"href": f"{BANDS}/r10m", "file:size": 10**7}}, f"{BANDS}/r10m has 10000000 bytes"),
        ({"s2:nodata_pixel_percentage": 100}, {"product": {"file:size": 1000}}, ""),
        ({"s2:nodata_pixel_percentage": "much"}, {"product": {"file:size": True}, "x": {"file:size": 10**9}, "y": 7}, ""),
        ({}, {"elsewhere": {"href": "http://other.example/x.zarr", "file:size": 10**9}}, ""),
    ],
)
def test_a_hole_in_everything_is_told_by_what_the_item_says_of_the_product(tiled, tmp_path, properties, assets, words):
    _remove(tiled, _SEEING, "[345].[0-5]")
    given = {"product": {"href": ""}, **assets}
    if "file:size" in given["product"]:
        given["product"]["href"] = ""
    for asset in given.values():
        if isinstance(asset, dict) and "://" not in asset.get("href", "://"):
            asset |= {"href": f"{tiled}/{asset['href']}".rstrip("/"), "type": "application/vnd+zarr"}
    item = {"type": "Feature", "id": ITEM_ID, "properties": properties, "assets": given}
    (tmp_path / "item.json").write_text(json.dumps(item))
    if words:
        with pytest.raises(SourceNotThere, match=re.escape(words)):
            _staged(str(tmp_path / "item.json"), f"{BANDS}/r60m", tmp_path / "s")
        assert _staged(str(tmp_path / "item.json"), f"{BANDS}/r60m", tmp_path / "s", allow_empty=True).absent
    else:
        assert _staged(str(tmp_path / "item.json"), f"{BANDS}/r60m", tmp_path / "s").absent


def test_what_is_missing_may_be_told_by_several_numbers(tiled):
    document = json.loads((tiled / ".zmetadata").read_text())
    for path in (
        path for path, array in parse(document["metadata"], "here").arrays.items() if re.fullmatch(f"{BANDS}/.*/b..", path)
    ):
        stored = zarr.open_array(str(tiled / path), mode="r+")
        for chunk in (tiled / path).glob("[0-9]*"):
            chunk.unlink()
        stored[...] = np.where(np.indices(stored.shape).sum(0) % 3, 65_534, 65_535).astype(stored.dtype)
        document["metadata"][f"{path}/.zattrs"]["missing_value"] = [65_534, 65_535]
    (tiled / ".zmetadata").write_text(json.dumps(document))
    assert complete.seen(_selection(tiled), frozenset(), tiled) == 0.0


def test_the_first_ones_are_shown(tiled):
    gone = _remove(tiled, f"{BANDS}/r10m/b..", "[345].[0-5]")
    selection = _selection(tiled, BANDS)
    with pytest.raises(SourceNotThere, match=r"and \d+ more\)") as refusal:
        complete.require(selection, frozenset(gone), tiled, "here", complete.Allowance())
    assert len(refusal.value.message) < 700


def test_cells_are_shared_by_resolutions_and_end_with_the_tile():
    assert ground.cells_of([(1830, 1830), (24, 24)]) == 24
    assert ground.cells_of([(10980, 10980)]) == ground.CELLS
    whole = [(0, 0, np.ones((61, 61), bool))]
    assert ground.deep(ground.shares(whole, (61, 61), 20), 20).all()
    left = ground.deep(ground.shares([(0, 0, np.ones((61, 30), bool))], (61, 61), 20), 20)
    assert left[:, :8].all()
    assert not left[:, 9:].any()
    assert ground.within((slice(30, 61), slice(0, 1)), (61, 61), 20) == (slice(10, 20), slice(0, 1))
