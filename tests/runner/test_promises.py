"""Preflight keeps its word: what it passes is converted, whatever is missing or additional; what it does not, is refused there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pystac
import pytest
import zarr
from geozarr_runner.source import subject
from geozarr_runner.source.metadata import parse
from shelf import Shelf, served

from stac_watch.model.errors import InputError

pytestmark = pytest.mark.long

ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
OTHER = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQN_20251008T122613"
R = "measurements/reflectance"
SMALL = "quality/atmosphere/r60m"


def _change(product: Path, change) -> dict:
    """Changes the metadata, consolidated and not."""
    document = json.loads((product / ".zmetadata").read_text())
    before = set(document["metadata"])
    change(document["metadata"])
    (product / ".zmetadata").write_text(json.dumps(document))
    for key, value in document["metadata"].items():
        (product / key).parent.mkdir(parents=True, exist_ok=True)
        (product / key).write_text(json.dumps(value))
    for key in before - set(document["metadata"]):
        (product / key).unlink()
    return document["metadata"]


def _objects(product: Path) -> dict[str, bytes]:
    return {f"{product.name}/{p.relative_to(product)}": p.read_bytes() for p in product.rglob("*") if p.is_file()}


def _strict(path: Path) -> object:
    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(path.read_bytes(), parse_constant=refuse)


def _of_a_later_release(m: dict) -> None:
    """Adds what no converter knows, takes away what needs not be there, and spells what is there as some release did."""
    unknown = m[f"{R}/r10m/b02/.zarray"] | {"compressor": {"id": "pickle", "protocol": 5}, "dtype": "|O"}
    m["quality/new_in_the_next_release/.zgroup"] = {"zarr_format": 2}
    m["quality/empty/.zgroup"] = m["extra/.zgroup"] = m[f"{R}/r60m/inside/.zgroup"] = {"zarr_format": 2}
    m["quality/new_in_the_next_release/x/.zarray"] = m[f"{R}/r60m/b99/.zarray"] = unknown
    for key in [k for k in m if k.startswith(("conditions/meteorology", "conditions/geometry", f"{R}/r60m/b01/"))]:
        del m[key]
    root = m[".zattrs"]
    del root["stac_discovery"]["properties"]["product:type"]
    root["stac_discovery"]["properties"] |= {"eo:cloud_cover": float("nan"), "datetime": "null", "start_datetime": None}
    root["other_metadata"] |= {"mean": float("inf"), "deep": [{"a": float("nan")}]}
    for key in [k for k in m if k.startswith(f"{R}/r60m/b") and k.endswith("/.zattrs")]:
        m[key] |= {"scale_factor": [0.0001], "add_offset": [-0.1]}
    for key in [k for k in m if k.endswith("/.zattrs")]:
        for name in [n for n in m[key] if n.startswith("proj:")]:
            del m[key][name]


@pytest.mark.parametrize("over_http", [True, False], ids=["http", "local"])
def test_a_product_of_a_later_release_is_converted_without_what_nobody_knows(own_product, runner, tmp_path, over_http):
    _change(own_product, _of_a_later_release)
    groups = f"{R} {SMALL}"
    with served(Shelf(_objects(own_product), absent=403)) as shelf:
        source = f"{shelf.url}/{own_product.name}" if over_http else own_product
        assert runner(source, tmp_path / "o.zarr", command="preflight", groups=groups).code == 0
        ended = runner(source, tmp_path / "o.zarr", groups=groups, package="none")
    assert ended.code == 0, ended.stderr
    said = next(check["detail"] for check in ended.outcome["checks"] if check["name"] == "source")
    for name in ("extra", "quality/new_in_the_next_release", f"{R}/r60m/b99", "r60m/b01", "conditions/meteorology"):
        assert name in said
    for file in [*(tmp_path / "o.zarr").rglob("zarr.json"), *tmp_path.glob("o.zarr*.json")]:
        _strict(file)
    output = zarr.open_group(str(tmp_path / "o.zarr"), mode="r")
    assert {"b02", "b08"} <= set(output[f"{R}/r60m"].array_keys()), "the level is in the id: b08 is injected"
    assert "b99" not in output[f"{R}/r60m"]
    item = pystac.Item.from_file(str(tmp_path / "o.zarr.item.json"))
    assert item.datetime.isoformat() == "2025-10-08T10:00:41+00:00", "of the id, where the product says null"
    assert "eo:cloud_cover" not in item.properties
    assert item.properties["proj:code"] == item.assets["reflectance"].extra_fields["proj:code"] == "EPSG:32632"
    assert item.assets["reflectance"].extra_fields["proj:transform"] == list(output[f"{R}/r10m"].attrs["spatial:transform"])


@pytest.mark.parametrize("over_http", [True, False], ids=["http", "local"])
def test_the_order_of_consolidated_metadata_means_nothing(own_product, runner, tree, tmp_path, over_http):
    """JSON objects have none; zarr-python takes the last row of a group's members for all of them."""
    assert runner(own_product, tmp_path / "o.zarr", groups=SMALL, package="none").code == 0
    document = json.loads((own_product / ".zmetadata").read_text())
    keys = sorted(document["metadata"], key=lambda key: hashlib.sha256(key.encode()).digest())
    document["metadata"] = {key: document["metadata"][key] for key in keys}
    (own_product / ".zmetadata").write_text(json.dumps(document))
    with served(Shelf(_objects(own_product))) as shelf:
        source = f"{shelf.url}/{own_product.name}" if over_http else own_product
        ended = runner(source, tmp_path / "p.zarr", groups=SMALL, package="none")
    assert ended.code == 0, ended.stderr
    assert tree(tmp_path / "p.zarr") == tree(tmp_path / "o.zarr")


