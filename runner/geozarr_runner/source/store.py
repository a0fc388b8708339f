"""Where the product is read from: one store behind fsspec, bounded in bytes and seconds, and asked no more than it may be.

No redirect is followed to a host that is not allowed, and no connection is made to an address that a name was made to lead to
(`model.hosts.check_address`): what is checked is the answer of the look-up that the connection is made with.

Each object is tried again by itself, with capped exponential backoff and what `Retry-After` asks for; a product of 500 objects
must not start over because of one 503. S3 credentials and endpoints come from the usual AWS and FSSPEC_S3_* variables.
A query string in a store's URL goes with every object, and is never shown: it may be what opens the store.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit, urlunsplit
from urllib.request import getproxies

import fsspec
from fsspec.asyn import sync

from geozarr_runner.source.faults import Forbidden, classify, retry_after, signature_ended, without_query
from geozarr_runner.source.threads import in_threads
from geozarr_runner.source.transfer import S3, Http, Transport, Validator
from stac_watch.model.errors import InputError, Refused, SourceNotThere, StacWatchError, Temporary, printable
from stac_watch.model.hosts import check_address, check_href
from stac_watch.model.patience import Backoff

if TYPE_CHECKING:
    import aiohttp

_PAUSES = Backoff(timedelta(seconds=0.5), timedelta(seconds=20))
MAX_DOCUMENT = 64 * 1024**2
"""Bytes of a metadata document or an item, decompressed: 60 times the largest real `.zmetadata`."""
_SLOWEST = 16_384  #: bytes a second: what is slower, after a grace of ten silences, will not end
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,254}")
"""What S3 ever allowed (upper case and `_` until 2018), and Ceph's `tenant:bucket`."""


@dataclass(frozen=True)
class Patience:
    """How often and how long one object is tried again, in seconds."""

    attempts: int = 5
    pauses: Backoff = _PAUSES
    timeout: float = 60.0  #: silence on a connection after which it counts as stalled; a slow but living transfer may take hours

    def longest(self, limit: int) -> float:
        """Returns the seconds after which the transfer of an object of at most `limit` bytes counts as one without end."""
        return 10 * self.timeout + limit / _SLOWEST


@dataclass(frozen=True)
class Transferred:
    """An object that was written to a file."""

    size: int
    validator: Validator


