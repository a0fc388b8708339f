"""Outputs in real S3 servers: moto's, and of the services `rclone serve s3`. Nothing is half visible, the marker comes last.

Requests are what takes the time here, so outputs have few objects. Chunks, levels and their bytes are the other modules' subject.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import fsspec
import google_crc32c
import pytest
from botocore.exceptions import FlexibleChecksumError
from command_line import arguments, program
from conftest import ITEM_ID, NATIVE_ID
from extension_schemas import wrong
from geozarr_runner.cli import main
from geozarr_runner.publish import bucket as upload
from geozarr_runner.publish import marker, precedence
from geozarr_runner.publish.ahead import Ahead
from geozarr_runner.publish.claim import NOTE, Reservation, write_if
from geozarr_runner.request import Identity
from waiting import until

from stac_watch.catalog.stores import Stores
from stac_watch.discover.restamps import is_same
from stac_watch.model.errors import CannotWrite, InputError, Superseded, Temporary, Unavailable
from stac_watch.model.outcome import MARKER, Counts, Outcome
from stac_watch.runs import retiring
from stac_watch.runs.deep import Pace, damage
from stac_watch.runs.markers import Damage, find_marker, missing
from stac_watch.runs.reconcile import Asked, Seen
from stac_watch.runs.shelves import markers, outputs

pytestmark = pytest.mark.long

SMALL = {"groups": "measurements/reflectance/r20m conditions/geometry"}  # with a quicklook; three dozen objects
KEYS = ("00000000005a", "00000000005b")
CACHE = "stac-watch/cluster"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey", "AWS_DEFAULT_REGION": "us-east-1"}


def _rclone() -> str | None:
    cache = Path(os.environ.get("STAC_WATCH_CLUSTER_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / CACHE)
    built = sorted(cache.expanduser().glob("rclone-*/built.json"))  # written when the program beside it is whole
    return os.environ.get("STAC_WATCH_RCLONE") or shutil.which("rclone") or (str(built[-1].with_name("rclone")) if built else None)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", params=[pytest.param("rclone", marks=pytest.mark.services), "moto"])
def server(request, tmp_path_factory) -> Iterator[str]:
    """The server's URL. moto is a dependency, so that no machine tests nothing; rclone is compiled, in CI beside the tests."""
    rclone = None
    if request.param == "rclone":
        rclone = until(_rclone, 1200) if os.environ.get("CI") == "true" else _rclone()
        if rclone is None:
            pytest.skip("no rclone here (PATH, STAC_WATCH_RCLONE, or compiled by `make cluster-build`); moto's server is used")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("s3")
    keys = ",".join(list(ENVIRONMENT.values())[:2])
    command = {
        "rclone": [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", keys, str(folder)],
        "moto": [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
    }[request.param]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: _listens(port), by=process)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture
def bucket(server, monkeypatch, request):
    """An empty bucket: its name, and a file system to look into it."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    fs = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    type(fs).clear_instance_cache()  # fsspec keeps clients by their arguments: one of the server before has the same
    name = f"b{abs(hash(request.node.nodeid)) % 10**9}"
    fs.mkdir(name)
    return name, fs


@pytest.fixture(scope="session")
def local(made_once, product, tree) -> dict[str, dict[str, bytes]]:
    """What lies in a folder after a conversion of the same groups, sharded as in a store: by groups, every file's content."""
    names = {SMALL["groups"]: "bands", "conditions/geometry": "geometry"}

    def convert(folder: Path) -> None:
        for groups, name in names.items():
            assert main(arguments(product, folder / name, groups=groups, package="none", sharding="true")) == 0

    folder = made_once("in-a-folder", convert)
    return {groups: tree(folder / name) for groups, name in names.items()}


def _marker(fs, root) -> dict | None:
    return json.loads(fs.cat_file(f"{root}/stac-watch.json")) if fs.exists(f"{root}/stac-watch.json") else None


def test_where_a_pod_has_no_volume_too_large_a_product_and_a_path_are_refused_before_anything_is_read(
    bucket, files, product, tmp_path, capsys
):
    name, fs = bucket
    source, work = f"{files.url}/{product.name}", tmp_path / "work"
    sent = files.chunks_sent()
    assert main(arguments(source, f"s3://{name}/o.zarr", work=work, scratch="100Mi", **SMALL)) == 73
    said = capsys.readouterr().err
    assert "preflight: the run may need 1Gi, and has 0.0977Gi on its node's disk" in said
    assert "`runs.scratch: 1Gi`" in said
    assert main(arguments(source, tmp_path / "o.zarr", work=work, scratch="12Gi", **SMALL)) == 65
    assert "would go with its pod" in capsys.readouterr().err
    assert files.chunks_sent() == sent
    assert not (work / "stage").exists()
    assert fs.ls(name) == []
    assert list(tmp_path.glob("o.zarr*")) == []


def test_an_output_arrives_whole_is_found_done_and_is_replaced_by_another_key(bucket, product, runner, local, tmp_path):
    name, fs = bucket
    root, work = f"{name}/scenes/o.zarr", tmp_path / "work"
    ended = runner(product, f"s3://{root}", key=KEYS[0], work=work, package="tar", **SMALL)
    assert ended.code == 0, ended.stderr
    assert (ended.outcome["output_zarr"], ended.outcome["package"]["href"]) == (f"s3://{root}", f"s3://{root}.tar")
    found = {p.removeprefix(f"{root}/"): fs.cat_file(p) for p in fs.find(root)}
    found.pop("stac-watch.json")
    assert found == local[SMALL["groups"]]
    beside = {p.rpartition("/")[2] for p in fs.find(f"{name}/scenes") if not p.startswith(f"{root}/")}
    pictures = (".quicklook.png", ".thumbnail.webp")
    assert beside == {f"o.zarr{end}" for end in (".tar", ".item.json", ".report.html", ".report.json", ".sha256", *pictures)}
    item = json.loads(fs.cat_file(f"{root}.item.json"))
    assert item["properties"]["storage:schemes"]["output"]["bucket"] == name
    assert not list((work / "outputs").rglob("*.zarr")), "the local copy is gone when the upload is verified"
    assert runner(product, f"s3://{root}", key=KEYS[0], work=work, **SMALL).outcome["reason"] == "already done"
    assert runner(product, f"s3://{root}", key=KEYS[1], work=work, groups="conditions/geometry", package="none").code == 0
    assert _marker(fs, root)["key"] == KEYS[1]
    left = [p.removeprefix(f"{root}/") for p in fs.find(root)]
    assert [p for p in left if p.startswith("measurements")] == [], "objects of the old output are left over"
    assert [p for p in fs.find(f"{name}/scenes") if ".upload" in p or "uploading" in p] == []


def test_a_byte_that_was_changed_in_the_bucket_is_found_and_the_next_attempt_mends_it(bucket, product, runner, tmp_path):
    name, fs = bucket
    href, some = f"s3://{name}/o.zarr", {"groups": "conditions/geometry", "work": tmp_path / "w", "key": KEYS[0]}
    assert runner(product, href, **some).code == 0
    marker = find_marker(href)
    assert damage(href, marker, Pace()) == Damage(compared=True)
    bad = next(path for path in sorted(fs.find(f"{name}/o.zarr")) if "/c/" in path)
    content = fs.cat_file(bad)
    fs.pipe_file(bad, bytes([content[0] ^ 1]) + content[1:])
    assert missing(href, marker) == Damage(), "a list of names and sizes shows nothing"
    assert damage(href, marker, Pace()).objects == (f"{bad.removeprefix(f'{name}/o.zarr/')}: other bytes",)
    assert runner(product, href, **some, attempt=2, overwrite="true").outcome["reason"] == "done"
    assert damage(href, find_marker(href), Pace()) == Damage(compared=True)
    assert fs.cat_file(bad) == content


def test_endpoint_and_region_are_those_that_the_client_found_in_its_files(bucket, server, product, runner, tmp_path, monkeypatch):
    """As in the cluster: files of a Secret and no variable. The item must not send its readers to Amazon."""
    name, fs = bucket
    for variable in (*ENVIRONMENT, "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(variable)
    keys = list(ENVIRONMENT.values())
    (tmp_path / "config").write_text(f"[default]\nendpoint_url = {server}\nregion = us-east-1\n")
    (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id = {keys[0]}\naws_secret_access_key = {keys[1]}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    ended = runner(product, f"s3://{name}/o.zarr", work=tmp_path / "w", groups="conditions/geometry", package="none")
    assert ended.code == 0, ended.stderr
    item = json.loads(fs.cat_file(f"{name}/o.zarr.item.json"))
    assert item["properties"]["storage:schemes"] == {
        "output": {"type": "custom-s3", "platform": f"{server}/{{bucket}}", "bucket": name, "region": "us-east-1"}
    }
    assert all(asset["storage:refs"] == ["output"] for asset in item["assets"].values())
    assert wrong(item) == []
    assert fs.cat_file(f"{name}/{item['assets']['report']['href'].removeprefix('./')}").startswith(b"<!doctype html>")


def test_on_amazon_the_item_names_the_region(monkeypatch):
    for variable in ("AWS_ENDPOINT_URL", "AWS_CONFIG_FILE", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {**ENVIRONMENT, "AWS_DEFAULT_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(variable, value)
    found = upload.service(upload.open_store("s3://bucket/o.zarr"))
    assert (found.endpoint, found.region) == ("https://s3.eu-central-1.amazonaws.com", "eu-central-1")


def test_any_store_that_fsspec_can_write_takes_an_output(product, runner, local, tmp_path):
    fs, work = fsspec.filesystem("memory"), tmp_path / "w"
    for key, groups in zip(KEYS, (SMALL["groups"], "conditions/geometry"), strict=True):
        ended = runner(product, "memory://bucket/scenes/o.zarr", work=work, key=key, groups=groups)
        assert ended.code == 0, ended.stderr
        root = "/bucket/scenes/o.zarr"
        there = {p.removeprefix(f"{root}/"): fs.cat_file(p) for p in fs.find(root) if not p.endswith(MARKER)}
        assert there == local[groups]
        assert runner(product, "memory://bucket/scenes/o.zarr", work=work, key=key).outcome["reason"] == "already done"
    fs.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("gs://bucket/o.zarr", "gcsfs"),
        ("ftpx://bucket/o.zarr", "ftpx"),
        ("https://a.example/o.zarr", "https copies nothing"),
        ("s3://o.zarr", "not the address"),
    ],
)
def test_a_store_that_cannot_be_written_says_so_before_anything_starts(product, runner, tmp_path, output, words):
    ended = runner(product, output, work=tmp_path / "w", groups="conditions/geometry")
    assert (ended.code, words in ended.said, ended.outcome["stage"]) == (65, True, "start"), ended.stderr


def test_an_output_that_lost_an_object_is_not_taken_for_whole(bucket, product, runner, tmp_path):
    name, fs = bucket
    root = f"{name}/o.zarr"
    options = {"key": KEYS[0], "work": tmp_path / "w", "groups": "conditions/geometry", "package": "none"}
    assert runner(product, f"s3://{root}", **options).code == 0
    lost = next(p for p in fs.find(root) if "/c/" in p)
    fs.rm(lost)
    assert runner(product, f"s3://{root}", **options).outcome["reason"] == "done"
    assert fs.exists(lost)


class BrokenError(Exception):
    """The connection is gone, at a moment that the test chose."""


class _Breaking:
    """The real file system, which breaks at its n-th change; everything that it did until then has happened."""

    def __init__(self, fs, after: int) -> None:
        self._fs, self.left = fs, after

    def __getattr__(self, name):
        call = getattr(self._fs, name)
        if name not in ("put", "copy", "pipe_file", "rm"):
            return call

        def counted(*args, **kwargs):
            if self.left == 0:
                raise BrokenError
            self.left -= 1
            return call(*args, **kwargs)

        return counted


@pytest.fixture(scope="module")
def two_outputs(tmp_path_factory) -> list[Path]:
    """An old output and a new one: one object is the same, one differs, each has one that the other lacks, and a report beside."""
    stores = (
        {"zarr.json": "old", "a/zarr.json": "a", "a/c/0": "same", "b/c/0": "old", "b/c/1": "gone"},
        {"zarr.json": "new", "a/zarr.json": "a", "a/c/0": "same", "b/c/0": "new", "c/c/0": "added"},
    )
    outputs = []
    for store, key in zip(stores, KEYS, strict=True):
        output = tmp_path_factory.mktemp(key) / "o.zarr"
        for name, text in store.items():
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(text)
        output.with_name("o.zarr.report.html").write_text(key)
        size = sum(map(len, store.values()))
        whole = Outcome(
            code=0, key=key, counts=Counts(files=len(store), bytes_written=size), files={"report": "o.zarr.report.html"}
        )
        (output / MARKER).write_text(whole.as_json())
        outputs.append(output)
    return outputs


def asks(outcome, **more) -> upload.Asks:
    """Who publishes an output: the run whose marker it has."""
    mine = Identity(outcome.key, attempt=outcome.attempt, fence=outcome.fence, installation=outcome.installation)
    return upload.Asks(mine, **{"lease": 0.4, "wait": threading.Event().wait, **more})


def _publish(store: upload.ObjectStore, built: Path, breaking: int | None = None) -> None:
    fs, outcome = store.fs if breaking is None else _Breaking(store.fs, breaking), marker.read(built)
    upload.publish(upload.ObjectStore(fs, store.root, store.href), built, outcome, asks(outcome), advance=lambda _: None)


def test_broken_off_at_any_change_the_old_output_or_none_is_seen_and_the_next_run_completes(bucket, two_outputs, tree):
    name, fs = bucket
    old, new = two_outputs
    whole = {"old": tree(old), "new": tree(new)}
    client, breaks, broken = upload.open_store(f"s3://{name}/o.zarr").fs, 0, True  # for all: it keeps no listings, and costs more
    _publish(upload.ObjectStore(client, f"{name}/before/o.zarr", f"s3://{name}/before/o.zarr"), old)
    published = [path.removeprefix(f"{name}/before/") for path in fs.find(f"{name}/before")]
    while broken:
        root = f"{name}/{breaks}/o.zarr"
        store = upload.ObjectStore(client, root, f"s3://{root}")
        fs.copy([f"{name}/before/{path}" for path in published], [f"{name}/{breaks}/{path}" for path in published])
        try:
            _publish(store, new, breaks)
            broken = False
        except CannotWrite:
            breaks += 1
        there = {p.removeprefix(f"{root}/"): fs.cat_file(p) for p in fs.find(root)}
        note, found = there.pop(upload.NOTE, None), there.pop(MARKER, None)
        if found is not None:
            assert there == whole["old" if marker.parse(found.decode()).key == KEYS[0] else "new"]
        else:
            assert note is not None
            assert "zarr.json" not in there or there == whole["new"], "a store that opens, and is not whole"
        upload.check_free(store, KEYS[1], overwrite=False)
        _publish(store, new)
        assert upload.already_done(store).key == KEYS[1]
        assert {p.removeprefix(f"{root}/"): fs.cat_file(p) for p in fs.find(root) if not p.endswith(MARKER)} == whole["new"]
        assert [p for p in fs.find(f"{name}/{breaks}") if ".upload" in p] == []
    assert breaks >= 8, "the protocol has at least as many changes"


class _Standing:
    """The real file system, in which one writer stands still before it writes the marker, and another one does what it does."""

    def __init__(self, fs, then) -> None:
        self._fs, self._then = fs, then

    def __getattr__(self, name):
        return getattr(self._fs, name)

    def pipe_file(self, path, data, **kwargs):
        if path.endswith(MARKER) and self._then is not None:
            then, self._then = self._then, None
            then()
        return self._fs.pipe_file(path, data, **kwargs)


def _asked(output, **over) -> tuple[Path, Outcome, upload.Asks]:
    """An output, its outcome with other words, and who publishes it."""
    outcome = replace(marker.read(output), **over)
    return output, outcome, asks(outcome)


def test_a_second_writer_that_is_killed_half_way_leaves_no_mixture_under_the_marker_of_the_first(bucket, two_outputs, tree):
    """A had verified its upload, B sent half of its objects to the same prefix, A wrote its marker: no store locks anything."""
    name, fs = bucket
    href = f"s3://{name}/o.zarr"
    client, refused = upload.open_store(href).fs, []

    def second():
        with pytest.raises(Temporary, match="another run is writing") as error:
            _publish(upload.ObjectStore(_Breaking(client, 3), f"{name}/o.zarr", href), two_outputs[1])
        refused.append(error)

    output, outcome, mine = _asked(two_outputs[0])
    standing = upload.ObjectStore(_Standing(client, second), f"{name}/o.zarr", href)
    upload.publish(standing, output, outcome, mine, advance=lambda _: None)
    assert len(refused) == 1
    there = {p.removeprefix(f"{name}/o.zarr/"): fs.cat_file(p) for p in fs.find(f"{name}/o.zarr") if not p.endswith(MARKER)}
    assert (there, upload.already_done(upload.open_store(href)).key) == (tree(two_outputs[0]), KEYS[0])


def test_a_writer_whose_claim_was_taken_over_writes_nothing_more(bucket, two_outputs, tree):
    """A machine that stood still for longer than the lease wakes up; the other one took it for dead, and is done."""
    name, fs = bucket
    href = f"s3://{name}/o.zarr"
    client, root = upload.open_store(href).fs, f"{name}/o.zarr"
    outcome = marker.read(two_outputs[0])
    with Reservation(upload.ObjectStore(client, root, href), asks(outcome, lease=1e9)) as claim:
        claim.check()
        _publish(upload.ObjectStore(client, root, href), two_outputs[1])  # it waits for its lease, 0.4 s, and takes over
        with pytest.raises(Temporary, match="another run has taken over"):
            claim.check()
    there = {p.removeprefix(f"{root}/"): fs.cat_file(p) for p in fs.find(root) if not p.endswith(MARKER)}
    assert (there, upload.already_done(upload.open_store(href)).key) == (tree(two_outputs[1]), KEYS[1])


def _whole(fs, path):
    """Returns an object, or None where it is just written over: `rclone serve s3` shows it half-way."""
    try:
        return fs.cat_file(path)
    except FlexibleChecksumError:
        return None


def test_a_claim_is_renewed_and_given_back(bucket):
    name, fs = bucket
    store, waits = upload.open_store(f"s3://{name}/o.zarr"), threading.Event().wait
    with Reservation(store, upload.Asks(Identity("a"), lease=0.2)) as claim:
        first = fs.cat_file(f"{name}/o.zarr/{NOTE}")
        until(lambda: _whole(fs, f"{name}/o.zarr/{NOTE}") not in (None, first), 20)
        with (
            pytest.raises(Temporary, match="another run is writing"),
            Reservation(store, upload.Asks(Identity("b"), wait=waits, lease=2)),
        ):
            pass
        claim.check()
        claim.release()
    assert not fs.exists(f"{name}/o.zarr/{NOTE}")
    assert not write_if(store, "x", b"", {"IfMatch": '"0"'}) or fs.cat_file(f"{name}/o.zarr/x") == b""  # rclone knows no condition


@pytest.mark.parametrize(
    ("there", "asking", "overwrite", "error"),
    [
        ({"fence": "2026-03-02"}, {"fence": "2026-03-01"}, False, Superseded),
        ({"fence": "2026-03-02"}, {"fence": "2026-03-01"}, True, Superseded),  # a replay of it that was delivered late
        ({"fence": "2026-03-01"}, {"fence": "2026-03-01"}, False, None),
        ({"fence": "2026-03-01"}, {"fence": "2026-03-02"}, False, None),
        ({"fence": "2026-03-02"}, {}, False, None),  # an event of an earlier version, or a run by hand
        ({"fence": "2026-03-02", "key": KEYS[0]}, {"fence": "2026-03-01"}, False, None),  # the same conversion
        ({"installation": "one"}, {"installation": "two"}, True, CannotWrite),
        ({"installation": "one"}, {"installation": "one"}, False, None),
        ({}, {"installation": "one"}, False, None),  # the marker of an earlier version
        ({"installation": "one"}, {}, False, CannotWrite),
        ({"installation": "one"}, {}, True, None),  # by hand, and meant
        ({"item_id": "one"}, {"item_id": "two", "installation": "i"}, True, CannotWrite),  # an event that was edited
        ({"item_id": "one"}, {"item_id": "two"}, False, CannotWrite),
        ({"item_id": "one"}, {"item_id": "two"}, True, None),
        ({"item_id": "one"}, {"item_id": "one", "installation": "i"}, True, None),
        ({"item_id": "one"}, {"installation": "i"}, True, None),
    ],
)
def test_what_lies_there_is_left_alone_where_it_is_newer_or_another_s(there, asking, overwrite, error):
    found = Outcome(**{"key": KEYS[1], "code": 0, **there})
    if error is None:
        precedence.check(found, Identity(KEYS[0], **asking), "s3://b/o.zarr", overwrite=overwrite)
        return
    with pytest.raises(error) as caught:
        precedence.check(found, Identity(KEYS[0], **asking), "s3://b/o.zarr", overwrite=overwrite)
    assert all(repr(there[i]) in caught.value.message for i in ("installation", "item_id") if i in there)
    assert all(repr(asking[i]) in caught.value.message for i in there if i != "fence" and i in asking)


@pytest.mark.parametrize(("fence", "legal"), [
    ("", True), ("2026-03-01T12:00:00.000000Z", True), ("2026-03-02T11:59:59.000000Z", True),
    ("2026-03-03T11:00:00.000000Z", True), ("2026-03-03T13:00:00.000000Z", False),
    ("9999-12-31T23:59:59.999999Z", False), ("zzzz", False),
])  # fmt: skip
def test_no_run_raises_a_fence_that_nothing_could_follow(fence, legal):
    """Whoever may post could write one into an event, and no later revision of the item would ever be published."""
    with nullcontext() if legal else pytest.raises(InputError, match="no time that has come"):
        precedence.require_possible(Identity(KEYS[0], fence=fence), datetime(2026, 3, 1, 12, tzinfo=UTC))


def test_an_older_revision_that_comes_late_leaves_the_newer_one_in_a_bucket_and_in_a_folder(
    bucket, product, runner, tmp_path, tree
):
    name, fs = bucket
    for output in (f"s3://{name}/o.zarr", str(tmp_path / "o.zarr")):
        options = {"work": tmp_path / "w", "groups": "conditions/geometry", "package": "none"}
        newer = {"key": KEYS[1], "fence": "2026-03-01T12:00:00Z", "installation": "one"}
        older = {"key": KEYS[0], "fence": "2026-03-01T13:59:59+02:00", "installation": "one"}
        assert runner(product, output, **newer, **options).code == 0
        ended = runner(product, output, **older, **options)
        assert (ended.code, ended.outcome["code"]) == (79, 79), ended.stderr
        assert "a later revision" in ended.outcome["reason"]
        ended = runner(product, output, **{**older, "installation": "two"}, **options)
        assert (ended.code, "'one'" in ended.said, "'two'" in ended.said) == (73, True, True)
        found = json.loads(fs.cat_file(f"{output}/{MARKER}") if "://" in output else Path(output, MARKER).read_bytes())
        assert (found["key"], found["fence"], found["installation"]) == (KEYS[1], "2026-03-01T12:00:00.000000Z", "one")


def test_two_installations_in_one_bucket_neither_take_nor_remove_nor_double_each_other_s(bucket, product, runner, tmp_path):
    """With one recipe they give an item one key and one place; with a place of their own each has its output."""
    name, fs = bucket
    options = {"work": tmp_path / "w", "groups": "conditions/geometry", "package": "none", "key": KEYS[0], "item_id": ITEM_ID}
    mine, theirs = f"s3://{name}/one/{ITEM_ID}.zarr", f"s3://{name}/two/{ITEM_ID}.zarr"
    first = runner(product, mine, installation="one", **options)
    assert first.code == 0, first.stderr
    before = {path: fs.info(path)["ETag"] for path in fs.find(name)}
    one, two = (upload.Asks(Identity(KEYS[0], installation=by), wait=lambda _: True) for by in ("one", "two"))
    store = upload.open_store(theirs)
    with Reservation(store, one) as claim:  # while it writes, the other's run of the same key is no next attempt of it
        with pytest.raises(Temporary, match="was writing"), Reservation(store, two):
            pass
        claim.check()
        claim.release()
    for overwrite in ("false", "true"):  # by accident to the same place: not "already done", which one would believe
        ended = runner(product, mine, installation="two", overwrite=overwrite, **options)
        assert (ended.code, "'one'" in ended.said, "'two'" in ended.said) == (73, True, True)
    row = SimpleNamespace(key=KEYS[0], item_id=ITEM_ID)
    assert Seen(find_marker(mine)).answers(row, Asked("one"))
    assert not Seen(find_marker(mine)).answers(row, Asked("two"))
    of_two = replace(find_marker(mine), installation="two")  # what two's ledger has, of an output that was there once
    assert not retiring.remove(mine, KEYS[0], of_two)
    assert not retiring.deprecate(mine, KEYS[0], of_two, deprecated=True)
    assert {path: fs.info(path)["ETag"] for path in fs.find(name)} == before
    second = runner(product, theirs, installation="two", **options)
    assert (second.code, second.outcome["reason"]) == (0, "done"), second.stderr
    assert {path: fs.info(path)["ETag"] for path in fs.find(f"{name}/one")} == before
    assert retiring.remove(theirs, KEYS[0], find_marker(theirs))
    assert {path: fs.info(path)["ETag"] for path in fs.find(name)} == before


class _Later:
    """The real file system a while later: what was written up to now is older by so much than what is written next."""

    def __init__(self, fs, by: timedelta) -> None:
        self._fs, self._by = fs, by

    def __getattr__(self, name):
        return getattr(self._fs, name)

    def info(self, path):
        found = self._fs.info(path)
        return found | {"LastModified": found["LastModified"] + self._by} if path.endswith(MARKER) else found


@pytest.mark.parametrize(("by", "goes"), [(timedelta(hours=23), False), (timedelta(hours=25), True)])
def test_what_a_crashed_upload_of_another_key_left_goes_when_no_run_can_be_at_it(bucket, two_outputs, tree, by, goes):
    name, fs = bucket
    href, root = f"s3://{name}/scenes/o.zarr", f"{name}/scenes/o.zarr"
    _publish(upload.open_store(href), two_outputs[0])
    left = {f"{name}/scenes/.o.zarr.00000000005c.upload/{path}" for path in ("zarr.json", "a/c/0")}
    names = (".o.zarr.old.00000000005c.upload/zarr.json", ".p.zarr.00000000005c.upload/x", "y")
    others = {f"{name}/scenes/{path}" for path in names}
    for path in left | others:
        fs.pipe_file(path, b"{}")
    store, outcome = upload.open_store(href), marker.read(two_outputs[1])
    later = upload.ObjectStore(_Later(store.fs, by), store.root, href)
    upload.publish(later, two_outputs[1], outcome, asks(outcome), advance=lambda _: None)
    beside = {path for path in fs.find(f"{name}/scenes") if not path.startswith((f"{root}/", f"{root}."))}
    assert beside == (others if goes else others | left)
    assert upload.already_done(upload.open_store(href)).key == KEYS[1]


def test_an_output_is_published_also_where_abandoned_uploads_cannot_be_looked_for(bucket, two_outputs, caplog):
    name, _ = bucket
    href = f"s3://{name}/o.zarr"
    store, outcome = upload.open_store(href), marker.read(two_outputs[0])
    later = upload.ObjectStore(_Later(store.fs, None), store.root, href)  # the answer to the look is nonsense
    upload.publish(later, two_outputs[0], outcome, asks(outcome), advance=lambda _: None)
    assert "abandoned" in caplog.text
    assert upload.already_done(upload.open_store(href)).key == KEYS[0]


def test_what_is_not_ours_stays_and_a_missing_bucket_or_wrong_key_says_so(bucket, product, runner, tmp_path, monkeypatch):
    name, fs = bucket
    fs.pipe_file(f"{name}/o.zarr/precious", b"data")
    ended = runner(product, f"s3://{name}/o.zarr", work=tmp_path / "w", groups="conditions/geometry")
    assert (ended.code, "not an output of ours" in ended.said) == (73, True)
    assert fs.cat_file(f"{name}/o.zarr/precious") == b"data"
    ended = runner(product, "s3://no-such-bucket/o.zarr", work=tmp_path / "w", groups="conditions/geometry")
    assert (ended.code, "no such bucket" in ended.said) == (73, True), ended.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # botocore's own pauses are seconds
    assert runner(product, f"s3://{name}/o.zarr", work=tmp_path / "w").code == 75


class _Counting:
    """The real file system, and what was written through it, in order."""

    def __init__(self, fs) -> None:
        self._fs, self.written, self.sums = fs, [], {}

    def __getattr__(self, name):
        return getattr(self._fs, name)

    def pipe_file(self, path, data, **kwargs):
        self.written.append(path)
        self.sums |= {path: kwargs["ChecksumCRC32C"]} if "ChecksumCRC32C" in kwargs else {}
        return self._fs.pipe_file(path, data, **kwargs)


def _ahead(name, output, *, before: Path | None = None):
    """A store that counts, who publishes, and an output whose chunks were sent ahead; beside an old one where there is one."""
    href = f"s3://{name}/scenes/o.zarr"
    if before is not None:
        _publish(upload.open_store(href), before)
    real, outcome = upload.open_store(href), marker.read(output)
    store = upload.ObjectStore(_Counting(real.fs), real.root, href)
    ahead = Ahead(store, asks(outcome))
    for path in sorted(p for p in output.rglob("c/*") if p.is_file()):
        crc = google_crc32c.value(path.read_bytes())
        ahead.offer(path.relative_to(output).as_posix(), output / "moved-by-now", path, crc=crc)
    return store, outcome, ahead


def _sent(ahead: Ahead, output: Path) -> None:
    """Waits until the chunks of an output were sent ahead."""
    chunks = {p.relative_to(output).as_posix() for p in output.rglob("c/*") if p.is_file()}
    until(lambda: ahead.sender.sent.keys() >= chunks, 60)


def _end(ahead: Ahead, error: Exception) -> None:
    """Ends the block in which an output is made, by an error."""
    with pytest.raises(type(error)), ahead:
        raise error


@pytest.mark.parametrize("replacing", [False, True])
def test_what_was_sent_ahead_is_sent_once_and_makes_no_output(bucket, two_outputs, tree, replacing):
    name, fs = bucket
    old, new = two_outputs
    store, outcome, ahead = _ahead(name, new, before=old if replacing else None)
    root = f"{name}/scenes/o.zarr"
    ahead.offer("d/c/0", new / "b/c/0")  # of what was then made otherwise
    with ahead:
        assert ahead.finish() is not None
        assert {path.rpartition(".upload/" if replacing else "/o.zarr/")[2]: value for path, value in store.fs.sums.items()} == {
            f"{array}/c/0": base64.b64encode(google_crc32c.Checksum((new / array / "c/0").read_bytes()).digest()).decode()
            for array in "abc"
        }, "the store is told what was encoded"
        there = {p.removeprefix(f"{root}/"): fs.cat_file(p) for p in fs.find(root)}
        assert there.pop(NOTE)
        if replacing:
            assert (marker.parse(there.pop(MARKER)).key, there) == (KEYS[0], tree(old)), "the old one is whole and readable"
        else:
            assert sorted(there) == ["a/c/0", "b/c/0", "c/c/0", "d/c/0"], "nobody opens it, nobody believes it"
        upload.publish(store, new, outcome, asks(outcome), advance=lambda _: None, ahead=ahead)
    written = [path.rpartition("/o.zarr/")[2].rpartition(".upload/")[2] for path in store.fs.written]
    assert {path for path in written if written.count(path) > 1} <= {NOTE, "zarr.json"}, "the root goes beside an old output, too"
    assert {p.removeprefix(f"{root}/"): fs.cat_file(p) for p in fs.find(root) if not p.endswith(MARKER)} == tree(new)
    assert [p for p in fs.find(f"{name}/scenes") if ".upload" in p] == []
    assert upload.already_done(store).key == KEYS[1]


@pytest.mark.parametrize("replacing", [False, True])
def test_what_was_sent_ahead_of_a_verification_that_failed_is_removed(bucket, two_outputs, tree, replacing):
    name, fs = bucket
    before = two_outputs[0] if replacing else None
    _, _, ahead = _ahead(name, two_outputs[1], before=before)
    _sent(ahead, two_outputs[1])
    _end(ahead, InputError("the output is not what its source is"))
    there = {p.removeprefix(f"{name}/scenes/o.zarr/"): fs.cat_file(p) for p in fs.find(f"{name}/scenes/o.zarr")}
    there.pop(MARKER, None)
    assert there == (tree(before) if before else {})
    assert [p for p in fs.find(f"{name}/scenes") if ".upload" in p] == []


def test_what_an_earlier_attempt_left_keeps_its_note_so_that_the_next_one_may_go_on(bucket, two_outputs):
    name, fs = bucket
    root = f"{name}/scenes/o.zarr"
    fs.pipe({f"{root}/{NOTE}": b'{"key": "00000000005b"}', f"{root}/d/c/0": b"of a run that was killed"})
    store, _, ahead = _ahead(name, two_outputs[1])
    _sent(ahead, two_outputs[1])
    _end(ahead, InputError("the output is not what its source is"))
    assert sorted(fs.find(root)) == [f"{root}/d/c/0", f"{root}/{NOTE}"]
    upload.check_free(store, KEYS[1], overwrite=False)


def test_after_a_temporary_end_only_what_is_missing_is_sent(bucket, two_outputs):
    name, _ = bucket
    _, outcome, ahead = _ahead(name, two_outputs[1])
    _sent(ahead, two_outputs[1])
    _end(ahead, Temporary("the source is silent"))
    real = upload.open_store(f"s3://{name}/scenes/o.zarr")
    store = upload.ObjectStore(_Counting(real.fs), real.root, real.href)
    upload.publish(store, two_outputs[1], outcome, asks(outcome), advance=lambda _: None)
    assert [path for path in store.fs.written if "/c/" in path] == []
    assert upload.already_done(store).key == KEYS[1]


def test_what_was_made_anew_after_it_was_sent_is_sent_again(bucket, two_outputs, tree, tmp_path):
    """A product that was replaced while it was read is staged anew; what was sent of the first one must not stay."""
    name, fs = bucket
    output = Path(shutil.copytree(two_outputs[1], tmp_path / "o.zarr"))
    shutil.copy(two_outputs[1].with_name("o.zarr.report.html"), tmp_path)
    store, outcome, ahead = _ahead(name, output)
    with ahead:
        (output / "b/c/0").unlink()
        (output / "b/c/0").write_text("NEW")  # as many bytes; the first may have been sent, or be on its way
        ahead.offer("b/c/0", output / "b/c/0")
        ahead.finish()
        upload.publish(store, output, outcome, asks(outcome), advance=lambda _: None, ahead=ahead)
    assert fs.cat_file(f"{name}/scenes/o.zarr/b/c/0") == b"NEW"


def test_nothing_is_sent_ahead_where_a_later_revision_lies_or_another_run_writes(bucket, two_outputs, tmp_path):
    name, _ = bucket
    outputs = [Path(shutil.copytree(o.parent, tmp_path / o.parent.name)) / "o.zarr" for o in two_outputs]
    for output, fence in zip(outputs, ("2026-03-02", "2026-03-01"), strict=True):
        (output / MARKER).write_text(replace(marker.read(output), fence=fence).as_json())
    store, outcome, ahead = _ahead(name, outputs[1], before=outputs[0])
    with pytest.raises(Superseded), ahead:
        upload.publish(store, outputs[1], outcome, asks(outcome), advance=lambda _: None, ahead=ahead)
    assert [path for path in store.fs.written if path.rpartition("/")[2] != NOTE] == []
    with Reservation(upload.open_store(store.href), asks(outcome)) as claim:  # renewed every tenth of a second
        until(lambda: claim._renewals > 0, 20)
        another = replace(asks(marker.read(outputs[0])), identity=Identity("another"), lease=8.0, wait=lambda _: True)
        ahead = Ahead(store, another)
        ahead.offer("b/c/0", outputs[0] / "b/c/0")
        assert ahead.finish() is None
        _end(ahead, Temporary("another run is writing"))
    assert [path for path in store.fs.written if "/c/" in path] == []


def test_a_mirror_that_is_killed_while_it_sends_ahead_leaves_nothing_that_opens_and_goes_on(bucket, native, served, tmp_path):
    name, fs = bucket
    files, root = served(native.parent), f"{name}/scenes/o.zarr"
    files.gated = "r10m/b08"  # it never comes: the run is at it when it is killed
    files.gate.clear()
    argv = program(f"{files.url}/{native.name}", f"s3://{root}", work=tmp_path / "w", key=KEYS[0], package="none")
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: [path for path in fs.find(root) if "/c/" in path], by=process)
    process.kill()
    process.wait()
    there = [path.removeprefix(f"{root}/") for path in fs.find(root)]
    assert not {"zarr.json", MARKER} & set(there)
    files.gate.set()
    assert subprocess.run([*argv, "--attempt=2"], capture_output=True, check=False).returncode == 0
    made = {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in fs.find(root)}
    assert made.pop(MARKER)
    assert made == {p.relative_to(native).as_posix(): p.read_bytes() for p in native.rglob("*") if p.is_file()}


def test_shards_go_up_while_the_rest_is_converted_and_a_run_that_is_killed_then_goes_on(
    bucket, product, local, served, runner, tmp_path
):
    name, fs = bucket
    files, root = served(product.parent), f"{name}/scenes/o.zarr"
    files.gated = "r20m/b05/0.0"  # it never comes: the run waits for it, while what it has is converted and sent
    files.gate.clear()
    some = {**SMALL, "work": tmp_path / "w", "key": KEYS[0], "package": "none", "engine": "fast"}
    argv = program(f"{files.url}/{product.name}", f"s3://{root}", **some)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: [path for path in fs.find(root) if "/c/" in path], by=process)
    process.kill()
    process.wait()
    there = {path.removeprefix(f"{root}/").rpartition("/")[2] for path in fs.find(root)}
    assert there == {"0", NOTE}, "shards, and whose they are: no metadata, not of an array either"
    files.gate.set()
    assert runner(product, f"s3://{root}", **some, attempt=2).code == 0
    made = {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in fs.find(root)}
    assert made.pop(MARKER)
    assert made == local[SMALL["groups"]]


SILENT = """
import sys
from pathlib import Path
from geozarr_runner.publish import bucket
bucket.put_file(Path(sys.argv[1]), "s3://b/k")
"""


def test_a_store_that_takes_a_request_and_says_nothing_is_given_up(tmp_path):
    """aiobotocore asks before it sends an object, and waits for that answer without a time-out."""
    (tmp_path / "object").write_bytes(b"x" * 9000)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        patience = {"config_kwargs": {"read_timeout": 0.2, "retries": {"max_attempts": 0}}}
        named = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "FSSPEC_S3": json.dumps(patience)}
        argv = [sys.executable, "-c", SILENT, str(tmp_path / "object")]
        ended = subprocess.run(argv, env={**os.environ, **ENVIRONMENT, **named}, capture_output=True, text=True, timeout=120)
    assert "Temporary" in ended.stderr
    assert "imed out" in ended.stderr or "imeout" in ended.stderr


