"""What a product's store shows without its pixels: its root's metadata, and how large its objects are.

The stores of finished products have neither checksum nor ETag; this is all that tells one from another under the same name. Nothing
is listed, no object is fetched but the root's document, and each is asked for once: a store of a full tile takes some 190 requests.
Only of servers that say no length, whatever they are asked, an object is read to its end, and its bytes counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from time import monotonic
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests

from stac_watch.catalog.buckets import SCHEME, Buckets
from stac_watch.catalog.connections import guard, reason
from stac_watch.model.errors import IdentityError, InputError, Temporary
from stac_watch.model.hosts import check_href, is_inside
from stac_watch.model.signatures import masked
from stac_watch.model.zarr3 import ROOT

TIMEOUT = (5.0, 30.0)  # seconds: to connect, and without a byte
TOTAL = 60.0  # for a root's document
MAX_ROOT = 64 * 1024 * 1024  # bytes, as the runner takes
MAX_COUNTED = 2 * 1024**3  # bytes of an object that is read to be counted; the largest of a real tile has 158 MB
TOTAL_COUNTED = 300.0  # seconds for one
REDIRECTS = 3
ABSENT = frozenset({403, 404, 410})
"""403 as well: stores that may not be listed say it of what is not there. Where the root can be read, it means that."""
_NO_HEAD = frozenset({400, 405, 501})
_TOTAL = re.compile(r"bytes \d+-\d+/(\d{1,19})$")
_CHUNK = 1 << 16
_GONE = -1


class Stores:
    """Requests to the product stores of one source, one after another and no faster than `rate`; of one thread at a time."""

    def __init__(
        self, allowed_hosts: tuple[str, ...], *, rate: float, sleep: Callable[[float], None], agent: str = "stac-watch"
    ) -> None:
        self._hosts, self._gap, self._sleep = allowed_hosts, 1 / rate, sleep
        self._next = 0.0
        self._no_head: set[str] = set()  # hosts that refuse it
        self._session = guard(requests.Session(), allowed_hosts)
        self._session.auth = lambda request: request  # what ~/.netrc has for a host is nobody's there
        self._session.headers.update({"User-Agent": agent, "Accept-Encoding": "identity"})
        self._buckets = Buckets()
        self._unfinished: tuple[str, bytes, dict[str, int | None]] = ("", b"", {})
        self.asked = 0  # requests so far

    def root(self, href: str) -> bytes | None:
        """Returns the root's metadata document; None where there is none.

        Raises:
            InputError: it is endless, or its place is none that may be asked.
            Temporary: no usable answer.
        """
        url = _object(href, ROOT)
        if url.startswith(SCHEME):
            return self._buckets.read(self._counted(url), MAX_ROOT)
        with self._ask("GET", url) as answer:
            if answer.status_code in ABSENT:
                return None
            _require_answer(answer)
            return b"".join(_parts(answer, MAX_ROOT, TOTAL))

    def begun(self, href: str, root: bytes) -> dict[str, int | None]:
        """Returns the sizes that a look at the same store has found which was not finished; to be added to."""
        if self._unfinished[:2] != (href, root):
            self._unfinished = (href, root, {})
        return self._unfinished[2]

    def ended(self) -> None:
        """Forgets what was begun."""
        self._unfinished = ("", b"", {})

    def size(self, href: str, key: str) -> int | None:
        """Returns an object's size in bytes; None where it is not there.

        Where HEAD is refused, or names no length, one byte is asked for: the answer says of how many. Where it does not, all of it
        is read.

        Raises:
            InputError: it is endless, or its place is none that may be asked.
            Temporary: no usable answer.
        """
        url = _object(href, key)
        if url.startswith(SCHEME):
            return self._buckets.size(self._counted(url))
        if (told := self._head(url)) is not None:
            return told if told >= 0 else None
        return self._ranged(url)

    def _head(self, url: str) -> int | None:
        """Returns what HEAD says of an object's size, `_GONE` where it is not there; None where it says nothing."""
        host = urlsplit(url).netloc
        if host in self._no_head:
            return None
        with self._ask("HEAD", url) as answer:
            if answer.status_code in (404, 410):
                return _GONE
            if answer.status_code in _NO_HEAD:
                self._no_head.add(host)
            elif not answer.ok and answer.status_code != 403:  # to some who may GET
                _require_answer(answer)
            return _length(answer) if answer.ok else None

    def _ranged(self, url: str) -> int | None:
        """Returns what the answer to a request for one byte says of an object's size, or how many bytes it has."""
        with self._ask("GET", url, {"Range": "bytes=0-0"}) as answer:
            if answer.status_code in ABSENT:
                return None
            if answer.status_code == requests.codes.requested_range_not_satisfiable:  # it has no first byte
                return 0
            _require_answer(answer)
            if answer.status_code == requests.codes.ok:  # ranges are nothing to it
                length = _length(answer)
                return length if length is not None else _count(answer)
            if (found := _TOTAL.match(answer.headers.get("Content-Range", ""))) is not None:
                return int(found[1])
        with self._ask("GET", url) as answer:
            _require_answer(answer)
            return _count(answer)

    def _counted(self, url: str) -> str:
        """Returns a URL that may be asked for, as a request of ours."""
        self.asked += 1
        try:
            return check_href(url, self._hosts)
        except IdentityError as error:
            raise InputError(error.message, hint=error.hint) from error

    def _ask(self, method: str, url: str, headers: dict[str, str] | None = None) -> requests.Response:
        """Asks once; a redirect is followed to hosts that may be asked."""
        for _ in range(REDIRECTS + 1):
            self._keep_pace(url)
            self._counted(url)
            try:
                answer = self._session.request(method, url, headers=headers, timeout=TIMEOUT, allow_redirects=False, stream=True)
            except IdentityError as error:
                raise InputError(error.message, hint=error.hint) from error
            except (requests.RequestException, OSError, ValueError) as error:
                raise Temporary(f"{method} {masked(url)}: {reason(error)}") from error
            if not answer.is_redirect:
                return answer
            url = urljoin(url, answer.headers["Location"])
            answer.close()
        raise Temporary(f"{method} {masked(url)}: more than {REDIRECTS} redirects")

    def _keep_pace(self, url: str) -> None:
        if is_inside(urlsplit(url).hostname or ""):  # one's own
            return
        now = monotonic()
        if self._next > now:
            self._sleep(self._next - now)
        self._next = max(now, self._next) + self._gap


