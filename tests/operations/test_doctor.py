"""The doctor finds nothing in an installation that is whole, and names each thing that is broken in one that is not."""

import json

import pytest
import yaml
from fakes.installation import files_of
from fakes.kubernetes import ARGO, CORE, NAMESPACE
from fakes.workflows import ROOT, template

from stac_watch.cluster import clocks, diagnosis
from stac_watch.cluster.admission import pods_of
from stac_watch.cluster.diagnosis import Verdict
from stac_watch.cluster.doctor import KINDS, Expected, examine, tools
from stac_watch.cluster.manifests import settings as names
from stac_watch.cluster.manifests.convert import convert_template
from stac_watch.cluster.manifests.facts import settings_of
from stac_watch.config.load import load
from stac_watch.model.errors import ConfigError

CONFIG = ROOT / "deploy" / "base" / "stac-watch.yaml"
APPS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
EVERYWHERE = "/apis/apps/v1/deployments"
CONFIG_MAPS = "/api/v1/namespaces/argo/configmaps"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
PLURALS = {
    "Deployment": APPS, "EventBus": f"{ARGO}/eventbus", "EventSource": f"{ARGO}/eventsources", "Namespace": "/api/v1/namespaces",
    "Sensor": f"{ARGO}/sensors", "ServiceAccount": f"{CORE}/serviceaccounts", "WorkflowTemplate": f"{ARGO}/workflowtemplates",
}  # fmt: skip
IMAGES = [{"names": ["docker.io/library/geozarr-runner:0.1.0"]}, {"names": ["localhost/stac-watch:0.1.0"]}]


@pytest.fixture(scope="module")
def settings():
    return settings_of(load(CONFIG, {}), CONFIG.read_text())


@pytest.fixture
def expected(settings):
    accounts = (names.RUN, names.SENSOR_ACCOUNT, names.POLLER)
    return Expected(convert_template(settings), names.BUS, names.EVENT_SOURCE, (names.SENSOR,), names.POLLER, accounts, "", 20)


