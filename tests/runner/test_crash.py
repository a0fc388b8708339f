"""A run that is killed or stopped at any moment, and then started again, ends in the same output."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import program
from waiting import until

pytestmark = pytest.mark.long

GROUPS = "measurements/reflectance/r60m quality/atmosphere/r60m"
KEY = "0000000000cc"


def _start(
    source: str, output: Path, status: Path, attempt: int, outcome: Path, engine: str = "fast", **more: str
) -> subprocess.Popen[bytes]:
    command = program(
        source,
        output,
        groups=GROUPS,
        key=KEY,
        engine=engine,
        attempt=attempt,
        status=status,
        outcome=outcome,
        timeout=600,
        package="tar",
        **more,
    )
    progress = {"ARGO_PROGRESS_FILE": str(status.with_suffix(".argo"))}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, **progress})


def _await(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    """Waits until the run has come so far; fails when it ends before, or takes ten minutes."""
    until(reached, 600, by=process, every=0.001)


def _stage_is(status: Path, stage: str) -> Callable[[], bool]:
    return lambda: status.exists() and json.loads(status.read_text())["stage"] == stage


def _fetching(files) -> bool:
    return any("/measurements/" in path and "/.z" not in path for path in list(files.requests))


def _end(process: subprocess.Popen[bytes]) -> bytes:
    return process.communicate(timeout=600)[1]


def test_killed_in_every_stage_and_started_again_gives_the_same_output(files, product, runner, tree, tmp_path):
    source, output, status = f"{files.url}/{product.name}", tmp_path / "out" / "o.zarr", tmp_path / "status.json"
    objects = 0
    files.gate.clear()
    for attempt, stage in enumerate(("stage", "convert", "verify", "package"), start=1):
        status.unlink(missing_ok=True)
        # by then the engines have written the same (test_engines.py), and the fast one starts a second process
        engine = "fast" if stage in ("stage", "convert") else "stock"
        process = _start(source, output, status, attempt, tmp_path / "o.json", engine)
        _await(process, _stage_is(status, stage))
        if stage == "stage":
            _await(process, lambda: _fetching(files))
        process.kill()
        _end(process)
        assert not output.exists(), f"killed in {stage}: a half-built output lies under the final name"
        files.gate.set()
        if stage == "convert":
            objects = files.chunks_sent()
    assert files.chunks_sent() - objects < 12, "what was staged was fetched again"
    ended = runner(source, output, groups=GROUPS, key=KEY, attempt=5, package="tar")
    assert (ended.code, ended.outcome["attempt"]) == (0, 5)
    assert [p.name for p in output.parent.iterdir() if "partial" in p.name or p.name.endswith(".lock")] == []
    assert runner(product, tmp_path / "straight" / "o.zarr", groups=GROUPS, key="0000000000dd", package="tar").code == 0
    assert tree(output) == tree(tmp_path / "straight" / "o.zarr")
    assert output.with_name("o.zarr.tar").read_bytes() == (tmp_path / "straight" / "o.zarr.tar").read_bytes()


def test_a_mirror_that_is_killed_in_every_stage_goes_on_and_fetches_nothing_twice(native, served, runner, tree, tmp_path):
    files = served(native.parent)
    source, output, status = f"{files.url}/{native.name}", tmp_path / "out" / "o.zarr", tmp_path / "status.json"
    for attempt, stage in enumerate(("stage", "verify", "package"), start=1):
        status.unlink(missing_ok=True)
        command = program(source, output, package="tar", key=KEY, attempt=attempt, status=status, outcome=tmp_path / "o.json")
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        _await(process, _stage_is(status, stage))
        if stage == "stage":
            _await(process, lambda: any("/c/" in path for path in list(files.requests)))
        process.kill()
        _end(process)
        assert not output.exists(), f"killed in {stage}: a half-built output lies under the final name"
    ended = runner(source, output, key=KEY, attempt=4, package="tar")
    assert ended.code == 0, ended.said
    assert ended.outcome["counts"]["bytes_read"] == 0, "what was complete when it was killed is not fetched again"
    made = {name: content for name, content in tree(output).items() if name != "stac-watch.json"}
    assert made == tree(native)


@pytest.mark.parametrize("package_first", [False, True])
def test_killed_between_the_marker_and_the_last_rename_is_published_without_converting(
    own_product, runner, tree, tmp_path, package_first
):
    output = tmp_path / "o.zarr"
    options = {"groups": "conditions/geometry", "key": KEY, "package": "tar"}
    assert runner(own_product, output, **options).code == 0
    whole = tree(output)
    partial = output.with_name(f".o.zarr.{KEY}-1.partial")
    output.rename(partial)
    if not package_first:
        (tmp_path / "o.zarr.tar").rename(tmp_path / f".o.zarr.{KEY}-1.partial-package")
    own_product.rename(tmp_path / "gone-by-now")
    ended = runner(own_product, output, attempt=2, **options)
    assert ended.code == 0, ended.stderr
    assert tree(output) == whole
    assert (tmp_path / "o.zarr.tar").exists()
    assert not partial.exists()


def test_the_old_output_stays_until_the_new_one_is_whole(files, product, runner, tree, tmp_path):
    output, status = tmp_path / "o.zarr", tmp_path / "status.json"
    assert runner(product, output, groups="conditions/geometry", key="0000000000ee").code == 0
    before = tree(output)
    files.gate.clear()
    process = _start(f"{files.url}/{product.name}", output, status, 1, tmp_path / "p.json")
    _await(process, _stage_is(status, "stage"))
    process.kill()
    _end(process)
    assert tree(output) == before
    ended = runner(product, output, groups="conditions/geometry", key="0000000000ee")
    assert ended.outcome["reason"] == "already done"


@pytest.mark.parametrize(("number", "stage", "code"), [(signal.SIGINT, "stage", 130), (signal.SIGTERM, "convert", 143)])
def test_a_signal_ends_the_run_soon_with_an_outcome_and_a_way_on(files, product, tmp_path, number, stage, code):
    output, status, outcome = tmp_path / "out" / "o.zarr", tmp_path / "status.json", tmp_path / "outcome.json"
    if stage == "stage":
        files.gate.clear()  # chunks hang: the signal must get through all the same
    process = _start(f"{files.url}/{product.name}", output, status, 1, outcome)
    _await(process, _stage_is(status, stage))
    _await(process, lambda: _fetching(files))
    started = time.monotonic()
    process.send_signal(number)
    said = _end(process)
    assert process.returncode == code, said
    assert time.monotonic() - started < 10
    found = json.loads(outcome.read_text())
    assert (found["code"], found["stage"]) == (code, stage)
    assert b"Traceback" not in said
    assert not output.exists()
    assert (output.parent / ".geozarr-runner" / "stage" / KEY / "product.zarr" / ".zmetadata").exists()
    assert int(status.with_suffix(".argo").read_text().splitlines()[-1].split("/")[0]) >= 2


def test_a_run_whose_threads_hang_ends_by_force_within_ten_seconds(own_product, tmp_path):
    """A read that never returns (a dead NFS server; here a pipe that nobody writes) must not end in SIGKILL without an outcome."""
    output, status, outcome = tmp_path / "out" / "o.zarr", tmp_path / "status.json", tmp_path / "outcome.json"
    chunk = own_product / "measurements/reflectance/r60m/b01/0.0"
    edge = json.loads(chunk.with_name(".zarray").read_text())["chunks"][0]
    chunk.unlink()
    header = b"\2\1\1\2" + struct.pack("<3I", edge * edge * 2, edge * edge * 2, 0)
    os.mkfifo(chunk)
    process = _start(str(own_product), output, status, 1, outcome)
    chunk.write_bytes(header)  # staging looks at 16 bytes: a header that states the length of a pipe, 0. Then silence
    _await(process, _stage_is(status, "convert"))
    _await(process, lambda: any(_waits_for_a_pipe(process.pid)))
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _end(process)
    assert (process.returncode, json.loads(outcome.read_text())["code"]) == (143, 143)
    assert time.monotonic() - started < 10
    assert not output.exists()


def _waits_for_a_pipe(pid: int) -> list[bool]:
    """For each thread, whether it sleeps in the kernel while it opens a pipe."""
    found = []
    for wchan in Path(f"/proc/{pid}/task").glob("*/wchan"):
        with suppress(OSError):  # the thread has ended
            found.append(wchan.read_text() in ("wait_for_partner", "fifo_open"))
    return found


def test_the_metadata_pass_dies_with_the_runner(product, tmp_path):
    """An orphan would go on writing into a folder that the next attempt clears."""
    output, status = tmp_path / "out" / "o.zarr", tmp_path / "status.json"
    process = _start(str(product), output, status, 1, tmp_path / "o.json")
    _await(process, _stage_is(status, "convert"))
    _await(process, lambda: bool(_children(process.pid)))
    child = Path(f"/proc/{_children(process.pid)[0]}")
    command = child / "cmdline"
    _await(process, lambda: b"geozarr_runner.convert.skeleton" in command.read_bytes())
    _await(process, lambda: any(output.parent.glob(f".o.zarr.{KEY}-1.partial/*")))  # it has come far enough to have asked for it
    process.kill()
    _end(process)
    _await_end(int(child.name))


@pytest.mark.parametrize(
    ("end", "sharding"), [("all there", "false"), ("incomplete", "true"), ("killed", "false"), ("killed", "true")]
)
def test_metadata_and_bands_are_written_while_the_rest_is_on_its_way(
    files, product, converted, runner, tree, tmp_path, end, sharding
):
    source, output, status = f"{files.url}/{product.name}", tmp_path / "out" / "o.zarr", tmp_path / "status.json"
    files.gated = "/r60m/b01/"
    files.faults = {"/r60m/b01/0.0": ["404"]} if end == "incomplete" else {}
    files.gate.clear()
    form = {"sharding": "true", "encoding": "packed"} if sharding == "true" else {}
    process = _start(source, output, status, 1, tmp_path / "o.json", **form)
    _await(process, lambda: any(output.parent.rglob("r60m/b01/zarr.json")))  # of the output; the source is Zarr v2
    _await(process, lambda: any(output.parent.rglob("*-chunks/**/c/0/0")))
    assert json.loads(status.read_text())["stage"] == "stage"
    [begun] = _children(process.pid)
    if end == "killed":
        process.kill()
    files.gate.set()
    _end(process)
    _await_end(begun)
    assert (process.returncode, output.exists()) == {"all there": (0, True), "incomplete": (66, False), "killed": (-9, False)}[end]
    if end != "all there":
        assert end == "killed" or not list(output.parent.rglob("*-chunks"))
        files.faults = {}
        assert runner(source, output, groups=GROUPS, key=KEY, attempt=2, **form).code == 0
    if sharding == "true":
        converted = tmp_path / "straight.zarr"
        assert runner(product, converted, groups=GROUPS, key=KEY, engine="fast", **form).code == 0
    whole = tree(converted)
    assert all(whole[name] == data for name, data in tree(output).items() if "/c/" in name)


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def _await_end(pid: int) -> None:
    """Waits for the end of a metadata pass; whose parent was killed is reaped by init, in its own time."""
    until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
