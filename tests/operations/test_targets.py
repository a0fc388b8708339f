"""The make targets of an operator, each run for real against a server that answers like Kubernetes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.kubernetes import ARGO
from fakes.workflows import ITEM, ROOT, template

BIN = os.path.relpath(Path(sys.executable).parent, ROOT)  # as the Makefile has it: the clone's path may have a space
NASTY = (
    "https://stac.example/a b?q='x'&y=\"z\"#f",
    "https://stac.example/$(touch pwned)`touch pwned`;touch pwned|touch pwned",
    "https://stac.example/$(shell touch pwned)$$HOME${HOME}%41\\n",
    "--help",
)


@pytest.fixture
def make(environ):
    """Runs a target as it is typed; what it needs is installed, so `install` is not remade."""
    assert shutil.which("make"), "make is not installed"

    def run(*arguments, check=True, **more):
        argv = ["make", "--no-print-directory", "--old-file=install", f"BIN={BIN}", *arguments]
        done = subprocess.run(
            argv, cwd=ROOT, env=environ | more, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=180
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(autouse=True)
def installed(api):
    """What `submit` needs on the cluster."""
    api.add(f"{ARGO}/workflowtemplates", template())


def parameters(workflow):
    return {p["name"]: p["value"] for p in workflow["spec"]["arguments"]["parameters"] if p.get("value")}


def test_submit_makes_one_run_and_says_where_it_is_and_how_to_follow_it(make, api):
    done = make("submit", "STAC_URL=https://stac.example/i", "GROUPS=/measurements /quality", "OUTPUT_ZARR=s3://b/o.zarr",
                "DASK_PERF_HTML=/data/dask.html")  # fmt: skip
    [workflow] = api.created
    name = workflow["metadata"]["name"]
    assert workflow["metadata"]["generateName"] == "gz-"
    assert parameters(workflow) == {
        "stac_url": "https://stac.example/i", "groups": "/measurements /quality", "output_zarr": "s3://b/o.zarr",
        "dask_perf_html": "/data/dask.html",
    }  # fmt: skip
    assert done.stdout == f"{name}\n"
    assert f"https://localhost:2746/workflows/geozarr/{name}" in done.stderr
    assert f"stac-watch logs --follow {name}" in done.stderr


@pytest.mark.parametrize("value", NASTY)
def test_a_value_arrives_as_it_was_typed_and_nothing_of_it_is_run(make, api, value):
    make("submit", f"STAC_URL={value}", f"GROUPS={value}", check=value != "--help")
    [workflow] = api.created
    assert parameters(workflow)["stac_url"] == value
    assert parameters(workflow)["groups"] == value
    assert not (ROOT / "pwned").exists()


def test_groups_of_the_environment_are_not_ours_and_zarr_groups_are(make, api):
    make("submit", "STAC_URL=https://stac.example/i", GROUPS="1000", ZARR_GROUPS="/quality")  # bash's own is the user's group ids
    assert parameters(api.created[0])["groups"] == "/quality"


def test_what_cannot_be_is_refused_before_anything_is_sent(make, api):
    assert "STAC_URL is missing" in make("submit", check=False).stderr
    assert "must be one line" in make("submit", "STAC_URL=https://a\nb", check=False).stderr
    assert api.created == []


def test_submit_and_wait_fails_when_the_run_does(make, api, server):
    class Ending(dict):
        """A cluster whose controller is quick: a Workflow is over as soon as it is made."""

        def __setitem__(self, path, document):
            if "/workflows/" in path and "status" not in document:
                ended = dict(document)
                super().__setitem__(path, ended)
                ended["metadata"]["labels"]["workflows.argoproj.io/completed"] = "true"
                ended["status"] = {"phase": "Failed", "message": "no such group", "startedAt": "2025-09-01T00:00:00Z"}
                return
            super().__setitem__(path, document)

    api.objects = Ending(api.objects)
    done = make("submit", "STAC_URL=https://stac.example/i", "WAIT=1", check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no such group" in done.stderr


def test_status_and_logs_are_of_the_newest_run_unless_one_is_named(make, api):
    for name in ("gz-old", "gz-new"):
        api.run(name, outcome={"code": 0, "reason": "done", "output_zarr": "/data/o.zarr"})
        api.pod(f"{name}-convert-1", labels={"workflows.argoproj.io/workflow": name}, phase="Succeeded",
                annotations={"workflows.argoproj.io/node-name": f"{name}.convert(0)"})  # fmt: skip
        api.logs[f"{name}-convert-1"] = f"converted by {name}\n"
    status = make("status").stdout
    assert "gz-new" in status
    assert ITEM in status
    assert "convert" in status
    assert "gz-old" in make("status", "WF=gz-old").stdout
    assert make("logs").stdout == "convert      converted by gz-new\n"
    assert make("logs", "WF=gz-old").stdout == "convert      converted by gz-old\n"
    missing = make("status", "WF=gz-none", check=False)
    assert missing.returncode == 2
    assert "there is no run gz-none in namespace geozarr" in missing.stderr


def test_the_namespace_can_be_another_one(make, api):
    assert "namespace other" in make("status", "NAMESPACE=other", check=False).stderr


def test_fetch_tar_puts_the_package_where_it_is_wanted(make, api, tmp_path):
    (api.volume / "o.zarr.tar").write_bytes(b"package")
    digest = "bc4c0a3f6a4a2b2f"  # wrong on purpose first: the file is refused
    outcome = {"code": 0, "output_zarr": "/data/o.zarr", "package": {"href": "/data/o.zarr.tar", "bytes": 7, "sha256": digest}}
    api.claim("gz-a", api.run("gz-a", outcome=outcome))
    assert "another checksum" in make("fetch-tar", f"OUT={tmp_path}/a b", check=False).stderr
    assert not (tmp_path / "a b" / "gz-a" / "o.zarr.tar").exists()
    outcome["package"]["sha256"] = "bc4a71180870f7945155fbb02f4b0a2e3faa2a62d6d31b7039013055ed19869a"
    api.claim("gz-b", api.run("gz-b", outcome=outcome))
    make("fetch-tar", f"OUT={tmp_path}/a b")
    assert (tmp_path / "a b" / "gz-b" / "o.zarr.tar").read_bytes() == b"package"


def test_clean_takes_workflows_and_clean_pvc_takes_volumes_when_told_to(make, api):
    api.claim("gz-done", api.run("gz-done"))
    api.claim("gz-busy", api.run("gz-busy", phase="Running"))
    make("clean")
    assert api.names("workflows") == ["gz-busy"]
    assert api.names("persistentvolumeclaims") == ["gz-busy", "gz-done"]
    listed = make("clean-pvc").stdout
    assert "gz-done" in listed
    assert "say --yes" in listed
    assert api.names("persistentvolumeclaims") == ["gz-busy", "gz-done"]
    make("clean-pvc", "YES=1")
    assert api.names("persistentvolumeclaims") == ["gz-busy"]


def test_doctor_fails_where_something_is_broken(make, api):
    done = make("doctor", check=False)
    assert done.returncode == 2
    assert "FAIL  namespace: geozarr does not exist → `make deploy` makes it, or set NAMESPACE" in done.stdout


def test_ui_forwards_the_port_and_says_where(environ, make, tmp_path):
    stand_in = tmp_path / "bin" / "kubectl"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\ncase "$*" in *deployment*) printf HTTP;; *) echo "kubectl $*";; esac\n')
    stand_in.chmod(0o755)
    done = make("ui", "UI_PORT=2999", PATH=f"{stand_in.parent}:{environ['PATH']}")
    assert done.stdout.splitlines() == [
        "Argo UI: http://localhost:2999/workflows   (Ctrl-C ends it)",
        "kubectl -n argo port-forward service/argo-server 2999:2746",
    ]


def test_every_target_is_run_by_a_test_here():
    targets = [line.split(":")[0] for line in (ROOT / "operations.mk").read_text().splitlines() if ": " in line and " ## " in line]
    text = Path(__file__).read_text()
    assert len(targets) == 8
    assert [t for t in targets if f'make("{t}"' not in text] == []


def test_a_run_is_one_json_document(stac_watch, api):
    api.run("gz-a", outcome={"code": 0, "reason": "done", "output_zarr": "/data/o.zarr"})
    api.run("gz-b", phase="Running")
    document = json.loads(stac_watch("runs", "gz-a", "--json").stdout)
    assert (document["run"], document["phase"], document["item"], document["seconds"]) == ("gz-a", "succeeded", ITEM, 60.0)
    assert [step["name"] for step in document["steps"]] == ["preflight", "convert"]
    assert [run["run"] for run in json.loads(stac_watch("runs", "--json").stdout)] == ["gz-b", "gz-a"]
