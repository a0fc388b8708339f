"""A finished GeoZarr in Zarr v3 is mirrored, converted or referenced; what is wrong with it ends the run, and leaves nothing."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import NATIVE_ID
from geozarr_runner.convert import stock
from geozarr_runner.source import preflight, transcode
from geozarr_runner.source.eager import Eager
from geozarr_runner.source.store import Patience
from google_crc32c import value as sum_of

from stac_watch.demo.native import write_native
from stac_watch.model.errors import SourceNotThere
from stac_watch.model.forms import Native

pytestmark = pytest.mark.long

BANDS = "measurements/reflectance"
TOP = f"{BANDS}/r10m"


def stored(store: Path) -> dict[str, bytes]:
    """Every object of a store, but the marker."""
    found = (p for p in store.rglob("*") if p.is_file() and p.name != "stac-watch.json")
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in found}


def seen(folder: Path) -> list[str]:
    """What lies in a folder under a name that people look for."""
    return [p.name for p in folder.glob("*") if not p.name.startswith(".")]


def physical(store: Path, path: str) -> np.ndarray:
    """An array's values by its own attributes, NaN where there is no data."""
    array = zarr.open_array(str(store / path), mode="r")
    packed, known = np.asarray(array[...]), dict(array.attrs)
    values = packed.astype("f8") * known.get("scale_factor", 1) + known.get("add_offset", 0)
    values[packed == known.get("_FillValue", -1)] = np.nan
    return values


def item(store_url: str, **reflectance: object) -> dict[str, object]:
    """An item of the collection that new acquisitions come in."""
    zarr_type = "application/vnd.zarr; version=3"
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": NATIVE_ID,
        "assets": {
            "SR_10m": {"href": f"{store_url}/{TOP}", "type": zarr_type, **reflectance},
            "product": {"href": store_url, "type": zarr_type, "zarr:consolidated": True},
        },
    }  # fmt: skip


# -- mirror ---------------------------------------------------------------------------------------------------------------------


