"""Sends what waits in the outbox: as fast as the engine has room and the rate allows, and not faster.

No event is only in memory, and none is posted that the ledger does not know to be going out. An answer without meaning (5xx, a
time-out) means "send the same again", and to an engine that gives only such ones nothing is posted for a while.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import Load, Move, OutboxRow, Place, Queue
from stac_watch.ledger.session import StaleState
from stac_watch.model.errors import Refused
from stac_watch.model.states import IN_FLIGHT, Fact, State
from stac_watch.runs.engine import Answer, Engine, Receipt
from stac_watch.runs.lanes import allowed, next_queue
from stac_watch.runs.pace import PAUSES, Throttle


@dataclass(frozen=True)
class Sent:
    """How many events a dispatch sent, and how many answers were not clear."""

    accepted: int = 0
    refused: int = 0
    unknown: int = 0


@dataclass
class _Desk:
    """What waits in each queue, read when its turn comes."""

    ledger: Ledger
    room: int
    now: datetime
    waiting: set[Queue]
    in_flight: Counter[Queue]
    allowance: dict[Queue, int]
    rows: dict[Queue, deque[OutboxRow]] = field(default_factory=dict)

    def next(self, caps: Mapping[str, int]) -> tuple[Queue, OutboxRow] | None:
        while self.room > 0 and (queue := next_queue(self.waiting, self.in_flight, caps)) is not None:
            if queue not in self.rows:
                self.rows[queue] = deque(
                    self.ledger.outbox.due(self.now, min(self.room, self.allowance.get(queue, self.room)), queue)
                )
            if self.rows[queue]:
                return queue, self.rows[queue].popleft()
            self.waiting.discard(queue)
        return None


def dispatch(ledger: Ledger, engine: Engine, throttle: Throttle, rng: random.Random, now: Callable[[], datetime]) -> Sent:
    """Sends due events until the outbox, the room or the rate is used up.

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
    desk = _open(ledger, load, engine.headroom(), now(), throttle.max_in_flight)
    answers: Counter[Answer | None] = Counter()
    while (turn := desk.next(throttle.caps)) is not None and throttle.bucket.take(now()):
        queue, row = turn
        receipt = _send(ledger, engine, row, rng, now)
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


def _open(ledger: Ledger, load: Load, room: int, now: datetime, max_in_flight: int | None) -> _Desk:
    in_flight: Counter[Queue] = Counter()
    for place, n in load.funnel.items():
        if place.state in IN_FLIGHT:
            in_flight[Queue(place.source, place.lane)] += n
    if max_in_flight is not None:
        room = min(room, max_in_flight - in_flight.total() - load.unclear)
    waiting = {Queue(p.source, p.lane) for p in load.funnel if p.state is State.QUEUED}
    allowance: dict[Queue, int] = {}
    if any(q.lane == "backfill" for q in waiting):
        allowance = _allowance(ledger, load.funnel, in_flight, room)
    return _Desk(ledger, room, now, {q for q in waiting if allowance.get(q, room) > 0}, in_flight, allowance)


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


def _send(ledger: Ledger, engine: Engine, row: OutboxRow, rng: random.Random, now: Callable[[], datetime]) -> Receipt | None:
    wait = PAUSES.pause(row.posts, rng)
    # noted first: killed in a post, we would take a newer revision for the only one, and the run of the older could end last
    conversion = ledger.outbox.note_post(row, now() + wait)
    if conversion is None:
        return None  # superseded or replayed by another process since the outbox was read
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
