import contextlib
import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stac_watch.model.errors import IdentityError, InputError
from stac_watch.model.event import (
    MAX_EVENT_BYTES,
    MAX_NAME,
    PRIORITY,
    Conversion,
    build_event,
    fence_of,
    next_attempt,
    parse_event,
    run_name,
)
from stac_watch.model.hosts import check_href
from stac_watch.model.identity import (
    ITEM_ID,
    check_item_id,
    conversion_key,
    event_id,
    folder_name,
    label_name,
    parse_event_id,
    parse_product_id,
    read_attempt,
    source_of,
    tile_of,
    title_of,
)
from stac_watch.model.stamps import parse_stamp, stamp
from stac_watch.runs.workflow import illegal_label

DNS_1123 = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
IDS = st.from_regex(ITEM_ID, fullmatch=True).filter(lambda s: ".." not in s)
COLLECTIONS = (
    st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="{}"), min_size=1, max_size=256)
    | IDS
    | st.just("urn:eop:VITO:Höhe 1/a")
).filter(lambda s: s not in (".", ".."))
TIMES = st.datetimes(datetime(2015, 6, 23), datetime(2100, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))]))  # noqa: DTZ001  # hypothesis wants naive bounds
NUMBERS = st.floats(-180, 180).map(lambda x: round(x, 6))
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
CONVERSIONS = st.builds(
    Conversion,
    catalog=st.sampled_from(["https://stac.example", "https://stac.example/api/"]),
    collection=COLLECTIONS,
    item_id=IDS,
    revision=st.text("0123456789abcdef", min_size=16, max_size=16),
    recipe=TEXT,
    kind=st.sampled_from(["create", "replace", "delete"]),
    reason=st.sampled_from(["new", "updated", "backfill", "replay", "retry"]),
    lane=st.sampled_from(list(PRIORITY)),
    time=TIMES,
    datetime=TIMES,
    item_href=st.just("https://stac.example/item"),
    product_href=st.just("https://objects.example/x.zarr"),
    output_zarr=TEXT,
    groups=TEXT,
    bbox=st.one_of(st.just(()), st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS)),
    options=st.dictionaries(TEXT, TEXT, max_size=4),
    source_name=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?", fullmatch=True),
)
ATTEMPTS = st.integers(1, 9999)

# The bytes of one event, literally. Keys, names and ids of every installation hang on them: a change here is a migration.
GOLDEN_INPUT = Conversion(
    catalog="https://stac.example/", collection="sentinel-2-l2a",
    item_id="S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613", revision="0123456789abcdef",
    recipe="groups=;chunk=1024;sharding=False", kind="create", reason="new", lane="live",
    time=datetime(2025, 10, 8, 12, 26, 13, 734678, tzinfo=UTC), datetime=datetime(2025, 10, 8, 10, 0, 41, 24000, tzinfo=UTC),
    item_href="https://stac.example/collections/sentinel-2-l2a/items/S2A", product_href="https://objects.example/a/x.zarr",
    output_zarr="s3://out/x.zarr", groups="measurements/reflectance", bbox=(11.39, 41.4, 12.76, 42.43),
    options={"spatial_chunk": "1024", "package": "tar"}, source_name="s2-l2a",
    fence="2025-10-08T12:26:13.734678Z", installation="prod", allowed_hosts="objects.eodc.eu", form="eopf-v2",
)  # fmt: skip
GOLDEN = (
    b'{"specversion": "1.0", "id": "a7a6c7283b545f43158e-1", "type": "org.ogc.api.collection.item.create", '
    b'"source": "https://stac.example/collections/sentinel-2-l2a", '
    b'"subject": "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613", "time": "2025-10-08T12:26:13.734678Z", '
    b'"datacontenttype": "application/json", "dataschema": "urn:stac-watch:conversion:1", '
    b'"data": {"run": "gz-t32tqm-20251008t100041-a7a6c7283b545f43-1", "key": "a7a6c7283b545f43158e", "attempt": 1, "lane": "live", '
    b'"priority": 0, "reason": "new", "source_name": "s2-l2a", "fence": "2025-10-08T12:26:13.734678Z", '
    b'"installation": "prod", "allowed_hosts": "objects.eodc.eu", "form": "eopf-v2", "collection": "sentinel-2-l2a", '
    b'"collection_label": "sentinel-2-l2a", '
    b'"item_id": "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613", '
    b'"item_href": "https://stac.example/collections/sentinel-2-l2a/items/S2A", '
    b'"title": "T32TQM 8 Oct 10:00 \\u00b7 S2A L2A N0511", '
    b'"product_href": "https://objects.example/a/x.zarr", "revision": "0123456789abcdef", '
    b'"datetime": "2025-10-08T10:00:41.024000Z", "tile": "T32TQM", "bbox": [11.39, 41.4, 12.76, 42.43], '
    b'"stac_url": "https://objects.example/a/x.zarr", "output_zarr": "s3://out/x.zarr", "groups": "measurements/reflectance", '
    b'"options": {"package": "tar", "spatial_chunk": "1024"}}}'
)


