"""What the Argo engine makes of the EventSource's answers, and of the room that there is.

What the Sensor makes of an event is held by tests/manifests.
"""

import json
import re

import pytest
from engine_contract import data_of, event_of
from fakes.eventsource import TOKEN, deliver
from fakes.kubernetes import WORKFLOWS
from fakes.workflows import status

from stac_watch.model.errors import Refused, Temporary
from stac_watch.runs.engine import Answer


def test_the_event_is_posted_byte_for_byte(engine, source):
    event = event_of()
    assert engine.submit(event).answer is Answer.ACCEPTED
    [(headers, body)] = source.posts
    assert body == event
    assert headers["Content-Type"] == "application/cloudevents+json"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((500, "failed to record event"), Answer.UNKNOWN),
        ((503, "no endpoints"), Answer.UNKNOWN),
        ((429, "slow down"), Answer.UNKNOWN),
        ((400, "endpoint is inactive"), Answer.UNKNOWN),  # it is starting
        ((400, "invalid character"), Answer.REFUSED),
        ((413, "too large"), Answer.REFUSED),
    ],
)
def test_answers_that_are_not_200(engine, source, answer, expected):
    source.answer = answer
    receipt = engine.submit(event_of())
    assert receipt.answer is expected
    assert receipt.detail == f"HTTP {answer[0]} {answer[1]}"
    assert engine.headroom() == 3


def test_a_name_that_a_workflow_of_another_key_has_is_said_before_its_arguments_are_overwritten(engine, source, api):
    body = event_of()
    other = json.loads(body)
    key = other["data"]["key"][:-1] + ("1" if other["data"]["key"][-1] == "0" else "0")
    other |= {"id": f"{key}-1", "data": other["data"] | {"key": key}}
    deliver(api, json.dumps(other).encode())
    receipt = engine.submit(body)
    assert receipt.answer is Answer.REFUSED
    assert key in receipt.detail
    assert source.posts == []


def test_an_answer_that_never_comes_is_unknown_and_the_event_may_have_arrived(engine, source):
    source.answer = (0, "")
    event = event_of()
    assert engine.submit(event).answer is Answer.UNKNOWN
    assert [run.name for run in engine.runs([data_of(event)["key"]])] == [data_of(event)["run"]]


def test_nobody_listens(argo):
    receipt = argo(webhook="http://127.0.0.1:9/items").submit(event_of())
    assert receipt.answer is Answer.UNKNOWN
    assert "http://127.0.0.1:9/items" in receipt.detail


@pytest.mark.parametrize("token", ["wrong", None])
def test_a_wrong_token_stops_everything_and_is_not_shown(argo, token):
    engine = argo(token=token)
    with pytest.raises(Refused, match="token") as error:
        engine.submit(event_of())
    assert "STAC_WATCH__ENGINE__TOKEN" in error.value.hint
    assert "wrong" not in error.value.message + error.value.hint + repr(engine.__dict__)


def test_a_wrong_url_stops_everything(argo, webhook):
    with pytest.raises(Refused, match="404") as error:
        argo(webhook=webhook.replace("items", "itmes")).submit(event_of())
    assert "eventsource-svc" in error.value.hint


def test_the_token_does_not_follow_a_redirect(engine, source):
    source.answer = (307, "")
    with pytest.raises(Refused, match="307"):
        engine.submit(event_of())
    assert len(source.posts) == 1


def test_an_event_that_the_sensor_could_not_use_is_refused_before_it_is_sent(engine, source):
    receipt = engine.submit(event_of(source_name="c" * 64))
    assert receipt.answer is Answer.REFUSED
    assert "label" in receipt.detail
    assert source.posts == []


def test_accepted_events_take_room_before_their_workflow_is_seen(engine, source, api, clock):
    source.sensor = False
    for number in (1, 2):
        engine.submit(event_of(number))
    assert engine.headroom() == 1
    deliver(api, event_of(1))
    assert engine.headroom() == 1  # seen now, and counted once
    api.put(data_of(event_of(1))["run"], status=status("Succeeded"))
    assert engine.headroom() == 2
    clock.forward(minutes=15)  # the bus has lost the other one
    assert engine.headroom() == 3


def test_a_run_that_began_and_ended_between_two_looks_takes_no_room(engine, api):
    event = event_of()
    engine.submit(event)
    api.put(data_of(event)["run"], status=status("Succeeded"))
    engine.runs([data_of(event)["key"]])
    assert engine.headroom() == 3


def test_a_full_cluster_is_asked_again_as_soon_as_a_run_was_seen_to_end(engine, api):
    events = [event_of(number) for number in (1, 2, 3)]
    for event in events:
        engine.submit(event)
    assert engine.headroom() == 0
    api.put(data_of(events[0])["run"], status=status("Succeeded"))
    assert engine.headroom() == 0  # nobody has looked, and the clock stands
    engine.runs([data_of(events[0])["key"]])
    assert engine.headroom() == 1


def test_workflows_of_others_take_no_room(engine, api):
    api.add(WORKFLOWS, {"metadata": {"name": "by-hand", "labels": {"stac-watch/lane": "hand"}}, "spec": {}})
    assert engine.headroom() == 3


def test_the_webhook_is_asked_in_a_way_that_makes_no_run(engine, source, api, webhook):
    assert engine.ping() == f"{webhook} answers, and takes the token"
    assert [body for _, body in source.posts] == [b"OPTIONS"]
    assert api.workflows == {}


@pytest.mark.parametrize(
    ("given", "answer", "error", "said"),
    [
        ({"token": "wrong"}, (200, ""), Refused, "refuses the token: HTTP 401 Invalid token"),
        ({"token": None}, (200, ""), Refused, "HTTP 401 Invalid Authorization Header"),
        ({"path": "/elsewhere"}, (200, ""), Refused, "is not the EventSource's endpoint: HTTP 404"),
        ({}, (307, ""), Refused, "is not the EventSource's endpoint: HTTP 307"),
        ({}, (400, "endpoint is inactive"), Temporary, "HTTP 400 endpoint is inactive"),
        ({}, (500, "Error loading auth token"), Temporary, "HTTP 500 Error loading auth token"),
        ({}, (204, ""), Refused, "as no EventSource would"),
        ({}, (405, "nginx"), Refused, "HTTP 405 nginx"),
        ({"url": "http://127.0.0.1:9/items"}, (200, ""), Temporary, "no answer from http://127.0.0.1:9/items"),
    ],
)
def test_a_webhook_that_does_not_work_is_named_with_what_to_do(argo, source, webhook, given, answer, error, said):
    source.answer = answer
    url = given.get("url") or webhook.replace("/items", given.get("path", "/items"))
    with pytest.raises(error, match=re.escape(said)) as caught:
        argo(webhook=url, token=given.get("token", TOKEN)).ping()
    assert caught.value.hint
