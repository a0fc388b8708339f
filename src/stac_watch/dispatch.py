"""Sends what waits in the outbox: as fast as the engine has room and the rate allows, and not faster.

In: due outbox rows. Out: one engine submission each, and the fact that it led to.
Never: holds an event only in memory; counts an answer without meaning (5xx, time-out) as anything but "send the same again".
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from stac_watch.engines import Answer, Engine
from stac_watch.events import event_id
from stac_watch.ledger import Ledger, StaleState
from stac_watch.records import Move, OutboxRow
from stac_watch.states import Fact, State

MAX_PAUSE = timedelta(minutes=5)


@dataclass
class TokenBucket:
    """At most `rate` events per second, with a burst of one second's worth."""

    rate: float
    tokens: float = 1.0
    filled_at: datetime | None = None

    def take(self, now: datetime) -> bool:
        """Takes one token if there is one."""
        if self.filled_at is not None:
            self.tokens += max(0.0, (now - self.filled_at).total_seconds()) * self.rate
        self.filled_at = now
        self.tokens = min(self.tokens, max(1.0, self.rate))
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(frozen=True)
class Sent:
    """How many events a dispatch sent, and how many answers were not clear."""

    accepted: int = 0
    refused: int = 0
    unknown: int = 0


def dispatch(ledger: Ledger, engine: Engine, bucket: TokenBucket, rng: random.Random, now: Callable[[], datetime]) -> Sent:
    """Sends due events until the outbox, the engine's room or the rate is used up."""
    room = engine.headroom()
    answers: Counter[Answer | None] = Counter()
    for row in ledger.due(now(), room) if room > 0 else []:
        if not bucket.take(now()):
            break
        answers[_send(ledger, engine, row, rng, now)] += 1
    return Sent(answers[Answer.ACCEPTED], answers[Answer.REFUSED], answers[Answer.UNKNOWN])


def _send(ledger: Ledger, engine: Engine, row: OutboxRow, rng: random.Random, now: Callable[[], datetime]) -> Answer | None:
    conversion = ledger.get(row.key)
    if conversion is None or (conversion.state, event_id(row.key, conversion.attempt)) != (State.QUEUED, row.event_id):
        return None  # superseded or replayed by another process since the outbox was read
    receipt = engine.submit(row.body)
    if receipt.answer is Answer.UNKNOWN:
        ledger.postpone(row, now() + pause(row.posts, rng))
        return Answer.UNKNOWN
    try:
        if receipt.answer is Answer.REFUSED:
            why = f"the engine refused it: {receipt.detail}"
            ledger.move(conversion, Move(Fact.REFUSED, why, reason=why), now())
        else:
            ledger.move(conversion, Move(Fact.ACCEPTED, f"event {row.event_id} accepted"), now())
    except StaleState:
        # replayed or superseded while it was being posted; the run that may come of it is found by its key
        return Answer.UNKNOWN
    return receipt.answer


def pause(posts: int, rng: random.Random) -> timedelta:
    """Returns the pause before the same event is posted again: 2 s doubling to 5 min, jittered by up to a half."""
    span = min(MAX_PAUSE, timedelta(seconds=2 * 2 ** min(posts, 10)))
    return span * rng.uniform(0.5, 1.0)
