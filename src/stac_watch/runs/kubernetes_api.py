"""The one client of the Kubernetes API: the Argo engine's and the operator's verbs'.

It speaks of documents, metadata, log lines and what a program in a container writes, and turns every failure into an error of ours.
It decides nothing and never runs a shell.

The client library's own `stream` is for terminals: it gathers what arrives faster than it is read in one growing value, and a
package has gigabytes. So its connection is used (TLS, proxy, credentials, subprotocol), and the frames are read here, one by one.
Source: Kubernetes, staging/src/k8s.io/apimachinery/pkg/util/remotecommand (channels 1 stdout, 2 stderr, 3 status; 255 closes one).
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import kubernetes
import urllib3
import websocket
from kubernetes.stream import ws_client
from urllib3.util.ssl_ import create_urllib3_context

from stac_watch.model.errors import ConfigError, InputError, Refused, Temporary

type Document = dict[str, Any]

API_TIMEOUT = (5, 30)  # seconds: to connect, between bytes
SILENCE = 60  # seconds without a frame after which a connection is taken for lost
STDOUT, STDERR, STATUS = 1, 2, 3
SHOWN = 500  # characters of a foreign answer that go into a message
PAGE = 500  # objects of a list that come at once
LIST, ONE = "PartialObjectMetadataList", "PartialObjectMetadata"
ARGO = "/apis/argoproj.io/v1alpha1"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class NotCreated(InputError):  # noqa: N818  # a state of the cluster that callers tell apart by `status`
    """The cluster did not take a new object; `status` is its HTTP status."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"the cluster refuses it: {said}", hint="`stac-watch cluster doctor` looks for the cause")
        self.status, self.said = status, said


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
            file = kubeconfig or environ.get("KUBECONFIG") or None  # the library read the process's own when it was imported
            config.load_kube_config(config_file=file, client_configuration=settings)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise ConfigError(
            f"no credentials for a Kubernetes cluster: {error}", hint="set KUBECONFIG, or run inside the cluster"
        ) from error
    api = kubernetes.client.ApiClient(settings)
    if settings.verify_ssl:
        api.rest_client.pool_manager.connection_pool_kw["ssl_context"] = trusting(settings.ssl_ca_cert)
    return api