def _item(href: str, item_id: str = ITEM_ID, **properties) -> bytes:
    assets = {"product": {"href": href, "type": "application/vnd+zarr"}}
    return json.dumps(
        {"type": "Feature", "stac_version": "1.1.0", "id": item_id, "assets": assets, "properties": properties}
    ).encode()


@pytest.mark.parametrize(
    ("item_id", "properties", "words"),
    [
        (OTHER, {}, "tile T32TQN and T32TQM"),
        (ITEM_ID.replace("N0511", "N0512"), {}, "baseline 0512 and 0511"),
        ("scene-1", {"grid:code": "MGRS-31UFU"}, "it shows tile 32TQM, not 31UFU"),
        ("S2A_31UFU_20251008_0_L2A", {}, "it shows tile 32TQM, not 31UFU"),
        ("scene-1", {"datetime": "2025-10-18T10:00:41Z"}, "the item says 2025-10-18T10:00:41Z"),
    ],
)
def test_the_product_of_another_item_is_refused_in_preflight(product, runner, tmp_path, item_id, properties, words):
    (tmp_path / "item.json").write_bytes(_item(str(product), item_id, **properties))
    ended = runner(tmp_path / "item.json", tmp_path / "o.zarr", command="preflight")
    assert (ended.code, words in ended.outcome["reason"]) == (65, True), ended.outcome["reason"]


@pytest.mark.parametrize(
    ("item_id", "properties"),
    [
        (ITEM_ID, {"grid:code": "MGRS-31UFU"}),  # the id counts
        ("scene-1", {"grid:code": "MGRS-32TQM", "datetime": "2025-10-08T10:20:00Z"}),
        ("scene-1", {"datetime": None, "start_datetime": "2025-10-01T00:00:00Z", "end_datetime": "2025-10-31T00:00:00Z"}),
        ("S2A_T32TQM_20251008", {}),
    ],
)
def test_the_item_s_own_product_is_taken(product, runner, tmp_path, item_id, properties):
    (tmp_path / "item.json").write_bytes(_item(str(product), item_id, **properties))
    assert runner(tmp_path / "item.json", tmp_path / "o.zarr", command="preflight").code == 0


def test_times_are_the_product_s_the_item_s_or_the_id_s_and_never_invented(product):
    documents = json.loads((product / ".zmetadata").read_text())["metadata"]
    properties = documents[".zattrs"]["stac_discovery"]["properties"]

    def sensed(item: dict, where: str = f"/p/{ITEM_ID}.zarr"):
        found = subject.sensed(parse(documents, where), {"properties": item})
        return found and found.isoformat()

    assert sensed({}).startswith("2025-10-08T10:00:41")
    properties |= {"datetime": "null", "start_datetime": "0001-01-01T00:00:00Z"}
    assert sensed({"datetime": "2025-10-08T10:05:00Z"}) == "2025-10-08T10:05:00+00:00"
    assert sensed({"datetime": 7}) == "2025-10-08T10:00:41+00:00"
    documents[".zattrs"]["stac_discovery"]["id"] = "unheard-of"
    assert sensed({}, "/p/x.zarr") is None