def test_the_bytes_of_an_event_do_not_change_by_accident():
    assert build_event(GOLDEN_INPUT, 1) == GOLDEN


@pytest.mark.parametrize(
    ("item_id", "title"),
    [
        ("S2C_MSIL1C_20261130T112421_N0513_R122_T31UFU_20261130T130000", "T31UFU 30 Nov 11:24 · S2C L1C N0513"),
        ("LC09_L2SP_193029_20251008", "LC09_L2SP_193029_20251008"),
    ],
)
def test_a_title_begins_with_what_differs(item_id, title):
    assert title_of(item_id, datetime(2026, 11, 30, 13, 24, 21, tzinfo=timezone(timedelta(hours=2)))) == title


def test_an_event_that_was_stored_before_it_had_the_source_s_name_is_still_one():
    before = GOLDEN.replace(b'"source_name": "s2-l2a", ', b"")
    assert "source_name" not in parse_event(before)["data"]
    body, run = next_attempt(before, 2, reason="retry")
    assert parse_event(body)["data"]["run"] == run
    with pytest.raises(InputError, match="source_name must be text"):
        parse_event(GOLDEN.replace(b'"source_name": "s2-l2a"', b'"source_name": 7'))


def test_an_attempt_may_ask_the_hosts_that_its_source_has_by_then():
    body, _ = next_attempt(GOLDEN, 2, reason="replay", allowed_hosts="a.example,b.example")
    assert parse_event(body)["data"]["allowed_hosts"] == "a.example,b.example"
    body, _ = next_attempt(body, 3, reason="retry")
    assert parse_event(body)["data"]["allowed_hosts"] == "a.example,b.example"


