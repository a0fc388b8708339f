"""Least privilege, read from the rendered objects: pods, accounts, network."""

import ipaddress

import pytest
import yaml


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
    assert seen == {"poller", "preflight", "volume", "convert", "audit", "stac", "geozarr", "bus"}


def test_argos_own_containers_are_named_as_far_as_the_pod_has_them(objects):
    """A resource step has no `wait`; a patch that names it makes the pod invalid."""
    expected = {"preflight": {"init", "wait", "main"}, "convert": {"init", "wait", "main"}, "volume": {"init", "main"}}
    found = {name: set(containers) for name, _, containers in pods(objects) if name in expected}
    assert found == expected


def test_our_root_file_systems_are_read_only(objects):
    for name, _, containers in pods(objects):
        if name in {"poller", "preflight", "convert", "audit"}:
            main = containers.get("main") or containers["poller"]
            assert main["securityContext"]["readOnlyRootFilesystem"] is True
            assert "/tmp" in {m["mountPath"] for m in main["volumeMounts"]}
            assert {"name": "HOME", "value": "/tmp"} in main["env"]


def test_secrets_are_only_named(objects, rendered):
    assert not [key for key in objects if key[0] == "Secret"]
    assert "stringData" not in "".join(rendered.values())
    for name, _, containers in pods(objects):
        for spec in containers.values():
            for entry in spec.get("env", []):
                secret = "secretKeyRef" in entry.get("valueFrom", {})
                assert secret == (entry["name"] == "STAC_WATCH__ENGINE__TOKEN"), (name, entry)


@pytest.mark.parametrize(
    ("account", "rules"),
    [
        ("geozarr-sensor", {("argoproj.io", "workflows"): {"get", "create", "patch"}}),
        (
            "geozarr-run",
            {("argoproj.io", "workflowtaskresults"): {"create", "patch"}, ("", "persistentvolumeclaims"): {"create", "get"}},
        ),
        ("stac-watch", {("argoproj.io", "workflows"): {"get", "list", "watch"}}),
        (
            "stac-watch-audit",
            {
                ("argoproj.io", "workflows"): {"get", "list", "watch"},
                ("argoproj.io", "workflowtaskresults"): {"create", "patch"},
            },
        ),
    ],
)
def test_an_account_may_do_this_and_no_more(objects, account, rules):
    assert ("ServiceAccount", account) in objects
    role = objects["Role", account]
    found = {(g, r): set(rule["verbs"]) for rule in role["rules"] for g in rule["apiGroups"] for r in rule["resources"]}
    assert found == rules
    binding = objects["RoleBinding", account]
    assert binding["roleRef"]["name"] == account
    assert [s["name"] for s in binding["subjects"]] == [account]


def test_accounts_are_those_that_the_pods_use(objects):
    assert objects["Sensor", "geozarr"]["spec"]["template"]["serviceAccountName"] == "geozarr-sensor"
    assert objects["WorkflowTemplate", "geozarr-convert"]["spec"]["serviceAccountName"] == "geozarr-run"
    assert objects["WorkflowTemplate", "stac-watch-audit"]["spec"]["serviceAccountName"] == "stac-watch-audit"
    assert objects["Deployment", "stac-watch"]["spec"]["template"]["spec"]["serviceAccountName"] == "stac-watch"


POLLER = {"app.kubernetes.io/name": "stac-watch"}
SOURCE = {"controller": "eventsource-controller", "eventsource-name": "stac"}
SENSOR = {"controller": "sensor-controller", "sensor-name": "geozarr"}
BUS = {"controller": "eventbus-controller", "eventbus-name": "geozarr"}
RUN = {"workflows.argoproj.io/workflow": "gz-x"}
OTHER = {"app": "other"}


