"""The make targets of an operator: each calls the verb that it names, with what was typed."""

import json
import os
import subprocess

import pytest
from fakes.workflows import ROOT

STAND_IN = """#!/usr/bin/env python3
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "namespace": os.environ.get("STAC_WATCH__ENGINE__NAMESPACE")}))
"""
CONFIG = "--config=deploy/base/stac-watch.yaml"
UI = "--ui=https://localhost:2746"
URL = "https://stac.example/a b?q='x'&y=\"z\"#f;touch pwned`touch pwned`"
TARGETS = {
    ("submit", f"STAC_URL={URL}"): ["submit", CONFIG, "--groups=", "--dask-perf-html=", UI, "--", URL],
    ("submit", "STAC_URL=--help", "GROUPS=/a /b", "OUTPUT_ZARR=s3://b/o.zarr", "DASK_PERF_HTML=/data/d.html", "WAIT=1"): [
        "submit", CONFIG, "--output-zarr=s3://b/o.zarr", "--groups=/a /b", "--dask-perf-html=/data/d.html", UI, "--wait", "--",
        "--help",
    ],
    ("fetch-tar",): ["fetch", CONFIG, "--out=runs", "--", "@latest"],
    ("fetch-tar", "WF=gz-a", "OUT=a b", "CONFIG=my own.yaml"): ["fetch", "--config=my own.yaml", "--out=a b", "--", "gz-a"],
    ("clean",): ["clean", CONFIG],
    ("clean", "OLDER_THAN=0s", "YES=1"): ["clean", CONFIG, "--older-than=0s", "--yes"],
    ("clean-pvc",): ["clean", CONFIG, "--volumes"],
    ("clean-pvc", "YES=1"): ["clean", CONFIG, "--volumes", "--yes"],
    ("doctor",): ["doctor", CONFIG],
}  # fmt: skip


@pytest.fixture
def make(tmp_path):
    """Runs a target with a program in place of `stac-watch` that says how it was called."""
    for name in ("stac-watch", "kubectl"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)

    def run(*arguments, **environ):
        argv = ["make", "--no-print-directory", "--old-file=install", f"BIN={tmp_path}", *arguments]
        env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | environ
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)

    return run


def test_each_target_calls_the_verb_that_it_names(make, stac_watch):
    for typed, argv in TARGETS.items():
        done = make(*typed)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"argv": ["cluster", *argv], "namespace": None}
        assert stac_watch("cluster", *argv[: argv.index("--") if "--" in argv else None], "--help").code == 0, "it is no such verb"
    assert not (ROOT / "pwned").exists()
    targets = {line.split(":")[0] for line in (ROOT / "operations.mk").read_text().splitlines() if ": " in line and " ## " in line}
    assert targets == {typed[0] for typed in TARGETS} | {"ui"}


def test_what_stands_in_the_environment_and_what_is_missing(make):
    said = json.loads(make("submit", "STAC_URL=https://a", "NAMESPACE=other", GROUPS="1000", ZARR_GROUPS="/quality").stdout)
    assert "--groups=/quality" in said["argv"], "GROUPS of an environment are bash's: the user's group ids"
    assert said["namespace"] == "other"
    missing = make("submit")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "STAC_URL is missing" in missing.stderr
    assert '["-n", "argo", "port-forward", "service/argo-server", "2999:2746"]' in make("ui", "UI_PORT=2999").stdout
