import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stac_watch.discover.items import read_item
from stac_watch.model.item import Item, Unreadable

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "eopf"
NASTY = [
    None, True, -1, 10**400, float("nan"), "", "\ud800", "a\0b", "../../etc", "MGRS-../..", "0001-01-01T00:00:00+14:00", "https://[x",
    "x" * 20_000, [], {}, [float("inf")] * 4, {"\ud800": "\ud800"}, {"a": {"b": None}},
]  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(NASTY))
JSON = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3))
)


@pytest.fixture(scope="module")
def read(make):
    def _read(document, on="content", hosts=("objects.example",)):
        return read_item(document, collection="sentinel-2-l2a", api="https://stac.example", on=on, allowed_hosts=hosts)

    return _read


def real(name: str) -> dict:
    found = sorted(REAL.glob(f"*{name}*.json"))
    if not found:
        pytest.skip(f"the real item documents are not beside the repository ({REAL.name})")
    return json.loads(found[0].read_text())


def test_a_real_item_with_a_product_asset(read):
    item = read(real("T32TNQ"), hosts=("objects.eodc.eu",))
    assert isinstance(item, Item)
    assert item.product_href.endswith("/cpm_v262/S2A_MSIL2A_20251113T102311_N0511_R065_T32TNQ_20251113T142515.zarr")
    assert (item.tile, item.cloud_cover, item.deprecated) == ("T32TNQ", 58.30915, False)
    assert item.updated.isoformat() == "2025-11-13T19:07:10.734678+00:00"
    assert item.datetime.isoformat() == "2025-11-13T10:23:11.024000+00:00"
    assert item.item_href == f"https://stac.example/collections/sentinel-2-l2a/items/{item.item_id}"
    assert item.bbox == (8.999745560361898, 44.157116557384406, 10.396411173148929, 45.15383725089235)


def test_a_real_item_without_a_product_asset_leads_to_its_store_s_root(read):
    document = real("T32TQM")
    item = read(document | {"collection": "sentinel-2-l2a"}, hosts=("esa-zarr-sentinel-explorer-fra",))
    assert item.product_href.endswith("/S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613.zarr")
    assert item.updated.isoformat() == "2025-10-08T12:26:13+00:00"


def test_a_real_item_of_a_host_that_is_not_allowed_is_unreadable_by_name(read):
    entry = read(real("T32TNQ"))
    assert isinstance(entry, Unreadable)
    assert "objects.eodc.eu" in entry.why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"id": None}, "no id"),
        ({"id": 5}, "no id"),
        ({"id": "../../etc/passwd"}, "not usable as a name"),
        ({"id": "a b"}, "not usable"),
        ({"properties": None}, "no properties"),
        ({"properties": []}, "no properties"),
        ({"properties": {}}, "neither datetime nor start_datetime"),
        ({"properties": {"datetime": "yesterday"}}, "RFC 3339"),
        ({"collection": "other"}, "'other'"),
        ({"assets": {}}, "no asset"),
        ({"assets": None}, "no asset"),
        ({"assets": {"product": {}}}, "no asset"),
        ({"assets": {"product": {"href": "https://evil.example/x.zarr"}}}, "evil.example"),
        ({"assets": {"product": {"href": "file:///etc/x.zarr"}}}, "scheme"),
        ({"assets": {"product": {"href": f"https://objects.example/{'x' * 5000}.zarr"}}}, "long"),
    ],
)
def test_what_cannot_be_acted_on_is_unreadable_with_the_reason(make, read, change, why):
    entry = read(make.document() | change)
    assert isinstance(entry, Unreadable)
    assert why in entry.why


def test_missing_properties_are_missing_not_invented(make, read):
    document = make.document()
    document["properties"] = {"datetime": None, "start_datetime": "2025-10-08T10:00:41Z"}
    del document["bbox"], document["collection"]
    item = read(document)
    assert (item.updated, item.bbox, item.cloud_cover, item.tile, item.deprecated) == (None, (), None, "", False)
    assert item.datetime.isoformat() == "2025-10-08T10:00:41+00:00"


@pytest.mark.parametrize("value", [True, "12", None, float("nan"), float("inf"), 10**400, [1]])
def test_a_cloud_cover_that_is_not_a_number_is_none(make, read, value):
    assert read(make.document(**{"eo:cloud_cover": value})).cloud_cover is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2, 3, 4], (1.0, 2.0, 3.0, 4.0)),
        ([1, 2, -5, 3, 4, 900], (1.0, 2.0, 3.0, 4.0)),  # with heights
        ([1, 2, 3], ()), ([1, 2, 3, "4"], ()), (None, ()), ([1, 2, 3, float("nan")], ()), ([1, 2, 3, 10**400], ()),
        ([1, 2, 3, True], ()), ("1,2,3,4", ()),
    ],
)  # fmt: skip
def test_a_bbox_is_four_finite_numbers_or_nothing(make, read, value, expected):
    assert read(make.document() | {"bbox": value}).bbox == expected


