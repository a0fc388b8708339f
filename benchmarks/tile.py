"""A product of any size for benchmarks, in seconds and little memory: a small scene of the demo, repeated.

In: a folder, an item id, an edge. Out: a Zarr v2 product with the structure of a real L2A, its pixels those of a scene of 1440 x
1440 laid side by side, with noise of their own. Never: used by tests. Seams and a wedge of nodata in each are no picture, but
compress and convert alike.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from stac_watch.demo.product import SIZE_STEP, write_product
from stac_watch.demo.structure import SIZES, l2a_structure

PATTERN = 1440  #: pixels at 10 m; far more than the compressor looks back
_QUICKLOOK = "quicklook"  #: the converter drops it, so nobody reads these chunks and they are left out: as fill


def write_tile(folder: Path, item_id: str, size: int) -> Path:
    """Writes `<folder>/<item_id>.zarr` and returns its path; small products come from the demo as they are."""
    if size != SIZES[10] and not size % SIZE_STEP and size <= PATTERN:
        return write_product(folder, item_id, size=size)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{item_id}.zarr"
    with tempfile.TemporaryDirectory(dir=folder) as scratch, ThreadPoolExecutor(2) as pool:
        pattern = write_product(Path(scratch), item_id, size=PATTERN)
        unfinished, metadata, jobs = Path(scratch) / "unfinished", {}, []
        for name, node in _walk(l2a_structure(item_id), ""):
            documents = {".zattrs": node["attributes"]} if node["attributes"] else {}
            if "members" in node:
                documents[".zgroup"] = {"zarr_format": 2}
            else:
                array = _sized({k: v for k, v in node.items() if k != "attributes"}, size)
                documents[".zarray"] = array
                if _QUICKLOOK not in name:
                    jobs.append(pool.submit(_write_array, pattern / name, unfinished / name, array))
            for kind, document in documents.items():
                (unfinished / name).mkdir(parents=True, exist_ok=True)
                (unfinished / name / kind).write_text(json.dumps(document))
                metadata[f"{name}/{kind}".lstrip("/")] = document
        (unfinished / ".zmetadata").write_text(json.dumps({"metadata": metadata, "zarr_consolidated_format": 1}))
        for job in jobs:
            job.result()
        unfinished.rename(path)
    return path


def _walk(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, member in node.get("members", {}).items():
        yield from _walk(member, f"{path}/{name}".lstrip("/"))


def _sized(array: dict[str, Any], size: int) -> dict[str, Any]:
    """Returns an array's metadata with every full edge in proportion to `size`."""
    edges = {full: size * 10 // gsd for gsd, full in SIZES.items()}
    chunks = [ceil(c * edges[n] / n) if n in edges else c for n, c in zip(array["shape"], array["chunks"], strict=True)]
    return {**array, "shape": [edges.get(n, n) for n in array["shape"]], "chunks": chunks}


def _write_array(source: Path, target: Path, array: dict[str, Any]) -> None:
    """Writes every chunk: the pattern repeated, or continued where it is an axis; full chunks at the edges, as Zarr v2 has them."""
    pattern = _read(source)
    codec = numcodecs.get_codec(array["compressor"]) if array["compressor"] else None
    target.mkdir(parents=True, exist_ok=True)
    shape, chunks = array["shape"], array["chunks"]
    for index in itertools.product(*(range(ceil(n / c)) for n, c in zip(shape, chunks, strict=True))):
        starts = [i * c for i, c in zip(index, chunks, strict=True)]
        block = _continued(pattern, starts[0], chunks[0]) if _is_axis(pattern, shape) else _repeated(pattern, starts, chunks)
        if "/reflectance/" in str(target) and block.ndim == 2:  # (y, x)
            block = _with_noise(block, f"{target.name}/{index}")
        name = array.get("dimension_separator", ".").join(map(str, index)) or "0"
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(codec.encode(block) if codec else block.tobytes())


def _read(folder: Path) -> Any:  # noqa: ANN401  # a numpy array
    array = json.loads((folder / ".zarray").read_text())
    codec = numcodecs.get_codec(array["compressor"]) if array["compressor"] else None
    out = np.empty(array["shape"], array["dtype"])
    grid = [range(ceil(n / c)) for n, c in zip(array["shape"], array["chunks"], strict=True)]
    for index in itertools.product(*grid):
        data = (folder / (array.get("dimension_separator", ".").join(map(str, index)) or "0")).read_bytes()
        chunk = np.frombuffer(codec.decode(data) if codec else data, array["dtype"]).reshape(array["chunks"])
        where = tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, array["chunks"], strict=True))
        out[where] = chunk[tuple(slice(0, n) for n in out[where].shape)]
    return out


def _is_axis(pattern: Any, shape: list[int]) -> bool:  # noqa: ANN401  # a numpy array
    return pattern.ndim == 1 and list(pattern.shape) != shape


def _continued(pattern: Any, start: int, length: int) -> Any:  # noqa: ANN401  # a numpy array
    step = pattern[1] - pattern[0]
    return (pattern[0] + step * np.arange(start, start + length)).astype(pattern.dtype)


def _with_noise(block: Any, seed: str) -> Any:  # noqa: ANN401  # a numpy array
    """Adds noise of its own, 6 counts as a sensor has: a row that repeats itself would compress to a quarter of a real one."""
    noise = np.random.default_rng(zlib.crc32(seed.encode())).integers(0, 21, block.shape, np.uint8)
    return np.where(block > 0, block + noise, 0).astype(block.dtype)


def _repeated(pattern: Any, starts: list[int], chunks: list[int]) -> Any:  # noqa: ANN401  # a numpy array
    block = pattern
    for axis, (start, length) in enumerate(zip(starts, chunks, strict=True)):
        if length != pattern.shape[axis] or start:
            block = np.take(block, np.arange(start, start + length) % pattern.shape[axis], axis=axis)
    return np.ascontiguousarray(block)
