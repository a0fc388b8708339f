"""What the NetworkPolicies say, evaluated by Kubernetes' own rule over the rendered objects; no cluster is asked.

tests/cluster/test_network.py lets pods try, where the cluster has a policy engine.
"""

import ipaddress

import pytest
import yaml
from fakes.installation import files_of, told

from stac_watch.model.errors import ConfigError

POLLER = {"app.kubernetes.io/name": "stac-watch"}
SOURCE = {"controller": "eventsource-controller", "eventsource-name": "stac"}
SENSOR = {"controller": "sensor-controller", "sensor-name": "geozarr", "app.kubernetes.io/name": "sensor"}
BUS = {"controller": "eventbus-controller", "eventbus-name": "geozarr"}
RUN = {"workflows.argoproj.io/workflow": "gz-x", "app.kubernetes.io/name": "geozarr-convert"}
AUDIT = {"workflows.argoproj.io/workflow": "a", "app.kubernetes.io/name": "stac-watch-audit"}
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
        (OTHER, POLLER, 8080, False),
        (POLLER, "203.0.113.7", 443, True),
        (POLLER, "203.0.113.7", 5432, False),
        (RUN, "203.0.113.7", 443, True),
        (RUN, "203.0.113.7", 80, True),
        (RUN, "203.0.113.7", 22, False),
        (RUN, "10.1.2.3", 80, False),
        (RUN, "192.168.1.1", 80, False),
        (RUN, "2606:4700::1111", 443, True),
        (RUN, "fd00::7", 80, False),
        (RUN, "fe80::1", 443, False),
        (RUN, "169.254.169.254", 443, False),
        (RUN, "169.254.169.254", 80, False),
        (POLLER, "169.254.169.254", 80, False),
        # without the API server's addresses nobody reaches a private one at its ports
        *(
            (who, address, port, False)
            for who in (RUN, AUDIT, POLLER, SENSOR, SOURCE, BUS)
            for address, port in (("10.0.0.1", 6443), ("10.0.0.1", 443), ("192.168.1.1", 443), ("fd00::7", 443))
        ),
        (SENSOR, "203.0.113.7", 443, False),
        (SENSOR, "203.0.113.7", 80, False),
        (SOURCE, "203.0.113.7", 443, False),
        (BUS, "203.0.113.7", 443, False),
        (OTHER, "203.0.113.7", 443, False),
        (OTHER, "10.0.0.10", 53, True),
        (OTHER, "169.254.20.10", 53, True),
        (RUN, "203.0.113.7", 53, False),
    ],
)
def test_the_network_allows_this_and_no_more(objects, who, other, port, allowed):
    policies = [o for (kind, name), o in objects.items() if kind == "NetworkPolicy" and name != "ledger"]
    both = permitted(policies, who, "egress", other, port)
    if not isinstance(other, str):
        both = both and permitted(policies, other, "ingress", who, port)
    assert both is allowed


def policies(text, tmp_path, **site):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return list(yaml.safe_load_all(files_of(told(path, **site))["network.yaml"]))


SOURCE_OF = """
sources: [{{name: a, api: "{api}", collection: c, allowed_hosts: [{hosts}]}}]
engine: {{kind: argo, webhook: "http://x/items"}}
"""
PLAIN = SOURCE_OF.format(api="https://a.example", hosts="b.example")


@pytest.mark.parametrize(
    ("api", "hosts", "site", "reached", "not_reached"),
    [
        # a catalog at a port of its own
        ("https://a.example:8443", "b.example", {}, [("203.0.113.7", 8443)], [("10.1.2.3", 8443), ("203.0.113.7", 22)]),
        # one inside: its name may lead to any private address
        ("http://catalog.demo.svc:8000", "catalog.demo.svc", {}, [("10.1.2.3", 8000), ("172.20.0.1", 80)], [("10.1.2.3", 22)]),
        # an internal network, named in the configuration or when rendering
        ("https://a.example", "b.example, 10.1.0.0/16", {}, [("10.1.2.3", 80)], [("10.2.2.3", 80), ("192.168.1.1", 80)]),
        (
            "https://a.example",
            "b.example",
            {"networks": ["10.1.0.0/16"]},
            [("10.1.2.3", 80)],
            [("10.2.2.3", 80)],
        ),
        # an object store on a port of its own
        ("https://a.example", "b.example", {"ports": [9000]}, [("203.0.113.7", 9000)], [("10.1.2.3", 9000)]),
        # the API server's addresses are known: nothing else private is left
        (
            "https://a.example",
            "b.example",
            {"apiServers": ["10.96.0.1/32"]},
            [("10.96.0.1", 443), ("10.96.0.1", 6443)],
            [("10.96.0.2", 443), ("10.96.0.1", 80)],
        ),
    ],
)
def test_runs_reach_what_the_configuration_names(tmp_path, api, hosts, site, reached, not_reached):
    found = policies(SOURCE_OF.format(api=api, hosts=hosts), tmp_path, networkPolicy=site)
    for who in (RUN, POLLER):
        assert [place for place in reached if not permitted(found, who, "egress", *place)] == []
        assert [place for place in not_reached if permitted(found, who, "egress", *place)] == []
        for address in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fe80::1"):
            assert not permitted(found, who, "egress", address, 80), "whatever is named"


