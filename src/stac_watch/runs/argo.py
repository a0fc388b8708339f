"""The engine for a cluster: posts events to the EventSource, reads Workflows from the Kubernetes API.

It never takes HTTP 200 for more than "accepted", or follows a redirect with the token, and writes nothing to the cluster but why a
run failed (`descriptions`). Metadata is listed; an object is fetched once for each version of it.

Source: Argo Events 1.9.11, pkg/eventsources/common/webhook (its answers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import urllib3
from pydantic import SecretStr

from stac_watch.model.errors import InputError, Refused, Temporary
from stac_watch.model.event import CONTENT_TYPE, parse_event
from stac_watch.model.outcome import Outcome
from stac_watch.model.patience import Rest, waited
from stac_watch.runs.descriptions import Descriptions
from stac_watch.runs.engine import Answer, Phase, Receipt, Run, name_taken
from stac_watch.runs.kubernetes_api import Cluster, trusting
from stac_watch.runs.workflow import COMPLETED_LABEL, GROUP, KEY_LABEL, PLURAL, TEMPLATE, asked_of, distinct, illegal_label, run_of

POST_TIMEOUT = urllib3.Timeout(connect=5, read=60)  # seconds; the EventSource tries its bus for up to 35 before it says 500
VERBS = ("get", "list", "watch")  # of workflows: rbac.yaml of the manifests
CLAIMS, OUR_CLAIMS = "persistentvolumeclaims", f"app.kubernetes.io/name={TEMPLATE}"  # each named like its run
KEYS_PER_LIST = 200  # 13 characters each, far below what proxies allow in a URL
REMEMBERED = 5_000  # runs whose objects need not be fetched again; a few hundred bytes each
FULL_FOR = timedelta(seconds=5)  # a cluster without room is not asked every second whether there is some: a run takes minutes
REFUSED = (401, 403)
SHOWN = 200  # characters of a foreign answer that go into a message


class ArgoEngine:
    """Runs are Workflows of one namespace."""

    def __init__(
        self,
        webhook: str,
        tokens: Sequence[SecretStr],
        *,
        ca_file: Path | None = None,
        cluster: Cluster,
        max_in_flight: int,
        confirm_after: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._webhook, self._tokens = webhook, list(tokens)  # the one that was taken last comes first
        self._cluster, self._descriptions = cluster, Descriptions(cluster, now)
        self._max_in_flight, self._confirm_after = max_in_flight, confirm_after
        self._now = now
        context = trusting(str(ca_file) if ca_file else None)
        self._http = urllib3.PoolManager(timeout=POST_TIMEOUT, retries=False, maxsize=2, ssl_context=context)
        self._accepted: dict[str, datetime] = {}  # names of runs that were accepted and not seen yet: they take room, too
        self._read: dict[str, tuple[str, Run]] = {}  # uid -> resourceVersion and what that version says, the last looked at last
        self._full: Rest | None = None

    @property
    def namespace(self) -> str:
        """Where the runs are."""
        return self._cluster.namespace

    def submit(self, event: bytes) -> Receipt:
        """Posts the event. 200 = on the bus; whether the Sensor makes a Workflow of it is another question."""
        try:
            data = parse_event(event)["data"]
        except InputError as error:
            return Receipt(Answer.REFUSED, error.message)
        if (sentence := illegal_label(data)) is not None:
            return Receipt(Answer.REFUSED, sentence)
        try:
            if (other := self._key_at(str(data["run"]))) not in (None, data["key"]):
                # the Sensor would write this event's arguments into that run, and none would ever be seen for this key
                return Receipt(Answer.REFUSED, name_taken(str(data["run"]), other or ""))
        except Temporary as error:
            return Receipt(Answer.UNKNOWN, error.message)
        try:
            response = self._asked("POST", event)
        except urllib3.exceptions.HTTPError as error:
            return Receipt(Answer.UNKNOWN, f"no answer from {self._webhook}: {error}")
        receipt = self._receipt(response.status, response.data[:SHOWN].decode(errors="replace").strip())
        if receipt.answer is Answer.ACCEPTED:
            self._accepted[str(data["run"])] = self._now()
        return receipt

    def _key_at(self, name: str) -> str | None:
        """Returns the key of the Workflow of that name; None where there is none.

        Raises:
            Temporary: the API does not answer.
            Refused: it refuses us.
        """
        workflow = self._cluster.get(self._cluster.argo(PLURAL, name))
        return None if workflow is None else str(workflow["metadata"].get("labels", {}).get(KEY_LABEL, ""))

    def ping(self) -> str:
        """Asks the EventSource in a way that never is an event; returns what was found. It looks at the token before the method.

        Raises:
            Refused: the token is wrong, or something else answers there.
            Temporary: nothing answers, or it is not active.
        """
        try:
            response = self._asked("OPTIONS")
        except urllib3.exceptions.HTTPError as error:
            hint = "is the EventSource there, and may this pod reach it? kubectl get eventsources,services,networkpolicies"
            raise Temporary(f"no answer from {self._webhook}: {error}", hint=hint) from error
        said = response.data[:SHOWN].decode(errors="replace").strip()
        self._receipt(response.status, said)  # raises what it would for an event
        if response.status == 400 and "method" in said:
            return f"{self._webhook} answers, and {'takes the token' if self._tokens else 'wants no token'}"
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
        missing = [f"{verb} {PLURAL}" for verb in VERBS if not self._cluster.may(verb, GROUP, PLURAL)]
        return missing if self._cluster.may("list", "", CLAIMS) else [*missing, f"list {CLAIMS}"]

    def _asked(self, method: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        """Asks with the token that was taken last, then with the other: while it is changed, either may be the EventSource's."""
        headers = {"Content-Type": CONTENT_TYPE}
        for token in list(self._tokens):
            sent = {**headers, "Authorization": f"Bearer {token.get_secret_value()}"}
            response = self._http.request(method, self._webhook, body=body, headers=sent, redirect=False)
            if response.status not in REFUSED:
                self._tokens = [token, *(other for other in self._tokens if other is not token)]
                return response
        return response if self._tokens else self._http.request(method, self._webhook, body=body, headers=headers, redirect=False)

    def _receipt(self, status: int, said: str) -> Receipt:
        detail = f"HTTP {status} {said}".strip()
        if status == 200:
            return Receipt(Answer.ACCEPTED)
        if status in REFUSED:
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
            for metadata in self._listed(f"{KEY_LABEL} in ({chunk})"):
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
            self._full = None
        return distinct(found)

    def _run(self, metadata: Mapping[str, Any]) -> Run | None:
        version, run = self._read.get(metadata["uid"], ("", None))
        if run is not None and version == metadata["resourceVersion"]:
            return run
        workflow = self._cluster.get(self._cluster.argo(PLURAL, metadata["name"]))
        if workflow is None:
            return None  # deleted meanwhile
        run = run_of(workflow)
        self._descriptions.look(workflow, run)
        return run

    def describe(self) -> None:
        """Writes into descriptions why runs that were seen to have failed did; raises nothing of what is wrong there."""
        self._descriptions.write()

    def every(self) -> Iterator[tuple[Run, Outcome, str]]:
        """Yields each run that there is, what it was asked for, and its source's name.

        Raises:
            Temporary: the API does not answer.
            Refused: it refuses us.
        """
        for workflow in self._cluster.each(self._cluster.argo(PLURAL), KEY_LABEL):
            yield run_of(workflow), asked_of(workflow), str(workflow["metadata"].get("labels", {}).get("stac-watch/source", ""))

    def volumes(self) -> frozenset[str]:
        """Returns the names of the runs whose volumes are there.

        Raises:
            Temporary: the API does not answer.
            Refused: it refuses us.
        """
        return frozenset(str(m["name"]) for m in self._cluster.metadata(self._cluster.core(CLAIMS), OUR_CLAIMS))

    def headroom(self) -> int:
        """Counts unfinished Workflows of ours, and accepted events whose Workflow was not seen yet."""
        if self._full is not None and self._full.lasts(self._now()):
            return 0
        names = {m["name"] for m in self._listed(f"{KEY_LABEL},{COMPLETED_LABEL}!=true")}
        self._seen(names)
        # an event that the bus lost must not take room for ever; it is sent again after the same time
        now = self._now()
        self._accepted = {name: at for name, at in self._accepted.items() if not waited(at, now, self._confirm_after)}
        room = max(0, self._max_in_flight - len(names) - len(self._accepted))
        self._full = None if room else Rest(now, now + FULL_FOR)
        return room

    def close(self, *, stop_runs: bool) -> None:  # noqa: ARG002  # Workflows live on, that is what a cluster is for
        """Closes connections."""
        self._http.clear()
        self._cluster.close()

    def _seen(self, names: Iterable[str]) -> None:
        for name in names:
            self._accepted.pop(name, None)

    def _listed(self, selector: str) -> Iterator[Mapping[str, Any]]:
        """Yields the metadata of the Workflows that a label selector finds."""
        try:
            yield from self._cluster.metadata(self._cluster.argo(PLURAL), selector)
        except InputError as error:
            raise Refused(f"namespace {self.namespace!r} knows no Workflows", hint="is Argo Workflows installed here?") from error