def test_what_an_earlier_version_named_keeps_its_name():
    """Its rows go on under keys of 12 digits, of which their runs' names have ten: their markers and Workflows carry them."""
    key = "a7a6c7283b54"
    before = (
        GOLDEN.replace(GOLDEN_INPUT.key[:16].encode() + b'-1"', key[:10].encode() + b'-1"')
        .replace(GOLDEN_INPUT.key.encode(), key.encode())
        .replace(b'"fence": "2025-10-08T12:26:13.734678Z", "installation": "prod", ', b"")
        .replace(b'"allowed_hosts": "objects.eodc.eu", "form": "eopf-v2", ', b"")
    )
    assert parse_event(before)["data"]["run"] == "gz-t32tqm-20251008t100041-a7a6c7283b-1"
    body, run = next_attempt(before, 2, reason="retry", fence="2025-10-08T12:26:13.734679Z")
    assert (parse_event(body)["data"]["run"], run[-13:]) == (run, "-a7a6c7283b-2")
    assert parse_event(body)["data"]["fence"] == "2025-10-08T12:26:13.734679Z"
    assert parse_event_id(f"{key}-7") == (key, 7)
    for wrong in ("a7a6c7283b5", "a7a6c7283b54a", GOLDEN_INPUT.key + "0", "A7A6C7283B54"):
        with pytest.raises(IdentityError):
            parse_event_id(f"{wrong}-1")


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("updated", "before", "fence"),
    [
        (NOON - timedelta(hours=1), "", "2026-03-01T11:00:00.000000Z"),
        (NOON.astimezone(timezone(timedelta(hours=5))), "", "2026-03-01T12:00:00.000000Z"),
        (None, "", "2026-03-01T12:00:00.000000Z"),  # a catalog without stamps: when it was seen
        (NOON.replace(year=9999), "", "2026-03-01T12:00:00.000000Z"),  # what has not happened yet would never be followed
        (NOON - timedelta(hours=1), "2026-03-01T10:59:59.999999Z", "2026-03-01T11:00:00.000000Z"),
        (NOON - timedelta(hours=1), "2026-03-01T11:00:00.000000Z", "2026-03-01T11:00:00.000001Z"),  # changed, and not stamped anew
        (None, "2026-03-02T00:00:00.000000Z", "2026-03-02T00:00:00.000001Z"),  # the clock was set back
    ],
)
def test_a_fence_is_when_the_item_changed_and_always_behind_the_one_before(updated, before, fence):
    assert fence_of(updated, NOON, before) == fence
    assert before < fence


def test_the_key_is_the_documented_hash():
    parts = "https://stac.example\x1fc\x1fi\x1fr\x1fx"
    assert conversion_key("https://stac.example/", "c", "i", "r", "x") == hashlib.sha256(parts.encode()).hexdigest()[:20]


@given(st.lists(st.tuples(IDS, IDS, IDS, IDS, IDS), min_size=2, max_size=5, unique=True))
def test_different_work_has_different_keys(many):
    assert len({conversion_key(*parts) for parts in many}) == len(many)


@given(CONVERSIONS, ATTEMPTS)
def test_a_run_s_name_is_dns_1123_and_short_enough_for_argo_to_append_to(conversion, attempt):
    name = run_name(conversion, attempt)
    assert DNS_1123.fullmatch(name)
    assert len(name) <= MAX_NAME
    assert MAX_NAME + len("-12345") <= 63  # what `argo resubmit` makes of it is still a legal label


@given(CONVERSIONS, ATTEMPTS)
def test_the_same_input_gives_the_same_name_and_bytes(conversion, attempt):
    again = replace(conversion, options=dict(reversed(conversion.options.items())))
    assert run_name(again, attempt) == run_name(conversion, attempt)
    assert build_event(again, attempt) == build_event(conversion, attempt)


@given(CONVERSIONS, CONVERSIONS, ATTEMPTS, ATTEMPTS)
def test_distinct_keys_or_attempts_have_distinct_names_and_ids(one, other, first, second):
    assume((one.key, first) != (other.key, second))
    assert run_name(one, first) != run_name(other, second)
    assert event_id(one.key, first) != event_id(other.key, second)


def test_a_name_says_where_and_when_in_utc():
    west = datetime(2025, 10, 8, 23, 0, 41, tzinfo=timezone(timedelta(hours=-7)))
    assert run_name(replace(GOLDEN_INPUT, datetime=west), 3) == "gz-t32tqm-20251009t060041-a7a6c7283b545f43-3"
    assert run_name(replace(GOLDEN_INPUT, item_id="Some_Other.Item"), 1).startswith("gz-some-other-ite-20251008t100041-")


@pytest.mark.parametrize("attempt", [0, -1])
def test_an_attempt_is_a_positive_number(attempt):
    with pytest.raises(IdentityError, match="attempt"):
        run_name(GOLDEN_INPUT, attempt)


