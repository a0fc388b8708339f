"""What an installation is told beside its configuration: the values file of `cluster manifests --values`, and of the chart.

One model for both: the chart's values.yaml and values.schema.json are written from it. Whatever is Kubernetes' own (tolerations,
affinity, resources) goes into the pods as it is given. Keys are written as Kubernetes and Helm write theirs. Pure.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stac_watch.cluster.manifests.pod_values import (
    NOTHING,
    AuditValues,
    BackupValues,
    BusValues,
    CleanupValues,
    EventsValues,
    Fragment,
    Name,
    Network,
    OptionalName,
    PollerValues,
    RunsValues,
    ValuesPart,
    VolumeSize,
)


def _files(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not re.fullmatch(r"[-._A-Za-z0-9]{1,253}", name) or name.startswith(".."):
            raise ValueError(f"{name!r} cannot be a file of a ConfigMap: write letters, digits, `-`, `_` and `.`, and no folder")
    return value


class ImageValues(ValuesPart):
    """One image; a digest wins over a tag, and without either it has the release's version."""

    repository: str = Field(min_length=1)
    """Its name, without registry, tag and digest."""
    tag: str = ""
    """Empty = this release."""
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """`sha256:…`; wins over the tag."""


class ImagesValues(ValuesPart):
    """Where our images come from. Those of Argo are Argo's to choose."""

    registry: str = Field(default="", pattern=r"^([A-Za-z0-9.:/_-]*[A-Za-z0-9])?$")
    """Before both names, as `ghcr.io/you`; empty = images that are on the nodes."""
    runner: ImageValues = ImageValues(repository="geozarr-runner")
    """What converts."""
    poller: ImageValues = ImageValues(repository="stac-watch")
    """What watches; audit and backup are the same."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """Of both."""
    pull_secrets: tuple[Name, ...] = ()
    """Secrets for a private registry, by name; each pod of ours has them, EventSource, Sensor and bus included."""


class NamespaceValues(ValuesPart):
    """The namespace that everything is in; its name is `engine.namespace`, or Helm's `--namespace`."""

    create: bool = True
    """Whether it is ours to make; false for tenants that are given one. Helm makes none, use `--create-namespace`."""
    labels: dict[str, str] = NOTHING
    """More labels of it, where it is ours."""


class AccountValues(ValuesPart):
    """One ServiceAccount."""

    annotations: dict[str, str] = NOTHING
    """As a cloud's identity wants them: `eks.amazonaws.com/role-arn`, `iam.gke.io/gcp-service-account`."""


class AccountsValues(ValuesPart):
    """The ServiceAccounts."""

    poller: AccountValues = AccountValues()
    """Of watcher; it looks at outputs."""
    run: AccountValues = AccountValues()
    """Of runs; they write outputs."""
    audit: AccountValues = AccountValues()
    """Of the nightly audit; it looks at outputs."""
    sensor: AccountValues = AccountValues()
    """Of the Sensor."""
    events: AccountValues = AccountValues()
    """Of bus, EventSource and backup, which speak to no API."""


class StorageValues(ValuesPart):
    """Storage classes; each empty one = `default`, and that one empty = the cluster's."""

    default: str = ""
    """Of every volume that says nothing else."""
    runs: str = ""
    """Of the volume of each run."""
    ledger: str = ""
    """Of SQLite's volume."""
    bus: str = ""
    """Of the event bus."""
    backup: str = ""
    """Of the ledger's copies."""


class LedgerValues(ValuesPart):
    """Where the ledger is: SQLite on a volume, or PostgreSQL."""

    existing_secret: OptionalName = ""
    """Secret with the URL of a PostgreSQL database; empty = SQLite."""
    key: str = "url"
    """Key in that Secret; `uri`, as CloudNativePG makes it, is right, too."""
    ca_secret: OptionalName = ""
    """Secret with `ca.crt`, which PGSSLROOTCERT then names: the server's certificate is checked with it."""
    size: VolumeSize = Field(default="5Gi", min_length=1)
    """Of SQLite's volume; a million items take about 5 GB in a year."""
    port: int = Field(default=5432, ge=1, le=65535)
    """That PostgreSQL listens at; its NetworkPolicy names it."""