def test_a_product_that_nobody_can_date_is_refused_in_preflight(own_product, runner, tmp_path):
    def undated(m: dict) -> None:
        m[".zattrs"]["stac_discovery"]["id"] = "x"
        for name in ("datetime", "start_datetime"):
            m[".zattrs"]["stac_discovery"]["properties"].pop(name, None)

    _change(own_product, undated)
    renamed = own_product.rename(own_product.with_name("x.zarr"))
    ended = runner(renamed, tmp_path / "o.zarr", command="preflight")
    assert (ended.code, "says when it was sensed" in ended.said) == (65, True)


def test_a_signature_goes_with_every_object_and_into_no_file(product, runner, tmp_path):
    objects = {f"{key}?sv=1&sig=s%2Fecret": body for key, body in _objects(product).items()}
    with served(Shelf(objects, absent=403)) as shelf:
        ended = runner(f"{shelf.url}/{product.name}?sv=1&sig=s%2Fecret", tmp_path / "o.zarr", groups=SMALL, package="none")
        assert ended.code == 0, ended.stderr
        objects["item.json"] = _item(f"{shelf.url}/{product.name}?sv=1&sig=s%2Fecret")
        assert runner(f"{shelf.url}/item.json", tmp_path / "p.zarr", command="preflight").code == 0
        left = [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix in (".json", ".html")]
        assert left
        assert not [p for p in left if b"ecret" in p.read_bytes()]
        assert "ecret" not in ended.stderr


@pytest.mark.parametrize(("by_item", "code"), [(True, 75), (False, 77)], ids=["of-an-item", "by-hand"])
def test_a_signature_that_has_ended_is_said_to_have(product, runner, tmp_path, by_item, code):
    query = "se=2020-01-01T00%3A00%3A00Z&sig=secret"
    with served(Shelf({}, absent=403)) as shelf:
        href = f"{shelf.url}/{product.name}?{query}"
        shelf.objects = {"item.json": _item(href)}
        ended = runner(f"{shelf.url}/item.json" if by_item else href, tmp_path / "o.zarr", command="preflight", attempts=3)
    assert ended.code == code, ended.stderr
    assert "the signature in its href ended at 2020-01-01T00:00:00Z" in ended.said
    assert "secret" not in ended.stderr + json.dumps(ended.outcome)
    assert len(shelf.asked) < 8, "it is not asked again what it has answered"


@pytest.mark.parametrize(
    ("body", "header", "code"),
    [
        (b'<?xml version="1.0"?><Error><Code>InvalidAccessKeyId</Code><Message>m</Message></Error>', "", 77),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code></Error>", "", 77),
        (b'{"error": {"code": "ExpiredToken"}}', "", 77),
        (b"AuthenticationFailed", "", 77),
        (b"", "AuthenticationFailed", 77),
        (b"<Error><Code>AccessDenied</Code></Error>", "", 66),  # what is absent is answered so, too
        (b"<html>InvalidAccessKeyId is none of our words</html>", "", 66),
        (b"\xff" * 100_000, "", 66),
    ],
)
def test_a_403_that_is_about_who_asks_is_no_absence(runner, tmp_path, body, header, code):
    with served(Shelf({}, absent=403, refusal=body, headers={"x-ms-error-code": header} if header else {})) as shelf:
        ended = runner(f"{shelf.url}/p.zarr", tmp_path / "o.zarr", command="preflight")
    assert ended.code == code, ended.stderr


@pytest.mark.parametrize(("by_item", "code"), [(True, 75), (False, 77)], ids=["of-an-item", "by-hand"])
def test_a_signature_that_has_ended_is_said_to_have_with_the_server_s_word_for_it(runner, tmp_path, by_item, code):
    with served(Shelf({}, absent=403, refusal=b"<Error><Code>AuthenticationFailed</Code></Error>")) as shelf:
        href = f"{shelf.url}/{ITEM_ID}.zarr?se=2020-01-01T00%3A00%3A00Z&sig=secret"
        shelf.objects = {"item.json": _item(href)}
        ended = runner(f"{shelf.url}/item.json" if by_item else href, tmp_path / "o.zarr", command="preflight")
    assert (ended.code, "ended at 2020-01-01" in ended.said, "secret" in ended.stderr) == (code, True, False)