def _object(href: str, key: str) -> str:
    """Returns an object's URL: the query of a signed href goes with each."""
    parts = urlsplit(href)
    return urlunsplit((parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{key}", parts.query, ""))


def _length(answer: requests.Response) -> int | None:
    given = answer.headers.get("Content-Length", "")
    return int(given) if re.fullmatch("[0-9]{1,19}", given) and "Content-Encoding" not in answer.headers else None


def _count(answer: requests.Response) -> int:
    return sum(map(len, _parts(answer, MAX_COUNTED, TOTAL_COUNTED)))


def _parts(answer: requests.Response, most: int, seconds: float) -> Iterator[bytes]:
    """Yields what comes.

    Raises:
        InputError: more than `most` bytes.
        Temporary: it broke off, or takes longer.
    """
    started, size = monotonic(), 0
    try:
        for part in answer.iter_content(_CHUNK):
            size += len(part)
            if size > most:
                raise InputError(f"{_shown(answer)} is larger than {most >> 20} MiB")
            if monotonic() - started > seconds:
                raise Temporary(f"{_shown(answer)} took more than {seconds:.0f} s")
            yield part
    except (requests.RequestException, OSError) as error:
        raise Temporary(f"{_shown(answer)} broke off: {reason(error)}") from error


def _require_answer(answer: requests.Response) -> None:
    if not answer.ok:
        raise Temporary(f"{_shown(answer)} answered HTTP {answer.status_code}")


def _shown(answer: requests.Response) -> str:
    return f"{answer.request.method} {masked(str(answer.url))}"
