import json

import fsspec
import pytest

from stac_watch.model.errors import Unavailable
from stac_watch.model.outcome import MARKER, Outcome
from stac_watch.runs.markers import find_marker


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


def test_nothing_is_written(tmp_path):
    find_marker(str(tmp_path / "x.zarr"))
    assert list(tmp_path.iterdir()) == []
