"""What other people's programs say of the manifests: kubeconform, kube-score, and the rules that chart repositories hold charts to.

Each is given what the chart renders, which is what `cluster manifests` renders, for values of every kind; kube-score the pods that
Argo makes of a run and of the audit, too, which it would not see.
"""

import json
import re
import subprocess

import pytest
import schemas
import yaml
from charts import CHART, examples

from stac_watch.cluster.admission import pods_of

pytestmark = pytest.mark.cluster
KUBERNETES = "v1.35"
FULL = 10  # of kube-score's grades
OF_ARGO = "Pod/.*-(preflight|convert|convert-on-scratch|volume|release|audit|report)"
"""Pods that Argo makes of a step: beside ours they have containers of its own."""
ACCEPTED = {
    "container-image-pull-policy": (".*", "a tag of ours is never given to another image; `images.pullPolicy: Always` is a value"),
    "container-ephemeral-storage-request-and-limit": (
        ".*", "nothing is written but to volumes, and each emptyDir of ours has a limit; what Argo's two write is some KB"
    ),
    "container-resources": (".*", "only of the CPU: a limit throttles what would else use cores that are free; each has requests"),
    "container-image-tag": (OF_ARGO, "the executor's image is the controller's to choose; ours have a tag or a digest"),
    "container-security-context-readonlyrootfilesystem": (OF_ARGO, "the executor writes to its own root; ours may not"),
    "networkpolicy-targets-pod": (".*/(eventbus|eventsource|sensor)", "the controller of Argo Events makes these pods"),
    "deployment-strategy": ("Deployment/.*/stac-watch", "one poller at a time: the old one lets go of the ledger first"),
    "deployment-replicas": ("Deployment/.*/stac-watch", "two would ask and send everything twice"),
    "container-security-context-user-group-id": (".*", "only with `fixedUser: false`: OpenShift's SCCs give users"),
}  # fmt: skip
"""What kube-score says and we do not follow: check -> (objects, why)."""


@pytest.fixture(scope="module")
def rendered(helm, tmp_path_factory):
    """What the chart makes of each example: name -> file."""
    folder, made = tmp_path_factory.mktemp("rendered"), {}
    for name, values in examples().items():
        (folder / "values.yaml").write_text(yaml.safe_dump(values))
        made[name] = folder / f"{name}.yaml"
        made[name].write_text(helm("template", "x", CHART, "-n", "geozarr", "-f", folder / "values.yaml"))
    return made


def documents(path):
    return [found for found in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader) if found]


def run(*argv, **more):
    return subprocess.run([*map(str, argv)], capture_output=True, text=True, check=False, timeout=120, **more)


def test_kubeconform_knows_every_object_and_finds_nothing(judges, rendered, tmp_path):
    everything = [d for path in rendered.values() for d in documents(path)]
    kinds = {(d["apiVersion"], d["kind"]) for d in everything}
    schemas.write(judges, tmp_path, kinds)
    program = (judges("kubeconform"), "-strict", "-output=json", "-summary", f"-schema-location={tmp_path}/{schemas.WHERE}")
    done = run(*program, *rendered.values())
    said = json.loads(done.stdout)
    assert said["resources"] == []
    assert said["summary"] == {"valid": len(everything), "invalid": 0, "errors": 0, "skipped": 0}
    assert {"CiliumNetworkPolicy", "HTTPRoute", "PrometheusRule", "Sensor", "WorkflowTemplate"} <= {kind for _, kind in kinds}

    for kind in sorted({kind for _, kind in kinds}):
        document = next(d for d in everything if d["kind"] == kind)
        done = run(*program, input=yaml.safe_dump({**document, "sepc": {}}))
        assert json.loads(done.stdout)["summary"]["invalid"] == 1, f"a judge of {kind} that takes everything is none"


def named(pod, name):
    """A pod of the admission's dry run as Argo would make it."""
    labels = {**pod["metadata"]["labels"], "workflows.argoproj.io/workflow": "gz"}
    return {**pod, "metadata": {"name": name, "namespace": "geozarr", "labels": labels}}


def scored(program, objects):
    """Yields (check, object, what it says) for all that kube-score does not find well."""
    done = run(
        program, "score", "--output-format=json", f"--kubernetes-version={KUBERNETES}", "-", input=yaml.safe_dump_all(objects)
    )
    assert done.stdout, done.stderr
    for judged in json.loads(done.stdout):
        for check in judged["checks"]:
            if not check["skipped"] and check["grade"] < FULL:
                yield check["check"]["id"], judged["object_name"], "; ".join(c["summary"] for c in check["comments"])


def test_kube_score_finds_nothing_but_what_is_accepted(judges, rendered):
    met, other = set(), []
    for name, path in rendered.items():
        objects = documents(path)
        steps = {
            f"{d['metadata']['name']}-{step}": pod
            for d in objects if d["kind"] == "WorkflowTemplate" for step, pod in pods_of(d["spec"])
        }  # fmt: skip
        objects += [named(pod, step) for step, pod in steps.items()]
        for check, about, says in scored(judges("kube-score"), objects):
            met.add(check)
            fixed = check != "container-security-context-user-group-id" or name == "odd"
            if not (fixed and re.fullmatch(ACCEPTED.get(check, ("", ""))[0], about)) or "memory" in says.lower():
                other.append(f"{check} of {about} with the values {name}: {says}")
    assert other == []
    assert met == ACCEPTED.keys(), "what is no longer said need not be accepted"
