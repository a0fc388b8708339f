"""`cluster runs` and `cluster logs`: which run they are of, and what they show of it."""

import json

from fakes.workflows import ITEM


def test_a_run_is_one_json_document(cluster_verb, api):
    api.run("gz-a", outcome={"code": 0, "reason": "done", "output_zarr": "/data/o.zarr"})
    api.run("gz-b", phase="Running")
    document = json.loads(cluster_verb("runs", "gz-a", "--json").out)
    assert (document["run"], document["phase"], document["item"], document["seconds"]) == ("gz-a", "succeeded", ITEM, 60.0)
    assert [step["name"] for step in document["steps"]] == ["preflight", "convert"]
    assert [run["run"] for run in json.loads(cluster_verb("runs", "--json").out)] == ["gz-b", "gz-a"]


def test_latest_is_the_newest_run_and_another_one_can_be_named(cluster_verb, api):
    for name in ("gz-old", "gz-new"):
        api.run(name, outcome={"code": 0, "reason": "done", "output_zarr": "/data/o.zarr"})
        api.pod(f"{name}-convert-1", labels={"workflows.argoproj.io/workflow": name}, phase="Succeeded",
                annotations={"workflows.argoproj.io/node-name": f"{name}.convert(0)"})  # fmt: skip
        api.logs[f"{name}-convert-1"] = f"converted by {name}\n"
    newest = cluster_verb("runs", "@latest").out
    assert "gz-new" in newest
    assert ITEM in newest
    assert "convert" in newest
    assert "fetch it: stac-watch cluster fetch gz-new" in newest
    assert "gz-old" in cluster_verb("runs", "gz-old").out
    assert cluster_verb("logs").out == "convert      converted by gz-new\n"
    assert cluster_verb("logs", "gz-old").out == "convert      converted by gz-old\n"
    assert "there is no run gz-none in namespace geozarr" in cluster_verb("runs", "gz-none", code=65).err


def test_the_namespace_can_be_another_one(cluster_verb, api):
    assert "namespace other" in cluster_verb("runs", "@latest", "--namespace=other", code=65).err


def test_clean_takes_workflows_and_with_volumes_these_when_told_to(cluster_verb, api):
    api.claim("gz-done", api.run("gz-done"))
    api.claim("gz-busy", api.run("gz-busy", phase="Running"))
    listed = cluster_verb("clean").out
    assert "gz-done" in listed
    assert "say --yes" in listed
    assert api.names("workflows") == ["gz-busy", "gz-done"]
    cluster_verb("clean", "--yes")
    assert api.names("workflows") == ["gz-busy"]
    assert api.names("persistentvolumeclaims") == ["gz-busy", "gz-done"]
    assert "gz-done" in cluster_verb("clean", "--volumes").out
    assert api.names("persistentvolumeclaims") == ["gz-busy", "gz-done"]
    cluster_verb("clean", "--volumes", "--yes")
    assert api.names("persistentvolumeclaims") == ["gz-busy"]
