"""Random lives of a few items through the real ledger, dispatch and reconcile, on a cluster that answers and forgets as it likes.

After every step the ledger is consistent and no output has two writers of different revisions; and whatever happened, once the
cluster behaves, every item ends in a final state with the output of its current revision.
"""

import contextlib
import json
import random
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import event as sa_event

from stac_watch.config.model import Limits
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Move
from stac_watch.model.item import SkipReason
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import FINAL, Fact, State
from stac_watch.runs.dispatch import dispatch
from stac_watch.runs.engine import Answer, Phase, Receipt, Run
from stac_watch.runs.pace import Throttle, TokenBucket
from stac_watch.runs.reconcile import reconcile

ITEMS, REVISIONS = ("item-a", "item-b"), ("rev-a", "rev-b", "rev-c")
LIMITS = Limits(attempts=3, confirm_after="15m")
CODES = (0, 65, 66, 75, 137, 143)
# answer, and what became of the event: a run now, a run in a moment (`bus`), or nothing
MOODS = [(a, fate) for a in (Answer.ACCEPTED, Answer.UNKNOWN) for fate in ("run", "bus", "lost")] + [(Answer.REFUSED, "lost")]
ACTIVE = (Phase.PENDING, Phase.RUNNING)


class Cluster:
    """Answers as its mood is; the same event never makes a second run."""

    def __init__(self):
        self.mood = (Answer.ACCEPTED, "run")
        self.shown: dict[str, Run] = {}
        self.names: set[str] = set()
        self.bus: dict[str, bytes] = {}
        self.target: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self.hopeless: set[str] = set()

    def headroom(self):
        return 3

    def submit(self, event):
        data = json.loads(event)["data"]
        answer, fate = self.mood
        if answer is Answer.REFUSED:
            self.hopeless.add(data["key"])
        if fate == "run":
            self.start(event)
        elif fate == "bus":
            self.bus[data["run"]] = event
        return Receipt(answer)

    def start(self, event):
        data = json.loads(event)["data"]
        self.bus.pop(data["run"], None)
        if data["run"] not in self.shown:
            self.names.add(data["run"])
            self.target[data["run"]] = data["output_zarr"]
            self.shown[data["run"]] = Run(data["run"], data["key"], data["attempt"], Phase.RUNNING)

    def end(self, run, code):
        if code == 0:
            self.outputs[self.target[run.name]] = run.key
        if code == 65:
            self.hopeless.add(run.key)
        phase = Phase.FAILED if code else Phase.SUCCEEDED
        self.shown[run.name] = replace(run, phase=phase, outcome=Outcome(code=code, key=run.key, reason=f"code {code}"))

    def runs(self, keys):
        return [run for run in self.shown.values() if run.key in keys]

    def active(self):
        return [run for run in self.shown.values() if run.phase in ACTIVE]


