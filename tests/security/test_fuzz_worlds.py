"""What other people's worlds hold is read, or refused by name: stores in Zarr v3, items, hints, the answers of sinks, values files.

Bounded: a longer range of `anything.SEEDS` looks further.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import loopback
import pytest
import yaml
from anything import SEEDS, worsened
from fakes.installation import CONFIG, ROOT, told
from geozarr_runner.source import preflight
from geozarr_runner.source.store import Patience
from shop import BASE, COLLECTION, described
from starlette.requests import Request

from stac_watch.cluster.manifests.facts import completed, settings_of, text_of, values_of
from stac_watch.cluster.manifests.render import installation
from stac_watch.config.load import parse
from stac_watch.config.model import Source
from stac_watch.config.register import Register
from stac_watch.config.sinks import EventSink
from stac_watch.demo.native import write_native
from stac_watch.discover.items import read_item
from stac_watch.model.errors import ConfigError, Defect, InputError, StacWatchError
from stac_watch.model.forms import Form, Native
from stac_watch.model.item import Item, Unreadable
from stac_watch.register.item import outputs_of, postable
from stac_watch.register.sinks import Mailbox
from stac_watch.report.web.hints import Desk
from stac_watch.watch.hints import Hints

ITEM_ID = "S2C_MSIL2A_20260927T133931_N0513_R067_T32TQM_20260927T170511"
STORE = f"https://objects.example/eopf/{ITEM_ID}.zarr"
ZARR = "application/vnd.zarr; version=3"


def refusal(read: Callable[[], object]) -> StacWatchError | None:
    """Returns how reading was refused, if it was: by name, in words that can be stored, and never as a defect of ours."""
    try:
        read()
    except StacWatchError as error:
        said = error
    else:
        return None
    assert not isinstance(said, Defect), said
    assert said.message.encode()
    return said


# -- stores -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> dict[str, Any]:
    """The root's metadata of a finished GeoZarr, with one array of each kind of group: the others are like it."""
    made = write_native(tmp_path_factory.mktemp("native"), ITEM_ID, size=72, chunk=36)
    return json.loads((made / "zarr.json").read_text())


def test_a_store_in_zarr_v3_is_planned_or_refused(root, tmp_path):
    for seed in SEEDS:
        rng, nodes = random.Random(seed), root["consolidated_metadata"]["metadata"]
        odd = rng.choice(sorted(nodes))
        document = {**root, "consolidated_metadata": {"metadata": {**nodes, odd: worsened(rng, nodes[odd])}}}
        if rng.random() < 0.3:
            document = worsened(rng, root)
        store = tmp_path / f"{ITEM_ID}.zarr"
        store.mkdir(exist_ok=True)
        (store / "zarr.json").write_text(json.dumps(document))
        refusal(partial(planned, store, rng.choice(["", "measurements/reflectance"]), rng.choice(list(Native))))


BAND = "measurements/reflectance/r10m/b02"


@pytest.mark.parametrize(
    "change",
    [
        {"codecs": []}, {"codecs": "bytes"}, {"codecs": [5]}, {"codecs": [{"name": ["bytes"]}]}, {"shape": [2**80, 1]},
        {"codecs": [{"name": "bytes", "configuration": None}]}, {"data_type": {"name": "fixed_length_utf32"}},
        {"data_type": {"name": "numpy.datetime64", "configuration": {"unit": []}}}, {"data_type": ["uint16"]}, {"fill_value": {}},
        {"shape": [1] * 3_000},
        {"fill_value": -1}, {"fill_value": None}, {"attributes": {"_FillValue": {}}}, {"chunk_grid": []}, {"dimension_names": 5},
        {"shape": [100_000, 100_000], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [100_000, 100_000]}}},
    ],
    ids=str,
)  # fmt: skip
def test_an_array_in_zarr_v3_that_nobody_should_read_is_refused_by_name(root, tmp_path, change):
    nodes = root["consolidated_metadata"]["metadata"]
    for path in (BAND, BAND.replace("r10m", "r120m")):  # and one that no conversion reads
        document = {**root, "consolidated_metadata": {"metadata": {**nodes, path: nodes[path] | change}}}
        (tmp_path / "zarr.json").write_text(json.dumps(document))
        said = refusal(lambda: planned(tmp_path, asked=Native.MIRROR))
        assert isinstance(said, InputError)
        assert len(said.message) < 1000


@pytest.mark.parametrize("node", ["text", [], 7, None])
def test_a_node_that_is_no_object_is_refused(root, tmp_path, node):
    nodes = root["consolidated_metadata"]["metadata"]
    document = {**root, "consolidated_metadata": {"metadata": {**nodes, "measurements/reflectance": node}}}
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    assert isinstance(refusal(lambda: planned(tmp_path)), InputError)