def test_a_mirror_has_the_same_objects_byte_for_byte_each_fetched_once(native, served, runner, tmp_path):
    files = served(native.parent)
    ended = runner(f"{files.url}/{native.name}", tmp_path / "out" / "a.zarr", package="tar")
    assert ended.code == 0, ended.said
    assert stored(tmp_path / "out" / "a.zarr") == stored(native)
    chunks = {path: n for path, n in files.sent.items() if "/c/" in path}  # asked about again at the end, and not fetched
    assert set(chunks.values()) == {1}
    outcome = ended.outcome
    assert (outcome["engine"], outcome["form"], outcome["groups"][-1]) == ("mirror", "geozarr-v3", "quality/probability/r20m")
    assert outcome["fingerprint"].count("-") == 2
    assert {c["name"]: c["verdict"] for c in outcome["checks"]} == dict.fromkeys(
        (
            "item",
            "completeness",
            "structure",
            "band identity",
            "overviews",
            "georeferencing",
            "scale and offset",
            "second reader",
            "coverage",
        ),
        "passed",
    )
    beside = {p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")}
    assert beside == {
        "a.zarr",
        "a.zarr.tar",
        *(f"a.zarr.{end}" for end in ("item.json", "quicklook.png", "report.html", "report.json", "sha256", "thumbnail.webp")),
    }


def test_a_mirrors_item_says_packed_numbers_and_every_level_opens_in_xarray(native, runner, tmp_path):
    assert runner(native, tmp_path / "a.zarr", package="none").code == 0
    asset = json.loads((tmp_path / "a.zarr.item.json").read_text())["assets"]["reflectance"]
    assert (asset["data_type"], asset["nodata"], asset["proj:code"]) == ("uint16", 0, "EPSG:32632")
    assert (asset["raster:scale"], asset["raster:offset"]) == (0.0001, -0.1)
    assert {"name": "b02", "gsd": 10, "eo:common_name": "blue"}.items() <= next(
        b for b in asset["bands"] if b["name"] == "b02"
    ).items()
    with xr.open_datatree(tmp_path / "a.zarr", engine="zarr", chunks={}) as tree:
        for level in ("r10m", "r20m", "r60m", "r120m", "r360m", "r720m"):
            np.testing.assert_allclose(tree[f"{BANDS}/{level}/b02"].values, physical(native, f"{BANDS}/{level}/b02"), rtol=1e-6)


def test_the_converters_own_store_is_mirrored_too(product, runner, tmp_path):
    store = tmp_path / "published" / product.name
    with stock.quiet(), xr.open_datatree(product, engine="zarr", chunks={}, mask_and_scale=False) as tree:
        stock.load().convert_s2_optimized(
            dt_input=tree, output_path=str(store), enable_sharding=True, spatial_chunk=256, compression_level=3,
            validate_output=False, keep_scale_offset=True,
        )  # fmt: skip
    ended = runner(store, tmp_path / "a.zarr", package="none")
    assert ended.code == 0, ended.said
    assert stored(tmp_path / "a.zarr") == stored(store)
    told = {check["name"]: check["detail"] for check in ended.outcome["checks"]}
    assert "nodata averaged in" in told["overviews"]


# -- convert, reference ---------------------------------------------------------------------------------------------------------


def test_converted_it_has_our_chunks_and_the_same_values(native, runner, tmp_path):
    groups = f"{BANDS} quality/mask/r10m conditions/geometry"
    ended = runner(native, tmp_path / "a.zarr", native="convert", spatial_chunk=64, groups=groups, package="none")
    assert ended.code == 0, ended.said
    assert (ended.outcome["form"], ended.outcome["engine"]) == ("geozarr-v3", "stock: the product is small")
    assert ended.outcome["fingerprint"].count("-") == 2
    with xr.open_datatree(tmp_path / "a.zarr", engine="zarr", chunks={}) as tree:
        for path in (
            f"{TOP}/b02",
            f"{BANDS}/r20m/b8a",
            f"{BANDS}/r60m/b09",
            "quality/mask/r10m/b03",
            "conditions/geometry/sun_angles",
        ):
            np.testing.assert_allclose(tree[path].values, physical(native, path), rtol=1e-6, err_msg=path)
        assert tree[f"{BANDS}/r720m"]["b08"].shape == (3, 3)
    assert zarr.open_array(str(tmp_path / "a.zarr" / TOP / "b02"), mode="r").chunks == (64, 64)


def test_arrays_are_told_of_while_others_are_on_their_way_each_whole_and_once(own_native, served, tmp_path):
    files = served(own_native.parent)
    shutil.rmtree(
        own_native / BANDS / "r60m/b09/c"
    )  # as its publisher leaves out what holds nothing; nobody judges it before the end
    files.gated = "/r20m/b05/"
    files.gate.clear()
    asked = preflight.plan(
        f"{files.url}/{own_native.name}", f"{BANDS}/r20m {BANDS}/r60m", allowed_hosts=("127.0.0.1",), patience=Patience(attempts=1),
        wait=lambda _: False, asked=Native.CONVERT,
    )  # fmt: skip
    told: list[str] = []
    every = {a.path: a for a in asked.selection.arrays}
    bands = {path for path, array in every.items() if not array.is_coordinate}

    def arrived(path: str) -> None:
        told.append(path)
        assert all((told_root / key).is_file() for key in every[path].chunk_keys())
        if path in bands:
            files.gate.set()  # what waits behind it was not needed to come this far

    def begin(root: Path) -> None:
        nonlocal told_root
        told_root = root
        assert all((root / key).is_file() for path, a in every.items() if path not in bands for key in a.chunk_keys())

    told_root = tmp_path
    eager = Eager(lambda path: int(path in bands), begin, arrived)
    with pytest.raises(SourceNotThere, match="r60m/b09"):
        transcode.stage(asked, tmp_path / "stage", advance=lambda _: None, called_off=threading.Event(), eager=eager)
    assert sorted(told) == sorted(every)
    assert f"{BANDS}/r20m/b05" != next(path for path in told if path in bands)


def test_a_choice_of_groups_is_honoured_by_converting_it(native, runner, tmp_path):
    ended = runner(native, tmp_path / "a.zarr", groups=f"{BANDS}/r20m", package="none")
    assert ended.code == 0, ended.said
    assert ended.outcome["groups"] == [f"{BANDS}/r20m"]
    assert not (tmp_path / "a.zarr" / TOP).exists()


def test_the_fast_engine_takes_it(native, runner, tmp_path):
    ended = runner(native, tmp_path / "a.zarr", native="convert", engine="fast", groups=f"{BANDS}/r10m", package="none")
    assert (ended.code, ended.outcome.get("engine")) == (0, "fast"), ended.said


def test_a_reference_copies_nothing_and_its_item_points_to_the_store(native, served, runner, tmp_path):
    files = served(native.parent)
    url = f"{files.url}/{native.name}"
    ended = runner(url, tmp_path / "a.zarr", native="reference")
    assert ended.code == 0, ended.said
    assert json.loads(stored(tmp_path / "a.zarr").pop("reference.json")) == {"href": url, "form": "geozarr-v3"}
    assert ended.outcome["package"] is None
    described = json.loads((tmp_path / "a.zarr.item.json").read_text())
    hrefs = {name: a["href"] for name, a in described["assets"].items() if "zarr" in a["type"]}
    assert {name: hrefs[name] for name in ("product", "reflectance")} == {
        "product": url, "reflectance": f"{url}/{BANDS}",
    }  # fmt: skip
    assert (tmp_path / "a.zarr.quicklook.png").stat().st_size > 100


@pytest.mark.parametrize("native_mode", ["convert", "mirror"])
def test_scale_and_offset_are_the_stores_whatever_the_item_says(own_native, runner, tmp_path, native_mode):
    (tmp_path / "with.json").write_text(json.dumps(item(str(own_native), **{"raster:scale": 0.0001, "raster:offset": -0.1})))
    (tmp_path / "without.json").write_text(json.dumps(item(str(own_native))))
    values, groups = [], TOP if native_mode == "convert" else ""
    for name in ("with", "without"):
        ended = runner(tmp_path / f"{name}.json", tmp_path / f"{name}.zarr", native=native_mode, package="none", groups=groups)
        assert ended.code == 0, ended.said
        with xr.open_datatree(tmp_path / f"{name}.zarr", engine="zarr", chunks={}) as tree:
            values.append(tree[f"{TOP}/b04"].values)
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_allclose(values[0], physical(own_native, f"{TOP}/b04"), rtol=1e-6)


# -- Zarr v3 without a pyramid --------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(own_native) -> Path:
    """The same product as CPM 3.0 alone writes it: no pyramid, no conventions, nothing consolidated."""
    for level in ("r120m", "r360m", "r720m"):
        shutil.rmtree(own_native / BANDS / level)
    for level in ("r20m", "r60m"):
        shutil.rmtree(own_native / BANDS / level / "b08")
    scalar = zarr.create_array(str(own_native / "conditions/meteorology/cams/isobaricInhPa"), shape=(), dtype="f8", fill_value=0.0)
    scalar[...] = 7.0  # CPM writes scalar coordinates, too
    for node in own_native.rglob("zarr.json"):
        document = json.loads(node.read_text())
        document.pop("consolidated_metadata", None)
        if document["node_type"] == "group":
            kept = ("other_metadata", "stac_discovery", "proj:code")
            document["attributes"] = {k: v for k, v in document["attributes"].items() if k in kept}
        node.write_text(json.dumps(document))
    return own_native


@pytest.mark.parametrize("place", ["local", "http"])
def test_a_bare_product_in_v3_is_converted(bare, served, runner, tmp_path, place):
    where = str(bare) if place == "local" else f"{served(bare.parent).url}/{bare.name}"
    ended = runner(where, tmp_path / "a.zarr", groups=f"{BANDS}/r20m {BANDS}/r60m conditions/meteorology", package="none")
    assert (ended.code, ended.outcome.get("form")) == (0, "eopf-v3"), ended.said
    with xr.open_datatree(tmp_path / "a.zarr", engine="zarr", chunks={}) as tree:
        for path in (f"{BANDS}/r20m/b05", f"{BANDS}/r60m/b01", "conditions/meteorology/cams/z"):
            np.testing.assert_allclose(tree[path].values, physical(bare, path), rtol=1e-6, err_msg=path)


# -- what is wrong with it ------------------------------------------------------------------------------------------------------


def shard(store: Path, band: str, level: str = "r10m") -> Path:
    return store / BANDS / level / band / "c" / "0" / "0"


def cut(store: Path) -> None:
    path = shard(store, "b02")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_to_nothing(store: Path) -> None:
    shard(store, "b02").write_bytes(b"")


def swap(store: Path) -> None:
    one, other = shard(store, "b02"), shard(store, "b04")
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def another_band(store: Path) -> None:
    shutil.copyfile(shard(store, "b11", "r20m"), shard(store, "b05", "r20m"))


def another_overview(store: Path) -> None:
    shutil.copyfile(shard(store, "b03", "r120m"), shard(store, "b02", "r120m"))


def another_level(store: Path) -> None:
    shutil.copyfile(shard(store, "b02", "r20m"), shard(store, "b02"))


def bit_of_index(store: Path) -> None:
    path = shard(store, "b03")
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)