@given(CONVERSIONS, ATTEMPTS)
def test_an_event_comes_back_as_it_went(conversion, attempt):
    event = parse_event(build_event(conversion, attempt))
    data = event["data"]
    assert event["id"] == event_id(conversion.key, attempt)
    assert parse_event_id(event["id"]) == (conversion.key, attempt)
    assert event["source"] == source_of(conversion.catalog, conversion.collection)
    assert (parse_stamp(event["time"]), parse_stamp(data["datetime"])) == (conversion.time, conversion.datetime)
    for name in ("collection", "item_id", "item_href", "product_href", "output_zarr", "groups", "revision", "reason", "lane"):
        assert data[name] == getattr(conversion, name)
    assert (data["options"], tuple(data["bbox"]), data["tile"]) == (conversion.options, conversion.bbox, conversion.tile)


@given(CONVERSIONS, ATTEMPTS)
def test_an_event_is_a_cloudevent_whose_data_the_sensor_can_map(conversion, attempt):
    body = build_event(conversion, attempt)
    event = json.loads(body)
    assert len(body) <= MAX_EVENT_BYTES
    assert event["specversion"] == "1.0"
    for required in ("id", "source", "type"):  # CloudEvents 1.0.2, required attributes: non-empty strings
        assert isinstance(event[required], str)
        assert event[required]
    assert event["type"] == f"org.ogc.api.collection.item.{conversion.kind}"
    assert event["subject"] == conversion.item_id
    assert event["datacontenttype"] == "application/json"
    data = dict(event["data"])
    assert (data.pop("attempt"), data.pop("priority")) == (attempt, PRIORITY[conversion.lane])
    assert all(isinstance(x, float | int) for x in data.pop("bbox"))
    assert all(isinstance(x, str) for x in data.pop("options").values())
    assert {type(value) for value in data.values()} == {str}
    assert set(data) == {
        "run", "key", "lane", "reason", "collection", "item_id", "item_href", "product_href", "revision", "datetime", "tile",
        "stac_url", "output_zarr", "groups", "source_name", "fence", "installation", "allowed_hosts", "form",
        "collection_label", "title",
    }  # fmt: skip


@given(CONVERSIONS, ATTEMPTS, ATTEMPTS, st.sampled_from([None, *PRIORITY]))
def test_a_later_attempt_changes_what_names_the_attempt_and_nothing_else(conversion, first, second, lane):
    before = json.loads(build_event(conversion, first))
    body, run = next_attempt(build_event(conversion, first), second, reason="retry", lane=lane)
    after = json.loads(body)
    assert run == after["data"]["run"] == run_name(conversion, second)
    assert after["id"] == event_id(conversion.key, second)
    assert (after["data"]["attempt"], after["data"]["reason"]) == (second, "retry")
    kept = lane or conversion.lane
    assert (after["data"]["lane"], after["data"]["priority"]) == (kept, PRIORITY[kept])
    for name in ("run", "attempt", "reason", "lane", "priority"):
        del before["data"][name], after["data"][name]
    del before["id"], after["id"]
    assert after == before


@given(CONVERSIONS, ATTEMPTS)
def test_the_next_attempt_has_the_bytes_that_building_it_would_give(conversion, attempt):
    body, _ = next_attempt(build_event(conversion, 1), attempt, reason=conversion.reason)
    assert body == build_event(conversion, attempt)


@pytest.mark.parametrize("value", ["", ".hidden", "-x", "a/b", "a..b", "../etc", "a b", "ä", "x" * 129, "a\n", "{x}", "a\0"])
def test_an_id_that_must_not_become_a_name_is_refused(value):
    with pytest.raises(IdentityError, match="not usable as a name") as caught:
        check_item_id(value)
    assert len(caught.value.message) < 200
    with pytest.raises(IdentityError):
        build_event(replace(GOLDEN_INPUT, item_id=value), 1)


@pytest.mark.parametrize("value", ["", ".", "..", " x", "a\n", "{x}", "a\0", "a\u200bb", "x" * 257])
def test_a_collection_that_must_not_become_a_name_is_refused(value):
    with pytest.raises(IdentityError, match="not usable as a name"):
        build_event(replace(GOLDEN_INPUT, collection=value), 1)


