"""What an item says of its store, and what a store's root says of its objects."""

import json

import pytest
from google_crc32c import value

from stac_watch.model.errors import InputError
from stac_watch.model.forms import Form, form_of
from stac_watch.model.zarr3 import crc32c, fingerprint, index_crc, read_json, same_store, tree_of

V3 = "application/vnd.zarr; version=3"
STORE = "https://data.example/a.zarr"


def item(properties: dict | None = None, **assets: dict) -> dict:
    return {"properties": properties or {}, "assets": assets}


@pytest.mark.parametrize(
    ("document", "form"),
    [
        (item(product={"href": STORE, "type": "application/vnd+zarr"}), Form.EOPF_V2),
        (item(product={"href": STORE, "type": "application/vnd.zarr; version=2"}), Form.EOPF_V2),
        (item(product={"href": STORE, "type": V3, "zarr:consolidated": True}), Form.GEOZARR),
        (item(product={"href": STORE, "type": 'application/vnd.zarr; profile=x; version="3"'}), Form.EOPF_V3),
        (item(product={"href": STORE, "type": "application/vnd+zarr", "zarr:zarr_format": 3}), Form.EOPF_V3),
        (
            item({"processing:software": {"EOPF_CPM": "3.0.0"}}, product={"href": STORE, "type": "application/vnd+zarr"}),
            Form.EOPF_V3,
        ),
        (
            item({"processing:software": {"EOPF-CPM": "2.7.0"}}, product={"href": STORE, "type": "application/vnd+zarr"}),
            Form.EOPF_V2,
        ),
        (item(reflectance={"href": f"{STORE}/measurements/reflectance", "type": V3}), Form.GEOZARR),
        (item(product={"href": STORE, "type": "application/vnd.zarr; version=4"}), Form.OTHER),
        (item({"product:type": "S01SIWSLC"}, product={"href": STORE, "type": V3}), Form.OTHER),
        (item({"product:type": "S02MSIL2A"}, product={"href": STORE, "type": V3, "zarr:consolidated": True}), Form.GEOZARR),
        (item(zipped_product={"href": f"{STORE}.zip?a=b", "type": "application/zip"}), Form.ARCHIVE),
        (
            item(product={"href": STORE, "type": V3}, zipped_product={"href": f"{STORE}.zip", "type": "application/zip"}),
            Form.EOPF_V3,
        ),
        ({}, Form.EOPF_V2),
        ({"assets": None, "properties": []}, Form.EOPF_V2),
        (item(product={"href": None, "type": 7, "zarr:zarr_format": True}), Form.EOPF_V2),
    ],
)
def test_an_item_announces_a_form(document, form):
    assert form_of(document) is form


def test_the_checksum_is_that_of_other_peoples_code():
    for data in (b"", b"a", b"123456789", bytes(range(256)) * 8):
        assert crc32c(data) == value(data)
    index = bytes(32)
    assert index_crc(index + value(index).to_bytes(4, "little")) == value(index)
    assert index_crc(index + bytes(4)) is None


def array(**changes: object) -> dict:
    return {
        "node_type": "array", "zarr_format": 3, "shape": [10, 10], "data_type": "uint16", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 8]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "codecs": [{"name": "bytes"}], **changes,
    }  # fmt: skip


def shards(**changes: object) -> list[dict]:
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    return [
        {
            "name": "sharding_indexed",
            "configuration": {"chunk_shape": [4, 4], "codecs": [{"name": "bytes"}], "index_codecs": index, **changes},
        }
    ]


def test_a_stores_objects_follow_from_its_metadata():
    scalar = array(shape=[], chunk_grid={"name": "regular", "configuration": {"chunk_shape": []}})
    older = array(chunk_key_encoding={"name": "v2"})
    tree = tree_of({"": {}, "a": array(), "g/b": array(codecs=shards()), "c": scalar, "d": older}, "x")
    assert list(tree.keys()) == [
        *(f"a/c/{i}/{j}" for i in (0, 1) for j in (0, 1)), *(f"g/b/c/{i}/{j}" for i in (0, 1) for j in (0, 1)), "c/c",
        *(f"d/{i}.{j}" for i in (0, 1) for j in (0, 1)),
    ]  # fmt: skip
    assert (tree.arrays["g/b"].inner, tree.arrays["g/b"].index_bytes, tree.arrays["a"].index_bytes) == ((4, 4), 68, 0)
    assert tree.documents() == ["zarr.json", "a/zarr.json", "c/zarr.json", "d/zarr.json", "g/b/zarr.json"]


@pytest.mark.parametrize(
    "nodes",
    [
        {"../../etc": array()},
        {"stac-watch.json": array()},  # where our marker lies
        {"stac-watch.uploading.json/a": array()},
        {"a": array(shape="10")},
        {"a": array(shape=[-1, 1])},
        {"a": array(shape=[10**9, 10**9])},
        {"a": array(chunk_grid={"name": "rectilinear"})},
        {"a": array(codecs=[])},
        {"a": array(codecs=shards(chunk_shape=[3, 3]))},
        {"a": array(codecs=shards(index_codecs=[{"name": "bytes"}]))},
        {"a": array(chunk_key_encoding={"name": "mine"})},
        {"a": {"node_type": "array"}},
    ],
)
def test_metadata_that_is_not_known_or_hostile_is_refused(nodes):
    with pytest.raises(InputError):
        tree_of(nodes, "x")


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"zarr_format": 2}', b"\xff", b"[" * 100_000])
def test_a_document_that_is_no_zarr_v3_is_refused(raw):
    with pytest.raises(InputError):
        read_json(raw, "x")


def test_a_fingerprint_tells_stores_apart_by_what_both_looked_at():
    sizes, sums = {"a": 1, "b": 2}, {"a": 3}
    known = fingerprint(json.dumps({}).encode(), sizes, sums)
    assert same_store(known, fingerprint(b"{}", dict(reversed(sizes.items())), sums))
    assert same_store(known, fingerprint(b"{}", sizes, {}))
    assert not same_store(known, fingerprint(b"{} ", sizes, sums))
    assert not same_store(known, fingerprint(b"{}", {"a": 1, "b": 3}, {}))
    assert not same_store(known, fingerprint(b"{}", sizes, {"a": 4}))
