"""Believes nothing because it was sent: compares what should run with what does, and reports facts.

At most one move per conversion follows from what is seen, by the pure `decide`. Absence is not failure before its time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from stac_watch.config.model import Limits
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.records import ConversionRow, Move, SecondLook
from stac_watch.ledger.session import StaleState
from stac_watch.model.causes import fingerprint
from stac_watch.model.errors import NO_SPACE, Exit, Unavailable
from stac_watch.model.item import SkipReason
from stac_watch.model.outcome import Outcome
from stac_watch.model.patience import Backoff, waited
from stac_watch.model.product import is_made_of
from stac_watch.model.states import Fact, State
from stac_watch.runs.engine import Engine, Phase, Run, Runs

RETRY = frozenset({Exit.TEMPORARY, Exit.REFUSED, 137})
"""Exit codes after which the same may work: throttling, network, a refusal, which may be an absence, killed for want of memory."""
ENDED_FROM_OUTSIDE = frozenset({Exit.TERMINATED, Exit.INTERRUPTED})
ENOUGH = 25  # attempts; a run that is ended from outside so often is not interrupted by chance, and is a failure like others
LONGEST_RETRY_PAUSE = timedelta(hours=6)
LATEST = timedelta(days=14, hours=6)  # a bus keeps an event for so long, and a run may take as long as the template lets it
LOOKS_AFTER = timedelta(minutes=5)  # between two looks at what a late run may have written; each pause is as long as all before
STUCK_AFTER = timedelta(minutes=2)  # a pod that starts normally, image and volume included, takes less


@dataclass(frozen=True)
class Seen:
    """What lies under an output's final name."""

    marker: Outcome | None = None  # of whatever key
    visible: bool = True  # whether it could be looked at: a run's own volume cannot be, nor a bucket that does not answer

    def answers(self, row: ConversionRow, asked: Asked) -> bool:
        """Tells whether it is the verified output of this conversion."""
        m = self.marker
        return m is not None and m.key == row.key and not m.code and not asked.doubt(m, row)


@dataclass(frozen=True)
class Asked:
    """What a conversion's events asked for, beside its row."""

    installation: str = ""
    products: tuple[str, ...] = ()  # where the product lay at each attempt; none = not known

    def doubt(self, outcome: Outcome, row: ConversionRow) -> str | None:
        """Returns why an outcome with the row's key is not of what was asked for: an event may have been edited on its way."""
        if outcome.installation not in ("", self.installation):
            return f"it was installation {outcome.installation!r}'s"
        if outcome.item_id not in ("", row.item_id):
            return f"it was of item {outcome.item_id[:128]!r}"
        if self.products and not any(is_made_of(outcome.source, href) for href in self.products):
            return f"it was made of {outcome.source[:300]!r}, which nobody asked for"
        return None


ANYTHING = Asked()


def decide(
    row: ConversionRow,
    run: Run | None,
    seen: Seen,
    now: datetime,
    limits: Limits,
    *,
    superseded: bool = False,
    asked: Asked = ANYTHING,
) -> Move | None:
    """Returns the move that follows from what is seen, or None to wait.

    `run` is the run of the row's current attempt.
    """
    marker = seen.marker if seen.answers(row, asked) else None
    # a later attempt's marker is there where a ledger was restored: what it had forgotten was done
    ours = marker is not None and marker.attempt >= row.attempt
    if run is not None and run.phase is Phase.SUCCEEDED:
        doubt = _doubt(row, run, seen, asked, ours=ours)
        if doubt is None:
            return _succeeded(row, run, marker)
        return _retry(row, Fact.VANISHED, doubt, now, limits, superseded=superseded) if row.state is not State.FAILED else None
    if marker is not None and ours and (run is None or run.phase is Phase.FAILED):  # it was ended after its work was done
        return Move(Fact.SUCCEEDED, "the output's marker carries its key", outcome=marker)
    if run is not None and run.phase is Phase.FAILED:
        said = run.outcome or Outcome()
        if said.key == row.key and (doubt := asked.doubt(said, row)) is not None:
            return _retry(row, Fact.VANISHED, f"run {run.name} failed, and {doubt}", now, limits, superseded=superseded)
        return _failed(row, said, now, limits, superseded=superseded)
    if run is not None:
        at = f"run {run.name} is {run.phase.value}"
        return Move(Fact.RUN_SEEN, at) if row.state in (State.QUEUED, State.SUBMITTED) else None
    if row.state is State.RUNNING:
        return _retry(row, Fact.VANISHED, f"run {row.run} is gone without an outcome", now, limits, superseded=superseded)
    if row.state is State.SUBMITTED and waited(row.changed_at, now, limits.confirm_after):
        if superseded:
            why = f"no run {limits.confirm_after} after it was accepted, and a newer revision is there"
            return Move(Fact.SUPERSEDED, why, reason=SkipReason.SUPERSEDED, look_at=now + limits.confirm_after)
        return Move(Fact.SILENT, f"no run {limits.confirm_after} after it was accepted: the same event again")
    return None


