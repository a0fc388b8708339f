"""Installations as GitOps keeps them: by Flux's own controller, beside the cluster, and as Argo CD's engine compares them."""

import hashlib
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml
from charts import CHART, Helm
from harness.commands import HarnessError, capture
from harness.daemons import wait_until
from releases import Release

RELEASE = "gz"
PATIENCE = 300  # of an installation with other work on the machine's two cores; an order to look again takes seconds


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder's files; yields the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def running(argv: list[object], log: Path, environ: Mapping[str, str]) -> Iterator[Callable[[], bool]]:
    """Runs a process whose output goes to `log`; yields what says whether it still runs. It is ended at the end."""
    with log.open("a") as file:
        # not the proxy of whoever runs the tests, who would be asked for 127.0.0.1
        env = {"PATH": os.environ["PATH"], "HOME": str(log.parent), "NO_PROXY": "*", **environ}
        process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env)
    try:
        yield lambda: process.poll() is None
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Kept(Release):
    """What both have in common: about fifteen lines of values, and objects that are looked at twice."""

    def small(self) -> dict[str, Any]:
        """The values, as in a first installation's repository."""
        return dict(yaml.safe_load(self.charted().read_text()))

    def prepare(self) -> None:
        """What no chart brings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "stac-watch.yaml").write_text(json.dumps(self.config))
        self._let_reach_the_api()

    def objects(self) -> dict[tuple[str, str], Any]:
        """All that the chart renders, as it is in the cluster, without what its owners report of it.

        With `generation`, and the times at which each manager last changed something: an apply that changes nothing leaves both.
        """
        return {(o["kind"], o["metadata"]["name"]): _unreported(o) for o in self.live()}

    def live(self) -> list[dict[str, Any]]:
        """All that the chart renders, as it is in the cluster."""
        return list(json.loads(self.do("get", "-f", str(self.rendered_by_helm()), "-o", "json"))["items"])

    def rendered_by_helm(self) -> Path:
        """Writes what the chart renders; returns the file."""
        rendered = self.folder / "kept.yaml"
        rendered.write_text(self.helm("template", RELEASE, CHART, "-n", self.namespace, "-f", self.charted(), "--skip-tests"))
        return rendered

    def left(self) -> set[tuple[str, str]]:
        """What is there after an uninstall, of what the chart brings or keeps; the catalog is the tests'."""
        kinds = "persistentvolumeclaims,secrets,deployments,sensors,eventsources,eventbus,cronworkflows,workflowtemplates"
        items = json.loads(self.do("get", kinds, "-o", "json"))["items"]
        return {(o["kind"], o["metadata"]["name"]) for o in items if o["metadata"]["name"] != "catalog"}


def _unreported(found: dict[str, Any]) -> dict[str, Any]:
    meta = {name: value for name, value in found["metadata"].items() if name not in ("resourceVersion", "managedFields")}
    changed = [(m["manager"], m["time"]) for m in found["metadata"].get("managedFields", []) if not m.get("subresource")]
    return {**{name: value for name, value in found.items() if name != "status"}, "metadata": meta, "changed": sorted(changed)}


