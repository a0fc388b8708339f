"""The archive of an output: the same bytes for the same content, whatever the disk says besides, and what tarfile itself makes."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from geozarr_runner.publish.package import kind_of, pack

from stac_watch.model.outcome import MARKER

FILES = {
    "zarr.json": b"{}", "a/zarr.json": b"a", "a/c/0/0": b"x" * 511, "a/c/0/1": b"y" * 512, "a/c/0/10": b"z" * 2_100_000,
    "a-b/c/0": b"", f"{'deep/' * 30}zarr.json": b"a name that is too long for a header of 1988", "é/zarr.json": b"?",
}  # fmt: skip


@pytest.fixture
def store(tmp_path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "o.zarr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "o.zarr" / MARKER).write_bytes(b"states the archive's checksum")
    return tmp_path / "o.zarr"


def _packed(store: Path, kind: str = "tar") -> bytes:
    archive, told = store.parent / "archive", []
    size, digest = pack(store, archive, name="o.zarr", kind=kind, advance=told.append)
    data = archive.read_bytes()
    assert (size, digest, sum(told)) == (len(data), hashlib.sha256(data).hexdigest(), len(FILES))
    return data


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member


def test_the_archive_is_the_one_that_tarfile_makes_and_holds_all_but_the_marker(store):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(p for p in store.rglob("*") if p.name != MARKER):
            tar.add(path, arcname=f"o.zarr/{path.relative_to(store)}", recursive=False, filter=_anonymous)
    data = _packed(store)
    assert data == out.getvalue(), "archives of earlier versions have the same checksum"
    assert gzip.decompress(_packed(store, "tar.gz")) == data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        held = {m.name.removeprefix("o.zarr/"): tar.extractfile(m).read() for m in tar if m.isfile()}
    assert held == FILES


def _modes(store: Path) -> None:
    for path in store.rglob("*"):
        path.chmod(0o700)


def _times(store: Path) -> None:
    for path in store.rglob("*"):
        os.utime(path, (0, 0))


def _second_names(store: Path) -> None:
    """As a mirror's objects have: of one content twice, tarfile would make a link."""
    (store / "a/c/0/0").unlink()
    (store / "a/c/0/0").write_bytes(FILES["a/c/0/0"])
    for path in [p for p in store.rglob("*") if p.is_file()]:
        os.link(path, store.parent / f"second-{path.stat().st_ino}")


def _symlinks(store: Path) -> None:
    shutil.move(store / "a/c/0/10", store.parent / "elsewhere")
    (store / "a/c/0/10").symlink_to(store.parent / "elsewhere")


def _empty_folder(store: Path) -> None:
    (store / "b/c/0").mkdir(parents=True)


def _another_order(store: Path) -> None:
    for name in reversed(FILES):
        data = (store / name).read_bytes()
        (store / name).unlink()
        (store / name).write_bytes(data)


@pytest.mark.parametrize("otherwise", [_modes, _times, _second_names, _symlinks, _empty_folder, _another_order])
def test_what_the_disk_says_besides_changes_nothing(store, otherwise):
    before = _packed(store)
    otherwise(store)
    assert _packed(store) == before


@pytest.mark.parametrize(("asked", "output", "made"), [
    ("auto", "/data/o.zarr", "tar"), ("auto", "/data//a/../o.zarr", "tar"), ("auto", "/database/o.zarr", "none"),
    ("auto", "/data/../tmp/o.zarr", "none"), ("auto", "s3://b/data/o.zarr", "none"), ("auto", "out/o.zarr", "none"),
    ("tar", "s3://b/o.zarr", "tar"), ("none", "/data/o.zarr", "none"), ("tar.gz", "o.zarr", "tar.gz"),
    ("auto", "file:///data/o.zarr", "tar"),
])  # fmt: skip
def test_nobody_pays_twice_for_an_output_that_is_read_where_it_lies(asked, output, made):
    assert kind_of(asked, output) == made