@given(COLLECTIONS, COLLECTIONS)
def test_any_collection_has_a_folder_and_a_label_of_its_own(one, other):
    for name, longest in ((folder_name(one), 128), (label_name(one), 63)):
        assert ITEM_ID.fullmatch(name)
        assert ".." not in name
        assert len(name) <= longest
    assert illegal_label({"collection_label": label_name(one)}) is None
    assert (folder_name(one) == folder_name(other)) == (label_name(one) == label_name(other)) == (one == other)
    source = source_of("https://stac.example", one)
    assert urlsplit(source).path.count("/") == 2
    assert unquote(source).endswith(f"/collections/{one}")


@given(IDS)
def test_a_legal_id_comes_back_unchanged(value):
    assert check_item_id(value) == value


def test_an_event_beyond_16_kib_is_refused():
    with pytest.raises(InputError, match="16384"):
        build_event(replace(GOLDEN_INPUT, groups="x" * MAX_EVENT_BYTES), 1)


HOSTS = ("objects.example", "*.eodc.eu")


@pytest.mark.parametrize(
    "href",
    [
        "https://objects.example/x.zarr",
        "https://objects.example:443/0123abcd:202511-s02msil2a-eu/13/x.zarr",  # EODC's real form
        "HTTPS://OBJECTS.EXAMPLE/x.zarr",
        "https://data.eodc.eu/x.zarr",
        "s3://objects.example/x.zarr",
    ],
)
def test_an_allowed_href_comes_back_unchanged(href):
    assert check_href(href, HOSTS) == href


@pytest.mark.parametrize(
    ("href", "said"),
    [
        ("https://evil.example/x.zarr", "'evil.example'"),
        ("https://objects.example.evil.example/x.zarr", "not allowed"),
        ("https://eodc.eu/x.zarr", "not allowed"),
        ("https://evileodc.eu/x.zarr", "not allowed"),
        ("https://objects.example@evil.example/x.zarr", "credentials"),
        ("https://user:secret@objects.example/x.zarr", "credentials"),
        ("file:///etc/passwd", "scheme"),
        ("/etc/passwd", "scheme"),
        ("ftp://objects.example/x.zarr", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("https://objects.example/{{workflow.name}}.zarr", "characters"),
        ("https://objects.example/$(id).zarr", "characters"),
        ("https://objects.example/a b.zarr", "characters"),
        ("https://objects.example/a\n.zarr", "characters"),
        ("https://objects.example/\x7f.zarr", "characters"),
        ("https://objects.example/ü.zarr", "characters"),
        ("https://objects.example/a'b.zarr", "characters"),
        ("https://[objects.example/x.zarr", ""),
        ("", "scheme"),
    ],
)
def test_a_href_that_is_not_ours_to_open_is_refused(href, said):
    with pytest.raises(IdentityError) as caught:
        check_href(href, HOSTS)
    assert said in caught.value.message
    assert "secret" not in caught.value.message


@given(st.text(max_size=60))
def test_whatever_a_href_holds_it_is_allowed_or_refused_never_a_crash(href):
    with contextlib.suppress(IdentityError):
        assert check_href(href, HOSTS) == href


def test_without_a_host_list_files_of_this_machine_may_be_named():
    assert check_href("/data/x.zarr") == "/data/x.zarr"
    assert check_href("file:///data/x.zarr")
    with pytest.raises(IdentityError, match="scheme"):
        check_href("ftp://x/y")


def broken(**over):
    event = json.loads(GOLDEN)
    event["data"] |= over.pop("data", {})
    event |= over
    return json.dumps(event).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", GOLDEN[:-1], GOLDEN.replace(b"conversion:1", b"conversion:2"),
        GOLDEN.replace(b'"specversion": "1.0", ', b""), GOLDEN.replace(b'"a7a6c7283b545f43158e-1"', b'"x"'),
        GOLDEN.replace(b'"output_zarr"', b'"output"'), broken(data={"run": "../../etc/cron.d"}), broken(data={"run": "gz-x/y-1"}),
        broken(data={"run": ""}), broken(data={"key": "000000000000"}), broken(data={"attempt": 2}), broken(id="a7a6c7283b54-0"),
        broken(data={"item_id": "../x"}), broken(data={"output_zarr": None}), broken(data={"options": ["x"]}),
        broken(data={"options": {"dask": 1}}),
    ],
)  # fmt: skip
def test_what_is_not_an_event_of_ours_is_refused(body):
    with pytest.raises(InputError) as caught:
        parse_event(body)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", "no object"),
        (b"null", "no object"),
        (b"[" * 100_000, "too deep"),
        (b'{"id": ' + b"9" * 5000 + b"}", "number of thousands"),
    ],
)
def test_a_document_of_another_form_is_refused_in_words_of_ours(body, said):
    with pytest.raises(InputError, match=said):
        parse_event(body)


