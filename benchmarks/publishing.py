"""What it costs to publish an output: an archive by tarfile and by us, an upload by s3fs alone and by us: `make bench-publishing`.

In: megabytes, a number of objects. Out: a table of processor seconds, and JSON. Never: a real store's latency. The
upload that is ours is the whole protocol, claim, listings and marker included; s3fs's is `put` and no more.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
from geozarr_runner.publish import bucket
from geozarr_runner.publish.package import pack
from geozarr_runner.request import Identity
from result import Goal, Result
from s3_server import S3Server

from stac_watch.model.outcome import MARKER, Counts, Outcome

KEY = "0" * 20


def main() -> int:
    """Measures, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="of the output")
    parser.add_argument("--objects", type=int, default=390, help="of the output")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = _store(folder / "o.zarr", asked.megabytes, asked.objects)
        size = sum(p.stat().st_size for p in store.rglob("*") if p.is_file()) / 1e6
        (ours, one), (theirs, other) = (_spent(lambda pack=p: pack(store, folder / "archive")) for p in (_ours, _tarfile))
        if one != other:
            raise SystemExit("the archives differ")
        with S3Server() as server:
            os.environ |= server.environment
            alone, _ = _spent(lambda: _put(store))
            whole, _ = _spent(lambda: _publish(store))
    rows = [
        ("archive: tarfile, hashed as it is written", theirs, 1.0), ("archive: ours, the same bytes", ours, ours / theirs),
        ("upload: s3fs `put`, nothing verified", alone, 1.0), ("upload: ours, each object verified", whole, whole / alone),
    ]  # fmt: skip
    Result(
        "publishing", f"Publishing {size:.0f} MB in {asked.objects} objects", "make bench-publishing",
        ("way", "CPU, s", "ratio"), rows,
        notes=["The S3 server is moto's, in a process of its own, over HTTP: there S3 clients sign the SHA-256 of what they send."],
        goals=[Goal("archive, CPU s", ours, 2.0), Goal("upload, CPU s", whole, 4.0)],
    ).keep()  # fmt: skip
    return 0


def _store(path: Path, megabytes: int, objects: int) -> Path:
    """Writes an output of random bytes, in objects of sizes as a tile's: few large ones hold most of it."""
    chance = random.Random(1)  # noqa: S311  # pixels that nobody looks at
    weights = [1 / (n + 4) for n in range(objects)]
    for n, weight in enumerate(weights):
        file = path / f"a{n}" / "c" / "0"
        file.parent.mkdir(parents=True)
        file.write_bytes(chance.randbytes(int(megabytes * 1e6 * weight / sum(weights))))
    (path / "zarr.json").write_text("{}")
    files = [p for p in path.rglob("*") if p.is_file()]
    counts = Counts(files=len(files), bytes_written=sum(p.stat().st_size for p in files))
    (path / MARKER).write_text(Outcome(code=0, key=KEY, counts=counts).as_json())
    return path


def _spent[T](work: Callable[[], T]) -> tuple[float, T]:
    before = time.process_time()
    found = work()
    return time.process_time() - before, found


def _ours(store: Path, archive: Path) -> str:
    return pack(store, archive, name=store.name, kind="tar")[1]


def _tarfile(store: Path, archive: Path) -> str:
    digest = hashlib.sha256()

    class Hashing:
        def __init__(self) -> None:
            self.file = archive.open("wb")

        def write(self, data: bytes) -> int:
            digest.update(data)
            return self.file.write(data)

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() else 0o644
        return member

    with tarfile.open(fileobj=Hashing(), mode="w|", bufsize=1 << 20, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for path in sorted(p for p in store.rglob("*") if p.name != MARKER):
            tar.add(path, arcname=f"{store.name}/{path.relative_to(store).as_posix()}", recursive=False, filter=anonymous)
    return digest.hexdigest()


def _put(store: Path) -> None:
    fs = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    fs.mkdir("bench")
    files = [p for p in store.rglob("*") if p.is_file()]
    fs.put([str(p) for p in files], [f"bench/plain/{p.relative_to(store).as_posix()}" for p in files], batch_size=16)


def _publish(store: Path) -> None:
    target = bucket.open_store("s3://bench/ours/o.zarr")
    outcome = bucket.marker.read(store)
    if outcome is None:
        raise SystemExit("the output has no marker")
    asks = bucket.Asks(Identity(KEY), wait=threading.Event().wait)
    bucket.publish(target, store, outcome, asks, advance=lambda _: None)


if __name__ == "__main__":
    sys.exit(main())
