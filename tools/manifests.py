"""Renders what the repository has of manifests: three folders for Argo's users, two examples of an installation, and the chart.

`make manifests` calls it; a test compares. An installation of one's own is rendered by `stac-watch cluster manifests`.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from stac_watch.cluster.manifests.facts import settings_of, values_of
from stac_watch.cluster.manifests.render import examples, installation
from stac_watch.cluster.manifests.settings import Settings
from stac_watch.config.load import load, read_yaml

ROOT = Path(__file__).parents[1]
CONFIG = "deploy/base/stac-watch.yaml"
OVERLAYS = {"k3d": CONFIG, "production": "deploy/overlays/production/stac-watch.yaml"}


def settings(config: str, values: str = "") -> Settings:
    """Returns what two files of the repository say."""
    raw, text = read_yaml(ROOT / values) if values else ({}, "")
    return settings_of(load(ROOT / config, {}), (ROOT / config).read_text(encoding="utf-8"), values_of(raw, text, values))


def rendered() -> dict[str, str]:
    """Returns every file that is committed and rendered, by its path."""
    files = examples(settings(CONFIG))
    for name, config in OVERLAYS.items():
        folder = f"deploy/overlays/{name}"
        made = installation(settings(config, f"{folder}/values.yaml"))
        files |= {f"{folder}/{path}": text for path, text in made.items() if not path.startswith("argo/")}
    made = runpy.run_path(str(ROOT / "tools" / "chart" / "make.py"))["files"]()
    return files | {f"deploy/chart/{path}": text for path, text in made.items()}


def main() -> int:
    """Writes them."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, text in rendered().items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
