"""Renders every manifest: which object goes into which file, and how YAML is written.

The same settings give the same bytes. `stac-watch cluster manifests` writes the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from stac_watch.cluster.manifests import audit, backup, convert, events, guard, monitoring, network, poller
from stac_watch.cluster.manifests.settings import AUDIT, BUS, CONFIG_FILE, POLLER, S3_MOUNT, S3_VOLUME, Object, Settings
from stac_watch.model.errors import ConfigError
from stac_watch.runs.workflow import API_VERSION, CONVERT, TEMPLATE

HEADER = (
    "# Rendered by `stac-watch cluster manifests` from the configuration and src/stac_watch/cluster/manifests/: render it again.\n"
)
_KUSTOMIZE = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
_TUNED = "kustomizeconfig.yaml"
_BASE, _K3D, _PRODUCTION = "deploy/base", "deploy/overlays/k3d", "deploy/overlays/production"
_MONITORING, _DASHBOARD = "deploy/components/monitoring", "dashboard.json"


def render(settings: Settings) -> dict[str, str]:
    """Returns every file of eventsources/, sensors/, workflows/ and deploy/, by its path; production's where it can be."""
    documents = {**_argo(settings), **_base(settings), **_k3d(settings), **_monitoring(settings)}
    texts = {path: dump(content) for path, content in documents.items()}
    texts[f"{_BASE}/{CONFIG_FILE}"] = settings.config
    texts[f"{_MONITORING}/{_DASHBOARD}"] = json.dumps(monitoring.dashboard(), indent=1) + "\n"
    if can_be_production(settings):
        texts |= render_production(settings)
    return dict(sorted(texts.items()))


def can_be_production(settings: Settings) -> bool:
    """Whether outputs outlive the Workflows that made them: a run's volume goes with its Workflow."""
    return "://" in settings.output


def render_production(settings: Settings) -> dict[str, str]:
    """Returns the files of the overlay `production`, with a configuration of its own.

    Raises:
        ConfigError: outputs would lie on the volumes of the runs.
    """
    if not can_be_production(settings):
        raise ConfigError(
            f"recipe.output is {settings.output!r}: outputs on the volumes of runs go with their Workflows (engine.keep)",
            hint="set `recipe: {output: s3://BUCKET/{collection}/{item_id}.zarr}` for the overlay production",
        )
    texts = {path: dump(content) for path, content in _production(settings).items()}
    return {**texts, f"{_PRODUCTION}/{CONFIG_FILE}": settings.config}


@dataclass(frozen=True)
class Patch:
    """A JSON patch (RFC 6902): one document that is a list of operations, applied in order."""

    operations: list[Object]


type File = Object | list[Object] | Patch


def dump(content: File) -> str:
    """Returns objects as YAML documents: keys sorted, long texts as blocks, a header that says where they come from."""
    documents = content if isinstance(content, list) else [content.operations if isinstance(content, Patch) else content]
    text = "---\n".join(yaml.dump(d, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=120) for d in documents)
    return HEADER + text


class _Dumper(yaml.SafeDumper):
    """Block style for texts of several lines; no anchors, which reviewers would have to resolve by eye."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002  # PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _argo(settings: Settings) -> dict[str, File]:
    """The three folders that Argo's own users look for; each can be applied alone."""
    return {
        "eventsources/eventbus.yaml": events.event_bus(settings),
        "eventsources/stac.yaml": events.event_source(settings),
        "eventsources/rbac.yaml": events.quiet_account(settings),
        "eventsources/kustomization.yaml": _kustomization(["eventbus.yaml", "rbac.yaml", "stac.yaml"], settings),
        "sensors/rbac.yaml": events.sensor_account(settings),
        "sensors/geozarr.yaml": events.sensor(settings),
        "sensors/kustomization.yaml": _kustomization(["geozarr.yaml", "rbac.yaml"], settings),
        "workflows/rbac.yaml": poller.run_account(settings),
        "workflows/geozarr-convert.yaml": convert.convert_template(settings),
        "workflows/kustomization.yaml": _kustomization(["geozarr-convert.yaml", "rbac.yaml"], settings),
        "deploy/argo/workflow-controller-configmap.yaml": poller.controller_config(settings),
        "deploy/argo/namespaces.yaml": poller.controller_rights(settings),
        "deploy/argo/kustomization.yaml": {**_KUSTOMIZE, "resources": ["namespaces.yaml", "workflow-controller-configmap.yaml"]},
    }