def bit_of_header(store: Path) -> None:
    path = shard(store, "b03")
    raw = bytearray(path.read_bytes())
    raw[13] ^= 1  # of the frame's stored length
    path.write_bytes(raw)


def bits_of_pixels(store: Path) -> None:
    path = shard(store, "b09", "r60m")
    raw = bytearray(path.read_bytes())
    raw[200:240] = bytes(byte ^ 0x10 for byte in raw[200:240])
    path.write_bytes(raw)


def index_that_points_outside(store: Path) -> None:
    path = shard(store, "b03")
    raw = bytearray(path.read_bytes())
    table = len(raw) - 4 - 16 * 9  # three by three chunks
    raw[table : table + 8] = (len(raw)).to_bytes(8, "little")
    raw[-4:] = sum_of(bytes(raw[table:-4])).to_bytes(4, "little")
    path.write_bytes(raw)


def contradiction(store: Path) -> None:
    node = store / TOP / "b02" / "zarr.json"
    document = json.loads(node.read_text())
    document["attributes"]["scale_factor"] = 0.001
    node.write_text(json.dumps(document))


def no_crs(store: Path) -> None:
    for path in (store / "zarr.json",):
        document = json.loads(path.read_text())
        nodes = document["consolidated_metadata"]["metadata"]
        for name in [n for n in nodes if n.endswith("/spatial_ref")]:
            nodes[name]["attributes"] = {}
            (store / name / "zarr.json").write_text(json.dumps(nodes[name]))
        for name, node in nodes.items():
            if node["node_type"] == "group" and node["attributes"].pop("proj:code", None):
                (store / name / "zarr.json").write_text(json.dumps(node))
        path.write_text(json.dumps(document))


