"""`POST /hints`: a reason to ask a source now; whoever has the token can cost it a few polls, and tell it nothing."""

import base64
import json
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from stac_watch.config.load import load
from stac_watch.config.model import Limits, Source
from stac_watch.model.errors import ConfigError
from stac_watch.report.web.answers import serving
from stac_watch.report.web.hints import LARGEST, Desk, desk_of
from stac_watch.report.web.site import Site
from stac_watch.watch.hints import PAUSE, Hints
from stac_watch.watch.pulse import Recorder

TOKEN = "s3cret-Ω"
API = "https://stac.example"
FROM_EOAPI = {
    "specversion": "1.0", "id": "1", "source": "/eoapi/stac", "type": "org.eoapi.stac.created", "subject": "S2A",
    "collection": "sentinel-2-l2a", "data": {"operation": "INSERT", "collection": "sentinel-2-l2a", "item_id": "S2A"},
}  # fmt: skip
ABOUT_L2A = [
    {"source": "l2a"}, {"collection": "sentinel-2-l2a"}, FROM_EOAPI, [FROM_EOAPI], {"data": FROM_EOAPI["data"]},
    {"specversion": "1.0", "type": "org.ogc.api.collection.item.create", "source": f"{API}/collections/sentinel-2-l2a"},
    {"source": f"{API}/collections/sentinel-2-l2a/items/S2A"},
    {"operation": "INSERT", "items": [{"collection": "other", "id": "x"}, {"collection": "sentinel-2-l2a", "id": "y"}]},
]  # fmt: skip
ABOUT_NOBODY = [
    {},
    [],
    7,
    "l2a",
    {"source": ["l2a"]},
    {"data": {"source": {}}},
    {"items": 5},
    {"source": "https://[", "x": 1},
]


def source(name, collection):
    return Source(name=name, api=API, collection=collection)


@pytest.fixture(scope="module")
def desk():
    return Desk((source("l2a", "sentinel-2-l2a"), source("l1c", "urn:l1c")), Hints(), lambda: TOKEN)


@pytest.fixture(scope="module")
def url(desk, open_ledger, tmp_path_factory, make):
    with served(open_ledger(tmp_path_factory.mktemp("hints") / "ledger.db"), make, desk) as url:
        yield url


@contextmanager
def served(ledger, make, desk):
    pulse = Recorder(lambda: make.now)
    with serving(Site(ledger, desk.sources, Limits(), pulse.read, lambda: make.now, "1", desk=desk), "127.0.0.1", 0) as url:
        yield f"{url}hints"
    ledger.close()


def post(url, body=None, token=TOKEN, **headers):
    auth = {"Authorization": f"Bearer {token}".encode()} if token is not None else {}
    return requests.post(url, data=body if isinstance(body, bytes) else json.dumps(body), headers=auth | headers, timeout=5)


@pytest.mark.parametrize("said", ABOUT_L2A)
def test_whatever_names_a_source_or_its_collection_is_a_hint(url, desk, make, said):
    assert (answer := post(url, said)).status_code == 202
    assert answer.json() == {"sources": ["l2a"]}
    assert desk.hints.is_due("l2a", make.now)
    assert not desk.hints.is_due("l1c", make.now)
    desk.hints.begin("l2a")


def test_a_cloudevent_in_binary_mode_names_it_in_its_headers(url, desk):
    headers = {"ce-specversion": "1.0", "ce-source": "/eoapi/stac", "ce-collection": "urn%3Al1c", "ce-id": "1"}
    assert post(url, {"id": "x"}, **headers).json() == {"sources": ["l1c"]}
    assert post(url, b"", **headers).json() == {"sources": ["l1c"]}
    desk.hints.begin("l1c")


@pytest.mark.parametrize("said", ABOUT_NOBODY)
def test_what_names_nobody_is_taken_and_asks_for_nothing(url, desk, make, said):
    assert post(url, said).json() == {"sources": []}
    assert not any(desk.hints.is_due(s.name, make.now) for s in desk.sources)


@pytest.mark.parametrize("token", [None, "", "wrong", "Ω", TOKEN[:-1], f"{TOKEN}x"])
def test_without_the_token_nothing_is_read(url, desk, make, token):
    answer = post(url, {"source": "l2a"}, token)
    assert (answer.status_code, "l2a" in answer.text) == (401, False)
    assert not desk.hints.is_due("l2a", make.now)


