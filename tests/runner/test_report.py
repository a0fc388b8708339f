"""What lies beside an output: a page that needs nothing but itself, the same as JSON, a picture, a STAC item."""

from __future__ import annotations

import hashlib
import html.parser
import io
import json
import re
from pathlib import Path

import numpy as np
import pystac
import pytest
from extension_schemas import wrong
from geozarr_runner.publish import readers, report
from geozarr_runner.publish.item import extent
from PIL import Image
from pystac.validation.local_validator import LocalValidator

from stac_watch.model.extensions import used
from stac_watch.model.outcome import Check, Counts, Outcome

BANDS = ["b01", "b02", "b03", "b04", "b05", "b06", "b07", "b08", "b8a", "b09", "b11", "b12"]


def _beside(output, end):
    return output.with_name(output.name + end)


class _Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_but_itself(converted):
    page = _Page(_beside(converted, ".report.html").read_text())
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    loaded = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes]
    assert len(loaded) == 1
    assert loaded[0].startswith("data:image/png;base64,")
    assert "url(" not in page.text


def test_page_and_json_say_the_same_as_the_marker(converted):
    marker = json.loads((converted / "stac-watch.json").read_text())
    found = json.loads(_beside(converted, ".report.json").read_text())
    assert [b["band"] for b in found["bands"]] == BANDS
    assert [level["level"] for level in found["levels"]] == ["r10m", "r20m", "r60m", "r120m", "r360m", "r720m"]
    assert found["checks"] == marker["checks"]
    assert [note for note in found["readers"] if "packed" not in note] == [], "in a folder it has no shards, and GDAL opens it"
    assert {one["stage"] for one in found["stages"]} == {"preflight", "stage", "convert", "verify", "package"}
    assert (found["tile"], found["level"], found["sensed"]) == ("T32TQM", "L2A", "2025-10-08T10:00:41Z")
    assert sum(level["bytes"] for level in found["levels"]) < marker["counts"]["bytes_written"]
    page = _Page(_beside(converted, ".report.html").read_text())
    said = re.sub(r"\s+", " ", page.text)
    for word in [
        marker["item_id"],
        marker["key"],
        marker["package"]["sha256"],
        *BANDS,
        *found["readers"],
        *(line for lines in found["open"].values() for line in lines),
        *(c["detail"] for c in marker["checks"]),
    ]:
        assert re.sub(r"\s+", " ", word) in said
    ends = {**report.SUFFIXES, "item": ".item.json", "checksums": ".sha256"}
    assert marker["files"] == {key: str(_beside(converted, end)) for key, end in ends.items()}


def test_the_page_says_how_to_open_the_output_and_that_works(converted, capsys):
    """Its lines for xarray are run as they stand; GDAL's and titiler's name an array that is there."""
    said = json.loads(_beside(converted, ".report.json").read_text())["open"]
    exec("\n".join(said["xarray"]), {})
    assert 0 < float(capsys.readouterr().out) < 1
    [dataset] = said["GDAL, QGIS"]
    assert dataset == f'ZARR:"{converted}":/measurements/reflectance/r10m/b04'
    given = dict(line.split("=", 1) for line in said["titiler-xarray"])
    assert Path(given["url"], given["group"].strip("/"), given["variable"], "zarr.json").is_file()


@pytest.mark.parametrize(
    ("output", "arrays", "ends"),
    [
        (
            "s3://b/o.zarr",
            {"measurements/reflectance/r60m/b8a": 0},
            {"GDAL, QGIS": 'ZARR:"/vsis3/b/o.zarr":/measurements/reflectance/r60m/b8a'},
        ),
        ("/data/o.zarr", {"conditions/geometry/mean_sun_angles": 0}, {}),
    ],
)
def test_another_place_and_an_output_without_bands_are_opened_too(output, arrays, ends):
    said = readers.opened(output, arrays)
    assert output in said["xarray"][1]
    assert {reader: lines[-1] for reader, lines in said.items() if reader.startswith("GDAL")} == ends


def test_the_bands_figures_are_those_of_the_pixels(product, converted):
    import zarr

    found = {b["band"]: b for b in json.loads(_beside(converted, ".report.json").read_text())["bands"]}
    packed = zarr.open_group(str(product), mode="r")["measurements/reflectance/r10m/b04"][...]
    assert found["b04"]["nan_share"] == pytest.approx(np.mean(packed == 0), abs=1e-6)
    assert found["b04"]["mean"] == pytest.approx(packed[packed > 0].mean() * 1e-4 - 0.1, abs=2e-3)
    assert sum(found["b04"]["histogram"]) > 0.9 * np.count_nonzero(packed)
    assert len(found["b04"]["histogram"]) == 48


def test_the_quicklook_is_transparent_where_there_is_no_data(product, converted):
    import zarr

    picture = np.asarray(Image.open(io.BytesIO(_beside(converted, ".quicklook.png").read_bytes())))
    packed = zarr.open_group(str(product), mode="r")["measurements/reflectance/r10m/b04"][...]
    assert picture.shape[2] == 4  # RGBA
    assert np.mean(picture[..., 3] == 0) == pytest.approx(np.mean(packed == 0), abs=0.02)
    assert picture[..., :3][picture[..., 3] > 0].std() > 10, "a picture, not a surface"
    with Image.open(_beside(converted, ".thumbnail.webp")) as small:
        assert (small.format, max(small.size)) == ("WEBP", 343)
        shown = np.asarray(small.convert("RGBA"))
    assert np.mean(shown[..., 3] == 0) == pytest.approx(np.mean(packed == 0), abs=0.02)
    assert shown[shown[..., 3] == 255][:, :3].mean(axis=0) == pytest.approx(
        picture[picture[..., 3] == 255][:, :3].mean(axis=0), abs=8
    )


