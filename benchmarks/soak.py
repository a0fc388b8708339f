"""An hour in which an installation works and something breaks every minute. Then: what was lost, what doubled, what leaked?

In: minutes, the development cluster (`make cluster-up`). Out: a table; build/bench/soak.json; exit code 1 when one row is not as it
must be. Never: stops at a fault, or judges while something is still under way.

The chart is installed as a team has it: a ledger in PostgreSQL, outputs in S3, each registered in a catalog of outputs. A live
trickle, some items published again with another product, and a backfill of older ones go through it, while
`tests/cluster/faults.py` breaks one thing after the other, the database's connections and the catalog of outputs among them. In the
end every item must be done with its last product and found there, no product converted twice, and the audit must find no gap; and
when the operator has cleaned up, what lies on the cluster and on the node, and what the poller's process holds, must be what lay
there before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from installation import OUTPUTS, Poller, charted, poller
from result import Goal, Result
from rich.progress import Progress

# isort: split
import faults
from harness import daemons
from harness.commands import HarnessError
from harness.places import Places
from stack import CATALOG_PORT, Stack, outcome, slowly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postgres import Postgres

FAULT_EVERY, ITEM_EVERY = 60.0, 40.0  # seconds; a run takes 25 s alone on two cores
AGAIN = 0.2  # of what is published is an item of before with another product
OLD = timedelta(days=400)  # older than the filter's limit: discovery skips them, a backfill asks for them
WARM = 180.0  # seconds after which a process has what it needs: clients of S3 and of the target load with their first output
LEAD_OUT = 0.6  # of the time; later the poller is not killed any more, so that one process is old in the end
WORKING = ("queued", "submitted", "running")
OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
SETTLED = 180.0  # seconds that the last registrations may take, after what the faults left


@dataclass
class Soak:
    """One run of it."""

    stack: Stack
    places: Places
    rng: random.Random
    faults: Mapping[str, faults.Fault]
    items: list[str] = field(default_factory=list)
    archive: list[str] = field(default_factory=list)  # for the backfill
    revisions: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    young: Poller | None = None  # the process that works now, when it was warm
    old: Poller | None = None  # the same one, last
    most_mb: float = 0.0

    def publish(self, age: timedelta = timedelta()) -> None:
        """A new item, or one of before with another product."""
        rows = self.stack.items()
        done = [item for item in self.items if rows.get(item, {}).get("state") == "done"]
        again = not age and bool(done) and self.rng.random() < AGAIN
        item = self.rng.choice(done) if again else self.stack.item_id(age)
        self.stack.publish(item, revision=self.revisions[item] + 1)
        self.revisions[item] += 1
        if not again:
            (self.archive if age else self.items).append(item)

    def watch(self) -> None:
        """Notes how much the poller's process holds."""
        with suppress(HarnessError, KeyError):  # it was killed a moment ago
            now = poller(self.stack)
            self.most_mb = max(self.most_mb, now.memory_mb)
            if self.young is None or self.young.started != now.started:
                self.young = now if time.time() - now.started > WARM else None
            else:
                self.old = now

    def live(self, seconds: float) -> None:
        """Publishes, breaks, watches."""
        began = time.monotonic()
        fault_at, item_at = began + FAULT_EVERY / 2, began
        with Progress(transient=True) as progress:
            bar = progress.add_task("soaking", total=seconds)
            while (now := time.monotonic()) < began + seconds:
                progress.update(bar, completed=now - began)
                if now >= item_at:
                    with suppress(HarnessError, OSError):  # nobody can be asked now: the next one is published a little later
                        self.publish()
                        item_at += ITEM_EVERY
                if now >= fault_at:
                    fault_at += FAULT_EVERY
                    self.break_something(late=now - began > LEAD_OUT * seconds)
                self.watch()
                time.sleep(2)

    def break_something(self, *, late: bool) -> None:
        """One fault; where nobody can be asked, nothing is broken a second time."""
        names = [name for name in self.faults if not (late and name == "poller killed")]
        name = self.rng.choice([n for n in names if self.broken[n] == min(self.broken[m] for m in names)])
        with suppress(HarnessError, OSError):
            self.faults[name](self.stack, partial(daemons.act, self.places), self.rng)
            self.broken[name] += 1
            print(f"{datetime.now(UTC):%H:%M:%S} {name}", flush=True)

    def backfill(self, number: int) -> None:
        """Publishes older items, which discovery skips, and asks for them."""
        first = datetime.now(UTC) - OLD
        for _ in range(number):
            self.publish(age=OLD)
        self.stack.await_state("skipped", *self.archive)
        days = f"--start={first - timedelta(days=1):%Y-%m-%d}", f"--end={first:%Y-%m-%d}"
        self.stack.poller("backfill", "s2-l2a", *days, "--yes")

    def drain(self, seconds: float) -> None:
        """Waits until nothing is under way."""

        def ended() -> bool:
            self.watch()
            with suppress(HarnessError):
                rows = self.stack.items()
                return all(rows.get(item, {}).get("state", "queued") not in WORKING for item in (*self.items, *self.archive))
            return False

        with suppress(TimeoutError):  # what is left is counted as lost
            slowly(ended, seconds)