def planned(place: Path, groups: str = "", asked: Native = Native.MIRROR) -> None:
    wait = threading.Event().wait
    plan = preflight.plan(str(place), groups, allowed_hosts=(), patience=Patience(attempts=1), wait=wait, asked=asked)
    assert plan.selection.arrays
    assert plan.estimate.volume > 0


# -- items --------------------------------------------------------------------------------------------------------------------


def item() -> dict[str, Any]:
    """As other catalogs have them: parts of one store, alternates, an archive beside it."""
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": ITEM_ID, "collection": "c", "bbox": [11.4, 41.4, 12.7, 42.4],
        "properties": {
            "datetime": "2026-09-27T13:39:31Z", "updated": "2026-09-27T17:05:11Z", "grid:code": "MGRS-32TQM",
            "platform": "sentinel-2c", "eo:cloud_cover": 12.5, "processing:software": {"EOPF-CPM": "3.0.1"},
            "product:type": "S02MSIL2A", "deprecated": False,
            "view:sun_elevation": 40.0, "view:sun_azimuth": 160.0, "proj:code": "EPSG:32632", "start_datetime": None,
            "published": "2026-09-27T17:05:11Z", "processing:version": "05.13", "gsd": 10, "instruments": ["msi"],
        },
        "assets": {
            "SR_10m": {"href": f"{STORE}/measurements/reflectance/r10m", "type": ZARR, "bands": [{"name": "b02"}],
                       "alternate": {"s3": {"href": f"s3://eopf/{ITEM_ID}.zarr/measurements/reflectance/r10m"}}},
            "product": {"href": STORE, "type": ZARR, "zarr:consolidated": True, "zarr:zarr_format": 3, "file:checksum": "1220"},
            "zip": {"href": f"{STORE}.zip", "type": "application/zip"},
        },
        "links": [{"rel": "license", "href": "https://example.org/terms"}, {"rel": "via", "href": STORE}],
    }  # fmt: skip


def test_an_item_of_another_catalog_is_read_or_unreadable_and_what_is_registered_of_it_is_json():
    for seed in SEEDS:
        document = worsened(random.Random(seed), item())
        found = read_item(document, collection="c", api="https://stac.example", on="content", allowed_hosts=("objects.example",))
        assert isinstance(found, Item | Unreadable)
        for text in (
            (found.item_id, found.why) if isinstance(found, Unreadable) else (found.item_id, found.product_href, found.tile)
        ):
            text.encode()
        with contextlib.suppress(InputError):
            json.dumps(registered(document), allow_nan=False).encode()


def test_numbers_without_end_and_addresses_that_are_none_fail_no_page():
    document = item()
    document["assets"]["product"]["type"] = f"application/vnd.zarr; version={'9' * 5_000}"
    document["properties"]["processing:software"] = {"EOPF-CPM": f"{'9' * 5_000}.1"}
    document["links"] = [{"rel": "license", "href": "https://[x"}, {"rel": "license", "href": "https://example.org/terms"}]
    found = read_item(document, collection="c", api="https://stac.example", on="content", allowed_hosts=("objects.example",))
    assert (found.item_id, found.form) == (ITEM_ID, Form.OTHER)
    assert [link["href"] for link in registered(document)["links"] if link["rel"] == "license"] == ["https://example.org/terms"]


def registered(source: dict[str, Any]) -> dict[str, Any]:
    register = Register.model_validate({"api": "https://mine.example", "collection": COLLECTION, "href_base": BASE})
    return postable(
        described(ITEM_ID, "2026-09-28T12:00:00Z"), register, outputs_of("s3://bucket/{item_id}.zarr", BASE),
        output=f"s3://bucket/{ITEM_ID}.zarr", item_href="https://stac.example/x", source=source,
    ).document  # fmt: skip


def test_the_runner_reads_an_item_or_refuses_it(root, tmp_path):
    for seed in SEEDS:
        store = tmp_path / f"{ITEM_ID}.zarr"
        store.mkdir(exist_ok=True)
        (store / "zarr.json").write_text(json.dumps(root))
        led = json.loads(json.dumps(item()).replace(STORE, str(store)))
        (tmp_path / "item.json").write_text(json.dumps(worsened(random.Random(seed), led)))
        refusal(lambda: planned(tmp_path / "item.json"))


# -- hints --------------------------------------------------------------------------------------------------------------------

EVENT = {
    "specversion": "1.0", "id": "1", "source": "/eoapi/stac", "type": "org.eoapi.stac.created", "collection": "c",
    "data": {"operation": "INSERT", "collection": "c", "item_id": "S2A"}, "items": [{"collection": "c", "id": "x"}],
}  # fmt: skip


