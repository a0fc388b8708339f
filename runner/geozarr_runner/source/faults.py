"""What went wrong while a source was read, as an error of our tree: not there, forbidden, refused, temporary, illegal. Pure.

A query string never gets into a message: it may hold the signature that opens a store.
"""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from stac_watch.model.errors import (
    EXHAUSTED,
    InputError,
    Refused,
    SourceNotThere,
    StacWatchError,
    Temporary,
    cannot_write,
    exhausted,
)
from stac_watch.model.stamps import parse_stamp, stamp

_GONE = frozenset({404, 410})
_DENIED = frozenset({401, 407})
_FORBIDDEN = 403
_AGAIN = frozenset({408, 425, 429})
_KEYS = frozenset({
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AccountProblem",
    "RequestTimeTooSkewed", "AllAccessDisabled", "InvalidSecurity", "NotSignedUp",
    "AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation", "AccountIsDisabled",
})  # fmt: skip
"""Codes that are about who asks, and never about an object that is not there.

Sources: S3 API reference, error responses (Google Cloud Storage has the same); Azure Storage, common REST API error codes.
"""
_QUERY = re.compile(r"\?[^\s'\"<>)]+")
_NAMED = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError")
_UNUSABLE = ("ParamValidationError", "InvalidURL", "InvalidURLClientError", "NonHttpUrlClientError")
LONGEST_ASKED = 86_400  #: seconds; nobody is left alone for longer, whatever `Retry-After` says


class Forbidden(Refused):
    """403: the reader may not read this object, or it is not there and the reader may not know (S3 without ListBucket)."""


def classify(error: Exception, path: str, target: Path | None = None) -> StacWatchError:
    """Returns the error of our tree for what fsspec and its back ends raise while `path` is read, or copied to `target`."""
    path = without_query(path)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SourceNotThere(f"{path} is not there", hint="it is tried again later; check the product's href if this stays")
    status = _status(error)
    word = getattr(error, "message", None)  # aiohttp's; of a refusal `transfer` puts there what the server said
    if status == _FORBIDDEN and word in _KEYS:
        return Refused(f"not allowed to read {path} (HTTP 403, {word})", hint="check the credentials or the signature")
    if status is not None:
        return _by_status(status, path)
    if isinstance(error, asyncio.TimeoutError | TimeoutError | ConnectionError):
        return Temporary(f"no answer while reading {path}: {_reason(error)}", hint="the same may work when tried again")
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        return exhausted(error, f"cannot read {path}")
    if isinstance(error, PermissionError) or type(error).__name__ in _NAMED:
        return Refused(f"not allowed to read {path}: {_reason(error)}", hint="check the credentials in the environment")
    if isinstance(error, OSError) and (full := cannot_write(error, target or path)) is not None:
        return full
    if type(error).__name__ in _UNUSABLE:
        return InputError(f"cannot read {path}: {_reason(error)}", hint="no such name can be asked for: check the href")
    if _is_transport(error):
        return Temporary(f"cannot read {path}: {_reason(error)}", hint="the same may work when tried again")
    return InputError(f"cannot read {path}: {_reason(error)}")


def signature_ended(query: str, error: BaseException | None) -> str:
    """Returns when the signature in a query string ended, if it had by the clock of the server that refused; else nothing.

    Sources: Azure Storage, SAS (`se`); AWS Signature Version 4 and 2, Google Cloud Storage V4, CloudFront (`Expires`).
    """
    given = {name.lower(): values[-1] for name, values in parse_qs(query).items()}
    headers = getattr(error, "headers", None)
    asked = _http_date(headers.get("Date") if headers is not None else None)
    ended = parse_stamp(given.get("se")) or _epoch(given.get("expires"))
    for prefix in ("x-amz", "x-goog"):
        begun, lasts = _basic(given.get(f"{prefix}-date")), given.get(f"{prefix}-expires", "")
        if begun is not None and re.fullmatch(r"[0-9]{1,7}", lasts):
            seconds = timedelta(seconds=int(lasts))
            ended = begun + min(seconds, datetime.max.replace(tzinfo=UTC) - begun)  # who wrote the href chose both
    return stamp(ended) if ended is not None and asked is not None and ended <= asked else ""


def retry_after(error: BaseException) -> timedelta | None:
    """Returns the pause that a server asked for: seconds, or a date as seen from its own clock (RFC 9110, section 10.2.3)."""
    headers = getattr(error, "headers", None)
    value = headers.get("Retry-After") if headers is not None else None
    if headers is None or not isinstance(value, str):
        return None
    if re.fullmatch(r"[0-9]{1,12}", value.strip()):
        return timedelta(seconds=min(int(value), LONGEST_ASKED))
    until, asked = _http_date(value), _http_date(headers.get("Date"))
    if until is None or asked is None:
        return None
    return min(max(until - asked, timedelta(0)), timedelta(seconds=LONGEST_ASKED))


def without_query(url: str) -> str:
    """Returns a URL without its query string, which may hold a signature."""
    return url.partition("?")[0] if "://" in url and urlsplit(url).query else url


def _by_status(status: int, path: str) -> StacWatchError:
    if status in _GONE:
        return SourceNotThere(f"{path} is not there (HTTP {status})", hint="it is tried again later")
    if status == _FORBIDDEN:
        return _forbidden(path)
    if status in _DENIED:
        return Refused(f"not allowed to read {path} (HTTP {status})", hint="check the credentials and the store's policy")
    if status in _AGAIN or status >= 500:  # the class of server errors, RFC 9110
        return Temporary(f"HTTP {status} while reading {path}", hint="the same may work when tried again")
    return InputError(f"HTTP {status} while reading {path}", hint="the request itself is wrong: check the href")


def _forbidden(path: str) -> Forbidden:
    return Forbidden(
        f"not allowed to read {path} (HTTP 403)",
        hint="check the credentials and the store's policy; or it is not there yet: stores that may not be listed say 403 for both",
    )


def _status(error: Exception) -> int | None:
    status = getattr(error, "status", None)
    if isinstance(status, int) and "aiohttp" in type(error).__module__:
        return None if _unreadable(error) else status
    said = getattr(error, "response", None) or getattr(error.__cause__, "response", None)  # botocore's, and what s3fs made of one
    if not isinstance(said, dict) or said.get("Error", {}).get("Code") in _KEYS:
        return None
    code = said.get("ResponseMetadata", {}).get("HTTPStatusCode")
    known = isinstance(code, int) and (said is getattr(error, "response", None) or code == _FORBIDDEN or code >= 500)
    return code if known else None


def _unreadable(error: Exception) -> bool:
    """Tells whether aiohttp has made up a status: 400 for an answer that is not HTTP, 0 for redirects without end."""
    return type(error.__cause__).__module__ == "aiohttp.http_exceptions" or type(error).__name__ == "TooManyRedirects"


def _is_transport(error: Exception) -> bool:
    aiohttp_module = sys.modules.get("aiohttp")
    if aiohttp_module is not None and isinstance(error, aiohttp_module.ClientError):
        return True
    return type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "urllib3") or isinstance(error, OSError)


def _reason(error: Exception) -> str:
    return _QUERY.sub("?…", str(error)) or type(error).__name__


def _http_date(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _basic(value: str | None) -> datetime | None:
    try:
        return datetime.strptime(value or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _epoch(value: str | None) -> datetime | None:
    return datetime.fromtimestamp(int(value), UTC) if value is not None and re.fullmatch(r"[0-9]{1,10}", value) else None
