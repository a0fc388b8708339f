"""The way of people to the status page: an Ingress, or an HTTPRoute of the Gateway API."""

from __future__ import annotations

from stac_watch.cluster.manifests.settings import POLLER, Object, Settings, annotated, meta
from stac_watch.cluster.manifests.tree import all_of, given, merged, when


def ways(settings: Settings) -> list[Object]:
    """Returns what leads to the page; nothing where nothing was asked for."""
    return [
        *when(settings.values.web.ingress.enabled, _ingress(settings)),
        *when(settings.values.web.http_route.enabled, _route(settings)),
    ]


def _ingress(settings: Settings) -> Object:
    values = settings.values.web.ingress
    backend = {"service": {"name": POLLER, "port": {"name": "web"}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    certificate = {"secretName": values.tls_secret, "hosts": [values.host]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": annotated(meta(POLLER, settings), merged(merged({}, settings.values.annotations), values.annotations)),
        "spec": {
            **given({"ingressClassName": values.class_name}),
            **given({"tls": [certificate]}, values.tls_secret),
            "rules": [{"host": values.host, "http": {"paths": [path]}}],
        },
    }


def _route(settings: Settings) -> Object:
    values = settings.values.web.http_route
    header = {"type": "RegularExpression", "name": values.auth_header, "value": ".+"}
    match = {"path": {"type": "PathPrefix", "value": "/"}, **given({"headers": [header]}, values.auth_header)}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": meta(POLLER, settings),
        "spec": {
            "parentRefs": all_of(values.parent_refs),
            "hostnames": all_of(values.hostnames),
            "rules": [{"matches": [match], "backendRefs": [{"name": POLLER, "port": 80}]}],
        },
    }
