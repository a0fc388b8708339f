"""A disk that is full in each stage, or cannot be written at all: exit 73, the place, the need, and nothing half-built left."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import arguments
from geozarr_runner.cli import main

from stac_watch.demo.product import write_product
from stac_watch.model.errors import CannotWrite

ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
GROUPS = "measurements/reflectance/r20m measurements/reflectance/r60m"
_BLOCK = 4096  #: bytes; tmpfs counts in pages


@pytest.fixture
def mounted(tmp_path) -> Iterator[Callable[[str], Path]]:
    """Returns a function that mounts a file system in memory with the given options."""
    volumes = []

    def mount(options: str) -> Path:
        volume = tmp_path / f"volume{len(volumes)}"
        volume.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", volume], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.decode().strip()}")
        volumes.append(volume)
        return volume

    yield mount
    for volume in volumes:
        subprocess.run(["umount", volume], check=True)


def _run(source: object, output: Path, outcome: Path, **more: object) -> int:
    # floats take the room that they are measured by; integers are so few bytes that what a run notes while it stages is as much
    return main(arguments(source, output, outcome=outcome, **{"groups": GROUPS, "package": "tar", "encoding": "stock", **more}))


def _blocks(*folders: Path) -> int:
    """The bytes that files take in whole pages."""
    sizes = [p.stat().st_size for folder in folders for p in (folder.rglob("*") if folder.is_dir() else [folder]) if p.is_file()]
    return sum(-(-size // _BLOCK) * _BLOCK for size in sizes)


@pytest.fixture(scope="module")
def needs(product, tmp_path_factory) -> dict[str, int]:
    """What a run of GROUPS takes on its volume, stage after stage."""
    folder = tmp_path_factory.mktemp("needs")
    output = folder / "o.zarr"
    assert _run(product, output, folder / "outcome.json") == 0
    read = [p for group in GROUPS.split() for p in (product / group).rglob("*") if p.is_file()]
    metadata = [p for p in product.rglob(".z*") if p.is_file()]
    return {
        "stage": _blocks(*{*read, *metadata}), "convert": _blocks(output), "package": _blocks(output.with_name("o.zarr.tar")),
        "report": _blocks(*folder.glob("o.zarr.*.*")),
    }  # fmt: skip


@pytest.mark.parametrize("stage", ["stage", "convert", "package"])
def test_a_disk_that_is_full_in_each_stage(files, product, mounted, needs, tmp_path, capsys, stage):
    """Half of what the stage needs is left to it. The next attempt, given the room, goes on from what was staged."""
    before = sum(need for name, need in needs.items() if list(needs).index(name) < list(needs).index(stage))
    volume = mounted(f"size={(before + needs[stage] // 2) // _BLOCK * _BLOCK}")
    source, output, outcome = f"{files.url}/{product.name}", volume / "o.zarr", tmp_path / "outcome.json"
    code = _run(source, output, outcome)
    said, found = capsys.readouterr().err, json.loads(outcome.read_text())
    assert (code, found["code"], found["stage"]) == (73, 73, stage), said
    assert f"no space left while writing {volume}" in found["reason"]
    assert re.search(r"\d+ MB \(\d+ bytes\) are free there; .*; the run needs up to \d+ MB there \(\d+ bytes\)", found["hint"])
    assert "Traceback" not in said
    assert not output.exists()
    assert [p.name for p in volume.iterdir() if "partial" in p.name] == []
    assert shutil.disk_usage(volume).used <= needs["stage"] + _BLOCK, "what was half-built still fills the volume"
    subprocess.run(["mount", "-o", "remount,size=64m", volume], check=True)
    sent = files.chunks_sent()
    assert _run(source, output, outcome, attempt=2) == 0
    if stage != "stage":
        assert files.chunks_sent() - sent < 5, "objects that were staged were fetched again"


def test_a_disk_that_cannot_be_written_is_said_before_anything_is_fetched(files, product, mounted, tmp_path):
    volume = mounted("ro,size=1m")
    code = _run(f"{files.url}/{product.name}", volume / "o.zarr", tmp_path / "outcome.json")
    found = json.loads((tmp_path / "outcome.json").read_text())
    assert (code, found["code"]) == (73, 73)
    assert f"cannot write {volume}/o.zarr: Read-only file system" in found["reason"]
    assert not any("/measurements/" in path for path in files.requests)


def test_an_outcome_that_cannot_be_written_does_not_hide_how_the_run_ended(product, mounted, tmp_path, capsys):
    volume = mounted("ro,size=1m")
    assert _run(product, tmp_path / "o.zarr", volume / "outcome.json", groups="no/such/group") == 65
    said = capsys.readouterr().err
    assert "no group" in said
    assert "cannot write" in said


def test_a_disk_without_room_for_a_product_of_the_demo_says_what_is_free_and_what_it_needs(mounted):
    volume = mounted("size=1m")
    with pytest.raises(CannotWrite, match=f"no space left while writing {volume}") as full:
        write_product(volume, ITEM_ID, size=756)
    free, need = re.findall(r"\((\d+) bytes\)", full.value.hint)
    assert int(free) <= 2**20 < int(need)
    assert list(volume.iterdir()) == []
