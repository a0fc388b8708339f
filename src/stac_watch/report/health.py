"""Whether the watcher lives, and whether it can do its work: verdicts with their reasons, for probes and for people.

A catalog's fault is never one of the watcher's: a pod that is restarted for it would miss the catalog's return.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from stac_watch.config.model import OURS
from stac_watch.model.errors import Refused, StacWatchError

ALIVE = timedelta(minutes=15)
"""A round may last: 20 events of which each waits up to 35 s for a bus that is about to come back (Argo Events 1.9.11)."""
ENGINE = "engine"


@dataclass(frozen=True)
class HealthCheck:
    """One thing that was looked at."""

    name: str
    ok: bool
    said: str


@dataclass(frozen=True)
class Health:
    """What was looked at; all of it must be well."""

    ok: bool
    checks: list[HealthCheck]


def alive(age: timedelta) -> Health:
    """Tells whether the loop moves: a round that does not end is what a restart can help with, and nothing else is.

    `age` of its last round is by a clock that nobody can set: one that is set forward by a day must not have it restarted.
    """
    said = f"last round ended {age.total_seconds():.0f} s ago"
    if age > ALIVE:
        said = f"{said}: more than {ALIVE.total_seconds():.0f} s, the loop hangs"
    return _health([HealthCheck("loop", age <= ALIVE, said)])


def ready(*, rounds: int, standby: str, ailing: Mapping[str, StacWatchError], ledger: StacWatchError | None) -> Health:
    """Tells whether a person must act before events are converted.

    Args:
        rounds: of the loop that ended.
        standby: who has the ledger, when it is another watcher: a second one that waits is as it should be.
        ailing: what is wrong, by source or `engine`.
        ledger: what was wrong when it was asked just now.
    """
    checks = [HealthCheck("ledger", ledger is None, _sentence(ledger) if ledger else "answers")]
    if standby:
        checks.append(HealthCheck("watcher", True, f"standby: {standby} has the ledger; this one takes over when it ends"))
    else:
        checks.append(HealthCheck("watcher", rounds > 0, "has the ledger" if rounds else "its first round is under way"))
    engine = ailing.get(ENGINE)
    checks.append(HealthCheck(ENGINE, not isinstance(engine, Refused), _sentence(engine) if engine else "takes events"))
    checks += [HealthCheck(f"source {name}", True, _sentence(error)) for name, error in sorted(ailing.items()) if name not in OURS]
    return _health(checks)


def as_text(health: Health) -> str:
    """Returns one line for each check."""
    return "".join(f"{'ok  ' if c.ok else 'FAIL'} {c.name}: {c.said}\n" for c in health.checks)


def _health(checks: list[HealthCheck]) -> Health:
    return Health(all(c.ok for c in checks), checks)


def _sentence(error: StacWatchError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message
