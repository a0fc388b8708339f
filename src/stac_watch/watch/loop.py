"""The loop: discover, reconcile, dispatch; again and again, or once to the end.

It keeps nothing in memory that the ledger does not hold: killed at any moment and started again, it goes on as if nothing had
happened.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

from stac_watch.catalog.client import Catalog
from stac_watch.catalog.stores import Stores
from stac_watch.config.model import OURS, Limits, Recipe, Source
from stac_watch.discover.intake import Intake
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import NO_RIVALS, ConversionRow, Rivals, Tally
from stac_watch.ledger.session import LeaseLost
from stac_watch.model.errors import CannotWrite, Refused, StacWatchError, Temporary
from stac_watch.model.identity import source_of
from stac_watch.model.outcome import Outcome
from stac_watch.model.patience import CLOCKS, Rest
from stac_watch.model.states import Fact, State
from stac_watch.register.causes import Causes
from stac_watch.register.registrar import Registrar, Round
from stac_watch.register.sinks import Announcer, Posted
from stac_watch.runs.dispatch import Sent, dispatch
from stac_watch.runs.engine import Engine, Runs
from stac_watch.runs.expiry import expire
from stac_watch.runs.lanes import reserved
from stac_watch.runs.pace import Throttle, TokenBucket
from stac_watch.runs.reconcile import reconcile
from stac_watch.watch.aside import Aside, Telling
from stac_watch.watch.hints import Hints
from stac_watch.watch.observer import Observer

ENGINE, LEDGER, REGISTER, SINKS = "engine", "ledger", "register", "sinks"
BESIDE = frozenset({REGISTER, SINKS})  # what is wrong there stops nothing
REFUSED_PAUSE = timedelta(minutes=1)  # until a person acts nothing changes; once they did it should be noticed
STANDBY = 5.0  # seconds between looks at a ledger that another watcher has
SHARE = 10  # times as long as a look at the runs took, and saw nothing new, passes before the next: 500 are 1 MB of metadata
LONGEST_PAUSE = timedelta(seconds=30)  # between two looks
KEPT = timedelta(days=14)  # a failed Workflow is there for so long (the template's TTL), and a person may retry it
VOLUMES_EVERY = timedelta(minutes=10)  # between two looks at which outputs went with their runs' volumes
RECENT = timedelta(minutes=15)  # what the ledger says of a source is from now: a watcher that starts again goes on at once
MOST_GIVEN_UP = 50  # failed conversions that are looked at again, the latest first; for the others there is `replay`


@dataclass(frozen=True)
class Parts:
    """What a watcher works with."""

    sources: tuple[Source, ...]
    recipe: Recipe
    limits: Limits
    ledger: Ledger
    engine: Engine
    catalogs: Mapping[str, Catalog]
    read_marker: Callable[[str], Outcome | None]  # raises Unavailable where it cannot look
    now: Callable[[], datetime]
    wait: Callable[[float], bool]  # waits so many seconds; True when asked to stop
    rng: random.Random
    beat: float = 1.0  # seconds between looks at the engine
    patience: float = 5.0  # seconds that a round waits for sources; one that hangs goes on in its own thread
    holder: str = ""  # this watcher's name in the lease; empty = it does not ask for one
    installation: str = ""  # whose outputs it makes
    registrar: Registrar | None = None  # None = nothing is registered
    announcers: tuple[Announcer, ...] = ()  # one for each sink
    causes: Causes | None = None  # None = nobody is told of what fails
    volumes: Callable[[], Collection[str]] | None = None  # of runs, by their names; None where outputs lie on no run's volume
    describe: Callable[[], None] | None = None  # writes for people why runs failed; None where there is nothing to write it to
    keep: timedelta = timedelta(0)  # for which Workflows, and with them their volumes, stay after success
    gives_way: bool = False  # it leaves the ledger to any watcher that does not
    rivals: Mapping[str, Rivals] = field(default_factory=dict)  # by source: who may have the same acquisitions
    stores: Mapping[str, Stores] = field(default_factory=dict)  # of products, by source; without them none is looked at
    hints: Hints = field(default_factory=Hints)  # which sources are to be asked now, and when the loop has something to do

    def intake(self, source: Source) -> Intake:
        """Returns what documents of a source pass through."""
        rivals = self.rivals.get(source.name, NO_RIVALS)
        return Intake(source, self.recipe, self.catalogs[source.name], self.ledger, self.now, self.installation, rivals)


@dataclass(frozen=True)
class Tick:
    """What one round of the loop did."""

    tallies: Mapping[str, Tally] = field(default_factory=dict)
    problems: Mapping[str, StacWatchError] = field(default_factory=dict)  # by source, or `engine`; it is asked again
    facts: Mapping[Fact, int] = field(default_factory=dict)
    sent: Sent = field(default_factory=Sent)
    standby: str = ""  # who has the ledger, when it is not this watcher
    ailing: Mapping[str, StacWatchError] = field(default_factory=dict)  # problems of this or an earlier round that last
    runs: Runs = field(default_factory=Runs)  # as they were looked at last
    published: Round = field(default_factory=Round)  # what became of items that were to be registered
    posted: Posted = field(default_factory=Posted)  # what became of events that sinks were to be told

    @property
    def idle(self) -> bool:
        """Nothing moved."""
        news = any(t.admitted or t.skipped or t.unreadable for t in self.tallies.values())
        beside = (self.published, self.posted) != (Round(), Posted())
        return not self.facts and self.sent == Sent() and not beside and not news


class Watcher:
    """The loop over its parts."""

    def __init__(self, parts: Parts, *, observing: bool = True) -> None:
        self._p = parts
        own = {s.name: s.max_in_flight for s in parts.sources if s.max_in_flight is not None}
        caps = reserved([s.name for s in parts.sources], parts.limits.max_in_flight, own)
        self._throttle = Throttle(TokenBucket(parts.limits.rate), caps=caps, max_in_flight=parts.limits.max_in_flight)
        self._observers = [
            Observer(parts.intake(source), parts.rng, parts.hints, parts.stores.get(source.name))
            for source in (parts.sources if observing else ())
        ]
        self._registering = Aside(parts.registrar, "register") if parts.registrar is not None else None
        self._telling = Telling(parts.announcers, parts.causes)
        self._refused: Rest | None = None  # of an engine that refused us
        self._looked: Rest | None = None  # between two looks at the runs
        self._unasked = {o.name for o in self._observers}  # sources that have not answered since this watcher began
        self._stale: frozenset[str] | None = None  # of those, the ones of which the ledger has no recent word
        self._expired: Rest | None = None  # between two looks at volumes
        self._gave_up: Rest | None = None  # between two looks at failed conversions
        self._clock: datetime | None = None  # as it was at the last round
        self._runs = Runs()  # as they were looked at last
        self._ailing: dict[str, StacWatchError] = {}  # until a source answers, or the engine works
        self._afresh = True  # nothing was looked at yet: the ledger may have been restored
        self._renamed = False  # what sources with a new name had is theirs

    def tick(self, *, to_the_end: bool = False, waits: bool = True, early: bool = False) -> Tick:
        """One round: asks the sources whose time has come, looks at the engine, sends what there is room for.

        A source that does not answer is waited for as long as `patience` says, once, and looked at again in each later round;
        `to_the_end` waits for all of them, their sweeps included. A loop that the bell wakes does not wait, and is `early` where it
        was woken.
        """
        tallies: dict[str, Tally] = {}
        problems: dict[str, StacWatchError] = {}
        self._stale = self._long_unasked() if self._stale is None else self._stale
        started = self._started(problems, to_the_end=to_the_end, early=early)
        deadline = monotonic() + (self._p.patience if waits else 0.0)
        for observer in self._observers:
            patience = max(0.0, deadline - monotonic()) if observer in started else 0.0
            tally, problem = observer.collect(None if to_the_end else patience)
            if isinstance(problem, LeaseLost):
                raise problem
            if tally is not None:
                tallies[observer.name] = tally
                self._unasked.discard(observer.name)
                self._ailing.pop(observer.name, None)
            if problem is not None:
                problems[observer.name] = problem
        facts, sent = self._work(problems)
        published, posted = self._publish(problems), self._tell(problems)
        self._ailing |= problems
        ailing = dict(self._ailing)
        return Tick(tallies, problems, facts, sent, ailing=ailing, runs=self._runs, published=published, posted=posted)

    def _publish(self, problems: dict[str, StacWatchError]) -> Round:
        """Registers what is done; a catalog that does not take it stops nothing else."""
        ended, problem = self._registering.turn() if self._registering is not None else (None, None)
        if isinstance(problem, LeaseLost):
            raise problem
        if problem is not None:
            problems[REGISTER] = problem
        elif ended is not None:
            self._ailing.pop(REGISTER, None)
        return ended or Round()

    def _tell(self, problems: dict[str, StacWatchError]) -> Posted:
        """Tells sinks what they wait for; one that does not take it stops nothing else."""
        posted, problem, well = self._telling.turn()
        if isinstance(problem, LeaseLost):
            raise problem
        if problem is not None:
            problems[SINKS] = problem
        elif well:
            self._ailing.pop(SINKS, None)
        return posted

    def _started(self, problems: dict[str, StacWatchError], *, to_the_end: bool, early: bool) -> list[Observer]:
        """Starts the rounds whose time has come."""
        started = []
        for observer in self._observers:
            try:
                if observer.start(to_the_end=to_the_end, early=early):
                    started.append(observer)
            except Temporary as error:
                problems[observer.name] = error
        return started

    def _work(self, problems: dict[str, StacWatchError]) -> tuple[Mapping[Fact, int], Sent]:
        """Reconciles and dispatches; an engine that refuses us, or does not answer, stops neither the loop nor discovery."""
        p, sent = self._p, Sent()
        facts: Mapping[Fact, int] = {}
        if self._refused is not None and self._refused.lasts(p.now()):
            return facts, sent
        self._refused = None
        try:
            self._mind_the_clock()
            facts = self._reconcile()
            self._expire()
            sent = dispatch(p.ledger, p.engine, self._throttle, p.rng, p.now, p.read_marker, self._held_back())
            if self._throttle.breaker.rest is None or p.ledger.outbox.next_due() is None:
                self._ailing.pop(ENGINE, None)
            elif sent.unknown:
                hint = "events wait; `stac-watch check` asks it now"
                problems[ENGINE] = Temporary(f"no clear answer to an event: {self._throttle.breaker.said}", hint=hint)
        except LeaseLost:
            raise
        except Temporary as error:
            problems[ENGINE] = error
        except OSError as error:  # descriptors, processes or memory are used up, or a disk is away: it passes, or a person helps
            hint = "it is tried again; see this machine's limits, memory and disks"
            problems[ENGINE] = Temporary(f"this machine cannot do it: {error}", hint=hint)
        except (Refused, CannotWrite) as error:
            problems[ENGINE] = error
            self._refused = Rest(p.now(), p.now() + REFUSED_PAUSE)
        return facts, sent

    def _reconcile(self) -> Mapping[Fact, int]:
        """Looks at the runs, as often as it is cheap."""
        p, began = self._p, self._p.now()
        if self._looked is not None and self._looked.lasts(began):
            return {}
        afresh, self._afresh = self._afresh, False
        facts = reconcile(
            p.ledger, p.engine, p.limits, p.read_marker, p.now, self._given_up(), self._see,
            installation=p.installation, afresh=afresh,
        )  # fmt: skip
        ended = p.now()
        self._looked = None if facts else Rest(ended, ended + min(LONGEST_PAUSE, SHARE * (ended - began)))
        if p.describe is not None:
            p.describe()
        return facts

    def _long_unasked(self) -> frozenset[str]:
        """Returns the sources that this watcher asks, and that the ledger says were not asked for a while."""
        now, asked = self._p.now(), self._p.ledger.sources.asked_at
        mine = [s for s in self._p.sources if s.name in self._unasked]
        ages = {s.name: (at, max(RECENT, 3 * s.poll.interval)) for s in mine if (at := asked(s.name)) is not None}
        return frozenset(name for name, (at, recent) in ages.items() if now - at > recent)

    def _held_back(self) -> Collection[str]:
        """Returns the sources of which nothing is sent until they have answered once.

        The ledger's last word of them is old: it was restored, or nobody watched. What waits in it may have a newer revision.
        """
        return self._stale & self._unasked if self._stale else ()

    def _expire(self) -> None:
        """Notes now and then which outputs went with their runs' volumes."""
        p = self._p
        if p.volumes is None or (self._expired is not None and self._expired.lasts(p.now())):
            return
        self._expired = Rest(p.now(), p.now() + VOLUMES_EVERY)
        with suppress(Refused):  # an account that may not look at claims, as before this was asked: `check` says so
            expire(p.ledger, p.volumes(), p.now(), p.keep)

    def _mind_the_clock(self) -> None:
        """Lets nothing wait for a time that was set by another clock: the first round, and each after the clock was set back."""
        before, self._clock = self._clock, self._p.now()
        if before is None or self._clock < before - CLOCKS:
            self._p.ledger.outbox.bring_forward(self._clock, CLOCKS)

    def _see(self, runs: Runs) -> None:
        self._runs = runs

    def _given_up(self) -> list[ConversionRow]:
        """Returns failed conversions, as rarely as the longest pause between two looks."""
        now = self._p.now()
        if self._gave_up is not None and self._gave_up.lasts(now):
            return []
        self._gave_up = Rest(now, now + LONGEST_PAUSE)
        return self._p.ledger.conversions.find(state=State.FAILED, since=now - KEPT, limit=MOST_GIVEN_UP)

    def run(self, report: Callable[[Tick], None]) -> None:
        """Goes on until asked to stop; as a standby while another watcher has the ledger."""
        self._p.ledger.listen(self._p.hints.hear)
        left: float | None = 0.0  # seconds to the next beat
        while left is not None:
            tick = self.turn(waits=False, early=left > 0)
            report(tick)
            beat = STANDBY if tick.standby else self._p.beat
            sources = () if tick.standby or tick.problems else self._observers  # where nobody could follow a hint, it waits
            left = self._p.hints.rest(self._p.wait, left if left > 0 else beat, sources)

    def drain(self, report: Callable[[Tick], None]) -> bool:
        """One tick to the end: asks once, then sees every event that is due through; False when asked to stop before.

        What is wrong with one source is raised when those of the others are through.

        Raises:
            Temporary: a catalog or the engine does not answer.
            Refused: the engine takes nothing until a person acts.
            StacWatchError: a catalog's answer that nothing can be done with.
        """
        first, trouble = True, list[StacWatchError]()
        while True:
            tick = self.turn(to_the_end=first)
            report(tick)
            for name, problem in tick.problems.items():
                if name in OURS - BESIDE and (first or isinstance(problem, Refused)):
                    raise problem
            if not tick.standby:
                trouble += [problem for name, problem in tick.problems.items() if first and name not in OURS]
                first = False
                for observer in self._observers:
                    observer.rest(self._p.now() + timedelta(days=36_500))  # asked once, and no more
                if self._settled():
                    if trouble:
                        raise trouble[0]
                    return True
            if self._p.wait(STANDBY if tick.standby else self._p.beat):
                return False

    def turn(self, *, to_the_end: bool = False, waits: bool = True, early: bool = False) -> Tick:
        """One round if the ledger is this watcher's, or can be; else nothing but who has it."""
        p = self._p
        try:
            if p.holder and not p.ledger.lease.hold(p.holder, p.now, gives_way=p.gives_way):
                holder = p.ledger.lease.holder()
                return Tick(standby=holder[0] if holder else "another watcher")
            self._take_over_renamed()
            return self.tick(to_the_end=to_the_end, waits=waits, early=early)
        except LeaseLost:
            return Tick(standby="another watcher")
        except Temporary as error:  # the ledger does not answer: nothing can be done until it does, and nothing else is wrong
            return Tick(problems={LEDGER: error}, ailing={**self._ailing, LEDGER: error})

    def _take_over_renamed(self) -> None:
        """Lets what the ledger has of a source go on under its new name; once, and only who has the ledger."""
        if not self._renamed:
            names: dict[str, str] = {}
            for source in self._p.sources:
                names.setdefault(source_of(source.api, source.collection), source.name)
            for old, new in self._p.ledger.renaming.orphans(names).items():
                self._p.ledger.renaming.rename(old, new)
        self._renamed = True

    def _settled(self) -> bool:
        if self._telling.has_work or (self._registering is not None and self._registering.has_work):
            return False
        due = self._p.ledger.outbox.next_due()
        return not self._p.ledger.conversions.unfinished() and (due is None or due > self._p.now())