def _base(settings: Settings) -> dict[str, File]:
    own = ["admission.yaml", "audit.yaml", "namespace.yaml", "network.yaml", "poller.yaml", "rbac.yaml"]
    own += ["backup.yaml"] if settings.backup else []
    resources = ["../../eventsources", "../../sensors", "../../workflows", *own]
    copies: dict[str, File] = {f"{_BASE}/backup.yaml": backup.backup(settings)} if settings.backup else {}
    generated = {"configMapGenerator": [{"name": POLLER, "files": [CONFIG_FILE]}], "configurations": [_TUNED]}
    return {
        f"{_BASE}/admission.yaml": guard.admission(settings),
        f"{_BASE}/audit.yaml": [audit.audit_template(settings), audit.audit_schedule(settings)],
        **copies,
        f"{_BASE}/namespace.yaml": poller.namespace(settings),
        f"{_BASE}/network.yaml": network.policies(settings),
        f"{_BASE}/poller.yaml": poller.poller(settings),
        f"{_BASE}/rbac.yaml": poller.poller_accounts(settings),
        f"{_BASE}/{_TUNED}": _tuned(),
        f"{_BASE}/kustomization.yaml": _kustomization(resources, settings, **generated),
    }


def _k3d(settings: Settings) -> dict[str, File]:
    """One node, whatever it is: one replica of the bus, small volumes, requests that fit a laptop."""
    small = {"cpu": "250m", "memory": "512Mi"}
    template = convert.convert_template(settings)
    patch = Patch([_replace(template, CONVERT, "container/resources/requests", small)])
    bus = _bus_patch(settings, {"replicas": 1, "persistence": {"volumeSize": "1Gi"}, "streamConfig": events.stream(1)})
    patches = [{"path": "eventbus.yaml"}, _on_template(TEMPLATE, "convert.yaml")]
    return {
        f"{_K3D}/eventbus.yaml": bus,
        f"{_K3D}/convert.yaml": patch,
        **_overlay(_K3D, settings, ["../../base"], patches),
    }


def _production(settings: Settings) -> dict[str, File]:
    """Outputs in an object store, PostgreSQL for the ledger, a bus that outlives a node, a quota."""
    bus = {"affinity": poller.bus_topology()}
    drop_claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": POLLER, "namespace": settings.namespace},
        "$patch": "delete",
    }
    patches = [
        {"path": "eventbus.yaml"},
        {"path": "poller.yaml"},
        {"path": "claim.yaml"},
        _on_template(AUDIT, "audit.yaml"),
        *backup.without(settings),
    ]
    own = ["budget.yaml", "network.yaml", "quota.yaml"]
    config = {"name": POLLER, "files": [CONFIG_FILE], "behavior": "replace"}
    return {
        f"{_PRODUCTION}/audit.yaml": _audit_patch(settings),
        f"{_PRODUCTION}/budget.yaml": poller.bus_disruption_budget(settings),
        f"{_PRODUCTION}/claim.yaml": drop_claim,
        f"{_PRODUCTION}/eventbus.yaml": _bus_patch(settings, bus),
        f"{_PRODUCTION}/network.yaml": network.database_policy(settings),
        f"{_PRODUCTION}/poller.yaml": poller.poller_in_production(settings),
        f"{_PRODUCTION}/quota.yaml": poller.quota(settings),
        **_overlay(_PRODUCTION, settings, ["../../base", *own], patches, configMapGenerator=[config]),
    }


