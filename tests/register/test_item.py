"""The item that is registered, the collection around it, and whether a catalog gives it back."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from extension_schemas import wrong
from pystac.validation.local_validator import LocalValidator
from shop import BASE, COLLECTION, described

from stac_watch.config.register import Register
from stac_watch.model.errors import InputError
from stac_watch.model.extensions import used
from stac_watch.register.collection import default, merged, widened
from stac_watch.register.compared import difference
from stac_watch.register.item import outputs_of, postable

ITEM = "S2B_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
HREF = f"https://stac.example/collections/sentinel-2-l2a/items/{ITEM}"
S3 = f"s3://bucket/scenes/{ITEM}.zarr"
SOURCE = {
    "properties": {
        "platform": "sentinel-2a", "sat:platform_international_designator": "2015-028A", "view:sun_elevation": 49.3049,
        "view:sun_azimuth": 163.5959, "sci:doi": "10.5270/S2_-znk9xsj", "eo:cloud_cover": 99.0, "xarray:open_kwargs": {},
        "processing:software": {"EOPF-CPM": "2.6.2", "Sentinel-2 IPF": " "}, "published": "2025-10-08T12:26:13.5Z",
    },
    "links": [
        {"rel": "license", "href": "https://example.org/terms"}, {"rel": "self", "href": "https://stac.example/x"},
        {"rel": "xyz", "href": "https://old.example/{z}"},
    ],
    "assets": {"zipped_product": {"href": "https://old.example/x.zip"}},
}  # fmt: skip


def _registered(output: str = S3, source: dict | None = None, template: str = "s3://bucket/scenes/{item_id}.zarr", **over):
    register = Register.model_validate({"api": "https://mine.example", "collection": COLLECTION, "href_base": BASE, **over})
    return postable(
        described(ITEM, "2026-03-01T12:00:00Z"), register, outputs_of(template, BASE),
        output=output, item_href=HREF, source=source,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*LocalValidator.*:DeprecationWarning")  # the one that brings its schemas along
@pytest.mark.parametrize("source", [None, SOURCE], ids=["alone", "with-its-source"])
def test_it_is_valid_absolute_and_declares_what_it_uses(source):
    links = [{"rel": "xyz", "href": "https://t.example/{z}/{x}/{y}.png?url={store}&id={item_id}", "type": "image/png"}]
    document = _registered(source=source, links=links, expires_after="90d").document
    assert list(LocalValidator().item_validator("1.1.0").iter_errors(document)) == []
    assert document["stac_extensions"] == used(document)
    assert wrong(document) == []
    hrefs = [asset["href"] for asset in document["assets"].values()] + [link["href"] for link in document["links"]]
    assert all(href.startswith("https://") for href in hrefs)
    assert document["assets"]["reflectance"]["alternate"]["s3"]["href"] == f"{S3}/measurements/reflectance"
    assert document["properties"]["expires"] == "2026-01-06T10:00:41Z"
    of = {link["rel"]: link["href"] for link in document["links"]}
    assert of["collection"] == f"https://mine.example/collections/{COLLECTION}"
    assert (of["derived_from"], of["via"]) == (HREF, f"https://objects.example/{ITEM}.zarr")
    assert of["store"] == f"{BASE}/scenes/{ITEM}.zarr"
    assert of["xyz"] == f"https://t.example/{{z}}/{{x}}/{{y}}.png?url={quote(of['store'], safe='')}&id={ITEM}"
    assert not {"self", "root", "parent"} & of.keys()


def test_what_only_the_source_says_is_taken_and_set_right_and_its_mistakes_are_not():
    found = _registered(source=SOURCE)
    said = found.document["properties"]
    assert (said["platform"], said["sat:platform_international_designator"]) == ("sentinel-2b", "2017-013A")
    assert said["view:sun_elevation"] == pytest.approx(40.6951)
    assert (said["eo:cloud_cover"], said["published"]) == (12.5, "2025-10-08T12:26:13.500000Z")
    assert said["processing:software"] == {"EOPF-CPM": "2.6.2", "geozarr-runner": "0.1.0"}
    assert "xarray:open_kwargs" not in said
    assert "zipped_product" not in found.document["assets"]
    rels = [link["rel"] for link in found.document["links"]]
    assert rels.count("license") == rels.count("cite-as") == 1
    assert "xyz" not in rels
    assert [note.partition(" ")[0] for note in found.notes] == [
        "platform", "sat:platform_international_designator", "view:sun_elevation",
    ]  # fmt: skip
    assert found.digest == _registered(source=SOURCE).digest != _registered().digest


@pytest.mark.parametrize(
    ("template", "output", "url"),
    [
        ("s3://b/x/{item_id}.zarr", "s3://b/x/a.zarr", f"{BASE}/x/a.zarr"),
        ("s3://b/{collection}/{item_id}.zarr", "s3://b/c/a.zarr/", f"{BASE}/c/a.zarr"),
        ("var/outputs/{collection}/{item_id}.zarr", "var/outputs/c/a.zarr", f"{BASE}/c/a.zarr"),
        ("/data/{item_id}.zarr", "/data/a.zarr", f"{BASE}/a.zarr"),
        ("out-{item_id}.zarr", "out-a.zarr", f"{BASE}/out-a.zarr"),
        ("s3://b/{item_id}.zarr", "s3://b/T32/a b.zarr", f"{BASE}/T32/a%20b.zarr"),
    ],
)
def test_an_outputs_url_follows_from_the_template(template, output, url):
    assert outputs_of(template, BASE).url(output) == url


@pytest.mark.parametrize("output", ["s3://other/a.zarr", "/elsewhere/a.zarr", "var/outputs-old/a.zarr", "s3://bucket-2/a.zarr"])
def test_what_lies_elsewhere_has_no_url(output):
    with pytest.raises(InputError, match="href_base stands for"):
        _registered(output)
    with pytest.raises(InputError, match="href_base stands for"):
        _registered(output, template="var/outputs/{item_id}.zarr")


def test_items_of_earlier_versions_get_the_names_of_today():
    old = described(ITEM, "2026-03-01T12:00:00Z")
    old["assets"] = {"geozarr": old["assets"]["product"], "quicklook": old["assets"]["thumbnail"]}
    register = Register.model_validate({"api": "https://mine.example", "collection": COLLECTION, "href_base": BASE})
    found = postable(old, register, outputs_of("s3://bucket/{item_id}", BASE), output=S3, item_href="", source=None)
    assert list(found.document["assets"]) == ["product", "thumbnail"]
    assert "derived_from" not in [link["rel"] for link in found.document["links"]]


@pytest.mark.parametrize("href", ["ftp://x/{z}", "https://x/{tile}", "https://x/a b", "{store}/x"])
def test_a_map_link_that_nobody_can_follow_is_refused(href):
    with pytest.raises(ValueError, match=r"links.0.href"):
        _registered(links=[{"rel": "xyz", "href": href}])


def test_what_a_server_adds_or_spells_anew_is_no_difference_and_what_it_loses_is():
    sent = _registered(source=SOURCE).document
    found = json.loads(json.dumps(sent))
    found["links"] = [{"rel": "self", "href": "https://mine.example/self"}, *reversed(found["links"])]
    found["stac_extensions"] = ["https://stac-extensions.github.io/authentication/v1.1.0/schema.json", *sent["stac_extensions"]]
    found["properties"] |= {"datetime": "2025-10-08T10:00:41.000000+00:00", "auth:schemes": {}}
    found["geometry"]["coordinates"][0][0][0] += 1e-12
    assert difference(sent, found) == ""
    for change, words in (
        (lambda d: d["properties"].pop("eo:cloud_cover"), "properties.eo:cloud_cover is None, 12.5 was sent"),
        (lambda d: d["assets"].pop("thumbnail"), "assets.thumbnail is not there"),
        (lambda d: d["assets"]["product"].update(href="./x"), "assets.product.href is './x'"),
        (lambda d: d["links"].clear(), "links: derived_from"),
        (lambda d: d["stac_extensions"].pop(), "stac_extensions: https"),
        (lambda d: d["geometry"]["coordinates"][0].pop(), "geometry.coordinates.0 is"),
    ):
        other = json.loads(json.dumps(found))
        change(other)
        assert difference(sent, other).startswith(words)


def test_a_collection_grows_with_its_items_and_its_end_stays_open():
    item = _registered().document
    first = widened(default("x"), [item])
    assert first["extent"]["spatial"]["bbox"] == [[11.4, 41.4, 12.7, 42.4]]
    assert widened(first, [item]) == first
    other = {**item, "bbox": [178.0, -10.0, -179.0, -9.0], "properties": item["properties"] | {"platform": "sentinel-2c"}}
    second = widened(first, [other])
    assert second["extent"]["spatial"]["bbox"] == [[-180.0, -10.0, 180.0, 42.4]]
    assert second["summaries"]["platform"] == ["sentinel-2b", "sentinel-2c"]
    closed = {**first, "extent": {**first["extent"], "temporal": {"interval": [["2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z"]]}}}
    assert widened(closed, [item])["extent"]["temporal"]["interval"] == [["2020-01-01T00:00:00Z", "2025-10-08T10:00:41Z"]]


def test_a_file_says_what_it_says_and_what_is_there_besides_stays():
    there = widened(default("x"), [_registered().document]) | {"eodash:x": 1, "links": [{"rel": "about", "href": "https://a"}]}
    found = merged(there, {"type": "Collection", "id": "x", "title": "T", "links": [{"rel": "license", "href": "https://l"}]})
    assert (found["title"], found["eodash:x"], found["extent"]) == ("T", 1, there["extent"])
    assert [link["rel"] for link in found["links"]] == ["about", "license"]
    assert merged(there, {}) == there


def test_a_field_that_is_wrong_by_its_extension_is_told():
    document = _registered(source=SOURCE).document
    said = {"sat:orbit_state": "sideways", "grid:code": 7, "eo:cloud_cover": 101, "processing:software": "none"}
    document["properties"] |= said
    document["stac_extensions"] = used(document)
    told = " ".join(wrong(document))
    assert all(f"/{name}/" in told for name in ("sat", "grid", "eo", "processing"))
    document["stac_extensions"] = ["https://nobody.example/schema.json"]
    assert wrong(document) == ["https://nobody.example/schema.json: not among the schemas of the tests"]
