"""Least privilege, read from the rendered objects: pods, accounts, tokens."""

import itertools
from collections import defaultdict

import pytest
import yaml
from fakes.installation import CONFIG, told

from stac_watch.cluster.manifests.render import parts


def pods(objects):
    """Every pod that our objects lead to: (name, pod security context, containers with their names)."""
    deployment = objects["Deployment", "stac-watch"]["spec"]["template"]["spec"]
    yield "poller", deployment["securityContext"], {c["name"]: c for c in deployment["containers"]}
    for name in ("geozarr-convert", "stac-watch-audit"):
        spec = objects["WorkflowTemplate", name]["spec"]
        for step in spec["templates"]:
            if "dag" in step:
                continue
            patch = yaml.safe_load(step["podSpecPatch"])
            containers = {c["name"]: c for c in [*patch["initContainers"], *patch["containers"]]}
            if "container" in step:
                containers["main"] = step["container"]
            yield step["name"], spec["securityContext"], containers
    for kind, name in (("EventSource", "stac"), ("Sensor", "geozarr")):
        template = objects[kind, name]["spec"]["template"]
        yield name, template["securityContext"], {"main": template["container"]}
    bus = objects["EventBus", "geozarr"]["spec"]["jetstream"]
    parts = ("containerTemplate", "reloaderContainerTemplate", "metricsContainerTemplate")
    yield "bus", bus["securityContext"], {part: bus[part] for part in parts}