def _doubt(row: ConversionRow, run: Run, seen: Seen, asked: Asked, *, ours: bool) -> str | None:
    """Returns why a run's word that it is done does not count for this conversion; None where it does.

    Its folder or Workflow may be older than the ledger, another configuration's, or have been asked for something else.
    """
    outcome = run.outcome
    if outcome is None:  # Argo Workflows before 4.0.10 say so of a run that was ended while it waited for its mutex
        said = f"run {run.name} succeeded and says nothing of it: ended before it began, or its word was lost"
        return None if ours else said
    if outcome.key != row.key:
        return None  # it says something else: that is judged as it is
    if (doubt := asked.doubt(outcome, row)) is not None:
        return f"run {run.name} says that it is done, and {doubt}"
    if seen.visible:
        there = "has no marker" if seen.marker is None else asked.doubt(seen.marker, row) or f"holds key {seen.marker.key!r}"
        return None if seen.answers(row, asked) else f"run {run.name} says that it is done, and {row.output_zarr}: {there}"
    if _place(outcome.output_zarr) != _place(row.output_zarr):
        return f"run {run.name} wrote {outcome.output_zarr[:200]!r}, and not {row.output_zarr}"
    return None


def _place(output: str) -> str:
    """Returns one spelling of an output's place: the runner names local ones by their absolute path."""
    path = output.removeprefix("file://")
    return output.rstrip("/") if "://" in path else os.path.abspath(path)  # noqa: PTH100  # resolve() would follow a user's symlink


def _succeeded(row: ConversionRow, run: Run, marker: Outcome | None) -> Move:
    outcome = run.outcome
    if outcome is None:  # it had no room to write it: /tmp was full
        return Move(Fact.SUCCEEDED, f"run {run.name} succeeded, says the output's marker", outcome=marker)
    if outcome.key != row.key:
        carried = f"carries key {outcome.key!r}" if outcome.key else "carries no key"
        why = f"run {run.name} succeeded, but its outcome {carried}"
        return Move(Fact.FAILED_PERMANENT, why, reason=why, outcome=outcome)
    seen = "its outcome and the output's marker" if marker is not None and marker.key == row.key else "its outcome"
    return Move(Fact.SUCCEEDED, f"run {run.name} succeeded, says {seen}", outcome=outcome)


def _failed(row: ConversionRow, outcome: Outcome, now: datetime, limits: Limits, *, superseded: bool) -> Move:
    code, why = outcome.code, outcome.reason or "it gave no reason"
    if code == Exit.SUPERSEDED:
        if superseded:
            return Move(Fact.SUPERSEDED, why, reason=SkipReason.SUPERSEDED, outcome=outcome)
        # a ledger that was restored learns of it from the catalog; an event that somebody else posted is in no catalog
        return _not_ready(row, f"{why}, and no later revision is known here", outcome, now, limits)
    if superseded:
        return Move(Fact.SUPERSEDED, f"failed ({code}: {why}), and a newer revision is there", reason=SkipReason.SUPERSEDED)
    if code == Exit.SOURCE_NOT_THERE:
        return _not_ready(row, f"source not there yet: {why}", outcome, now, limits)
    if code == Exit.CANNOT_WRITE and NO_SPACE in why:  # who filled a disk is another, and it is full for everybody on it
        return _not_ready(row, why, outcome, now, limits)
    if code in ENDED_FROM_OUTSIDE and row.attempt < ENOUGH:
        return Move(Fact.INTERRUPTED, why, reason=why, outcome=outcome)
    if code in RETRY | ENDED_FROM_OUTSIDE:
        return _retry(row, Fact.FAILED_TEMPORARY, why, now, limits, superseded=False, outcome=outcome)
    return Move(Fact.FAILED_PERMANENT, f"exit {code}: {why}", reason=why, outcome=outcome)


def _not_ready(row: ConversionRow, why: str, outcome: Outcome, now: datetime, limits: Limits) -> Move:
    """Looks again later and ever later: at a source that is not there, at a place that cannot be written."""
    if now - row.queued_at >= limits.not_ready_for:
        reason = f"after {limits.not_ready_for} still: {why}"
        return Move(Fact.FAILED_PERMANENT, reason, reason=reason, outcome=outcome)
    wait = limits.not_ready[min(row.waits, len(limits.not_ready) - 1)]
    return Move(Fact.NOT_READY, why, due=now + wait, reason=why, outcome=outcome)


def _retry(
    row: ConversionRow,
    fact: Fact,
    why: str,
    now: datetime,
    limits: Limits,
    *,
    superseded: bool,
    outcome: Outcome | None = None,
) -> Move:
    if superseded:
        look_at = now + limits.confirm_after if fact is Fact.VANISHED else None  # what cannot be seen may live
        return Move(Fact.SUPERSEDED, f"{why}; a newer revision is there", reason=SkipReason.SUPERSEDED, look_at=look_at)
    if row.failures + 1 >= limits.attempts:
        reason = f"{row.failures + 1} attempts failed, the last: {why}"
        return Move(Fact.FAILED_PERMANENT, reason, reason=reason, outcome=outcome)
    wait = Backoff(limits.retry_after, LONGEST_RETRY_PAUSE).pause(row.failures)
    return Move(fact, why, due=now + wait, reason=why, outcome=outcome)


