"""What the Argo UI shows of a run: asked from argo-server's REST API, which is all that the UI itself has."""

import json
import re
import ssl
import urllib.parse
import urllib.request
from datetime import UTC, datetime

import pytest
from stack import MARKS, slowly

from stac_watch.model.identity import title_of

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def items(installed):
    """One whose run will succeed and one whose run will fail; published first: they are under way while the server starts."""
    return {"good": installed.publish(), "absent": installed.publish(product=False)}


@pytest.fixture(scope="module")
def server(installed, items, is_own_cluster):
    """GET of argo-server's REST API, with the token of somebody who may only look."""
    if not is_own_cluster:
        pytest.skip("argo-server is configured by whoever owns the cluster")
    stack = installed
    stack.kubectl("apply", "--server-side", "--force-conflicts", "-k", stack.rendered / "argo")
    stack.kubectl("-n", "argo", "rollout", "restart", "deploy/argo-server")
    stack.kubectl("-n", "argo", "rollout", "status", "deploy/argo-server", "--timeout=120s")
    stack.do("create", "serviceaccount", "viewer")
    stack.do("create", "role", "viewer", "--verb=get,list,watch", "--resource=workflows.argoproj.io,pods,pods/log")
    stack.do("create", "rolebinding", "viewer", "--role=viewer", f"--serviceaccount={stack.namespace}:viewer")
    token = stack.do("create", "token", "viewer").strip()
    own_certificate = ssl._create_unverified_context()  # argo-server makes one for itself when it starts
    with stack.forward("argo", "svc/argo-server", 2746) as port:

        def get(path, **query):
            url = f"https://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(request, timeout=30, context=own_certificate) as answer:
                return answer.read().decode()

        yield get
    for kind in ("rolebinding", "role", "serviceaccount"):
        stack.do("delete", kind, "viewer")


def test_the_ui_alone_answers_what_a_run_is(stack, items, server):
    item = items["good"]
    row = stack.await_done(item)[item]
    place = f"workflows/{stack.namespace}"

    listed = json.loads(server(place, **{"listOptions.labelSelector": f"stac-watch/key={row['key']},stac-watch/source=s2-l2a"}))
    [found] = listed["items"]
    assert found["metadata"]["name"] == row["run"]
    labels, annotations = found["metadata"]["labels"], found["metadata"]["annotations"]
    assert {f"stac-watch/{mark}" for mark in MARKS} <= set(labels)
    assert (labels["stac-watch/lane"], labels["stac-watch/attempt"], labels["stac-watch/reason"]) == ("live", "1", "new")
    assert annotations["workflows.argoproj.io/title"] == title_of(
        item, datetime.strptime(item.split("_")[2], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    )
    assert row["output"] in annotations["workflows.argoproj.io/description"]

    whole = json.loads(server(f"{place}/{row['run']}"))
    tree = {n["displayName"]: n for n in whole["status"]["nodes"].values()}
    assert {"preflight", "volume", "convert"} <= set(tree)
    assert whole["status"]["progress"]
    given = {p["name"]: p.get("value") for p in whole["spec"]["arguments"]["parameters"]}
    assert given["item_id"] == item

    log = server(f"{place}/{row['run']}/log", **{"logOptions.container": "main", "grep": "verify"})
    assert item in log

    info = json.loads(server("info"))
    links = {link["name"]: link["url"] for link in info["links"]}
    for name, parameter in (("STAC item", "item_href"), ("Product", "stac_url")):
        clicked = re.sub(r"\$\{workflow\.metadata\.annotations\.([^}]+)\}", lambda m: annotations[m[1]], links[name])
        assert clicked == given[parameter]
        assert clicked.startswith(stack.catalog)
    assert [column["key"] for column in info["columns"]] == ["stac-watch/source", "stac-watch/reason"]


def test_the_message_of_a_failed_run_says_why(stack, items, server):
    item = items["absent"]
    slowly(lambda: any(w.get("status", {}).get("phase") == "Failed" for w in stack.workflows_of(item)), 120)
    failed = stack.workflows_of(item)[0]
    shown = json.loads(server(f"workflows/{stack.namespace}/{failed['metadata']['name']}"))
    [said] = {n["message"] for n in shown["status"]["nodes"].values() if n["type"] == "Pod" and n["phase"] == "Failed"}
    assert "(exit code 66): preflight: " in said
    assert " → " in said  # and what is next
    name, described = failed["metadata"]["name"], "workflows.argoproj.io/description"

    def description():
        return json.loads(server(f"workflows/{stack.namespace}/{name}"))["metadata"]["annotations"][described]

    slowly(lambda: description().startswith("failed: preflight: "), 120)  # the poller, once it has seen the end
    assert " → " in description().partition("\n")[0]
    assert item in description(), "what it said before is still there"
    stack.ask_catalog("product", {"item_id": item})
    stack.await_done(item, seconds=300)
    stack.check(item)
