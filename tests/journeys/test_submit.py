"""`stac-watch cluster submit`: one Workflow by hand, against a Kubernetes API that answers in every way it can."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from command import Result, call
from fakes.kubernetes import ARGO, WORKFLOWS, Api, serving, write_kubeconfig
from fakes.workflows import ended, status, step, template
from waiting import until

COMMAND = Path(sys.executable).parent / "stac-watch"
URL = "https://stac.example/collections/sentinel-2-l2a/items/S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"


class World:
    """A cluster, a kubeconfig that leads to it, and a configuration."""

    def __init__(self, place: Path, api) -> None:
        self.api = api
        self.config = place / "stac-watch.yaml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "sources": [{"name": "s2", "api": "https://stac.example", "collection": "sentinel-2-l2a"}],
                    "engine": {"kind": "argo", "webhook": "http://127.0.0.1:9/items"},
                    "recipe": {"output": "s3://bucket/{item_id}.zarr"},
                }
            )
        )
        kubeconfig = write_kubeconfig(place / "kubeconfig", api.url)
        self.environ = dict(os.environ) | {"KUBECONFIG": str(kubeconfig)}

    def start(self, *arguments: str) -> subprocess.Popen:
        argv = [str(COMMAND), "cluster", "submit", *arguments, "--config", str(self.config)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environ)

    def submit(self, *arguments: str) -> Result:
        return call("cluster", "submit", *arguments, "--config", self.config, KUBECONFIG=self.environ["KUBECONFIG"])

    def until_there(self) -> str:
        return next(iter(until(lambda: self.api.workflows)))

    def until_looked_at(self, since: int, times: int = 1) -> None:
        """Waits until it was asked for so many times more than `since`."""
        until(lambda: len(self.api.asked) >= since + times)

    def play(self, *acts) -> threading.Thread:
        """Lets the first Workflow go through these statuses, each once the one before was looked at."""

        def go() -> None:
            name = self.until_there()
            for act in acts:
                looks = len(self.api.asked)
                self.api.put(name, status=act)
                self.until_looked_at(looks)

        thread = threading.Thread(target=go)
        thread.start()
        return thread


@pytest.fixture
def world(tmp_path):
    api = Api()
    api.add(f"{ARGO}/workflowtemplates", template())
    with serving(api):
        yield World(tmp_path, api)


def test_created_the_name_alone_on_stdout_and_the_parameters_that_were_given(world):
    asked = ("--output-zarr", "s3://b/o.zarr", "--groups", "/measurements/reflectance/r10m", "--dask-perf-html", "/data/d.html")
    done = world.submit(URL, *asked)
    assert done.code == 0, done.err
    [name] = world.api.workflows
    assert done.out == f"{name}\n"
    assert done.err == ""
    workflow = world.api.workflows[name]
    given = {p["name"]: p["value"] for p in workflow["spec"]["arguments"]["parameters"]}
    assert given == {
        "stac_url": URL, "output_zarr": "s3://b/o.zarr", "groups": "/measurements/reflectance/r10m",
        "dask_perf_html": "/data/d.html",
    }  # fmt: skip
    assert workflow["spec"]["workflowTemplateRef"] == {"name": "geozarr-convert"}
    assert workflow["metadata"]["labels"]["stac-watch/lane"] == "hand"


def test_asked_for_twice_under_one_name_it_is_one_run(world):
    first, second = (world.submit(URL, "--name", "gz-mine", "--json", "--ui", "https://argo.example/") for _ in range(2))
    assert json.loads(first.out) == {
        "run": "gz-mine", "namespace": "geozarr", "created": True, "link": "https://argo.example/workflows/geozarr/gz-mine",
        "follow": "stac-watch cluster logs --follow gz-mine",
        "phase": None, "code": None, "reason": None, "hint": None, "seconds": None,
    }  # fmt: skip
    assert json.loads(second.out) == json.loads(first.out) | {"created": False}
    assert list(world.api.workflows) == ["gz-mine"]
    again = world.submit(URL, "--name", "gz-mine")
    assert (again.code, again.out) == (0, "gz-mine\n")
    assert "it was there already" in again.err


def refused(done: Result, code: int, *words: str) -> None:
    assert done.code == code, done.out + done.err
    error, hint = done.err.strip().splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("  → ")
    assert done.out == ""
    for word in words:
        assert word in done.err


def test_without_the_template_nothing_is_created(world):
    world.api.objects.clear()
    refused(world.submit(URL), 78, "geozarr-convert", "'geozarr'", "kubectl apply -k")
    assert world.api.workflows == {}


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, 77, ("refuses us", "create")),
        (401, 77, ("refuses us",)),
        (422, 65, ("refuses the Workflow", "spec.arguments is wrong")),
        (500, 75, ("answers 500",)),
        (429, 75, ("answers 429",)),
    ],
)
def test_the_api_says_no(world, status, code, words):
    world.api.answers["POST"] = (status, "spec.arguments is wrong")
    done = world.submit(URL)
    assert (done.code, done.out) == (code, "")
    for word in words:
        assert word in done.err
    assert world.api.workflows == {}


def test_whoever_may_not_read_templates_may_still_make_runs(world):
    world.api.answers["GET"] = (403, "cannot get workflowtemplates")
    assert world.submit(URL).code == 0


def test_the_api_is_down(world):
    kubeconfig = Path(world.environ["KUBECONFIG"])
    kubeconfig.write_text(kubeconfig.read_text().replace(world.api.url, "http://127.0.0.1:9"))
    refused(world.submit(URL), 75, "does not answer")


def test_on_one_machine_it_names_the_runner(world):
    document = yaml.safe_load(world.config.read_text())
    world.config.write_text(yaml.safe_dump(document | {"engine": {"kind": "local"}}))
    refused(world.submit(URL), 78, "geozarr-runner run")


def test_wait_says_where_it_is_and_ends_with_the_runs_own_code(world):
    acts = (
        status("Running", step("preflight", "Pending", message="waits for a node")),
        status("Running", step("convert", "Running", progress="3/10")),
        ended(0),
    )
    player = world.play(*acts)
    done = world.submit(URL, "--wait", "--json")
    player.join()
    assert done.code == 0, done.err
    end = json.loads(done.out)
    assert (end["phase"], end["code"], end["reason"], end["seconds"]) == ("succeeded", 0, "done", 539.0)
    assert "running: convert 3/10" in done.err


def test_wait_tells_of_a_failure(world):
    player = world.play(ended(65, reason="no group /r99m", hint="did you mean /r10m?"))
    done = world.submit(URL, "--wait")
    player.join()
    assert done.code == 65
    assert re.fullmatch(r"gz-\w+\n", done.out)
    assert "failed (65): no group /r99m" in done.err
    assert "did you mean /r10m?" in done.err


def test_wait_outlives_an_api_that_goes_away_for_a_while(world):
    process = world.start(URL, "--wait")
    name = world.until_there()
    looks = len(world.api.asked)
    world.api.answers["GET"] = (503, "the control plane is upgraded")
    world.until_looked_at(looks, times=2)
    world.api.put(name, status=ended(0))
    del world.api.answers["GET"]
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "the control plane is upgraded; asked again" in err


def test_ctrl_c_ends_the_waiting_and_not_the_run(world):
    process = world.start(URL, "--wait")
    name = world.until_there()
    looks = len(world.api.asked)
    world.until_looked_at(looks)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, f"{name}\n")
    assert f"run {name} goes on: `stac-watch cluster logs --follow {name}`" in err
    assert "Traceback" not in err


def test_a_run_that_is_removed_meanwhile(world):
    process = world.start(URL, "--wait")
    name = world.until_there()
    world.api.remove(f"{WORKFLOWS}/{name}")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 65
    assert "was removed before its end was seen" in err
