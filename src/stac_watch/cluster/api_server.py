"""Where the Kubernetes API is reached from inside a cluster, and whether our policies let ours reach it.

Source: Kubernetes, the Service `kubernetes` of the namespace `default`. Policies are judged before or after its address is
translated, so both are named: the Service's, and those it leads to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from stac_watch.cluster.diagnosis import Finding, Verdict
from stac_watch.model.errors import Refused
from stac_watch.runs.kubernetes_api import Cluster

CHECK = "way to the API"
SERVICE = "/api/v1/namespaces/default/services/kubernetes"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
POLICIES = "/apis/networking.k8s.io/v1"
REMEDY = "`stac-watch cluster api-server | kubectl apply -f -`"


@dataclass(frozen=True)
class ApiServer:
    """Addresses and ports of a cluster's API."""

    addresses: tuple[str, ...]
    ports: tuple[int, ...]

    def networks(self) -> list[str]:
        """Returns the addresses as networks of one address each."""
        return [str(ip_network(address)) for address in self.addresses]


def place_of(cluster: Cluster) -> ApiServer:
    """Returns where the API is.

    Raises:
        Refused: we may not look, or the cluster does not say.
    """
    service = (cluster.get(SERVICE) or {}).get("spec") or {}
    slices = cluster.items(SLICES, "kubernetes.io/service-name=kubernetes")
    addresses = [*(service.get("clusterIPs") or [service.get("clusterIP")])]
    addresses += [address for each in slices for endpoint in each.get("endpoints") or [] for address in endpoint["addresses"]]
    ports = [p["port"] for p in service.get("ports") or []] + [p["port"] for each in slices for p in each.get("ports") or []]
    known = {address for address in addresses if address and address != "None"}
    if not known or not ports:
        raise Refused(
            "the cluster does not say where its API is", hint="name it in the values: networkPolicy: {apiServers: [NETWORK]}"
        )
    return ApiServer(tuple(sorted(known)), tuple(sorted(set(ports))))


def examine(cluster: Cluster, pods: Mapping[str, str]) -> Finding:
    """Judges whether pods with these labels reach the API under the namespace's policies.

    Raises:
        Refused: we may not look.
    """
    policies = cluster.items(cluster.path(POLICIES, "networkpolicies"))
    mine = [policy["spec"] for policy in policies if _selects(policy["spec"].get("podSelector") or {}, pods)]
    bound = [spec for spec in mine if "Egress" in (spec.get("policyTypes") or [])]
    if not bound:
        return Finding(CHECK, Verdict.OK, "no policy restricts it")
    place = place_of(cluster)
    rules = [rule for spec in bound for rule in spec.get("egress") or []]
    closed = [address for address in place.addresses if not any(_reaches(rule, address, place.ports) for rule in rules)]
    if closed:
        return Finding(CHECK, Verdict.FAIL, f"no policy lets ours reach {', '.join(closed)}", REMEDY)
    return Finding(CHECK, Verdict.OK, ", ".join(place.addresses))


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for each in selector.get("matchExpressions") or []:
        value, operator, values = labels.get(each["key"]), each["operator"], each.get("values") or []
        holds = {
            "In": value in values, "NotIn": value not in values, "Exists": value is not None, "DoesNotExist": value is None,
        }  # fmt: skip
        if not holds[operator]:
            return False
    return True


def _reaches(rule: Mapping[str, Any], address: str, ports: Sequence[int]) -> bool:
    """Tells whether a rule leads to an address at one of the ports; what it says of pods and namespaces leads to none."""
    if rule.get("ports") and not {port.get("port") for port in rule["ports"]} & set(ports):
        return False
    if not rule.get("to"):
        return True
    one = ip_address(address)
    for peer in rule["to"]:
        block = peer.get("ipBlock") or {}
        holes = [ip_network(hole) for hole in block.get("except") or []]
        if block and one in ip_network(block["cidr"]) and not any(one in hole for hole in holes):
            return True
    return False
