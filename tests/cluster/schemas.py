"""JSON schemas, one a kind, for kubeconform: from Kubernetes' own OpenAPI document and from the CRDs of others.

What a document may have is closed: a field that the API server would drop is an error. A CRD that checks nothing (Argo Events') is
no schema; its project publishes one beside it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from harness.places import Binaries

CRDS = {  # component -> folder and files that were kept of it
    "argo-workflows": ("manifests/base/crds/full", "argoproj.io_cronworkflows", "argoproj.io_workflowtemplates"),
    "cilium": ("pkg/k8s/apis/cilium.io/client/crds/v2", "ciliumnetworkpolicies"),
    "gateway-api": ("config/crd/standard", "gateway.networking.k8s.io_httproutes"),
    "prometheus-operator": (
        "example/prometheus-operator-crd",
        *(f"monitoring.coreos.com_{kinds}" for kinds in ("podmonitors", "prometheusrules", "servicemonitors")),
    ),
}
EVENTS = "io.argoproj.events.v1alpha1."
TEXT_OR_NUMBER = ("IntOrString", "Int64OrString", "resource.Quantity")  # published as strings
PLACE = "#/definitions/"
WHERE = "{{.ResourceKind}}{{.KindSuffix}}.json"  # of kubeconform's template


def crds(binaries: Binaries, *components: str) -> Iterator[Path]:
    """Yields the files with the CRDs of these components that ours are of."""
    for component in components:
        folder, *names = CRDS[component]
        yield from (binaries.kept(component, folder) / f"{name}.yaml" for name in names)


def write(binaries: Binaries, folder: Path, kinds: set[tuple[str, str]]) -> None:
    """Writes the schemas of these (apiVersion, kind); what nobody defines is left out, and kubeconform says so."""
    swagger = json.loads((binaries.kept("kubernetes-schemas", "api/openapi-spec") / "swagger.json").read_text())["definitions"]
    for name, definition in swagger.items():
        for known in definition.get("x-kubernetes-group-version-kind", []):
            version = "/".join(filter(None, (known["group"], known["version"])))
            if (version, known["kind"]) in kinds:
                _write(folder, version, known["kind"], _whole(name, swagger))
    events = json.loads((binaries.kept("argo-events-schemas", "api/jsonschema") / "schema.json").read_text())["definitions"]
    webhook = events[f"{EVENTS}WebhookEventSource"]
    webhook["required"] = [field for field in webhook.get("required", []) if field != "url"]  # said to be required, and is not
    for kind in ("EventBus", "EventSource", "Sensor"):
        _write(folder, "argoproj.io/v1alpha1", kind, _whole(f"{EVENTS}{kind}", {**swagger, **events}))
    for path in crds(binaries, *CRDS):
        crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
        for version in crd["spec"]["versions"]:
            if (f"{group}/{version['name']}", kind) in kinds:
                schema = closed(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                _write(folder, f"{group}/{version['name']}", kind, schema)


def closed(node: Any) -> Any:
    """Returns a schema that takes no unknown fields, and text or number where either is taken."""
    if isinstance(node, list):
        return [closed(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string") or str(node.get("$ref", "")).endswith(TEXT_OR_NUMBER):
        return {"type": ["integer", "number", "string"]}
    made = {key: closed(value) for key, value in node.items() if not key.startswith("x-")}
    if isinstance(made.get("properties"), dict) and "additionalProperties" not in made and node.get("type") == "object":
        made["additionalProperties"] = bool(node.get("x-kubernetes-preserve-unknown-fields"))
    return made


def _whole(name: str, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a definition with all that it refers to; some refer to themselves."""
    found: dict[str, Any] = {}
    left = [name]
    while left:
        each = left.pop()
        if each not in found:
            found[each] = closed(definitions[each])
            left += [reference.removeprefix(PLACE) for reference in _references(found[each])]
    return {"allOf": [{"$ref": f"{PLACE}{name}"}], "definitions": found}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for entry in node:
            yield from _references(entry)
    elif isinstance(node, dict):
        yield from [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        for value in node.values():
            yield from _references(value)


def _write(folder: Path, version: str, kind: str, schema: Mapping[str, Any]) -> None:
    group, _, number = version.rpartition("/")
    suffix = f"-{group.partition('.')[0]}-{number}" if group else f"-{number}"
    (folder / f"{kind.lower()}{suffix}.json").write_text(json.dumps(schema))
