"""What an answer of a catalog says: in its own words, of its time, of how often it may be asked. Pure.

RFC 9110 has Retry-After and Date, RFC 9111 Age. RateLimit is in use in three forms: `RateLimit-Reset` and its older `X-` spellings
(seconds, or a moment as Unix time), one `RateLimit` field with names, and the structured field of the newest IETF draft (`r`, `t`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit, urlunsplit

from stac_watch.model.errors import CatalogUnavailable

LONGEST_PAUSE = 86_400.0  # seconds; what asks for more is a mistake, and would end a source for good
LONGEST_AGE = 7 * 86_400  # seconds; no cache keeps a page of a catalog longer, and `Age` is whatever somebody writes
SHOWN = 200  # characters of a server's own words: enough for a sentence, too few for a page
_WORDS = ("description", "detail", "message", "msg", "title", "error_description", "error", "errors", "reason", "Message")
_RATE = re.compile(
    r"too many requests|rate.?limit|rate exceeded|throttl|quota|slow.?down|limit exceeded|requests per", re.IGNORECASE
)
_LOGIN = re.compile(
    r"\b(sign|log)[ -]?(in|on)\b|\blogin|\bsso\b|\bauth(enticate|entication|orize)?\b|saml|oauth|openid|anmeld|connexion|iniciar",
    re.IGNORECASE,
)  # fmt: skip
_PASSWORD = re.compile(r"type\s*=\s*[\"']?password", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_UNIX = 1_000_000_000  # what is larger is a moment and not a number of seconds
type Headers = Mapping[str, str]


class BadAnswer(CatalogUnavailable):
    """The server cannot answer this request (5xx, time-out, a body that cannot be read); it may be able to answer a smaller one."""


class TooLarge(BadAnswer):
    """The answer, or the request, is too large for the server (413, 414): the same will be so again, a smaller one may not."""


class NoJson(BadAnswer):
    """The answer is a page, not a document; `page` is `html`, `xml` or nothing, `text` how it begins."""

    def __init__(self, message: str, *, page: str, text: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.page, self.text = page, text


class Rejected(CatalogUnavailable):
    """The server does not take this request (4xx, 501)."""

    def __init__(self, message: str, *, status: int, words: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.words = status, words


class Throttled(CatalogUnavailable):
    """The server is asked too often: this says nothing of what it can do."""


def moment(date: str) -> datetime | None:
    """Returns the time that an HTTP date names, UTC where it has no zone; None where it names none of the calendar."""
    try:
        parsed = parsedate_to_datetime(date)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        return None


def age(headers: Headers) -> timedelta:
    """Returns how long a cache has kept this answer."""
    given = headers.get("Age", "").strip()
    return timedelta(seconds=min(int(given), LONGEST_AGE)) if re.fullmatch(r"[0-9]{1,9}", given) else timedelta(0)


def pause(headers: Headers, server_now: datetime) -> float:
    """Returns what a server that does not answer asks to wait, in seconds, a day at most; 0 where it does not say."""
    given = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", given):  # isdigit() takes ², too
        asked = float(given)
    elif (until := moment(given)) is not None:
        asked = (until - server_now).total_seconds()
    else:
        asked = reset(headers, server_now) or 0.0
    return min(max(0.0, asked), LONGEST_PAUSE)


def reset(headers: Headers, server_now: datetime) -> float | None:
    """Returns in how many seconds the server's count of requests begins anew; None where it does not say."""
    found = _limit(headers, ("ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset"), ("reset", "t"))
    if found is None or found < _UNIX:
        return found
    return found / (1000 if found > 100 * _UNIX else 1) - server_now.timestamp()


def exhausted(headers: Headers) -> bool:
    """Tells whether this was the last request that the server takes for now."""
    return _limit(headers, ("ratelimit-remaining", "x-ratelimit-remaining", "x-rate-limit-remaining"), ("remaining", "r")) == 0


def _limit(headers: Headers, names: tuple[str, ...], parts: tuple[str, ...]) -> float | None:
    values = [value for name in names if (value := headers.get(name))]
    values += re.findall(rf"\b(?:{'|'.join(parts)})\s*=\s*([0-9.]+)", headers.get("ratelimit", ""), re.IGNORECASE)
    numbers = [float(n[0]) for value in values if (n := re.match(r"\s*([0-9]{1,16}(?:\.[0-9]+)?)", value))]
    return numbers[0] if numbers else None


def throttles(status: int, headers: Headers, words: str) -> bool:
    """Tells whether this refusal means "not so fast": 429, and 403 as gateways use it."""
    if status != 403:
        return status == 429
    return bool("Retry-After" in headers or exhausted(headers) or _RATE.search(words))


def words(raw: bytes) -> str:
    """Returns what a server says of why it refuses: its own sentence, cut, and harmless to print."""
    text = raw.decode("utf-8", errors="replace")
    try:
        said = _sentence(json.loads(text))
    except (ValueError, RecursionError):
        said = title(text) or ("" if page(text) else text)
    return printable(said)


def _sentence(value: object, depth: int = 4) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth:
        return "; ".join(found for entry in value[:3] if (found := _sentence(entry, depth - 1)))
    if isinstance(value, dict) and depth:
        said = next((found for name in _WORDS if (found := _sentence(value.get(name), depth - 1))), "")
        where = value.get("loc")  # FastAPI's: ["body", "limit"]
        return f"{where[-1]}: {said}" if said and isinstance(where, list) and where else said
    return ""


def printable(text: str) -> str:
    """Returns a text in one line, cut, with what is no visible character spelled out."""
    line = " ".join(text.split())
    line = f"{line[:SHOWN]}…" if len(line) > SHOWN else line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def page(text: str) -> str:
    """Returns `html` or `xml` where a text is a page for people, or another language of machines; else nothing."""
    start = text[:2000].lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype html", "<html")) or (start.startswith("<") and ("<html" in start or "<head" in start)):
        return "html"
    return "xml" if start.startswith("<") else ""


def title(text: str) -> str:
    """Returns the title of an HTML page."""
    found = _TITLE.search(text)
    return printable(found[1]) if found else ""


def wants_login(text: str) -> bool:
    """Tells whether an HTML page asks people who they are."""
    return bool(_PASSWORD.search(text) or _LOGIN.search(title(text)))


def leads_to_login(url: str) -> bool:
    """Tells whether a redirect's target is where people log in."""
    parts = urlsplit(url)
    return bool(
        _LOGIN.search(f"{parts.netloc.replace('.', ' ')} {parts.path}")
        or re.search(r"redirect_uri|client_id|[Ss][Aa][Mm][Ll]|[?&]rd=", parts.query)
    )


def wants_tls(words: str) -> bool:
    """Tells whether a server complains of plain HTTP at its TLS port, as nginx, Go and Apache do."""
    return (
        re.search(r"plain HTTP request|HTTP request to an HTTPS|speaking plain HTTP|requires TLS", words, re.IGNORECASE) is not None
    )


def followed(method: str, status: int, asked: str, target: str) -> str | None:
    """Returns where a redirect is followed to, at the origin that was asked: another end of the path, a slash more or less.

    Of a POST also another path, where the status says that body and method stay as they are. None where it is not followed.
    """
    own, to = urlsplit(asked), urlsplit(target)
    if not 300 <= status < 400 or not target or own.hostname != to.hostname or own.path == to.path:
        return None
    kept = method == "POST" and status in (307, 308) and not leads_to_login(target)
    return (
        urlunsplit((own.scheme, own.netloc, to.path, own.query, ""))
        if kept or own.path.rstrip("/") == to.path.rstrip("/")
        else None
    )
