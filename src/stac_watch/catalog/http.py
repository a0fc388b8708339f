"""One request to a catalog, answered by a JSON document or by a sentence of what is wrong.

Every wait ends. The catalog's origin is not left, and nothing is said to an address that `check_address` refuses. Redirects are
followed on the same host and where they change little (`answers.followed`; by others a POST would become a GET without its body:
other items, HTTP 200). A server that does not answer is left alone, one that limits how often it may be asked is asked no faster.

`StacApiIO` of pystac-client 0.9.1 is the base. What that version gets wrong is set right here: `Client.open` drops the time-out of
the I/O object it is given, POST is never retried, Retry-After is not read on POST, and neither a truncated body nor one that is no
JSON is asked for again.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from pystac_client.stac_api_io import StacApiIO

from stac_watch.catalog import answers
from stac_watch.catalog.answers import BadAnswer, NoJson, Rejected, Throttled, TooLarge
from stac_watch.catalog.connections import garbled, guard, reason, speaks_plain, speaks_tls, untrusted
from stac_watch.catalog.credentials import ANONYMOUS, Credentials, wanted
from stac_watch.catalog.pace import GENTLE, AskingPace
from stac_watch.model.errors import CatalogUnavailable, ConfigError, IdentityError, Refused, StacWatchError
from stac_watch.model.hosts import is_inside
from stac_watch.model.patience import Backoff, Breaker

CONNECT, READ = 5.0, 60.0  # seconds; EODC answers a full page in 2.3 s, a big un-indexed query took 1.6 s on pgstac
TOTAL = 180.0  # seconds for a whole answer: a read time-out alone lets a server drip a byte a minute for ever
MAX_BYTES = 64 * 1024 * 1024  # unpacked; 10,000 items with what is asked of them are 10 MB, 200 whole ones 4 MB
MAX_VALUES = 2_000_000  # in one document: Python needs some 80 bytes for the smallest, of which 3 came over the wire
MAX_WORDS = 64 * 1024  # bytes that are read of an answer that is a refusal
ATTEMPTS = 4  # whole requests, body included; beyond that the window waits for the next poll
MAX_RETRY_AFTER = 120.0  # seconds that are waited at once; a server that asks for more is left alone until then
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
LARGE = frozenset({413, 414, 431})
NOT_IMPLEMENTED = 501  # the only 5xx that is an answer
PAUSES = Backoff(timedelta(seconds=1), timedelta(seconds=MAX_RETRY_AFTER))  # between attempts
OPENS_AT = 5  # requests that failed in a row, each with all its attempts, before the catalog is left alone
RESTS = Backoff(timedelta(seconds=30), timedelta(minutes=15))
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Reply:
    """One document as the server gave it."""

    document: dict[str, Any]
    server_now: datetime  # the server's clock now
    seconds: float
    as_of: datetime  # when the document was made: earlier, where a cache has kept it
    status: int = 200


@dataclass
class _Heard:
    """What came back on the wire. An error keeps the frames that it went through, and with them this, for as long as it is told."""

    method: str
    url: str
    status: int
    headers: answers.Headers
    raw: bytes

    @property
    def asked(self) -> str:
        """The request as people are told of it: without parameters, which may be long."""
        return f"{self.method} {self.url.partition('?')[0]}"

    @property
    def target(self) -> str:
        """Where a redirect leads; empty where it does not say."""
        given = self.headers.get("Location", "")
        try:
            return urljoin(self.url, given) if given else ""
        except ValueError:  # no URL
            return ""


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
        credentials: Credentials = ANONYMOUS,
        agent: str = "stac-watch",
    ) -> None:
        super().__init__(timeout=timeout, max_retries=None)
        self.api = api
        self.session.auth = _nobody
        guard(self.session, (*hosts, urlsplit(api).hostname or ""))
        self._now, self._sleep, self._rng, self._total = now, sleep, rng, total
        self._credentials = credentials
        self._breaker, self._lock = Breaker(OPENS_AT, RESTS), threading.Lock()
        self._pace = AskingPace()
        self._answered: set[str] = set()  # methods that were answered
        self._slashed: dict[str, str] = {}  # URLs that are right with another end
        self.session.headers.update({"Accept": "application/geo+json, application/json", "User-Agent": agent})

    def ask(self, url: str, method: str = "GET", parameters: dict[str, Any] | None = None, *, attempts: int = ATTEMPTS) -> Reply:
        """Asks, and asks again, until there is an answer that can be read.

        Raises:
            BadAnswer: the server cannot answer this request; `TooLarge` where a smaller one may do.
            Rejected: it does not take it (4xx).
            CatalogUnavailable: it cannot be reached, or wants to be left alone.
            ConfigError: it redirects, or its name leads to an address that nobody may be sent to.
            Refused: it wants credentials, or others.
        """
        self._rested()
        self._keep_pace()
        for tried in range(1, attempts + 1):
            try:
                answer = self._once(self.here(url), method, parameters)
            except _AgainError as again:
                self._give_up(again, last=tried == attempts, experiment=attempts < ATTEMPTS)
                wait = max(again.wait, self._pace.gap) if isinstance(again.error, Throttled) else again.wait
                self._sleep(PAUSES.pause(tried - 1, self._rng, asked=timedelta(seconds=wait)).total_seconds())
            else:
                with self._lock:
                    self._breaker.worked()
                    self._answered.add(method)
                return answer
        raise AssertionError("unreachable")

    def here(self, url: str) -> str:
        """Returns the URL at the catalog's own origin: links name whatever host and scheme a server believes to have."""
        own, given = urlsplit(self.api), urlsplit(url)
        return urlunsplit((own.scheme, own.netloc, given.path, given.query, ""))

    def gently(self, gently: bool) -> None:  # as the switch that it is
        """Keeps to a few requests a second, or no longer, where the server is not visibly one's own."""
        with self._lock:
            self._pace.least = GENTLE if gently and not is_inside(urlsplit(self.api).hostname or "") else 0.0

    def _give_up(self, again: _AgainError, *, last: bool, experiment: bool) -> None:
        """Raises what is wrong after the last attempt, or where the server wants a pause that nobody waits for."""
        if not (last or again.wait > MAX_RETRY_AFTER):
            return
        asked = timedelta(seconds=again.wait) if again.wait > MAX_RETRY_AFTER else None
        if asked is not None or not experiment:  # an experiment is expected to fail
            with self._lock:
                self._breaker.failed(self._now(), again.error.message, asked=asked)
        raise again.error from again.__cause__

    def _rested(self) -> None:
        with self._lock:
            rest = self._breaker.rest
            if rest is not None and rest.lasts(self._now()):
                raise CatalogUnavailable(
                    f"catalog {self.api} does not answer; it is left alone until {rest.until:%H:%M:%S} UTC ({self._breaker.said})",
                    hint="it is asked again then; `stac-watch check` asks it now",
                )

    def _keep_pace(self) -> None:
        with self._lock:
            wait = self._pace.wait(monotonic())
        if wait > 0:
            self._sleep(wait)

    def _once(self, url: str, method: str, parameters: dict[str, Any] | None) -> Reply:
        started = monotonic()
        heard = self._exchange(self._slashed.get(url, url), method, parameters, started)
        for _ in range(2):
            if (target := answers.followed(method, heard.status, heard.url, heard.target)) is None:
                break
            heard = self._exchange(target, method, parameters, started)
            if heard.status < 300 and len(self._slashed) < 100:
                self._slashed[url] = target
        if (heard.status == 401 or (heard.status == 403 and b"expired" in heard.raw.lower())) and self._credentials.renewed():
            heard = self._exchange(heard.url, method, parameters, started)
        made = answers.moment(heard.headers.get("Date", "")) or self._now()
        try:
            server_now = made + answers.age(heard.headers)
        except OverflowError:  # a `Date` at the calendar's end
            server_now = made
        with self._lock:
            self._pace.heard(heard.headers, server_now, monotonic())
        self._judge(heard, server_now)
        try:
            document = {} if heard.status == 204 else self._document(heard)
        finally:
            heard.raw = b""
        return Reply(document, server_now, monotonic() - started, made, heard.status)

    def _exchange(self, url: str, method: str, parameters: dict[str, Any] | None, started: float) -> _Heard:
        body = {"json": parameters} if method in ("POST", "PUT") else {"params": parameters}
        auth = self._credentials or None
        try:
            with self.session.request(
                method, url, **body, timeout=self.timeout, allow_redirects=False, stream=True, auth=auth  # type: ignore[arg-type]  # the two ways of requests to be given a request's parameters
            ) as response:  # fmt: skip
                raw = self._body(response, started) if 200 <= response.status_code < 300 else _refusal(response)
                return _Heard(method, url, response.status_code, response.headers, raw)
        except IdentityError as error:
            raise ConfigError(f"catalog {self.api}: {error.message}", hint=error.hint) from error
        except (requests.RequestException, OSError) as error:
            raise self._unreachable(f"{method} {url.partition('?')[0]}", error) from error
        except ValueError as error:  # requests looks where a redirect leads, also where it does not follow it
            raise _AgainError(BadAnswer(f"{method} {url.partition('?')[0]} redirects to what is no URL", hint=TROUBLE)) from error

    def _judge(self, heard: _Heard, server_now: datetime) -> None:
        status = heard.status
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise self._moved(heard)
        words = self._credentials.mask(answers.words(heard.raw))
        said = f"{heard.asked} answered HTTP {status}" + (f": {words}" if words else "")
        if answers.throttles(status, heard.headers, words):
            self._pace.slower()
            error = Throttled(said, hint="the catalog limits how often it may be asked; it is asked again, and more slowly")
            raise _AgainError(error, wait=answers.pause(heard.headers, server_now))
        if status in LARGE:
            raise TooLarge(said, hint="`poll.page` sets how many items are asked for at once")
        if status in AGAIN or (status >= 500 and status != NOT_IMPLEMENTED):
            raise _AgainError(BadAnswer(said, hint=TROUBLE), wait=answers.pause(heard.headers, server_now))
        if status in (401, 403):
            refused = Refused(said, hint=self._wanted(heard))
            if status == 403 and heard.method in self._answered:  # gateways that limit the rate say this, too
                self._pace.slower()
                raise _AgainError(refused)
            raise refused
        if urlsplit(heard.url).scheme == "http" and answers.wants_tls(words):
            raise self._scheme("https", said)
        raise Rejected(said, status=status, words=words, hint=NOT_TAKEN)

    def _moved(self, heard: _Heard) -> StacWatchError:
        target = heard.target
        said = f"{heard.asked} redirects (HTTP {heard.status}) to {answers.printable(target)}"
        if not target:
            return BadAnswer(f"{heard.asked} answered HTTP {heard.status} without saying where to", hint=TROUBLE)
        if answers.leads_to_login(target):
            return Refused(f"{said}: the catalog wants a login", hint=self._wanted(heard))
        asked, path = heard.url.partition("?")[0], target.partition("?")[0]
        rest = asked.removeprefix(self.api).rstrip("/")
        if asked.startswith(self.api) and path.rstrip("/").endswith(rest):
            root = path.rstrip("/").removesuffix(rest)
            return ConfigError(said, hint=f"the catalog has moved: write {answers.printable(root)} into `api:`")
        return ConfigError(said, hint=f"is {self.api} the root of the STAC API? Its own address is followed nowhere else")

    def _wanted(self, heard: _Heard) -> str:
        """Returns what to do where credentials are wanted, or others."""
        if self._credentials:
            return f"the catalog does not take the credentials of `auth.{self._credentials.kind}`: are they right, and still good?"
        way = wanted(heard.headers.get("WWW-Authenticate", ""), answers.words(heard.raw))
        blocked = "" if heard.status == 401 else "; or it has blocked this address: ask its operator"
        return f"the catalog wants credentials: {way}{blocked}"

    def _body(self, response: requests.Response, started: float) -> bytes:
        parts, size = list[bytes](), 0
        try:
            for chunk in response.iter_content(_CHUNK):
                parts.append(chunk)
                size += len(chunk)
                if size > MAX_BYTES:
                    raise TooLarge(f"catalog {self.api} sends more than {MAX_BYTES >> 20} MiB for one answer", hint=FEWER)
                if monotonic() - started > self._total:
                    said = f"catalog {self.api} took more than {self._total:.0f} s for one answer"
                    raise _AgainError(BadAnswer(said, hint=TROUBLE))
            return b"".join(parts)
        finally:
            parts.clear()

    def _document(self, heard: _Heard) -> dict[str, Any]:
        if sum(heard.raw.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
            raise TooLarge(f"catalog {self.api} sends more than {MAX_VALUES} values in one answer", hint=FEWER)
        try:
            document = json.loads(heard.raw)  # bytes: a byte order mark, and UTF-16, are read
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is the former
            _forget(error)
            text = heard.raw[:MAX_WORDS].decode("utf-8", errors="replace")
            page = answers.page(text)
            what = {"html": "an HTML page", "xml": "XML"}.get(page, "something that is not JSON")
            named = f" ({self._credentials.mask(answers.title(text))!r})" if answers.title(text) else ""
            said = f"{heard.asked} answered {what}{named}, which is not JSON"
            if page == "html" and answers.wants_login(text):
                raise Refused(f"{said}: the catalog wants a login", hint=self._wanted(heard)) from error
            raise _AgainError(NoJson(said, page=page, text=text, hint=TROUBLE)) from error
        if not isinstance(document, dict):
            raise _AgainError(BadAnswer(f"{heard.asked} answered JSON that is not STAC", hint=TROUBLE))
        return document

    def _unreachable(self, asked: str, error: Exception) -> Exception:
        said = f"{asked}: {self.api} cannot be reached ({reason(error)})"
        if self.api.startswith("https:") and speaks_plain(error):
            return self._scheme("http", asked)
        if self.api.startswith("http:") and not self._answered and garbled(error) and speaks_tls(self.api):
            return self._scheme("https", asked)
        if untrusted(error):
            hint = "its certificate is not trusted here: REQUESTS_CA_BUNDLE names a file with the authority that signed it"
            return _AgainError(CatalogUnavailable(said, hint=hint))
        # an answer that broke off, or did not come in time, may be this request's fault; a refused connection cannot be
        kind = BadAnswer if isinstance(error, _BROKEN) else CatalogUnavailable
        return _AgainError(kind(said, hint=REACH))

    def _scheme(self, right: str, asked: str) -> ConfigError:
        url = f"{right}://{self.api.partition('://')[2]}"
        what = "does not speak TLS" if right == "http" else "speaks TLS"
        return ConfigError(f"{asked}: {urlsplit(self.api).netloc} {what}", hint=f"write {url} into `api:`")


FEWER = "fewer items are asked for at once; `poll.page` sets how many at most"
TROUBLE = "the server is in trouble, not the configuration: it is asked again"
NOT_TAKEN = "the server does not take this request, and its own words say why; is `api:` the root of a STAC API?"
REACH = "check `api:`, the network and, behind a proxy, HTTPS_PROXY; a watcher asks again by itself"
_BROKEN = (
    requests.exceptions.ReadTimeout, requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError,
)  # fmt: skip


class _AgainError(Exception):
    """This request may be repeated; `wait` seconds if the server said so."""

    def __init__(self, error: StacWatchError, *, wait: float = 0.0) -> None:
        super().__init__(error.message)
        self.error, self.wait = error, wait


def _forget(error: Exception) -> None:
    """Lets a parser's error no longer hold the text that it could not read: 64 MiB of each such answer were kept."""
    error.__traceback__ = None
    if isinstance(error, json.JSONDecodeError):
        error.doc = ""
    elif isinstance(error, UnicodeDecodeError):
        error.object = b""


def _refusal(response: requests.Response) -> bytes:
    """Returns how a refusal begins: its words are wanted, not its end."""
    parts, size, started = [], 0, monotonic()
    with contextlib.suppress(requests.RequestException, OSError):
        for chunk in response.iter_content(1024):
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_WORDS or monotonic() - started > CONNECT:
                break
    return b"".join(parts)


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Credentials are those that the source is configured with; without this, what ~/.netrc has for a host is sent to it."""
    return request
