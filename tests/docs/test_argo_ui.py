"""The chapter about the Argo UI has a line for everything that the manifests put there."""

import re
from pathlib import Path

import pytest
import yaml
from fakes.installation import CONFIG, files_of, told

from stac_watch.cluster.manifests.render import parts
from stac_watch.model.event import PRIORITY
from stac_watch.runs.workflow import PARAMETERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "monitoring.md").read_text().partition("\n## In the Argo UI\n")[2]
SYSTEM = ("app.kubernetes.io/", "events.argoproj.io/", "stac-watch/", "workflows.argoproj.io/")


@pytest.fixture(scope="module")
def objects():
    texts = [text for name, text in files_of(told(CONFIG)).items() if name.endswith(".yaml")]
    found = [document for text in texts for document in yaml.safe_load_all(text) if document and "metadata" in document]
    return list({(document["kind"], document["metadata"]["name"]): document for document in found}.values())


def of_kind(objects, kind):
    return [found for found in objects if found["kind"] == kind]


def section(heading):
    return PAGE.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]


def keys(node, field):
    """The keys of every mapping called `field`, anywhere in an object."""
    if isinstance(node, list):
        return {key for entry in node for key in keys(entry, field)}
    if not isinstance(node, dict):
        return set()
    mine = node.get(field)
    return {key for value in node.values() for key in keys(value, field)} | (set(mine) if isinstance(mine, dict) else set())


@pytest.mark.parametrize(("field", "heading"), [("labels", "Labels"), ("annotations", "Annotations")])
def test_every_label_and_annotation_of_a_run_has_its_line(objects, field, heading):
    makers = of_kind(objects, "Sensor") + of_kind(objects, "WorkflowTemplate")
    set_by_us = {key for key in keys(makers, field) if key.startswith(SYSTEM)}
    assert {"labels": "stac-watch/key", "annotations": "stac-watch/item-address"}[field] in set_by_us
    told = {
        name for line in section(heading).splitlines() if line.startswith("| `") for name in re.findall(r"`([^`]+/[^`]+)`", line)
    }
    assert set_by_us - told == set()
    assert {name for name in told if name.startswith(SYSTEM)} - set_by_us == set(), "the page has more than the manifests"


def test_every_column_and_link_has_its_line(objects):
    [config] = [c for c in of_kind(objects, "ConfigMap") if c["metadata"]["name"] == "workflow-controller-configmap"]
    for column in yaml.safe_load(config["data"]["columns"]):
        assert f"| {column['name']} | label `{column['key']}` |" in PAGE
    for link in yaml.safe_load(config["data"]["links"]):
        annotation = re.search(r"annotations\.([^}]+)", link["url"])[1]
        assert re.search(rf"^\| {link['name']} \| .*`{annotation}` \|$", PAGE, re.MULTILINE)


def test_every_parameter_has_its_line_and_says_where_it_comes_from():
    told = {
        name: line.split("|")[2].strip()
        for line in section("Parameters").splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert told == {parameter.name: "event" if parameter.data_key else "deployment" for parameter in PARAMETERS}


def test_every_node_and_its_outputs_have_their_line(objects):
    [template] = [t for t in of_kind(objects, "WorkflowTemplate") if t["metadata"]["name"] == "geozarr-convert"]
    on_scratch = parts(told(CONFIG, runs={"volume": "auto"}))["convert.yaml"][0]
    steps = {t["name"]: t for each in (template, on_scratch) for t in each["spec"]["templates"] if "dag" not in t}
    lines = {
        line.split("|")[1].strip().strip("`"): line for line in section("The nodes of a run").splitlines() if line.startswith("| `")
    }
    assert set(lines) == set(steps)
    for name, step in steps.items():
        for output in step.get("outputs", {}).get("parameters", []):
            assert f"`{output['name']}`" in lines[name].split("|")[3]


def test_lanes_and_reasons_are_named():
    table = section("Labels")
    for value in (*PRIORITY, "hand", "new", "updated", "backfill", "replay", "retry"):
        assert f"`{value}`" in table
    for priority in PRIORITY.values():
        assert f"({priority})" in section("The list of Workflows") or priority == 0
