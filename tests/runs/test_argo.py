"""The engine for a cluster against a server that answers like one, and one contract for it and the local engine.

The server holds Workflows as values and speaks HTTP: the EventSource's webhook with its real answers, the Kubernetes API's lists
(label selectors, pages, metadata only) and objects. What the Sensor makes of an event is held by tests/manifests.
"""

import json
import os
import re
import ssl
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import kubernetes
import loopback
import pytest
import yaml
from pydantic import SecretStr

from stac_watch.cluster.submit import create
from stac_watch.model.errors import ConfigError, InputError, Refused, Temporary
from stac_watch.model.event import Conversion, build_event, parse_event
from stac_watch.runs.argo import KEYS_PER_LIST, ArgoEngine
from stac_watch.runs.engine import Answer, Phase
from stac_watch.runs.kubernetes_api import Cluster as Api
from stac_watch.runs.kubernetes_api import connect
from stac_watch.runs.local import LocalEngine

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages
from engine_contract import hold

NOW = datetime(2025, 9, 1, tzinfo=UTC)
TOKEN = "right"  # of a server in this file
NAMESPACE = "/apis/argoproj.io/v1alpha1/namespaces/geozarr/workflows"


def event_of(number=1, attempt=1, **changes):
    given = {
        "catalog": "https://stac.example", "collection": "c", "item_id": f"item-{number}", "revision": "r", "recipe": "x",
        "kind": "create", "reason": "new", "lane": "live", "time": NOW, "datetime": NOW, "item_href": "https://stac.example/i",
        "product_href": "https://objects.example/p.zarr", "output_zarr": "/data/o.zarr",
    }  # fmt: skip
    return build_event(Conversion(**given | changes), attempt)


def data_of(event):
    return parse_event(event)["data"]


@dataclass
class Cluster:
    """What the server holds and how it answers."""

    workflows: dict = field(default_factory=dict)  # name -> object
    version: int = 0
    webhook: tuple = (200, "success")  # answer to a good event
    sensor: bool = True  # whether accepted events become Workflows
    api: int = 200  # answer of the API to everything, when it is not 200
    page: int = 500
    rights: tuple = ("get", "list", "watch")
    requests: list = field(default_factory=list)  # (method, path, query, accept)
    posts: list = field(default_factory=list)

    def deliver(self, event):
        data = data_of(event)
        if data["run"] not in self.workflows:
            labels = {"stac-watch/key": data["key"], "stac-watch/attempt": str(data["attempt"])}
            self.add({"metadata": {"name": data["run"], "labels": labels}, "spec": {}})

    def add(self, workflow):
        self.version += 1
        workflow["metadata"] |= {"uid": f"uid-{workflow['metadata']['name']}", "resourceVersion": str(self.version)}
        workflow["metadata"].setdefault("creationTimestamp", "2025-09-01T00:00:00Z")
        self.workflows[workflow["metadata"]["name"]] = workflow

    def set_status(self, name, phase, nodes=(), *, message="", **spec):
        workflow = self.workflows[name]
        workflow["status"] = {
            "phase": phase, "message": message, "startedAt": "2025-09-01T00:00:01Z",
            "nodes": {f"{name}-{i}": node for i, node in enumerate(nodes)},
        }  # fmt: skip
        workflow["spec"] |= spec
        if phase in ("Succeeded", "Failed", "Error"):
            workflow["metadata"]["labels"]["workflows.argoproj.io/completed"] = "true"
            workflow["status"]["finishedAt"] = "2025-09-01T00:09:00Z"
        self.add(workflow)

    def select(self, selector):
        def holds(labels, term):
            if match := re.fullmatch(r"(\S+) in \((.*)\)", term):
                return labels.get(match[1]) in match[2].split(",")
            if "!=" in term:
                key, _, value = term.partition("!=")
                return labels.get(key) != value
            return term in labels

        terms = re.findall(r"[^,(]+\([^)]*\)|[^,]+", selector)
        return [w for w in self.workflows.values() if all(holds(w["metadata"]["labels"], t.strip()) for t in terms)]


class Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        self.cluster.requests.append(("GET", url.path, query, self.headers["Accept"]))
        if self.cluster.api != 200:
            return self.answer(self.cluster.api, {"message": "as the test wants it"})
        if url.path == NAMESPACE:
            found = self.cluster.select(query["labelSelector"])
            start = int(query.get("continue", 0))
            end = start + min(self.cluster.page, int(query["limit"]))
            metadata = {"continue": str(end)} if end < len(found) else {}
            items = [{"metadata": w["metadata"]} for w in found[start:end]]
            assert "PartialObjectMetadataList" in self.headers["Accept"]
            return self.answer(200, {"items": items or None, "metadata": metadata})  # null, as the real one says it
        workflow = self.cluster.workflows.get(url.path.removeprefix(f"{NAMESPACE}/"))
        return self.answer(200, workflow) if workflow else self.answer(404, {"message": "not found"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == NAMESPACE:
            return self.create(json.loads(body))
        if self.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            return self.review(json.loads(body)["spec"]["resourceAttributes"])
        self.cluster.posts.append((dict(self.headers), body))
        if self.path != "/items":
            return self.answer(404, "404 page not found")
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, "Invalid token")
        status, said = self.cluster.webhook
        if status == 0:  # takes it, and is killed before it can say so
            self.cluster.deliver(body)
            self.close_connection = True
            return None
        if status == 200 and self.cluster.sensor:
            self.cluster.deliver(body)
        return self.answer(status, said)

    def do_OPTIONS(self):
        """What pkg/eventsources/common/webhook and sources/webhook of Argo Events 1.9.11 say, in their order."""
        self.cluster.posts.append((dict(self.headers), b"OPTIONS"))
        if self.path != "/items":
            return self.answer(404, "404 page not found")
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, "Invalid token" if self.headers["Authorization"] else "Invalid Authorization Header")
        status, said = self.cluster.webhook
        return self.answer(400, "http method does not match") if status == 200 else self.answer(status, said)

    def review(self, about):
        if self.cluster.api != 200:
            return self.answer(self.cluster.api, {"message": "as the test wants it"})
        assert (about["namespace"], about["group"], about["resource"]) == ("geozarr", "argoproj.io", "workflows")
        return self.answer(201, {"status": {"allowed": about["verb"] in self.cluster.rights}})

    def create(self, workflow):
        if self.cluster.api != 200:
            return self.answer(self.cluster.api, {"message": "as the test wants it"})
        name = workflow["metadata"].setdefault("name", workflow["metadata"].get("generateName", "") + "x7k2p")
        if name in self.cluster.workflows:
            return self.answer(409, {"message": f'workflows "{name}" already exists'})
        self.cluster.add(workflow)
        return self.answer(201, workflow)

    def answer(self, status, content):
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self._headers_buffer.append(
            b"\r\n" + body
        )  # one packet: two would wait for each other (Nagle, delayed ACK), 40 ms each time
        self.flush_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def server(cluster):
    with loopback.serving(type("Bound", (Handler,), {"cluster": cluster})) as url:
        yield url


@pytest.fixture
def clock():
    return [NOW]


@pytest.fixture
def make(server, clock):
    made = []

    def engine(*, webhook=f"{server}/items", token=TOKEN, max_in_flight=3):
        api = kubernetes.client.ApiClient(kubernetes.client.Configuration(host=server))
        api.configuration.retries = False
        made.append(
            ArgoEngine(
                webhook, SecretStr(token) if token else None, cluster=Api(api, "geozarr"), max_in_flight=max_in_flight,
                confirm_after=timedelta(minutes=15), now=lambda: clock[0],
            )
        )  # fmt: skip
        return made[-1]

    yield engine
    for each in made:
        each.close(stop_runs=False)


@pytest.fixture
def engine(make):
    return make()


def pod(template, phase, *, message="", exit_code="", outcome=None, started="2025-09-01T00:00:02Z", progress=""):
    outputs = {}
    if exit_code:
        outputs["exitCode"] = exit_code
    if outcome is not None:
        outputs["parameters"] = [{"name": "outcome", "value": outcome if isinstance(outcome, str) else json.dumps(outcome)}]
    return {
        "type": "Pod", "templateName": template, "name": f"w.{template}", "phase": phase, "message": message, "startedAt": started,
        "outputs": outputs, "progress": progress,
    }  # fmt: skip


