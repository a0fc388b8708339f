"""Both images: their size, and how long a container of each needs from its start to `--help` and to its first line of log.

In: how often (5 by default). Out: a table; build/bench/images.json. Never: part of the tests; builds by `make build` what is not
built yet, in the tests' store (tests/images/lab.py; root on Debian), and touches no other image.

Cold: none of the image's files is in the page cache, as on a node that has just pulled it. Warm: the fastest. "Not compiled" is the
same image with Python told to ignore the bytecode in it: what an image costs whose build left it out, at every start.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from result import Result

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "images"))

from lab import ITEM, Lab, Opened, missing, open_lab  # noqa: E402

from stac_watch.demo.product import write_product  # noqa: E402

TAG = "bench-images"
CONFIG = """
ledger: sqlite:///stac-watch.db
sources: [{name: here, api: "http://127.0.0.1:9", collection: sentinel-2-l2a, allowed_hosts: [127.0.0.1]}]
recipe: {output: "var/{item_id}.zarr"}
engine: {kind: local}
"""
#: image -> target of make, and what gives the first line of log
IMAGES = {
    "geozarr-runner": ("build", ["run", f"--stac-url=/data/{ITEM}.zarr", "--output-zarr=/data/out.zarr", "--overwrite=true"]),
    "stac-watch": ("build-poller", ["watch", "--config", "stac-watch.yaml"]),
}


@dataclass(frozen=True)
class Figures:
    """One image; sizes in MB, times in seconds."""

    image: str
    unpacked: float
    compressed: float
    help_cold: float
    help_warm: float
    help_not_compiled: float
    log_cold: float
    log_warm: float
    log_not_compiled: float


def measure(lab: Lab, name: str, folder: Path, times: int) -> Figures:
    """Builds, opens and starts one image."""
    target, first = IMAGES[name]
    lab.make(target, f"TAG={TAG}")
    whole = f"docker.io/library/{name}:{TAG}"
    with lab.opened(whole) as image:
        lazy = replace(image, config={**image.config, "Env": [*image.config["Env"], "PYTHONPYCACHEPREFIX=/tmp/none"]})
        found: list[float] = []
        for argv in (["--help"], first):
            cold = []
            for _ in range(times):
                _forget(image.root)
                cold.append(_first_line(image, argv, folder))
            warm = min(_first_line(image, argv, folder) for _ in range(times))
            found += [statistics.median(cold), warm, min(_first_line(lazy, argv, folder) for _ in range(times))]
        return Figures(name, _unpacked(image.root) / 1e6, _compressed(lab, whole) / 1e6, *found)


def _first_line(image: Opened, argv: list[str], folder: Path) -> float:
    """Seconds from the container's start to its first line, on either stream; the container is ended then."""
    began = time.perf_counter()
    argv = image.argv(*argv, folder=folder)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=image.lab.environ) as process:  # noqa: S603  # our own
        line = process.stdout.readline() if process.stdout else b""
        took = time.perf_counter() - began
        process.kill()
    if not line.strip() or b"Traceback" in line:
        raise SystemExit(f"{image.config['Entrypoint']} said {line!r}")
    return took


def _forget(root: Path) -> None:
    """Drops the image's files, and no others, from the page cache."""
    for path in (p for folder in ("opt", "usr") for p in (root / folder).rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _unpacked(root: Path) -> int:
    sizes = {(s.st_dev, s.st_ino): s.st_size for s in (p.lstat() for p in root.rglob("*"))}
    return sum(sizes.values())


def _compressed(lab: Lab, image: str) -> int:
    """What is pulled: the archive, compressed as registries keep layers."""
    with TemporaryDirectory(dir=lab.places.cache / ".work") as folder:
        archive = Path(folder) / "image.tar"
        lab.call("buildah", "push", "--quiet", image, f"docker-archive:{archive}:{image}")
        packed = 0
        with archive.open("rb") as file:
            while block := file.read(1 << 24):
                packed += len(gzip.compress(block, compresslevel=6))
    return packed


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="starts of each kind")
    arguments = parser.parse_args()
    if reason := missing():
        raise SystemExit(reason)
    with open_lab(os.environ) as lab, TemporaryDirectory() as made:
        folder = Path(made)
        write_product(folder, ITEM)
        (folder / "stac-watch.yaml").write_text(CONFIG)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 10001, 10001)
        figures = [measure(lab, name, folder, arguments.times) for name in IMAGES]
    starts = [f"{what} {how}, s" for what in ("--help", "first log line") for how in ("cold", "warm", "not compiled")]
    columns = ["image", "unpacked, MB", "to pull, MB", *starts]
    Result("images", "Images: size and start", "make bench-images", columns, [list(asdict(f).values()) for f in figures]).keep()


if __name__ == "__main__":
    main()
