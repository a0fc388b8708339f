"""NetworkPolicies: nothing may talk to anything, but for what is listed here.

Kubernetes knows addresses only; names are held by the runner (`--allowed-hosts`) and by the poller (`allowed_hosts`).

Public addresses may be reached at the ports that data is served at; private ones where the configuration names something inside, or
`networkPolicy.networks` says so; link-local ones never. The API server has no label to select it by: a policy of its own names its
addresses, those of `networkPolicy.apiServers`, or what `stac-watch cluster api-server` finds in the cluster. Without it, ours
reaches no API; "any address at 443" would be every company's inside.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from stac_watch.cluster.manifests.settings import (
    AUDIT,
    CLEANUP,
    EVENT_SOURCE,
    POLLER,
    PORT,
    PRIVATE,
    SENSOR_POD,
    WEB_PORT,
    Object,
    Settings,
    labels,
    meta,
)
from stac_watch.cluster.manifests.tree import all_of, each, when
from stac_watch.model.hosts import METADATA_SERVICES
from stac_watch.runs.workflow import TEMPLATE

BUS_CLIENT, BUS_PEER, BUS_MONITOR, BUS_METRICS, METRICS = 4222, 6222, 8222, 7777, 7777
API_SERVER = (443, 6443)
API_POLICY = "api-server"
NODE_CACHE = "169.254.20.10/32"  # NodeLocal DNSCache
NEVER = ("169.254.0.0/16", "fe80::/10", *sorted(METADATA_SERVICES))  # where clouds hand out the node's credentials

_POLLER = {"app.kubernetes.io/name": POLLER}
_EVENT_SOURCE = {"controller": "eventsource-controller", "eventsource-name": EVENT_SOURCE}
_SENSOR = {"controller": "sensor-controller", "app.kubernetes.io/name": SENSOR_POD}
_RUNS = {"matchExpressions": [{"key": "workflows.argoproj.io/workflow", "operator": "Exists"}]}


def policies(settings: Settings) -> list[Object]:
    """Returns the policies of the namespace."""
    ours = {"controller": "eventbus-controller", "eventbus-name": settings.bus}
    bus = {"to": [_pods(ours)], "ports": _tcp(BUS_CLIENT)}
    clients = [_pods(_EVENT_SOURCE), _pods(_SENSOR)]
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.values.monitoring.namespace}}}
    data = [_data(settings), *when(settings.values.network_policy.pod_identity, _agent())]
    door = settings.values.web.from_namespace
    people = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": door}}}
    return [
        _policy("default-deny", settings, {}, ingress=[], egress=[]),
        _policy("dns", settings, {}, egress=[{"to": _resolvers(), "ports": [_port(53, "UDP"), _port(53, "TCP")]}]),
        _policy(
            "poller", settings, {"matchLabels": _POLLER},
            ingress=[{"from": [prometheus, *when(door, people)], "ports": _tcp(WEB_PORT)}],
            egress=[{"to": [_pods(_EVENT_SOURCE)], "ports": _tcp(PORT)}, *data],
        ),
        _policy(
            "eventsource", settings, {"matchLabels": _EVENT_SOURCE},
            ingress=[{"from": [_pods(_POLLER)], "ports": _tcp(PORT)}, {"from": [prometheus], "ports": _tcp(METRICS)}],
            egress=[bus],
        ),
        _policy(
            "sensor", settings, {"matchLabels": _SENSOR},
            ingress=[{"from": [prometheus], "ports": _tcp(METRICS)}],
            egress=[bus],
        ),
        _policy(
            "eventbus", settings, {"matchLabels": ours},
            ingress=[
                {"from": [*clients, _pods(ours)], "ports": _tcp(BUS_CLIENT)},
                {"from": [_pods(ours)], "ports": _tcp(BUS_PEER, BUS_MONITOR)},
                {"from": [prometheus], "ports": _tcp(BUS_METRICS)},
            ],
            egress=[{"to": [_pods(ours)], "ports": _tcp(BUS_CLIENT, BUS_PEER, BUS_MONITOR)}],
        ),
        _policy("runs", settings, _RUNS, ingress=[], egress=data),
        *_api(settings),
        *when(settings.values.ledger.existing_secret, _database(settings)),
    ]  # fmt: skip


def _api(settings: Settings) -> list[Object]:
    """Returns the policy that leads to the Kubernetes API, where its addresses are known, or need not be."""
    values = settings.values.network_policy
    spec = {"endpointSelector": _who(), "egress": [{"toEntities": ["kube-apiserver"]}]}
    entity = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": meta(API_POLICY, settings), "spec": spec}
    named = _to_api(meta(API_POLICY, settings), each(values.api_servers, lambda network: _cidr(network)), API_SERVER)
    return [*when(settings.cilium, entity), *when(values.api_servers, named)]


def api_policy(namespace: str, addresses: Iterable[str], ports: Iterable[int]) -> Object:
    """Returns the policy that lets those of ours that speak to the Kubernetes API reach it, at these networks and ports."""
    metadata = {"name": API_POLICY, "namespace": namespace, "labels": labels(API_POLICY)}
    return _to_api(metadata, [_cidr(network) for network in sorted(addresses)], ports)


def _to_api(metadata: Object, to: list[Object], ports: Iterable[int]) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {"podSelector": _who(), "policyTypes": ["Egress"], "egress": [{"to": to, "ports": _tcp(*sorted(ports))}]},
    }


def _who() -> Object:
    names = [POLLER, AUDIT, SENSOR_POD, TEMPLATE, CLEANUP]
    return {"matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": names}]}


def _cidr(network: str) -> Object:
    return {"ipBlock": {"cidr": network}}


def _database(settings: Settings) -> Object:
    """Returns the policy that lets poller and audit reach PostgreSQL."""
    who = {"matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": [POLLER, AUDIT]}]}
    return _policy("ledger", settings, who, egress=[{"to": _anywhere(), "ports": _tcp(settings.values.ledger.port)}])


def _agent() -> Object:
    """Returns the rule for EKS's Pod Identity agent, which is on each node, at a link-local address."""
    return {"to": [_cidr(address) for address in ("169.254.170.23/32", "fd00:ec2::23/128")], "ports": _tcp(80)}