# -- one contract, two engines -------------------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path):
    """The local engine with a runner that waits until it is told how to end."""
    runner = tmp_path / "runner.py"
    runner.write_text("""
import json, pathlib, sys, time
given = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:] if "=" in a)
outcome = pathlib.Path(sys.argv[sys.argv.index("--outcome") + 1])
order = outcome.with_name("order")
while not order.exists():
    time.sleep(0.01)
code = int(order.read_text())
outcome.write_text(json.dumps({"code": code, "key": given["key"], "reason": "told so", "stage": "convert"}))
sys.exit(code)
""")
    folder = tmp_path / "runs"
    engine = LocalEngine(folder, command=[sys.executable, str(runner)], max_in_flight=3, environ={})

    def end(event, code):
        order = folder / data_of(event)["run"] / "order"
        order.with_suffix(".new").write_text(str(code))
        order.with_suffix(".new").rename(order)

    yield engine, end
    engine.close(stop_runs=True)


@pytest.fixture
def remote(engine, cluster):
    def end(event, code):
        data = data_of(event)
        outcome = {"code": code, "key": data["key"], "reason": "told so", "stage": "convert"}
        node = pod("convert", "Failed" if code else "Succeeded", exit_code=str(code), outcome=outcome)
        cluster.set_status(data["run"], node["phase"], [node])

    return engine, end


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_the_contract_of_an_engine(kind, request):
    engine, end = request.getfixturevalue(kind)
    hold(engine, end, [event_of(n) for n in (1, 2, 3)], patience=20)


# -- what the EventSource answers ----------------------------------------------------------------------------------------------


def test_the_event_is_posted_byte_for_byte(engine, cluster):
    event = event_of()
    assert engine.submit(event).answer is Answer.ACCEPTED
    [(headers, body)] = cluster.posts
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
def test_answers_that_are_not_200(engine, cluster, answer, expected):
    cluster.webhook = answer
    receipt = engine.submit(event_of())
    assert receipt.answer is expected
    assert receipt.detail == f"HTTP {answer[0]} {answer[1]}"
    assert engine.headroom() == 3


def test_an_answer_that_never_comes_is_unknown_and_the_event_may_have_arrived(engine, cluster):
    cluster.webhook = (0, "")
    event = event_of()
    assert engine.submit(event).answer is Answer.UNKNOWN
    assert [run.name for run in engine.runs([data_of(event)["key"]])] == [data_of(event)["run"]]


def test_nobody_listens(make):
    receipt = make(webhook="http://127.0.0.1:9/items").submit(event_of())
    assert receipt.answer is Answer.UNKNOWN
    assert "http://127.0.0.1:9/items" in receipt.detail


@pytest.mark.parametrize("token", ["wrong", None])
def test_a_wrong_token_stops_everything_and_is_not_shown(make, token):
    engine = make(token=token)
    with pytest.raises(Refused, match="token") as error:
        engine.submit(event_of())
    assert "STAC_WATCH__ENGINE__TOKEN" in error.value.hint
    assert "wrong" not in error.value.message + error.value.hint + repr(engine.__dict__)


def test_a_wrong_url_stops_everything(make, server):
    with pytest.raises(Refused, match="404") as error:
        make(webhook=f"{server}/itmes").submit(event_of())
    assert "eventsource-svc" in error.value.hint


def test_the_token_does_not_follow_a_redirect(engine, cluster):
    cluster.webhook = (307, "")
    with pytest.raises(Refused, match="307"):
        engine.submit(event_of())
    assert len(cluster.posts) == 1


def test_an_event_that_the_sensor_could_not_use_is_refused_before_it_is_sent(engine, cluster):
    receipt = engine.submit(event_of(collection="c" * 64))
    assert receipt.answer is Answer.REFUSED
    assert "label" in receipt.detail
    assert cluster.posts == []


# -- room ----------------------------------------------------------------------------------------------------------------------


def test_accepted_events_take_room_before_their_workflow_is_seen(engine, cluster, clock):
    cluster.sensor = False
    for number in (1, 2):
        engine.submit(event_of(number))
    assert engine.headroom() == 1
    cluster.deliver(event_of(1))
    assert engine.headroom() == 1  # seen now, and counted once
    cluster.set_status(data_of(event_of(1))["run"], "Succeeded")
    assert engine.headroom() == 2
    clock[0] += timedelta(minutes=15)  # the bus has lost the other one
    assert engine.headroom() == 3


def test_a_run_that_began_and_ended_between_two_looks_takes_no_room(engine, cluster):
    event = event_of()
    engine.submit(event)
    cluster.set_status(data_of(event)["run"], "Succeeded")
    engine.runs([data_of(event)["key"]])
    assert engine.headroom() == 3


