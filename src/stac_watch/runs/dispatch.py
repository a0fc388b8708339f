"""Sends what waits in the outbox: as fast as the engine has room and the rate allows, and not faster.

No event is only in memory, and none is posted that the ledger does not know to be going out. An answer without meaning (5xx, a
time-out) means "send the same again", and to an engine that gives only such ones nothing is posted for a while.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow, Load, Move, OutboxRow, Place, Queue
from stac_watch.ledger.session import StaleState
from stac_watch.model.errors import Refused, Unavailable
from stac_watch.model.event import attempt_of
from stac_watch.model.outcome import Outcome
from stac_watch.model.states import IN_FLIGHT, Fact, State
from stac_watch.runs.engine import Answer, Engine, Phase, Receipt, Run
from stac_watch.runs.lanes import allowed, next_queue
from stac_watch.runs.pace import PAUSES, Throttle


@dataclass(frozen=True)
class Sent:
    """How many events a dispatch sent, and how many answers were not clear."""

    accepted: int = 0
    refused: int = 0
    unknown: int = 0


@dataclass
class Names:
    """Runs that are there before anything was posted: a ledger that was restored numbers its attempts anew, and meets them."""

    ledger: Ledger
    engine: Engine
    read_marker: Callable[[str], Outcome | None]
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def look(self, rows: Iterable[OutboxRow]) -> None:
        """Asks the engine for the runs of conversions whose events go out for the first time."""
        keys = [row.key for row in rows if not row.posts]
        for run in self.engine.runs(keys) if keys else ():
            self.runs.setdefault(run.key, []).append(run)

    def free(self, row: OutboxRow) -> int | None:
        """Returns the number that an event must have instead, where a run of its own name would not do what it asks for."""
        if row.posts:
            return None
        attempt, again = attempt_of(row.body)
        runs = self.runs.get(row.key, ())
        there = [run.attempt for run in runs]
        named = {run.phase for run in runs if run.attempt == attempt}
        if not again:
            met = Phase.FAILED in named or (Phase.SUCCEEDED in named and self._marked(row.key) == 0)
            return max(there) + 1 if met else None
        # who asks for what is done must not be told by an earlier run that it is
        highest = max([*there, self._marked(row.key) or 0])
        return highest + 1 if highest >= attempt else None

    def _marked(self, key: str) -> int | None:
        """Returns the attempt that the marker of a conversion's output names; 0 without one, None where nobody can look."""
        conversion = self.ledger.conversions.get(key)
        if conversion is None:
            return None
        try:
            marker = self.read_marker(conversion.output_zarr)
        except Unavailable:
            return None
        return marker.attempt if marker is not None and marker.key == key else 0


@dataclass
class _Desk:
    """What waits in each queue, read when its turn comes."""

    ledger: Ledger
    room: int
    now: datetime
    waiting: set[Queue]
    in_flight: Counter[Queue]
    allowance: dict[Queue, int]
    names: Names
    rows: dict[Queue, deque[OutboxRow]] = field(default_factory=dict)

    def next(self, caps: Mapping[str, int]) -> tuple[Queue, OutboxRow] | None:
        while self.room > 0 and (queue := next_queue(self.waiting, self.in_flight, caps)) is not None:
            if queue not in self.rows:
                self.rows[queue] = deque(
                    self.ledger.outbox.due(self.now, min(self.room, self.allowance.get(queue, self.room)), queue)
                )
                self.names.look(self.rows[queue])
            if self.rows[queue]:
                return queue, self.rows[queue].popleft()
            self.waiting.discard(queue)
        return None


def dispatch(
    ledger: Ledger,
    engine: Engine,
    throttle: Throttle,
    rng: random.Random,
    now: Callable[[], datetime],
    read_marker: Callable[[str], Outcome | None] = lambda _: None,
    unasked: Collection[str] = (),
) -> Sent:
    """Sends due events until the outbox, the room or the rate is used up; none of a source that is `unasked`.

    The room is what the engine has, and no more than `max_in_flight` leaves by the ledger's own count: an engine that was just
    started does not know what the one before it was told, and of an accepted event there may be no run to be seen yet.

    Raises:
        Refused: the engine takes nothing until a person acts; nothing was lost.
        Temporary: the engine cannot say how much room it has.
    """
    breaker = throttle.breaker
    load = ledger.outbox.load(now()) if not breaker.is_open(now()) else None
    if load is None:
        return Sent()
    names = Names(ledger, engine, read_marker)
    desk = _open(names, load, engine.headroom(), now(), throttle.max_in_flight)
    desk.waiting -= {queue for queue in desk.waiting if queue.source in unasked}
    answers: Counter[Answer | None] = Counter()
    while (turn := desk.next(throttle.caps)) is not None and throttle.bucket.take(now()):
        queue, row = turn
        receipt = _send(names, row, rng, now)
        answer = receipt.answer if receipt is not None else None
        answers[answer] += 1
        if answer is Answer.ACCEPTED:
            desk.in_flight[queue] += 1
        if answer in (Answer.ACCEPTED, Answer.UNKNOWN):
            desk.room -= 1
        if answer is Answer.UNKNOWN:
            breaker.failed(now(), receipt.detail if receipt is not None else "", rng=rng)
            if breaker.is_open(now()):
                break
        elif answer is not None:
            breaker.worked()
    return Sent(answers[Answer.ACCEPTED], answers[Answer.REFUSED], answers[Answer.UNKNOWN])