@pytest.mark.parametrize("field", ["run", "key", "attempt", "item_id", "product_href", "stac_url", "output_zarr", "revision"])
def test_a_field_that_the_engines_need_is_missed_by_name(field):
    event = json.loads(GOLDEN)
    del event["data"][field]
    with pytest.raises(InputError, match=field):
        parse_event(json.dumps(event).encode())


@pytest.mark.parametrize(
    "value", ["", "abc-1", "A7a6c7283b54-1", "a7a6c7283b54", "a7a6c7283b54-0", "a7a6c7283b54-01", "a7a6c7283b545f43158e-1\n"]
)
def test_an_event_id_has_one_form(value):
    with pytest.raises(IdentityError):
        parse_event_id(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-10-08T12:26:13Z", datetime(2025, 10, 8, 12, 26, 13, tzinfo=UTC)),
        ("2025-11-13T19:07:10.734678Z", datetime(2025, 11, 13, 19, 7, 10, 734678, tzinfo=UTC)),
        ("2025-10-08T12:26:13+00:00", datetime(2025, 10, 8, 12, 26, 13, tzinfo=UTC)),
        ("2025-10-08T14:26:13+02:00", datetime(2025, 10, 8, 12, 26, 13, tzinfo=UTC)),
        ("2025-10-08T12:26:13", datetime(2025, 10, 8, 12, 26, 13, tzinfo=UTC)),
        ("", None), ("yesterday", None), (None, None), (5, None), (["x"], None), ("2025-13-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None), ("9999-12-31T23:59:59-14:00", None),  # no such moment in UTC
    ],
)  # fmt: skip
def test_stamps_in_every_spelling_of_real_catalogs(text, expected):
    assert parse_stamp(text) == expected


@given(TIMES)
def test_a_stamp_is_utc_with_z_and_comes_back(moment):
    assert stamp(moment).endswith("Z")
    assert parse_stamp(stamp(moment)) == moment
    assert ("." in stamp(moment)) == bool(moment.microsecond)


def test_a_product_id_is_taken_apart():
    assert parse_product_id("S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613") == {
        "platform": "S2A", "level": "L2A", "sensing": "20251008T100041", "baseline": "0511", "orbit": "122", "tile": "T32TQM",
        "generation": "20251008T122613",
    }  # fmt: skip
    assert parse_product_id("LC09_L2SP_193029") is None
    assert tile_of("S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613") == "T32TQM"
    assert tile_of("LC09_L2SP_193029") == ""


@pytest.mark.parametrize("attempt", ["100000", "4000000000", "9" * 60, "9" * 5000, "0", "-1", "\u00b2", "1.0", ""])
def test_nobody_s_numbers_go_on_from_an_attempt_that_cannot_be(attempt):
    """A database has 32 bits for it, Python reads 4300 digits: one posted event ended the watcher of all sources."""
    with pytest.raises(IdentityError):
        parse_event_id(f"{'a' * 20}-{attempt}")
    assert read_attempt(attempt) == 0
    assert (parse_event_id(f"{'a' * 20}-99999"), read_attempt("99999")) == (("a" * 20, 99999), 99999)
