"""What a source's requests carry so that its catalog lets them in: headers, made anew when they are no longer good.

They go to the catalog's own origin and nowhere else: `http` leaves it for nobody. A client secret goes to the token's own URL.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import requests

from stac_watch.catalog import answers
from stac_watch.catalog.connections import guard
from stac_watch.model.errors import CatalogUnavailable, Refused

type Read = Callable[[], str]
"""Reads a secret as it is now: the file of a mounted Secret changes."""

MASK = "***"
SHORTEST_SECRET = 4  # characters; what is shorter would mask half of every sentence
GOOD_FOR = timedelta(minutes=5)  # of a token that does not say how long it is good
MARGIN = 0.8  # of its time, after which a token is fetched anew


class Credentials(requests.auth.AuthBase):
    """Headers that a request gets; `kind` is how people are told of them. Without any it is false."""

    def __init__(self, kind: str = "", headers: dict[str, Read] | None = None) -> None:
        self.kind = kind
        self._headers = headers or {}
        self._last: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._headers)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Puts them into a request; as `auth` of requests, so that no ~/.netrc takes their place."""
        self._last = {name: read() for name, read in self._headers.items()}
        request.headers.update(self._last)
        return request

    def renewed(self) -> bool:
        """Tells whether there are others now than those that the server has just refused."""
        for read in self._headers.values():
            if isinstance(read, ClientCredentials):
                read.forget()
        return bool(self._headers) and {name: read() for name, read in self._headers.items()} != self._last

    def mask(self, text: str) -> str:
        """Returns a text without these credentials: servers repeat what they were told."""
        for value in self._last.values():
            for secret in (value, value.partition(" ")[2]):
                if len(secret) >= SHORTEST_SECRET:
                    text = text.replace(secret, MASK)
        return text


ANONYMOUS = Credentials()


def bearer(read: Read) -> Read:
    """Returns the value of `Authorization` for a token."""
    return lambda: f"Bearer {read()}"


def basic(user: str, read: Read) -> Read:
    """Returns the value of `Authorization` for a name and a password."""
    return lambda: "Basic " + base64.b64encode(f"{user}:{read()}".encode()).decode()


class ClientCredentials:
    """A token by OAuth 2 client credentials (RFC 6749, 4.4), as OpenID providers give it; fetched before it ends. Thread-safe.

    Raises, when it is called:
        Refused: the provider does not take the client.
        CatalogUnavailable: it cannot be reached, or gives no token.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        secret: Read,
        *,
        now: Callable[[], datetime],
        agent: str,
        extra: dict[str, str] | None = None,
    ) -> None:
        self._url, self._id, self._secret, self._extra = token_url, client_id, secret, extra or {}
        self._now, self._agent = now, agent
        self._token, self._until, self._lock = "", None, threading.Lock()  # type: tuple[str, datetime | None, threading.Lock]

    def __call__(self) -> str:
        """Returns `Bearer …`."""
        with self._lock:
            if self._until is None or self._now() >= self._until:
                self._token, self._until = self._fetch()
            return f"Bearer {self._token}"

    def forget(self) -> None:
        """Lets the next call fetch a token, whatever this one said of its end."""
        with self._lock:
            self._until = None

    def _fetch(self) -> tuple[str, datetime]:
        form = {"grant_type": "client_credentials", "client_id": self._id, "client_secret": self._secret()} | self._extra
        status, raw = self._post(form, None)
        if status in (400, 401):  # a provider may take the secret in a header only
            again, found = self._post({"grant_type": "client_credentials"} | self._extra, (self._id, self._secret()))
            status, raw = (again, found) if again == 200 else (status, raw)
        words = answers.words(raw).replace(self._secret(), MASK)
        if status != 200:
            said = f"POST {self._url} answered HTTP {status}" + (f": {words}" if words else "")
            if 400 <= status < 500 and status not in (408, 429):
                raise Refused(said, hint="no token for the catalog: check token_url, client_id and the secret of `auth.oidc`")
            raise CatalogUnavailable(said, hint="the catalog's tokens come from there; it is asked again")
        return self._read(raw)

    def _read(self, raw: bytes) -> tuple[str, datetime]:
        try:
            given: Any = json.loads(raw)
            token, lasts = given["access_token"], float(given.get("expires_in", GOOD_FOR.total_seconds()))
            return str(token), self._now() + timedelta(seconds=min(max(lasts * MARGIN, 1.0), 86_400.0))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CatalogUnavailable(
                f"POST {self._url} answered without an access_token", hint="is `auth.oidc.token_url` the token endpoint?"
            ) from None

    def _post(self, form: dict[str, str], auth: tuple[str, str] | None) -> tuple[int, bytes]:
        with requests.Session() as session:
            session.headers["User-Agent"] = self._agent
            guard(session, (urlsplit(self._url).hostname or "",))
            try:
                with session.post(
                    self._url, data=form, auth=auth or _none, timeout=(5, 30), allow_redirects=False, stream=True
                ) as answer:
                    return answer.status_code, next(answer.iter_content(1 << 16), b"")
            except (requests.RequestException, OSError) as error:
                raise CatalogUnavailable(
                    f"POST {self._url} cannot be reached ({type(error).__name__})", hint="the catalog's tokens come from there"
                ) from error


def wanted(challenge: str, said: str) -> str:
    """Returns what to write into `auth:`; each way, where neither WWW-Authenticate nor the server's own words say which."""
    scheme = challenge.split(" ")[0].lower().strip(",")
    if scheme not in _WAYS and _KEY.search(f"{challenge} {said}"):
        scheme = "apikey"
    if (way := _WAYS.get(scheme)) is not None:
        return f"give the source `auth: {{{way}}}`"
    return f"write what its operator gave you into the source's `auth:`, as {', '.join(f'`{w}`' for w in _WAYS.values())} or `oidc`"


_WAYS = {
    "bearer": "bearer: {env: TOKEN}",
    "apikey": "header: {name: X-API-Key, env: KEY}",
    "basic": "basic: {user: NAME, env: PASSWORD}",
}
_KEY = re.compile(r"(api|subscription|access)[ _-]?key", re.IGNORECASE)


def _none(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Adds nothing, so that requests does not look into ~/.netrc."""
    return request
