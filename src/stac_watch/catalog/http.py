"""One request to a catalog, answered by a JSON document or by a sentence of what is wrong.

Every wait ends. A redirect is not followed (a POST would become a GET without its body: other items, HTTP 200), the catalog's
origin is not left, a server that does not answer is left alone, and nothing is said to an address that `check_address` refuses.

`StacApiIO` of pystac-client 0.9.1 is the base. What that version gets wrong is set right here: `Client.open` drops the time-out of
the I/O object it is given, POST is never retried, Retry-After is not read on POST, and neither a truncated body nor one that is no
JSON is asked for again.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from pystac_client.stac_api_io import StacApiIO
from urllib3 import HTTPConnectionPool

from stac_watch.model.errors import CatalogUnavailable, ConfigError, IdentityError, Refused
from stac_watch.model.hosts import check_address
from stac_watch.model.patience import Backoff, Breaker

CONNECT, READ = 5.0, 60.0  # seconds; EODC answers a full page in 2.3 s, a big un-indexed query took 1.6 s on pgstac
TOTAL = 180.0  # seconds for a whole answer: a read time-out alone lets a server drip a byte a minute for ever
MAX_BYTES = 256 * 1024 * 1024  # 10,000 items of 19 KB are 190 MB; what is more is no page
ATTEMPTS = 4  # whole requests, body included; beyond that the window waits for the next poll
MAX_RETRY_AFTER = 120.0  # seconds that are waited at once; a server that asks for more is left alone until then
LONGEST_RETRY_AFTER = 86_400.0  # seconds; what asks for more is a mistake, and would end a source for good
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
PAUSES = Backoff(timedelta(seconds=1), timedelta(seconds=MAX_RETRY_AFTER))  # between attempts
OPENS_AT = 5  # requests that failed in a row, each with all its attempts, before the catalog is left alone
RESTS = Backoff(timedelta(seconds=30), timedelta(minutes=15))
_CHUNK = 1 << 16


class BadAnswer(CatalogUnavailable):
    """The server cannot answer this request (5xx, time-out, a body that cannot be read); it may be able to answer a smaller one."""


class Rejected(CatalogUnavailable):
    """The server does not take this request (4xx)."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True)
class Reply:
    """One document as the server gave it."""

    document: dict[str, Any]
    server_now: datetime
    seconds: float