def _open(names: Names, load: Load, room: int, now: datetime, max_in_flight: int | None) -> _Desk:
    in_flight: Counter[Queue] = Counter()
    for place, n in load.funnel.items():
        if place.state in IN_FLIGHT:
            in_flight[Queue(place.source, place.lane)] += n
    if max_in_flight is not None:
        room = min(room, max_in_flight - in_flight.total() - load.unclear)
    waiting = {Queue(p.source, p.lane) for p in load.funnel if p.state is State.QUEUED}
    allowance: dict[Queue, int] = {}
    if any(q.lane == "backfill" for q in waiting):
        allowance = _allowance(names.ledger, load.funnel, in_flight, room)
    return _Desk(names.ledger, room, now, {q for q in waiting if allowance.get(q, room) > 0}, in_flight, allowance, names)


def _allowance(ledger: Ledger, funnel: Mapping[Place, int], in_flight: Mapping[Queue, int], room: int) -> dict[Queue, int]:
    """Returns how many events may go out of each backfill that has a canary or a limit, and stops those that must stop."""
    found = {}
    for order in ledger.orders.all():
        queue = Queue(order.source, "backfill")
        if order.held is not None:
            found[queue] = 0
            continue

        def since(state: State, limit: int | None, queue: Queue = queue, at: datetime = order.created_at) -> int:
            if not limit or not any((p.source, p.lane, p.state) == (queue.source, queue.lane, state) for p in funnel):
                return 0
            return len(ledger.conversions.find(source=queue.source, lane=queue.lane, state=state, since=at, limit=limit))

        done, failed = since(State.DONE, order.canary), since(State.FAILED, order.max_failures or order.canary)
        verdict = allowed(order, done=done, failed=failed, in_flight=in_flight.get(queue, 0), room=room)
        if isinstance(verdict, str):
            ledger.orders.hold(order.source, verdict)
        elif order.canary and done >= order.canary:
            ledger.orders.confirm_canary(order.source)
        found[queue] = 0 if isinstance(verdict, str) else verdict
    return found


def _send(names: Names, row: OutboxRow, rng: random.Random, now: Callable[[], datetime]) -> Receipt | None:
    ledger, engine = names.ledger, names.engine
    if (number := names.free(row)) is not None:
        _rename(ledger, row.key, number, now())
        return None
    wait = PAUSES.pause(row.posts, rng)
    # noted first: killed in a post, we would take a newer revision for the only one, and the run of the older could end last
    conversion = ledger.outbox.note_post(row, now() + wait)
    if conversion is None:
        return None  # superseded or replayed by another process since the outbox was read
    if row.posts and ledger.conversions.superseded(conversion):  # it would only make the older run that is looked for
        why = "a newer revision is there, and an earlier post had no clear answer: its run is looked for"
        _move(ledger, conversion, Move(Fact.UNCLEAR, why), now())
        return None
    try:
        receipt = engine.submit(row.body)
    except Refused:  # it took nothing
        ledger.outbox.note_post(row, row.due, happened=False)
        raise
    if receipt.answer is Answer.UNKNOWN:
        ledger.outbox.note_post(row, now() + wait)
        return receipt
    try:
        if receipt.answer is Answer.REFUSED and row.posts:
            # an earlier post without an answer may have become a run: it is looked for, and only then is the event refused for good
            why = f"refused ({receipt.detail}), and an earlier post had no clear answer: its run is looked for"
            ledger.conversions.move(conversion, Move(Fact.UNCLEAR, why, reason=f"the engine refused it: {receipt.detail}"), now())
        elif receipt.answer is Answer.REFUSED:
            why = f"the engine refused it: {receipt.detail}"
            ledger.conversions.move(conversion, Move(Fact.REFUSED, why, reason=why), now())
        else:
            ledger.conversions.move(conversion, Move(Fact.ACCEPTED, f"event {row.event_id} accepted"), now())
    except StaleState:
        # replayed or superseded while it was being posted; the run that may come of it is found by its key
        return Receipt(Answer.UNKNOWN, "it was replayed or superseded while it was posted")
    return receipt


def _rename(ledger: Ledger, key: str, number: int, now: datetime) -> None:
    conversion = ledger.conversions.get(key)
    if conversion is None or conversion.state is not State.QUEUED:
        return
    why = f"runs up to attempt {number - 1} are there that this ledger did not ask for: was it restored?"
    _move(ledger, conversion, Move(Fact.NAME_TAKEN, why, attempt=number), now)


def _move(ledger: Ledger, conversion: ConversionRow, move: Move, now: datetime) -> None:
    with contextlib.suppress(StaleState):  # replayed by another process
        ledger.conversions.move(conversion, move, now)
