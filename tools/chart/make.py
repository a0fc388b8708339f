"""Makes the Helm chart in deploy/chart from the builders of the manifests: the same objects, with Helm's expressions in them.

Each builder is given settings whose fields are holes. What a hole stands for is said in `_facts.tpl`, or is a value itself.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from field_docs import said_of
from text import template

from stac_watch.cluster.manifests.facts import AROUND, BESIDE, RUN_VOLUME
from stac_watch.cluster.manifests.network import NEVER
from stac_watch.cluster.manifests.pod_values import ValuesPart
from stac_watch.cluster.manifests.poller import check
from stac_watch.cluster.manifests.render import parts
from stac_watch.cluster.manifests.settings import BUS, CONFIG_FILE, ENDPOINT, PORT, PRIVATE, STATE_FOLDER, Settings
from stac_watch.cluster.manifests.tree import Hole
from stac_watch.cluster.manifests.values import SiteValues
from stac_watch.config.model import ArgoSettings, Limits
from stac_watch.model.hosts import INSIDE

HERE = Path(__file__).parent
WRITTEN = "# Made by `make manifests` from src/stac_watch/cluster/manifests: change it there.\n"


class Symbols:
    """Values that are not known yet: an attribute is an expression of Helm's, or a part with attributes of its own."""

    def __init__(self, part: type[ValuesPart], path: str) -> None:
        self._part, self._path = part, path

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # a part or a hole
        field = self._part.model_fields[name]
        path = f"{self._path}.{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, ValuesPart):
            return Symbols(field.annotation, path)
        return Hole(f"int64 {path}" if field.annotation is int else path)


def symbolic() -> Settings:
    """Returns settings of which nothing is known."""
    fact = {
        "files": "files", "digest": "digest", "sources": "sources", "allowed_hosts": "hosts", "parallelism": "parallelism",
        "runner_image": "runnerImage", "poller_image": "pollerImage", "ports": "ports", "blocks": "blocks", "hard": "hard",
        "bus": "bus", "instance_id": "instanceId", "runs_class": "runsClass", "ledger_class": "ledgerClass",
        "bus_class": "busClass", "backup_class": "backupClass", "no_proxy": "noProxy", "host": "host",
    }  # fmt: skip
    known: dict[str, Any] = {name: Hole(f"$f.{key}") for name, key in fact.items()}
    return Settings(
        values=cast(SiteValues, Symbols(SiteValues, "$v")),
        namespace=Hole("$.Release.Namespace"),
        output="",
        keep=cast(int, Hole("int64 $f.keep")),
        apart=cast(bool, Hole('eq $v.eventBus.spread "required"')),
        copied=cast(bool, Hole("and $v.backup.size (not $v.ledger.existingSecret)")),
        copies=Hole('printf "--keep=%d" (int64 $v.backup.keep)'),
        cilium=cast(bool, Hole('eq $v.networkPolicy.flavour "cilium"')),
        **known,
    )


def files() -> dict[str, str]:
    """Returns the files of the chart."""
    settings = symbolic()
    made = {f"templates/{name}": template(objects) for name, objects in parts(settings).items() if name != "namespace.yaml"}
    release = version("stac-watch")
    about = {
        "apiVersion": "v2", "name": "stac-watch", "type": "application", "version": release, "appVersion": release,
        "description": "Event-driven Sentinel-2 Zarr to GeoZarr: watcher, Argo Events chain, WorkflowTemplate",
        "kubeVersion": ">=1.30.0-0", "home": "https://github.com/EOPF-Explorer",
        "keywords": ["argo", "geozarr", "sentinel-2", "stac", "zarr"], "maintainers": [{"name": "The stac-watch contributors"}],
    }  # fmt: skip
    return {
        "Chart.yaml": WRITTEN + yaml.safe_dump(about, sort_keys=False, width=120),
        "values.yaml": WRITTEN + "".join(f"{line}\n" for line in _values(SiteValues(), "")),
        "values.schema.json": json.dumps(_schema(), indent=1, sort_keys=True) + "\n",
        "templates/_facts.tpl": _facts(),
        "templates/NOTES.txt": (HERE / "NOTES.txt").read_text(),
        "templates/tests/check.yaml": template([check(settings)]),
        ".helmignore": "*.orig\n",
        **{name: WRITTEN + text for name, text in made.items()},
    }


def _facts() -> str:
    def quoted(texts: Any) -> str:  # noqa: ANN401  # a sequence of texts
        return " ".join(json.dumps(text) for text in texts)

    never = [each if "/" in each else f"{each}/{128 if ':' in each else 32}" for each in NEVER]
    known = {
        "PORT": PORT, "ENDPOINT": ENDPOINT, "STATE": STATE_FOLDER, "INSIDE": "|".join(f"[.]{end[1:]}$" for end in INSIDE),
        "PRIVATE": quoted(PRIVATE), "NEVER": quoted(never), "SLOTS": Limits().max_in_flight, "BESIDE": BESIDE, "VOLUME": RUN_VOLUME,
        "CONFIG": CONFIG_FILE, "AROUND": quoted(AROUND), "BUS": BUS,
        "KEEP": f"{round(ArgoSettings.model_fields['keep'].default.total_seconds())}s",
    }  # fmt: skip
    text = (HERE / "facts.tpl").read_text()
    for name, value in known.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def _schema() -> dict[str, Any]:
    schema = SiteValues.model_json_schema(by_alias=True)
    schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    schema["properties"]["global"] = {"type": "object", "description": "Helm's own, for charts that this one is a part of."}
    text = json.dumps(schema).replace("#/$defs/", "#/definitions/")
    made: dict[str, Any] = json.loads(text)
    made["definitions"] = made.pop("$defs")
    return made


def _values(part: BaseModel, indent: str) -> list[str]:
    """Returns every key with its default, and what its docstring says."""
    said, lines = said_of(type(part)), []
    for name, field in type(part).model_fields.items():
        value, key = getattr(part, name), field.alias or name
        lines.append(f"{indent}# {' '.join(said[name].split())}")
        if isinstance(value, BaseModel):
            lines += [f"{indent}{key}:", *_values(value, f"{indent}  ")]
        else:
            plain = list(value) if isinstance(value, tuple) else value
            lines.append(f"{indent}{key}: {json.dumps(plain, ensure_ascii=False)}")
    return lines