def trusting(authority: str | None) -> ssl.SSLContext:
    """Returns a context that verifies chain and host name, as kubectl does, without OpenSSL's strict mode.

    Python 3.13 made that mode its default, and it refuses the CAs of many clusters (EKS, microk8s, hand-made): they lack extensions
    that RFC 5280 wants. Source: kubernetes-client/python#2394.

    Args:
        authority: file with the certificates to trust; None = those of the system.
    """
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED, verify_flags=0)
    context.load_verify_locations(authority) if authority else context.load_default_certs()
    return context


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, api: kubernetes.client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self._api = api

    def close(self) -> None:
        """Closes connections."""
        self._api.close()  # type: ignore[no-untyped-call]

    def core(self, kind: str, name: str = "") -> str:
        """Returns the path of a kind of the core API, or of one object."""
        return self.path("/api/v1", kind, name)

    def argo(self, kind: str, name: str = "") -> str:
        """Returns the path of a kind of Argo's, or of one object."""
        return self.path(ARGO, kind, name)

    def path(self, api: str, kind: str, name: str = "") -> str:
        """Returns the path of a kind, or of one object, in this namespace."""
        return f"{api}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def get(self, path: str, *, metadata_only: bool = False) -> Document | None:
        """Returns an object, or None when there is none; `metadata_only` keeps a Secret's values where they are."""
        status, document = self._ask("GET", path, accept=_metadata(ONE) if metadata_only else "application/json")
        return None if status == 404 else document

    def items(self, path: str, selector: str = "") -> list[Document]:
        """Returns the objects that a label selector finds.

        Raises:
            InputError: the cluster does not know the kind.
        """
        return list(self._listed(path, selector, "application/json"))

    def metadata(self, path: str, selector: str) -> Iterator[Document]:
        """Yields the metadata alone of the objects that a label selector finds: a hundredth of a finished Workflow.

        Raises:
            InputError: the cluster does not know the kind.
        """
        yield from (item["metadata"] for item in self._listed(path, selector, _metadata(LIST)))

    def each(self, path: str, selector: str) -> Iterator[Document]:
        """Yields the objects that a label selector finds, page by page.

        Raises:
            InputError: the cluster does not know the kind.
        """
        yield from self._listed(path, selector, "application/json")

    def _listed(self, path: str, selector: str, accept: str) -> Iterator[Document]:
        query = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            status, document = self._ask("GET", path, query=query, accept=accept)
            if status == 404:
                named = path.rpartition("/")[2]
                raise InputError(f"the cluster has no {named}", hint="`stac-watch cluster doctor` says what is missing")
            yield from document.get("items") or []
            token = (document.get("metadata") or {}).get("continue")
            if not token:
                return
            query["continue"] = token

    def may(self, verb: str, group: str, resource: str) -> bool:
        """Says whether this account may do that in this namespace, as the API server judges it; a resource may be `pods/log`."""
        kind, _, part = resource.partition("/")
        about = {"namespace": self.namespace, "group": group, "resource": kind, "subresource": part, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": about},
        }
        return bool((self.create(REVIEWS, review).get("status") or {}).get("allowed"))

    def create(self, path: str, document: Mapping[str, Any], *, dry_run: bool = False) -> Document:
        """Creates an object and returns it as the cluster has it; by dry run everything is judged, and nothing kept.

        Raises:
            NotCreated: the cluster refuses it, and says why.
        """
        status, answer = self._ask("POST", path, dict(document), query={"dryRun": "All"} if dry_run else {})
        if status >= 400:
            raise NotCreated(status, str(answer.get("message", status)))
        return answer

    def patch(self, path: str, changes: Mapping[str, Any]) -> bool:
        """Merges changes into an object (RFC 7386); False when it is not as the changes' resourceVersion says, or gone."""
        status, _ = self._ask("PATCH", path, dict(changes), content="application/merge-patch+json")
        return status == 200

    def delete(self, path: str, *, uid: str = "", grace: int | None = None) -> bool:
        """Deletes an object and, in the background, what it owns; False when it is gone, or `uid` is no longer its own."""
        options: Document = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        status, _ = self._ask("DELETE", path, options)
        return status in (200, 202)

    def lines(self, pod: str, container: str, *, follow: bool) -> Iterator[str]:
        """Yields a container's log; with `follow` until the container ends. Nothing when it has not started, or is gone.

        Raises:
            Temporary: the connection broke; what came so far was yielded.
        """
        query = {"container": container, "follow": "true" if follow else "false"}
        request = self._request("GET", f"{self.core('pods', pod)}/log", query=query)
        try:
            response = self._api.call_api(*request, _request_timeout=(5, None if follow else 30)).response
            with closing(response):
                if response.status in (401, 403):
                    raise _refused(response.read())
                if response.status != 200:
                    return
                rest = b""
                for chunk in response.stream(65536):
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from (line.decode(errors="replace") for line in whole)
                if rest:
                    yield rest.decode(errors="replace")
        except (urllib3.exceptions.HTTPError, kubernetes.client.ApiException) as error:
            raise Temporary(f"the log of {pod} broke off: {error}", hint="the same command again shows it") from error

    def output(self, pod: str, container: str, argv: Sequence[str]) -> Iterator[bytes]:
        """Runs a program in a container and yields what it writes, as it arrives; the consumer's pace is the sender's.

        Raises:
            Temporary: the connection broke, or ended without saying how the program did.
            InputError: the program failed; its own words are in the message.
            Refused: we may not.
        """
        query = [("command", word) for word in argv] + [("container", container), ("stdout", "true"), ("stderr", "true")]
        _, url, headers, *_ = self._request("GET", f"{self.core('pods', pod)}/exec", query=query)
        said, status = b"", b""
        try:
            with self._connected(url, headers) as socket:
                for channel, data in _frames(socket):
                    if channel == STDOUT:
                        yield data
                    elif channel == STDERR:
                        said = (said + data)[-SHOWN:]
                    elif channel == STATUS:
                        status += data
        except (websocket.WebSocketException, OSError) as error:
            raise Temporary(f"the connection to pod {pod} broke: {str(error) or type(error).__name__}", hint="try again") from error
        _judge(status, said, argv[0], pod)

    @contextmanager
    def _connected(self, url: str, headers: Mapping[str, str]) -> Iterator[websocket.WebSocket]:
        """Yields a connection and drops it at once: an orderly close would first read what is still on its way."""
        try:
            address = ws_client.get_websocket_url(url)  # type: ignore[no-untyped-call]
            socket: websocket.WebSocket = ws_client.create_websocket(self._api.configuration, address, headers)  # type: ignore[no-untyped-call]
        except websocket.WebSocketBadStatusException as error:
            if error.status_code in (401, 403):
                raise _refused(error.resp_body or b"") from error
            said = _document(error.resp_body or b"").get("message") or f"HTTP {error.status_code}"
            raise Temporary(f"no program can be run in the pod: {said}", hint="try again") from error
        try:
            socket.settimeout(SILENCE)
            yield socket
        finally:
            socket.shutdown()  # type: ignore[no-untyped-call]

    def _request(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        *,
        query: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        accept: str = "application/json",
        content: str = "application/json",
    ) -> tuple[str, str, dict[str, str], Any, Any]:
        pairs = list(query.items() if isinstance(query, Mapping) else query)
        headers = {"Accept": accept, "Content-Type": content}
        request: tuple[str, str, dict[str, str], Any, Any] = self._api.param_serialize(
            method, path, query_params=pairs, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        return request

    def _ask(self, method: str, path: str, body: Document | None = None, **more: Any) -> tuple[int, Document]:  # noqa: ANN401  # of _request
        try:
            response = self._api.call_api(*self._request(method, path, body, **more), _request_timeout=API_TIMEOUT)
            content = response.read()  # type: ignore[no-untyped-call]
        except (urllib3.exceptions.HTTPError, kubernetes.client.ApiException) as error:  # the latter: some of its TLS errors
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, urllib3.exceptions.SSLError):
                raise Refused(f"no trust in the Kubernetes API: {reason}", hint="check the kubeconfig's CA and server") from error
            raise Temporary(
                f"the Kubernetes API does not answer: {reason}",
                hint="is the cluster up, and KUBECONFIG the right one? A watcher asks again by itself",
            ) from error
        if response.status in (401, 403):
            raise _refused(content)
        document = _document(content)
        if response.status in (410, 429) or response.status >= 500:  # 410: a list took longer than its pages are kept
            raise Temporary(f"the Kubernetes API answers {response.status}: {document.get('message', '')}", hint="try again")
        return response.status, document


