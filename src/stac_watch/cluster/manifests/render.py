"""Renders every manifest: which object goes into which file, and how YAML is written.

The same settings give the same bytes. `stac-watch cluster manifests` writes the files of `installation`; those that the repository
has as examples are `examples`.
"""

from __future__ import annotations

from typing import Any

import yaml

from stac_watch.cluster.manifests import audit, convert, events, guard, jobs, monitoring, network, poller, web
from stac_watch.cluster.manifests.settings import Object, Settings
from stac_watch.cluster.manifests.tree import absent, when
from stac_watch.runs.workflow import API_VERSION

HEADER = (
    "# Rendered by `stac-watch cluster manifests` from the configuration and src/stac_watch/cluster/manifests/: render it again.\n"
)
_KUSTOMIZE = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
_TUNED = "kustomizeconfig.yaml"
_MONITORING, _DASHBOARD = "deploy/components/monitoring", "dashboard.json"
type File = Object | list[Object]


def parts(settings: Settings) -> dict[str, list[Any]]:
    """Returns every object of an installation, by the file that it is in; the chart's templates are these files, too."""
    values = settings.values
    return {
        "namespace.yaml": when(values.namespace.create, poller.namespace(settings)),
        "admission.yaml": when(values.admission.enabled, *guard.admission(settings)),
        "rbac.yaml": [
            *poller.poller_accounts(settings),
            *poller.run_account(settings),
            *events.sensor_account(settings),
            events.quiet_account(settings),
        ],
        "network.yaml": when(values.network_policy.enabled, *network.policies(settings)),
        "quota.yaml": when(values.quota.enabled, poller.quota(settings)),
        "events.yaml": [
            *when(absent(values.event_bus.existing), events.event_bus(settings), events.disruption_budget(settings)),
            events.event_source(settings),
            *events.sensors(settings),
        ],
        "convert.yaml": [convert.convert_template(settings)],
        "audit.yaml": when(values.audit.enabled, audit.audit_template(settings), audit.audit_schedule(settings)),
        "jobs.yaml": [*jobs.backup(settings), *jobs.cleanup(settings)],
        "poller.yaml": [poller.configuration(settings), *poller.poller(settings), *web.ways(settings)],
        "monitoring.yaml": when(
            values.monitoring.enabled, *monitoring.monitors(settings), monitoring.rules(settings), monitoring.shown(settings)
        ),
    }


def installation(settings: Settings) -> dict[str, str]:
    """Returns the files of an installation, for `kubectl apply -k`, a GitOps repository, or an overlay of one's own."""
    there = {name: objects for name, objects in parts(settings).items() if objects}
    texts = {name: dump(objects) for name, objects in there.items()}
    own = {"resources": sorted(there), "configurations": [_TUNED]}
    texts[_TUNED] = dump(_tuned())
    texts["kustomization.yaml"] = dump(_kustomization(settings, **own))
    return {**texts, **{f"argo/{name}": text for name, text in controller(settings).items()}}


def controller(settings: Settings) -> dict[str, str]:
    """Returns what the administrator of the Workflow controller may want: links and columns, and who reads namespaces."""
    resources = ["namespaces.yaml", "workflow-controller-configmap.yaml"]
    return {
        "workflow-controller-configmap.yaml": dump(poller.controller_config(settings)),
        "namespaces.yaml": dump(poller.controller_rights(settings)),
        "kustomization.yaml": dump({**_KUSTOMIZE, "resources": resources}),
    }


def examples(settings: Settings) -> dict[str, str]:
    """Returns the files of eventsources/, sensors/, workflows/, deploy/argo and deploy/components, by their paths."""
    documents: dict[str, File] = {
        "eventsources/eventbus.yaml": events.event_bus(settings),
        "eventsources/stac.yaml": events.event_source(settings),
        "eventsources/rbac.yaml": events.quiet_account(settings),
        "eventsources/kustomization.yaml": _kustomization(settings, resources=["eventbus.yaml", "rbac.yaml", "stac.yaml"]),
        "sensors/rbac.yaml": events.sensor_account(settings),
        "sensors/geozarr.yaml": events.sensor(settings),
        "sensors/kustomization.yaml": _kustomization(settings, resources=["geozarr.yaml", "rbac.yaml"]),
        "workflows/rbac.yaml": poller.run_account(settings),
        "workflows/geozarr-convert.yaml": convert.convert_template(settings),
        "workflows/kustomization.yaml": _kustomization(settings, resources=["geozarr-convert.yaml", "rbac.yaml"]),
        **_monitoring(settings),
    }
    texts = {path: dump(content) for path, content in documents.items()}
    texts |= {f"deploy/argo/{name}": text for name, text in controller(settings).items()}
    texts[f"{_MONITORING}/{_DASHBOARD}"] = monitoring.dashboard_text()
    return dict(sorted(texts.items()))


def dump(content: File) -> str:
    """Returns objects as YAML documents: keys sorted, long texts as blocks, a header that says where they come from."""
    documents = content if isinstance(content, list) else [content]
    text = "---\n".join(yaml.dump(d, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=120) for d in documents)
    return HEADER + text


class _Dumper(yaml.SafeDumper):
    """Block style for texts of several lines; no anchors, which reviewers would have to resolve by eye."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002  # PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


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


def _kustomization(settings: Settings, **more: object) -> Object:
    return {**_KUSTOMIZE, "namespace": settings.namespace, **more}


def _tuned() -> Object:
    """Returns what kustomize must be told about Argo's kinds: where they name images and ConfigMaps."""
    reference = {"kind": "WorkflowTemplate", "group": API_VERSION.split("/", 1)[0], "path": "spec/volumes/configMap/name"}
    return {
        "images": [{"kind": "WorkflowTemplate", "path": "spec/templates[]/container/image"}],
        "nameReference": [{"kind": "ConfigMap", "version": "v1", "fieldSpecs": [reference]}],
    }