def unknown_codec(store: Path) -> None:
    path = store / "zarr.json"
    path.write_text(path.read_text().replace('"name": "blosc"', '"name": "pickle"'))


WRONG = [cut, cut_to_nothing, swap, another_band, another_overview, another_level, bit_of_index, bit_of_header, bits_of_pixels,
         index_that_points_outside, contradiction, no_crs, unknown_codec]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda f: f.__name__)
def test_what_is_wrong_is_bad_input_and_leaves_no_output(own_native, runner, tmp_path, wrong):
    wrong(own_native)
    ended = runner(own_native, tmp_path / "out" / "a.zarr", package="none")
    assert ended.code == 65, ended.said
    assert not seen(tmp_path / "out")


@pytest.mark.parametrize("wrong", [cut, swap, bit_of_header], ids=lambda f: f.__name__)
def test_a_conversion_of_it_ends_the_same_way(own_native, runner, tmp_path, wrong):
    wrong(own_native)
    ended = runner(own_native, tmp_path / "out" / "a.zarr", native="convert", groups=BANDS, package="none")
    assert ended.code == 65, ended.said
    assert not seen(tmp_path / "out")


def hole_in_a_band(store: Path) -> None:
    shard(store, "b02").unlink()


def hole_in_a_level(store: Path) -> None:
    for band in ("b02", "b03", "b04", "b08"):
        shard(store, band).unlink()


def hole_within_shards(store: Path) -> None:
    """One chunk of each r10m band is left out: the rest of a shard is whole, and says so."""
    for band in ("b02", "b03", "b04", "b08"):
        path = shard(store, band)
        raw = bytearray(path.read_bytes())
        table = len(raw) - 4 - 16 * 9
        entries = [raw[table + 16 * n : table + 16 * n + 16] for n in range(9)]
        last = max((e for e in entries if e != b"\xff" * 16), key=lambda e: int.from_bytes(e[:8], "little"))
        body = raw[: int.from_bytes(last[:8], "little")]
        index = b"".join(b"\xff" * 16 if e == last else bytes(e) for e in entries)
        path.write_bytes(bytes(body) + index + sum_of(index).to_bytes(4, "little"))


