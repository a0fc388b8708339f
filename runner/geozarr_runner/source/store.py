"""Where the product is read from: one store behind fsspec, with its faults told apart: not there, refused, temporary, illegal.

No redirect is followed to a host that is not allowed, and no connection is made to an address that a name was made to lead to
(`model.hosts.check_address`): what is checked is the answer of the look-up that the connection is made with.

Each object is tried again by itself, with capped exponential backoff and what `Retry-After` asks for; a product of 500 objects
must not start over because of one 503. S3 credentials and endpoints come from the usual AWS and FSSPEC_S3_* variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies

import fsspec

from stac_watch.model.errors import InputError, Refused, SourceNotThere, StacWatchError, Temporary, cannot_write
from stac_watch.model.hosts import check_address, check_href
from stac_watch.model.patience import Backoff

if TYPE_CHECKING:
    import aiohttp

_GONE = frozenset({404, 410})
_DENIED = frozenset({401, 403, 407})
_AGAIN = frozenset({408, 425, 429})


_PAUSES = Backoff(timedelta(seconds=0.5), timedelta(seconds=20))


@dataclass(frozen=True)
class Patience:
    """How often and how long one object is tried again, in seconds."""

    attempts: int = 5
    pauses: Backoff = _PAUSES
    timeout: float = 60.0  #: silence on a connection after which it counts as stalled; a slow but living transfer may take hours


@dataclass(frozen=True)
class SourceStore:
    """One store, or one document. `local` is its folder when it lies on this machine."""

    url: str
    fs: Any = field(repr=False)
    root: str
    patience: Patience
    wait: Callable[[float], bool] = field(repr=False)  #: sleeps; returns True when the work was called off meanwhile

    @property
    def local(self) -> Path | None:
        """The folder or file, for sources on this machine."""
        return Path(self.root) if "file" in _protocols(self.fs) else None

    def read(self, key: str = "") -> bytes:
        """Returns an object's bytes.

        Raises:
            SourceNotThere | Refused | Temporary | InputError: see `classify`.
        """
        path = self._path(key)
        return bytes(self._persist(lambda: self.fs.cat_file(path), path))

    def fetch(self, key: str, target: Path) -> int:
        """Writes an object to `target`, overwriting it, and returns its size in bytes.

        Raises:
            SourceNotThere | Refused | Temporary | InputError | CannotWrite: see `classify`.
        """
        path = self._path(key)
        self._persist(lambda: self.fs.get_file(path, str(target)), path, target)
        return target.stat().st_size

    def look(self, key: str) -> str:
        """Says in a few words what a HEAD request shows. Best effort: many object stores refuse HEAD to readers."""
        try:
            info = self.fs.info(self._path(key))
        except (OSError, ValueError) as error:
            return f"no answer to HEAD ({type(error).__name__})"
        details = [f"{info['size']} bytes"] if info.get("size") is not None else []
        details += [f"{name} {info[name]}" for name in ("LastModified", "ETag") if info.get(name)]
        return ", ".join(details) or "there, size unknown"

    def size(self, key: str) -> int | None:
        """Returns an object's size in bytes; None when it is not there, -1 when the server does not say.

        Raises:
            Refused | Temporary | InputError: see `classify`.
        """
        path = self._path(key)
        try:
            found = self._persist(lambda: self.fs.info(path), path).get("size")
        except SourceNotThere:
            return None
        return int(found) if found is not None else -1

    def _path(self, key: str) -> str:
        if not key:
            return self.root
        place, mark, query = self.root.partition("?") if self.local is None else (self.root, "", "")
        return f"{place.rstrip('/')}/{key}{mark}{query}"  # a signature is every object's

    def _persist(self, call: Callable[[], Any], path: str, target: Path | None = None) -> Any:  # noqa: ANN401  # what fsspec returns
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return call()
            except StacWatchError:
                raise
            except Exception as error:  # fsspec's back ends raise aiohttp, botocore and OS errors alike; each becomes one of ours
                known = classify(error, path, target)
                if not isinstance(known, Temporary) or attempt == self.patience.attempts:
                    raise known from error
                pause = self.patience.pauses.pause(attempt - 1, asked=_retry_after(error))
                if self.wait(pause.total_seconds()):
                    raise Temporary(f"called off while waiting to read {path} again") from error
        raise AssertionError("unreachable: attempts is at least 1")


def open_source(
    url: str, *, allowed_hosts: tuple[str, ...], patience: Patience, wait: Callable[[float], bool], named: str = ""
) -> SourceStore:
    """Returns the source behind a URL or a local path. Nothing is read yet.

    Args:
        url: what to open.
        allowed_hosts: hosts and networks that may be asked; empty = any public host, and the one of `named`.
        patience: how long it is tried.
        wait: sleeps; returns True when the work was called off meanwhile.
        named: the URL that a person wrote, where `url` was found in a document there; default: `url` itself.

    Raises:
        InputError: a scheme, host or form of URL that is not allowed.
    """
    if "://" in url or allowed_hosts:
        check_href(url, allowed_hosts)
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme in ("", "file"):
        path = str(Path(urlsplit(url).path if scheme else url).absolute())
        return SourceStore(path, fsspec.filesystem("file"), path, patience, wait)
    if scheme == "s3":
        return SourceStore(url, fsspec.filesystem("s3", skip_instance_cache=True), url.removeprefix("s3://"), patience, wait)
    inside = allowed_hosts or (urlsplit(named or url).hostname or "",)
    check_literal(url, inside)
    return SourceStore(url, _http(allowed_hosts, inside, patience), url, patience, wait)


def check_literal(url: str, inside: tuple[str, ...]) -> None:
    """Applies `check_address` to a URL whose host is an address: nothing is looked up for it.

    Raises:
        IdentityError: the address may not be connected to.
    """
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        check_address(host, str(ipaddress.ip_address(host)), inside)


def resolve_href(base: SourceStore, href: str) -> str:
    """Returns `href` as an absolute URL or path, seen from the document at `base`."""
    if "://" in href or href.startswith("/"):
        return href if "://" in href or base.local else urljoin(base.url, href)
    return str(base.local.parent / PurePosixPath(href)) if base.local else urljoin(base.url, href)


def classify(error: Exception, path: str, target: Path | None = None) -> StacWatchError:
    """Returns the error of our tree for what fsspec and its back ends raise while `path` is read, or copied to `target`."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SourceNotThere(f"{path} is not there", hint="it is tried again later; check the product's href if this stays")
    status = _status(error)
    if status is not None:
        return _by_status(status, path)
    if isinstance(error, asyncio.TimeoutError | TimeoutError | ConnectionError):
        return Temporary(f"no answer while reading {path}: {_reason(error)}", hint="the same again may work")
    if (
        isinstance(error, OSError)
        and (full := cannot_write(error, target or path)) is not None
        and not isinstance(error, PermissionError)
    ):
        return full
    if isinstance(error, PermissionError) or type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return Refused(f"not allowed to read {path}: {_reason(error)}", hint="check the credentials in the environment")
    if _is_transport(error):
        return Temporary(f"cannot read {path}: {_reason(error)}", hint="the same again may work")
    return InputError(f"cannot read {path}: {_reason(error)}")