def test_a_notifier_that_sets_no_headers_has_the_token_in_its_address(url, desk):
    for password, code in ((TOKEN, 202), ("wrong", 401)):
        given = base64.b64encode(f"hints:{password}".encode()).decode()
        assert post(url, {"source": "l2a"}, None, Authorization=f"Basic {given}").status_code == code
    assert post(url, {"source": "l2a"}, None, Authorization="Basic %%%").status_code == 401
    desk.hints.begin("l2a")


def test_what_cannot_be_read_is_refused(url):
    assert post(url, b"{").status_code == 400
    assert post(url, None).status_code == 400
    assert post(url, b"[" * 60_000).status_code == 400
    assert post(url, b"\xff").status_code == 400
    assert post(url, b" " * (LARGEST + 1)).status_code == 413
    assert requests.get(url, timeout=5).status_code == 405


def test_it_is_counted(url):
    post(url, {"source": "l2a"})
    text = requests.get(url.replace("hints", "metrics"), timeout=5).text
    assert 'stac_watch_hints_total{result="taken"}' in text


def test_without_a_token_there_is_no_such_address(open_ledger, tmp_path, make):
    site = Site(open_ledger(tmp_path / "ledger.db"), (), Limits(), Recorder(lambda: make.now).read, lambda: make.now, "1")
    with serving(site, "127.0.0.1", 0) as url:
        assert requests.post(f"{url}hints", timeout=5).status_code == 404
    site.ledger.close()


def test_a_flood_of_hints_costs_no_more_than_the_polls_that_there_are(make):
    hints, now, interval, polls = Hints(), make.now, timedelta(seconds=60), 0
    for _ in range(600):  # a second each
        hints.give("s2")
        if hints.is_due("s2", now):
            hints.begin("s2")
            hints.end("s2", now, useful=False, longest=interval)
            polls += 1
        now += PAUSE
    assert polls <= 600 / 60 + 6
    hints.give("s2")
    now += interval
    assert hints.is_due("s2", now)
    hints.begin("s2")
    hints.end("s2", now, useful=True, longest=interval)
    hints.give("s2")
    assert not hints.is_due("s2", now)
    assert hints.is_due("s2", now + PAUSE), "one that was worth it makes the next quick again"


def test_a_hint_that_comes_while_a_poll_is_under_way_is_followed_by_another_poll(make):
    hints = Hints()
    hints.give("s2")
    hints.begin("s2")
    hints.give("s2")
    hints.end("s2", make.now, useful=True, longest=PAUSE)
    assert hints.is_due("s2", make.now + PAUSE)


def test_a_pause_ends_when_there_is_something_to_do():
    hints, waited = Hints(), []
    assert hints.rest(lambda s: waited.append(s) or False, 1.0, [SimpleNamespace(is_hinted=False)]) <= 0
    assert sum(waited) == pytest.approx(1.0)
    hints.bell.set()
    assert hints.rest(lambda _: False, 1.0, ()) > 0.8
    assert not hints.bell.is_set()
    assert hints.rest(lambda _: False, 1.0, [SimpleNamespace(is_hinted=True)]) > 0.8
    assert hints.rest(lambda _: True, 1.0, ()) is None


def configured(tmp_path: Path, hints: str, **environ):
    (tmp_path / "stac-watch.yaml").write_text(
        f"sources: [{{name: s2, api: https://stac.example, collection: c}}]\nweb: {{port: 0{hints}}}\n"
    )
    config = load(tmp_path / "stac-watch.yaml", environ)
    return desk_of(config.web, config.sources, Hints())


def test_the_token_comes_from_a_variable_or_a_file(tmp_path):
    (tmp_path / "token").write_text("from a file\n")
    assert configured(tmp_path, "") is None
    assert configured(tmp_path, ", hints: {env: T}", T="from the environment").token() == "from the environment"
    assert configured(tmp_path, f", hints: {{file: {tmp_path}/token}}").token() == "from a file"
    assert configured(tmp_path, "", STAC_WATCH__WEB__HINTS__VALUE="as on a cluster").token() == "as on a cluster"


@pytest.mark.parametrize("hints", ["secret", "{value: secret}", "{env: NOWHERE}", "{file: /nowhere}", "{}"])
def test_a_token_in_the_file_or_nowhere_is_refused_by_name(tmp_path, hints):
    with pytest.raises(ConfigError, match=r"web\.hints") as refused:
        configured(tmp_path, f", hints: {hints}")
    assert "secret: " not in str(refused.value)