def no_coordinates(store: Path) -> None:
    shutil.rmtree(store / TOP / "x" / "c")


def no_scene_classification(store: Path) -> None:
    shutil.rmtree(store / "conditions/mask/l2a_classification/r20m/scl/c")


def no_metadata_of_a_node(store: Path) -> None:
    (store / TOP / "b02" / "zarr.json").unlink()


def no_root(store: Path) -> None:
    (store / "zarr.json").unlink()


MISSING = [
    hole_in_a_band,
    hole_in_a_level,
    hole_within_shards,
    no_coordinates,
    no_scene_classification,
    no_metadata_of_a_node,
    no_root,
]


@pytest.mark.parametrize("lacks", MISSING, ids=lambda f: f.__name__)
def test_what_is_missing_is_waited_for(own_native, runner, tmp_path, lacks):
    lacks(own_native)
    ended = runner(own_native, tmp_path / "out" / "a.zarr", package="none")
    assert ended.code == 66, ended.said
    assert not seen(tmp_path / "out")


def test_a_hole_in_all_that_was_chosen_is_seen_by_what_was_not(own_native, served, runner, tmp_path):
    for array in (own_native / BANDS).glob("r*m/b*"):
        if (array / "c").exists():
            shutil.rmtree(array / "c")
    files = served(own_native.parent)
    ended = runner(f"{files.url}/{own_native.name}", tmp_path / "out" / "a.zarr", package="none", native="convert", groups=BANDS)
    assert (ended.code, "still being uploaded" in ended.said) == (66, True), ended.said
    assert not seen(tmp_path / "out")


@pytest.mark.parametrize("mode", ["mirror", "convert"])
@pytest.mark.parametrize(("claim", "code"), [({"s2:nodata_pixel_percentage": 8}, 66), ({"s2:nodata_pixel_percentage": 100}, 0)])
def test_a_hole_in_everything_is_told_by_what_the_item_says(own_native, runner, tmp_path, mode, claim, code):
    for group in (BANDS, "conditions/mask", "quality/atmosphere"):
        for array in (own_native / group).rglob("c"):
            if array.parent.name not in ("x", "y"):
                shutil.rmtree(array)
    document = item(str(own_native)) | {"properties": claim}
    (tmp_path / "item.json").write_text(json.dumps(document))
    ended = runner(tmp_path / "item.json", tmp_path / "a.zarr", package="none", native=mode)
    assert ended.code == code, ended.said


def test_a_person_may_take_a_hole_for_nodata_and_the_outcome_says_so(own_native, runner, tmp_path):
    hole_in_a_band(own_native)
    ended = runner(own_native, tmp_path / "a.zarr", package="none", allow_empty="true")
    assert ended.code == 0, ended.said
    told = {check["name"]: check["detail"] for check in ended.outcome["checks"]}
    assert "r10m/b02" in told["completeness"]
    assert "taken for nodata" in told["completeness"]


def test_masks_that_are_all_zero_may_be_left_out(own_native, runner, tmp_path):
    for mask in (own_native / "quality/mask").glob("r*m/b*"):
        shutil.rmtree(mask / "c", ignore_errors=True)
    ended = runner(own_native, tmp_path / "a.zarr", package="none")
    assert ended.code == 0, ended.said


@pytest.mark.parametrize(("answer", "code"), [("403", 66), ("401", 77), ("503", 75), ("cut", 65), ("404", 66)])
def test_what_a_server_says_of_a_band_decides_how_it_ends(native, served, runner, tmp_path, answer, code):
    files = served(native.parent)
    files.faults["r10m/b02/c/0/0"] = [answer]
    ended = runner(f"{files.url}/{native.name}", tmp_path / "out" / "a.zarr", package="none", attempts=1)
    assert ended.code == code, ended.said
    assert not seen(tmp_path / "out")


@pytest.mark.parametrize("mode", ["mirror", "convert"])
def test_what_was_fetched_is_not_fetched_again(native, served, runner, tmp_path, mode):
    files = served(native.parent)
    files.faults["r10m/b02/c/0/0"] = ["503", "ok"]
    url = f"{files.url}/{native.name}"
    options = {"package": "none", "attempts": 1, "key": "0" * 20, "native": mode, "groups": TOP if mode == "convert" else ""}
    assert runner(url, tmp_path / "a.zarr", **options).code == 75
    before = {path for path in files.requests if "/c/" in path and "r10m/b02/" not in path}
    kept = {p for p in before if list((tmp_path / ".geozarr-runner").rglob(p.split(".zarr/", 1)[1]))}
    files.sent.clear()
    ended = runner(url, tmp_path / "a.zarr", **options)
    assert ended.code == 0, ended.said
    assert kept
    assert not [p for p in kept if files.sent[p]]  # asked about again at the end, and not fetched


