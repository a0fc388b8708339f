"""What a person wants to see of a conversion: one HTML page without scripts, the same as JSON, and two true-colour pictures.

CSS, SVG and the picture are in the page. The picture is made of an overview: a thousand pixels show the same as a band at full
resolution. No scripts, because Argo's UI serves artifacts under a Content-Security-Policy that forbids them and allows inline
styles.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from geozarr_runner.publish import readers
from geozarr_runner.publish.physical import physical
from geozarr_runner.source.product import NATIVE_LEVELS, OVERVIEWS, REFLECTANCE
from geozarr_runner.verify.findings import Compared
from stac_watch.model.outcome import Outcome

LEVELS = (*NATIVE_LEVELS, *OVERVIEWS)
SUFFIXES = {
    "report": ".report.html", "report_json": ".report.json", "quicklook": ".quicklook.png", "thumbnail": ".thumbnail.webp",
}  # fmt: skip
"""Name in the outcome -> what is appended to the output's name."""
_ENOUGH = 500  #: pixels; a level with this edge is enough for a histogram and a quicklook
_MOST = 1100  #: pixels; the quicklook's longest edge: a full tile's r120m has 915
_THUMB = 343  #: pixels; a thumbnail's longest edge: what the source's own have, for pages with dozens of them
_BINS = 48
_BRIGHT = 0.98  #: quantile of the three bands that becomes white; clouds may saturate
_GAMMA = 1.7  #: lifts land, which reflects 5 to 15 %, out of the dark


@dataclass(frozen=True)
class Subject:
    """What the page is about, beside the outcome."""

    level: str
    sensed: str  # RFC 3339
    tile: str
    bytes_by_stage: Mapping[str, int]