def test_every_pod_is_restricted(objects):
    seen = set()
    for name, pod, containers in pods(objects):
        seen.add(name)
        assert pod["runAsNonRoot"] is True, name
        assert pod["runAsUser"] > 0, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container, spec in containers.items():
            security = spec["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, (name, container)
            assert security["capabilities"]["drop"] == ["ALL"], (name, container)
    assert seen == {"poller", "preflight", "volume", "convert", "release", "audit", "stac", "geozarr", "bus"}


def test_argos_own_containers_are_named_as_far_as_the_pod_has_them(objects):
    """A resource step has no `wait`; a patch that names it makes the pod invalid."""
    expected = {
        "preflight": {"init", "wait", "main"},
        "convert": {"init", "wait", "main"},
        "volume": {"init", "main"},
        "release": {"init", "main"},
    }
    found = {name: set(containers) for name, _, containers in pods(objects) if name in expected}
    assert found == expected


def test_every_container_says_what_it_asks_for(objects):
    """A quota on requests refuses pods in which one container does not: `must specify requests.cpu for: init,wait`."""
    for name, _, containers in pods(objects):
        for container, spec in containers.items():
            assert {"cpu", "memory"} <= spec.get("resources", {}).get("requests", {}).keys(), (name, container)


def test_our_root_file_systems_are_read_only(objects):
    for name, _, containers in pods(objects):
        if name in {"poller", "preflight", "convert", "audit"}:
            main = containers.get("main") or containers["poller"]
            assert main["securityContext"]["readOnlyRootFilesystem"] is True
            assert "/tmp" in {m["mountPath"] for m in main["volumeMounts"]}
            assert {"name": "HOME", "value": "/tmp"} in main["env"]


SECRETS = {"STAC_WATCH__ENGINE__TOKEN", "STAC_WATCH__ENGINE__NEXT_TOKEN", "STAC_WATCH__WEB__HINTS__VALUE"}


def test_secrets_are_only_named(objects, rendered):
    assert not [key for key in objects if key[0] == "Secret"]
    assert "stringData" not in "".join(rendered.values())
    for name, _, containers in pods(objects):
        for spec in containers.values():
            for entry in spec.get("env", []):
                secret = "secretKeyRef" in entry.get("valueFrom", {})
                assert secret == (entry["name"] in SECRETS), (name, entry)


@pytest.mark.parametrize(
    ("account", "rules"),
    [
        ("geozarr-sensor", {("argoproj.io", "workflows"): {"get", "create", "patch"}}),
        (
            "geozarr-run",
            {
                ("argoproj.io", "workflowtaskresults"): {"create", "patch"},
                ("", "persistentvolumeclaims"): {"create", "delete", "get"},
            },
        ),
        ("stac-watch", {("argoproj.io", "workflows"): {"get", "list", "watch", "patch"}, ("", "persistentvolumeclaims"): {"list"}}),
        (
            "stac-watch-audit",
            {
                ("argoproj.io", "workflows"): {"get", "list", "watch"},
                ("", "persistentvolumeclaims"): {"list"},
                ("argoproj.io", "workflowtaskresults"): {"create", "patch"},
            },
        ),
    ],
)
def test_an_account_may_do_this_and_no_more(objects, account, rules):
    assert ("ServiceAccount", account) in objects
    role = objects["Role", account]
    assert rights(role) == rules
    binding = objects["RoleBinding", account]
    assert binding["roleRef"]["name"] == account
    assert [s["name"] for s in binding["subjects"]] == [account]


def rights(role):
    found = defaultdict(set)
    for rule in role["rules"]:
        for place in itertools.product(rule["apiGroups"], rule["resources"]):
            found[place] |= set(rule["verbs"])
    return found


@pytest.mark.parametrize("values", [{"admission": {"enabled": False}}, {"runs": {"describeFailures": False}}])
def test_the_poller_changes_workflows_only_where_a_policy_says_what_of_them(values):
    made = {d["metadata"]["name"]: d for d in parts(told(CONFIG, **values))["rbac.yaml"] if d["kind"] == "Role"}
    assert rights(made["stac-watch"])["argoproj.io", "workflows"] == {"get", "list", "watch"}


def test_a_token_is_where_an_api_is_spoken_to_and_nowhere_else(objects):
    """Runs read what strangers wrote: their token is Argo's `init` and `wait` only. Bus and EventSource have none at all."""
    for name, step in ((s["name"], s) for s in objects["WorkflowTemplate", "geozarr-convert"]["spec"]["templates"]):
        if "container" not in step:
            continue
        patch = yaml.safe_load(step["podSpecPatch"])
        assert patch["automountServiceAccountToken"] is False, name
        [volume] = patch["volumes"]
        [token] = [s["serviceAccountToken"] for s in volume["projected"]["sources"] if "serviceAccountToken" in s]
        assert token["expirationSeconds"] <= 3607, "short-lived, and not a Secret that never expires"
        holders = {c["name"] for c in [*patch["containers"], *patch["initContainers"]] if c.get("volumeMounts")}
        assert holders == {"init", "wait"}
        assert not {m["mountPath"] for m in step["container"]["volumeMounts"]} & {"/var/run/secrets/kubernetes.io/serviceaccount"}
    quiet = objects["ServiceAccount", "geozarr-events"]
    assert quiet["automountServiceAccountToken"] is False
    assert ("Role", "geozarr-events") not in objects
    assert objects["EventSource", "stac"]["spec"]["template"]["serviceAccountName"] == "geozarr-events"
    assert objects["EventBus", "geozarr"]["spec"]["jetstream"]["serviceAccountName"] == "geozarr-events"


def test_accounts_are_those_that_the_pods_use(objects):
    assert objects["Sensor", "geozarr"]["spec"]["template"]["serviceAccountName"] == "geozarr-sensor"
    assert objects["WorkflowTemplate", "geozarr-convert"]["spec"]["serviceAccountName"] == "geozarr-run"
    assert objects["WorkflowTemplate", "stac-watch-audit"]["spec"]["serviceAccountName"] == "stac-watch-audit"
    assert objects["Deployment", "stac-watch"]["spec"]["template"]["spec"]["serviceAccountName"] == "stac-watch"


def test_the_namespace_refuses_pods_that_are_not_restricted(objects):
    assert objects["Namespace", "geozarr"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_nothing_of_ours_changes_other_tenants_workflows(objects):
    """The controller is shared: its ConfigMap gets what the UI shows, its accounts the right to see the bound of our namespace."""
    data = objects["ConfigMap", "workflow-controller-configmap"]["data"]
    assert set(data) == {"columns", "links"}
    assert objects["ClusterRole", "stac-watch-parallelism"]["rules"] == [
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]}
    ]
    cluster_wide = {kind for kind, _ in objects if kind.startswith(("Cluster", "Validating", "Mutating"))}
    assert cluster_wide == {
        "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
    }  # fmt: skip


def test_every_workflow_of_ours_refers_to_a_template_and_the_ui_shows_what_it_has(objects):
    data = objects["ConfigMap", "workflow-controller-configmap"]["data"]
    assert "workflowTemplateRef" in objects["CronWorkflow", "stac-watch-audit"]["spec"]["workflowSpec"]
    assert "templates" not in objects["CronWorkflow", "stac-watch-audit"]["spec"]["workflowSpec"]
    shown = {column["key"] for column in yaml.safe_load(data["columns"])}
    source = objects["Sensor", "geozarr"]["spec"]["triggers"][0]["template"]["k8s"]["source"]
    assert shown <= set(source["resource"]["metadata"]["labels"])
    annotations = objects["WorkflowTemplate", "geozarr-convert"]["spec"]["workflowMetadata"]["annotations"]
    for link in yaml.safe_load(data["links"]):
        scheme, _, name = link["url"].partition(":${workflow.metadata.annotations.")
        assert scheme == "https", "argo-server does not start when a link's scheme is not spelled out, or its host is a variable"
        assert name.removesuffix("}") in annotations
