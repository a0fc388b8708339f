"""Where an output says it is: one CRS, the product's; transforms, shapes, boxes and scales that agree with the axes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from geozarr_runner.convert import engine, stock
from geozarr_runner.source.metadata import parse
from geozarr_runner.source.product import require_crs, select
from geozarr_runner.verify import georeferencing, verify

from stac_watch.demo.product import write_product
from stac_watch.model.errors import InputError

BANDS = "measurements/reflectance"
ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
ACROSS = "S2A_MSIL2A_20251008T222541_N0511_R029_T60KXF_20251008T232613"

type Metadata = dict[str, dict[str, Any]]


def _metadata(product: Path) -> Metadata:
    found: Metadata = json.loads((product / ".zmetadata").read_text())["metadata"]
    return found


def _edit(product: Path, change: Callable[[Metadata], None]) -> Path:
    metadata = _metadata(product)
    change(metadata)
    for key, document in {**metadata, ".zmetadata": {"zarr_consolidated_format": 1, "metadata": metadata}}.items():
        (product / key).parent.mkdir(exist_ok=True)
        (product / key).unlink(missing_ok=True)
        (product / key).write_text(json.dumps(document))
    return product


@pytest.fixture
def small(made_once, tmp_path) -> Path:
    """A small product of its own; chunks may be removed, not written to."""
    made = made_once("small-for-places", lambda folder: write_product(folder, ITEM_ID, size=180))
    return Path(shutil.copytree(made / f"{ITEM_ID}.zarr", tmp_path / f"{ITEM_ID}.zarr", copy_function=os.link))


def _forget(metadata: Metadata, *, arrays: bool = True, other: bool = True, discovery: bool = True) -> None:
    """Takes the CRS out of the places where a product names it."""
    for key, document in metadata.items():
        if arrays and key.endswith("/.zattrs"):
            for name in [name for name in document if name.startswith("proj:")]:
                del document[name]
    root = metadata[".zattrs"]
    for name in ("horizontal_CRS_code", "horizontal_CRS_name") if other else ():
        root["other_metadata"].pop(name, None)
    if discovery:
        root["stac_discovery"]["properties"].pop("proj:epsg", None)


def _only_discovery(metadata: Metadata) -> None:
    _forget(metadata)
    metadata[".zattrs"]["stac_discovery"]["properties"]["proj:code"] = "EPSG:32632"


def _only_arrays(metadata: Metadata) -> None:
    _forget(metadata, arrays=False)


def _lower_case(metadata: Metadata) -> None:
    _forget(metadata)
    metadata[".zattrs"]["other_metadata"]["horizontal_crs_code"] = "32632"


def _wkt_only(metadata: Metadata) -> None:
    wkt = next(d["proj:wkt2"] for d in metadata.values() if "proj:wkt2" in d)
    _forget(metadata)
    metadata[f"{BANDS}/r60m/b01/.zattrs"]["proj:wkt2"] = wkt


def _converted(product: Path, output: Path, groups: str = BANDS) -> tuple[Any, verify.Verification]:
    selection = select(parse(_metadata(product), "here"), groups)
    stock.convert(product, selection, output, engine.Options(engine="stock"), level="L2A")
    return zarr.open_group(str(output), mode="r"), verify.verify(product, selection, output, level="L2A", workers=1)


def _group_only(metadata: Metadata) -> None:
    _forget(metadata)
    metadata[f"{BANDS}/r20m/.zattrs"] = {"proj:code": "urn:ogc:def:crs:EPSG::32632"}


def _root_only(metadata: Metadata) -> None:
    _forget(metadata)
    metadata[".zattrs"]["proj:code"] = "EPSG:32632"


def _grid_variable_only(metadata: Metadata) -> None:
    """As rioxarray writes it beside the bands, in GDAL's word."""
    wkt = next(d["proj:wkt2"] for d in metadata.values() if "proj:wkt2" in d)
    _forget(metadata)
    metadata[f"{BANDS}/r10m/spatial_ref/.zarray"] = {
        "zarr_format": 2, "shape": [], "chunks": [], "dtype": "<i8", "compressor": None, "fill_value": None, "filters": None,
        "order": "C",
    }  # fmt: skip
    metadata[f"{BANDS}/r10m/spatial_ref/.zattrs"] = {"spatial_ref": wkt, "_ARRAY_DIMENSIONS": []}


def _in_words_of_the_converters_own(metadata: Metadata) -> None:
    """It takes what follows the last colon for a number of EPSG's."""
    metadata[".zattrs"]["other_metadata"]["horizontal_CRS_code"] = "ESRI:32633"