# -- what must hold ----------------------------------------------------------------------------------------------------------


def judged(soak: Soak) -> list[Goal]:
    """Items: none lost, none doubled, no gap."""
    rows, stack = soak.stack.items(), soak.stack
    lost = [item for item in (*soak.items, *soak.archive) if rows.get(item, {}).get("state") != "done"]
    for item in lost:
        print(f"LOST {item}: {rows.get(item)}")
    made: dict[str, set[str]] = {}
    for workflow in stack.workflows():
        if (end := outcome(workflow)).get("code") == 0:
            made.setdefault(end["key"], set()).add(end["run"])
    doubled = {key: runs for key, runs in made.items() if len(runs) > 1}
    for key, runs in doubled.items():
        print(f"DOUBLED {key}: {sorted(runs)}")
    gaps = 0
    try:
        stack.poller("audit", "s2-l2a", "--start=500d", "--end=0d", "--json")
    except HarnessError as found:
        print(f"AUDIT {found}")
        gaps = 1
    unregistered = len(registered_otherwise(soak))
    return [Goal("items that are not done", len(lost), 0), Goal("products converted twice", len(doubled), 0),
            Goal("audits with gaps", gaps, 0),
            Goal("outputs that are not registered as they are", unregistered, 0)]  # fmt: skip


def registered_otherwise(soak: Soak) -> set[str]:
    """Returns the items whose output is not in the catalog of outputs with the product that was published last."""
    wanted = {item: soak.revisions[item] for item in (*soak.items, *soak.archive)}
    found: dict[str, int] = {}

    def settled() -> bool:
        with suppress(HarnessError, OSError), soak.stack.forward(soak.stack.namespace, "svc/catalog", CATALOG_PORT) as port:
            url = f"http://127.0.0.1:{port}/collections/{OUTPUTS}/items?limit=1000"
            with urllib.request.urlopen(url, timeout=60) as answer:
                found.update({feature["id"]: revision_of(feature) for feature in json.load(answer)["features"]})
        return found == wanted

    with suppress(TimeoutError):
        slowly(settled, SETTLED)
    for item in (wrong := {item for item, revision in wanted.items() if found.get(item) != revision}):
        print(f"REGISTERED {item}: product {found.get(item)}, wanted {wanted[item]}")
    return wrong


def revision_of(feature: Mapping[str, Any]) -> int:
    """Returns which product an output was made of: `…/products/v2/…` is the second."""
    [source] = [link["href"] for link in feature["links"] if link["rel"] == "via"]
    return int(source.partition("/products/v")[2].partition("/")[0] or 0)


def footprint(stack: Stack, places: Places) -> dict[str, int]:
    """Counts what lies on the cluster and on the node."""
    namespace = ("-n", stack.namespace)
    mounts = Path("/proc/self/mountinfo").read_text().count(str(places.run))
    claims = [v for v in stack.kubectl.get("pv")["items"] if v["spec"].get("claimRef", {}).get("namespace") == stack.namespace]
    return {
        "Workflows": len(stack.kubectl.get("workflows", *namespace)["items"]),
        "pods": len(stack.kubectl.get("pods", *namespace)["items"]),
        "volume claims": len(stack.kubectl.get("pvc", *namespace)["items"]),
        "volumes": len(claims),
        "Secrets": len(stack.kubectl.get("secrets", *namespace)["items"]),
        "node: processes": len(set(daemons.ours())),
        "node: container mounts": mounts,
        "node: volume folders": len(list((places.state / "volumes").iterdir())),
    }


