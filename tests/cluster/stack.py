"""The whole of stac-watch on a cluster, as an installation has it, and what a test wants to know of it.

The rendered manifests are applied (with the values of k3d unless said otherwise) beside a catalog pod. What a test asks is asked
from outside:
the ledger by the poller's own page and verbs, Workflows by the Kubernetes API. Nothing is read or written that an installation's
user could not.
"""

import base64
import itertools
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import s3fs
import yaml
from harness.commands import HarnessError
from harness.daemons import wait_until
from harness.kubectl import Kubectl

HERE = Path(__file__).resolve().parent
CATALOG_PORT, S3_PORT = 8000, 9000
COLLECTION = "sentinel-2-l2a"
SETTINGS = "/etc/stac-watch/stac-watch.yaml"
TILES = ("T32TQM", "T33UUP", "T31UFU", "T30TXT", "T29SMC", "T32UPU", "T33TUL", "T31TCJ", "T30SYJ", "T29TNE")
type Holds = Callable[[dict[str, Any]], bool]
MARKS = ("key", "attempt", "lane", "reason", "tile", "source")  # labels that the Argo UI filters by
RUN_SECONDS = 300  # a run takes 25 s here alone, several at once on 2 cores more


@dataclass
class Stack:
    """One installation."""

    kubectl: Kubectl
    namespace: str
    folder: Path  # where the manifests are rendered to
    release: str
    forward: Callable[..., Any]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    config: dict[str, Any] = field(default_factory=dict)
    ports: set[int] = field(default_factory=lambda: {S3_PORT})  # beside those that the configuration names
    overlay: str = "k3d"  # the example whose values it has
    values: dict[str, dict[str, Any]] = field(default_factory=dict)  # beside those of the example
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def catalog(self) -> str:
        """The catalog's URL inside the cluster."""
        return f"http://catalog.{self.namespace}.svc:{CATALOG_PORT}"

    # -- putting it up ---------------------------------------------------------------------------------------------------------

    def up(self, prepare: Callable[[], None] = lambda: None) -> None:
        """Applies everything and waits until an event would become a Workflow; `prepare` is called in the fresh namespace."""
        self._begin()
        prepare()
        self._put_catalog()
        self.apply()
        self.await_ready()

    def up_without_poller(self) -> None:
        """Only what lies between an event and a Workflow."""
        self._begin()
        self.render()
        whole = self.kubectl("kustomize", self.rendered)
        parts = [part for part in yaml.safe_load_all(whole) if part["kind"] not in ("Deployment", "CronWorkflow")]
        self.kubectl.apply(yaml.safe_dump_all(parts))
        self._let_reach_the_api()

    def apply_runs(self) -> None:
        """Only what runs by hand need, as `kubectl apply -k workflows` does."""
        whole = yaml.safe_load_all(self.kubectl("kustomize", self.rendered))
        parts = [part for part in whole if part["metadata"]["name"] in ("geozarr-convert", "geozarr-run")]
        self.kubectl.apply(yaml.safe_dump_all(parts))

    def secrets(self) -> None:
        """What an installation's administrator makes by hand; docs/deploy.md."""
        self.put_secret("stac-watch-webhook", {"token": self.token})
        values = self.kubectl.get("secret", "s3", "-n", "s3")["data"]  # base64 of the test server's credentials
        key, secret = (_decoded(values[name]) for name in ("key", "secret"))
        credentials = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
        endpoint = f"[default]\nregion = us-east-1\nendpoint_url = http://s3.s3.svc:{S3_PORT}\ns3 =\n    addressing_style = path\n"
        self.put_secret("geozarr-s3", {"credentials": credentials, "config": endpoint})

    def put_secret(self, name: str, values: dict[str, str]) -> None:
        """Makes or changes a Secret."""
        self._apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})

    def render(self) -> None:
        """Writes the manifests for the configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "stac-watch.yaml"
        settings.write_text(yaml.safe_dump(self.config, sort_keys=False))
        command = Path(sys.executable).parent / "stac-watch"
        argv = [command, "cluster", "manifests", f"--config={settings}", f"--values={self.told()}", f"--out={self.rendered}"]
        subprocess.run(argv, check=True, capture_output=True, text=True)

    @property
    def rendered(self) -> Path:
        """Where the manifests are."""
        return self.folder / "manifests"

    def told(self) -> Path:
        """Writes the values: those of the example, and what the tests' cluster has otherwise; returns the file."""
        example = HERE.parents[1] / "deploy" / "overlays" / self.overlay / "values.yaml"
        values = yaml.safe_load(example.read_text())
        for name, part in {"networkPolicy": {"ports": sorted(self.ports)}, **self.values}.items():
            values[name] = {**values.get(name, {}), **part}
        path = self.folder / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def apply(self) -> None:
        """Renders, and applies the overlay, as `make deploy` does."""
        self.render()
        self.kubectl("apply", "--server-side", "--force-conflicts", "-k", self.rendered)
        self._let_reach_the_api()

    def _let_reach_the_api(self) -> None:
        argv = [Path(sys.executable).parent / "stac-watch", "cluster", "api-server", f"--config={self.folder / 'stac-watch.yaml'}"]
        env = {**os.environ, "KUBECONFIG": str(self.kubectl.kubeconfig), "NO_PROXY": "*", "no_proxy": "*"}
        policy = subprocess.run(argv, check=True, capture_output=True, text=True, env=env).stdout
        self.kubectl.apply(policy)

    def configure(self, **parts: dict[str, Any]) -> None:
        """Changes parts of the configuration, applies it, and waits for the poller that has it."""
        for name, values in parts.items():
            self.config[name] = {**self.config.get(name, {}), **values}
        self.apply()
        self.await_poller()

    def await_ready(self) -> None:
        """The poller and the chain."""
        self.await_poller()
        self.await_chain()

    def await_chain(self) -> None:
        """A Sensor's pod is ready before its consumer is, and what comes until then is accepted and dropped."""
        for label in ("eventbus-name=geozarr", "eventsource-name=stac", "sensor-name=geozarr"):
            self._wait_for(
                120, f"no pod with {label} is ready", "wait", "--for=condition=Ready", "pod", "-l", label, "--timeout=2s"
            )
        self.await_subscribed()

    def await_poller(self) -> None:
        """The poller's Deployment is rolled out."""
        self.do("rollout", "status", "deploy/stac-watch", "--timeout=180s")

    def await_subscribed(self) -> None:
        """The Sensor's newest pod listens to the bus."""

        def listens() -> bool:
            pods = self.pods("sensor-name=geozarr")
            return any("started subscribing" in self.logs(p["metadata"]["name"]) for p in pods)

        wait_until(listens, 120, "the Sensor did not subscribe")

    def down(self) -> None:
        """Removes it; the namespace goes in the background."""
        self.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait=false")
        policy = "validatingadmissionpolicy,validatingadmissionpolicybinding"  # of no namespace
        self.kubectl("delete", policy, f"stac-watch-{self.namespace}", "--ignore-not-found")

    # -- the catalog ---------------------------------------------------------------------------------------------------------

    def item_id(self, age: timedelta = timedelta()) -> str:
        """A new product id; `age` before today is its sensing."""
        number = next(self._numbers)
        tile = TILES[number % len(TILES)]
        moment = datetime.now(UTC).replace(microsecond=0) - age - timedelta(seconds=number)
        return f"S2A_MSIL2A_{moment:%Y%m%dT%H%M%S}_N0511_R122_{tile}_{moment:%Y%m%dT%H%M%S}"

    def publish(self, item_id: str | None = None, **wish: Any) -> str:
        """Publishes an item, its product first; returns its id. See catalog.py for the wishes."""
        item_id = item_id or self.item_id()
        self.ask_catalog("publish", {"item_id": item_id, **wish})
        return item_id

    def ask_catalog(self, verb: str, wish: dict[str, Any]) -> Any:
        """Asks the door beside the catalog once."""
        with self.door() as ask:
            return ask(verb, wish)

    @contextmanager
    def door(self) -> Iterator[Callable[[str, dict[str, Any]], Any]]:
        """Opens the door beside the catalog, for many questions."""
        with self.forward(self.namespace, "svc/catalog", CATALOG_PORT) as port:

            def ask(verb: str, wish: dict[str, Any]) -> Any:
                url = f"http://127.0.0.1:{port}/control/{verb}"
                request = urllib.request.Request(url, json.dumps(wish).encode(), {"Content-Type": "application/json"})
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.load(answer)

            yield ask

    def bucket(self) -> str:
        """Makes a bucket on the tests' S3 server."""
        name = f"outputs-{secrets.token_hex(4)}"
        values = self.kubectl.get("secret", "s3", "-n", "s3")["data"]
        with self.forward("s3", "svc/s3", S3_PORT) as port:
            options = {"endpoint_url": f"http://127.0.0.1:{port}"}
            s3 = s3fs.S3FileSystem(key=_decoded(values["key"]), secret=_decoded(values["secret"]), client_kwargs=options)
            s3.mkdir(name)
        return name

    # -- what there is -----------------------------------------------------------------------------------------------------

    def do(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl in the namespace."""
        return self.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def poller(self, *arguments: str) -> str:
        """A verb of stac-watch, in the poller's pod and on its ledger."""
        return self.do("exec", "deploy/stac-watch", "-c", "poller", "--", "stac-watch", *arguments, f"--config={SETTINGS}")

    def items(self) -> dict[str, dict[str, Any]]:
        """The ledger's conversions by item id, the newest of each."""
        # from the poller's page, through the API server: each `exec` of the verb costs a second of the cluster's two cores
        page = f"/api/v1/namespaces/{self.namespace}/services/stac-watch:web/proxy/items.json?limit=1000"
        rows = json.loads(self.kubectl("get", "--raw", page))  # the last changed first
        return {row["item"]: row for row in reversed(rows)}

    def workflows(self, **labels: str) -> list[dict[str, Any]]:
        """Workflows of ours, by labels."""
        chosen = ",".join(f"stac-watch/{name}={value}" for name, value in labels.items())
        return list(self.kubectl.get("workflows", "-n", self.namespace, "-l", chosen or "stac-watch/key")["items"])

    def workflows_of(self, item_id: str) -> list[dict[str, Any]]:
        """The Workflows that an item got, by what they were given."""
        tile = item_id.split("_")[5]  # dozens of Workflows lie there, and are asked for once a second
        return [w for w in self.workflows(tile=tile) if parameters(w).get("item_id") == item_id]

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Pods by label, those that are being deleted left out."""
        found = self.kubectl.get("pods", "-n", self.namespace, "-l", selector)["items"]
        return [p for p in found if not p["metadata"].get("deletionTimestamp")]

    def logs(self, pod: str, *options: str) -> str:
        """A pod's log; empty when it has none."""
        return self.kubectl.says("-n", self.namespace, "logs", pod, "--tail=-1", *options)

    def kill(self, selector: str) -> None:
        """Deletes pods without grace, as the loss of their node would."""
        self.do("delete", "pod", "-l", selector, "--grace-period=0", "--force")

    # -- waiting -----------------------------------------------------------------------------------------------------------

    def await_state(self, state: str, *item_ids: str, seconds: float = RUN_SECONDS) -> dict[str, dict[str, Any]]:
        """Waits until the ledger has every item in a state; returns the rows."""
        seen: dict[str, dict[str, Any]] = {}

        def reached() -> bool:
            try:
                seen.update(self.items())
            except HarnessError:  # the poller's pod is being replaced, or the API server is away
                return False
            return all(seen.get(i, {}).get("state") == state for i in item_ids)

        try:
            slowly(reached, seconds)
        except TimeoutError:
            shown = {i: seen.get(i, "not in the ledger") for i in item_ids}
            raise AssertionError(f"not {state} within {seconds:.0f} s: {json.dumps(shown, indent=1)}") from None
        return {i: seen[i] for i in item_ids}

    def await_done(self, *item_ids: str, seconds: float = RUN_SECONDS) -> dict[str, dict[str, Any]]:
        """Waits until every item is done."""
        return self.await_state("done", *item_ids, seconds=seconds)

    def await_workflow(self, item_id: str, true: Holds = bool, seconds: float = RUN_SECONDS) -> dict[str, Any]:
        """Waits for a Workflow of an item of which something holds."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [w for w in self.workflows_of(item_id) if true(w)]
            return bool(found)

        slowly(there, seconds)
        return found[0]

    def await_row(self, item_id: str, true: Holds, seconds: float = RUN_SECONDS) -> dict[str, Any]:
        """Waits until something holds of the ledger's newest row of an item."""
        found: dict[str, Any] = {}

        def holds() -> bool:
            with suppress(HarnessError):
                found.update(self.items().get(item_id, {}))
                return bool(found) and true(found)
            return False

        try:
            slowly(holds, seconds)
        except TimeoutError:
            raise AssertionError(f"not so within {seconds:.0f} s: {json.dumps(found, indent=1)}") from None
        return found

    # -- what must hold ------------------------------------------------------------------------------------------------------

    def check(self, *item_ids: str) -> None:
        """0 lost, 0 doubled, the ledger true, for these items."""
        rows = self.items()
        lost = [i for i in item_ids if rows.get(i, {}).get("state") != "done"]
        assert not lost, f"lost: {lost}"
        for item_id in item_ids:
            runs = self.workflows_of(item_id)
            names = Counter(w["metadata"]["labels"]["stac-watch/attempt"] for w in runs)
            assert max(names.values()) == 1, f"{item_id}: {names}"
            # the run that did the work: what finds it done already names that one, also where it is an attempt of its own, whose
            # outcome Argo did not hear because the API server was away
            made = {end["run"] for w in runs if (end := outcome(w)).get("code") == 0}
            assert len(made) == 1, f"{item_id} was converted by {made} of {[w['metadata']['name'] for w in runs]}"
            row = rows[item_id]
            assert outcome(_named(runs, row["run"])).get("code") == 0, (row, made)

    def timing(self, item_id: str, workflow: dict[str, Any]) -> str:
        """From publication to accepted, to Workflow, to done, as the ledger and Kubernetes say."""
        [chain] = json.loads(self.poller("explain", item_id, "--json"))
        moved = {entry["dst"]: datetime.fromisoformat(entry["at"]) for entry in chain["history"]}
        published = datetime.fromisoformat(chain["events"][0]["time"])
        made = datetime.fromisoformat(workflow["metadata"]["creationTimestamp"])
        after = {"accepted": moved["submitted"], "Workflow": made, "done": moved["done"]}
        return ", ".join(f"{name} after {(at - published).total_seconds():.1f} s" for name, at in after.items())

    def audit(self) -> dict[str, Any]:
        """Catalog, ledger, runs and outputs side by side, as the nightly audit does; fails on any gap."""
        try:
            text = self.poller("audit", "s2-l2a", "--start=300d", "--end=0d", "--json")
        except HarnessError as gaps:
            raise AssertionError(f"the audit found gaps: {gaps}") from None
        return dict(json.loads(text))

    def keep_evidence(self, folder: Path) -> None:
        """Keeps events, Workflows, logs and the ledger's view, for whoever looks why a test failed."""
        folder.mkdir(parents=True, exist_ok=True)
        kinds = "pods,pvc,workflows,eventbus,eventsources,sensors,deployments"
        (folder / "objects.yaml").write_text(self.kubectl.says("-n", self.namespace, "get", kinds, "-o", "yaml"))
        (folder / "events.txt").write_text(self.kubectl.says("-n", self.namespace, "get", "events", "--sort-by=.lastTimestamp"))
        names = self.kubectl.says("-n", self.namespace, "get", "pods", "-o", "name").split()  # also when the API server is away
        for name in (n.removeprefix("pod/") for n in names):
            (folder / f"{name}.log").write_text(self.logs(name, "--all-containers", "--prefix"))
        for verb in ("items", "status"):
            argv = ("exec", "deploy/stac-watch", "--", "stac-watch", verb, "--json", f"--config={SETTINGS}")
            (folder / f"{verb}.json").write_text(self.kubectl.says("-n", self.namespace, *argv))

    # -- parts ---------------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """A fresh namespace with the restricted Pod Security Standard enforced, its Secrets, and the usual configuration."""
        self.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=180s")
        self.kubectl.namespace(self.namespace, {"pod-security.kubernetes.io/enforce": "restricted"})
        self.secrets()
        self.config = default_config(self.catalog, self.namespace)

    def _put_catalog(self) -> None:
        program = (HERE / "catalog.py").read_text()
        text = (HERE / "catalog.yaml").read_text().replace("${release}", self.release).replace("${url}", self.catalog)
        self._apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "catalog"}, "data": {"catalog.py": program}})
        self.kubectl.apply(text, "-n", self.namespace)
        self.do("rollout", "status", "deploy/catalog", "--timeout=90s")

    def _apply(self, document: dict[str, Any]) -> None:
        self.kubectl.apply(json.dumps(document), "-n", self.namespace)

    def _wait_for(self, seconds: float, otherwise: str, *arguments: str) -> None:
        self.kubectl.wait_for(seconds, otherwise, "-n", self.namespace, *arguments)