class S3Values(ValuesPart):
    """How runs, watcher and audit get at an object store. By identity: an empty `existingSecret` and annotated accounts."""

    existing_secret: OptionalName = "geozarr-s3"  # noqa: S105  # a name
    """Secret with `config` and `credentials`, the two files of the AWS command line; empty = none is mounted."""
    optional: bool = True
    """Whether pods start without that Secret."""
    endpoint: str = ""
    """URL of a store that is not AWS; empty = as the Secret says."""
    region: str = ""
    """Its region; empty = as the Secret says."""


class WebhookValues(ValuesPart):
    """The way of events from the watcher to the EventSource."""

    existing_secret: Name = "stac-watch-webhook"  # noqa: S105  # a name
    """Secret with the token that both know."""
    key: str = "token"
    """Key in that Secret; the poller reads `next` beside it, while the token is changed."""
    tls_secret: OptionalName = ""
    """Secret with `tls.crt`, `tls.key` and `ca.crt`, as cert-manager makes it; empty = plain HTTP inside the namespace."""


class ProxyValues(ValuesPart):
    """An HTTP proxy for everything that leaves the cluster."""

    http: str = ""
    """URL, for http://."""
    https: str = ""
    """URL, for https://."""
    no_proxy: str = ""
    """What goes around it, comma-separated; the Kubernetes API, `.svc` and `.cluster.local` always do."""


class BundleValues(ValuesPart):
    """Certificates of a company's own authority: all that are trusted, in one PEM file."""

    config_map: OptionalName = ""
    """ConfigMap that has them; empty = those of the images."""
    key: str = "ca-bundle.crt"
    """Key in it."""


class NetworkValues(ValuesPart):
    """Who may talk to whom."""

    enabled: bool = True
    """Whether there are NetworkPolicies of ours."""
    flavour: Literal["kubernetes", "cilium"] = "kubernetes"
    """cilium: the Kubernetes API is a CiliumNetworkPolicy's entity, because there `ipBlock` does not match it."""
    api_servers: tuple[Network, ...] = ()
    """Networks of the Kubernetes API; empty = `stac-watch cluster api-server` asks the cluster for them."""
    networks: tuple[Network, ...] = ()
    """Private networks that watcher and runs may reach: an object store or a catalog inside. Not within fc00::/7 with Helm."""
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()
    """More ports that catalogs, products and object stores are served at; 80, 443 and those of catalogs always are."""
    pod_identity: bool = False
    """Whether EKS's Pod Identity agent (169.254.170.23, fd00:ec2::23, port 80) may be reached."""


class MonitoringValues(ValuesPart):
    """For the Prometheus operator and Grafana."""

    enabled: bool = False
    """Whether its objects are part of the installation; without its CRDs nothing could be applied."""
    namespace: str = "monitoring"
    """Where Prometheus is: it may look at our pods."""
    labels: dict[str, str] = NOTHING
    """Of monitors and rules, as `release: kube-prometheus-stack`, which its operator selects by."""
    runbook_url: str = ""
    """Where your runbook is: what alerts say as `runbook_url`, beside cause and first action; empty = nothing."""


class IngressValues(ValuesPart):
    """An Ingress to the status page, which shows every item to whoever reaches it: put a login before it."""

    enabled: bool = False
    """Whether there is one."""
    class_name: str = ""
    """Its class."""
    host: str = ""
    """Its name; `web.hosts` of the configuration must have it, too."""
    annotations: dict[str, str] = NOTHING
    """As `nginx.ingress.kubernetes.io/auth-url`."""
    tls_secret: OptionalName = ""
    """Certificate of that name."""


class RouteValues(ValuesPart):
    """An HTTPRoute (Gateway API) to the status page."""

    enabled: bool = False
    """Whether there is one."""
    parent_refs: tuple[Fragment, ...] = ()
    """Its Gateways."""
    hostnames: tuple[str, ...] = ()
    """Its names; `web.hosts` of the configuration must have them, too."""
    auth_header: str = ""
    """Only requests that carry this header are let through, as an auth proxy before it sets it: `X-Forwarded-User`."""


class WebValues(ValuesPart):
    """The status page, as people reach it."""

    ingress: IngressValues = IngressValues()
    """By an Ingress."""
    http_route: RouteValues = RouteValues()
    """By the Gateway API."""
    from_namespace: OptionalName = ""
    """Namespace of the ingress controller, Gateway or auth proxy; a NetworkPolicy lets it in. Empty = nobody but Prometheus."""


class QuotaValues(ValuesPart):
    """A ResourceQuota of the namespace."""

    enabled: bool = False
    """Whether there is one; it follows from `engine.limits.max_in_flight` and the resources of runs."""
    hard: dict[str, str] = NOTHING
    """In place of single figures, or beside them."""


