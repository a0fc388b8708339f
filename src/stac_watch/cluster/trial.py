"""An event that no catalog has, sent the way of all events: from the poller's pod over webhook, bus and Sensor to a Workflow.

It shows what no look at single parts shows: that the poller's token, the policies of the network, the bus, the Sensor's mapping and
the admission policy fit together. It can become no item's run: its catalog has a name that cannot exist, its key is in no ledger,
and its product has a URL that no run may open, so that its preflight would end with 65. The Workflow is removed as soon as it is
seen; where that fails, or it comes too late, Argo removes it in its time like any that failed.

Source: RFC 2606 (`.invalid` is nobody's).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from stac_watch.cluster.diagnosis import Finding, Verdict, is_ready
from stac_watch.cluster.manifests.settings import CONFIG_FILE, CONFIG_FOLDER, POLLER, SENSOR_POD
from stac_watch.cluster.runs import NAME_LABEL
from stac_watch.model.errors import StacWatchError
from stac_watch.model.event import Conversion, build_event, run_name
from stac_watch.runs.kubernetes_api import Cluster, Document
from stac_watch.runs.workflow import KEY_LABEL, PLURAL

CHECK = "test event"
WITHIN = timedelta(seconds=60)
"""The bus and the Sensor take a second or two; a Sensor's pod that was just made, more."""
PAUSE = 0.5  # seconds
WHO = "doctor"
NOWHERE = f"{WHO}://nothing"  # no scheme that a run may open
_SEND = """
import subprocess, sys
done = subprocess.run(["stac-watch", "send", "-", f"--config={sys.argv[1]}"], input=sys.argv[2].encode(), stdout=sys.stderr)
sys.exit(done.returncode)
"""


def conversion(now: datetime, installation: str = "") -> Conversion:
    """Returns what the event asks for: of an item, a collection and a catalog that are nowhere; another one at each moment."""
    return Conversion(
        catalog=f"https://{WHO}.invalid", collection=WHO, item_id=WHO, revision=now.isoformat(), recipe=WHO, kind="create",
        reason="test", lane="replay", time=now, datetime=now, item_href=NOWHERE, product_href=NOWHERE,
        output_zarr=f"/data/{WHO}.zarr", options={"overwrite": "false"}, source_name=WHO, installation=installation,
        allowed_hosts=f"{WHO}.invalid",
    )  # fmt: skip


def send(
    cluster: Cluster, asked: Conversion, *, now: Callable[[], datetime], wait: Callable[[float], bool], within: timedelta = WITHIN
) -> Finding:
    """Sends the event from the poller's pod, waits for its Workflow, and removes that.

    Args:
        cluster: the installation's namespace.
        asked: from `conversion`.
        now: says the time.
        wait: sleeps; True ends it.
        within: how long an accepted event may take to become a Workflow.
    """
    ready = [pod for pod in cluster.items(cluster.core("pods"), f"{NAME_LABEL}={POLLER}") if _serves(pod)]
    if not ready:
        return Finding(CHECK, Verdict.FAIL, "no pod of the poller is ready to send one", "see the line of the poller")
    run, began = run_name(asked, 1), now()
    argv = ["python3", "-c", _SEND, f"{CONFIG_FOLDER}/{CONFIG_FILE}", build_event(asked, 1).decode()]
    try:
        for _ in cluster.output(str(ready[0]["metadata"]["name"]), "poller", argv):
            pass
    except StacWatchError as error:
        hint = error.hint or "`stac-watch check` in the poller's pod says more"
        return Finding(CHECK, Verdict.FAIL, f"was not accepted: {error.message}", hint)
    workflow = _appeared(cluster, run, within, now, wait)
    if workflow is None:
        return Finding(
            CHECK,
            Verdict.FAIL,
            f"was accepted, and is no Workflow after {within.total_seconds():.0f} s",
            f"`kubectl -n {cluster.namespace} logs -l app.kubernetes.io/name={SENSOR_POD}` says why: a filter, a right, a policy",
        )
    cluster.delete(cluster.argo(PLURAL, run), uid=str(workflow["metadata"]["uid"]))
    if (workflow["metadata"].get("labels") or {}).get(KEY_LABEL) != asked.key:
        return Finding(CHECK, Verdict.FAIL, f"became Workflow {run} without its key", "apply the Sensor of this release")
    return Finding(CHECK, Verdict.OK, f"became Workflow {run} after {(now() - began).total_seconds():.1f} s; removed")


def _serves(pod: Document) -> bool:
    """Tells whether a pod is the watcher's, and not that of a test, and ready."""
    return is_ready(pod) and (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/component", "watcher") == "watcher"


def _appeared(
    cluster: Cluster, run: str, within: timedelta, now: Callable[[], datetime], wait: Callable[[float], bool]
) -> Document | None:
    until = now() + within
    while (workflow := cluster.get(cluster.argo(PLURAL, run))) is None:
        if now() >= until or wait(PAUSE):
            return None
    return workflow