def _policy(
    name: str, settings: Settings, pods: Object, *, ingress: list[Object] | None = None, egress: list[Object] | None = None
) -> Object:
    given = {direction: rule for direction, rule in (("ingress", ingress), ("egress", egress)) if rule is not None}
    # an empty list says the same as none, and the API server takes it for a change at each apply (1.35: `generation` goes up)
    rules = {direction: rule for direction, rule in given.items() if rule}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta(name, settings),
        "spec": {"podSelector": pods, "policyTypes": [direction.capitalize() for direction in given], **rules},
    }


def _data(settings: Settings) -> Object:
    """Returns the rule for catalogs, products and object stores: public addresses, and the private ones that were named."""
    ports = each(settings.ports, lambda port: _port(port, "TCP"))
    return {"to": [*_anywhere(PRIVATE), *all_of(settings.blocks)], "ports": ports}


def _resolvers() -> list[Object]:
    """Returns where a cluster's DNS can be: pods, their Service, a cache on the node. A server outside would hear what is asked."""
    inside = [{"ipBlock": {"cidr": network}} for network in (*PRIVATE, NODE_CACHE)]
    return [{"namespaceSelector": {}}, *inside]


def _anywhere(but: tuple[str, ...] = ()) -> list[Object]:
    """Returns every address but those that nobody may be sent to, and `but`."""
    return [block("0.0.0.0/0", but), block("::/0", but)]


def block(cidr: str, but: tuple[str, ...] = ()) -> Object:
    """Returns a network without what of it may not be reached."""
    network = ip_network(cidr)
    inner = [hole for hole in map(ip_network, (*NEVER, *but)) if _within(hole, network)]
    holes = [str(hole) for hole in inner if not any(_within(hole, other) for other in inner)]
    return {"ipBlock": {"cidr": cidr, **({"except": holes} if holes else {})}}


def _within(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one != other and one.subnet_of(other)
    return isinstance(other, IPv6Network) and one != other and one.subnet_of(other)


def _pods(carried: dict[str, str]) -> Object:
    return {"podSelector": {"matchLabels": carried}}


def _tcp(*ports: object) -> list[Object]:
    return [_port(port, "TCP") for port in ports]


def _port(number: object, protocol: str) -> Object:
    return {"port": number, "protocol": protocol}
