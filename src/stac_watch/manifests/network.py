"""NetworkPolicies: nothing may talk to anything, but for what is listed here.

In: settings. Out: dictionaries. Never: a rule for a host name; Kubernetes knows addresses only, names are held by the runner
(`--allowed-hosts`) and by the poller (`allowed_hosts`).
"""

from __future__ import annotations

from stac_watch.manifests.settings import AUDIT, BUS, EVENT_SOURCE, POLLER, PORT, SENSOR, WEB_PORT, Object, Settings, meta

BUS_CLIENT, BUS_PEER, BUS_MONITOR, BUS_METRICS, METRICS = 4222, 6222, 8222, 7777, 7777
API_SERVER = (443, 6443)
HTTP = (80, 443)
POSTGRESQL = 5432
METADATA_SERVICES = ("169.254.0.0/16", "fe80::/10")  # link-local: a cloud's credentials for the node are there

_POLLER = {"app.kubernetes.io/name": POLLER}
_EVENT_SOURCE = {"controller": "eventsource-controller", "eventsource-name": EVENT_SOURCE}
_SENSOR = {"controller": "sensor-controller", "sensor-name": SENSOR}
_BUS = {"controller": "eventbus-controller", "eventbus-name": BUS}
_RUNS = {"matchExpressions": [{"key": "workflows.argoproj.io/workflow", "operator": "Exists"}]}
_MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def policies(settings: Settings) -> list[Object]:
    """Returns the policies of the namespace."""
    bus = {"to": [_pods(_BUS)], "ports": _tcp(BUS_CLIENT)}
    clients = [_pods(_EVENT_SOURCE), _pods(_SENSOR)]
    return [
        _policy("default-deny", settings, {}, ingress=[], egress=[]),
        _policy("dns", settings, {}, egress=[{"ports": [_port(53, "UDP"), _port(53, "TCP")]}]),
        _policy(
            "poller", settings, {"matchLabels": _POLLER},
            ingress=[{"from": [_MONITORING], "ports": _tcp(WEB_PORT)}],
            egress=[{"to": [_pods(_EVENT_SOURCE)], "ports": _tcp(PORT)}, _outside(*HTTP, *API_SERVER)],
        ),
        _policy(
            "eventsource", settings, {"matchLabels": _EVENT_SOURCE},
            ingress=[{"from": [_pods(_POLLER)], "ports": _tcp(PORT)}, {"from": [_MONITORING], "ports": _tcp(METRICS)}],
            egress=[bus],
        ),
        _policy(
            "sensor", settings, {"matchLabels": _SENSOR},
            ingress=[{"from": [_MONITORING], "ports": _tcp(METRICS)}],
            egress=[bus, _outside(*API_SERVER)],
        ),
        _policy(
            "eventbus", settings, {"matchLabels": _BUS},
            ingress=[
                {"from": [*clients, _pods(_BUS)], "ports": _tcp(BUS_CLIENT)},
                {"from": [_pods(_BUS)], "ports": _tcp(BUS_PEER, BUS_MONITOR)},
                {"from": [_MONITORING], "ports": _tcp(BUS_METRICS)},
            ],
            egress=[{"to": [_pods(_BUS)], "ports": _tcp(BUS_CLIENT, BUS_PEER, BUS_MONITOR)}],
        ),
        _policy("runs", settings, _RUNS, ingress=[], egress=[_outside(*HTTP, *API_SERVER)]),
    ]  # fmt: skip


def database_policy(settings: Settings) -> Object:
    """Returns the policy that lets poller and audit reach PostgreSQL."""
    who = {"matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": [POLLER, AUDIT]}]}
    return _policy("ledger", settings, who, egress=[_outside(POSTGRESQL)])


def _policy(
    name: str, settings: Settings, pods: Object, *, ingress: list[Object] | None = None, egress: list[Object] | None = None
) -> Object:
    given = {"ingress": ingress, "egress": egress}
    rules = {direction: rule for direction, rule in given.items() if rule is not None}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta(name, settings),
        "spec": {"podSelector": pods, "policyTypes": [direction.capitalize() for direction in rules], **rules},
    }


def _outside(*ports: int) -> Object:
    """Returns a rule for any address but the link-local ones. The API server is among them: it has no label to select it by."""
    link_local, link_local6 = METADATA_SERVICES
    blocks = [{"cidr": "0.0.0.0/0", "except": [link_local]}, {"cidr": "::/0", "except": [link_local6]}]
    return {"to": [{"ipBlock": block} for block in blocks], "ports": _tcp(*sorted(set(ports)))}


def _pods(labels: dict[str, str]) -> Object:
    return {"podSelector": {"matchLabels": labels}}


def _tcp(*ports: int) -> list[Object]:
    return [_port(port, "TCP") for port in ports]


def _port(number: int, protocol: str) -> Object:
    return {"port": number, "protocol": protocol}