def test_workflows_of_others_take_no_room(engine, cluster):
    cluster.add({"metadata": {"name": "by-hand", "labels": {"stac-watch/lane": "hand"}}, "spec": {}})
    assert engine.headroom() == 3


# -- what Workflows say --------------------------------------------------------------------------------------------------------


def seen(engine, cluster, *status, **spec):
    event = event_of()
    cluster.deliver(event)
    name = data_of(event)["run"]
    if status:
        cluster.set_status(name, *status, **spec)
    [run] = engine.runs([data_of(event)["key"]])
    return run


def test_many_keys_and_many_pages(engine, cluster):
    cluster.page = 7
    events = [event_of(n) for n in range(KEYS_PER_LIST + 20)]
    for event in events:
        cluster.deliver(event)
    keys = [data_of(e)["key"] for e in events]
    assert sorted(run.key for run in engine.runs(keys)) == sorted(keys)
    lists = [r for r in cluster.requests if r[1] == NAMESPACE]
    assert len({r[2]["labelSelector"] for r in lists}) == 2
    assert len(lists) == 29 + 3


def test_an_object_is_fetched_once_for_each_version(engine, cluster):
    event = event_of()
    cluster.deliver(event)
    key, name = data_of(event)["key"], data_of(event)["run"]

    def fetched():
        engine.runs([key])
        return len([r for r in cluster.requests if r[1].endswith(name)])

    assert [fetched(), fetched()] == [1, 1]
    cluster.set_status(name, "Running")
    assert [fetched(), fetched()] == [2, 2]


def test_a_workflow_that_nobody_has_looked_at(engine, cluster):
    run = seen(engine, cluster)
    assert (run.phase, run.stage) == (Phase.PENDING, "waits for the Workflow controller")


def test_a_workflow_that_waits_for_a_lock_says_so(engine, cluster):
    run = seen(engine, cluster, "Pending", message="Waiting for geozarr/Mutex/s3://b/o.zarr lock. Lock status: 0/1")
    assert run.phase is Phase.PENDING
    assert "Lock status: 0/1" in run.stage


def test_a_pod_that_cannot_start_says_why(engine, cluster):
    message = "Unschedulable: 0/1 nodes are available: 1 Insufficient memory."
    run = seen(engine, cluster, "Running", [pod("preflight", "Succeeded"), pod("convert", "Pending", message=message, started="~")])
    assert (run.phase, run.stage) == (Phase.RUNNING, f"convert waits: {message}")


def test_progress_is_the_runners(engine, cluster):
    nodes = [
        pod("preflight", "Succeeded", progress="1/1"),
        pod("convert", "Running", progress="37/100", started="2025-09-01T00:01:00Z"),
    ]
    run = seen(engine, cluster, "Running", nodes)
    assert (run.stage, run.progress) == ("convert", (37, 100))


def test_success_without_an_outcome_is_no_success_with_a_key(engine, cluster):
    run = seen(engine, cluster, "Succeeded", [pod("convert", "Succeeded", outcome="")])
    assert (run.phase, run.outcome) == (Phase.SUCCEEDED, None)


