"""Every image that an installation and the two Argos under it run: what a mirror must have."""

from __future__ import annotations

from stac_watch.cluster.manifests.settings import Settings

ARGO_WORKFLOWS, ARGO_EVENTS, NATS = "v4.0.7", "v1.9.11", "2.10.29"  # what the tests run; yours may be others
ARGOS = (
    *(f"quay.io/argoproj/{name}:{ARGO_WORKFLOWS}" for name in ("argocli", "argoexec", "workflow-controller")),
    f"quay.io/argoproj/argo-events:{ARGO_EVENTS}",
)
BUS = (  # as the ConfigMap of Argo Events' controller names them
    f"docker.io/library/nats:{NATS}",
    "docker.io/natsio/nats-server-config-reloader:0.14.0",
    "docker.io/natsio/prometheus-nats-exporter:0.14.0",
)


def images(settings: Settings) -> list[str]:
    """Returns ours as the values name them, then Argo's, whose names are Argo's to be told."""
    argos = ARGOS if settings.values.event_bus.existing else (*ARGOS, *BUS)
    return sorted({settings.poller_image, settings.runner_image}) + sorted(argos)
