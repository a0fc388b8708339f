"""How bytes come from HTTP and from S3: a stream that can be ended at any byte, and what the server says of the content's identity.

Nothing is believed of lengths: whoever reads counts. aiohttp decompresses what was sent compressed piece by piece, so that counting
what arrives bounds memory, too.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

BLOCK = 1 << 20  #: bytes asked for at a time
_NO_HEAD = frozenset({400, 403, 405, 501})  #: answers of servers that refuse HEAD to some, or to all
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")
_REFUSAL = 16_384  #: bytes of a refusal's body that are read
_CODE = re.compile(rb"""<Code>\s*(\w+)\s*</Code>|"(?:code|error)"\s*:\s*"(\w+)"|\A\s*(\w+)\s*\Z""")
"""The word for why, in the answers of S3, Google Cloud Storage and Azure (XML), of what speaks JSON, and alone."""


@dataclass(frozen=True)
class Validator:
    """What a server says of an object's content, as far as it says anything (RFC 9110, section 8.8)."""

    etag: str = ""
    modified: str = ""
    size: int | None = None

    def differs(self, other: Validator) -> bool:
        """Tells whether what both say is not the same. A weak tag says enough: nginx weakens those of what it compresses."""
        pairs = [(self.etag.removeprefix("W/"), other.etag.removeprefix("W/")), (self.modified, other.modified)]
        sizes = None not in (self.size, other.size) and self.size != other.size
        return sizes or any(one and two and one != two for one, two in pairs)


@dataclass(frozen=True)
class Delivery:
    """One object as a server gives it."""

    validator: Validator
    blocks: AsyncIterator[bytes]
    unchanged: bool = False  # it is still what was asked about; then there are no blocks


type Count = Callable[[AsyncIterator[bytes]], Awaitable[int]]
"""Reads blocks to their end, and returns how many bytes those were."""


class Transport(Protocol):
    """A kind of place."""

    def get(self, path: str, known: Validator | None = None) -> AbstractAsyncContextManager[Delivery]:
        """Asks for an object; when `known` is given, only whether it is still that one."""

    async def size(self, path: str, count: Count, /) -> int:
        """Returns an object's bytes, as `get` delivers them: what the server says, else what `count` counts."""


class Http:
    """An HTTP server, through fsspec's own session."""

    def __init__(self, fs: Any) -> None:  # noqa: ANN401  # fsspec has no types
        self._fs = fs

    @asynccontextmanager
    async def get(self, path: str, known: Validator | None = None) -> AsyncIterator[Delivery]:
        """Asks by GET, with a condition: HEAD is refused by many stores, and by every URL that was signed for GET."""
        session, url = await self._fs.set_session(), self._url(path)
        headers = {}
        if known is not None and known.etag:
            headers["If-None-Match"] = known.etag
        elif known is not None and known.modified:
            headers["If-Modified-Since"] = known.modified
        async with session.get(url, headers=headers) as response:
            if known is not None and response.status == 304:  # Not Modified
                yield Delivery(known, _nothing(), unchanged=True)
                return
            await _require_given(response)
            given = response.headers
            found = Validator(given.get("ETag", ""), given.get("Last-Modified", ""), _length(response))
            yield Delivery(found, response.content.iter_chunked(BLOCK), unchanged=known is not None and not known.differs(found))

    async def size(self, path: str, count: Count, /) -> int:
        """Asks by HEAD; where that is refused or says nothing, for one byte, whose answer says of how many; else by reading all.

        Servers that make their answers as they go (chunked transfer, compression) say no length at all.
        """
        session, url = await self._fs.set_session(), self._url(path)
        plain = {"Accept-Encoding": "identity"}
        async with session.head(url, headers=plain, allow_redirects=True) as response:
            if response.status not in _NO_HEAD:
                await _require_given(response)
                if (length := _length(response)) is not None:
                    return length
        async with session.get(url, headers={**plain, "Range": "bytes=0-0"}) as response:
            if (total := _TOTAL.fullmatch(response.headers.get("Content-Range", ""))) is not None:
                return int(total[1])
            if response.status != 416:  # of an object that has no first byte (RFC 9110, section 15.5.17)
                await _require_given(response)
            if response.status == 200:
                length = _length(response)
                return length if length is not None else await count(response.content.iter_chunked(BLOCK))
        async with self.get(path) as answer:
            return await count(answer.blocks)

    def _url(self, path: str) -> Any:  # noqa: ANN401  # yarl is imported late
        from yarl import URL

        return URL(path, encoded=True) if "?" in path else self._fs.encode_url(path)  # what was signed stays as it was, to the byte