def test_a_thumbnail_is_small_whatever_it_shows():
    noise = np.random.default_rng(1).integers(0, 256, (915, 915, 4), dtype=np.uint8)
    picture = io.BytesIO()
    noise[..., 3] = np.where(np.add.outer(range(915), range(915)) > 900, 255, 0)  # half a swath
    Image.fromarray(noise).save(picture, "PNG")
    assert len(report.thumbnail(picture.getvalue())) < 100_000


def test_what_comes_from_a_catalog_cannot_become_markup(converted):
    marker = Outcome(
        code=0, reason="done", stage="publish", key="k", attempt=1, item_id="<script>alert(1)</script>",
        source="http://x/?a=1&b=<b>", output_zarr="/o", counts=Counts(),
        checks=(Check("c", "passed", '"><img src=x onerror=alert(1)>'),),
    )  # fmt: skip
    subject = report.Subject("L2A", "", "", {})
    page = report.render(report.describe(converted, {}, marker, (), subject), b"")
    assert not {"script", "img", "b"} & {tag for tag, _ in _Page(page).tags}


@pytest.mark.filterwarnings("ignore:.*LocalValidator.*:DeprecationWarning")  # the one that brings its schemas along
def test_the_item_is_valid_stac_and_says_where_it_came_from(product, converted):
    document = json.loads(_beside(converted, ".item.json").read_text())
    assert list(LocalValidator().item_validator("1.1.0").iter_errors(document)) == []
    assert wrong(document) == []
    item = pystac.Item.from_dict(document)
    marker = json.loads((converted / "stac-watch.json").read_text())
    archive = _beside(converted, ".tar")
    assert item.assets["package"].extra_fields["file:checksum"] == "1220" + hashlib.sha256(archive.read_bytes()).hexdigest()
    assert item.assets["package"].extra_fields["file:size"] == archive.stat().st_size
    assert [Path(link.target).name for link in item.get_links("via")] == [product.name]  # another process may have made it
    assert not item.get_links("derived_from"), "of an item; only the product was asked for"
    for name, end, kind in (("overview", ".quicklook.png", "image/png"), ("thumbnail", ".thumbnail.webp", "image/webp")):
        picture = _beside(converted, end).read_bytes()
        assert item.assets[name].extra_fields["file:checksum"] == "1220" + hashlib.sha256(picture).hexdigest()
        assert (item.assets[name].media_type, item.assets[name].roles) == (kind, [name])
    assert document["stac_extensions"] == used(document)
    assert {"product", "reflectance", "SCL_20m", "AOT_10m", "WVP_10m", "report"} <= item.assets.keys()
    reflectance = item.assets["reflectance"].extra_fields
    assert (reflectance["proj:code"], reflectance["proj:shape"]) == ("EPSG:32632", [756, 756])
    assert [band["name"] for band in reflectance["bands"]] == sorted(BANDS)
    assert {(b["name"], b["gsd"], b["eo:center_wavelength"], b["eo:full_width_half_max"]) for b in reflectance["bands"]} >= {
        ("b02", 10, 0.4927, 0.065), ("b8a", 20, 0.8647, 0.02), ("b09", 60, 0.9451, 0.02),
    }  # fmt: skip
    alone = {key: asset for key, asset in item.assets.items() if key.startswith("B")}
    assert {"B02_10m", "B08_10m", "B8A_20m", "B09_60m"} <= alone.keys()
    assert [asset.extra_fields["bands"] for _, asset in sorted(alone.items())] == [[band] for band in reflectance["bands"]]
    for asset in alone.values():  # each is an array, on the grid that it says
        place = converted.parent / asset.href / "zarr.json"
        array = json.loads(place.read_text())
        assert (array["node_type"], array["shape"]) == ("array", asset.extra_fields["proj:shape"])
        assert asset.extra_fields["data_type"] == array["data_type"]
        assert abs(asset.extra_fields["proj:transform"][0]) == asset.extra_fields["gsd"]
    assert len(reflectance["proj:transform"]) == 6
    assert item.properties["processing:software"] == marker["versions"]
    for name, asset in item.assets.items():
        assert (converted.parent / asset.href).exists(), name
    assert item.bbox[0] < item.bbox[2]


@pytest.mark.parametrize(
    ("geometry", "box"),
    [
        ({"type": "Polygon", "coordinates": [[[11.4, 42.4], [12.8, 42.3], [12.7, 41.4], [11.4, 42.4]]]}, [11.4, 41.4, 12.8, 42.4]),
        (
            {"type": "MultiPolygon", "coordinates": [[[[179, 1], [180, 2], [179, 1]]], [[[-180, 1], [-179, 3], [-180, 1]]]]},
            [179, 1, -179, 3],
        ),
        ({"type": "Polygon", "coordinates": [[["east", 1]]]}, None),
        ({"type": "Polygon", "coordinates": [[[float("nan"), 1], [2, 3]]]}, None),
        ({"type": "Point", "coordinates": [1, 2]}, None),
        (None, None),
        ("null", None),
    ],
    ids=["polygon", "across-180", "no-numbers", "nan", "point", "none", "text"],
)  # fmt: skip
def test_the_bounding_box_is_the_polygons(geometry, box):
    assert extent(geometry) == box