class AdmissionValues(ValuesPart):
    """The ValidatingAdmissionPolicy on Workflows of the namespace; it belongs to the cluster."""

    enabled: bool = True
    """Whether it is ours to make; false where an administrator does it, or a policy engine has the same."""


class ArgoValues(ValuesPart):
    """What is known of Argo."""

    controller: str = Field(default="argo/workflow-controller-configmap", pattern=r"^[a-z0-9-]+/[a-z0-9.-]+$")
    """ConfigMap of the Workflow controller, NAMESPACE/NAME: the files under `argo/` are for it. Not in the chart."""


class SiteValues(ValuesPart):
    """The whole values file."""

    config: Fragment = NOTHING
    """The configuration, every key as in its [reference](configuration.md); empty = the file of `--config`. What a cluster needs
    is there already: `engine.kind`, `engine.webhook`, `ledger`, `web`."""
    config_files: Annotated[dict[str, str], AfterValidator(_files)] = NOTHING
    """Files beside the configuration, name -> text, as an area that `filter.intersects` names."""
    labels: dict[str, str] = NOTHING
    """Of every object, beside ours."""
    annotations: dict[str, str] = NOTHING
    """Of every object."""
    images: ImagesValues = ImagesValues()
    """Our images."""
    namespace: NamespaceValues = NamespaceValues()
    """Where everything is."""
    service_accounts: AccountsValues = AccountsValues()
    """Who pods are."""
    fixed_user: bool = True
    """Whether pods name their user and group (10001; bus 1000, events 9731); false on OpenShift, whose SCCs give them."""
    poller: PollerValues = PollerValues()
    """The watcher."""
    runs: RunsValues = RunsValues()
    """The runs."""
    audit: AuditValues = AuditValues()
    """The nightly audit."""
    backup: BackupValues = BackupValues()
    """Copies of a SQLite ledger."""
    cleanup: CleanupValues = CleanupValues()
    """Workflows that are over."""
    event_source: EventsValues = EventsValues()
    """What takes events."""
    sensor: EventsValues = EventsValues()
    """What makes Workflows of them."""
    event_bus: BusValues = BusValues()
    """What keeps them in between."""
    storage_classes: StorageValues = StorageValues()
    """Classes of volumes."""
    ledger: LedgerValues = LedgerValues()
    """SQLite or PostgreSQL."""
    s3: S3Values = S3Values()
    """The object store."""
    webhook: WebhookValues = WebhookValues()
    """The way of events."""
    proxy: ProxyValues = ProxyValues()
    """Reaches every container of our programs."""
    ca_bundle: BundleValues = BundleValues()
    """Reaches every container of our programs."""
    ip_family: Literal["any", "ipv6"] = "any"
    """ipv6: the watcher listens on `::`."""
    network_policy: NetworkValues = NetworkValues()
    """Who may talk to whom."""
    monitoring: MonitoringValues = MonitoringValues()
    """Monitors, alerts, dashboard."""
    web: WebValues = WebValues()
    """The status page."""
    quota: QuotaValues = QuotaValues()
    """A quota."""
    admission: AdmissionValues = AdmissionValues()
    """The policy on Workflows."""
    argo: ArgoValues = ArgoValues()
    """What is known of Argo."""


PARTS: tuple[tuple[str, type[ValuesPart]], ...] = (
    ("(top)", SiteValues), ("images", ImagesValues), ("images.runner, images.poller", ImageValues), ("namespace", NamespaceValues),
    ("serviceAccounts", AccountsValues), ("serviceAccounts.*", AccountValues), ("poller", PollerValues), ("runs", RunsValues),
    ("audit", AuditValues), ("backup", BackupValues), ("cleanup", CleanupValues), ("eventSource, sensor", EventsValues),
    ("eventBus", BusValues), ("storageClasses", StorageValues), ("ledger", LedgerValues), ("s3", S3Values),
    ("webhook", WebhookValues), ("proxy", ProxyValues), ("caBundle", BundleValues), ("networkPolicy", NetworkValues),
    ("monitoring", MonitoringValues), ("web", WebValues), ("web.ingress", IngressValues), ("web.httpRoute", RouteValues),
    ("quota", QuotaValues), ("admission", AdmissionValues), ("argo", ArgoValues),
)  # fmt: skip
"""Every part by its place, as the reference page has them."""
