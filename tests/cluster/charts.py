"""The chart, and values of every kind: what the tests of the chart, its judges and the company's installation share."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
COMPANY = ROOT / "deploy" / "examples" / "company.values.yaml"
SOURCE = {"name": "a", "api": "https://a.example", "collection": "c", "allowed_hosts": ["b.example"]}
MINIMAL: dict[str, Any] = {"config": {"sources": [SOURCE], "recipe": {"output": "s3://b/{item_id}.zarr"}}}
INSIDE = {"name": "x", "api": "http://catalog.demo.svc:8000", "collection": "c"}
ODD: dict[str, Any] = {
    "config": {"sources": [INSIDE], "recipe": {"output": "/data/{item_id}.zarr"}},
    "backup": {"size": "1Gi"}, "fixedUser": False, "ipFamily": "ipv6", "s3": {"existingSecret": ""}, "eventBus": {"existing": "b"},
    "audit": {"enabled": False}, "storageClasses": {"default": "x"}, "admission": {"enabled": False},
    "networkPolicy": {"apiServers": ["10.0.0.1/32"], "networks": ["0.0.0.0/1", "fd00::/8", "100.100.0.0/16"]},
}  # fmt: skip


def examples() -> dict[str, dict[str, Any]]:
    """Values of every kind; with the configuration in them, as the chart wants it."""
    minimal = {**MINIMAL, "runs": {"volume": "scratch"}, "quota": {"enabled": True}}
    found = {"minimal": minimal, "odd": ODD, "company": yaml.safe_load(COMPANY.read_text())}
    for name in ("k3d", "production"):
        values = yaml.safe_load((ROOT / f"deploy/overlays/{name}/values.yaml").read_text())
        config = ROOT / ("deploy/base" if name == "k3d" else "deploy/overlays/production") / "stac-watch.yaml"
        found[name] = {**values, "config": yaml.safe_load(config.read_text())}
    return found


class Helm:
    """The real one."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary

    def __call__(self, *arguments: object, code: int = 0, **environ: str) -> str:
        """Runs it; returns what it said, and fails when it ends otherwise than with `code`."""
        argv = [str(self.binary), *map(str, arguments)]
        environ = {**os.environ, "NO_PROXY": "*", "no_proxy": "*", **environ}
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + (done.stderr if code else "")