TERMINATED = {"code": 143, "reason": "terminated"}
FAILURES = {
    "the runner's own words": (
        "Failed", [pod("preflight", "Failed", exit_code="66", outcome={"code": 66, "reason": "not yet"})], {}, 66, "not yet",
    ),
    "out of memory": (
        "Failed", [pod("convert", "Failed", exit_code="137", outcome="", message="OOMKilled (exit 137)")], {}, 137, "OOMKilled",
    ),
    "evicted": ("Error", [pod("convert", "Error", message="pod deleted")], {}, 75, "pod deleted"),
    "quota": ("Failed", [pod("volume", "Failed", exit_code="64", message="exceeded quota: q")], {}, 75, "exceeded quota"),
    "no template": ("Error", [], {"message": 'workflowtemplates "geozarr-convert" not found'}, 75, "not found"),
    "invalid": ("Failed", [], {"message": "invalid spec: spec.arguments.stac_url.value is required"}, 78, "invalid spec"),
    "stopped by a person": (
        "Failed", [pod("convert", "Failed", exit_code="143", outcome=TERMINATED)], {"shutdown": "Terminate"}, 1, "person",
    ),
    "too slow": (
        "Failed", [pod("convert", "Failed", exit_code="143", outcome=TERMINATED, message="Step exceeded its deadline")], {},
        75, "exceeded its deadline",
    ),
    "done, but its pod was lost": (
        "Error", [pod("convert", "Error", outcome={"code": 0, "reason": "done"}, message="node lost")], {}, 75, "node lost",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("status", "nodes", "spec", "code", "words"), FAILURES.values(), ids=FAILURES)
def test_failures(engine, cluster, status, nodes, spec, code, words):
    run = seen(engine, cluster, status, nodes, **spec)
    assert run.phase is Phase.FAILED
    assert run.outcome["code"] == code
    assert words in run.outcome["reason"]


def test_the_last_try_counts(engine, cluster):
    tries = [
        pod("convert", "Failed", exit_code="75", outcome={"code": 75, "reason": "first"}, started="2025-09-01T00:00:05Z"),
        pod("convert", "Failed", exit_code="65", outcome={"code": 65, "reason": "second"}, started="2025-09-01T00:01:05Z"),
    ]
    assert seen(engine, cluster, "Failed", tries[::-1]).outcome["reason"] == "second"


def test_a_resubmitted_workflow_is_the_same_attempt(engine, cluster):
    """`argo resubmit` copies the labels: the better end counts."""
    event = event_of()
    cluster.deliver(event)
    data = data_of(event)
    cluster.set_status(data["run"], "Failed", [pod("convert", "Failed", exit_code="65", outcome={"code": 65, "reason": "x"})])
    labels = {"stac-watch/key": data["key"], "stac-watch/attempt": "1"}
    cluster.add({"metadata": {"name": f"{data['run']}-x7k2p", "labels": labels}, "spec": {}})
    cluster.set_status(f"{data['run']}-x7k2p", "Succeeded", [pod("convert", "Succeeded", outcome={"code": 0, "key": data["key"]})])
    [run] = engine.runs([data["key"]])
    assert (run.name, run.phase, run.outcome["code"]) == (f"{data['run']}-x7k2p", Phase.SUCCEEDED, 0)


# -- when the API is not there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, Temporary), (503, Temporary), (429, Temporary), (410, Temporary), (401, Refused), (403, Refused), (404, Refused)],
)
def test_answers_of_the_api(engine, cluster, status, error):
    cluster.api = status
    with pytest.raises(error) as raised:
        engine.headroom()
    assert raised.value.hint
    with pytest.raises(error):
        engine.runs(["0" * 12])


def test_an_api_that_nobody_can_trust_is_refused(server):
    """A server that does not speak TLS stands for every certificate that does not fit: asking again changes nothing."""
    engine = engine_for(server.replace("http://", "https://"))
    with pytest.raises(Refused, match="no trust"):
        engine.headroom()
    engine.close(stop_runs=False)


def test_an_api_that_is_down_is_temporary():
    engine = engine_for("http://127.0.0.1:9")
    with pytest.raises(Temporary, match="does not answer"):
        engine.runs(["0" * 12])
    engine.close(stop_runs=False)


def engine_for(host):
    api = kubernetes.client.ApiClient(kubernetes.client.Configuration(host=host))
    api.configuration.retries = False
    return ArgoEngine(
        "http://127.0.0.1:9/items", None, cluster=Api(api, "geozarr"), max_in_flight=1, confirm_after=timedelta(0), now=lambda: NOW
    )


# -- one Workflow without a poller ---------------------------------------------------------------------------------------------


def test_create(engine, cluster):
    workflow = {"metadata": {"generateName": "gz-"}, "spec": {}}
    assert create(engine._cluster, workflow) == ("gz-x7k2p", True)
    named = {"metadata": {"name": "mine"}, "spec": {}}
    assert [create(engine._cluster, named), create(engine._cluster, named)] == [("mine", True), ("mine", False)]
    assert set(cluster.workflows) == {"gz-x7k2p", "mine"}


@pytest.mark.parametrize(("status", "error"), [(422, InputError), (403, Refused), (404, Refused), (500, Temporary)])
def test_create_is_refused(engine, cluster, status, error):
    cluster.api = status
    with pytest.raises(error, match=r"as the test wants it|no Workflows"):
        create(engine._cluster, {"metadata": {"name": "mine"}, "spec": {}})