class Guarded(requests.adapters.HTTPAdapter):
    """Asks `judge(host, address)` about each new connection before anything is sent over it.

    The address is the socket's own, so no second look-up can differ from the first. Behind a proxy, whose name the operator wrote,
    the proxy connects, and its rules hold.
    """

    def __init__(self, judge: Callable[[str, str], None]) -> None:
        self._judge = judge
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  # requests' own signature
        """Makes the pools' connections ask."""
        super().init_poolmanager(*arguments, **options)
        pools = self.poolmanager.pool_classes_by_scheme
        self.poolmanager.pool_classes_by_scheme = {scheme: self._asking(pool) for scheme, pool in pools.items()}

    def _asking(self, pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        judge = self._judge

        class Connection(pool.ConnectionCls):  # type: ignore[name-defined,misc]  # its own class for each scheme
            def connect(self) -> None:
                super().connect()
                try:
                    judge(self.host, self.sock.getpeername()[0])
                except IdentityError:
                    self.close()
                    raise

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


class CatalogHttp(StacApiIO):
    """Requests to one catalog; safe to use from several threads. `hosts`: see `check_address`; empty = the catalog's own."""

    def __init__(
        self,
        api: str,
        *,
        now: Callable[[], datetime],
        sleep: Callable[[float], None],
        rng: random.Random,
        timeout: tuple[float, float] = (CONNECT, READ),
        total: float = TOTAL,
        hosts: tuple[str, ...] = (),
    ) -> None:
        super().__init__(timeout=timeout, max_retries=None)
        self.api = api
        inside = (*hosts, urlsplit(api).hostname or "")
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, Guarded(lambda host, address: check_address(host, address, inside)))
        self._now, self._sleep, self._rng, self._total = now, sleep, rng, total
        self._breaker, self._lock = Breaker(OPENS_AT, RESTS), threading.Lock()
        self.session.headers["Accept"] = "application/geo+json, application/json"

    def ask(self, url: str, method: str = "GET", parameters: dict[str, Any] | None = None, *, attempts: int = ATTEMPTS) -> Reply:
        """Asks, and asks again, until there is an answer that can be read.

        Raises:
            BadAnswer: the server cannot answer this request.
            Rejected: it does not take it (4xx).
            CatalogUnavailable: it cannot be reached, or wants to be left alone.
            ConfigError: it redirects, or its name leads to an address that nobody may be sent to.
            Refused: it wants credentials, or others.
        """
        self._rested()
        for tried in range(1, attempts + 1):
            try:
                answer = self._once(self.here(url), method, parameters)
            except _AgainError as again:
                if again.wait > MAX_RETRY_AFTER or tried == attempts:
                    asked = timedelta(seconds=again.wait) if again.wait > MAX_RETRY_AFTER else None
                    if asked is not None or attempts >= ATTEMPTS:  # fewer attempts are an experiment, and expected to fail
                        with self._lock:
                            self._breaker.failed(self._now(), asked=asked)
                    raise again.error from again.__cause__
                self._sleep(PAUSES.pause(tried - 1, self._rng, asked=timedelta(seconds=again.wait)).total_seconds())
            else:
                with self._lock:
                    self._breaker.worked()
                return answer
        raise AssertionError("unreachable")

    def here(self, url: str) -> str:
        """Returns the URL at the catalog's own origin: links name whatever host and scheme a server believes to have."""
        own, given = urlsplit(self.api), urlsplit(url)
        return urlunsplit((own.scheme, own.netloc, given.path, given.query, ""))

    def _rested(self) -> None:
        with self._lock:
            rest = self._breaker.rest
            if rest is not None and rest.lasts(self._now()):
                raise CatalogUnavailable(
                    f"catalog {self.api} does not answer; it is left alone until {rest.until:%H:%M:%S} UTC",
                    hint="`stac-watch check` asks it now",
                )

    def _once(self, url: str, method: str, parameters: dict[str, Any] | None) -> Reply:
        started = monotonic()
        body = {"json": parameters} if method == "POST" else {"params": parameters}
        try:
            with self.session.request(method, url, **body, timeout=self.timeout, allow_redirects=False, stream=True) as response:  # type: ignore[arg-type]  # the two ways of requests to be given a request's parameters
                self._judge(response)
                raw = self._body(response, started)
                date = response.headers.get("Date", "")
        except IdentityError as error:
            raise ConfigError(f"catalog {self.api}: {error.message}", hint=error.hint) from error
        except (requests.RequestException, OSError) as error:
            raise self._again(f"cannot be reached ({_reason(error)})", error) from error
        return Reply(self._document(raw), self._time(date), monotonic() - started)

    def _judge(self, response: requests.Response) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            target = response.headers.get("Location", "elsewhere")
            raise ConfigError(f"catalog {self.api} redirects to {target}", hint="write that URL into `api:`")
        said = f"catalog {self.api} answered HTTP {status}"
        if status in AGAIN or status >= 500:
            kind = CatalogUnavailable if status == 429 else BadAnswer
            raise _AgainError(kind(said, hint=_HINT), wait=self._retry_after(response))
        if status in (401, 403):
            raise Refused(said, hint="the catalog wants credentials, or has blocked this address: ask its operator")
        raise Rejected(said, status=status, hint=_HINT)

    def _body(self, response: requests.Response, started: float) -> bytes:
        parts, size = [], 0
        for chunk in response.iter_content(_CHUNK):
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_BYTES:
                said = f"catalog {self.api} sends more than {MAX_BYTES >> 20} MiB"
                raise _AgainError(BadAnswer(said, hint="lower `poll.page`"))
            if monotonic() - started > self._total:
                raise _AgainError(BadAnswer(f"catalog {self.api} took more than {self._total:.0f} s for one answer", hint=_HINT))
        return b"".join(parts)

    def _document(self, raw: bytes) -> dict[str, Any]:
        try:
            document = json.loads(raw.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is the former
            raise _AgainError(BadAnswer(f"catalog {self.api} answered something that is not JSON", hint=_HINT)) from error
        if not isinstance(document, dict):
            raise _AgainError(BadAnswer(f"catalog {self.api} answered JSON that is not STAC", hint=_HINT))
        return document

    def _again(self, what: str, error: Exception) -> _AgainError:
        # an answer that broke off, or did not come in time, may be this request's fault; a refused connection cannot be
        kind = BadAnswer if isinstance(error, _BROKEN) else CatalogUnavailable
        return _AgainError(kind(f"catalog {self.api} {what}", hint=_HINT))

    def _retry_after(self, response: requests.Response) -> float:
        """Returns what the server asks to wait, in seconds, a day at most: a number, or a date by its own clock."""
        given = response.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]+", given):  # isdigit() takes ², too
            return min(float(given), LONGEST_RETRY_AFTER)
        until = _moment(given)
        if until is None:
            return 0.0
        asked = (until - self._time(response.headers.get("Date", ""))).total_seconds()
        return min(max(0.0, asked), LONGEST_RETRY_AFTER)

    def _time(self, date: str) -> datetime:
        return _moment(date) or self._now()


_HINT = "check `api:` and the network; `stac-watch check` shows what answers"
_BROKEN = (
    requests.exceptions.ReadTimeout, requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError,
)  # fmt: skip


class _AgainError(Exception):
    """This request may be repeated; `wait` seconds if the server said so."""

    def __init__(self, error: CatalogUnavailable, *, wait: float = 0.0) -> None:
        super().__init__(error.message)
        self.error, self.wait = error, wait


def _moment(date: str) -> datetime | None:
    """Returns the time that an HTTP date names, UTC where it has no zone; None where it names none of the calendar."""
    try:
        parsed = parsedate_to_datetime(date)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        return None


def _reason(error: BaseException) -> str:
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    text = str(error)
    for known in ("Connection refused", "Name or service not known", "timed out", "Connection reset", "certificate"):
        if known.lower() in text.lower():
            return known.lower()
    return text.splitlines()[0][:160] if text else type(error).__name__