def machine(make, invariants):  # noqa: C901  # one rule per thing that can happen
    class Lives(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.place = tempfile.TemporaryDirectory()
            self.path = Path(self.place.name) / "ledger.db"
            self.cluster, self.now, self.wanted = Cluster(), make.now, {}
            self.rng = random.Random(0)
            self.open()

        def open(self):
            engine = open_engine(f"sqlite:///{self.path}")
            # what is on trial is what a transaction holds, not whether the disk keeps it
            sa_event.listen(engine, "connect", lambda connection, _record: connection.execute("PRAGMA synchronous=OFF"))
            self.ledger = Ledger(engine)
            self.ledger.prepare()

        @rule(
            item=st.sampled_from(ITEMS),
            revision=st.sampled_from(REVISIONS),
            skip=st.sampled_from([None, None, SkipReason.TOO_CLOUDY]),
        )
        def the_catalog_shows(self, item, revision, skip):
            known = self.ledger.items.known("s2", [item]).get(item)
            self.wanted[item] = skip is None or (known is not None and known.revision == revision and self.wanted[item])
            if known is not None and known.revision == revision and known.state is not State.SKIPPED:
                return
            sighting = make.sighting(skip, item_id=item, revision=revision, kind="replace" if known else "create")
            self.ledger.items.commit("s2", [sighting], [], ("s2:updated", self.now), self.now)

        @rule(mood=st.sampled_from(MOODS))
        def events_go_out(self, mood):
            self.cluster.mood = mood
            dispatch(self.ledger, self.cluster, Throttle(TokenBucket(1000, tokens=1000)), self.rng, lambda: self.now)

        @rule()
        def the_watcher_looks(self):
            reconcile(self.ledger, self.cluster, LIMITS, lambda _: None, lambda: self.now)

        @precondition(lambda self: self.cluster.bus)
        @rule(data=st.data())
        def the_bus_delivers(self, data):
            self.cluster.start(self.cluster.bus[data.draw(st.sampled_from(sorted(self.cluster.bus)))])

        @precondition(lambda self: self.cluster.active())
        @rule(data=st.data(), code=st.sampled_from(CODES))
        def a_run_ends(self, data, code):
            self.cluster.end(data.draw(st.sampled_from(self.cluster.active())), code)

        @precondition(lambda self: self.cluster.shown)
        @rule(data=st.data())
        def a_run_is_deleted(self, data):
            del self.cluster.shown[data.draw(st.sampled_from(sorted(self.cluster.shown)))]

        @rule(minutes=st.sampled_from([1, 5, 20, 600]))
        def time_passes(self, minutes):
            if not self.cluster.bus:  # what the bus delivers, it delivers before the deadline
                self.now += timedelta(minutes=minutes)

        @rule(data=st.data())
        def a_person_replays_what_is_current(self, data):
            rows = [r for r in self.ledger.conversions.find() if r.state in FINAL and not self.ledger.conversions.superseded(r)]
            if rows:
                row = data.draw(st.sampled_from(sorted(rows, key=lambda r: r.key)))
                self.ledger.conversions.move(row, Move(Fact.REPLAYED, "asked for", lane="replay"), self.now)
                self.wanted[row.item_id] = True

        @rule()
        def the_watcher_is_killed_and_started_again(self):
            self.ledger.close()
            self.open()

        @invariant()
        def the_ledger_is_consistent(self):
            invariants(self.path)

        @invariant()
        def no_output_has_two_writers(self):
            writers = Counter(self.cluster.target[run.name] for run in self.cluster.active())
            assert all(count == 1 for count in writers.values()), writers

        @invariant()
        def nothing_is_dead_while_its_run_lives(self):
            for run in self.cluster.active():
                row = self.ledger.conversions.get(run.key)
                assert (row.state, row.attempt) != (State.FAILED, run.attempt), run.name

        def teardown(self):
            with contextlib.ExitStack() as stack:
                stack.callback(self.place.cleanup)
                stack.callback(self.ledger.close)
                self.settle()

        def settle(self):
            self.cluster.mood = (Answer.ACCEPTED, "run")
            for _ in range(60):
                for event in list(self.cluster.bus.values()):
                    self.cluster.start(event)
                for run in self.cluster.active():
                    self.cluster.end(run, 0)
                self.the_watcher_looks()
                self.now += timedelta(hours=7)
                dispatch(self.ledger, self.cluster, Throttle(TokenBucket(1000, tokens=1000)), self.rng, lambda: self.now)
                self.no_output_has_two_writers()
                if not self.ledger.conversions.unfinished() and self.ledger.outbox.next_due() is None:
                    break
            self.the_ledger_is_consistent()
            rows = {row.key: row for row in self.ledger.conversions.find()}
            assert {row.state for row in rows.values()} <= FINAL
            for item, known in self.ledger.items.known("s2", ITEMS).items():
                row = rows[known.key]
                if row.state is State.DONE:
                    assert self.cluster.outputs[row.output_zarr] == row.key, "the output is not the current revision's"
                elif self.wanted[item]:
                    assert row.state is State.FAILED, f"{item} is wanted and {row.state}"

    return Lives


def test_whatever_happens_every_item_ends_where_it_should(make, invariants):
    run_state_machine_as_test(
        machine(make, invariants),
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            # shrinking a life of thirty steps takes minutes; the printed steps are read more quickly
            phases=[HypothesisPhase.explicit, HypothesisPhase.reuse, HypothesisPhase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