def default_config(catalog: str, namespace: str) -> dict[str, Any]:
    """What the tests' poller is told: everything as in deploy/base/stac-watch.yaml, only more impatient."""
    host = catalog.removeprefix("http://").partition(":")[0]
    return {
        "ledger": "sqlite:////var/lib/stac-watch/stac-watch.db",
        "sources": [
            {
                "name": "s2-l2a",
                "api": catalog,
                "collection": COLLECTION,
                "filter": {"max_age": "300d"},
                "poll": {"interval": "1s", "sweep": "10m"},
                "allowed_hosts": [host],
            }
        ],
        "recipe": {"output": "/data/{collection}/{item_id}.zarr"},
        "engine": {
            "kind": "argo",
            "webhook": "http://stac-eventsource-svc:12000/items",
            "namespace": namespace,
            "limits": {"max_in_flight": 4, "rate": "5/s", "confirm_after": "15s", "retry_after": "2s", "not_ready": ["10s"]},
        },
        "web": {"port": 8080},
    }


def parameters(workflow: dict[str, Any]) -> dict[str, str]:
    """The parameters that a Workflow was given."""
    return {p["name"]: p.get("value", "") for p in workflow["spec"].get("arguments", {}).get("parameters", [])}


def nodes(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The steps of a Workflow by name; of a step that was tried several times, the step itself."""
    found = workflow.get("status", {}).get("nodes", {}).values()
    return {n["displayName"]: n for n in sorted(found, key=lambda n: n["type"] in ("Retry", "DAG"))}


def running(step: str) -> Holds:
    """Whether a Workflow's step has begun and not ended."""
    return lambda workflow: nodes(workflow).get(step, {}).get("phase") in ("Pending", "Running")


def outcome(workflow: dict[str, Any]) -> dict[str, Any]:
    """What the runner said at the end, from the step's output parameter."""
    for node in workflow.get("status", {}).get("nodes", {}).values():
        if node["displayName"].startswith("convert") and node.get("phase") == "Succeeded":
            for parameter in node.get("outputs", {}).get("parameters", []):
                if parameter["name"] == "outcome" and parameter.get("value"):
                    return dict(json.loads(parameter["value"]))
    return {}


def slowly(true: Callable[[], bool], seconds: float) -> None:
    """Polls once a second: what is asked costs the cluster's two cores something. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(1)


def _named(workflows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    return next((w for w in workflows if w["metadata"]["name"] == name), {})


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