def test_the_poller_reaches_where_outputs_are_registered_and_where_tokens_come_from(tmp_path):
    register = """
recipe: {output: "s3://b/{item_id}.zarr"}
register: {api: "https://mine.example:8443", collection: c, href_base: "https://b.example",
           auth: {oidc: {token_url: "http://keycloak.id.svc:8080/token", client_id: x, env: SECRET}}}
"""
    found = policies(SOURCE_OF.format(api="https://a.example", hosts="b.example") + register, tmp_path)
    assert permitted(found, POLLER, "egress", "203.0.113.7", 8443)
    assert permitted(found, POLLER, "egress", "10.1.2.3", 8080)
    assert not permitted(found, POLLER, "egress", "203.0.113.7", 22)


def test_a_network_that_is_none_is_named(tmp_path):
    with pytest.raises(ConfigError, match="not a network"):
        policies(PLAIN, tmp_path, networkPolicy={"apiServers": ["10.96.0.1/8"]})


@pytest.mark.parametrize("prometheus", ["", "observability"])
def test_only_prometheus_comes_in_from_another_namespace(tmp_path, prometheus):
    found = policies(
        SOURCE_OF.format(api="https://a.example", hosts="b.example"),
        tmp_path,
        monitoring={"namespace": prometheus} if prometheus else {},
    )
    selectors = [
        p["namespaceSelector"]
        for o in found
        for rule in o["spec"].get("ingress", [])
        for p in rule["from"]
        if len(p) == 1 and "namespaceSelector" in p
    ]
    assert selectors
    assert {s["matchLabels"]["kubernetes.io/metadata.name"] for s in selectors} == {prometheus or "monitoring"}
    everybody = [o["metadata"]["name"] for o in found if o["spec"]["podSelector"] == {}]
    assert sorted(everybody) == ["default-deny", "dns"]


def test_what_lets_nothing_through_has_no_empty_list(objects):
    """The API server takes one for a change each time it is applied: tools that ask what would change never find peace."""
    specs = {name: o["spec"] for (kind, name), o in objects.items() if kind == "NetworkPolicy"}
    assert not [name for name, spec in specs.items() if [] in spec.values()]
    assert specs["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert specs["runs"]["policyTypes"] == ["Ingress", "Egress"]


def test_production_lets_poller_and_audit_reach_the_database(objects):
    policies = [o for (kind, _), o in objects.items() if kind == "NetworkPolicy"]
    assert permitted(policies, POLLER, "egress", "10.1.2.3", 5432)
    assert permitted(policies, {"app.kubernetes.io/name": "stac-watch-audit"}, "egress", "10.1.2.3", 5432)
    assert not permitted(policies, RUN, "egress", "10.1.2.3", 5432)


def test_the_way_to_the_api_is_for_those_who_speak_to_it(tmp_path):
    found = policies(PLAIN, tmp_path, networkPolicy={"apiServers": ["10.96.0.1/32"]})
    reach = {name: permitted(found, who, "egress", "10.96.0.1", 443) for name, who in (
        ("poller", POLLER), ("sensor", SENSOR), ("run", RUN), ("audit", AUDIT), ("source", SOURCE), ("bus", BUS), ("other", OTHER),
    )}  # fmt: skip
    assert reach == {
        "poller": True, "sensor": True, "run": True, "audit": True, "source": False, "bus": False, "other": False,
    }  # fmt: skip


def test_the_pods_that_speak_to_the_api_carry_what_the_policy_looks_for(objects):
    name = "app.kubernetes.io/name"
    assert objects["Sensor", "geozarr"]["spec"]["template"]["metadata"]["labels"][name] == SENSOR[name]
    assert objects["WorkflowTemplate", "geozarr-convert"]["spec"]["podMetadata"]["labels"][name] == RUN[name]
    assert objects["WorkflowTemplate", "stac-watch-audit"]["spec"]["podMetadata"]["labels"][name] == AUDIT[name]
    assert objects["Deployment", "stac-watch"]["spec"]["template"]["metadata"]["labels"][name] == POLLER[name]


@pytest.mark.parametrize(("webhook", "secret"), [("https://stac-eventsource-svc.geozarr.svc:12000/items", "stac-watch-tls")])
def test_tls_of_the_event_source_is_an_option(tmp_path, webhook, secret):
    text = SOURCE_OF.format(api="https://a.example", hosts="b.example").replace("http://x/items", webhook)
    path = tmp_path / "c.yaml"
    path.write_text(text)
    files = files_of(told(path, webhook={"tlsSecret": secret}))
    hook = yaml.safe_load(files["eventsources/stac.yaml"])["spec"]["webhook"]["items"]
    assert hook["serverCertSecret"] == {"name": secret, "key": "tls.crt"}
    assert hook["serverKeySecret"] == {"name": secret, "key": "tls.key"}
    pod = next(d for d in yaml.safe_load_all(files["poller.yaml"]) if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    [volume] = [v for v in pod["volumes"] if v["name"] == "webhook"]
    assert volume["secret"] == {"secretName": secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}, "never the key"
    [container] = pod["containers"]
    [place] = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "webhook"]
    assert {"name": "STAC_WATCH__ENGINE__CA_FILE", "value": f"{place}/ca.crt"} in container["env"]
    plain = text.replace("https://stac-eventsource", "http://stac-eventsource")
    path.write_text(plain)
    with pytest.raises(ConfigError, match="would speak TLS"):
        told(path, webhook={"tlsSecret": secret})