def _frames(socket: websocket.WebSocket) -> Iterator[tuple[int, bytes]]:
    """Yields channel and content of each message until the other side closes."""
    while True:
        code, frame = socket.recv_data_frame(control_frame=True)
        if code == websocket.ABNF.OPCODE_CLOSE:
            return
        if code in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT) and len(frame.data) > 1:
            yield frame.data[0], frame.data[1:]


def _judge(status: bytes, said: bytes, program: str, pod: str) -> None:
    """Raises what the status says that is not success; no status at all is a connection that was cut."""
    document = _document(status) if status else {}
    if document.get("status") == "Success":
        return
    if not document:
        raise Temporary(f"pod {pod} went away while {program} ran", hint="try again")
    causes = (document.get("details") or {}).get("causes") or []
    if not any(cause.get("reason") == "ExitCode" for cause in causes):  # the runtime could not start it, or lost it
        raise Temporary(f"{program} in pod {pod}: {document.get('message', '')}", hint="try again")
    words = said.decode(errors="replace").strip() or document.get("message", "")
    raise InputError(f"{program} in pod {pod} failed: {words}")


def _metadata(kind: str) -> str:
    return f"application/json;as={kind};g=meta.k8s.io;v=v1,application/json"


def _refused(content: bytes) -> Refused:
    said = _document(content).get("message", "")
    hint = "`stac-watch cluster doctor` lists the permissions that are missing; `stac-watch cluster manifests` renders a poller's"
    return Refused(f"the Kubernetes API refuses us: {said}", hint=hint)


def _document(content: bytes) -> Document:
    try:
        document = json.loads(content)
    except ValueError:
        return {"message": content[:SHOWN].decode(errors="replace").strip()}
    return document if isinstance(document, dict) else {"message": str(document)[:SHOWN]}