def selects(selector, labels):
    if any(labels.get(k) != v for k, v in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", []):
        value = labels.get(expression["key"])
        if value is None or (expression["operator"] == "In" and value not in expression["values"]):
            return False
    return True


def reaches(peer, other):
    """Whether a rule's peer is `other`: labels of a pod of the namespace, or an address outside."""
    if isinstance(other, str):
        block = peer.get("ipBlock")
        address = ipaddress.ip_address(other)
        if block is None or address not in ipaddress.ip_network(block["cidr"]):
            return False
        return not any(address in ipaddress.ip_network(hole) for hole in block.get("except", []))
    return "podSelector" in peer and "namespaceSelector" not in peer and selects(peer["podSelector"], other)


def permitted(policies, who, direction, other, port):
    """Kubernetes' rule: what any policy that selects the pod allows, and nothing where one selects it."""
    mine = [
        p["spec"] for p in policies if direction.capitalize() in p["spec"]["policyTypes"] and selects(p["spec"]["podSelector"], who)
    ]
    side = "to" if direction == "egress" else "from"
    return not mine or any(
        (side not in rule or any(reaches(peer, other) for peer in rule[side])) and port in {p["port"] for p in rule["ports"]}
        for spec in mine
        for rule in spec.get(direction, [])
    )


@pytest.mark.parametrize(
    ("who", "other", "port", "allowed"),
    [
        (POLLER, SOURCE, 12000, True),
        (RUN, SOURCE, 12000, False),
        (SENSOR, SOURCE, 12000, False),
        (OTHER, SOURCE, 12000, False),
        (SOURCE, BUS, 4222, True),
        (SENSOR, BUS, 4222, True),
        (BUS, BUS, 6222, True),
        (POLLER, BUS, 4222, False),
        (RUN, BUS, 4222, False),
        (RUN, POLLER, 8080, False),
        (POLLER, "203.0.113.7", 443, True),
        (POLLER, "203.0.113.7", 5432, False),
        (RUN, "203.0.113.7", 443, True),
        (RUN, "203.0.113.7", 80, True),
        (RUN, "203.0.113.7", 22, False),
        (RUN, "169.254.169.254", 80, False),
        (POLLER, "169.254.169.254", 80, False),
        (SENSOR, "10.0.0.1", 6443, True),
        (SENSOR, "203.0.113.7", 80, False),
        (SOURCE, "203.0.113.7", 443, False),
        (BUS, "203.0.113.7", 443, False),
        (OTHER, "203.0.113.7", 443, False),
        (OTHER, "10.0.0.10", 53, True),
    ],
)
def test_the_network_allows_this_and_no_more(objects, who, other, port, allowed):
    policies = [o for (kind, name), o in objects.items() if kind == "NetworkPolicy" and name != "ledger"]
    both = permitted(policies, who, "egress", other, port)
    if not isinstance(other, str):
        both = both and permitted(policies, other, "ingress", who, port)
    assert both is allowed


def test_production_lets_poller_and_audit_reach_the_database(objects):
    policies = [o for (kind, _), o in objects.items() if kind == "NetworkPolicy"]
    assert permitted(policies, POLLER, "egress", "10.1.2.3", 5432)
    assert permitted(policies, {"app.kubernetes.io/name": "stac-watch-audit"}, "egress", "10.1.2.3", 5432)
    assert not permitted(policies, RUN, "egress", "10.1.2.3", 5432)


def test_the_namespace_refuses_pods_that_are_not_restricted(objects):
    assert objects["Namespace", "geozarr"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_controller_runs_references_only(objects):
    data = objects["ConfigMap", "workflow-controller-configmap"]["data"]
    assert yaml.safe_load(data["workflowRestrictions"]) == {"templateReferencing": "Strict"}
    assert "workflowTemplateRef" in objects["CronWorkflow", "stac-watch-audit"]["spec"]["workflowSpec"]
    assert "templates" not in objects["CronWorkflow", "stac-watch-audit"]["spec"]["workflowSpec"]
    shown = {column["key"] for column in yaml.safe_load(data["columns"])}
    source = objects["Sensor", "geozarr"]["spec"]["triggers"][0]["template"]["k8s"]["source"]
    assert shown <= set(source["resource"]["metadata"]["labels"])
    annotations = objects["WorkflowTemplate", "geozarr-convert"]["spec"]["workflowMetadata"]["annotations"]
    for link in yaml.safe_load(data["links"]):
        assert link["url"].removeprefix("${workflow.metadata.annotations.").removesuffix("}") in annotations
