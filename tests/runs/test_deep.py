"""An audit that reads: whatever was changed in an output after its run is named, object by object."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from stac_watch.model.checksums import as_text, digest_of, parse
from stac_watch.model.errors import Unavailable
from stac_watch.model.outcome import MARKER, Counts, Outcome, Package
from stac_watch.runs.deep import Pace, ReadingStopped, damage

OBJECTS = {"zarr.json": b"{}", **{f"b/c/{n}/0": bytes([n]) * 9 for n in range(6)}}
PACKAGE = b"the archive"
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in OBJECTS.items()}
LOST = [f"b/c/{n}/0" for n in (0, 2, 4)]


@pytest.fixture(params=["folder", "bucket"])
def output(request, tmp_path):
    """An output in a folder, and in what is no folder: its name, its marker, and what changes an object (None removes it)."""
    fs = fsspec.filesystem("file" if request.param == "folder" else "memory")
    root = f"{tmp_path}/x.zarr" if request.param == "folder" else "/deep/x.zarr"

    def change(name, content):
        path = f"{root}{name}" if name.startswith(".") else f"{root}/{name}"
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if content is None:
            fs.rm(path)
        else:
            fs.pipe_file(path, content)

    for name, content in {**OBJECTS, MARKER: b"{}", ".tar": PACKAGE, ".sha256": as_text(SUMS).encode()}.items():
        change(name, content)
    counts = Counts(files=len(OBJECTS), bytes_written=sum(map(len, OBJECTS.values())))
    package = Package(f"{root}.tar", len(PACKAGE), hashlib.sha256(PACKAGE).hexdigest())
    yield (
        root if request.param == "folder" else f"memory:/{root}",
        Outcome(code=0, counts=counts, package=package, digest=digest_of(SUMS)),
        change,
    )
    if request.param == "bucket":
        fs.rm("/deep", recursive=True)


def test_what_is_as_it_was_written_is_right_and_every_byte_was_read(output):
    name, marker, _ = output
    read = []
    found = damage(name, marker, Pace(told=read.append))
    assert (found.why, found.objects, found.compared) == ("", (), True)
    assert sum(read) == marker.counts.bytes_written + marker.package.bytes


@pytest.mark.parametrize(
    ("changes", "objects"),
    [
        ({"b/c/1/0": b"\x01" * 8 + b"\x03"}, ["b/c/1/0: other bytes"]),
        (dict.fromkeys(LOST), [f"{name}: not there" for name in LOST]),
        ({"b/c/1/0": None, "b/c/9/0": b"\x01" * 9}, ["b/c/1/0: not there", "b/c/9/0: not of this output"]),
        ({"zarr.json": b"[]"}, ["zarr.json: other bytes"]),
        ({".tar": PACKAGE[:-1] + b"!"}, ["x.zarr.tar: other bytes"]),
        ({".tar": PACKAGE[:-1] + b"!", "b/c/1/0": b"\x01" * 8 + b"\x03"}, ["b/c/1/0: other bytes", "x.zarr.tar: other bytes"]),
        ({".tar": None}, ["x.zarr.tar: not there"]),
    ],
    ids=["a flipped bit", "half of the chunks", "one for another", "root metadata", "the archive", "both", "no archive"],
)
def test_each_object_that_is_not_what_was_written_is_named(output, changes, objects):
    name, marker, change = output
    for entry, content in changes.items():
        change(entry, content)
    found = damage(name, marker, Pace())
    assert found.why
    assert sorted(found.objects) == objects


@pytest.mark.parametrize("said", [None, b"", b"garbage\n", as_text({**SUMS, "b/c/1/0": "0" * 64}).encode(), b"\xff\xfe"])
def test_a_list_of_checksums_that_is_not_the_marker_s_decides_nothing(output, said):
    """It is a file like the others: a damaged one must neither hide a flipped bit nor accuse what is whole."""
    name, marker, change = output
    change(".sha256", said)
    assert damage(name, marker, Pace()).why == ""
    change("b/c/1/0", b"\x01" * 8 + b"\x03")
    [told] = damage(name, marker, Pace()).objects
    assert "list of checksums" in told


def test_of_an_output_without_checksums_the_sizes_and_the_package_are_compared(output):
    name, marker, change = output
    old = Outcome(code=0, counts=marker.counts, package=marker.package)
    assert (damage(name, old, Pace()).why, damage(name, old, Pace()).compared) == ("", False)
    change("b/c/1/0", None)
    change(".tar", PACKAGE[:-1] + b"!")
    assert "6 objects of 7" in damage(name, old, Pace()).why
    assert damage(name, old, Pace()).objects == ("x.zarr.tar: other bytes",)


def test_of_a_place_that_cannot_be_reached_nothing_is_said_and_an_empty_one_is_damaged(tmp_path):
    with pytest.raises(Unavailable):
        damage("nosuchscheme://x/y.zarr", Outcome(digest="x"), Pace())
    (tmp_path / "x.zarr").mkdir()
    assert damage(f"{tmp_path}/x.zarr", Outcome(digest="x"), Pace()).why


def test_all_readers_together_keep_to_the_pace():
    waits = []
    pace = Pace(most=1000, wait=lambda seconds: waits.append(seconds))
    with ThreadPoolExecutor(4) as readers:
        list(readers.map(pace.take, [500] * 8))
    assert 3.5 < max(waits) <= 4.0, "eight times half a second, for all of them together"


def test_an_order_to_stop_ends_the_readers(output):
    name, marker, _ = output
    with pytest.raises(ReadingStopped):
        damage(name, marker, Pace(wait=lambda _: True))
    pace, begun = Pace(), threading.Event()
    pace.told = lambda _: (begun.set(), pace.stop())
    with pytest.raises(ReadingStopped):
        damage(name, marker, pace)
    assert begun.is_set()


def test_checksums_are_what_sha256sum_reads():
    assert as_text({"b": "1" * 64, "a": "0" * 64}) == f"{'0' * 64}  a\n{'1' * 64}  b\n"
    assert parse(as_text(SUMS)) == SUMS
    assert parse(as_text({})) == {}
    assert parse("x") is None