@pytest.fixture
def whole(api, settings):
    """The rendered installation as it looks when it runs."""
    api.objects["/version"] = {"gitVersion": "v1.34.4"}
    api.objects["/apis/argoproj.io/v1alpha1"] = {"resources": [{"name": kind} for kind in KINDS]}
    for path, text in files_of(settings).items():
        if (
            "overlays" in path
            or "components" in path
            or "/monitoring/" in path
            or path.endswith(("kustomization.yaml", "stac-watch.yaml", "kustomizeconfig.yaml"))
        ):
            continue
        for document in yaml.safe_load_all(text):
            if where := PLURALS.get(document["kind"]):
                if document["kind"] in ("EventBus", "EventSource", "Sensor"):
                    document["status"] = {"conditions": [{"type": "Deployed", "status": "True"}]}
                if document["kind"] == "Deployment":
                    document["status"] = {"availableReplicas": 1}
                api.add(where, document)
    for label, name in (("eventbus-name", names.BUS), ("eventsource-name", names.EVENT_SOURCE), ("sensor-name", names.SENSOR)):
        api.pod(f"{label}-0", labels={label: name})
    for name in ("stac-watch-webhook",):
        api.add(f"{CORE}/secrets", {"metadata": {"name": name}})
    for image, where in (("workflow-controller:v4.0.10", "argo"), ("argo-events:v1.9.11", "argo-events")):
        container = {"image": f"quay.io/argoproj/{image}"}
        spec = {"template": {"spec": {"containers": [container]}}}
        document = {
            "metadata": {"name": image.partition(":")[0], "namespace": where},
            "spec": spec,
            "status": {"availableReplicas": 1},
        }
        api.add(EVERYWHERE, document)
    api.add(CONFIG_MAPS, {"metadata": {"name": "workflow-controller-configmap"}, "data": {"parallelism": "50"}})
    api.add("/api/v1/nodes", {"metadata": {"name": "node0"}, "status": {"images": IMAGES}})
    heard = [{"manager": "kubelet", "time": "2026-12-01T12:00:00Z"}]
    lease = {"metadata": {"name": "node0", "managedFields": heard}, "spec": {"renewTime": "2026-12-01T12:00:00.500000Z"}}
    api.add("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease)
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    api.add(CLASSES, {"metadata": {"name": "standard", "annotations": default}})
    return api


@pytest.fixture
def findings(cluster, expected):
    return lambda: list(examine(lambda: cluster, expected))


def bad(findings):
    return [(f.check, f.verdict, f.found) for f in findings if f.verdict is not Verdict.OK]


def test_in_an_installation_that_is_whole_everything_is_ok(whole, findings):
    found = findings()
    assert bad(found) == []
    assert len(found) >= 15
    assert all(f.found for f in found)


def delete(path):
    return lambda api: api.objects.pop(path)


def change(path, *keys, value):
    def act(api):
        node = api.objects[path]
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return act


def waits(name, reason, message="", labels=None):
    return lambda api: api.pod(name, labels=labels, phase="Pending", state={"waiting": {"reason": reason, "message": message}})


def pending_claim(api):
    api.claim("gz-a")["status"]["phase"] = "Pending"
    about = {"kind": "PersistentVolumeClaim", "name": "gz-a"}
    api.add(f"{CORE}/events", {"metadata": {"name": "e"}, "involvedObject": about, "type": "Warning", "message": "exceeded quota"})


def full_quota(api):
    status = {"hard": {"requests.storage": "2Ti", "pods": "10"}, "used": {"requests.storage": "2048Gi", "pods": "3"}}
    api.add(f"{CORE}/resourcequotas", {"metadata": {"name": "q"}, "status": status})


TEMPLATE = f"{ARGO}/workflowtemplates/geozarr-convert"
BROKEN = {
    "old Kubernetes": (change("/version", "gitVersion", value="v1.24.9"), "Kubernetes", "v1.24.9"),
    "no Argo": (change("/apis/argoproj.io/v1alpha1", "resources", value=[{"name": "workflows"}]), "Argo's kinds",
              "workflowtemplates, eventbus"),
    "no controller": (delete(f"{EVERYWHERE}/workflow-controller"), "Argo Workflows", "no Deployment runs workflow-controller"),
    "controller down": (change(f"{EVERYWHERE}/argo-events", "status", value={}), "Argo Events", "does not run"),
    "old Argo Events": (change(f"{EVERYWHERE}/argo-events", "spec", "template", "spec", "containers",
                               value=[{"image": "quay.io/argoproj/argo-events:v1.9.5"}]), "Argo Events", "too old"),
    "no namespace": (delete(f"/api/v1/namespaces/{NAMESPACE}"), "namespace", "does not exist"),
    "permissions": (lambda api: api.refused.update({("delete", "workflows"), ("get", "pods/exec")}), "permissions",
                    "we may not get pods/exec (fetch), delete workflows (clean)"),
    "account": (delete(f"{CORE}/serviceaccounts/geozarr-run"), "accounts", "missing: geozarr-run"),
    "no template": (delete(TEMPLATE), "template geozarr-convert", "is not installed"),
    "secret": (delete(f"{CORE}/secrets/stac-watch-webhook"), "secrets", "missing: stac-watch-webhook"),
    "bus": (delete(f"{ARGO}/eventbus/{names.BUS}"), f"EventBus {names.BUS}", "is not installed"),
    "sensor": (change(f"{ARGO}/sensors/{names.SENSOR}", "status", "conditions",
                      value=[{"type": "TriggersProvided", "status": "False", "message": "bad trigger"}]),
               f"Sensor {names.SENSOR}", "TriggersProvided: bad trigger"),
    "event source without pod": (delete(f"{CORE}/pods/eventsource-name-0"), f"EventSource {names.EVENT_SOURCE}", "no pod is ready"),
    "not looked at": (change(f"{ARGO}/eventsources/{names.EVENT_SOURCE}", "status", value={}), f"EventSource {names.EVENT_SOURCE}",
                      "has not looked at it"),
    "poller": (lambda api: [change(f"{APPS}/{names.POLLER}", "status", value={})(api),
                            waits("p", "CrashLoopBackOff", "exit 78", {"app.kubernetes.io/name": names.POLLER})(api)],
               "poller", "CrashLoopBackOff: exit 78"),
    "image": (change("/api/v1/nodes/node0", "status", "images", value=IMAGES[1:]), "image geozarr-runner:0.1.0", "on no node"),
    "pull": (waits("gz-a-convert", "ImagePullBackOff", "not found"), "image geozarr-runner:0.1.0",
             "pod gz-a-convert: ImagePullBackOff: not found"),
    "no storage": (delete(f"{CLASSES}/standard"), "storage", "no storage class is the default"),
    "volume": (pending_claim, "volumes", "gz-a waits: exceeded quota"),
    "another instance": (change(f"{CONFIG_MAPS}/workflow-controller-configmap", "data", value={"config": "instanceID: theirs"}),
                         "controller", "it runs those of instanceID 'theirs', and ours have ''"),
    "a controller that looks elsewhere": (
        change(f"{EVERYWHERE}/workflow-controller", "spec", "template", "spec", "containers", 0, "args",
               value=["--namespaced", "--managed-namespace", "theirs"]),
        "controller", "no Workflow controller looks at namespace geozarr",
    ),
    "pods that a quota does not take": (
        lambda api: [setattr(api, "requests_quota", True),
                     change(TEMPLATE, "spec", "templates", 0, "podSpecPatch", value="{}")(api)],
        "admission", "preflight: failed quota: geozarr: must specify requests.cpu for: init,wait",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_each_broken_thing_is_named_with_its_remedy(whole, findings, case):
    damage, check, says = BROKEN[case]
    damage(whole)
    found = [f for f in findings() if f.verdict is Verdict.FAIL]
    assert [f.check for f in found if f.check == check] == [check], found
    [finding] = [f for f in found if f.check == check]
    assert says in finding.found
    assert finding.remedy


def test_the_rendered_pods_are_taken_under_a_quota_that_counts_requests(whole, findings):
    whole.requests_quota = True
    assert bad(findings()) == []
    asked = [a for a in whole.asked if a.query.get("dryRun")]
    assert len(asked) == 5, "four pods and a Workflow"
    assert not whole.created


def test_a_pod_of_a_run_is_the_one_that_argo_makes(settings):
    pods = dict(pods_of(convert_template(settings)["spec"]))
    spec = pods["convert"]["spec"]
    main = next(c for c in spec["containers"] if c["name"] == "main")
    assert {m["name"] for m in main["volumeMounts"]} <= {v["name"] for v in spec["volumes"]}
    assert "{{" not in json.dumps(pods)
    assert spec["automountServiceAccountToken"] is False
    assert {c["name"] for c in pods["volume"]["spec"]["containers"]} == {"main"}


def test_what_works_and_will_not_always_is_a_warning(whole, findings):
    full_quota(whole)
    del whole.objects[f"/api/v1/namespaces/{NAMESPACE}"]["metadata"]["labels"]
    assert [(check, said) for check, verdict, said in bad(findings()) if verdict is Verdict.WARN] == [
        ("namespace", "geozarr enforces no Pod Security level"), ("quota", "used up: requests.storage (2Ti)"),
    ]  # fmt: skip


def test_what_may_not_be_asked_is_unknown_and_the_rest_is_asked(whole, findings):
    whole.forbidden = ("/nodes", "/apis/apps/v1/deployments", "/storageclasses", "/secrets/stac-watch-webhook")
    found = findings()
    assert {f.verdict for f in found} == {Verdict.OK, Verdict.UNKNOWN}
    assert {f.check for f in found if f.verdict is Verdict.UNKNOWN} == {
        "Argo's controllers", "controller", "secrets", "image geozarr-runner:0.1.0", "image stac-watch:0.1.0", "storage",
    }  # fmt: skip


def test_a_volume_whose_class_is_not_there_is_named_with_whose_it_is(whole, findings):
    whole.objects[f"{ARGO}/eventbus/{names.BUS}"]["spec"]["jetstream"]["persistence"]["storageClassName"] = "gold"
    assert [(check, said) for check, _, said in bad(findings())] == [
        ("storage", "no class is called gold in bus; there are: standard")
    ]


@pytest.mark.parametrize(
    ("renewed", "verdict", "says"),
    [
        ("2026-12-01T12:00:00.900000Z", Verdict.OK, "of 1 nodes"),
        ("2026-12-01T12:01:30.000000Z", Verdict.WARN, "node0 (+90 s)"),
        ("2026-12-01T11:55:00.000000Z", Verdict.WARN, "node0 (-300 s)"),
    ],
)
def test_a_node_whose_clock_is_off_is_named(renewed, verdict, says):
    heard = [{"manager": "kubelet", "time": "2026-12-01T12:00:00Z"}, {"manager": "other", "time": "2026-11-01T12:00:00Z"}]
    found = clocks.judge([{"metadata": {"name": "node0", "managedFields": heard}, "spec": {"renewTime": renewed}}])
    assert found.verdict is verdict
    assert says in found.found


def test_without_a_poller_runs_by_hand_are_said_to_work(whole, findings):
    for path in (f"{ARGO}/eventbus/{names.BUS}", f"{ARGO}/eventsources/{names.EVENT_SOURCE}", f"{ARGO}/sensors/{names.SENSOR}",
                 f"{APPS}/{names.POLLER}"):  # fmt: skip
        del whole.objects[path]
    assert [(check, verdict) for check, verdict, _ in bad(findings())] == [("events", Verdict.WARN)]


def test_without_a_cluster_only_that_is_said(expected):
    def connect():
        raise ConfigError("no credentials for a Kubernetes cluster", hint="set KUBECONFIG")

    [finding] = examine(connect, expected)
    assert (finding.check, finding.verdict, finding.remedy) == ("cluster", Verdict.FAIL, "set KUBECONFIG")


def test_a_secret_is_looked_for_and_not_read(whole, findings, settings):
    """The server is asked for metadata alone, so no value leaves it."""
    findings()
    asked = [asked.accept for asked in whole.asked if "/secrets/" in asked.path]
    assert asked
    assert all(accept.startswith("application/json;as=PartialObjectMetadata;") for accept in asked)


def test_tools():
    found = list(tools({"kubectl": "/usr/bin/kubectl"}.get))
    assert [f.verdict for f in found] == [Verdict.OK, Verdict.OK]
    assert [f.verdict for f in tools({}.get)] == [Verdict.FAIL, Verdict.OK]


# -- the template ------------------------------------------------------------------------------------------------------------------


def edited(edit):
    document = template()
    edit(document["spec"])
    return document


def step(spec, name):
    return next(t for t in spec["templates"] if t["name"] == name)


@pytest.mark.parametrize(
    "edit",
    [
        lambda spec: step(spec, "convert")["container"].update(image="registry.example/geozarr-runner:1"),
        lambda spec: step(spec, "convert")["container"].update(resources={"limits": {"memory": "8Gi"}}),
        lambda spec: spec.update(nodeSelector={"pool": "batch"}, tolerations=[{"key": "batch"}]),
        lambda spec: step(spec, "volume")["resource"].update(
            manifest=step(spec, "volume")["resource"]["manifest"].replace("spec:\n", "spec:\n  storageClassName: fast\n")
        ),
    ],
    ids=["image", "resources", "scheduling", "storage class"],
)
def test_what_an_overlay_sets_is_no_difference(edit):
    finding = diagnosis.template(template(), edited(edit))
    assert finding.verdict is Verdict.OK
    assert "with its own" in finding.found


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (lambda spec: spec["arguments"]["parameters"].reverse(), "arguments.parameters (names or order)"),
        (lambda spec: spec["arguments"]["parameters"].pop(), "arguments.parameters (names or order)"),
        (lambda spec: step(spec, "convert")["retryStrategy"].update(limit="9"), "templates[convert].retryStrategy.limit"),
        (lambda spec: step(spec, "convert")["container"].update(args=["convert"]), "templates[convert].container.args"),
        (lambda spec: step(spec, "volume")["resource"].update(
            manifest=step(spec, "volume")["resource"]["manifest"].replace("ReadWriteOnce", "ReadWriteMany")),
         "templates[volume].resource.manifest.spec.accessModes"),
    ],
    ids=["order", "parameter", "retry", "arguments", "claim"],
)  # fmt: skip
def test_what_the_contract_says_is_one(edit, where):
    finding = diagnosis.template(template(), edited(edit))
    assert finding.verdict is Verdict.FAIL
    assert where in finding.found
    assert finding.remedy.startswith("`kubectl apply -k workflows`")


@pytest.mark.parametrize(
    ("text", "number"), [("2Ti", 2 * 1024**4), ("500m", 0.5), ("4k", 4000), ("3", 3), ("96Gi", 96 * 1024**3), ("?", 0)]
)
def test_quantities(text, number):
    assert diagnosis.quantity(text) == number


@pytest.mark.parametrize(
    ("text", "parts"), [("v1.34.4", (1, 34, 4)), ("v1.31.2-gke.100", (1, 31, 2)), ("1.30+", (1, 30)), ("latest", ())]
)
def test_versions(text, parts):
    assert diagnosis.numbers(text) == parts


def test_the_command_prints_a_line_each_or_json_and_its_exit_code_is_true(whole, cluster_verb, stac_watch, environ):
    done = stac_watch("cluster", "doctor", "--json", f"--config={ROOT}/deploy/base/stac-watch.yaml", **environ)
    found = json.loads(done.out)
    assert all(set(f) == {"check", "verdict", "found", "remedy"} for f in found)
    assert done.code == (1 if "FAIL" in {f["verdict"] for f in found} else 0)
    assert [f for f in found if f["check"] != "kubectl" and f["verdict"] != "ok"] == []
    whole.objects.pop(TEMPLATE)
    said = cluster_verb("doctor", code=1).out
    assert "FAIL  template geozarr-convert: is not installed → `kubectl apply -k workflows`\n" in said


@pytest.mark.parametrize(
    ("said", "labelled", "verdict", "found"),
    [
        ({"parallelism": "5"}, "24", Verdict.WARN, "5 Workflows at once, and engine.limits.max_in_flight is 20"),
        ({"namespaceParallelism": "10"}, "", Verdict.WARN, "10 Workflows at once"),
        ({"namespaceParallelism": "10"}, "24", Verdict.OK, "at most 24 Workflows at once"),
        ({"config": "parallelism: 3\n"}, "24", Verdict.WARN, "3 Workflows at once"),
        ({}, "", Verdict.OK, "any number of Workflows"),
    ],
)
def test_what_the_controller_really_uses_is_read_where_it_really_is(whole, findings, said, labelled, verdict, found):
    """Helm calls the ConfigMap otherwise, and other namespaces are usual; another tenant's controller is none of ours."""
    container = {"image": "mirror.example/argoproj/workflow-controller:v4.1.2", "args": ["--configmap", "argo-configmap"]}
    theirs = {"image": container["image"], "args": ["--namespaced", "--managed-namespace=theirs"]}
    for name, one in (("ours", container), ("theirs", theirs)):
        spec = {"template": {"spec": {"containers": [one]}}}
        meta = {"name": name, "namespace": "platform"}
        whole.add(EVERYWHERE, {"metadata": meta, "spec": spec, "status": {"availableReplicas": 1}})
    del whole.objects[f"{EVERYWHERE}/workflow-controller"]
    whole.add("/api/v1/namespaces/platform/configmaps", {"metadata": {"name": "argo-configmap"}, "data": said})
    whole.objects[f"/api/v1/namespaces/{NAMESPACE}"]["metadata"]["labels"]["workflows.argoproj.io/parallelism-limit"] = labelled
    [finding] = [f for f in findings() if f.check == "controller"]
    assert finding.verdict is verdict
    assert found in finding.found
    assert "platform/ours, ConfigMap argo-configmap" in finding.found


@pytest.mark.parametrize(
    ("policy", "restrictions", "verdict"),
    [
        (True, "", Verdict.OK), (False, "", Verdict.WARN), (False, "templateReferencing: Strict", Verdict.OK),
        (False, "templateReferencing: Secure", Verdict.OK),
    ],
)  # fmt: skip
def test_whether_a_workflow_may_bring_its_own_pod_is_tried(whole, findings, policy, restrictions, verdict):
    whole.policy = policy
    whole.objects[f"{CONFIG_MAPS}/workflow-controller-configmap"]["data"]["workflowRestrictions"] = restrictions
    [finding] = [f for f in findings() if f.check == "references only"]
    assert finding.verdict is verdict
    assert not whole.created


def test_a_release_with_known_faults_is_a_warning(whole, findings):
    containers = whole.objects[f"{EVERYWHERE}/workflow-controller"]["spec"]["template"]["spec"]["containers"]
    containers[0]["image"] = "quay.io/argoproj/workflow-controller:v4.0.7"
    assert [(f.check, f.remedy) for f in findings() if f.verdict is Verdict.WARN] == [
        ("Argo Workflows", "upgrade to 4.0.10 or later")
    ]