def write(
    folder: Path, name: str, output: Path, outcome: Outcome, findings: tuple[Compared, ...], subject: Subject
) -> dict[str, Path]:
    """Writes the report's files into `folder` and returns them by their name in the outcome.

    Args:
        folder: exists.
        name: the output's name, with which the files' names begin.
        output: the store.
        outcome: as far as it is known; what the marker will say.
        findings: of `verify`, for the bands' share of NaN.
        subject: scene and stages.

    Raises:
        OSError: they cannot be written.
    """
    group = zarr.open_group(str(output), mode="r")
    arrays = {path: physical(node) for path, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
    picture = quicklook(arrays)
    document = describe(output, arrays, outcome, findings, subject)
    paths = {key: folder / f"{name}{suffix}" for key, suffix in SUFFIXES.items() if picture or key.startswith("report")}
    if picture:
        paths["quicklook"].write_bytes(picture)
        paths["thumbnail"].write_bytes(thumbnail(picture))
    paths["report_json"].write_text(json.dumps(document, indent=1) + "\n")
    paths["report"].write_text(render(document, picture))
    return paths


def describe(
    output: Path, arrays: Mapping[str, Any], outcome: Outcome, findings: tuple[Compared, ...], subject: Subject
) -> dict[str, Any]:
    """Returns the report as a JSON document: what the page shows, and nothing else."""
    return {
        "schema": "urn:stac-watch:report:1",
        **outcome.document(whole=True),
        "level": subject.level,
        "sensed": subject.sensed,
        "tile": subject.tile,
        "stages": [
            {"stage": stage, "seconds": seconds, "bytes": subject.bytes_by_stage.get(stage)}
            for stage, seconds in outcome.seconds.items()
        ],
        "bands": list(_bands(arrays, {f.path: f for f in findings})),
        "levels": list(_levels(output, arrays)),
        "readers": list(readers.notes(arrays)),
        "open": readers.opened(outcome.output_zarr, arrays),
    }


def quicklook(arrays: Mapping[str, Any]) -> bytes:
    """Returns a true-colour PNG (b04, b03, b02), transparent where there is no data; empty when the output has not all three."""
    from PIL import Image

    level = _coarse_level(arrays, ("b04", "b03", "b02"))
    if not level:
        return b""
    bands = [np.asarray(arrays[f"{REFLECTANCE}/{level}/{name}"]) for name in ("b04", "b03", "b02")]
    step = max(1, -(-max(bands[0].shape) // _MOST))
    rgb = np.stack([band[::step, ::step] for band in bands], axis=-1)
    valid = np.isfinite(rgb).all(axis=-1)
    white = max(0.15, float(np.quantile(rgb[valid], _BRIGHT))) if valid.any() else 1.0
    shade = (np.clip(np.nan_to_num(rgb) / white, 0, 1) ** (1 / _GAMMA) * 255).round().astype(np.uint8)
    picture = Image.fromarray(np.dstack([shade, np.where(valid, 255, 0).astype(np.uint8)]))
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=4)  # 3 % larger than the least, in a fifth of the time
    return stream.getvalue()


def thumbnail(picture: bytes) -> bytes:
    """Returns a quicklook as small as pages show dozens of: WebP, at most 343 pixels and some 30 kB, transparent as it is."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as whole:
        whole.thumbnail((_THUMB, _THUMB), Image.Resampling.BOX)
        stream = io.BytesIO()
        whole.save(stream, "WEBP", quality=80, method=2)
    return stream.getvalue()


def render(document: Mapping[str, Any], picture: bytes) -> str:
    """Returns the page. Every value is escaped: titles and errors come from other people's catalogs."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    template = files("geozarr_runner.publish").joinpath("report.html.j2").read_text()
    environment = Environment(
        loader=DictLoader({"page": template}), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"size": human_size, "bars": bars}
    data = f"data:image/png;base64,{base64.b64encode(picture).decode()}" if picture else ""
    return environment.get_template("page").render(**document, picture=data)


def human_size(number: float | None) -> str:
    """Returns bytes for people, in powers of ten."""
    if number is None:
        return ""
    power = min(3, max(0, len(f"{number:.0f}") - 1) // 3)
    value, unit = number / 1000**power, ("B", "kB", "MB", "GB")[power]
    return f"{value:.0f} {unit}" if power == 0 or value >= 100 else f"{value:.1f} {unit}"  # three digits are enough


def bars(histogram: list[int], width: int = 144, height: int = 26) -> str:
    """Returns an SVG path: one bar per bin, the highest as high as the picture."""
    top, wide = max(histogram, default=0) or 1, width / max(1, len(histogram))
    points = [f"M0 {height}"]
    for index, number in enumerate(histogram):
        y = height - number / top * height
        points.append(f"V{y:.1f}H{(index + 1) * wide:.1f}")
    return "".join([*points, f"V{height}Z"])


def _bands(arrays: Mapping[str, Any], findings: Mapping[str, Compared]) -> Iterator[dict[str, Any]]:
    there = {path.rpartition("/")[2] for path, node in arrays.items() if path.startswith(REFLECTANCE) and node.ndim == 2}  # (y, x)
    names = sorted(there, key=lambda name: name.replace("b8a", "b08a"))  # by wavelength, as people know them
    for name in names:
        finest = next(level for level in LEVELS if f"{REFLECTANCE}/{level}/{name}" in arrays)
        shown = _coarse_level(arrays, (name,)) or finest
        array = arrays[f"{REFLECTANCE}/{shown}/{name}"]
        step = max(1, max(array.shape) // (2 * _MOST))
        values = np.asarray(array[::step, ::step], dtype=np.float64)
        values = values[np.isfinite(values)]
        counted = [f for level in LEVELS if (f := findings.get(f"{REFLECTANCE}/{level}/{name}")) and f.whole and f.pixels]
        low, high = (float(q) for q in np.quantile(values, (0.001, 0.995))) if values.size else (0.0, 1.0)
        yield {
            "band": name, "native": finest, "histogram_of": shown,
            "long_name": str(arrays[f"{REFLECTANCE}/{finest}/{name}"].attrs.get("long_name", "")),
            "nan_share": round(counted[0].nan / counted[0].pixels, 6) if counted else None,
            "pixels_compared": sum(f.pixels for path, f in findings.items() if path.endswith(f"/{name}")),
            "mean": round(float(values.mean()), 5) if values.size else None,
            "low": round(low, 5), "high": round(high, 5),
            "histogram": np.histogram(values, bins=_BINS, range=(low, max(high, low + 1e-9)))[0].tolist(),
        }  # fmt: skip


def _levels(output: Path, arrays: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for level in LEVELS:
        members = [node for path, node in arrays.items() if path.startswith(f"{REFLECTANCE}/{level}/") and node.ndim == 2]  # (y, x)
        if members:
            sizes = [p.stat().st_size for p in (output / REFLECTANCE / level).rglob("*") if p.is_file()]
            yield {
                "level": level, "metres": int(level.strip("rm")), "shape": list(members[0].shape),
                "chunks": list(members[0].chunks), "bands": len(members), "files": len(sizes), "bytes": sum(sizes),
            }  # fmt: skip


def _coarse_level(arrays: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Returns the coarsest level that has all of `names` and is big enough; else the finest that has them; else nothing."""
    having = [level for level in LEVELS if all(f"{REFLECTANCE}/{level}/{name}" in arrays for name in names)]
    enough = [level for level in having if min(arrays[f"{REFLECTANCE}/{level}/{names[0]}"].shape) >= _ENOUGH]
    return enough[-1] if enough else having[0] if having else ""
