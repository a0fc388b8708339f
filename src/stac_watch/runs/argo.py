"""The engine for a cluster: posts events to the EventSource, reads Workflows from the Kubernetes API.

In: events as bytes. Out: receipts; runs as the API shows them now. Never: writes to the cluster (but for `create`, the `submit`
verb's one Workflow), takes HTTP 200 for more than "accepted", follows a redirect with the token, or lists full objects: metadata
is listed, and an object is fetched once for each version of it.

Sources: Argo Events 1.9.11, pkg/eventsources/common/webhook (its answers); Kubernetes API concepts (metadata-only, chunked lists).
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import kubernetes
import urllib3
from pydantic import SecretStr
from urllib3.util.ssl_ import create_urllib3_context

from stac_watch.model.errors import ConfigError, InputError, Refused, Temporary
from stac_watch.model.event import CONTENT_TYPE, parse_event
from stac_watch.runs.engine import Answer, Phase, Receipt, Run
from stac_watch.runs.workflow import COMPLETED_LABEL, GROUP, KEY_LABEL, PLURAL, VERSION, distinct, illegal_label, run_of

POST_TIMEOUT = urllib3.Timeout(connect=5, read=60)  # seconds; the EventSource tries its bus for up to 35 before it says 500
API_TIMEOUT = (5, 30)
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
VERBS = ("get", "list", "watch")  # of workflows: deploy/base/rbac.yaml
KEYS_PER_LIST = 200  # 13 characters each, far below what proxies allow in a URL
PAGE = 500
REMEMBERED = 5_000  # runs whose objects need not be fetched again; a few hundred bytes each
FULL_FOR = timedelta(seconds=5)  # a cluster without room is not asked every second whether there is some: a run takes minutes
SHOWN = 200  # characters of a foreign answer that go into a message


class ArgoEngine:
    """Runs are Workflows of one namespace."""

    def __init__(
        self,
        webhook: str,
        token: SecretStr | None,
        *,
        namespace: str,
        max_in_flight: int,
        confirm_after: timedelta,
        api: kubernetes.client.ApiClient,
        now: Callable[[], datetime],
    ) -> None:
        self._webhook, self._token = webhook, token
        self._path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"
        self.namespace = namespace
        self._max_in_flight, self._confirm_after = max_in_flight, confirm_after
        self._api, self._now = api, now
        self._http = urllib3.PoolManager(timeout=POST_TIMEOUT, retries=False, maxsize=2)
        self._accepted: dict[str, datetime] = {}  # names of runs that were accepted and not seen yet: they take room, too
        self._read: dict[str, tuple[str, Run]] = {}  # uid -> resourceVersion and what that version says, the last looked at last
        self._full_until: datetime | None = None

    def submit(self, event: bytes) -> Receipt:
        """Posts the event. 200 = on the bus; whether the Sensor makes a Workflow of it is another question."""
        try:
            data = parse_event(event)["data"]
        except InputError as error:
            return Receipt(Answer.REFUSED, error.message)
        if (sentence := illegal_label(data)) is not None:
            return Receipt(Answer.REFUSED, sentence)
        headers = {"Content-Type": CONTENT_TYPE, **self._authorization()}
        try:
            response = self._http.request("POST", self._webhook, body=event, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            return Receipt(Answer.UNKNOWN, f"no answer from {self._webhook}: {error}")
        receipt = self._receipt(response.status, response.data[:SHOWN].decode(errors="replace").strip())
        if receipt.answer is Answer.ACCEPTED:
            self._accepted[str(data["run"])] = self._now()
        return receipt

    def ping(self) -> str:
        """Asks the EventSource in a way that never is an event; returns what was found. It looks at the token before the method.

        Raises:
            Refused: the token is wrong, or something else answers there.
            Temporary: nothing answers, or it is not active.
        """
        try:
            response = self._http.request("OPTIONS", self._webhook, headers=self._authorization(), redirect=False)
        except urllib3.exceptions.HTTPError as error:
            hint = "is the EventSource there, and may this pod reach it? kubectl get eventsources,services,networkpolicies"
            raise Temporary(f"no answer from {self._webhook}: {error}", hint=hint) from error
        said = response.data[:SHOWN].decode(errors="replace").strip()
        self._receipt(response.status, said)  # raises what it would for an event
        if response.status == 400 and "method" in said:
            return f"{self._webhook} answers, and {'takes the token' if self._token is not None else 'wants no token'}"
        detail = f"the EventSource at {self._webhook} says HTTP {response.status} {said}".strip()
        if response.status == 400 or response.status >= 500:
            raise Temporary(detail, hint="it is starting, or its Secret or its bus is missing: see the EventSource's log")
        raise Refused(f"{detail}, as no EventSource would", hint="does engine.webhook name a proxy or another service?")

    def missing_rights(self) -> list[str]:
        """Returns what this account may not do with Workflows and must, as the API server judges it.

        Raises:
            Temporary: the API does not answer.
            Refused: it does not let us ask.
        """
        missing = []
        for verb in VERBS:
            about = {"namespace": self.namespace, "verb": verb, "group": GROUP, "resource": PLURAL}
            review = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": about},
            }
            _, document = self._call("POST", REVIEWS, review)
            if not (document.get("status") or {}).get("allowed"):
                missing.append(verb)
        return missing

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token.get_secret_value()}"} if self._token is not None else {}

    def _receipt(self, status: int, said: str) -> Receipt:
        detail = f"HTTP {status} {said}".strip()
        if status == 200:
            return Receipt(Answer.ACCEPTED)
        if status in (401, 403):
            raise Refused(
                f"the EventSource at {self._webhook} refuses the token: {detail}",
                hint="STAC_WATCH__ENGINE__TOKEN, or what token_file names, must be the value of the EventSource's authSecret",
            )
        if status == 404 or 300 <= status < 400:
            raise Refused(
                f"{self._webhook} is not the EventSource's endpoint: {detail}",
                hint="engine.webhook must be http://<eventsource>-eventsource-svc:<port>/<endpoint>",
            )
        # 400 "endpoint is inactive" is what an EventSource says while it starts, whatever the event
        if 400 <= status < 500 and status not in (408, 425, 429) and "inactive" not in said:
            return Receipt(Answer.REFUSED, detail)
        return Receipt(Answer.UNKNOWN, detail)

    def runs(self, keys: Sequence[str]) -> list[Run]:
        """Reads the Workflows of these keys.

        Raises:
            Temporary: the API does not answer.
            Refused: it refuses us.
        """
        found = []
        for start in range(0, len(keys), KEYS_PER_LIST):
            chunk = ",".join(keys[start : start + KEYS_PER_LIST])
            for metadata in self._list(f"{KEY_LABEL} in ({chunk})"):
                run = self._run(metadata)
                self._read.pop(metadata["uid"], None)
                if run is not None:
                    found.append(run)
                    self._read[metadata["uid"]] = (metadata["resourceVersion"], run)
        # not only what is asked about: the live table asks for fifteen, and the watcher for all of them in the next moment
        for uid in list(self._read)[: max(0, len(self._read) - REMEMBERED - len(keys))]:
            del self._read[uid]
        self._seen(run.name for run in found)
        if any(run.phase in (Phase.SUCCEEDED, Phase.FAILED) for run in found):
            self._full_until = None
        return distinct(found)

    def _run(self, metadata: Mapping[str, Any]) -> Run | None:
        version, run = self._read.get(metadata["uid"], ("", None))
        if run is not None and version == metadata["resourceVersion"]:
            return run
        status, document = self._call("GET", f"{self._path}/{metadata['name']}")
        return None if status == 404 else run_of(document)  # deleted meanwhile

    def headroom(self) -> int:
        """Counts unfinished Workflows of ours, and accepted events whose Workflow was not seen yet."""
        if self._full_until is not None and self._now() < self._full_until:
            return 0
        names = {m["name"] for m in self._list(f"{KEY_LABEL},{COMPLETED_LABEL}!=true")}
        self._seen(names)
        # an event that the bus lost must not take room for ever; it is sent again after the same time
        self._accepted = {name: at for name, at in self._accepted.items() if self._now() - at < self._confirm_after}
        room = max(0, self._max_in_flight - len(names) - len(self._accepted))
        self._full_until = None if room else self._now() + FULL_FOR
        return room

    def create(self, workflow: Mapping[str, Any]) -> tuple[str, bool]:
        """Creates one Workflow; returns its name, and False when one of that name was there: it is left as it is.

        Raises:
            InputError: the API says that it is no Workflow.
            Refused: we may not, or there is no Argo here.
            Temporary: the API does not answer.
        """
        try:
            status, document = self._call("POST", self._path, dict(workflow))
        except Refused as error:
            raise Refused(error.message, hint=f"you need `create` of workflows in namespace {self.namespace!r}") from error
        name = str(workflow["metadata"].get("name", ""))
        if status == 409 and name:
            return name, False
        if status in (400, 409, 422):
            raise InputError(f"the cluster refuses the Workflow: {document.get('message', status)}")
        if status == 404:
            raise Refused(
                f"namespace {self.namespace!r} knows no Workflows",
                hint="install Argo Workflows and the namespace: docs/operations.md",
            )
        return str(document["metadata"]["name"]), True

    def close(self, *, stop_runs: bool) -> None:  # noqa: ARG002  # Workflows live on, that is what a cluster is for
        """Closes connections."""
        self._http.clear()
        self._api.close()  # type: ignore[no-untyped-call]

    def _seen(self, names: Iterable[str]) -> None:
        for name in names:
            self._accepted.pop(name, None)

    def _list(self, selector: str) -> Iterator[Mapping[str, Any]]:
        """Yields the metadata of the Workflows that a label selector finds, page after page."""
        query = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            status, document = self._call("GET", self._path, query=query, accept=METADATA)
            if status == 404:
                raise Refused(f"namespace {self.namespace!r} knows no Workflows", hint="is Argo Workflows installed here?")
            yield from (item["metadata"] for item in document.get("items") or [])
            token = document.get("metadata", {}).get("continue")
            if not token:
                return
            query["continue"] = token

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
    ) -> tuple[int, dict[str, Any]]:
        """Asks the API; returns status and document of an answer that has a meaning for the caller."""
        headers = {"Accept": accept, "Content-Type": "application/json"}
        request = self._api.param_serialize(
            method, path, query_params=list((query or {}).items()), header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            response = self._api.call_api(*request, _request_timeout=API_TIMEOUT)
            content = response.read()  # type: ignore[no-untyped-call]
        except (urllib3.exceptions.HTTPError, kubernetes.client.ApiException) as error:  # the latter: some of its TLS errors
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, urllib3.exceptions.SSLError):
                raise Refused(f"no trust in the Kubernetes API: {reason}", hint="check the kubeconfig's CA and server") from error
            raise Temporary(f"the Kubernetes API does not answer: {reason}", hint="it is asked again at the next tick") from error
        try:
            document = json.loads(content)
        except ValueError:
            document = {"message": content[:SHOWN].decode(errors="replace")}
        if response.status in (401, 403):
            raise Refused(
                f"the Kubernetes API refuses us: {document.get('message', response.status)}",
                hint="the poller's Role needs get, list and watch of workflows (deploy/base/rbac.yaml)",
            )
        if response.status in (410, 429) or response.status >= 500:
            raise Temporary(
                f"the Kubernetes API answers {response.status}: {document.get('message', '')}",
                hint="it is asked again at the next tick",
            )
        return response.status, document


def connect(environ: Mapping[str, str], kubeconfig: str | None = None) -> kubernetes.client.ApiClient:
    """Returns a client with the pod's own credentials, else with those of the kubeconfig (default: where kubectl looks).

    Raises:
        ConfigError: there are neither.
    """
    settings = kubernetes.client.Configuration()
    settings.retries = 1
    config = kubernetes.config
    try:
        if kubeconfig is None and config.incluster_config.SERVICE_HOST_ENV_NAME in environ:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(config_file=kubeconfig, client_configuration=settings)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise ConfigError(
            f"no credentials for a Kubernetes cluster: {error}", hint="set KUBECONFIG, or run inside the cluster"
        ) from error
    api = kubernetes.client.ApiClient(settings)
    if settings.verify_ssl:
        api.rest_client.pool_manager.connection_pool_kw["ssl_context"] = _tls(settings.ssl_ca_cert)
    return api


def _tls(authority: str | None) -> ssl.SSLContext:
    """Returns a context that verifies chain and host name, as kubectl does, without OpenSSL's strict mode.

    Python 3.13 made that mode its default, and it refuses the CAs of many clusters (EKS, microk8s, hand-made): they lack extensions
    that RFC 5280 wants. Source: kubernetes-client/python#2394.
    """
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED, verify_flags=0)
    context.load_verify_locations(authority) if authority else context.load_default_certs()
    return context