@pytest.mark.parametrize(
    "bucket", ["my.bucket.with.dots", "Legacy_Bucket_Of_2010", "e05ab01a9d56408d82ac32d69a5aae2a:202510-s02msil2a", "plain-1"]
)
def test_every_bucket_name_that_stores_have_is_asked_for(product, runner, tmp_path, monkeypatch, bucket):
    from urllib.parse import unquote

    asked = []
    objects = {f"{bucket}/p/{key}": body for key, body in _objects(product).items()}
    with served(Shelf(objects)) as shelf:
        shelf.before = lambda path: asked.append(unquote(path).partition("?")[0])
        for name, value in {
            "AWS_ENDPOINT_URL": shelf.url,
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_REGION": "x",
        }.items():
            monkeypatch.setenv(name, value)
        runner(f"s3://{bucket}/p/{product.name}", tmp_path / "o.zarr", command="preflight", attempts=1)
    assert f"/{bucket}/p/{product.name}/.zmetadata" in asked


@pytest.mark.parametrize("url", ["s3:///x.zarr", "s3://b%20d/x.zarr", "s3://a@b/x.zarr", "s3://-x/x.zarr"])
def test_a_name_that_no_bucket_has_is_refused(runner, tmp_path, url):
    assert runner(url, tmp_path / "o.zarr", command="preflight").code == 65


def test_what_is_not_a_product_is_refused_whatever_its_json(own_product, runner, tmp_path):
    for text in (
        '{"metadata": {".zattrs": []}}',
        '{"metadata": []}',
        "[1]",
        '{"metadata":' + "[" * 100_000,
        '{"metadata": {"a/.zarray": 5}}',
    ):
        (own_product / ".zmetadata").write_text(text)
        ended = runner(own_product, tmp_path / "o.zarr", command="preflight")
        assert ended.code == 65, text[:40]
        assert len(json.dumps(ended.outcome)) < 10_000


def test_numbers_beyond_any_product_are_refused(product):
    documents = json.loads((product / ".zmetadata").read_text())["metadata"]
    for change in ({"shape": [10**9, 10**9], "chunks": [10**5, 10**4]}, {"shape": [10**6, 10**6], "chunks": [20_000, 20_000]}):
        documents[f"{R}/r10m/b02/.zarray"] |= change
        with pytest.raises(InputError, match="more than"):
            parse(documents, "here")


def test_a_store_whose_name_does_not_say_so_is_found_by_its_metadata(product, runner, tmp_path):
    objects = {f"scene-1/{key.partition('/')[2]}": body for key, body in _objects(product).items()}
    with served(Shelf(objects)) as shelf:
        group = f"{shelf.url}/scene-1/measurements/reflectance"
        asset = {"href": group, "type": "application/vnd+zarr"}
        objects["item.json"] = json.dumps({"type": "Feature", "id": ITEM_ID, "assets": {"reflectance": asset}}).encode()
        for given in (f"{shelf.url}/scene-1", f"{shelf.url}/item.json"):
            ended = runner(given, tmp_path / "o.zarr", command="preflight")
            assert ended.code == 0, ended.stderr
        objects["scene-1/zarr.json"] = objects.pop("scene-1/.zmetadata")  # found, and said to be what it is
        assert runner(f"{shelf.url}/scene-1", tmp_path / "o.zarr", command="preflight").code == 65
        assert runner(f"{shelf.url}/scene-2", tmp_path / "o.zarr", command="preflight").code == 66


def test_several_stores_of_one_item_are_told_as_such(product, runner, tmp_path):
    objects = {f"p/{name}/{key.partition('/')[2]}": body for key, body in _objects(product).items() for name in "ab"}
    with served(Shelf(objects)) as shelf:
        assets = {name: {"href": f"{shelf.url}/p/{name}", "type": "application/vnd+zarr"} for name in "ab"}
        objects["item.json"] = json.dumps({"type": "Feature", "id": ITEM_ID, "assets": assets}).encode()
        ended = runner(f"{shelf.url}/item.json", tmp_path / "o.zarr", command="preflight")
        assert (ended.code, "in several stores" in ended.said) == (65, True), ended.stderr
        for key in [key for key in objects if key.startswith("p/")]:
            del objects[key]
        assert runner(f"{shelf.url}/item.json", tmp_path / "o.zarr", command="preflight").code == 66