def test_what_was_published_anew_meanwhile_is_fetched_anew(own_native, served, runner, tmp_path):
    files = served(own_native.parent)
    files.faults["r10m/b02/c/0/0"] = ["503", "ok"]
    url = f"{files.url}/{own_native.name}"
    options = {"package": "none", "attempts": 1, "key": "0" * 20}
    assert runner(url, tmp_path / "a.zarr", **options).code == 75
    root = own_native / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"]["history"] = "again"
    root.write_text(json.dumps(document))
    ended = runner(url, tmp_path / "a.zarr", **options)
    assert ended.code == 0, ended.said
    assert stored(tmp_path / "a.zarr") == stored(own_native)


def test_a_new_stamp_of_the_same_store_is_looked_at_and_fetches_nothing(own_native, served, runner, tmp_path):
    files = served(own_native.parent)
    url, first = f"{files.url}/{own_native.name}", {"package": "none", "key": "1" * 20, "revision": "a"}
    assert runner(url, tmp_path / "a.zarr", **first).code == 0
    before = stored(tmp_path / "a.zarr")
    files.requests.clear()
    ended = runner(url, tmp_path / "a.zarr", **first | {"key": "2" * 20, "revision": "b"})
    assert (ended.code, ended.outcome["reason"]) == (0, "unchanged"), ended.said
    assert not [path for path in files.requests if "/c/" in path]
    marker = json.loads((tmp_path / "a.zarr" / "stac-watch.json").read_text())
    assert (marker["key"], marker["revision"], stored(tmp_path / "a.zarr")) == ("2" * 20, "b", before)
    band = shard(own_native, "b03", "r720m")  # published anew, with the same metadata
    node = shard(own_native, "b03", "r360m")
    band.unlink()
    node.unlink()
    shutil.rmtree(own_native / BANDS / "r720m" / "b03" / "c")
    files.requests.clear()
    ended = runner(url, tmp_path / "a.zarr", **first | {"key": "3" * 20, "revision": "c"})
    assert ended.code == 66, ended.said
    assert stored(tmp_path / "a.zarr") == before


def test_a_store_that_was_published_anew_replaces_its_mirror(own_native, served, runner, tmp_path):
    files = served(own_native.parent)
    url, first = f"{files.url}/{own_native.name}", {"package": "none", "key": "1" * 20}
    assert runner(url, tmp_path / "a.zarr", **first).code == 0
    shutil.rmtree(own_native)
    write_native(own_native.parent, NATIVE_ID, size=252, chunk=84, seed=1)
    ended = runner(url, tmp_path / "a.zarr", **first | {"key": "2" * 20})
    assert (ended.code, ended.outcome["reason"]) == (0, "done"), ended.said
    assert stored(tmp_path / "a.zarr") == stored(own_native)


def test_an_archive_is_refused_by_its_name_and_not_read(native, served, runner, tmp_path):
    files = served(native.parent)
    ended = runner(f"{files.url}/{native.name}.zip", tmp_path / "a.zarr")
    assert (ended.code, sum(files.requests.values())) == (65, 0)
    assert "zip" in ended.said
    only = item(f"{files.url}/{native.name}")
    only["assets"] = {"zipped_product": {"href": f"{files.url}/{native.name}.zip", "type": "application/zip"}}
    (tmp_path / "item.json").write_text(json.dumps(only))
    ended = runner(tmp_path / "item.json", tmp_path / "a.zarr")
    assert (ended.code, "zip" in ended.said) == (65, True)


def test_preflight_says_the_form_and_what_is_done(native, runner, tmp_path, capsys):
    from command_line import arguments
    from geozarr_runner.cli import main

    for mode in ("mirror", "convert", "reference"):
        assert main([*arguments(native, "", command="preflight")[:3], f"--native={mode}", "--package=tar"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["form"], found["native"]) == ("geozarr-v3", mode)
        assert (found["estimate"]["package"] == 0) is (mode == "reference")
