import json

import fsspec
import pytest

from stac_watch.model.errors import Unavailable
from stac_watch.model.outcome import MARKER, Counts, Outcome, Package
from stac_watch.runs.markers import MOST, find_marker, missing


def test_a_marker_inside_an_output_is_read(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / MARKER).write_text('{"key": "abc", "attempt": 2}')
    for name in (f"{tmp_path}/x.zarr", f"{tmp_path}/x.zarr/", f"file://{tmp_path}/x.zarr"):
        assert find_marker(name) == Outcome(key="abc", attempt=2)


def test_a_marker_is_read_wherever_fsspec_can_look():

    with fsspec.open("memory://bucket/x.zarr/stac-watch.json", "w") as file:
        json.dump({"key": "abc"}, file)
    assert find_marker("memory://bucket/x.zarr") == Outcome(key="abc")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b"null", b'"text"'])
def test_what_is_no_marker_is_none(tmp_path, content):
    (tmp_path / MARKER).write_bytes(content)
    assert find_marker(str(tmp_path)) is None


@pytest.mark.parametrize("output", ["", "/no/such/place/x.zarr", "memory://nowhere/x.zarr"])
def test_where_there_is_none_there_is_none(output):
    assert find_marker(output) is None


@pytest.mark.parametrize("output", ["nosuchscheme://x/y.zarr", "pvc://x", "\0", "s3://bucket/x.zarr"])
def test_a_place_where_we_cannot_look_is_not_one_where_nothing_is(output, monkeypatch):
    for name, value in (("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")):
        monkeypatch.setenv(name, value)
    with pytest.raises(Unavailable, match="cannot look into"):
        find_marker(output)


def test_a_marker_without_end_is_read_no_further_than_one_can_be(tmp_path):
    (tmp_path / MARKER).write_bytes(b'{"key": "abc", "reason": "' + b"x" * MOST + b'"}')
    assert find_marker(str(tmp_path)) is None


def test_nothing_is_written(tmp_path):
    find_marker(str(tmp_path / "x.zarr"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["folder", "bucket"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, ""),
        (("a/c/0", None), "2 objects of 3"),
        (("zarr.json", None), "no zarr.json, 2 objects of 3"),
        (("a/c/0", b"cut"), "9 bytes of 10"),
        (("../x.zarr.tar", None), "no package"),
        (("../x.zarr.tar", b"12345"), "a package of 5 bytes, not 4"),
        ((MARKER, b"{}"), ""),
    ],
)
def test_an_output_is_whole_when_everything_that_its_marker_counts_is_there(tmp_path, place, change, said):
    """Half of the chunks were removed by a lifecycle rule, the marker stayed: an audit said that it was done and verified."""
    fs = fsspec.filesystem("file" if place == "folder" else "memory")
    root = f"{tmp_path}/x.zarr" if place == "folder" else "/audited/x.zarr"
    files = {"zarr.json": b"{}", "a/zarr.json": b"null", "a/c/0": b"data", MARKER: b"x", "../x.zarr.tar": b"1234"}
    files |= dict([change]) if change else {}
    for name, content in files.items():
        path = f"{root}/{name}" if not name.startswith("..") else f"{root.rpartition('/')[0]}/{name[3:]}"
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if content is not None:
            fs.pipe_file(path, content)
        elif fs.exists(path):
            fs.rm(path)
    marker = Outcome(code=0, counts=Counts(files=3, bytes_written=10), package=Package(f"{root}.tar", 4, "ab"))
    assert missing(root if place == "folder" else f"memory:/{root}", marker).why.startswith(said)
    assert bool(said) == bool(missing(root if place == "folder" else f"memory:/{root}", marker).why)
    if place == "bucket":
        fs.rm("/audited", recursive=True)
