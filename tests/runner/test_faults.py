"""Everything that can be wrong with a source or an output: the exit code, one clear line, and nothing half-done."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from command_line import program

pytestmark = pytest.mark.long

BANDS = "measurements/reflectance"
SMALL = f"{BANDS}/r60m"  # few objects: faults show the same
TWO = "quality/atmosphere/r60m"  # two arrays and no overviews, for runs that come to their end


def _chunk(product: Path, array: str) -> Path:
    return next(p for p in sorted((product / array).rglob("*")) if p.is_file() and not p.name.startswith("."))


def _assert_nothing_left(output: Path) -> None:
    left = [p.name for p in output.parent.glob(f"*{output.name}*")] + [p.name for p in output.parent.glob(f".{output.name}*")]
    assert left == []


def test_a_wrong_group_names_the_right_one_and_shows_the_tree(product, runner, tmp_path):
    ended = runner(product, tmp_path / "o.zarr", groups="measurements/reflectanc/r10m")
    assert ended.code == 65
    assert "no group 'measurements/reflectanc/r10m'; did you mean measurements/reflectance" in ended.said
    assert "r20m" in ended.outcome["hint"]
    assert "detector_footprint" in ended.outcome["hint"]
    _assert_nothing_left(tmp_path / "o.zarr")


@pytest.mark.parametrize(
    ("groups", "words"), [("quality/l2a_quicklook", "is a quicklook"), (f"{BANDS}/r10m/b02", "is an array, not a group")]
)
def test_what_cannot_be_a_group_is_refused_not_ignored(product, runner, tmp_path, groups, words):
    ended = runner(product, tmp_path / "o.zarr", groups=groups)
    assert ended.code == 65
    assert words in ended.said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda m: m[".zattrs"]["stac_discovery"]["properties"].update({"product:type": "S03OLCEFR"}),
            "product:type is 'S03OLCEFR'",
        ),
        (lambda m: [m.pop(k) for k in list(m) if k.startswith("conditions/")], "its root holds measurements, quality"),
        (lambda m: [m.pop(k) for k in list(m) if k.startswith(f"{BANDS}/r60m")], f"it lacks {BANDS}/r60m"),
        (lambda m: m[".zattrs"].pop("other_metadata"), "root attributes lack other_metadata"),
        (lambda m: m.update({"../../evil/.zarray": m[f"{BANDS}/r10m/b02/.zarray"]}), "illegal key"),
        (lambda m: m[f"{BANDS}/r10m/b02/.zarray"].update(chunks=[0, 0]), "chunks (0, 0)"),
        (lambda m: m[f"{BANDS}/r10m/b02/.zarray"].update(chunks=[1, 1]), "more than 200000"),
    ],
    ids=["other-mission", "no-conditions", "no-r60m", "no-other-metadata", "path-traversal", "chunk-zero", "too-many-chunks"],
)
def test_a_product_that_is_not_sentinel_2_is_refused_before_anything_is_downloaded(own_product, runner, tmp_path, change, words):
    document = json.loads((own_product / ".zmetadata").read_text())
    change(document["metadata"])
    (own_product / ".zmetadata").write_text(json.dumps(document))
    ended = runner(own_product, tmp_path / "o.zarr")
    assert ended.code == 65
    assert words in ended.said
    _assert_nothing_left(tmp_path / "o.zarr")


@pytest.mark.parametrize(("fault", "code"), [("404", 66), ("403", 66), ("401", 77), ("500", 75), ("400", 65), ("drop", 75)])
def test_metadata_that_cannot_be_read(files, product, runner, tmp_path, fault, code):
    files.faults = {key: [fault] for key in ("/.zmetadata", "/.zgroup", "/zarr.json")}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", attempts=2)
    assert ended.code == code, ended.stderr
    assert product.name in ended.said
    if fault == "403":  # of what is not there, stores that may not be listed say so, too
        assert "check the credentials" in ended.outcome["hint"]
        assert "not there yet" in ended.outcome["hint"]
    _assert_nothing_left(tmp_path / "o.zarr")


def test_a_missing_local_product_a_missing_host_and_a_refused_connection(runner, tmp_path):
    ended = runner(tmp_path / "nowhere.zarr", tmp_path / "o.zarr")
    assert (ended.code, "no product at" in ended.said, "nowhere.zarr" in ended.said) == (66, True, True)
    ended = runner("http://127.0.0.1:9/x.zarr", tmp_path / "o.zarr", attempts=1)
    assert (ended.code, "cannot read http://127.0.0.1:9/x.zarr/.zmetadata" in ended.said) == (75, True)
    ended = runner("http://user:secret@127.0.0.1/x.zarr", tmp_path / "o.zarr")
    assert ended.code == 65
    assert "secret" not in ended.stderr


@pytest.mark.parametrize("fault", ["404", "403"])
def test_a_store_whose_consolidated_metadata_is_to_come_is_not_there_yet(files, product, runner, tmp_path, fault):
    """Writers put it there last. A store that may not be listed says 403 of what is not there."""
    files.faults = {"/.zmetadata": [fault]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "o.zarr")
    assert (ended.code, "has no consolidated metadata yet" in ended.said) == (66, True)


def test_zarr_v3_is_said_to_be_so(files, product, runner, tmp_path):
    (product.parent / "v3.zarr").mkdir(exist_ok=True)
    (product.parent / "v3.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    ended = runner(f"{files.url}/v3.zarr", tmp_path / "o.zarr")
    assert (ended.code, "is not a Sentinel-2 product: it lacks measurements" in ended.said) == (65, True)


def test_a_local_product_without_consolidated_metadata_converts(own_product, runner, tmp_path):
    (own_product / ".zmetadata").unlink()
    ended = runner(own_product, tmp_path / "o.zarr", groups=TWO, package="none")
    assert ended.code == 0, ended.stderr


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("<html>", "neither a STAC item nor a .zarr store"),
        ('{"type": "FeatureCollection"}', "its type is 'FeatureCollection'"),
        ('{"type": "Feature", "assets": {"thumbnail": {"href": "x.png"}}}', "no asset of the item"),
    ],
)
def test_what_is_not_an_item_with_a_product(runner, tmp_path, document, words):
    (tmp_path / "item.json").write_text(document)
    ended = runner(tmp_path / "item.json", tmp_path / "o.zarr")
    assert ended.code == 65
    assert words in ended.said


def test_hosts_are_checked_for_the_item_its_product_and_redirects(files, product, runner, tmp_path):
    assert runner(f"{files.url}/item.json", tmp_path / "o.zarr", allowed_hosts="example.com").code == 65
    assert runner(product, tmp_path / "o.zarr", allowed_hosts="example.com").code == 65  # local files are no way around it
    files.faults = {"/.zmetadata": ["to http://localhost:1/.zmetadata"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", allowed_hosts="127.0.0.1, example.com")
    assert ended.code == 65
    assert "'localhost'" in ended.said


def test_a_run_asks_its_own_source_s_hosts_and_not_those_of_another(files, product, runner, tmp_path):
    """All of a deployment's hosts are allowed; of these its event names the source's, and an evil product leads to another's."""
    everybody = {"allowed_hosts": "127.0.0.1, localhost, *.example.com, 10.0.0.0/8"}
    files.faults = {"/.zmetadata": ["to http://localhost:1/.zmetadata"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", source_hosts="127.0.0.1", **everybody)
    assert (ended.code, "'localhost'" in ended.said) == (65, True)
    assert runner(f"{files.url}/item.json", tmp_path / "o.zarr", source_hosts="a.example.com", **everybody).code == 65
    ended = runner(f"{files.url}/item.json", tmp_path / "o.zarr", source_hosts="127.0.0.2", **everybody)
    assert (ended.code, "not one of those that runs may ask" in ended.said) == (65, True)


def test_nobody_is_sent_what_netrc_holds(files, product, runner, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login somebody password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", command="preflight")
    assert files.headers
    assert not [h for h in files.headers if "authorization" in {name.lower() for name in h}]


def test_a_503_that_passes_is_not_even_noticed(files, product, converted, tree, runner, tmp_path):
    chunk = _chunk(product, f"{TWO}/aot").relative_to(product).as_posix()
    files.faults = {chunk: ["503", "drop", "ok"], "/.zmetadata": ["429", "ok"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", groups=TWO, package="none")
    assert ended.code == 0, ended.stderr
    assert files.requests[f"/{product.name}/{chunk}"] == 4  # the last one asks whether it is still the same
    mine, whole = tree(tmp_path / "o.zarr"), tree(converted)
    assert all(whole[name] == data for name, data in mine.items() if "/c/" in name and f"{TWO}/aot" in name)


def test_a_503_for_ever_is_temporary_and_what_was_staged_is_kept(files, product, runner, tmp_path):
    chunk = _chunk(product, f"{SMALL}/b01").relative_to(product).as_posix()
    files.faults = {chunk: ["503"]}
    output = tmp_path / "out" / "o.zarr"
    ended = runner(f"{files.url}/{product.name}", output, groups=SMALL, key="0000000000aa", attempts=2)
    assert (ended.code, ended.outcome["stage"]) == (75, "stage")
    assert "HTTP 503" in ended.said
    assert chunk in ended.said
    files.faults.clear()
    files.sent.clear()
    assert runner(f"{files.url}/{product.name}", output, groups=SMALL, key="0000000000aa", attempt=2).code == 0
    assert files.chunks_sent() < 10, "objects that were staged were fetched again"


def test_a_chunk_that_is_cut_at_the_source_is_fetched_once_more_and_then_corrupt(files, product, runner, tmp_path):
    chunk = _chunk(product, f"{TWO}/aot").relative_to(product).as_posix()
    files.faults = {chunk: ["cut", "ok"]}
    assert runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", groups=TWO, package="none").code == 0
    files.faults = {chunk: ["cut"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "p.zarr", groups=TWO)
    assert ended.code == 65
    assert "is corrupt" in ended.said
    assert chunk in ended.said
    _assert_nothing_left(tmp_path / "p.zarr")


def test_a_chunk_of_the_right_length_that_cannot_be_decoded_is_corrupt(own_product, runner, tmp_path):
    chunk = _chunk(own_product, f"{SMALL}/b01")
    data = bytearray(chunk.read_bytes())
    data[16:] = b"\xff" * (len(data) - 16)  # the header stays
    chunk.write_bytes(data)
    ended = runner(own_product, tmp_path / "o.zarr", groups=SMALL)
    assert ended.code == 65, ended.stderr
    assert chunk.relative_to(own_product).as_posix() in ended.said
    _assert_nothing_left(tmp_path / "o.zarr")


def test_a_chunk_that_rotted_on_the_way_is_fetched_once_more(files, product, runner, tmp_path):
    chunk = _chunk(product, f"{TWO}/aot").relative_to(product).as_posix()
    files.faults = {chunk: ["rot", "ok"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", groups=TWO, package="none")
    assert ended.code == 0, ended.stderr
    assert files.requests[f"/{product.name}/{chunk}"] == 2
    assert "1 staged chunks cannot be decoded" in ended.stderr
    files.faults = {chunk: ["rot"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "p.zarr", groups=TWO)
    assert (ended.code, "is corrupt" in ended.said, chunk in ended.said) == (65, True, True)


def test_a_connection_that_falls_silent_is_given_up_and_the_object_tried_again(files, product, runner, tmp_path):
    chunk = _chunk(product, f"{TWO}/aot").relative_to(product).as_posix()
    files.faults = {chunk: ["stall", "ok"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", groups=TWO, package="none", timeout=1)
    assert ended.code == 0, ended.stderr
    files.faults = {chunk: ["stall"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "p.zarr", groups=TWO, timeout=1, attempts=2)
    assert (ended.code, ended.outcome["stage"]) == (75, "stage")
    assert "no answer while reading" in ended.said
    assert chunk in ended.said
    _assert_nothing_left(tmp_path / "p.zarr")


def test_a_403_for_a_chunk_of_a_store_that_may_be_read_means_that_it_is_not_there(files, product, runner, tmp_path):
    chunk = _chunk(product, f"{SMALL}/b01").relative_to(product).as_posix()
    files.faults = {chunk: ["403"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", groups=SMALL)
    assert (ended.code, ended.outcome["stage"]) == (66, "stage")
    assert chunk in ended.said
    assert "1 were answered with 403" in ended.outcome["hint"]


def test_a_403_for_everything_from_a_moment_on_is_a_refusal(files, product, runner, tmp_path):
    chunk = _chunk(product, f"{SMALL}/b01").relative_to(product).as_posix()
    files.faults = {chunk: ["403"], "/.zmetadata": ["ok", "403"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", groups=SMALL)
    assert (ended.code, ended.outcome["stage"]) == (77, "stage")
    assert f"not allowed to read {files.url}/{product.name}/.zmetadata (HTTP 403)" in ended.said


def test_an_absent_chunk_with_data_beside_it_means_that_the_upload_goes_on(files, product, runner, tmp_path):
    chunk = _chunk(product, f"{SMALL}/b01").relative_to(product).as_posix()
    files.faults = {chunk: ["404"]}
    ended = runner(f"{files.url}/{product.name}", tmp_path / "o.zarr", groups=SMALL)
    assert ended.code == 66
    assert "still being uploaded: 1 of" in ended.said
    assert chunk in ended.said


def test_an_absent_chunk_locally_is_not_taken_for_nodata_either(own_product, runner, tmp_path):
    chunk = _chunk(own_product, f"{SMALL}/b01")
    chunk.unlink()
    ended = runner(own_product, tmp_path / "o.zarr", groups=SMALL)
    assert (ended.code, "still being uploaded: 1 of" in ended.said) == (66, True)
    assert chunk.relative_to(own_product).as_posix() in ended.said


def test_a_chunk_that_decodes_to_less_than_its_array_says_is_corrupt(own_product, runner, tmp_path):
    """Decoded into a buffer that is used again, it would leave another band's pixels in its lower half."""
    chunk = _chunk(own_product, f"{SMALL}/b01")
    codec = numcodecs.get_codec(json.loads(chunk.with_name(".zarray").read_text())["compressor"])
    pixels = np.frombuffer(codec.decode(chunk.read_bytes()), "<u2")
    chunk.write_bytes(codec.encode(pixels[: len(pixels) // 2].copy()))
    ended = runner(own_product, tmp_path / "o.zarr", groups=SMALL)
    assert (ended.code, "is corrupt" in ended.said) == (65, True), ended.stderr
    assert chunk.relative_to(own_product).as_posix() in ended.said
    _assert_nothing_left(tmp_path / "o.zarr")


def test_an_output_that_is_not_ours_is_left_alone_unless_told(product, runner, tmp_path):
    output = tmp_path / "o.zarr"
    output.mkdir()
    (output / "precious").write_text("data")
    ended = runner(product, output, groups=TWO)
    assert ended.code == 73
    assert "not an output of ours" in ended.said
    assert (output / "precious").read_text() == "data"
    assert runner(product, output, groups=TWO, overwrite="true", package="none").code == 0
    assert not (output / "precious").exists()


def test_an_output_folder_that_cannot_be_one(product, runner, tmp_path):
    (tmp_path / "file").write_text("")
    ended = runner(product, tmp_path / "file" / "o.zarr", groups=SMALL)
    assert ended.code == 73
    assert "file" in ended.said
    assert runner(product, "gs://bucket/o.zarr", groups=SMALL).code == 65


def test_another_run_on_the_same_output_has_to_wait(product, runner, tmp_path):
    from geozarr_runner.publish import folder as publish

    output = tmp_path / "o.zarr"
    with publish.held(publish.target_of(str(output), "0000000000aa", 1, None)):
        ended = runner(product, output, groups=TWO)
    assert (ended.code, "another run is writing" in ended.said) == (75, True)
    assert runner(product, output, groups=TWO, package="none").code == 0


def test_a_host_that_no_name_server_knows_is_temporary(tmp_path):
    """In a process of its own: tests look no names up."""
    outcome = tmp_path / "outcome.json"
    command = program("https://stac.invalid/items/a", tmp_path / "o.zarr", attempts=2, outcome=outcome)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(outcome.read_text())
    assert (ended.returncode, found["code"], found["stage"]) == (75, 75, "preflight"), ended.stderr
    assert "cannot read https://stac.invalid/items/a" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("limit", "stage"), [(20_000, "stage"), (70_000, "convert")])
def test_files_that_may_not_grow_end_in_one_clear_line(files, product, tmp_path, limit, stage):
    """RLIMIT_FSIZE stands in for a full disk: the same path through the code, and it needs no mount."""
    output, outcome = tmp_path / "out" / "o.zarr", tmp_path / "outcome.json"
    source = f"{files.url}/{product.name}" if stage == "stage" else str(product)
    ended = subprocess.run(
        program(source, output, groups=f"{BANDS}/r20m {SMALL}", outcome=outcome),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(outcome.read_text())
    assert (ended.returncode, found["code"], found["stage"]) == (73, 73, stage), ended.stderr
    assert "Traceback" not in ended.stderr
    assert not output.exists()
    assert [p for p in output.parent.iterdir() if "partial" in p.name] == []


def test_an_output_is_exchanged_by_two_renames_where_the_file_system_cannot_do_it_in_one(product, runner, tree, tmp_path):
    """NFS lacks RENAME_EXCHANGE; no such file system can be mounted in a test, so the fallback itself is called."""
    from geozarr_runner.publish import folder as publish

    old, new = tmp_path / "o.zarr", tmp_path / ".o.zarr.0000000000aa-1.partial"
    for folder, text in ((old, "old"), (new, "new")):
        folder.mkdir()
        (folder / "data").write_text(text)
    publish.exchange_by_renames(new, old)
    assert ((old / "data").read_text(), (new / "data").read_text()) == ("new", "old")
    assert sorted(p.name for p in tmp_path.iterdir()) == [new.name, old.name]


def test_bad_values_are_said_before_anything_starts(product, runner, tmp_path, capsys):
    assert runner(product, tmp_path / "o.zarr", key="not-hex").code == 65
    assert runner(product, tmp_path / "o.zarr", item_id="../x").code == 65
    for name, value in (("package", "zip"), ("sharding", "maybe"), ("spatial_chunk", "0"), ("attempt", "x")):
        with pytest.raises(SystemExit) as end:
            runner(product, tmp_path / "o.zarr", **{name: value})
        assert end.value.code == 2
        assert f"--{name.replace('_', '-')}" in capsys.readouterr().err