@pytest.mark.parametrize(
    "change",
    [
        _only_discovery,
        _only_arrays,
        _lower_case,
        _wkt_only,
        _group_only,
        _root_only,
        _grid_variable_only,
        _in_words_of_the_converters_own,
    ],
)
def test_a_crs_is_taken_from_wherever_it_is_named(small, tmp_path, change):
    product = _edit(small, change)
    assert select(parse(_metadata(product), "here"), BANDS).crs == "EPSG:32632"
    require_crs(parse(_metadata(product), "here"), "here")
    if change in (_only_discovery, _in_words_of_the_converters_own):  # that the converter does not look at, or misreads
        found, verified = _converted(product, tmp_path / "o")
        assert verified.failed == ()
        assert {found[f"{BANDS}/{level}"].attrs["proj:code"] for level in ("r10m", "r20m", "r60m", "r720m")} == {"EPSG:32632"}
        assert len(found[BANDS].attrs["multiscales"]["layout"]) == 6


def _other_arrays(metadata: Metadata) -> None:
    for key, document in metadata.items():
        if key.endswith("/.zattrs") and "proj:epsg" in document:
            document["proj:epsg"] = 32633


def _other_discovery(metadata: Metadata) -> None:
    metadata[".zattrs"]["stac_discovery"]["properties"]["proj:code"] = "EPSG:32633"


def _other_root(metadata: Metadata) -> None:
    metadata[".zattrs"]["other_metadata"]["horizontal_CRS_code"] = "EPSG:32733"


@pytest.mark.parametrize("change", [_other_arrays, _other_discovery, _other_root])
def test_places_that_contradict_each_other_are_bad_input_before_anything_is_downloaded(small, runner, tmp_path, change):
    ended = runner(_edit(small, change), tmp_path / "o.zarr", command="preflight")
    assert ended.code == 65
    assert "EPSG:32632" in ended.said
    assert "contradicts itself" in ended.said


def _another_zone(metadata: Metadata) -> None:
    """Wherever it is named: nothing contradicts it but the tile."""
    _forget(metadata)
    metadata[".zattrs"]["other_metadata"]["horizontal_CRS_code"] = "EPSG:32732"


def test_the_crs_of_another_zone_than_the_tiles_is_bad_input(small, runner, tmp_path):
    ended = runner(_edit(small, _another_zone), tmp_path / "o.zarr", command="preflight")
    assert ended.code == 65
    assert "shows tile 32TQM, whose grid is EPSG:32632, and says EPSG:32732 by other_metadata.horizontal_CRS_code" in ended.said


def test_a_product_without_a_crs_is_bad_input(small):
    product = _edit(small, _forget)
    with pytest.raises(InputError, match="names no coordinate reference system"):
        require_crs(parse(_metadata(product), "here"), "here")


def _axis(product: Path, path: str, values: np.ndarray) -> None:
    for chunk in (product / path).glob("[0-9]*"):
        chunk.unlink()
    zarr.open_array(str(product / path), mode="r+")[...] = values


def _turned(product: Path) -> None:
    """Rows from south to north, pixels and axis."""
    for path, array in parse(_metadata(product), "here").arrays.items():
        if path.startswith(BANDS) and (len(array.shape) == 2 or array.name == "y"):
            _axis(product, path, zarr.open_array(str(product / path), mode="r")[...][::-1])


def test_rows_may_run_from_south_to_north(small, tmp_path):
    _turned(small)
    found, verified = _converted(small, tmp_path / "o")
    assert verified.failed == ()
    y = found[f"{BANDS}/r10m/y"][...]
    assert found[f"{BANDS}/r10m"].attrs["spatial:transform"][4:] == [10.0, y[0] - 5]
    assert y[1] > y[0]


