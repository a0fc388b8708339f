"""What the values put into pods: where they go, what they carry, the company's proxy and certificates."""

from __future__ import annotations

from typing import Any

from stac_watch.cluster.manifests.pod_values import PlaceValues, ProgramValues
from stac_watch.cluster.manifests.settings import POLLER, S3_FOLDER, Object, Settings
from stac_watch.cluster.manifests.tree import Key, all_of, as_text, each, either, expression_of, given, merged, when

CA_FOLDER, CA_FILE = "/etc/stac-watch-ca", "/etc/stac-watch-ca/bundle.crt"
LEDGER_CA_FOLDER = "/etc/stac-watch-ledger-ca"
CA_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")  # botocore, requests, and what uses OpenSSL


def place(
    settings: Settings, values: PlaceValues, affinity: Object | None = None, near: object = True, *,
    priority: str = "priorityClassName",
) -> Object:  # fmt: skip
    """Returns the keys of a pod's spec that say where it goes, and with which secrets its images are pulled.

    `affinity` is ours where the values give none, as long as `near` holds.
    """
    ours = either(values.affinity, affinity or {}, near) if affinity else values.affinity
    test, own = expression_of(values.affinity), expression_of(near)
    if test is not None and affinity:
        there = f"or ({test}) ({own})" if own else "true"
        chosen: Object = {Key("affinity", there): ours}
    else:
        chosen = given({"affinity": ours})
    names = settings.values.images.pull_secrets
    return {
        **given({"nodeSelector": values.node_selector, "tolerations": _listed(values.tolerations)}),
        **given({priority: values.priority_class_name}),
        **chosen,
        **given({"imagePullSecrets": each(names, lambda name: {"name": name})}, names),
    }


def _listed(values: Any) -> Any:  # noqa: ANN401  # a sequence or a hole
    return values if isinstance(values, str) else list(values)


def spread(values: ProgramValues) -> Object:
    """Returns how pods are spread."""
    return given({"topologySpreadConstraints": _listed(values.topology_spread_constraints)})


def spread_patch(values: ProgramValues) -> Object:
    """Returns the same for the pods of Workflows, which have no such key: a patch, that is YAML in a text."""
    wanted = values.topology_spread_constraints
    return given({"podSpecPatch": as_text({"topologySpreadConstraints": all_of(wanted)})}, wanted)


def carried(own: dict[str, str], values: PlaceValues) -> Object:
    """Returns the metadata of pods."""
    return {"labels": merged(own, values.pod_labels), **given({"annotations": values.pod_annotations})}


def environment(settings: Settings, values: ProgramValues) -> list[Any]:
    """Returns the variables of a container of our programs: proxy, certificates, and what was asked for."""
    proxy = settings.values.proxy
    around = [{"name": name, "value": settings.no_proxy} for name in ("NO_PROXY", "no_proxy")]
    through = [
        entry
        for value, names in ((proxy.http, ("HTTP_PROXY", "http_proxy")), (proxy.https, ("HTTPS_PROXY", "https_proxy")))
        for name in names
        for entry in when(value, {"name": name, "value": value})
    ]
    certificates = [{"name": name, "value": CA_FILE} for name in CA_VARIABLES]
    more = all_of(values.extra_env)
    return [*through, *when(settings.no_proxy, *around), *when(settings.values.ca_bundle.config_map, *certificates), *more]


def mounts(settings: Settings, values: ProgramValues) -> list[Any]:
    """Returns the mounts of a container of our programs."""
    bundle = {"name": "ca-bundle", "mountPath": CA_FOLDER, "readOnly": True}
    return [*when(settings.values.ca_bundle.config_map, bundle), *all_of(values.extra_volume_mounts)]


def volumes(settings: Settings, values: ProgramValues) -> list[Any]:
    """Returns the volumes for these."""
    bundle = settings.values.ca_bundle
    volume = {"name": "ca-bundle", "configMap": {"name": bundle.config_map, "items": [{"key": bundle.key, "path": "bundle.crt"}]}}
    return [*when(bundle.config_map, volume), *all_of(values.extra_volumes)]


def store_environment(settings: Settings) -> list[Any]:
    """Returns where boto looks for credentials and endpoint.

    Files, not variables: Kubernetes expands $(NAME) in arguments, so a URL could otherwise ask for a key by its name.
    """
    s3 = settings.values.s3
    files = [
        {"name": "AWS_CONFIG_FILE", "value": f"{S3_FOLDER}/config"},
        {"name": "AWS_SHARED_CREDENTIALS_FILE", "value": f"{S3_FOLDER}/credentials"},
    ]
    return [
        *when(s3.existing_secret, *files),
        *when(s3.endpoint, {"name": "AWS_ENDPOINT_URL_S3", "value": s3.endpoint}),
        *when(s3.region, {"name": "AWS_REGION", "value": s3.region}, {"name": "AWS_DEFAULT_REGION", "value": s3.region}),
    ]


def store_mount(settings: Settings) -> list[Any]:
    """Returns the mount of these files."""
    return when(settings.values.s3.existing_secret, {"name": "s3", "mountPath": S3_FOLDER, "readOnly": True})


def store_volume(settings: Settings) -> list[Any]:
    """Returns the volume of these files."""
    s3 = settings.values.s3
    return when(s3.existing_secret, {"name": "s3", "secret": {"secretName": s3.existing_secret, "optional": s3.optional}})


def ledger_environment(settings: Settings) -> list[Any]:
    """Returns where the ledger is, where it is not on the poller's volume."""
    ledger = settings.values.ledger
    url = {"name": "STAC_WATCH__LEDGER", "valueFrom": {"secretKeyRef": {"name": ledger.existing_secret, "key": ledger.key}}}
    authority = {"name": "PGSSLROOTCERT", "value": f"{LEDGER_CA_FOLDER}/ca.crt"}
    return [*when(ledger.existing_secret, url), *when(ledger.ca_secret, authority)]


def ledger_mount(settings: Settings) -> list[Any]:
    """Returns the mount of what its server's certificate is checked with."""
    return when(settings.values.ledger.ca_secret, {"name": "ledger-ca", "mountPath": LEDGER_CA_FOLDER, "readOnly": True})


def ledger_volume(settings: Settings) -> list[Any]:
    """Returns the volume for it."""
    secret = settings.values.ledger.ca_secret
    chosen = {"secretName": secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    return when(secret, {"name": "ledger-ca", "secret": chosen})


def beside_poller() -> Object:
    """Returns the affinity to the poller's node, where its SQLite volume is; a ledger in PostgreSQL needs neither."""
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app.kubernetes.io/name": POLLER}}, "topologyKey": "kubernetes.io/hostname"}
        ]
    }
