"""The Sensor's filter takes whatever a watcher sends, and nothing that it would not send. The script runs in a real Lua 5.1.

What the API server makes of the admission policy, only an API server can say: tests/cluster/test_guard.py.
"""

import json
import re

import pytest
from fakes.installation import CONFIG, told
from lupa import lua51

from stac_watch.cluster.manifests.guard import SETTABLE, script
from stac_watch.cluster.manifests.render import parts
from stac_watch.model.errors import StacWatchError
from stac_watch.model.event import MAX_TEXT, build_event, next_attempt, parse_event, run_name
from stac_watch.runs.workflow import illegal_label


@pytest.fixture(scope="module")
def sensor_takes(objects):
    """Judges a body as Argo Events does: data filters on the first of equal keys, and the script on the last."""
    [dependency] = objects["Sensor", "geozarr"]["spec"]["dependencies"]
    filters = dependency["filters"]
    assert filters["script"] == script()

    def takes(body, text=filters["script"]):
        first = json.loads(body, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        for entry in filters["data"]:
            value = {"body": first}
            for part in entry["path"].split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if not any(re.search(pattern, value if isinstance(value, str) else "") for pattern in entry["value"]):
                return False
        lua = lua51.LuaRuntime(register_eval=False, register_builtins=False)
        lua.globals()["event"] = table(lua, {"header": {}, "body": json.loads(body), "metadata": {}})
        try:
            return lua.execute(text) is True
        except lua51.LuaError:
            return False

    return takes


def table(lua, node):
    """As mapToTable of Argo Events has it: null is left out."""
    if isinstance(node, dict):
        return lua.table_from({key: table(lua, value) for key, value in node.items() if value is not None})
    if isinstance(node, list):
        return lua.table_from([table(lua, value) for value in node])
    return node.encode("utf-8", "replace").decode("latin-1") if isinstance(node, str) else node


def is_sent(body):
    """Whether a watcher, or `stac-watch send`, would post it."""
    try:
        return illegal_label(parse_event(body)["data"]) is None
    except StacWatchError:
        return False


def test_every_attempt_of_every_kind_passes(sensor_takes, conversion, event):
    assert is_sent(event)
    assert sensor_takes(event)
    for attempt in (1, 9, 10, 99_999):
        body, _ = next_attempt(event, attempt, reason="retry", lane="replay", overwrite=True)
        assert is_sent(body)
        assert sensor_takes(body)
    assert run_name(conversion, 3) in event.decode()


@pytest.mark.parametrize("sensors", [2, 3, 4])
def test_each_event_is_one_sensors(sensor_takes, event, sensors):
    """Keys are hashes: each Sensor has its share, whatever attempt it is, and no event has two Sensors or none."""
    shares = []
    for number in range(40):
        body = event.decode().replace(json.loads(event)["data"]["key"][:16], f"{number * 1637:04x}{number:012x}").encode()
        takers = [n for n in range(sensors) if sensor_takes(body, script(sensors, n))]
        assert len(takers) == 1
        shares += takers
    assert set(shares) == set(range(sensors))


def test_sensors_are_called_apart_and_the_first_keeps_its_name():
    made = [d for d in parts(told(CONFIG, eventBus={"sensors": 3}))["events.yaml"] if d["kind"] == "Sensor"]
    assert [d["metadata"]["name"] for d in made] == ["geozarr", "geozarr-2", "geozarr-3"]
    for number, sensor in enumerate(made):
        assert sensor["spec"]["dependencies"][0]["filters"]["script"] == script(3, number)
        resource = sensor["spec"]["triggers"][0]["template"]["k8s"]["source"]["resource"]
        assert resource["metadata"]["labels"]["events.argoproj.io/sensor"] == sensor["metadata"]["name"]


def test_events_of_earlier_versions_pass(sensor_takes, event):
    """Stored before keys had 20 digits, and before later fields were there."""
    document = json.loads(event)
    data = document["data"]
    data["key"] = data["key"][:12]
    data["run"] = f"gz-t32tqm-20250831t103701-{data['key'][:10]}-3"
    document["id"] = f"{data['key']}-3"
    for field in ("source_name", "fence", "installation", "allowed_hosts", "form", "options", "bbox"):
        del data[field]
    body = json.dumps(document).encode()
    assert is_sent(body)
    assert sensor_takes(body)


FORGED = {
    "no data": lambda e: e.pop("data"),
    "data that is text": lambda e: e.update(data="x"),
    "another schema": lambda e: e.update(dataschema="urn:x"),
    "no version": lambda e: e.pop("specversion"),
    "an id of another key": lambda e: e.update(id="0" * 20 + "-3"),
    "an id that is a number": lambda e: e.update(id=3),
    "a key that is no key": lambda e: e["data"].update(key="x" * 20),
    "a key of another length": lambda e: e["data"].update(key="a" * 16),
    "a name of nothing": lambda e: e["data"].update(run="prod-database"),
    "a name of another key": lambda e: e["data"].update(run="gz-t32tqm-20250831t103701-0000000000000000-3"),
    "a name of another attempt": lambda e: e["data"].update(run=e["data"]["run"][:-1] + "4"),
    "a name without end": lambda e: e["data"].update(run="gz-" + "a" * 60 + e["data"]["run"][-19:]),
    "an attempt that is none": lambda e: e["data"].update(attempt=0),
    "an attempt that is text": lambda e: e["data"].update(attempt="3"),
    "half an attempt": lambda e: e["data"].update(attempt=3.5),
    "an attempt without end": lambda e: e["data"].update(attempt=10**9),
    "before everybody": lambda e: e["data"].update(priority=1_000_000),
    "a priority that is text": lambda e: e["data"].update(priority="0"),
    "no priority": lambda e: e["data"].pop("priority"),
    "a value that is a list": lambda e: e["data"].update(stac_url=["https://x"]),
    "a missing value": lambda e: e["data"].pop("groups"),
    "a value without end": lambda e: e["data"].update(groups="é" * MAX_TEXT),
    "an id that is a path": lambda e: e["data"].update(item_id="../../etc/passwd"),
    "an id with dots": lambda e: e["data"].update(item_id="a..b"),
    "a label that is none": lambda e: e["data"].update(tile="{{workflow.name}}"),
    "a label that ends in a dot": lambda e: e["data"].update(lane="live."),
    "options that are text": lambda e: e["data"].update(options="x"),
    "an option that is a number": lambda e: e["data"]["options"].update(spatial_chunk=512),
    "an option without end": lambda e: e["data"]["options"].update(package="x" * (MAX_TEXT + 1)),
}


@pytest.mark.parametrize("how", FORGED)
def test_what_no_watcher_sends_is_dropped(sensor_takes, event, how):
    document = json.loads(event)
    FORGED[how](document)
    body = json.dumps(document).encode()
    assert not is_sent(body)
    assert not sensor_takes(body)


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"{}", b'{"data": {}}', b"null"])
def test_what_is_no_event_at_all_is_dropped(sensor_takes, body):
    assert not sensor_takes(body)