def test_a_tile_across_180_degrees_has_no_box_round_the_world(tmp_path):
    product = write_product(tmp_path / "p", ACROSS, size=180)
    for path, array in parse(_metadata(product), "here").arrays.items():
        if path.startswith(BANDS) and array.name == "x":
            _axis(product, path, zarr.open_array(str(product / path), mode="r")[...] + 819_000 - 600_000)
    found, verified = _converted(product, tmp_path / "o")
    assert verified.failed == ()
    west, _, east, _ = found.attrs["spatial:bbox"]
    assert 179 < west < 180
    assert -180 < east < -179


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        (f"{BANDS}/r20m/x", lambda v: v + 5, "not on the same ground"),
        (f"{BANDS}/r20m/x", lambda v: v[::-1], "x does not go on by 20 m"),
        (f"{BANDS}/r10m/y", lambda v: v // 100 * 100, "y does not go on by 10 m"),
        (f"{BANDS}/r60m/y", lambda v: v * 0, "y does not go on by 60 m"),
        ("quality/mask/r20m/x", lambda v: v + 20, "not on the same ground"),
    ],
)
def test_axes_that_contradict_each_other_are_bad_input(small, path, change, words):
    _axis(small, path, change(zarr.open_array(str(small / path), mode="r")[...]))
    selection = select(parse(_metadata(small), "here"), "")
    with pytest.raises(InputError, match=words):
        georeferencing.require_axes(selection, small, "here")


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("proj:transform", lambda v: [*v[:2], v[2] + 100, *v[3:]], "has proj:transform"),
        ("proj:transform", lambda v: [20.0, *v[1:]], "has proj:transform"),
        ("proj:bbox", lambda v: [n + 1000 for n in v], "has proj:bbox"),
        ("proj:shape", lambda v: [v[0], v[1] * 2], "has proj:shape"),
        ("proj:transform", lambda v: [*v[:2], v[2] + 5, *v[3:]], ""),  # the middle of a pixel
        ("proj:transform", lambda v: [*v[:4], -v[4], v[5] + v[4] * 180], ""),  # the same rows, told from the south
        ("proj:transform", lambda v: v[:6], ""), ("proj:bbox", lambda _: None, ""), ("proj:bbox", lambda _: ["a"] * 4, ""),
    ],
)  # fmt: skip
def test_what_an_array_says_of_its_place_is_what_its_axes_say(small, name, change, told):
    def edit(metadata: Metadata) -> None:
        document = metadata[f"{BANDS}/r10m/b03/.zattrs"]
        document[name] = change(document[name])

    selection = select(parse(_metadata(_edit(small, edit)), "here"), "")
    with pytest.raises(InputError, match=f"r10m/b03 {told}") if told else nullcontext():
        georeferencing.require_axes(selection, small, "here")


def test_flags_that_were_left_out_with_their_axes_are_no_contradiction(small):
    for name in "xy":
        (small / "quality/mask/r20m" / name / "0").unlink()
    georeferencing.require_axes(select(parse(_metadata(small), "here"), ""), small, "here")


def test_every_level_has_the_scale_of_its_pixels_and_derived_arrays_their_own_grid(converted):
    found = zarr.open_group(str(converted), mode="r")
    layout = {entry["asset"]: entry for entry in found[BANDS].attrs["multiscales"]["layout"]}
    assert [layout[level]["spatial:shape"][0] for level in ("r60m", "r120m", "r360m", "r720m")] == [126, 63, 21, 10]
    assert [layout[level]["transform"]["scale"] for level in ("r120m", "r360m", "r720m")] == [[2.0, 2.0], [3.0, 3.0], [2.0, 2.0]]
    for path in ("r20m/b08", "r720m/b02"):
        band, level = found[f"{BANDS}/{path}"], found[f"{BANDS}/{path.partition('/')[0]}"]
        assert band.attrs["proj:shape"] == list(band.shape)
        assert band.attrs["proj:transform"][:6] == level.attrs["spatial:transform"]


def _attribute(path: str, **attributes: Any) -> Callable[[Path], None]:
    def change(output: Path) -> None:
        for holder in {"", BANDS, path}:
            document = json.loads((output / holder / "zarr.json").read_text())
            below = document.get("consolidated_metadata", {}).get("metadata", {})
            node = document if holder == path else below.get(path.removeprefix(f"{holder}/") if holder else path)
            if node is not None:
                node["attributes"] |= attributes
                (output / holder / "zarr.json").write_text(json.dumps(document))

    return change


def _layout(level: str, **members: Any) -> Callable[[Path], None]:
    def change(output: Path) -> None:
        multiscales = zarr.open_group(str(output), mode="r")[BANDS].attrs["multiscales"]
        entries = [entry | (members if entry["asset"] == level else {}) for entry in multiscales["layout"]]
        _attribute(BANDS, multiscales=multiscales | {"layout": entries})(output)

    return change