def _by_status(status: int, path: str) -> StacWatchError:
    if status in _GONE:
        return SourceNotThere(f"{path} is not there (HTTP {status})", hint="it is tried again later")
    if status in _DENIED:
        return Refused(f"not allowed to read {path} (HTTP {status})", hint="check the credentials and the store's policy")
    if status in _AGAIN or status >= 500:  # the class of server errors, RFC 9110
        return Temporary(f"HTTP {status} while reading {path}", hint="the same again may work")
    return InputError(f"HTTP {status} while reading {path}", hint="the request itself is wrong: check the href")


def _http(allowed_hosts: tuple[str, ...], inside: tuple[str, ...], patience: Patience) -> Any:  # noqa: ANN401  # fsspec has no types
    import aiohttp

    proxies = {urlsplit(proxy).hostname for proxy in getproxies().values()}  # the operator's; behind one, its own rules hold

    class Resolver(aiohttp.ThreadedResolver):
        """Looks a name up and judges what it leads to; aiohttp connects to these answers, so nothing can change in between."""

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[aiohttp.abc.ResolveResult]:
            found = await super().resolve(host, port, family)
            if host not in proxies:
                for entry in found:
                    check_address(host, entry["host"], inside)
            return found

    class Connector(aiohttp.TCPConnector):
        """Judges the URL of each request, redirects included, whichever header they came with."""

        async def connect(
            self,
            req: aiohttp.ClientRequest,
            traces: list[aiohttp.tracing.Trace],
            timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's signature
        ) -> aiohttp.connector.Connection:
            url = str(req.url)
            check_href(url, allowed_hosts)
            check_literal(url, inside)
            return await super().connect(req, traces, timeout)

    async def session(**options: Any) -> aiohttp.ClientSession:  # noqa: ANN401  # fsspec's own signature
        opened = aiohttp.ClientSession(connector=Connector(resolver=Resolver()), **options)
        # `trust_env` is for proxies; with it aiohttp 3.14 also sends what ~/.netrc has for a host, or for any, to whoever asks
        opened._get_netrc_auth = lambda _host: None  # type: ignore[assignment,method-assign]  # noqa: SLF001
        return opened

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(30.0, patience.timeout), sock_read=patience.timeout)
    client = {"timeout": timeout, "trust_env": True}
    return fsspec.filesystem("http", client_kwargs=client, get_client=session, skip_instance_cache=True)


def _status(error: Exception) -> int | None:
    status = getattr(error, "status", None)
    if isinstance(status, int) and "aiohttp" in type(error).__module__:
        return status
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's ClientError
        code = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return code if isinstance(code, int) else None
    return None


def _retry_after(error: Exception) -> timedelta | None:
    headers = getattr(error, "headers", None)
    value = headers.get("Retry-After") if headers is not None else None
    return timedelta(seconds=min(int(value), 86400)) if isinstance(value, str) and value.isdecimal() else None


def _is_transport(error: Exception) -> bool:
    aiohttp_module = sys.modules.get("aiohttp")
    if aiohttp_module is not None and isinstance(error, aiohttp_module.InvalidURL):
        return False
    if aiohttp_module is not None and isinstance(error, aiohttp_module.ClientError):
        return True
    return type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "urllib3") or isinstance(error, OSError)


def _protocols(fs: Any) -> tuple[str, ...]:  # noqa: ANN401  # fsspec has no types
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