@dataclass(frozen=True)
class SourceStore:
    """One store, or one document. `url` is what may be shown; `local` its folder when it lies on this machine."""

    url: str
    fs: Any = field(repr=False)
    root: str
    patience: Patience
    wait: Callable[[float], bool] = field(repr=False)  #: sleeps; returns True when the work was called off meanwhile
    query: str = field(default="", repr=False)  #: of the store's URL; it goes with every object
    renewable: bool = False  #: an item led here: the next attempt reads it again, and with it a new signature
    transport: Transport | None = field(default=None, repr=False)  #: None for what lies on this machine

    @property
    def local(self) -> Path | None:
        """The folder or file, for sources on this machine."""
        return Path(self.root) if self.transport is None else None

    def read(self, key: str = "", *, limit: int = MAX_DOCUMENT) -> bytes:
        """Returns an object's bytes.

        Raises:
            InputError: more than `limit` of them.
            SourceNotThere | Refused | Temporary: see `faults.classify`.
        """
        path = self._path(key)
        found = bytearray()

        async def collect(transport: Transport) -> None:
            found.clear()
            async with transport.get(path) as answer:
                async for block in answer.blocks:
                    found.extend(block)
                    _require_end(path, len(found), limit)

        self._persist(lambda: self._run(collect, limit, lambda: found.extend(_read_file(path, limit))), path)
        return bytes(found)

    def starts_with(self, key: str, beginnings: tuple[bytes, ...]) -> bool:
        """Tells whether an object is there and begins so; no more than its first bytes are asked of the connection."""
        path, found = self._path(key), bytearray()

        async def peek(transport: Transport) -> None:
            async with transport.get(path) as answer:
                async for block in answer.blocks:
                    found.extend(block[:16])
                    return

        try:
            self._run(peek, 16, lambda: found.extend(_read_file(path, 16, cut=True)))
        except Exception as error:  # noqa: BLE001  # as in `_persist`; whatever it is, nothing was seen
            classify(error, path)
        return bytes(found).startswith(beginnings)

    def fetch(self, key: str, target: Path, *, limit: int) -> Transferred:
        """Writes an object to `target`, overwriting it.

        Raises:
            InputError: it has more than `limit` bytes; no more than those are written.
            SourceNotThere | Refused | Temporary | CannotWrite: see `faults.classify`.
        """
        path = self._path(key)
        fetched = []

        async def download(transport: Transport) -> None:
            size = 0
            async with transport.get(path) as answer:
                _require_end(path, answer.validator.size or 0, limit)
                with target.open("wb") as file:  # blocks of a megabyte to the page cache, as fsspec does
                    async for block in answer.blocks:
                        size += len(block)
                        _require_end(path, size, limit)
                        file.write(block)
                fetched.append(Transferred(size, answer.validator))

        self._persist(lambda: self._run(download, limit), path, target)
        return fetched[-1]

    def ask(self, key: str, known: Validator) -> bool:
        """Tells whether an object is, by what the server says of it, still what it was when it was `known`.

        Raises:
            SourceNotThere | Refused | Temporary | InputError: see `faults.classify`.
        """
        path = self._path(key)
        told = []

        async def look(transport: Transport) -> None:
            async with transport.get(path, known) as answer:
                told.append(answer.unchanged)

        self._persist(lambda: self._run(look, 0, lambda: told.append(not known.differs(stat_validator(Path(path))))), path)
        return told[-1]

    def look(self, key: str) -> str:
        """Says in a few words what a HEAD request shows. Best effort: many object stores refuse HEAD to readers."""
        try:
            info = self.fs.info(self._path(key))
        except (OSError, ValueError) as error:
            return f"no answer to HEAD ({type(error).__name__})"
        details = [f"{info['size']} bytes"] if info.get("size") is not None else []
        details += [f"{name} {info[name]}" for name in ("LastModified", "ETag") if info.get(name)]
        return ", ".join(details) or "there, size unknown"

    def size(self, key: str, *, limit: int) -> int | None:
        """Returns an object's bytes, as `fetch` would write them; None when it is not there.

        Raises:
            InputError: its server does not say, and it has more than `limit`.
            Refused | Temporary: see `faults.classify`.
        """
        path = self._path(key)
        told = list[int]()

        async def count(blocks: AsyncIterator[bytes]) -> int:
            size = 0
            async for block in blocks:
                size += len(block)
                _require_end(path, size, limit)
            return size

        async def measure(transport: Transport) -> None:
            told.append(await transport.size(path, count))

        try:
            self._persist(lambda: self._run(measure, limit, lambda: told.append(Path(path).stat().st_size)), path)
        except (SourceNotThere, Forbidden):  # a store that may not be listed refuses what it does not have
            return None
        return told[-1]

    def sizes(self, limits: Mapping[str, int], called_off: threading.Event) -> dict[str, int]:
        """Returns the bytes of those objects that are there, many at a time; `limits` has for each how many it can have.

        Raises:
            InputError | Refused | Temporary: see `size`.
        """
        keys = list(limits)
        found = zip(keys, in_threads(lambda key: self.size(key, limit=limits[key]), keys, called_off), strict=True)
        return {key: size for key, size in found if size is not None}

    def _path(self, key: str) -> str:
        path = f"{self.root.rstrip('/')}/{key}" if key else self.root
        return f"{path}?{self.query}" if self.query else path

    def _run(self, call: Callable[[Transport], Any], limit: int, local: Callable[[], object] = lambda: None) -> None:
        if self.transport is None:
            local()
        else:
            sync(self.fs.loop, call, self.transport, timeout=self.patience.longest(limit))

    def _persist[T](self, call: Callable[[], T], path: str, target: Path | None = None) -> T:
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return call()
            except StacWatchError:
                raise
            except Exception as error:  # fsspec's back ends raise aiohttp, botocore and OS errors alike; each becomes one of ours
                known = self._signed(classify(error, path, target), error)
                if not isinstance(known, Temporary) or attempt == self.patience.attempts or isinstance(known, _Ended):
                    raise known from error
                pause = self.patience.pauses.pause(attempt - 1, asked=retry_after(error))
                if self.wait(pause.total_seconds()):
                    raise Temporary(f"called off while waiting to read {without_query(path)} again") from error
        raise AssertionError("unreachable: attempts is at least 1")

    def _signed(self, known: StacWatchError, error: Exception) -> StacWatchError:
        """Says of a refusal that the signature in the URL has ended, where it has."""
        if not self.query or not isinstance(known, Refused):
            return known
        ended = signature_ended(self.query, error)
        if not ended:
            said = f"{known.hint}; the signature in its href may be for another object, or have ended"
            return type(known)(known.message, hint=said)
        message = f"{known.message}: the signature in its href ended at {ended}"
        if self.renewable:
            return _Ended(message, hint="the next attempt reads the item again, and with it a new signature")
        return Refused(message, hint="give an href with a new signature, or the item that carries it")


