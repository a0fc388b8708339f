"""From a real event to the runner's arguments: every value arrives where it belongs, and nothing else arrives anywhere."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from command import verbs
from geozarr_runner.options import parser
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.cli.times import read_range
from stac_watch.cluster.manifests.convert import retry_expression
from stac_watch.cluster.submit import one_run
from stac_watch.config.model import Source
from stac_watch.model import errors
from stac_watch.model.event import LATER, OLDER_OPTIONS, build_event, parse_event
from stac_watch.runs.engine import Phase
from stac_watch.runs.reconcile import ENDED_FROM_OUTSIDE, RETRY
from stac_watch.runs.workflow import KEY_LABEL, LABELS, PARAMETERS, illegal_label, run_of

MISSING = object()


def triggered(sensor, body):
    """What the Sensor makes of an event, by the rules of pkg/sensors/triggers/params.go; missing keys are errors there, too."""
    k8s = sensor["spec"]["triggers"][0]["template"]["k8s"]
    workflow = json.loads(json.dumps(k8s["source"]["resource"]))
    payload = {"header": {}, "body": json.loads(body), "metadata": {}}
    for parameter in k8s["parameters"]:
        source = parameter["src"]
        assert set(source) <= {"dependencyName", "dataKey", "useRawData", "value"}
        value = payload
        for part in source["dataKey"].split("."):
            value = value.get(part, MISSING) if value is not MISSING else MISSING
        if value is MISSING:
            assert "value" in source, f"{source['dataKey']} is missing: the Sensor tries for ten minutes and drops the event"
            value = source["value"]
        assert isinstance(value, str | int), f"{source['dataKey']} is not a scalar"
        *parents, last = parameter["dest"].split(".")
        target = workflow
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        assert last in target, f"{parameter['dest']} is not there to be overwritten"
        target[last] = value if source.get("useRawData") else str(value)
    return workflow


def test_a_default_hides_no_renamed_field(objects, event):
    """Only what a stored or a hand-made event may lack has one, and a real event has every field."""
    data = json.loads(event)["data"]
    for parameter in objects["Sensor", "geozarr"]["spec"]["triggers"][0]["template"]["k8s"]["parameters"]:
        path = parameter["src"]["dataKey"].removeprefix("body.data.")
        assert ("value" in parameter["src"]) == (path in LATER or path.startswith("options.")), path
        value = data
        for part in path.split("."):
            value = value[part]


def test_an_event_may_leave_out_the_options(objects, event, template):
    """By hand; or it is of a version that had none, and then it asks for what that version made."""
    document = json.loads(event)
    declared = {p["name"]: p.get("value") for p in template["spec"]["arguments"]["parameters"]}
    for options in ({}, {"package": "none"}, None):
        document["data"]["options"] = options
        if options is None:
            del document["data"]["options"]
        made = arguments(triggered(objects["Sensor", "geozarr"], json.dumps(document)))
        for p in PARAMETERS:
            if p.data_key.startswith("options."):
                assert made[p.name] == (options or {}).get(p.name, (declared | OLDER_OPTIONS)[p.name])


@pytest.fixture
def workflow(objects, event):
    return triggered(objects["Sensor", "geozarr"], event)


@pytest.fixture
def template(objects):
    return objects["WorkflowTemplate", "geozarr-convert"]


def arguments(workflow):
    return {p["name"]: p["value"] for p in workflow["spec"]["arguments"]["parameters"]}


def test_an_event_becomes_the_workflow_that_it_names(workflow, event, conversion, crd):
    data = parse_event(event)["data"]
    assert workflow["metadata"]["name"] == data["run"]
    assert workflow["spec"]["priority"] == -10
    assert workflow["spec"]["workflowTemplateRef"] == {"name": "geozarr-convert"}
    ours = {k: v for k, v in workflow["metadata"]["labels"].items() if k.startswith("stac-watch/")}
    assert ours == {
        "stac-watch/key": conversion.key, "stac-watch/attempt": "3", "stac-watch/lane": "backfill", "stac-watch/reason": "new",
        "stac-watch/tile": "T32TQM", "stac-watch/collection": "sentinel-2-l2a", "stac-watch/source": "s2-l2a",
        "stac-watch/installation": "prod", "stac-watch/form": "geozarr-v3",
    }  # fmt: skip
    assert arguments(workflow) == {
        "stac_url": conversion.product_href, "output_zarr": conversion.output_zarr, "groups": conversion.groups,
        **conversion.options, "key": conversion.key,
        "revision": "3f1c", "item_id": conversion.item_id, "attempt": "3", "collection": "sentinel-2-l2a",
        "item_href": conversion.item_href, "title": "T32TQM 31 Aug 10:37 · S2A L2A N0511", "lane": "backfill", "reason": "new",
        "fence": conversion.fence, "installation": "prod", "source_hosts": "objects.eodc.eu",
    }  # fmt: skip
    crd(workflow, "workflows")


def test_the_engine_reads_what_the_sensor_wrote(workflow, conversion):
    run = run_of(workflow)
    assert (run.key, run.attempt, run.phase) == (conversion.key, 3, Phase.PENDING)


def test_every_parameter_of_the_template_is_mapped_or_has_a_default(workflow, template):
    declared = {p["name"]: p.get("value") for p in template["spec"]["arguments"]["parameters"]}
    assert list(declared) == [p.name for p in PARAMETERS]
    mapped = arguments(workflow)
    assert set(mapped) <= set(declared)
    deployment = {"engine", "memory_limit", "allowed_hosts"}  # never an event's
    assert set(declared) - set(mapped) == deployment
    assert {name for name, value in declared.items() if value is None} == {"stac_url", "output_zarr"}


def test_values_of_enumerations_are_those_that_the_runner_knows(workflow, template):
    given = arguments(workflow)
    for parameter in template["spec"]["arguments"]["parameters"]:
        if "enum" in parameter:
            assert parameter["value"] in parameter["enum"]
            assert given.get(parameter["name"], parameter["value"]) in parameter["enum"]  # not every one is the event's


def test_every_reference_is_declared(template):
    parameters = {f"workflow.parameters.{p['name']}" for p in template["spec"]["arguments"]["parameters"]} | {"workflow.name"}
    names = {t["name"] for t in template["spec"]["templates"]}
    volumes = {v["name"] for v in template["spec"]["volumes"]}
    assert template["spec"]["entrypoint"] in names
    for step in template["spec"]["templates"]:
        inputs = {f"inputs.parameters.{p['name']}" for p in step.get("inputs", {}).get("parameters", [])}
        outputs = {
            f"tasks.{t['name']}.outputs.parameters.{p['name']}"
            for t in step.get("dag", {}).get("tasks", [])
            for p in next(s for s in template["spec"]["templates"] if s["name"] == t["template"])
            .get("outputs", {})
            .get("parameters", [])
        }
        used = set(re.findall(r"\{\{\s*([^=}\s][^}]*?)\s*\}\}", json.dumps(step)))
        assert used <= parameters | inputs | outputs, used - parameters - inputs - outputs
        mounted = {m["name"] for m in step.get("container", {}).get("volumeMounts", [])}
        assert mounted <= volumes | {v["name"] for v in step.get("volumes", [])}
    rest = json.dumps({k: v for k, v in template["spec"].items() if k != "templates"})
    for expression in re.findall(r"\{\{=?([^}]*)\}\}", rest):
        words = set(re.findall(r"workflow\.[a-z_.]+", expression))
        assert words
        assert words <= parameters


@pytest.mark.parametrize("command", ["preflight", "convert"])
def test_the_runner_takes_the_arguments(workflow, template, conversion, command):
    """The template's arguments, filled like Argo fills them, through the runner's own parser."""
    values = {p["name"]: p.get("value") for p in template["spec"]["arguments"]["parameters"]} | arguments(workflow)
    step = next(t for t in template["spec"]["templates"] if t["name"] == command)
    filled = [re.sub(r"\{\{workflow\.parameters\.(\w+)\}\}", lambda m: values[m[1]], a) for a in step["container"]["args"]]
    filled = [a.replace("{{workflow.name}}", "gz-run") for a in filled]
    assert step["container"]["command"] == ["geozarr-runner"]
    parsed = parser().parse_args(filled)
    assert (parsed.command, parsed.stac_url, parsed.groups) == (command, conversion.product_href, conversion.groups)
    assert (parsed.spatial_chunk, parsed.sharding, parsed.package, parsed.overwrite) == (512, "true", "none", True)
    assert parsed.allow_empty
    assert (parsed.key, parsed.attempt, parsed.run, parsed.item_id) == (conversion.key, 3, "gz-run", conversion.item_id)
    assert parsed.allowed_hosts == ["data.eodc.eu,objects.eodc.eu"]
    assert parsed.source_hosts == ["objects.eodc.eu"]
    assert (parsed.engine, parsed.memory_limit) == ("auto", "")
    paths = {o["name"]: o["valueFrom"]["path"] for o in step["outputs"]["parameters"]}
    assert paths["outcome"] == parsed.outcome
    assert command == "convert" or paths["size"] == parsed.size_file


def test_values_that_look_like_options_or_code_stay_values(template):
    """One argument per value, after `--name=`: neither an option, nor a shell's or Argo's code."""
    evil = "--overwrite=true $(id) ; rm -rf / {{workflow.name}}"
    for step in template["spec"]["templates"]:
        assert "script" not in step
        for argument in step.get("container", {}).get("args", []):
            holes = re.findall(r"\{\{workflow\.parameters\.\w+\}\}", argument)
            assert len(holes) <= 1
            assert not holes or re.fullmatch(r"--[a-z-]+=\{\{workflow\.parameters\.\w+\}\}", argument)
        # an expression has the value as a variable, and nothing but true or false comes out of a condition
        tasks = [{**task, "when": ""} for task in step.get("dag", {}).get("tasks", [])]
        elsewhere = json.dumps({**{k: v for k, v in step.items() if k != "container"}, "dag": tasks})
        assert "workflow.parameters" not in elsewhere
    parsed = parser().parse_args(["convert", f"--stac-url={evil}", "--output-zarr=x", "--overwrite=false"])
    assert (parsed.stac_url, parsed.overwrite) == (evil, False)


def test_a_workflow_by_hand_is_complete(template, crd):
    workflow = one_run({"stac_url": "https://a.example/x.zarr", "output_zarr": "/data/x.zarr"}, namespace="geozarr")
    required = {p["name"] for p in template["spec"]["arguments"]["parameters"] if "value" not in p}
    assert {p["name"] for p in workflow["spec"]["arguments"]["parameters"]} == required
    assert KEY_LABEL not in workflow["metadata"]["labels"]  # it takes no room and is nobody's to reconcile
    assert workflow["metadata"]["generateName"] == "gz-"
    asked = {
        "stac_url": "https://a.example/x.zarr",
        "output_zarr": "/data/x.zarr",
        "engine": "stock",
        "memory_limit": "2Gi",
        "package": "",
    }
    assert arguments(one_run(asked, namespace="geozarr")) == {k: v for k, v in asked.items() if v}
    for wrong in ({"engine": "quick"}, {"motor": "fast"}):
        with pytest.raises(errors.InputError):
            one_run(asked | wrong, namespace="geozarr")
    crd(workflow, "workflows")


def test_the_retry_rule_says_what_the_errors_say(template):
    """Every exit code of ours is retried if and only if its error is temporary; so is a killed and a terminated container."""

    def every(kind):
        return {kind} | {deeper for sub in kind.__subclasses__() for deeper in every(sub)}

    codes = set(map(int, re.findall(r"'(\d+)'", retry_expression())))
    for error in every(errors.StacWatchError):
        assert (int(error.exit_code) in codes) == issubclass(error, errors.Temporary), error
    # what is refused is asked again by the poller, minutes later: three pods within a minute would hear the same
    assert codes == set(map(int, RETRY | ENDED_FROM_OUTSIDE)) - {int(errors.Exit.INTERRUPTED), int(errors.Exit.REFUSED)}
    for step in template["spec"]["templates"]:
        if "container" in step:
            assert step["retryStrategy"]["expression"] == retry_expression()
    assert "lastRetry.status == 'Error'" in retry_expression()


def test_names_are_legal_where_dots_are_not(objects):
    sensor, source = objects["Sensor", "geozarr"], objects["EventSource", "stac"]
    dependencies = sensor["spec"]["dependencies"]
    [trigger] = sensor["spec"]["triggers"]
    for name in (sensor["metadata"]["name"], source["metadata"]["name"], *source["spec"]["webhook"], trigger["template"]["name"]):
        assert re.fullmatch(r"[a-z0-9-]+", name)
    assert [(d["eventSourceName"], d["eventName"]) for d in dependencies] == [(source["metadata"]["name"], "items")]
    assert {d["name"] for d in dependencies} == {p["src"]["dependencyName"] for p in trigger["template"]["k8s"]["parameters"]}
    assert sensor["spec"]["eventBusName"] == source["spec"]["eventBusName"] == objects["EventBus", "geozarr"]["metadata"]["name"]
    assert all("transform" not in d for d in dependencies)
    assert "filter" not in source["spec"]["webhook"]["items"]
    assert len(objects["CronWorkflow", "stac-watch-audit"]["metadata"]["name"]) <= 52


def test_nothing_is_dropped_after_one_try(objects):
    [trigger] = objects["Sensor", "geozarr"]["spec"]["triggers"]
    for level in (trigger, trigger["dlqTrigger"]):
        assert level["atLeastOnce"] is True
        assert level["retryStrategy"]["steps"] > 1
        assert re.fullmatch(r"\d+s", level["retryStrategy"]["duration"])  # a number would be nanoseconds


@pytest.mark.parametrize("collection", ["a" * 64, "ends-with-dash-", "S2..."])
def test_an_event_whose_labels_the_api_would_refuse_is_named(conversion, collection):
    data = json.loads(build_event(conversion, 1))["data"]
    assert illegal_label(data) is None
    sentence = illegal_label({**data, "collection_label": collection})
    assert sentence is not None
    assert collection in sentence
    assert "stac-watch/collection" in sentence


def test_an_event_of_an_earlier_version_has_no_source_s_name_and_becomes_a_workflow_all_the_same(objects, event):
    document = json.loads(event)
    del document["data"]["source_name"]
    labels = triggered(objects["Sensor", "geozarr"], json.dumps(document))["metadata"]["labels"]
    assert labels["stac-watch/source"] == "unknown"
    assert illegal_label(document["data"]) is None


@given(st.from_regex(Source.model_fields["name"].metadata[0].pattern).map(str.strip))
def test_every_name_that_a_source_may_have_can_be_its_label(name):
    assert Source(name=name, api="https://a.example", collection="c").name == name
    assert illegal_label({"source_name": name}) is None
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name)
    assert len(name) <= 63


@pytest.mark.parametrize("name", ["s2-", "-s2", "S2", "s2_l2a", "a" * 32, ""])
def test_a_name_that_could_not_be_one_is_no_source_s(name):
    with pytest.raises(ValueError, match="String should match"):
        Source(name=name, api="https://a.example", collection="c")


def test_labels_are_all_written_by_the_sensor(workflow):
    assert set(LABELS) <= set(workflow["metadata"]["labels"])
    assert all(workflow["metadata"]["labels"][label] for label in LABELS)


def test_the_nightly_audit_asks_for_a_range_that_the_command_line_reads(objects):
    """It ends before today: what was published an hour ago is on its way, and no gap."""
    now = datetime(2026, 3, 1, 3, 17, tzinfo=UTC)
    step = next(t for t in objects["WorkflowTemplate", "stac-watch-audit"]["spec"]["templates"] if t["name"] == "audit")
    given = dict(a.removeprefix("--").split("=", 1) for a in step["container"]["args"] if a.startswith("--"))
    start, end = read_range(given.pop("start"), given.pop("end"), now)
    assert timedelta(days=1) <= now - end < timedelta(days=2)
    assert end - start == timedelta(days=29)
    known = {option for parameter in verbs()["audit"].params for option in parameter.opts}
    assert {f"--{name}" for name in given} <= known
