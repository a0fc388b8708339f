"""What others are told is posted to one sink: in order for each item, each event until it is taken.

At least once: killed between a post and the ledger, the same bytes go out again. A sink that does not answer is left alone for a
while, and nothing is lost; an event that it does not take, while it answers, is tried some times and then called refused.

Source: CloudEvents HTTP Protocol Binding 1.0.2 (structured mode); CloudEvents Web Hooks 1.0.2 (which answers mean taken).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

import requests

from stac_watch.catalog import answers
from stac_watch.catalog.connections import guard, reason
from stac_watch.config.sinks import EventSink
from stac_watch.ledger.ledger import Ledger
from stac_watch.model.announcement import DeliveryState, Posting
from stac_watch.model.errors import ConfigError, IdentityError, InputError, Refused, StacWatchError, Temporary
from stac_watch.model.event import CONTENT_TYPE
from stac_watch.model.files import fault
from stac_watch.register.due import ENOUGH, OtherEnd

BATCH = 64  # events of one round
TIMEOUT = (5.0, 60.0)  # seconds to connect, and for an answer: an EventSource tries its bus for up to 35
NOT_TAKEN = frozenset({400, 413, 422})  # answers that are about the event; an EventSource whose bus is away says 400, too
AGAIN = frozenset({408, 425, 429})
MASK = "***"
READ = 64 * 1024  # bytes of an answer's words


@dataclass(frozen=True)
class Posted:
    """What one round did."""

    delivered: int = 0
    refused: int = 0
    later: int = 0


class Mailbox:
    """Posts to one sink; its token goes nowhere else, and no redirect is followed."""

    def __init__(self, sink: EventSink, *, now: Callable[[], datetime], agent: str, timeout: tuple[float, float] = TIMEOUT) -> None:
        self._sink, self._now, self._timeout = sink, now, timeout
        self._session = guard(requests.Session(), (urlsplit(sink.url).hostname or "",))
        self._session.auth = _nobody
        self._session.headers.update({"User-Agent": agent, "Content-Type": CONTENT_TYPE})
        self._lock = threading.Lock()

    def post(self, body: bytes) -> None:
        """Posts an event.

        Raises:
            InputError: the sink does not take this one.
            Temporary: it does not answer, or is in trouble.
            Refused: it wants a token, or another one.
            ConfigError: there is no sink, or the token cannot be read.
        """
        self._judge(*self._ask("POST", body))

    def knock(self) -> int:
        """Asks whether somebody is there, with OPTIONS, which is never an event; returns the answer's status.

        Raises:
            Temporary: nobody answers.
            Refused: the token is not taken.
        """
        status, words, wait = self._ask("OPTIONS", None)
        if status in (401, 403) or status >= 500:
            self._judge(status, words, wait)
        return status

    def _ask(self, method: str, body: bytes | None) -> tuple[int, str, float]:
        name = self._sink.name
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            with self._lock, self._session.request(
                method, self._sink.url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False, stream=True
            ) as answer:  # fmt: skip
                raw = next(answer.iter_content(READ), b"") if answer.status_code >= 300 else b""
                words = answers.words(raw)
                wait = answers.pause(answer.headers, self._now())
                return answer.status_code, words.replace(token, MASK) if token else words, wait
        except IdentityError as error:
            raise ConfigError(f"sink {name}: {error.message}", hint=error.hint) from error
        except (requests.RequestException, OSError, ValueError) as error:  # the last: requests looks where a redirect leads
            raise Temporary(
                f"sink {name} cannot be reached ({reason(error)})", hint="its events wait; it is tried again"
            ) from error

    def _judge(self, status: int, words: str, wait: float) -> None:
        said = f"sink {self._sink.name} answered HTTP {status}" + (f": {words}" if words else "")
        if 200 <= status < 300:
            return
        if status in NOT_TAKEN:
            raise InputError(said, hint="`stac-watch announce --failed` shows what sinks did not take")
        if status in AGAIN or status >= 500:
            raise _Later(said, wait)
        if status in (401, 403):
            raise Refused(said, hint="`token_file` of the sink names the file with its token: is it the right one?")
        raise ConfigError(said, hint="is that where it takes events? `url` of the sink names it; redirects are not followed")

    def _token(self) -> str:
        path = self._sink.token_file
        if path is None:
            return ""
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"sinks: cannot read {path}: {fault(error)}", hint="is the Secret mounted there?") from None
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError(f"sinks: {path} must hold a token, and nothing else", hint="write it again, on one line")
        return token


class _Later(Temporary):
    """A sink in trouble, which may say for how long."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message, hint="its events wait; it is tried again")
        self.wait = wait


class Announcer:
    """The events of one ledger that wait for one sink."""

    def __init__(self, ledger: Ledger, sink: EventSink, mailbox: Mailbox, now: Callable[[], datetime], rng: random.Random) -> None:
        self._ledger, self.name, self._mailbox, self._now = ledger, sink.name, mailbox, now
        waits = ledger.deliveries
        self._end = OtherEnd(partial(waits.is_due, sink.name), partial(waits.bring_forward, sink.name), now, rng)

    def is_due(self) -> bool:
        """Tells whether there is something to post, and the sink is not left alone."""
        return self._end.is_due()

    def round(self) -> Posted:
        """Posts what is due, one after the other.

        Raises:
            Temporary: the sink does not answer; it is left alone for a while, and everything waits.
            Refused: it wants a token, or another one; the same.
            ConfigError: there is no sink, or no token; the same.
        """
        counts = dict.fromkeys(DeliveryState, 0)
        for row in self._ledger.deliveries.due(self.name, self._now(), BATCH):
            try:
                counts[self._posted(row)] += 1
            except StacWatchError as error:
                asked = timedelta(seconds=error.wait) if isinstance(error, _Later) and error.wait > 0 else None
                self._end.failed(error.message, asked=asked)
                raise
        self._end.worked()
        return Posted(counts[DeliveryState.DELIVERED], counts[DeliveryState.REFUSED], counts[DeliveryState.WAITING])

    def _posted(self, row: Posting) -> DeliveryState:
        ledger, now = self._ledger.deliveries, self._now()
        try:
            self._mailbox.post(row.body)
        except InputError as error:
            state = DeliveryState.REFUSED if row.attempts + 1 >= ENOUGH else DeliveryState.WAITING
            ledger.settle(row, state, now, due=self._end.again(row.attempts), reason=error.message)
            return state
        ledger.settle(row, DeliveryState.DELIVERED, now)
        return DeliveryState.DELIVERED


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The token is the configuration's; without this, what ~/.netrc has for a host is sent to it."""
    return request
