"""Looks at outputs with other eyes than the runner's own check: plain xarray, source and output side by side.

Source and output are opened without any code of the runner; the answer is "equal to its source", or an assertion that says what is
not.
"""

import json
import urllib.request
from typing import Any

from harness.daemons import wait_until
from stack import CATALOG_PORT, Stack, parameters

COMPARE = """
import json, sys, fsspec, numpy as np, xarray as xr
source, output, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
with fsspec.open(output.rstrip("/") + "/stac-watch.json", **options) as file:
    marker = json.load(file)
assert marker["code"] == 0, marker
pixels = 0
for level, bands in {"r10m": ("b02", "b08"), "r20m": ("b05", "b12"), "r60m": ("b01", "b09")}.items():
    group = f"measurements/reflectance/{level}"
    a = xr.open_zarr(source, group=group, consolidated=True, chunks=None)  # a web server lists nothing
    b = xr.open_zarr(output, group=group, chunks=None, storage_options=options or None)
    for band in bands:
        x, y = a[band].values, b[band].values
        assert x.shape == y.shape, (band, x.shape, y.shape)
        np.testing.assert_allclose(y, x, rtol=1e-6, equal_nan=True, err_msg=f"{level}/{band}")
        pixels += int(np.isfinite(x).sum())
assert pixels > 10_000, pixels
print("equal to its source")
"""
"""A program for the runner's image: bands of each resolution, decoded, and the marker."""


def check_on_volume(stack: Stack, workflow: dict[str, Any]) -> str:
    """Reads the output on a run's volume, from a pod that mounts it read-only."""
    given = parameters(workflow)
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": workflow["metadata"]["name"], "readOnly": True}}
    return _compare(stack, given["stac_url"], given["output_zarr"], {}, volumes=[claim])


def check_on_s3(stack: Stack, item_id: str, url: str) -> str:
    """Reads the output on S3, from a pod with the runs' credentials."""
    [workflow] = stack.workflows_of(item_id)
    secret = {"name": "s3", "secret": {"secretName": "geozarr-s3"}}
    return _compare(stack, parameters(workflow)["stac_url"], url, {"anon": False}, volumes=[secret])


def _compare(stack: Stack, source: str, output: str, options: dict[str, Any], volumes: list[dict[str, Any]]) -> str:
    source = source if source.endswith(".zarr") else _product(stack, source)
    places = {"data": "/data", "s3": "/etc/geozarr/s3"}
    mounts = [{"name": v["name"], "mountPath": places[v["name"]], "readOnly": True} for v in volumes]
    container = {
        "name": "main",
        "image": f"geozarr-runner:{stack.release}",
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},  # production's quota takes no pod that is silent
        "command": ["python", "-c", COMPARE, source, output, json.dumps(options)],
        "env": [
            {"name": "AWS_CONFIG_FILE", "value": "/etc/geozarr/s3/config"},
            {"name": "AWS_SHARED_CREDENTIALS_FILE", "value": "/etc/geozarr/s3/credentials"},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],
    }
    user = {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": user,
        "containers": [container],
        "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
    }
    stack.do("delete", "pod", "compare", "--ignore-not-found", "--grace-period=0", "--force")
    labels = {"workflows.argoproj.io/workflow": "none"}  # what the policy for runs selects: it may fetch as they may
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "compare", "labels": labels}, "spec": spec}
    stack.do("apply", "-f", "-", stdin=json.dumps(pod))

    def ended() -> bool:
        return stack.kubectl.get("pod", "compare", "-n", stack.namespace)["status"]["phase"] in {"Succeeded", "Failed"}

    wait_until(ended, 120, "the comparison did not end")
    log = stack.logs("compare")
    assert stack.kubectl.get("pod", "compare", "-n", stack.namespace)["status"]["phase"] == "Succeeded", log
    return log.strip().splitlines()[-1]


def _product(stack: Stack, item_url: str) -> str:
    """The product that an item names."""
    with stack.forward(stack.namespace, "svc/catalog", CATALOG_PORT) as port:
        inside = f"http://127.0.0.1:{port}/{item_url.split('/', 3)[3]}"
        with urllib.request.urlopen(inside, timeout=30) as answer:
            item = json.load(answer)
    return str(next(a["href"] for a in item["assets"].values() if a["href"].endswith(".zarr")))
