"""Which store an item points to: one rule, which the poller and the runner both follow."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from geozarr_runner.source import preflight
from geozarr_runner.source.store import Patience

from stac_watch.model.errors import InputError
from stac_watch.model.product import product_href

DOT, PLUS = "application/vnd.zarr", "application/vnd+zarr"
BASE = "https://objects.example:443/tenant:bucket/S2A_X.zarr"
BANDS = f"{BASE}/measurements/reflectance"
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "eopf"


def _assets(**assets):
    return {name: {"href": href, "type": kind} if kind else {"href": href} for name, (href, kind) in assets.items()}


CASES = {
    "product": (_assets(product=(BASE, DOT), SR=(f"{BASE}/measurements", DOT)), BASE),
    "product-with-slash": (_assets(product=("s3://b/x.zarr/", "")), "s3://b/x.zarr"),
    "product-by-name-alone": (_assets(product=(BASE, ""), other=("x.png", "image/png")), BASE),
    "product-by-type-alone": (_assets(product=("https://h.example/p/store", PLUS)), "https://h.example/p/store"),
    "product-before-others": (_assets(product=("s3://b/x.zarr", ""), other=("s3://b/y.zarr", PLUS)), "s3://b/x.zarr"),
    "product-is-a-zip": (_assets(product=("https://h.example/p.zip", "application/zip"), z=(BASE, DOT)), BASE),
    "product-is-a-zip-alone": (_assets(product=("https://h.example/p.zip", "application/zip")), None),
    "product-packed": (_assets(product=(f"{BASE}.zip", DOT)), None),
    "product-without-href": ({"product": {"type": PLUS}}, None),
    "product-with-a-number": ({"product": {"href": 5, "type": PLUS}, "r": {"href": f"{BANDS}/r10m", "type": PLUS}}, BASE),
    "both-spellings": (_assets(B02=(f"{BANDS}/r10m/b02", PLUS), AOT=(f"{BASE}/quality/aot", DOT)), BASE),
    "profile": (_assets(r=("s3://b/a.zarr/measurements", f"{DOT}; version=3; profile=multiscales")), "s3://b/a.zarr"),
    "upper-case": (_assets(r=("s3://b/a.zarr/measurements", "Application/Vnd+Zarr")), "s3://b/a.zarr"),
    "a-store-beside": (_assets(a=(f"{BASE[:-5]}_aux.zarr/x", DOT), b=(f"{BANDS}/r10m", DOT), c=(BANDS, DOT)), BASE),
    "two-of-one-length": (_assets(a=("s3://b/z.zarr/q", DOT), b=("s3://b/a.zarr/q", DOT)), None),
    "one-beside-a-stranger": (_assets(a=("s3://b/long.zarr/q", DOT), b=("s3://b/a.zarr/q", DOT)), None),
    "signed-product": (_assets(product=(f"{BASE}?sig=a%2Fb", DOT)), f"{BASE}?sig=a%2Fb"),
    "signed-bands": (_assets(a=(f"{BANDS}/r10m?sig=1", DOT), b=(f"{BANDS}/r20m/b05?sig=1", DOT)), f"{BASE}?sig=1"),
    "product-packed-and-open": (_assets(product=(f"{BASE}.zip", DOT), b=(f"{BANDS}/r10m", DOT)), BASE),
    "store-without-a-suffix": (_assets(a=("https://h.example/p/s/r10m", PLUS), b=("https://h.example/p/s/r20m", PLUS)), "https://h.example/p/s"),
    "a-group-without-a-suffix": (_assets(a=("https://h.example/p/s/measurements/reflectance?sig=1", PLUS)), "https://h.example/p/s?sig=1"),
    "a-folder-called-like-a-group": (_assets(a=("s3://b/quality/s/quality/mask/r10m", PLUS), b=("s3://b/quality/s", PLUS)), "s3://b/quality/s"),
    "two-without-a-suffix": (_assets(a=("s3://b/s/measurements/r", PLUS), b=("s3://b/t/measurements/r", PLUS)), None),
    "relative": (_assets(a=("../p/a.zarr/x", PLUS)), "../p/a.zarr"),
    "of-two-hosts": (_assets(a=("https://a.example/s/r10m", PLUS), b=("https://b.example/s/r20m", PLUS)), None),
    "nothing-in-common": (_assets(a=("https://a.example/s", PLUS), b=("https://a.example/t", PLUS)), None),
    "no-href": ({"r": {"href": "s3://b/x.zarr/q", "type": PLUS}, "s": {"type": PLUS}}, "s3://b/x.zarr"),
    "another-type": (_assets(r=("s3://b/x.zarr/q", "application/json")), None),
    "no-type": (_assets(r=("s3://b/x.zarr", "")), "s3://b/x.zarr"),
    "no-type-inside": (_assets(r=("s3://b/x.ZARR/q/b02", ""), t=("s3://b/t.png", "")), "s3://b/x.ZARR"),
    "no-type-and-one-with": (_assets(a=("s3://b/a.zarr/q", ""), r=("s3://b/xx.zarr/q", PLUS)), "s3://b/xx.zarr"),
    "x-zarr": (_assets(r=("s3://b/a.zarr/q", "application/x-zarr")), "s3://b/a.zarr"),
    "zarr": (_assets(r=("s3://b/a.zarr/q", "application/zarr")), "s3://b/a.zarr"),
    "version-in-the-type": (_assets(r=("s3://b/p/a", "application/vnd.zarr;version=3")), "s3://b/p/a"),
    "signed": (_assets(r=(f"{BANDS}/r10m?sig=a%2Fb.zarr&se=1", DOT)), f"{BASE}?sig=a%2Fb.zarr&se=1"),
    "an-archive": (_assets(r=("s3://b/x.zarr.zip", PLUS)), None),
    "a-product-that-is-an-archive": (_assets(product=("s3://b/x.zarr.zip?sig=1", PLUS), r=(f"{BANDS}/r10m", PLUS)), BASE),
    "a-zipped-type": (_assets(r=("s3://b/x.zarr/q", "application/vnd.zarr+zip")), None),
    "an-alternate": (
        {"product": {"href": "eodata://x.zarr", "type": DOT, "alternate": {"s3": {"href": "s3://b/x"}, "https": {"href": BASE}}}},
        BASE,
    ),
    "an-alternate-of-a-zip": (
        {"product": {"href": "s3://b/x.zip", "type": "application/zip", "alternate": {"zarr": {"href": BASE, "type": DOT}}}},
        BASE,
    ),
    "an-alternate-beside": ({"product": {"href": BASE, "type": DOT, "alternate": {"s3": {"href": "s3://b/x.zarr"}}}}, BASE),
    "alternates-that-are-none": ({"product": {"href": BASE, "type": DOT, "alternate": {"s3": None, "a": {"href": 5}}}}, BASE),
    "null": ({"product": None}, None), "none": ({}, None), "a-list": ([], None), "nothing": (None, None),
}  # fmt: skip


@pytest.mark.parametrize(("assets", "expected"), CASES.values(), ids=CASES)
def test_the_store_of_an_item(assets, expected):
    assert product_href({"assets": assets}) == expected


def test_an_href_is_relative_to_its_item():
    item = "https://stac.example/api/collections/c/items/i"
    relative = {"assets": {"product": {"href": "../../../data/x.zarr", "type": DOT}}}
    assert product_href(relative, item) == "https://stac.example/api/data/x.zarr"
    assert product_href({"assets": {"product": {"href": "/data/x.zarr"}}}, item) == "https://stac.example/data/x.zarr"
    assert product_href({"assets": {"product": {"href": "s3://b/x.zarr"}}}, item) == "s3://b/x.zarr"


@pytest.mark.parametrize("assets", [assets for assets, _ in CASES.values()], ids=CASES)
def test_the_runner_opens_the_store_that_the_poller_names(tmp_path, assets):
    place = tmp_path / "item.json"
    place.write_text(json.dumps({"type": "Feature", "id": "x", "assets": assets}))

    def opened() -> str:
        found = preflight.resolve(str(place), allowed_hosts=(), patience=Patience(), wait=threading.Event().wait)
        return found[1].url

    expected = product_href({"assets": assets})
    if expected is None:
        with pytest.raises(InputError, match=r"is a Zarr product|in one zip file"):
            opened()
    elif "?" in expected:
        assert opened() == expected.partition("?")[0], "what opens a store is not shown"
    else:
        assert opened() == (str(tmp_path / expected) if "://" not in expected else expected)


@pytest.mark.parametrize("path", sorted(REAL.glob("*.json")) or [None], ids=lambda path: path.stem[:32] if path else "none at hand")
def test_real_items_point_to_the_store_that_is_called_like_them(path):
    if path is None:
        pytest.skip("no real items at hand")
    item = json.loads(path.read_text())
    assert product_href(item).rpartition("/")[2] == f"{item['id']}.zarr"