def test_credentials_come_from_a_kubeconfig(tmp_path):
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://k.example:6443"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }))  # fmt: skip
    api = connect({}, str(path))
    assert api.configuration.host == "https://k.example:6443"
    tls = api.rest_client.pool_manager.connection_pool_kw["ssl_context"]
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname
    assert not tls.verify_flags & ssl.VERIFY_X509_STRICT  # the CAs of many clusters would not pass; kubectl takes them
    api.close()


def test_no_credentials_at_all(tmp_path):
    with pytest.raises(ConfigError, match=r"no credentials") as error:
        connect({}, str(tmp_path / "none"))
    assert "KUBECONFIG" in error.value.hint


# -- what `check` asks -----------------------------------------------------------------------------------------------------


def test_the_webhook_is_asked_in_a_way_that_makes_no_run(engine, cluster, server):
    assert engine.ping() == f"{server}/items answers, and takes the token"
    assert [body for _, body in cluster.posts] == [b"OPTIONS"]
    assert cluster.workflows == {}


@pytest.mark.parametrize(
    ("given", "webhook", "error", "said"),
    [
        ({"token": "wrong"}, (200, ""), Refused, "refuses the token: HTTP 401 Invalid token"),
        ({"token": None}, (200, ""), Refused, "HTTP 401 Invalid Authorization Header"),
        ({"path": "/elsewhere"}, (200, ""), Refused, "is not the EventSource's endpoint: HTTP 404"),
        ({}, (307, ""), Refused, "is not the EventSource's endpoint: HTTP 307"),
        ({}, (400, "endpoint is inactive"), Temporary, "HTTP 400 endpoint is inactive"),
        ({}, (500, "Error loading auth token"), Temporary, "HTTP 500 Error loading auth token"),
        ({}, (204, ""), Refused, "as no EventSource would"),
        ({}, (405, "nginx"), Refused, "HTTP 405 nginx"),
        ({"port": 9}, (200, ""), Temporary, "no answer from http://127.0.0.1:9/items"),
    ],
)
def test_a_webhook_that_does_not_work_is_named_with_what_to_do(make, cluster, server, given, webhook, error, said):
    cluster.webhook = webhook
    url = f"http://127.0.0.1:{given['port']}/items" if "port" in given else server + given.get("path", "/items")
    with pytest.raises(error, match=re.escape(said)) as caught:
        make(webhook=url, token=given.get("token", TOKEN)).ping()
    assert caught.value.hint


@pytest.mark.parametrize(
    ("rights", "missing"), [(("get", "list", "watch"), []), (("get",), ["list", "watch"]), ((), ["get", "list", "watch"])]
)
def test_rights_are_what_the_api_server_says(engine, cluster, rights, missing):
    cluster.rights = rights
    assert engine.missing_rights() == missing


@pytest.mark.parametrize(("status", "error"), [(403, Refused), (500, Temporary)])
def test_an_api_server_that_does_not_judge_is_not_taken_for_a_yes(engine, cluster, status, error):
    cluster.api = status
    with pytest.raises(error):
        engine.missing_rights()


def test_check_says_one_line_each_for_webhook_permissions_and_room(cluster, server, tmp_path):
    cluster.rights = ("get", "list")
    (tmp_path / "stac-watch.yaml").write_text(yaml.safe_dump({
        "ledger": f"sqlite:///{tmp_path}/ledger.db", "engine": {"kind": "argo", "webhook": f"{server}/items"},
        "sources": [{"name": "s2", "api": "http://127.0.0.1:9", "collection": "c"}],
    }))  # fmt: skip
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server}}], "users": [{"name": "u", "user": {}}],
    }))  # fmt: skip
    environ = os.environ | {"KUBECONFIG": str(tmp_path / "kubeconfig"), "STAC_WATCH__ENGINE__TOKEN": TOKEN}
    command = [str(Path(sys.executable).parent / "stac-watch"), "check", "-c", str(tmp_path / "stac-watch.yaml")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environ)
    assert said.returncode == 77, said.stdout + said.stderr
    assert f"ok    webhook: {server}/items answers, and takes the token\n" in said.stdout
    assert (
        "FAIL  permissions: this account may not watch workflows in namespace 'geozarr'\n      → the poller's Role" in said.stdout
    )
    assert "ok    engine argo: room for 20 runs\n" in said.stdout
