"""Where runs work: what `runs.volume` leaves out of the manifests and puts into them, and what of it the runner is told."""

import json

import pytest
import yaml
from fakes.installation import CONFIG, PRODUCTION, told
from geozarr_runner.options import parser, request_of

from stac_watch.cluster.admission import pods_of
from stac_watch.cluster.diagnosis import storage_class
from stac_watch.cluster.manifests.render import parts
from stac_watch.model.errors import ConfigError

CLAIMED = ["preflight", "volume", "convert"]


def rendered(**runs):
    """The template's spec, the quota's figures, and whether runs may make claims, of an installation with its outputs on S3."""
    values = {**yaml.safe_load((PRODUCTION.parent / "values.yaml").read_text()), "storageClasses": {"runs": "fast"}}
    made = parts(told(PRODUCTION, **values, runs=runs))
    [role] = [d for d in made["rbac.yaml"] if (d["kind"], d["metadata"]["name"]) == ("Role", "geozarr-run")]
    may = {resource for rule in role["rules"] for resource in rule["resources"]}
    return made["convert.yaml"][0]["spec"], made["quota.yaml"][0]["spec"]["hard"], "persistentvolumeclaims" in may


def steps(spec):
    return [entry["name"] for entry in spec["templates"] if "dag" not in entry]


def tasks(spec):
    [main] = [entry for entry in spec["templates"] if entry["name"] == spec["entrypoint"]]
    return {task["name"]: task.get("when") for task in main["dag"]["tasks"]}


def test_a_claim_for_each_run_is_the_default():
    spec, hard, may = rendered()
    assert (spec, hard, may) == rendered(volume="claim")
    assert steps(spec) == [*CLAIMED, "release"]
    assert tasks(spec) == dict.fromkeys(CLAIMED)
    assert spec["onExit"] == "end"
    assert may
    assert hard["persistentvolumeclaims"] == "51"
    assert storage_class(spec) == "fast"


def test_pods_of_a_run_that_succeeded_wait_seconds_for_their_removal():
    """Argo's controller forgets who waits when it is restarted; a pod that stays holds its claim for the three days of its run."""
    spec, _, _ = rendered()
    assert spec["podGC"]["strategy"] == "OnWorkflowSuccess"
    assert int(spec["podGC"]["deleteDelayDuration"].removesuffix("s")) <= 10


def test_without_claims_a_run_is_one_step_and_nothing_of_them_is_left():
    spec, hard, may = rendered(volume="scratch", scratch="30Gi")
    assert steps(spec) == ["convert-on-scratch"]
    assert tasks(spec) == {"convert-on-scratch": None}
    assert "onExit" not in spec
    assert "persistentVolumeClaim" not in json.dumps(spec)
    assert not may
    assert (hard["persistentvolumeclaims"], hard["requests.storage"]) == ("3", "30Gi"), "the bus"
    assert storage_class(spec) is None
    [(_, pod)] = pods_of(spec)
    [main] = [c for c in pod["spec"]["containers"] if c["name"] == "main"]
    assert {"name": "data", "emptyDir": {"sizeLimit": "30Gi"}} in pod["spec"]["volumes"]
    assert {"name": "data", "mountPath": "/data"} in main["volumeMounts"]
    assert main["resources"]["requests"] == {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "30Gi"}
    assert main["resources"]["limits"] == {"memory": "4Gi"}
    claimed, _, _ = rendered()
    assert len(json.dumps(spec)) < 0.6 * len(json.dumps(claimed)), "Argo copies it into every Workflow"


def test_an_outputs_place_decides_where_both_are_possible():
    spec, _, may = rendered(volume="auto")
    assert steps(spec) == [*CLAIMED, "convert-on-scratch"]
    assert may
    conditions = tasks(spec)
    assert conditions["preflight"] == conditions["convert-on-scratch"].replace("{{=", "{{=not (").replace("}}", ")}}")
    assert "onExit" not in spec, "what is in an object store has no claim"
    [main] = [entry for entry in spec["templates"] if entry["name"] == "main"]
    depends = {task["name"]: task.get("depends") for task in main["dag"]["tasks"]}
    assert depends["volume"] == "preflight.Succeeded", "a skipped one has no size"


@pytest.mark.parametrize("volume", ["claim", "auto", "scratch"])
def test_every_form_is_what_the_api_takes(crd, volume):
    spec, _, _ = rendered(volume=volume)
    crd(
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTemplate", "metadata": {"name": "x"}, "spec": spec},
        "workflowtemplates",
    )


def test_the_runner_is_told_how_much_room_its_node_gives():
    spec, _, _ = rendered(volume="scratch", scratch="30Gi")
    arguments = spec["templates"][0]["container"]["args"]
    filled = [a.replace("{{workflow.parameters.attempt}}", "1") if "attempt" in a else a for a in arguments if "key=" not in a]
    filled = [a if "{{" not in a or "url" in a or "output" in a else a.partition("=")[0] + "=" for a in filled]
    request = request_of(parser().parse_args(filled))
    assert request.scratch == 30 * 1024**3


def test_an_output_that_would_go_with_its_pod_is_refused():
    with pytest.raises(ConfigError, match=r"recipe\.output is '/data/.*scratch") as error:
        told(CONFIG, runs={"volume": "scratch"})
    assert "s3://" in error.value.hint
    told(CONFIG, runs={"volume": "auto"})