def _discovery(output: Path) -> None:
    known = zarr.open_group(str(output), mode="r").attrs["stac_discovery"]
    _attribute("", stac_discovery=known | {"properties": known["properties"] | {"proj:code": "EPSG:32633"}})(output)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_attribute(f"{BANDS}/r10m", **{"proj:code": "EPSG:32633"}), "r10m says proj:code EPSG:32633"),
        (_attribute(f"{BANDS}/r720m", **{"spatial:transform": [720, 0, 0, 0, -720, 0]}), "r720m says spatial:transform"),
        (_attribute(f"{BANDS}/r120m", **{"spatial:bbox": [0, 0, 1, 1]}), "r120m says spatial:bbox"),
        (_attribute("quality/mask/r20m", **{"spatial:shape": [1, 1]}), "quality/mask/r20m says spatial:shape"),
        (_attribute(f"{BANDS}/r20m/b08", **{"proj:epsg": 32733}), "r20m/b08 says proj:epsg"),
        (_attribute(f"{BANDS}/r20m/b08", **{"proj:shape": [756, 756]}), "r20m/b08 says proj:shape"),
        (_attribute(f"{BANDS}/r60m/spatial_ref", crs_wkt=""), "spatial_ref is not EPSG:32632"),
        (_attribute(BANDS, **{"spatial:bbox": [0, 0, 1, 1]}), f"{BANDS} says spatial:bbox"),
        (_attribute(BANDS, **{"proj:code": "EPSG:4326"}), f"{BANDS} says proj:code"),
        (_attribute(BANDS, multiscales={"layout": []}), "the layout has no levels"),
        (_layout("r720m", transform={"scale": [2.1, 2.1]}), "layout r720m says scale"),
        (_layout("r360m", **{"spatial:shape": [20, 21]}), "layout r360m says spatial:shape"),
        (_layout("r60m", derived_from="r30m"), "derived from r30m, which is not there"),
        (_attribute("", **{"spatial:bbox": [-180, 41, 180, 42]}), "the root's box"),
        (_discovery, "stac_discovery properties says proj:code"),
    ],
)  # fmt: skip
def test_a_contradiction_is_noticed(product, converted, tmp_path, change, words):
    output = tmp_path / "o"
    for path in converted.rglob("*"):  # metadata and axes are enough
        if path.name == "zarr.json" or path.parts[-3:-1] in {("x", "c"), ("y", "c")}:
            target = output / path.relative_to(converted)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    selection = select(parse(_metadata(product), "here"), "")
    found = zarr.open_group(str(output), mode="r", use_consolidated=False)
    there = {path: node for path, node in found.members(max_depth=None) if isinstance(node, zarr.Array)}
    assert georeferencing.check(selection, output, there).verdict == "passed"
    change(output)
    there = {
        path: node
        for path, node in zarr.open_group(str(output), mode="r", use_consolidated=False).members(max_depth=None)
        if isinstance(node, zarr.Array)
    }
    verdict = georeferencing.check(selection, output, there)
    assert verdict.verdict == "failed"
    assert words in verdict.detail


@pytest.mark.parametrize(
    ("path", "said", "words"),
    [
        (f"{BANDS}/r60m", {"proj:transform": [60.0, 0.0, 0.0, 0.0, -60.0, 0.0]}, "r60m has proj:transform"),
        (f"{BANDS}/r60m", {"proj:shape": [30, 31]}, "r60m has proj:shape"),
        ("", {"proj:transform": [10.0, 0.0, 600000.0, 0.0, -10.0, 4700040.0]}, "stac_discovery has proj:transform"),
        ("", {"proj:bbox": [699960.0, 4600000.0, 809760.0, 4700040.0]}, "stac_discovery has proj:bbox"),
        ("", {"proj:transform": [20.0, 0.0, 699960.0, 0.0, -20.0, 4700040.0, 0, 0, 1]}, ""),
        ("", {"proj:bbox": [699960.0, 4698240.0, 701760.0, 4700040.0], "proj:shape": [180, 180]}, ""),
        ("", {"proj:bbox": None, "proj:transform": "unknown"}, ""),
    ],
)
def test_groups_and_the_products_own_item_have_to_say_where_the_axes_are(small, path, said, words):
    metadata = _metadata(small)
    (metadata.setdefault(f"{path}/.zattrs", {}) if path else metadata[".zattrs"]["stac_discovery"]["properties"]).update(said)
    found = parse(metadata, "here")
    with pytest.raises(InputError, match=words) if words else nullcontext():
        georeferencing.require_axes(select(found, ""), small, "here", found)


@pytest.mark.parametrize("given", [["x", "y"], ["lat", "lon"], None, ["x"]])
def test_a_band_whose_dimensions_are_not_those_of_a_map_is_bad_input_before_anything_is_downloaded(small, runner, tmp_path, given):
    ended = runner(
        _edit(small, lambda metadata: metadata[f"{BANDS}/r10m/b02/.zattrs"].update(_ARRAY_DIMENSIONS=given)),
        tmp_path / "o.zarr",
        command="preflight",
    )
    assert ended.code == 65
    assert "r10m/b02 has dimensions" in ended.said