def cleaned(soak: Soak, before: Mapping[str, int]) -> dict[str, int]:
    """Cleans up as an operator does, and counts again, once what ends has ended."""
    stack = soak.stack
    command = Path(sys.executable).parent / "stac-watch"
    for argv in (["--older-than=0s", "--yes"], ["--volumes", "--yes"]):
        argv = [str(command), "cluster", "clean", *argv, f"--config={stack.folder / 'stac-watch.yaml'}"]
        env = {"KUBECONFIG": str(stack.kubectl.kubeconfig), "NO_PROXY": "*"}
        subprocess.run(argv, env=env, check=True, capture_output=True, text=True)  # noqa: S603  # our own verb
    after: dict[str, int] = {}

    def as_before() -> bool:
        after.update(footprint(stack, soak.places))
        return all(after[name] <= number for name, number in before.items())

    with suppress(TimeoutError):
        slowly(as_before, 120)
    return after


def report(soak: Soak, minutes: float, before: Mapping[str, int]) -> Result:
    """Judges everything."""
    goals = judged(soak)
    runs = len(soak.stack.workflows())
    after = cleaned(soak, before)
    counts = {"minutes": round(minutes, 1), "items": len(soak.items), "items of the backfill": len(soak.archive),
              "products": soak.revisions.total(), "Workflows made": runs, "faults": soak.broken.total()}  # fmt: skip
    rows: list[list[Any]] = [[name, "", number] for name, number in counts.items()]
    rows += [[f"… {name}", "", number] for name, number in sorted(soak.broken.items())]
    rows += [[name, number, after[name]] for name, number in before.items()]
    goals += [Goal(f"{name}, more than before", after[name] - number, 0) for name, number in before.items()]
    if soak.young and soak.old:
        young, old = soak.young, soak.old
        rows += [["poller: memory, MB", young.memory_mb, old.memory_mb], ["poller: most memory of all its processes, MB", "",
                 soak.most_mb], ["poller: open files", young.handles, old.handles],
                 ["poller: minutes between the two", "", (old.cpu_s and (time.time() - old.started) / 60)],
                 ["ledger, MB", young.ledger_mb, old.ledger_mb]]  # fmt: skip
        goals += [Goal("poller: memory, after / before", old.memory_mb / young.memory_mb, 1.25),
                  Goal("poller: open files, more than before", old.handles - young.handles, 4)]  # fmt: skip
    return Result(
        "soak", f"{minutes:.0f} minutes of work of an installation by the chart while something breaks every minute", "make soak",
        ["what", "before", "after"], rows, goals=goals,
        notes=["`before` is a fresh installation; of the poller's process, three minutes after its last start."],
    )  # fmt: skip


def all_faults(database: Postgres) -> Mapping[str, faults.Fault]:
    """Returns what is broken: what breaks in any installation, and what this one has besides."""

    def database_cuts(*_: object) -> None:
        database.sql(OTHERS)

    return {**faults.ALL, **faults.OF_THE_TARGET, "database cuts its connections": database_cuts}


def main() -> int:
    """Soaks, prints, keeps; 1 when something is not as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backfill", type=int, default=8, help="older items, which a backfill asks for")
    given = parser.parse_args()
    places = Places.from_environment(os.environ)
    with charted("stac-watch-soak", limits={"max_in_flight": 3}) as (stack, database):
        soak = Soak(stack, places, random.Random(given.seed), all_faults(database))  # noqa: S311  # which fault comes next
        before = footprint(stack, places)
        soak.backfill(given.backfill)
        soak.live(given.minutes * 60)
        soak.drain(900)
        result = report(soak, given.minutes, before)
        if not all(goal.reached for goal in result.goals):
            stack.keep_evidence(places.root / "var" / "cluster-evidence" / "soak")
    result.keep()
    print(json.dumps({goal.what: goal.value for goal in result.goals if not goal.reached}))
    return 0 if all(goal.reached for goal in result.goals) else 1


if __name__ == "__main__":
    sys.exit(main())