def _length(response: Any) -> int | None:  # noqa: ANN401  # aiohttp is imported late
    """Returns the bytes that an answer says to have; None where it says nothing, or speaks of what is compressed on its way."""
    length = response.headers.get("Content-Length", "") if "Content-Encoding" not in response.headers else ""
    return int(length) if length.isascii() and length.isdigit() else None


async def _require_given(response: Any) -> None:  # noqa: ANN401  # aiohttp is imported late
    """Raises what aiohttp raises for an error; of a 403 with the server's word for why as its message, where there is one."""
    if response.status == 403:  # Forbidden
        word = response.headers.get("x-ms-error-code") or refusal_code(await response.content.read(_REFUSAL))
        response.reason = word or response.reason
    response.raise_for_status()


def refusal_code(body: bytes) -> str:
    """Returns the word for why in a refusal's body; empty when it has none."""
    found = _CODE.search(body)
    return next(word for word in found.groups() if word is not None).decode("ascii", "replace") if found else ""


class S3:
    """An S3 bucket, through s3fs's own client."""

    def __init__(self, fs: Any) -> None:  # noqa: ANN401  # fsspec has no types
        self._fs = fs

    @asynccontextmanager
    async def get(self, path: str, known: Validator | None = None) -> AsyncIterator[Delivery]:
        """Asks by HEAD whether it is still the same: who may get an object may do that."""
        await _take_any_bucket_name(self._fs)
        bucket, key, _ = self._fs.split_path(path)
        asked = {"Bucket": bucket, "Key": key}
        if known is not None:
            found = _s3_validator(await self._fs._call_s3("head_object", **asked))  # noqa: SLF001  # s3fs has no public coroutine
            yield Delivery(found, _nothing(), unchanged=not known.differs(found))
            return
        answer = await self._fs._call_s3("get_object", **asked)  # noqa: SLF001  # idem
        async with answer["Body"] as body:
            yield Delivery(_s3_validator(answer), _read(body))

    async def size(self, path: str, _count: Count, /) -> int:
        """Asks by HEAD; S3 says every object's length."""
        await _take_any_bucket_name(self._fs)
        bucket, key, _ = self._fs.split_path(path)
        answer = await self._fs._call_s3("head_object", Bucket=bucket, Key=key)  # noqa: SLF001  # idem
        return int(answer["ContentLength"])


async def _take_any_bucket_name(fs: Any) -> None:  # noqa: ANN401  # fsspec has no types
    """Lets names through that botocore refuses and stores have: `tenant:bucket` of Ceph, as EOPF's hrefs spell it."""
    from botocore.handlers import validate_bucket_name

    client = await fs.set_session()
    client.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)


def _s3_validator(answer: Any) -> Validator:  # noqa: ANN401  # botocore has no types
    modified = answer.get("LastModified")
    return Validator(answer.get("ETag", ""), modified.isoformat() if modified is not None else "", answer.get("ContentLength"))


async def _read(body: Any) -> AsyncIterator[bytes]:  # noqa: ANN401  # aiobotocore has no types
    while block := await body.read(BLOCK):
        yield block


async def _nothing() -> AsyncIterator[bytes]:
    for nothing in tuple[bytes]():
        yield nothing
