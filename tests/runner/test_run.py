"""The whole job on a good product: what comes out, and what a second time does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from command_line import arguments

BANDS = "measurements/reflectance"
ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"


def _native(product: Path) -> dict[str, dict]:
    documents = json.loads((product / ".zmetadata").read_text())["metadata"]
    return {
        key.removesuffix("/.zarray"): {**document, "attributes": documents[key.replace(".zarray", ".zattrs")]}
        for key, document in documents.items()
        if key.endswith(".zarray") and len(document["shape"]) == 2 and "quicklook" not in key
    }


def test_every_band_equals_the_source_at_native_resolution(product, converted):
    source = zarr.open_group(str(product), mode="r")
    with xr.open_datatree(converted, engine="zarr", chunks={}) as output:
        compared = 0
        for path, array in _native(product).items():
            packed = source[path][...]
            scale, offset = array["attributes"].get("scale_factor", 1), array["attributes"].get("add_offset", 0)
            want = packed.astype("f8") * scale + offset
            if array["fill_value"] is not None:
                want = np.where(packed == array["fill_value"], np.nan, want)
            np.testing.assert_allclose(output[path].values, want, rtol=1e-6, err_msg=path)
            compared += 1
    assert compared > 70


def test_nodata_is_nan_at_every_level_of_every_band(product, converted):
    nodata = zarr.open_group(str(product), mode="r")[f"{BANDS}/r10m/b08"][...] == 0
    assert 0.05 < nodata.mean() < 0.5, "the product must have a wedge without data for this test to say anything"
    with xr.open_datatree(converted, engine="zarr", chunks={}) as output:
        for level, factor in {"r10m": 1, "r20m": 2, "r60m": 6, "r120m": 12, "r360m": 36, "r720m": 72}.items():
            edge = nodata.shape[0] // factor
            whole = nodata[: edge * factor, : edge * factor]
            empty = whole.reshape(edge, factor, edge, factor).all(axis=(1, 3))
            assert empty.any()
            for name, band in output[f"{BANDS}/{level}"].data_vars.items():
                if band.ndim == 2:
                    assert np.isnan(band.values[empty]).all(), f"{level}/{name}"
                    assert not np.isnan(band.values).all(), f"{level}/{name}"
            assert "b08" in output[f"{BANDS}/{level}"].data_vars


def test_marker_tells_what_was_done_and_the_package_is_what_it_says(converted, tree):
    marker = json.loads((converted / "stac-watch.json").read_text())
    assert {name: marker[name] for name in ("code", "reason", "key", "attempt", "item_id", "hint")} == {
        "code": 0, "reason": "done", "key": "000000000001", "attempt": 1, "item_id": ITEM_ID, "hint": "",
    }  # fmt: skip
    assert {check["name"]: check["verdict"] for check in marker["checks"]} == dict.fromkeys(
        (
            "source",
            "item",
            "completeness",
            "frames",
            "structure",
            "georeferencing",
            "native values",
            "injected bands",
            "overviews",
            "coordinates",
            "ground",
            "nodata",
            "chunks",
            "coverage",
            "minispec",
            "conventions",
        ),
        "passed",
    )
    assert marker["engine"] == "fast"
    assert marker["versions"]["eopf-geozarr"] == "0.12.0"
    assert marker["seconds"].keys() >= {"preflight", "stage", "convert", "verify", "package"}
    archive = Path(marker["package"]["href"])
    assert archive == converted.with_name(converted.name + ".tar")
    assert archive.stat().st_size == marker["package"]["bytes"]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == marker["package"]["sha256"]
    with tarfile.open(archive) as tar:
        names = {m.name.removeprefix(converted.name + "/") for m in tar if m.isfile()}
    assert names == set(tree(converted))
    assert marker["counts"]["files"] == len(names)


def test_nothing_is_left_beside_the_output(converted):
    pages, pictures = (".report.html", ".report.json"), (".quicklook.png", ".thumbnail.webp")
    ends = ("", ".item.json", ".sha256", ".tar", *pages, *pictures)
    left = {p.name for p in converted.parent.iterdir() if not p.name.startswith(".geozarr-runner")}
    assert left == {converted.name + end for end in ends}


def test_the_same_key_again_is_done_at_once_and_loads_nothing_heavy(converted, tmp_path, tree):
    before = tree(converted)
    probe = (
        "import sys; from geozarr_runner.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'xarray', 'eopf_geozarr', 'zarr', 'dask', 'numpy', 'fsspec'} & set(sys.modules); sys.exit(99 if heavy else code)"
    )
    # of whichever process made it: what was made of another product is not what is asked for
    source = json.loads((converted / "stac-watch.json").read_text())["source"]
    given = arguments(source, converted, key="000000000001", attempt=2, outcome=tmp_path / "o.json")
    command = [sys.executable, "-c", probe, *given]
    before_it = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = os.times().children_user - before_it.children_user  # seconds of a processor: the clock tells how busy the machine is
    assert (done.returncode, took < 2) == (0, True), done.stderr
    outcome = json.loads((tmp_path / "o.json").read_text())
    assert (outcome["reason"], outcome["attempt"]) == ("already done", 2)
    assert tree(converted) == before


def test_help_loads_nothing_heavy():
    probe = (
        "import sys; from geozarr_runner.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "sys.exit(len({'xarray', 'eopf_geozarr', 'zarr', 'dask', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0


def test_over_http_from_an_item_each_object_is_fetched_once_and_no_quicklook(files, converted, runner, tree, tmp_path):
    output = tmp_path / "out" / "item.zarr"
    progress = tmp_path / "status.json"
    ended = runner(f"{files.url}/item.json", output, key="000000000002", status=progress, allowed_hosts="127.0.0.1")
    assert ended.code == 0, ended.stderr
    assert ended.outcome["item_id"] == ITEM_ID
    assert tree(output) == tree(converted)
    chunks = {path for path in files.requests if ".z" not in path.rpartition("/")[2] and "json" not in path}
    assert {files.sent[path] for path in chunks} == {1}
    assert {files.requests[path] for path in chunks} == {2}, "the second asks at the end whether it is still the same"
    assert len(chunks) == ended.outcome["counts"]["chunks"]
    assert not any("quicklook" in path for path in files.requests)
    assert json.loads(progress.read_text())["stage"] == "publish"
    assert not (tmp_path / "out" / ".geozarr-runner" / "stage" / "000000000002").exists()


def test_another_key_replaces_the_output_and_the_same_source_gives_the_same_bytes(product, runner, tree, tmp_path):
    output = tmp_path / "scene.zarr"
    options = {"groups": "/quality/atmosphere/r60m  conditions/geometry", "spatial_chunk": "", "sharding": "", "package": "tar.gz"}
    assert runner(product, output, key="00000000000a", **options).code == 0
    first = tree(output)
    assert runner(product, output, key="00000000000b", **options).code == 0
    assert json.loads((output / "stac-watch.json").read_text())["key"] == "00000000000b"
    assert tree(output) == first
    assert (tmp_path / "scene.zarr.tar.gz").exists()
    assert sorted(p.name for p in tmp_path.iterdir() if ".partial" in p.name or ".lock" in p.name) == []


def test_a_lost_package_is_made_again_without_converting(converted, runner, tmp_path):
    output = Path(shutil.copytree(converted, tmp_path / converted.name))
    marker = json.loads((output / "stac-watch.json").read_text())
    ended = runner(marker["source"], output, key="000000000001")  # of whichever process made it
    assert (ended.code, ended.outcome["reason"]) == (0, "already done")
    archive = tmp_path / (converted.name + ".tar")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == marker["package"]["sha256"]


@pytest.mark.parametrize(
    ("sharding", "groups", "array"), [("false", "quality/atmosphere/r60m", "aot"), ("true", f"{BANDS}/r60m", "b02")]
)
def test_an_output_that_lost_a_chunk_is_not_taken_for_whole(product, runner, tree, tmp_path, sharding, groups, array):
    output, options = tmp_path / "o.zarr", {"groups": groups, "key": "000000000003", "sharding": sharding}
    assert runner(product, output, spatial_chunk=70, **options).code == 0  # r60m is 120 wide
    whole = tree(output)
    lost = next(p for p in (output / groups / array / "c").rglob("*") if p.is_file())
    lost.unlink()
    ended = runner(product, output, spatial_chunk=70, **options)
    assert (ended.code, ended.outcome["reason"]) == (0, "done")
    assert tree(output) == whole


@pytest.mark.parametrize(
    ("groups", "native", "overviews"),
    [
        (f"{BANDS}/r10m", [f"{BANDS}/r10m"], False),
        (f"/{BANDS}/r20m /{BANDS}/r10m", [f"{BANDS}/r10m", f"{BANDS}/r20m"], False),
        ("quality/atmosphere/r60m", ["quality/atmosphere/r60m"], False),
        (BANDS, [f"{BANDS}/r10m", f"{BANDS}/r20m", f"{BANDS}/r60m"], True),
    ],
)
def test_groups_are_exactly_those_asked_for(product, runner, tmp_path, groups, native, overviews):
    output = tmp_path / "part.zarr"
    ended = runner(product, output, groups=groups, package="none")
    assert ended.code == 0, ended.stderr
    assert ended.outcome["package"] is None
    with xr.open_datatree(output, engine="zarr", chunks={}) as found:
        leaves = sorted(g.strip("/") for g in found.groups if found[g].data_vars)
        levels = [f"{BANDS}/{level}" for level in ("r120m", "r360m", "r720m")] if overviews else []
        assert leaves == sorted(native + levels)
        if BANDS in groups:
            layout = found[BANDS].attrs.get("multiscales", {}).get("layout", [])
            assert [level["asset"] for level in layout] == (
                [g.rpartition("/")[2] for g in native + levels] if len(native) > 1 else []
            )
    assert ended.outcome["groups"] == native


def test_preflight_looks_at_the_output_first_so_that_what_is_done_needs_no_source(converted, runner, tmp_path):
    """A catalog that keeps its products for some weeks: what was converted of them is done, and not "not there yet"."""
    gone, moved, size = tmp_path / "gone.zarr", tmp_path / converted.name, tmp_path / "size"
    marker = json.loads((converted / "stac-watch.json").read_text())
    shutil.copytree(converted, moved)
    shutil.copy(converted.with_name(marker["package"]["href"].rpartition("/")[2]), tmp_path)
    (moved / "stac-watch.json").write_text(json.dumps(marker | {"source": ""}, indent=2))
    ended = runner(gone, moved, command="preflight", key=marker["key"], size_file=size)
    assert (ended.code, ended.outcome["reason"], size.read_text()) == (0, "already done", "1Gi"), ended.stderr
    assert runner(gone, moved, command="preflight", key="f" * 20).code == 66, "another conversion's output answers nobody"
    next(path for path in moved.rglob("zarr.json")).unlink()
    assert runner(gone, moved, command="preflight", key=marker["key"]).code == 66, "an output that is not whole is not done"


def test_preflight_says_what_a_run_would_do_and_estimates_enough(files, converted, capsys, tmp_path):
    from geozarr_runner.cli import main

    size = tmp_path / "size"
    argv = ["preflight", "--stac-url", f"{files.url}/item.json", "--groups", "", "--package", "tar", "--size-file", str(size)]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["item_id"], found["level"], found["size"]) == (ITEM_ID, "L2A", size.read_text())
    marker = json.loads((converted / "stac-watch.json").read_text())
    need = marker["counts"]["bytes_written"]
    assert need <= found["estimate"]["output"] <= 2.2 * need
    assert marker["package"]["bytes"] <= found["estimate"]["package"] <= 2.2 * marker["package"]["bytes"]
    assert not any(path.rpartition("/")[2][:1].isdigit() for path in files.requests), "preflight read pixels"


def test_a_run_that_fails_leaves_one_line_for_whoever_looks_at_its_pod(runner, tmp_path):
    said = tmp_path / "termination-log"
    said.touch()
    written_to = said.stat().st_ino  # Kubernetes mounts this very file: another one in its place would be read by nobody
    ended = runner(tmp_path / "nowhere.zarr", tmp_path / "o.zarr", message_file=said)
    assert ended.code == 66
    [line] = said.read_text().splitlines()
    assert line == f"preflight: {ended.outcome['reason']} → {ended.outcome['hint']}"
    assert said.stat().st_ino == written_to