def test_every_marker_is_found_page_by_page_without_listing_what_is_in_an_output(bucket, request):
    """A lost ledger is made again out of them: of 500,000 outputs nobody lists the objects."""
    name, fs = bucket
    type(fs).clear_instance_cache()  # of the server before
    whole = {f"{name}/s2/2026/i{n}.zarr": Outcome(code=0, item_id=f"i{n}", key=KEYS[0]) for n in range(5)}
    fs.pipe({f"{place}/{MARKER}": said.as_json().encode() for place, said in whole.items()})
    fs.pipe({f"{place}/c/0/{n}": b"x" for place in whole for n in range(3)})
    fs.pipe({f"{place}.tar": b"x" for place in whole})
    fs.pipe({f"{name}/s2/2026/{other}": b"x" for other in (".i0.zarr.key.upload/zarr.json", "half.zarr/zarr.json", "notes.txt")})
    template = f"s3://{name}/{{collection}}/2026/{{item_id}}.zarr"
    if "rclone" in request.node.callspec.id:
        with pytest.raises(Unavailable, match="in circles"):  # names of a page are sorted, and pages are not
            list(outputs(template, page=3))
    found = list(outputs(template, page=3 if "moto" in request.node.callspec.id else 1000))
    assert found == [f"s3://{place}" for place in sorted([*whole, f"{name}/s2/2026/half.zarr"])]
    said = markers(found)
    assert {place for place, outcome in said.items() if outcome is not None} == {f"s3://{place}" for place in whole}
    assert markers(found[1:2])[found[1]].item_id == "i0"


