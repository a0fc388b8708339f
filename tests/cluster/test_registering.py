"""What is published at the source is found in the catalog of outputs, and others go on from its event, as the page has it."""

import json
import re
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from stack import CATALOG_PORT, S3_PORT, slowly

PAGE = Path(__file__).parents[2] / "docs" / "registering.md"
OUTPUTS = "sentinel-2-geozarr"
SOON = 120  # seconds for what takes a few of them here

pytestmark = pytest.mark.cluster


def chain_of_the_page(stack):
    """The documents with which others go on, in the tests' namespace and with an image that is here."""
    [found] = [
        text for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL) if "kind: Sensor" in text
    ]
    found = found.replace("namespace: geozarr", f"namespace: {stack.namespace}")
    return re.sub(r"image: geozarr-runner:\S+", f"image: geozarr-runner:{stack.release}", found)


@pytest.fixture
def chain(stack):
    """The poller registers outputs and tells the chain of the page, which is there."""
    documents = chain_of_the_page(stack)
    stack.do("apply", "-f", "-", stdin=documents)
    for label in ("eventsource-name=outputs", "sensor-name=outputs"):
        slowly(lambda label=label: bool(stack.pods(label)), SOON)
        stack.do("wait", "--for=condition=Ready", "pod", "-l", label, f"--timeout={SOON}s")

    def listens():
        return any("started subscribing" in stack.logs(pod["metadata"]["name"]) for pod in stack.pods("sensor-name=outputs"))

    slowly(listens, SOON)
    bucket, output = stack.bucket(), stack.config["recipe"]["output"]
    stack.config["register"] = {
        "api": stack.catalog, "collection": OUTPUTS, "href_base": f"http://s3.s3.svc:{S3_PORT}/{bucket}",
    }  # fmt: skip
    stack.config["sinks"] = [{"url": f"http://outputs-eventsource-svc.{stack.namespace}.svc:12000/outputs"}]
    stack.configure(recipe={"output": f"s3://{bucket}/{{collection}}/{{item_id}}.zarr"})
    yield f"s3://{bucket}"
    del stack.config["register"], stack.config["sinks"]
    stack.configure(recipe={"output": output})
    for document in yaml.safe_load_all(documents):
        stack.do("delete", document["kind"], document["metadata"]["name"], "--ignore-not-found", "--wait=false")


def search(port, item_id):
    """What somebody finds who knows the catalog and nothing else."""
    asked = json.dumps({"collections": [OUTPUTS], "ids": [item_id]}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/search", asked, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["features"]


def of_the_chain(stack):
    """Workflows of the page's template, by name."""
    found = stack.kubectl.get("workflows", "-n", stack.namespace)["items"]
    return {w["metadata"]["name"]: w for w in found if w["spec"].get("workflowTemplateRef", {}).get("name") == "use-geozarr"}


def test_what_is_published_is_searched_in_the_target_and_its_event_makes_a_workflow_that_ends(stack, chain, capsys):
    item = stack.publish()
    published = datetime.now(UTC)
    with stack.forward(stack.namespace, "svc/catalog", CATALOG_PORT) as port:
        deadline = time.monotonic() + 300
        while not (found := search(port, item)):
            assert time.monotonic() < deadline, stack.poller("explain", item)
            time.sleep(0.5)
        searchable = datetime.now(UTC)
    [feature] = found
    assert feature["assets"]["product"]["alternate"]["s3"]["href"] == f"{chain}/sentinel-2-l2a/{item}.zarr"
    slowly(lambda: any(w.get("status", {}).get("phase") == "Succeeded" for w in of_the_chain(stack).values()), SOON)
    [explained] = json.loads(stack.poller("explain", item, "--json"))
    [told] = explained["deliveries"]
    [(name, workflow)] = of_the_chain(stack).items()
    assert (told["state"], told["type"], told["event_id"]) == ("delivered", "org.ogc.api.collection.item.create", name)
    [pod] = stack.pods(f"workflows.argoproj.io/workflow={name}")
    said = stack.logs(pod["metadata"]["name"], "-c", "main")
    assert re.search(rf"^{item} \[.*\] {chain}/sentinel-2-l2a/{item}\.zarr$", said, re.MULTILINE), said  # among Argo's own lines

    stack.poller("announce", item, "--yes")  # comes twice, makes one

    def taken_again():
        [again] = json.loads(stack.poller("explain", item, "--json"))[0]["deliveries"]
        return again["state"] == "delivered" and again["changed_at"] > told["changed_at"]

    slowly(taken_again, SOON)
    assert list(of_the_chain(stack)) == [name]

    [publication] = explained["publications"]
    moments = {move["dst"]: move["at"] for move in explained["history"]} | {
        "registered": publication["registered_at"], "searchable": searchable.isoformat(), "told": told["changed_at"],
        "Workflow": workflow["metadata"]["creationTimestamp"], "ended": workflow["status"]["finishedAt"],
    }  # fmt: skip
    after = {what: (datetime.fromisoformat(at) - published).total_seconds() for what, at in moments.items() if what != "queued"}
    with capsys.disabled():
        print(f"\n{item}, after its publication: {', '.join(f'{what} {seconds:.1f} s' for what, seconds in after.items())}")
