"""How fast a catalog is asked: as fast as it answers, until it says that this is too fast."""

from __future__ import annotations

from datetime import datetime, timedelta

from stac_watch.catalog import answers
from stac_watch.model.patience import Backoff

GAPS = Backoff(timedelta(seconds=0.25), timedelta(seconds=4))  # between requests, to a server that said "not so fast"
FORGIVES = 20  # answers in a row after which that gap is made smaller
GENTLE = 0.2  # seconds between the probe's requests to other people's servers: CDSE takes five a second
LONGEST = 120.0  # seconds that are waited for a server's count of requests to begin anew


class AskingPace:
    """How fast a server wants to be asked; slower each time that it says so, faster again when it did not for a while."""

    def __init__(self) -> None:
        self.gap = 0.0  # seconds between two requests
        self.least = 0.0  # what it is at least, for now
        self._times, self._since, self._next = 0, 0, 0.0

    def wait(self, now: float) -> float:
        """Returns the seconds until the next request, which is taken for made then."""
        wait = max(0.0, self._next - now)
        self._next = max(now, self._next) + max(self.gap, self.least)
        return wait

    def slower(self) -> None:
        """Notes that it was too fast."""
        self.gap = GAPS.pause(self._times).total_seconds()
        self._times, self._since = self._times + 1, 0

    def heard(self, headers: answers.Headers, server_now: datetime, now: float) -> None:
        """Notes an answer: what it says of the requests that are left."""
        self._since += 1
        if self._times and self._since >= FORGIVES:
            self._times, self._since = self._times - 1, 0
            self.gap = GAPS.pause(self._times - 1).total_seconds() if self._times else 0.0
        if answers.exhausted(headers) and (left := answers.reset(headers, server_now)) is not None and 0 < left <= LONGEST:
            self._next = max(self._next, now + left)