def _monitoring(settings: Settings) -> dict[str, File]:
    """For clusters with the Prometheus operator; a component, because without its CRDs nothing of an overlay could be applied."""
    shown = {"labels": {"grafana_dashboard": "1"}, "disableNameSuffixHash": True}  # what Grafana's sidecar looks for
    generated = [{"name": "stac-watch-dashboard", "files": [f"stac-watch.json={_DASHBOARD}"], "options": shown}]
    return {
        f"{_MONITORING}/monitors.yaml": monitoring.monitors(settings),
        f"{_MONITORING}/rules.yaml": monitoring.rules(settings),
        f"{_MONITORING}/kustomization.yaml": {
            "apiVersion": "kustomize.config.k8s.io/v1alpha1",
            "kind": "Component",
            "resources": ["monitors.yaml", "rules.yaml"],
            "configMapGenerator": generated,
        },
    }


def _audit_patch(settings: Settings) -> Patch:
    """Takes the audit off the poller's volume and node, and gives it the outputs' place."""
    spec = audit.audit_template(settings)["spec"]
    on_store = [] if settings.report else [{"op": "add", "path": "/spec/volumes/-", "value": S3_VOLUME}]
    return Patch(
        [
            {"op": "remove", "path": "/spec/affinity"},
            {"op": "remove", "path": f"/spec/volumes/{_index(spec['volumes'], 'state')}"},
            *on_store,
            *(
                operation
                for step in (audit.AUDIT_STEP, audit.REPORT_STEP)
                for operation in _off_its_volume(spec["templates"], step)
            ),
        ]
    )


def _off_its_volume(templates: list[Object], step: str) -> list[Object]:
    """Returns what takes a step off the poller's volume and adds what production has, as far as the step does not have it."""
    if step not in {template["name"] for template in templates}:
        return []
    path, container = f"/spec/templates/{_index(templates, step)}/container", templates[_index(templates, step)]["container"]
    mounts, had = container["volumeMounts"], {entry["name"] for entry in container["env"]}
    missing = [S3_MOUNT] if S3_MOUNT["name"] not in {mount["name"] for mount in mounts} else []
    return [
        {"op": "remove", "path": f"{path}/volumeMounts/{_index(mounts, 'state')}"},
        *({"op": "add", "path": f"{path}/volumeMounts/-", "value": mount} for mount in missing),
        *(
            {"op": "add", "path": f"{path}/env/-", "value": value}
            for value in poller.production_environment()
            if value["name"] not in had
        ),
    ]


def _overlay(folder: str, settings: Settings, resources: list[str], patches: list[Object], **own: object) -> dict[str, File]:
    images = [_image(settings.poller_image), _image(settings.runner_image)]
    components = {"components": ["../../components/monitoring"]} if settings.prometheus else {}
    more = {"patches": patches, "configurations": [_TUNED], "images": images, **components, **own}
    return {f"{folder}/{_TUNED}": _tuned(), f"{folder}/kustomization.yaml": _kustomization(resources, settings, **more)}


def _kustomization(resources: list[str], settings: Settings, **more: object) -> Object:
    return {**_KUSTOMIZE, "namespace": settings.namespace, "resources": resources, **more}


def _tuned() -> Object:
    """Returns what kustomize must be told about Argo's kinds: where they name images and ConfigMaps."""
    reference = {"kind": "WorkflowTemplate", "group": API_VERSION.split("/", 1)[0], "path": "spec/volumes/configMap/name"}
    return {
        "images": [{"kind": "WorkflowTemplate", "path": "spec/templates[]/container/image"}],
        "nameReference": [{"kind": "ConfigMap", "version": "v1", "fieldSpecs": [reference]}],
    }


def _bus_patch(settings: Settings, jetstream: Mapping[str, object]) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "EventBus",
        "metadata": {"name": BUS, "namespace": settings.namespace},
        "spec": {"jetstream": dict(jetstream)},
    }


def _on_template(name: str, path: str) -> Object:
    return {"path": path, "target": {"kind": "WorkflowTemplate", "name": name}}


def _replace(template: Object, step: str, path: str, value: object) -> Object:
    """Returns a JSON patch operation on one step of a template; its index is looked up, so it cannot go stale."""
    return {"op": "replace", "path": f"/spec/templates/{_index(template['spec']['templates'], step)}/{path}", "value": value}


def _index(entries: list[Object], name: str) -> int:
    return next(i for i, entry in enumerate(entries) if entry["name"] == name)


def _image(image: str) -> Object:
    name, _, tag = image.rpartition(":")
    return {"name": name, "newName": name, "newTag": tag}
