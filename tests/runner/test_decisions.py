"""The runner's judgements one by one: hrefs, absent chunks, patience, and whether `verify` and the work-arounds would notice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading

import dask
import numpy as np
import pytest
import zarr
from geozarr_runner.convert import engine
from geozarr_runner.convert import stock as convert
from geozarr_runner.source.metadata import parse
from geozarr_runner.source.product import select
from geozarr_runner.source.store import Patience, open_source, resolve_href
from geozarr_runner.verify import comparing, verify

from stac_watch.model.errors import Defect, InputError, Unavailable

pytestmark = pytest.mark.long

BANDS = "measurements/reflectance"
BASE = "https://objects.example:443/tenant:bucket/S2A_X.zarr"


def test_relative_hrefs_are_seen_from_the_item(tmp_path):
    def opened(url):
        return open_source(url, allowed_hosts=(), patience=Patience(), wait=threading.Event().wait)

    assert resolve_href(opened("https://h.example/items/a.json"), "../p/a.zarr") == "https://h.example/p/a.zarr"
    assert resolve_href(opened(str(tmp_path / "a.json")), "a.zarr") == str(tmp_path / "a.zarr")
    assert resolve_href(opened(str(tmp_path / "a.json")), BASE) == BASE


@pytest.fixture(scope="module")
def selection(product):
    return select(parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here"), "")


def _lose(path):
    def change(output):
        next(p for p in sorted((output / path / "c").rglob("*")) if p.is_file()).unlink()

    return change


def _set(path, value, where):
    def change(output):
        array = zarr.open_group(str(output), mode="r+")[path]
        stored = array[...]
        scale, offset = (array.attrs.get(name, neutral) for name, neutral in (("scale_factor", 1), ("add_offset", 0)))
        missing = array.attrs.get("_FillValue")
        values = np.where(stored == missing, np.nan, stored * scale + offset) if missing is not None else stored
        stored[where(values)] = missing if np.isnan(value) and missing is not None else (value - offset) / scale
        array[...] = stored

    return change


def _shift(path, metres):
    def change(output):
        array = zarr.open_group(str(output), mode="r+")[path]
        array[...] = array[...] + metres

    return change


def _reshape(path, edge):
    def change(output):
        for document in (output / path / "zarr.json", *(p / "zarr.json" for p in (output, output / BANDS))):
            text = json.loads(document.read_text())
            node = text
            if text.get("consolidated_metadata"):
                inside = text["consolidated_metadata"]["metadata"]
                node = inside.get(path) or inside[path.removeprefix(f"{BANDS}/")]
            node["shape"] = [edge, edge]
            document.write_text(json.dumps(text))

    return change


def _cut(path):
    def change(output):
        chunk = next(p for p in sorted((output / path / "c").rglob("*")) if p.is_file())
        chunk.write_bytes(chunk.read_bytes()[:-7])

    return change


def _remove(path):
    """As if the converter had never written it: the consolidated metadata does not know it either."""

    def change(output):
        shutil.rmtree(output / path)
        with convert.quiet():
            zarr.consolidate_metadata(str(output), zarr_format=3)

    return change


def _first(values):
    return np.unravel_index(int(np.argmax(~np.isnan(values))), values.shape)


@pytest.mark.parametrize(
    ("path", "change", "failed"),
    [
        (f"{BANDS}/r10m/b03", _lose, {"nodata", "chunks"}),
        (f"{BANDS}/r20m/b08", _lose, {"nodata", "chunks"}),
        (f"{BANDS}/r360m/b08", lambda p: _set(p, 0.0, np.isnan), {"nodata", "overviews"}),
        (f"{BANDS}/r720m/b11", lambda p: _set(p, 0.7, _first), {"overviews"}),
        (f"{BANDS}/r20m/b08", lambda p: _set(p, 0.7, _first), {"injected bands"}),
        ("quality/atmosphere/r60m/aot", lambda p: _set(p, 9.0, _first), {"native values"}),
        (f"{BANDS}/r60m/b02", lambda p: _set(p, np.nan, _first), {"nodata", "overviews"}),
        (f"{BANDS}/r10m/x", lambda p: _shift(p, 5.0), {"coordinates", "georeferencing"}),
        (f"{BANDS}/r20m/y", lambda p: _shift(p, 1), {"coordinates", "georeferencing"}),
        (f"{BANDS}/r360m/x", lambda p: _shift(p, 60.0), {"coordinates", "georeferencing"}),
        (f"{BANDS}/r10m/b02", lambda p: _reshape(p, 755), {"native values", "georeferencing"}),
        (f"{BANDS}/r10m/b02", lambda p: _reshape(p, 757), {"native values", "georeferencing"}),
        (f"{BANDS}/r60m/b08", lambda p: _reshape(p, 125), {"injected bands", "overviews", "georeferencing"}),
        (f"{BANDS}/r720m/b01", lambda p: _reshape(p, 9), {"overviews", "georeferencing"}),
        (f"{BANDS}/r20m/b05", _cut, {"native values"}),
        ("quality/mask/r20m", _remove, {"structure"}),
        (f"{BANDS}/r120m/b03", _remove, {"structure"}),
        (f"{BANDS}/r20m/b08", _remove, {"structure"}),
        (f"{BANDS}/r720m/y", _remove, {"structure", "georeferencing"}),
    ],
    ids=[
        "lost-chunk", "lost-injected", "nodata-is-zero", "wrong-overview", "wrong-injected", "wrong-value", "hole",
        "half-a-pixel-west", "a-metre-north", "overview-shifted", "too-small", "too-large", "injected-too-small",
        "overview-too-small", "cut-chunk", "lost-group", "lost-overview", "never-injected", "lost-axis",
    ],
)  # fmt: skip
def test_verify_notices(product, converted, selection, tmp_path, path, change, failed):
    output = shutil.copytree(converted, tmp_path / "o.zarr")
    (output / "stac-watch.json").unlink()  # verify comes before the marker
    change(path)(output)
    verdicts = {c.name: c for c in verify.verify(product, selection, output, level="L2A", workers=2).failed}
    assert verdicts.keys() == failed
    assert any(path in check.detail for check in verdicts.values())


def test_a_sample_still_finds_every_lost_and_every_cut_chunk_and_says_what_it_compared(product, tmp_path):
    """With a budget of no pixels one chunk of each large array is compared; a hole anywhere is found all the same."""
    selection = select(parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here"), BANDS)
    output = tmp_path / "o"
    frames = convert.convert(product, selection, output, engine.Options(spatial_chunk=84, engine="fast"), level="L2A").frames

    def judged(seed):
        budget = {"everything": 0, "small": 1000, "sampled": 1}
        return verify.verify(product, selection, output, level="L2A", workers=2, seed=seed, frames=frames, **budget)

    assert judged("a").failed == ()
    coverage = next(check.detail for check in judged("a").checks if check.name == "coverage")
    assert "'a/<array>/" in coverage
    files = sorted(p for p in (output / f"{BANDS}/r10m/b03/c").rglob("*") if p.is_file())
    whole = files[20].read_bytes()
    for broken in (None, whole[:100]):
        files[20].unlink() if broken is None else files[20].write_bytes(broken)
        for seed in ("a", "b"):
            assert f"{BANDS}/r10m/b03" in " ".join(check.detail for check in judged(seed).failed)
        files[20].write_bytes(whole)
    turned = bytearray(whole)
    turned[len(turned) // 2] ^= 1
    files[20].write_bytes(turned)
    assert all("frames" in {check.name for check in judged(seed).failed} for seed in "abc")
    files[20].write_bytes(whole)
    looked = {f.path: f.pixels for f in judged("a").findings}
    absent = 9 * 9 - len(files)
    assert looked[f"{BANDS}/r10m/b03"] == 84 * 84 * (absent + 1)


def test_a_product_without_a_band_of_the_level_that_the_converter_needs_is_bad_input(product):
    documents = json.loads((product / ".zmetadata").read_text())["metadata"]
    bands = [key for key in documents if key.startswith(f"{BANDS}/r60m/b")]
    assert bands
    without = parse({key: document for key, document in documents.items() if key not in bands}, "here")
    with pytest.raises(InputError, match=f"{BANDS}/r60m") as error:
        select(without, f"{BANDS}/r10m")
    assert error.value.hint


def test_what_may_be_left_out_is_what_reads_as_the_fill_value():
    assert comparing.is_fill(np.full((2, 2), np.nan), np.float32("nan"))
    assert not comparing.is_fill(np.array([np.nan, 0.5]), np.float32("nan"))
    assert comparing.is_fill(np.zeros(3, "i8"), np.int64(0))
    assert not comparing.is_fill(np.array(7), np.int64(0))
    assert not comparing.is_fill(np.full(2, np.nan), np.float32(0))


def test_verify_fails_what_the_bare_converter_makes_of_nodata(product, tmp_path):
    """The work-around `keep_nodata` is needed as long as this converter, left to itself, fails here."""
    bands = select(parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here"), BANDS)
    with convert.quiet():
        converter = convert.load()
        tree = converter.open_source_datatree(str(product))
        convert.prune(tree, bands)
        options = {"enable_sharding": False, "spatial_chunk": 1024, "compression_level": 3, "validate_output": False}
        with dask.config.set(scheduler="synchronous"):  # its threads may write one chunk at once: that is another fault
            converter.convert_s2_optimized(dt_input=tree, output_path=str(tmp_path / "o"), keep_scale_offset=False, **options)
    failed = {check.name: check.detail for check in verify.verify(product, bands, tmp_path / "o", level="L2A", workers=2).failed}
    assert failed.keys() == {"nodata", "georeferencing"}
    assert "b08" in failed["nodata"]
    assert "not NaN" in failed["nodata"]


def test_the_converter_is_loaded_without_network_and_without_what_no_run_needs():
    probe = (
        "import sys; asked = []\n"
        "sys.addaudithook(lambda name, args: asked.append(args) if name in ('socket.getaddrinfo', 'socket.connect') else None)\n"
        "from geozarr_runner.convert import stock\n"
        "with stock.quiet(): stock.load()\n"
        "import urllib.request; assert urllib.request.urlopen.__module__ == 'urllib.request'\n"
        "brought = {name.partition('.')[0] for name, module in sys.modules.items() if module is not None}\n"
        "print(asked, sorted(brought & {'boto3', 'botocore', 'distributed', 's3fs', 'bokeh'}))\n"
        "import s3fs; print(s3fs.__file__ is not None)"
    )
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ended.stdout.split("\n") == ["[] []", "True", ""]


def test_an_xarray_that_breaks_the_converter_is_named():
    convert.require_xarray()

    def mean_of_2026_9_0():
        """Takes no skipna, as DataArrayCoarsen.mean since pydata/xarray#11556."""

    with pytest.raises(Unavailable, match=r"xarray .* does not work with eopf-geozarr 0\.12\.0") as error:
        convert.require_xarray(mean_of_2026_9_0)
    assert "2026.7.0" in error.value.hint


def test_the_converter_never_gets_a_folder_that_holds_something(product, selection, tmp_path):
    (tmp_path / "left-over").write_text("")
    with pytest.raises(Defect, match="is not empty"):
        convert.convert(product, selection, tmp_path, engine.Options(), level="L2A")


def test_a_malformed_metadata_document_is_bad_input(product):
    documents = json.loads((product / ".zmetadata").read_text())["metadata"]
    del documents[f"{BANDS}/r10m/b02/.zarray"]["shape"]
    with pytest.raises(InputError, match="not valid Zarr v2: KeyError"):
        parse(documents, "here")
