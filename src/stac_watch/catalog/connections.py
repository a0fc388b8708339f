"""Connections that are made to no address that nobody may be sent to, and why one could not be made.

Nothing is said before the address was judged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3 import HTTPConnectionPool

from stac_watch.model.errors import IdentityError
from stac_watch.model.hosts import check_address


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


def guard(session: requests.Session, hosts: tuple[str, ...]) -> requests.Session:
    """Lets a session connect to what `check_address` allows, and returns it."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, Guarded(lambda host, address: check_address(host, address, hosts)))
    return session


def reason(error: BaseException) -> str:
    """Returns why a request was not answered, in the words of the operating system or the library."""
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    text = str(error)
    for known in ("Connection refused", "Name or service not known", "timed out", "Connection reset", "certificate"):
        if known.lower() in text.lower():
            return known.lower()
    return text.splitlines()[0][:160] if text else type(error).__name__


def speaks_plain(error: BaseException) -> bool:
    """Tells whether the answer to a TLS handshake was none: plain HTTP, as OpenSSL puts it."""
    return any(word in _all(error) for word in _PLAIN)


def garbled(error: BaseException) -> bool:
    """Tells whether the answer to plain HTTP was none: what a TLS port does."""
    return any(word in _all(error) for word in _GARBLED)


def untrusted(error: BaseException) -> bool:
    """Tells whether the server's certificate was the trouble."""
    return "certificate" in _all(error).lower()


def speaks_tls(url: str) -> bool:
    """Tells whether the port of an http URL answers TLS; nothing but the path is said to it, and no credentials."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            guard(session, (urlsplit(url).hostname or "",))
            session.head(f"https{url[4:]}", timeout=(2, 2), allow_redirects=False)
    except requests.exceptions.SSLError as error:
        return untrusted(error)
    except (requests.RequestException, OSError, IdentityError):
        return False
    return True


def _all(error: BaseException) -> str:
    return f"{type(error).__name__} {error!r} {error.__cause__!r} {error.__context__!r}"


_PLAIN = (
    "WRONG_VERSION_NUMBER",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
    "record layer",
)
_GARBLED = ("BadStatusLine", "RemoteDisconnected", "ConnectionReset", "Connection aborted", "IncompleteRead", "InvalidHeader")
