"""What is removed, and above all what is not."""

from datetime import UTC, datetime, timedelta

import pytest
from fakes.kubernetes import CORE
from fakes.workflows import LABELS

from stac_watch.cluster.clean import carry_out, plan_runs, plan_volumes
from stac_watch.cluster.manifests.settings import labels
from stac_watch.cluster.runs import SELECTOR
from stac_watch.runs.workflow import TEMPLATE

NOW = datetime(2025, 9, 1, 2, tzinfo=UTC)  # an hour after what `api.run` says
HOUR = timedelta(hours=1)


def done(cluster, plan):
    return {item.name: removed for item, removed in carry_out(cluster, plan)}


def test_the_selector_is_the_labels_that_the_manifests_give():
    assert dict(term.split("=") for term in SELECTOR.split(",")) == labels(TEMPLATE) == LABELS


def test_workflows_that_are_over_go_with_their_pods_and_leave_their_volume(api, cluster):
    workflow = api.run("gz-done")
    api.claim("gz-done", workflow)
    owner = {"uid": workflow["metadata"]["uid"]}
    api.pod("gz-done-convert", labels=LABELS)["metadata"]["ownerReferences"] = [owner]
    api.run("gz-s3", phase="Failed")
    api.run("gz-running", phase="Running")
    api.run("gz-new", finished="2025-09-01T01:30:00Z")
    api.run("gz-retried")["metadata"]["labels"]["workflows.argoproj.io/completed"] = "false"
    plan = plan_runs(cluster, NOW, HOUR)
    assert {i.name for i in plan.remove} == {"gz-done", "gz-s3"}
    assert {i.name: i.why.split(";")[0] for i in plan.keep} == {
        "gz-running": "it is not over", "gz-retried": "it is not over", "gz-new": "it ended less than 1 h ago",
    }  # fmt: skip
    assert done(cluster, plan) == {"gz-done": True, "gz-s3": True}
    assert api.names("workflows") == ["gz-new", "gz-retried", "gz-running"]
    assert api.names("pods") == []
    assert api.names("persistentvolumeclaims") == ["gz-done"]  # with what may be the only copy of an output
    assert "ownerReferences" not in api.objects[f"{CORE}/persistentvolumeclaims/gz-done"]["metadata"]


@pytest.mark.parametrize(
    ("phase", "output"), [("Succeeded", "s3://b/o.zarr"), ("Failed", "s3://b/o.zarr"), ("Failed", "/data/o.zarr")]
)
def test_a_volume_that_holds_no_output_keeps_its_owner_and_goes_with_it(api, cluster, phase, output):
    """Released, it would have stayed for ever: 11 GiB of each run that wrote to an object store."""
    workflow = api.run("gz-a", phase=phase, output=output)
    claim = api.claim("gz-a", workflow)
    assert done(cluster, plan_runs(cluster, NOW, HOUR)) == {"gz-a": True}
    uid = workflow["metadata"]["uid"]
    assert [owner["uid"] for owner in claim["metadata"]["ownerReferences"]] == [uid], "Kubernetes takes it with its owner"


def test_other_owners_of_a_volume_stay(api, cluster):
    claim = api.claim("gz-done", api.run("gz-done"))
    claim["metadata"]["ownerReferences"].append({"kind": "Other", "name": "x", "uid": "another"})
    assert done(cluster, plan_runs(cluster, NOW, HOUR)) == {"gz-done": True}
    assert claim["metadata"]["ownerReferences"] == [{"kind": "Other", "name": "x", "uid": "another"}]


def test_what_is_not_ours_is_not_seen(api, cluster):
    for odd in ({}, {"app.kubernetes.io/part-of": "stac-watch"}, {**LABELS, "app.kubernetes.io/name": "stac-watch"}):
        name = f"other-{len(odd)}-{odd.get('app.kubernetes.io/name', '')}".strip("-")
        api.run(name)["metadata"]["labels"] = {**odd, "workflows.argoproj.io/completed": "true"}
        api.claim(name, labels=odd)
    assert plan_runs(cluster, NOW, HOUR).remove == ()
    assert plan_volumes(cluster).remove == ()
    assert plan_volumes(cluster).keep == ()


def test_volumes_of_runs_that_are_over_or_gone_go(api, cluster):
    api.claim("gz-done", api.run("gz-done"))
    api.claim("gz-s3", api.run("gz-s3", output="s3://b/o.zarr", phase="Failed"))
    api.claim("gz-orphan")
    api.claim("gz-running", api.run("gz-running", phase="Running"))
    api.claim("gz-read", api.run("gz-read"))
    api.pod("fetch-1", claim="gz-read")
    api.claim("gz-was-read", api.run("gz-was-read"))
    api.pod("fetch-2", claim="gz-was-read", phase="Succeeded")
    api.claim("gz-just-read", api.run("gz-just-read"))
    api.pod("fetch-3", claim="gz-just-read")["metadata"]["deletionTimestamp"] = "2025-09-01T01:59:59Z"
    api.claim("gz-leaving")["metadata"]["deletionTimestamp"] = "2025-09-01T01:59:00Z"
    api.claim("stac-watch", labels=labels("stac-watch"))  # the ledger
    plan = plan_volumes(cluster)
    assert {i.name: i.holds for i in plan.remove} == {
        "gz-done": "1Gi, the output /data/o.zarr", "gz-s3": "1Gi, no output: that is s3://b/o.zarr",
        "gz-orphan": "1Gi, perhaps an output", "gz-was-read": "1Gi, the output /data/o.zarr",
        "gz-just-read": "1Gi, the output /data/o.zarr",
    }  # fmt: skip
    assert {i.name: i.why for i in plan.keep} == {"gz-running": "its run is not over", "gz-read": "pod fetch-1 uses it"}
    assert set(done(cluster, plan)) == {"gz-done", "gz-s3", "gz-orphan", "gz-was-read", "gz-just-read"}
    assert api.names("persistentvolumeclaims") == ["gz-leaving", "gz-read", "gz-running", "stac-watch"]
    assert len(api.names("workflows")) == 6  # volumes alone were asked for


def retried(api, path):
    api.objects[path]["status"]["phase"] = "Running"


def made_anew(api, path):
    api.add(path.rpartition("/")[0], {**api.objects[path], "metadata": {**api.objects[path]["metadata"], "uid": "another"}})


@pytest.mark.parametrize("change", [retried, made_anew])
@pytest.mark.parametrize("kind", ["workflows", "persistentvolumeclaims"])
def test_what_changes_between_the_list_and_the_deletion_stays(api, cluster, change, kind):
    api.claim("gz-a", api.run("gz-a"))
    plan = plan_runs(cluster, NOW, HOUR) if kind == "workflows" else plan_volumes(cluster)
    [path] = [p for p in api.objects if p.endswith("workflows/gz-a" if change is retried else f"{kind}/gz-a")]
    change(api, path)
    assert done(cluster, plan) == {"gz-a": False}
    assert api.names(kind) == ["gz-a"]


def test_helpers_that_were_left_behind_go_with_the_runs(api, cluster):
    for name, phase in (("fetch-1", "Failed"), ("fetch-2", "Running")):
        api.pod(name, labels=labels("stac-watch-fetch"), phase=phase)
    assert done(cluster, plan_runs(cluster, NOW, HOUR)) == {"fetch-1": True}
    assert api.names("pods") == ["fetch-2"]