def waits_for(run: Run | None, now: datetime) -> str | None:
    """Returns why a run that exists does not get on, as the engine says it; None when it does, or has only just begun."""
    if run is None or run.phase not in (Phase.PENDING, Phase.RUNNING) or not re.search(r"\bwaits\b", run.stage):
        return None
    return run.stage if run.started is not None and now - run.started >= STUCK_AFTER else None


def reconcile(
    ledger: Ledger,
    engine: Engine,
    limits: Limits,
    read_marker: Callable[[str], Outcome | None],
    now: Callable[[], datetime],
    given_up: Sequence[ConversionRow] = (),
    saw: Callable[[Runs], None] = lambda _: None,
    *,
    installation: str = "",
    afresh: bool = False,
) -> dict[Fact, int]:
    """Looks at every unfinished conversion once; returns how many facts of each kind were found.

    `saw` is told the runs that there are.
    Those of `given_up` have failed, and are looked at too: a person may have retried a run with the engine's own tools (`argo
    retry`). `afresh` looks at their outputs as well: the ledger may have been restored, and have forgotten that they were mended.
    `read_marker` raises Unavailable where it cannot look.

    Raises:
        Temporary: the engine cannot say what runs.
        Refused: it will not.
    """
    rows, looks = ledger.conversions.under_way(now())
    keys = [row.key for row in (*rows, *given_up)]
    runs = Runs(engine.runs(keys) if keys else ())
    saw(runs)
    found: dict[Fact, int] = {}
    rows += [row for row in given_up if _came_back(row, runs.of(row))]
    for row in given_up if afresh else ():
        seen = _look(row.output_zarr, read_marker)
        if seen.answers(row, _asked(ledger, row, installation)) and row not in rows:
            forgotten = Move(Fact.SUCCEEDED, "its output is there, and says that it is done", outcome=seen.marker)
            _apply(ledger, row, forgotten, now(), found)
    for row in rows:
        run = runs.of(row)
        ended = run is None or run.phase in (Phase.SUCCEEDED, Phase.FAILED)
        # an accepted event's output is looked for when its run is overdue: once, not at every look at five hundred of them
        patient = run is None and row.state is State.SUBMITTED and not waited(row.changed_at, now(), limits.confirm_after)
        seen = _look(row.output_zarr, read_marker) if ended and not patient else Seen()
        superseded = ended and ledger.conversions.superseded(row)
        said = seen.marker is not None or (run is not None and run.outcome is not None)
        asked = _asked(ledger, row, installation) if said else ANYTHING
        move = decide(row, run, seen, now(), limits, superseded=superseded, asked=asked)
        if move is None:
            _note(ledger, row, waits_for(run, now()))
            continue
        _apply(ledger, row, move, now(), found)
    for look in looks:
        _look_again(ledger, look, read_marker, now(), installation, found)
    return found


def _asked(ledger: Ledger, row: ConversionRow, installation: str) -> Asked:
    return Asked(installation, ledger.conversions.products(row.key))


def _apply(ledger: Ledger, row: ConversionRow, move: Move, now: datetime, found: dict[Fact, int]) -> None:
    try:
        ledger.conversions.move(row, move, now)
    except StaleState:
        return  # a person replayed it meanwhile; the next look sees what holds now
    found[move.fact] = found.get(move.fact, 0) + 1


def _look(output: str, read_marker: Callable[[str], Outcome | None]) -> Seen:
    try:
        return Seen(read_marker(output))
    except Unavailable:
        return Seen(visible=False)


def _look_again(
    ledger: Ledger,
    look: SecondLook,
    read_marker: Callable[[str], Outcome | None],
    now: datetime,
    installation: str,
    found: dict[Fact, int],
) -> None:
    """Has the current revision converted again where a superseded run came after all, and wrote the output last."""
    old = look.row
    row = ledger.items.current(old.source, [old.item_id]).get(old.item_id)
    age = now - look.since
    if row is None or row.key == old.key or age > LATEST:
        ledger.conversions.look_again(old.key, None)
        return
    if row.state is State.DONE:
        marker = _look(row.output_zarr, read_marker).marker
        if marker is not None and marker.key != row.key and marker.installation in ("", installation):
            why = f"a late run of an older revision ({marker.revision or old.revision}) wrote its output after it"
            _apply(ledger, row, Move(Fact.REPLAYED, why), now, found)
    ledger.conversions.look_again(old.key, now + max(age, LOOKS_AFTER))


def _came_back(row: ConversionRow, run: Run | None) -> bool:
    return run is not None and run.phase is Phase.SUCCEEDED and run.outcome is not None and run.outcome.key == row.key


def _note(ledger: Ledger, row: ConversionRow, waits: str | None) -> None:
    before = row.waits_for
    if (waits is None) != (before is None) or (waits and before and fingerprint(waits) != fingerprint(before)):
        ledger.conversions.note_wait(row, waits)  # not for every count in it that changes