def test_a_hint_is_taken_or_refused():
    desk = Desk((Source(name="s", api="https://stac.example", collection="c"),), Hints(), lambda: "right")
    for seed in SEEDS:
        rng = random.Random(seed)
        body = rng.randbytes(40) if rng.random() < 0.3 else json.dumps(worsened(rng, EVENT)).encode()
        token = rng.choice([b"Bearer right", b"Basic eDpyaWdodA==", b"Basic \xff", b"Bearer \xff\x00", b"", b"Basic eA"])
        headers = [
            (b"authorization", token),
            (rng.choice([b"ce-source", b"ce-collection", b"x"]), rng.randbytes(rng.randint(0, 20))),
        ]
        answer = asyncio.run(desk.answer(request(body, headers)))
        assert answer.status_code in (202, 400, 401)
        assert (answer.status_code == 401) == (token not in (b"Bearer right", b"Basic eDpyaWdodA=="))


def request(body: bytes, headers: list[tuple[bytes, bytes]]) -> Request:
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive():
        return next(parts)

    return Request({"type": "http", "method": "POST", "path": "/hints", "headers": headers, "query_string": b""}, receive)


# -- sinks --------------------------------------------------------------------------------------------------------------------


class _Says(BaseHTTPRequestHandler):
    """Answers with the bytes that a test chose, and breaks off."""

    answer = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.wfile.write(type(self).answer)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


LINES = [
    b"HTTP/1.1 202 Accepted", b"HTTP/1.1 400 Bad", b"HTTP/1.1 503 Later", b"HTTP/1.1 302 Found", b"HTTP/1.1 999 ?", b"HTTP/1.1 200",
    b"HTTP/1.1 -1 x", b"HTTP/9.9 200 OK", b"HTTP/1.1 429 Slow", b"", b"\xff\x00 202",
]  # fmt: skip
HEADERS = [
    b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: x", b"Transfer-Encoding: chunked", b"Content-Encoding: gzip",
    b"Content-Encoding: br", b"Location: http://[", b"Location: //\xff", b"Retry-After: \xb2", b"Retry-After: 1e400",
    b"Retry-After: -1", b"Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", b"Date: never", b"Content-Type: text/html; charset=nothing",
    b"\xff: \xfe", b"X" * 70_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def sink():
    with loopback.serving(_Says) as url:
        yield EventSink(url=url)


def test_whatever_a_sink_answers_the_event_is_taken_or_waits(sink, clock):
    mailbox = Mailbox(sink, now=clock, agent="test", timeout=(30, 30))
    for seed in SEEDS:
        rng = random.Random(seed)
        headers, body = rng.choices(HEADERS, k=rng.randint(0, 3)), rng.choice([b"", b"5\r\n{}", rng.randbytes(30)])
        _Says.answer = b"\r\n".join([rng.choice(LINES), *headers, b"", body])
        refusal(lambda: mailbox.post(b"{}"))


# -- values -------------------------------------------------------------------------------------------------------------------

COMPANY = yaml.safe_load((ROOT / "deploy" / "examples" / "company.values.yaml").read_text())


def test_a_values_file_is_rendered_or_refused_with_its_place():
    for seed in SEEDS[::3]:
        said = refusal(partial(understood, worsened(random.Random(seed), COMPANY)))
        assert said is None or (isinstance(said, ConfigError) and said.hint)


def understood(raw: dict[str, Any]) -> None:
    values = values_of(raw, yaml.safe_dump(raw), "values.yaml")
    written = text_of(completed(values.config, values)).replace("intersects: aoi.geojson", "max_cloud_cover: 50")
    settings_of(parse(written, Path("stac-watch.yaml"), {}), written, values)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"runs": {"convert": {"requests": "2Gi"}}}, "runs.convert"),
        ({"poller": {"resources": {"limits": {"memory": "2 GB"}}}}, "limits.memory is '2 GB'"),
        ({"runs": {"convert": {"requests": {"cpu": "1.2.3"}}}}, "requests.cpu is '1.2.3'"),
        ({"configFiles": {"../x": ""}}, "'../x' cannot be a file"),
        ({"config": COMPANY["config"] | {"web": "on"}}, "'web' must hold keys and values"),
        ({"config": COMPANY["config"] | {"engine": []}}, "engine"),
        ({"config": COMPANY["config"] | {"sinks": [{"url": "https://h.example:99999"}]}}, "sinks.0.url"),
        ({"config": COMPANY["config"] | {"sources": [{"name": "s", "api": "https://[x", "collection": "c"}]}}, "sources.s.api"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(wrong, words):
    said = refusal(lambda: understood(COMPANY | wrong))
    assert isinstance(said, ConfigError)
    assert words in said.message


def test_what_was_taken_of_a_values_file_is_rendered():
    texts = installation(told(CONFIG, runs={"convert": {"requests": {"cpu": 2, "memory": "1e9"}}}, quota={"enabled": True}))
    assert "requests.cpu" in "".join(texts.values())
