"""Buffers that are asked for again and again, as the runner's threads do beside its watchdog."""

import subprocess
import sys
import weakref

import numpy as np
import pytest
from geozarr_runner.convert.chunks import Rows

SCRIPT = """
import ctypes, resource, sys, threading
from geozarr_runner.process import memory
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: where the kernel gives huge pages unasked, faults are 512 times fewer
if sys.argv[1] == "kept":
    memory.keep_freed()
over = threading.Event()
watchdog = threading.Thread(target=over.wait)
watchdog.start()
faults = []

def work():
    bytes(range(256)) * 400_000  # 100 MB
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(5):
        bytes(range(256)) * 400_000
    faults.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

for _ in range(4):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
over.set()
print(max(faults), min(faults))
"""


GIVEN_BACK = """
from pathlib import Path
from geozarr_runner.process import memory
memory.keep_freed()

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1000 for line in lines if line.startswith("RssAnon"))  # MB

before = resident()
buffer = bytes(range(256)) * 400_000  # 100 MB
above = "something that lives on" * 100
del buffer
kept = resident() - before
memory.give_back()
print(kept, resident() - before)
"""


def test_between_stages_freed_memory_goes_back():
    told = subprocess.run([sys.executable, "-c", GIVEN_BACK], check=True, capture_output=True, text=True).stdout
    kept, left = map(int, told.split())
    assert (kept > 90, left < 20) == (True, True), told


def test_rows_hold_nothing_when_they_have_ended():
    """Who takes them holds the rows, and the rows who takes them: a ring that nobody collects before the output is made."""
    held = []
    rows = Rows(4, lambda values: held.append(weakref.ref(values.base)))
    rows.add(np.zeros((6, 9)))
    rows.end()
    assert [buffer() for buffer in held[1:]] == [None]


@pytest.mark.parametrize(("way", "fresh"), [("kept", False), ("given back", True)])
def test_freed_memory_is_used_again_by_every_thread(way, fresh):
    argv = [sys.executable, "-c", SCRIPT, way]
    most, least = map(int, subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())
    assert (least > 10_000) if fresh else (most < 1_000), (most, least)  # pages; 5 x 25,000 when each buffer is new
