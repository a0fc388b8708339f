"""Where the API is from inside, and whether the policies let ours reach it."""

import pytest
import yaml
from fakes.kubernetes import CORE, NAMESPACE
from fakes.workflows import ROOT

from stac_watch.cluster.api_server import SERVICE, SLICES, examine, place_of
from stac_watch.cluster.diagnosis import Verdict
from stac_watch.cluster.manifests.facts import settings_of
from stac_watch.cluster.manifests.network import api_policy, policies
from stac_watch.config.load import load
from stac_watch.model.errors import Refused
from stac_watch.runs.workflow import TEMPLATE

CONFIG = ROOT / "deploy" / "base" / "stac-watch.yaml"
POLICIES = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
PODS = {"app.kubernetes.io/name": TEMPLATE, "workflows.argoproj.io/workflow": "gz"}


@pytest.fixture
def placed(api):
    """A cluster whose API is behind a Service, at a port of its own."""
    api.objects[SERVICE] = {"metadata": {"name": "kubernetes"}, "spec": {"clusterIPs": ["10.43.0.1"], "ports": [{"port": 443}]}}
    slice_ = {
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "ports": [{"port": 8443}], "endpoints": [{"addresses": ["192.168.49.2"]}],
    }  # fmt: skip
    api.add(SLICES, slice_)
    return api


def test_it_is_where_the_service_is_and_where_that_leads(placed, cluster):
    place = place_of(cluster)
    assert place.addresses == ("10.43.0.1", "192.168.49.2")
    assert place.ports == (443, 8443)
    policy = api_policy(NAMESPACE, place.networks(), place.ports)
    assert [peer["ipBlock"]["cidr"] for peer in policy["spec"]["egress"][0]["to"]] == ["10.43.0.1/32", "192.168.49.2/32"]


def test_a_cluster_that_does_not_say_where_is_said_so(cluster):
    with pytest.raises(Refused, match="does not say where its API is") as error:
        place_of(cluster)
    assert "apiServers" in error.value.hint


def test_the_rendered_policies_need_the_one_that_names_the_api(placed, cluster):
    settings = settings_of(load(CONFIG, {}), CONFIG.read_text())
    for policy in policies(settings):
        placed.add(POLICIES, policy)
    closed = examine(cluster, PODS)
    assert (closed.verdict, closed.found) == (Verdict.FAIL, "no policy lets ours reach 10.43.0.1, 192.168.49.2")
    assert "stac-watch cluster api-server" in closed.remedy
    place = place_of(cluster)
    placed.add(POLICIES, yaml.safe_load(yaml.safe_dump(api_policy(NAMESPACE, place.networks(), place.ports))))
    assert examine(cluster, PODS).verdict is Verdict.OK


def test_without_policies_nothing_is_in_the_way(placed, cluster):
    assert examine(cluster, PODS).verdict is Verdict.OK
    assert not [asked for asked in placed.asked if asked.path.startswith(CORE)]


def test_the_verb_prints_what_kubectl_applies(placed, cluster_verb):
    policy = yaml.safe_load(cluster_verb("api-server").out)
    assert (policy["kind"], policy["metadata"]["name"], policy["metadata"]["namespace"]) == (
        "NetworkPolicy",
        "api-server",
        NAMESPACE,
    )
    assert [port["port"] for port in policy["spec"]["egress"][0]["ports"]] == [443, 8443]