@pytest.mark.parametrize(
    ("grid", "tile"),
    [("MGRS-32TQM", "T32TQM"), ("MGRS-../../etc", ""), ("MGRS-{key}", ""), ("WRS2-193029", ""), ("", ""), (5, "")],
)
def test_a_tile_is_an_mgrs_tile_or_nothing_because_it_may_become_part_of_a_path(make, read, grid, tile):
    assert read(make.document(**{"grid:code": grid})).tile == tile


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"updated": "2025-10-08T12:26:13Z", "published": "2025-10-09T00:00:00Z"}, "2025-10-08T12:26:13+00:00"),
        ({"updated": None, "published": "2025-10-09T00:00:00.5+00:00"}, "2025-10-09T00:00:00.500000+00:00"),
        ({"updated": "nonsense", "created": "2025-10-07T00:00:00Z"}, "2025-10-07T00:00:00+00:00"),
    ],
)
def test_the_change_stamp_is_the_first_that_can_be_read(make, read, properties, expected):
    assert read(make.document(**properties)).updated.isoformat() == expected


def altered(document, path, value):
    result = copy.deepcopy(document)
    *parents, last = path
    node = result
    for name in parents:
        node = node[name]
    node[last] = value
    return result


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("links",), [{"rel": "self", "href": "https://elsewhere.example"}]),
        (("bbox",), [0, 0, 1, 1]),
        (("stac_version",), "1.1.0"),
        (("properties", "eo:cloud_cover"), 99.0),
        (("properties", "updated"), "2026-01-01T00:00:00Z"),
        (("properties", "published"), "2026-01-01T00:00:00Z"),
        (("properties", "deprecated"), False),
        (("properties", "expires"), "2026-01-01T00:00:00Z"),
        (("assets", "thumbnail"), {"href": "https://objects.example/t.png"}),
        (("assets", "product", "title"), "another title"),
    ],
)
def test_what_does_not_matter_leaves_the_revision_alone(make, read, path, value):
    document = make.document()
    assert read(altered(document, path, value)).revision == read(document).revision


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("assets", "product", "href"), "https://objects.example/bucket/other.zarr"),
        (("assets", "product", "file:checksum"), "1620ac"),
        (("properties", "deprecated"), True),
        (("properties", "processing:version"), "05.12"),
        (("properties", "processing:software"), {"EOPF-CPM": "2.6.3"}),
    ],
)
def test_what_matters_makes_a_new_revision(make, read, path, value):
    document = make.document()
    assert read(altered(document, path, value)).revision != read(document).revision


def test_a_restamp_is_a_new_revision_only_where_the_source_says_so(make, read):
    one, two = make.document(), make.document(updated="2026-01-01T00:00:00Z")
    assert read(one).revision == read(two).revision
    assert read(one, on="restamp").revision != read(two, on="restamp").revision


def test_the_order_of_keys_does_not_matter(make, read):
    software = {"a": "1", "b": "2"}
    one = make.document(**{"processing:software": software})
    two = make.document(**{"processing:software": dict(reversed(software.items()))})
    assert read(one).revision == read(two).revision


def test_the_revision_of_a_document_does_not_change_by_accident(make, read):
    # every installation's ledger holds such values: a change here converts every archive again
    assert read(make.document()).revision == "08010da18308871f"


PATHS = [
    ("id",), ("collection",), ("bbox",), ("properties",), ("assets",), ("assets", "product"), ("assets", "product", "href"),
    ("assets", "product", "file:checksum"), *(("properties", name) for name in (
        "datetime", "start_datetime", "updated", "deprecated", "eo:cloud_cover", "grid:code", "processing:version",
        "processing:software",
    )),
]  # fmt: skip


def check_usable(entry: Item | Unreadable) -> None:
    texts = [entry.item_id, entry.why] if isinstance(entry, Unreadable) else [entry.item_id, entry.product_href, entry.tile]
    for text in texts:
        text.encode()  # a lone surrogate cannot be stored
        assert "\0" not in text  # nor can NUL, in PostgreSQL
    assert len(entry.item_id) <= 200
    if isinstance(entry, Item):
        json.dumps([entry.bbox, entry.cloud_cover], allow_nan=False)


@pytest.mark.parametrize("on", ["content", "restamp"])
@pytest.mark.parametrize("path", PATHS, ids="/".join)
def test_no_nasty_value_anywhere_fails_the_page(make, read, path, on):
    for value in NASTY:
        check_usable(read(altered(make.document(), path, value), on=on))


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PATHS), JSON), min_size=1, max_size=2), st.sampled_from(["content", "restamp"]))
def test_whatever_one_item_holds_it_is_read_or_unreadable_and_can_be_stored(make, read, faults, on):
    document = make.document()
    for path, value in sorted(faults, key=lambda fault: -len(fault[0])):
        document = altered(document, path, value)
    check_usable(read(document, on=on))
