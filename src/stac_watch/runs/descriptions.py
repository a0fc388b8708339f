"""A failed run's reason in the description of its Workflow, which is what the Argo UI's list of runs shows.

It is all that a watcher ever writes to a cluster, and it is for people: nothing reads it back. Where it may not be written, or the
API does not answer, everything else goes on as before.

Source: Argo Workflows 4.0.5, ui/src/workflows/components/workflows-row (the description is Markdown).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from stac_watch.model.errors import Refused, StacWatchError
from stac_watch.model.patience import Rest
from stac_watch.runs.engine import Phase, Run
from stac_watch.runs.kubernetes_api import Cluster
from stac_watch.runs.workflow import GROUP, PLURAL, run_of

DESCRIPTION = "workflows.argoproj.io/description"
LEAD = "failed: "
LONGEST = 500  # characters of a reason and a hint; all of them are in the outcome
MOST = 1000  # that wait
AT_ONCE = 10  # in one look at the runs: each is a request, and an outage fails hundreds at the same moment
ASK_AGAIN = timedelta(hours=1)  # whether it may be done at all
PAUSE = timedelta(minutes=1)  # after an API that did not answer


class Descriptions:
    """Those that are still to be written."""

    def __init__(self, cluster: Cluster, now: Callable[[], datetime]) -> None:
        self._cluster, self._now = cluster, now
        self._due: dict[str, dict[str, Any]] = {}  # by run
        self._again: set[str] = set()  # of these, what was not taken once
        self._refused: Rest | None = None  # it may not be done
        self._allowed = False
        self._pause: Rest | None = None

    def look(self, workflow: Mapping[str, Any], run: Run) -> None:
        """Notes what a Workflow's description should say, where it says something else."""
        if self._rests(self._refused):
            return
        metadata = workflow["metadata"]
        before = str((metadata.get("annotations") or {}).get(DESCRIPTION, ""))
        text = described(before, run)
        self._due.pop(run.name, None)
        if text != before and len(self._due) < MOST:
            change = {"resourceVersion": metadata["resourceVersion"], "annotations": {DESCRIPTION: text}}
            self._due[run.name] = {"metadata": change}

    def write(self) -> None:
        """Writes some of them; never raises what is wrong with a cluster, for nothing depends on it."""
        if not self._due or self._rests(self._pause):
            return
        try:
            self._allowed = self._allowed or self._cluster.may("patch", GROUP, PLURAL)
            if self._allowed:
                self._write_some()
            else:
                self._give_up()
        except Refused:
            self._give_up()
        except StacWatchError:
            self._pause = Rest(self._now(), self._now() + PAUSE)

    def _write_some(self) -> None:
        for name in list(self._due)[:AT_ONCE]:
            path, again = self._cluster.argo(PLURAL, name), name in self._again
            written = self._cluster.patch(path, self._due[name])
            del self._due[name]
            self._again.discard(name)
            if written or again or (workflow := self._cluster.get(path)) is None:
                continue
            self.look(workflow, run_of(workflow))  # the controller wrote meanwhile: as it is now, and once only
            if name in self._due:
                self._again.add(name)

    def _give_up(self) -> None:
        self._allowed, self._refused = False, Rest(self._now(), self._now() + ASK_AGAIN)
        self._due.clear()
        self._again.clear()

    def _rests(self, rest: Rest | None) -> bool:
        return rest is not None and rest.lasts(self._now())


def described(before: str, run: Run) -> str:
    """Returns what a run's description says: why it failed, and on a line of its own what it said before.

    A run that a person retried in Argo has its own words back.
    """
    own = before.partition("\n")[2] if before.startswith(LEAD) else before
    if run.phase is not Phase.FAILED or run.outcome is None:
        return own
    said = run.outcome
    where = f"{said.stage}: " if said.stage and not said.reason.startswith(f"{said.stage}: ") else ""
    after = f" → {said.hint}" if said.hint else ""
    return f"{LEAD}{_plain(f'{where}{said.reason}{after}')} ·\n{own}"


def _plain(text: str) -> str:
    """Returns text on one line that is no Markdown: a reason may hold what strangers wrote, down to a picture from elsewhere."""
    line = " ".join(text.split())
    short = f"{line[: LONGEST - 1]}…" if len(line) > LONGEST else line
    return re.sub(r"([\\`*\[\]<>~|!])", r"\\\1", short)