class _Ended(Temporary):
    """A signature that has ended: this run cannot get a new one, the next does."""


def open_source(
    url: str,
    *,
    allowed_hosts: tuple[str, ...],
    patience: Patience,
    wait: Callable[[float], bool],
    named: str = "",
) -> SourceStore:
    """Returns the source behind a URL or a local path. Nothing is read yet.

    Args:
        url: what to open.
        allowed_hosts: hosts and networks that may be asked; empty = any public host, and the one of `named`.
        patience: how long it is tried.
        wait: sleeps; returns True when the work was called off meanwhile.
        named: the URL that a person wrote, where `url` was found in a document there; default: `url` itself.

    Raises:
        InputError: a scheme, host, bucket or form of URL that is not allowed.
    """
    if "://" in url or allowed_hosts:
        check_href(url, allowed_hosts)
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme in ("", "file"):
        path = _here(urlsplit(url).path if scheme else url)
        return SourceStore(path, fsspec.filesystem("file"), path, patience, wait)
    if scheme == "s3":
        bucket = url.removeprefix("s3://").partition("/")[0]
        if not _BUCKET.fullmatch(bucket):
            raise InputError(f"{url[:120]!r} names no bucket that can be: {bucket[:80]!r}", hint="it is s3://BUCKET/KEY")
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        return SourceStore(url, fs, url.removeprefix("s3://"), patience, wait, transport=S3(fs))
    if not urlsplit(url).hostname:
        raise InputError(f"{printable(url, 120)} names no host", hint="it is https://HOST/PATH")
    inside = allowed_hosts or (urlsplit(named or url).hostname or "",)
    check_literal(url, inside)
    parts = urlsplit(url)
    root = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    fs = _http(allowed_hosts, inside, patience)
    return SourceStore(root, fs, root, patience, wait, query=parts.query, transport=Http(fs))


def _here(path: str) -> str:
    """Returns the absolute path of a folder or a file, or of what is not there yet. Raises InputError for what can be neither."""
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # told when it is read
        return str(Path(path).absolute())
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(path, 120)} is no path: {getattr(error, 'strerror', '') or error}") from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InputError(f"{printable(path, 120)} is neither a folder nor a file", hint="name a store, or a STAC item's document")
    return str(Path(path).absolute())


def found_in(store: SourceStore) -> SourceStore:
    """Returns a store whose href an item gave: the next attempt may get another one there."""
    return replace(store, renewable=True)


def stat_validator(path: Path) -> Validator:
    """Returns what the file system says of a file's content.

    Raises:
        OSError: it is not there.
    """
    found = path.stat()
    return Validator(modified=str(found.st_mtime_ns), size=found.st_size)


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


def _read_file(path: str, limit: int, *, cut: bool = False) -> bytes:
    with Path(path).open("rb") as file:
        found = file.read(limit + 1)
    if not cut:
        _require_end(path, len(found), limit)
    return found


def _require_end(path: str, size: int, limit: int) -> None:
    if size > limit:
        raise InputError(
            f"{without_query(path)} has more than the {limit} bytes that it can have",
            hint="nothing more of it was read; is it what it is called?",
        )