def test_one_of_two_equal_keys_is_not_judged_for_the_other(sensor_takes, event):
    """Go's JSON reads the last one, the mapping the first."""
    text = event.decode()
    run = json.loads(event)["data"]["run"]
    twice = text.replace(f'"run": "{run}"', f'"run": "prod-database", "run": "{run}"')
    assert twice != text
    assert json.loads(twice) == json.loads(text)
    assert not sensor_takes(twice.encode())


def test_ids_of_every_item_make_events_that_pass(sensor_takes, conversion):
    from dataclasses import replace

    for item_id in ("S2A_X", "a", "A." * 60 + "z", "x" * 128, "0", "a-b_c.d"):
        for tile in (conversion.item_id, item_id):
            body = build_event(replace(conversion, item_id=tile, collection="c-l2a.v1_x"), 1)
            assert is_sent(body) == sensor_takes(body)
            assert sensor_takes(body)


def test_the_policy_is_on_our_namespace_alone(objects):
    policy = objects["ValidatingAdmissionPolicy", "stac-watch-geozarr"]
    binding = objects["ValidatingAdmissionPolicyBinding", "stac-watch-geozarr"]
    here = {"matchLabels": {"kubernetes.io/metadata.name": "geozarr"}}
    assert policy["spec"]["matchConstraints"]["namespaceSelector"] == here
    assert binding["spec"]["matchResources"]["namespaceSelector"] == here
    assert (policy["spec"]["failurePolicy"], binding["spec"]["validationActions"]) == ("Fail", ["Deny"])
    assert not {"serviceAccountName", "templates", "volumes", "podSpecPatch", "hostNetwork", "securityContext"} & set(SETTABLE)
