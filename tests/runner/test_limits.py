"""As many workers as the container has room for: what is read of its control groups, and a conversion inside a real one."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import program
from geozarr_runner.process import limits
from geozarr_runner.source.metadata import parse
from geozarr_runner.source.product import select

from stac_watch.demo.product import write_product
from stac_watch.model.errors import InputError

ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
BANDS = "measurements/reflectance"  # the largest arrays of a product
GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "size"), [("2Gi", 2 * GIB), ("1800M", 1_800_000_000), ("1.5 GB", 1_500_000_000), ("2000000000", 2_000_000_000)]
)
def test_memory_limits_are_read_as_kubernetes_writes_them(text, size):
    assert limits.parse_size(text) == size


def test_a_limit_that_is_not_a_size_is_bad_input(product, runner, tmp_path):
    with pytest.raises(InputError, match="'much' is not a size"):
        limits.memory_limit("much", limits.Granted(None, None))
    ended = runner(product, tmp_path / "o.zarr", memory_limit="much", groups="conditions/geometry")
    assert (ended.code, "write it as Kubernetes does" in ended.said) == (65, True)


def test_the_smaller_of_what_is_asked_and_what_is_granted_counts():
    for asked, granted, want in (
        ("", None, None),
        ("", 3 * GIB, 3 * GIB),
        ("1Gi", 3 * GIB, GIB),
        ("9Gi", 3 * GIB, 3 * GIB),
        ("1Gi", None, GIB),
    ):
        assert limits.memory_limit(asked, limits.Granted(granted, None)) == want


V2 = "0::/kubepods/pod7/c1"
V1 = "4:memory:/docker/c1\n2:cpu,cpuacct:/docker/c1\n1:name=systemd:/docker/c1"


@pytest.mark.parametrize(
    ("membership", "files", "want"),
    [
        (V2, {}, (None, None)),
        ("0::/", {"memory.max": "3221225472", "cpu.max": "150000 100000"}, (3 * GIB, 1.5)),  # a container: its group is the root
        (V2, {"kubepods/pod7/c1/memory.max": "max", "kubepods/pod7/c1/cpu.max": "max 100000"}, (None, None)),
        (V2, {"kubepods/pod7/c1/memory.max": "max", "kubepods/pod7/memory.max": "1073741824"}, (GIB, None)),  # the pod's limit
        (V2, {"kubepods/pod7/c1/cpu.max": "400000 100000", "kubepods/cpu.max": "200000 100000"}, (None, 2.0)),
        (
            V1,
            {
                "memory/docker/c1/memory.limit_in_bytes": "2147483648", "memory/memory.limit_in_bytes": "9223372036854771712",
                "cpu,cpuacct/docker/c1/cpu.cfs_quota_us": "50000", "cpu,cpuacct/docker/c1/cpu.cfs_period_us": "100000",
            },
            (2 * GIB, 0.5),
        ),
        (V1, {"memory/memory.limit_in_bytes": "1073741824", "cpu/cpu.cfs_quota_us": "-1"}, (GIB, None)),
    ],
    ids=["none", "container", "unlimited", "pod", "tightest", "v1", "v1-container"],
)  # fmt: skip
def test_what_the_kernel_grants(tmp_path, membership, files, want):
    (tmp_path / "self").write_text(membership + "\n")
    mount = tmp_path / "cgroup"
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text + "\n")
    assert dataclasses.astuple(limits.granted(tmp_path / "self", mount)) == want
    assert limits.granted(tmp_path / "no-proc", mount) == limits.Granted(None, None)


def test_fewer_workers_rather_than_out_of_memory(product, caplog):
    selection = select(parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here"), "")
    tile = dataclasses.replace(selection, arrays=(dataclasses.replace(selection.arrays[0], shape=(10980, 10980), dtype="<u2"),))
    found = [limits.affordable(4, tile, limit and limit * 10**9) for limit in (None, 4, 2, 1.5, 1)]
    assert found == [4, 4, 2, 1, 1]
    assert "may not be enough" in caplog.text
    assert limits.affordable(4, selection, 10**9) == 4


class Group:
    """A real control group of this machine, version 1 or 2."""

    def __init__(self, name: str) -> None:
        self._v1 = Path("/sys/fs/cgroup/memory").is_dir()
        roots = ["memory", "cpu"] if self._v1 else [""]
        own = {
            controllers: path
            for _, controllers, path in (line.split(":", 2) for line in limits.MEMBERSHIP.read_text().splitlines())
        }
        self._folders = {root: limits.MOUNT / root / own.get(root if self._v1 else "", "/").lstrip("/") / name for root in roots}

    def create(self) -> None:
        for folder in self._folders.values():
            folder.mkdir()

    def limit(self, memory: int, cpus: float) -> None:
        """Sets both limits; v2 needs the controllers delegated to the group."""
        quota = str(int(cpus * 100_000))
        if self._v1:
            (self._folders["memory"] / "memory.limit_in_bytes").write_text(str(memory))
            (self._folders["cpu"] / "cpu.cfs_quota_us").write_text(quota)
        else:
            (self._folders[""] / "memory.max").write_text(str(memory))
            (self._folders[""] / "cpu.max").write_text(f"{quota} 100000")

    def join(self) -> None:
        for folder in self._folders.values():
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self) -> int:
        """The most that was resident, page cache included."""
        name = "memory.max_usage_in_bytes" if self._v1 else "memory.peak"
        return int((next(iter(self._folders.values())) / name).read_text())

    def remove(self) -> None:
        for folder in self._folders.values():
            with suppress(FileNotFoundError):
                folder.rmdir()


@pytest.fixture
def group() -> Iterator[Group]:
    made = Group(f"geozarr-runner-test-{os.getpid()}")
    try:
        made.create()
        made.limit(4 * GIB, 2)
    except OSError as error:
        made.remove()
        pytest.skip(f"no control group can be made here: {error}")
    yield made
    made.remove()


def _in_group(group: Group, *command: object) -> subprocess.CompletedProcess[str]:
    join: Callable[[], None] = group.join
    return subprocess.run(list(map(str, command)), preexec_fn=join, capture_output=True, text=True, check=False)


def test_limits_of_a_real_control_group_are_seen(group):
    group.limit(2 * GIB, 1.5)
    ended = _in_group(group, sys.executable, "-c", "from geozarr_runner.process import limits; print(limits.granted())")
    assert ended.stdout.strip() == f"Granted(memory={2 * GIB}, cpus=1.5)", ended.stderr


@pytest.fixture(scope="module")
def middling(tmp_path_factory) -> Path:
    """A product whose bands count: 40 Mpx, so that two workers on them take more than one."""
    return write_product(tmp_path_factory.mktemp("middling"), ITEM_ID, size=2160)


def test_a_conversion_in_a_small_container_succeeds_with_fewer_workers(group, middling, tmp_path):
    """Killed by the kernel it would end with -9. The container has room for the base and one array, not for two."""
    selection = select(parse(json.loads((middling / ".zmetadata").read_text())["metadata"], "here"), BANDS)
    largest = max(a.pixels * a.itemsize for a in selection.arrays)
    memory = limits.BASE + int(1.5 * limits.PER_ARRAY * largest)
    group.limit(memory, 2)
    ended = _in_group(group, *program(middling, tmp_path / "o.zarr", groups=BANDS, package="none", engine="fast"))
    assert ended.returncode == 0, ended.stderr
    assert "engine fast, 1 workers" in ended.stderr
    assert group.peak() <= memory