def test_a_finished_geozarr_in_a_bucket_is_mirrored_looked_at_and_seen_to_be_another(bucket, native, runner, tree, tmp_path):
    name, fs = bucket
    source = f"{name}/published/{NATIVE_ID}.zarr"
    fs.put(str(native), source, recursive=True)
    made = runner(f"s3://{source}", tmp_path / "a.zarr", package="none", key="1" * 20)
    assert made.code == 0, made.said
    assert tree(tmp_path / "a.zarr") == tree(native)
    stores, known = Stores((name,), rate=20.0, sleep=lambda _: None), made.outcome["fingerprint"]
    assert is_same(stores, f"s3://{source}", known)
    again = runner(f"s3://{source}", tmp_path / "a.zarr", package="none", key="2" * 20)
    assert (again.code, again.outcome["reason"]) == (0, "unchanged"), again.said
    fs.pipe(f"{source}/quality/mask/r10m/b02/c/0/0", b"another")
    assert not is_same(stores, f"s3://{source}", known)
    fs.rm(f"{source}/zarr.json")
    with pytest.raises(Temporary, match="no root metadata"):
        is_same(stores, f"s3://{source}", known)
    with pytest.raises(InputError, match="not allowed"):
        is_same(Stores(("other",), rate=20.0, sleep=lambda _: None), f"s3://{source}", known)