@dataclass
class ByFlux(Kept):
    """A HelmRelease with drift detection; the chart is an ExternalArtifact."""

    url: str = ""  # of the packaged chart's folder
    package: Path = Path()
    log: Path = Path()  # the controller's

    def apply(self) -> None:
        """Says what is wanted, and waits until the controller has it so."""
        self.prepare()
        digest = f"sha256:{hashlib.sha256(self.package.read_bytes()).hexdigest()}"
        meta = {"name": "stac-watch", "namespace": self.namespace}
        source = {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "ExternalArtifact", "metadata": meta, "spec": {}}
        artifact = {
            "path": self.package.name,
            "url": f"{self.url}/{self.package.name}",
            "revision": f"{self.release}@{digest}",
            "digest": digest,
            "lastUpdateTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        self.kubectl.apply(json.dumps(source))
        self.kubectl.apply(json.dumps({**source, "status": {"artifact": artifact}}), "--subresource=status")
        spec = {
            "interval": "1h",  # the test says when
            "timeout": "5m",
            "chartRef": {"kind": "ExternalArtifact", "name": "stac-watch"},
            "driftDetection": {"mode": "enabled"},
            "test": {"enable": True},
            "values": self.small(),
        }
        meta = {"name": RELEASE, "namespace": self.namespace}
        wanted = {"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": meta, "spec": spec}
        self.kubectl.apply(json.dumps(wanted))
        self._await(lambda r: r["status"].get("observedGeneration") == r["metadata"]["generation"] and _is(r, "Ready", "True"))

    def reconcile(self) -> dict[str, Any]:
        """Orders a look; returns the HelmRelease after it."""
        token = uuid.uuid4().hex
        self.do("annotate", "helmrelease", RELEASE, f"reconcile.fluxcd.io/requestedAt={token}", "--overwrite")
        return self._await(lambda r: r["status"].get("lastHandledReconcileAt") == token and _is(r, "Ready", "True"))

    def uninstall(self) -> None:
        """Removes the HelmRelease, whose finalizer has the chart uninstalled."""
        self.do("delete", "helmrelease", RELEASE, "--timeout=180s")

    def _await(self, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        return await_object(self, "helmrelease", self.namespace, holds, self.log)


@dataclass
class ByArgo(Kept):
    """Applied as an Application's sync does it by default, and compared by Argo CD's engine; its controllers are not there."""

    engine: Path = Path()  # argodiff

    def apply(self) -> None:
        """Syncs."""
        self.prepare()
        self.do("apply", "-f", "-", stdin=yaml.safe_dump_all(self.wanted()))

    def wanted(self) -> list[dict[str, Any]]:
        """What the Application renders, with the annotation by which Argo CD knows what is its own."""
        objects = [o for o in yaml.safe_load_all(self.rendered_by_helm().read_text()) if o]
        for o in objects:
            meta, group = o["metadata"], o["apiVersion"].rpartition("/")[0]
            tracked = f"{RELEASE}:{group}/{o['kind']}:{self.namespace}/{meta['name']}"
            meta["annotations"] = {**meta.get("annotations", {}), "argocd.argoproj.io/tracking-id": tracked}
            if not o["kind"].startswith("ValidatingAdmission"):
                meta["namespace"] = self.namespace
        return objects

    def out_of_sync(self) -> list[dict[str, Any]]:
        """What the engine would have otherwise than it is: `object`, `live` and `wanted`."""
        lives = {(o["kind"], o["metadata"]["name"]): o for o in self.live()}
        pairs = [{"wanted": o, "live": lives[o["kind"], o["metadata"]["name"]]} for o in self.wanted()]
        return list(json.loads(capture([self.engine], stdin=json.dumps(pairs))))


def await_object(stack: Kept, kind: str, namespace: str, holds: Callable[[dict[str, Any]], Any], log: Path) -> dict[str, Any]:
    """Waits until something holds of what a controller reports; a failure shows the report and the end of the log."""
    found: dict[str, Any] = {}

    def there() -> bool:
        with suppress(HarnessError, KeyError):
            found.update(stack.kubectl.get(kind, RELEASE, "-n", namespace))
            return bool(holds(found))
        return False

    try:
        wait_until(there, PATIENCE, f"the {kind} is not as wanted", log=log)
    except HarnessError as late:
        raise AssertionError(f"{late}\n{json.dumps(found.get('status', {}), indent=1)[:6000]}") from None
    return dict(found)


def _is(found: dict[str, Any], kind: str, status: str) -> bool:
    conditions = {c["type"]: c["status"] for c in found["status"].get("conditions", [])}
    return conditions.get(kind) == status


def packaged(helm: Helm, folder: Path) -> Path:
    """The chart as a file, as an artifact of Flux is."""
    helm("package", CHART, "-d", folder)
    return next(folder.glob("stac-watch-*.tgz"))
