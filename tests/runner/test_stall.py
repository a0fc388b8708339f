"""A run in which nothing gets on any more ends, and says where it stood."""

import json
import subprocess
import threading
from contextlib import nullcontext

import pytest
from command_line import program
from geozarr_runner.process.slowness import GRANTED, SLOWEST, in_time
from geozarr_runner.process.stall import Watchdog

from stac_watch.model.errors import Temporary


def test_a_run_that_waits_for_a_product_that_never_comes_is_temporary_and_shows_its_stacks(files, product, tmp_path):
    chunk = next((product / "measurements/reflectance/r60m/b01").glob("[0-9]*")).relative_to(product).as_posix()
    files.faults = {chunk: ["stall"]}
    outcome = tmp_path / "outcome.json"
    argv = program(
        f"{files.url}/{product.name}",
        tmp_path / "o.zarr",
        groups="measurements/reflectance/r60m",
        stall=1,
        timeout=600,
        outcome=outcome,
    )
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 75, ended.stderr
    assert "most recent call first" in ended.stderr
    said = json.loads(outcome.read_text())
    assert (said["code"], said["reason"]) == (75, "nothing got on for 1 s")


def test_what_gets_on_however_slowly_is_left_alone(tmp_path):
    steps, bitten, over = iter(range(10**6)), threading.Event(), threading.Event()
    with (tmp_path / "log").open("w") as log, Watchdog(lambda: next(steps), 0.05, bitten.set, log):
        over.wait(0.1)
    assert not bitten.is_set()
    assert (tmp_path / "log").read_text() == ""


def test_what_stands_still_is_ended(tmp_path):
    bitten = threading.Event()
    with (tmp_path / "log").open("w") as log, Watchdog(lambda: 7, 0.05, bitten.set, log):
        assert bitten.wait(60)
    assert "most recent call first" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("seconds", "size", "patient"), [
    (GRANTED, 0, True), (GRANTED + 1, 0, False), (GRANTED + 3600, 3600 * SLOWEST, True), (GRANTED + 3700, 3600 * SLOWEST, False),
])  # fmt: skip
def test_a_server_that_sends_an_object_now_and_then_holds_no_slot_for_hours(seconds, size, patient):
    """Each object is a step, so nothing stands still: two megabytes kept a slot for as long as their server liked."""
    clock, came = [100.0], []
    told = in_time(came.append, size, "https://o.example/x.zarr", lambda: clock[0])
    told(1)
    clock[0] += seconds
    with nullcontext() if patient else pytest.raises(Temporary, match="has sent for"):
        told(1)
    assert came == [1, 1]
