"""What follows from what: the states of a conversion and the one table of legal moves.

Code elsewhere reports facts and never sets a state: the ledger applies what this table says, and raises on a pair that is not in
it.

                 admitted              accepted             run_seen              succeeded
      (new) ───────────────▶ queued ──────────▶ submitted ──────────▶ running ────────────▶ done
        │ skipped              ▲ ▲ └── silent ──────┘ (or unclear)     │  │                  │
        ▼                      │ └──── not_ready, failed_temporary, ───┘  │ failed_permanent │
     skipped ──── admitted, ───┘       vanished: attempt + 1              ▼                  │
                  replayed                                             failed ── replayed ───┘──▶ queued

What is done may become expired: its only copy lay on its run's volume, and that is gone. A replay makes it again.
"""

from __future__ import annotations

from enum import StrEnum

from stac_watch.model.errors import Defect


class State(StrEnum):
    """Where the conversion of one item revision stands."""

    QUEUED = "queued"  #: admitted; its event waits in the outbox
    SUBMITTED = "submitted"  #: the engine accepted the event, or may have; nothing more is known
    RUNNING = "running"  #: a run was seen
    DONE = "done"  #: a verified marker with this key was found
    EXPIRED = "expired"  #: it was done, and its only copy went with its run's volume
    SKIPPED = "skipped"  #: not to be converted, for a named reason
    FAILED = "failed"  #: a permanent error, or no attempts left; `replay` is the way back


FINAL = frozenset({State.DONE, State.EXPIRED, State.SKIPPED, State.FAILED})
IN_FLIGHT = frozenset({State.SUBMITTED, State.RUNNING})


class Fact(StrEnum):
    """What was observed. Nothing else moves a conversion."""

    ADMITTED = "admitted"  #: discovery: it matches the source's rules
    SKIPPED = "skipped"  #: discovery: it does not
    ACCEPTED = "accepted"  #: engine: it took the event
    REFUSED = "refused"  #: engine: it will never take this event
    UNCLEAR = "unclear"  #: engine: it refuses an event that it may have accepted before, when a post had no clear answer
    RUN_SEEN = "run_seen"  #: engine: the run exists
    SILENT = "silent"  #: accepted, yet no run after the deadline: the same event goes out again
    SUCCEEDED = "succeeded"  #: a verified marker with this key
    FAILED_TEMPORARY = "failed_temporary"  #: the run failed in a way that may pass: next attempt
    FAILED_PERMANENT = "failed_permanent"  #: the run failed in a way that will not pass, or no attempts are left
    INTERRUPTED = "interrupted"  #: the run was ended from outside (SIGTERM, eviction): next attempt, not counted as a failure
    VANISHED = "vanished"  #: the run was seen and is gone without an outcome: next attempt
    NOT_READY = "not_ready"  #: exit 66, the source is not there yet; 73, a disk is full: next attempt, later
    EXPIRED = "expired"  #: the volume with the only copy of a done output is gone
    REPLAYED = "replayed"  #: a person asked for it
    WITHDRAWN = "withdrawn"  #: the item is gone from the catalog
    RETIRED = "retired"  #: the output of what was done was removed: its item is gone, or its lifetime is over
    NAME_TAKEN = "name_taken"  #: a run of that name is there that this ledger never asked for: the next attempt, under a free one
    SUPERSEDED = "superseded"  #: a newer revision of the item replaced it


_AGAIN = (Fact.FAILED_TEMPORARY, Fact.INTERRUPTED, Fact.VANISHED, Fact.NOT_READY)

TRANSITIONS: dict[tuple[State | None, Fact], State] = {
    (None, Fact.ADMITTED): State.QUEUED,
    (None, Fact.SKIPPED): State.SKIPPED,
    (State.SKIPPED, Fact.ADMITTED): State.QUEUED,
    (State.QUEUED, Fact.ACCEPTED): State.SUBMITTED,
    (State.QUEUED, Fact.REFUSED): State.FAILED,
    (State.QUEUED, Fact.UNCLEAR): State.SUBMITTED,  # a run may already exist: look for it before saying that there is none
    (State.QUEUED, Fact.RUN_SEEN): State.RUNNING,  # the post timed out, yet the event arrived
    (State.QUEUED, Fact.FAILED_PERMANENT): State.FAILED,
    (State.SUBMITTED, Fact.RUN_SEEN): State.RUNNING,
    (State.SUBMITTED, Fact.SILENT): State.QUEUED,  # a run that was seen is never silent: without an outcome it has vanished
    **{(s, f): State.QUEUED for s in (State.SUBMITTED, State.RUNNING) for f in _AGAIN},
    **{(State.QUEUED, f): State.QUEUED for f in (*_AGAIN, Fact.NAME_TAKEN)},
    **{(s, Fact.FAILED_PERMANENT): State.FAILED for s in (State.SUBMITTED, State.RUNNING)},
    # a verified output is the truth, whatever was believed before
    **{(s, Fact.SUCCEEDED): State.DONE for s in State if s is not State.DONE},
    (State.DONE, Fact.EXPIRED): State.EXPIRED,
    **{(s, Fact.REPLAYED): State.QUEUED for s in FINAL},
    **{(s, f): State.SKIPPED for s in (State.QUEUED, State.SUBMITTED, State.RUNNING, State.FAILED)
       for f in (Fact.WITHDRAWN, Fact.SUPERSEDED)},
    (State.DONE, Fact.RETIRED): State.SKIPPED,
}  # fmt: skip

NEXT_ATTEMPT = frozenset({*_AGAIN, Fact.REPLAYED, Fact.ADMITTED, Fact.NAME_TAKEN})
"""Facts after which the conversion's next event is a new one: attempt + 1."""


def next_state(state: State | None, fact: Fact) -> State:
    """Returns the state that follows.

    Raises:
        Defect: the pair is not in the table.
    """
    try:
        return TRANSITIONS[state, fact]
    except KeyError:
        raise Defect(
            f"fact {fact.value!r} is not possible in state {state.value if state else 'new'!r}",
            hint="this is a bug in stac-watch: please report it with the output of `stac-watch explain ITEM --json`",
        ) from None
