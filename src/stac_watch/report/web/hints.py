"""`POST /hints`: whoever has the token says that a source has something new, and it is polled.

What is said is a reason to ask, and never a fact: of an event nothing is read but what tells which source it is about. It may be a
CloudEvent of a catalog's notifier, in structured or binary mode, what pgstac's own trigger says, or `{"source": NAME}`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from stac_watch.config.model import Source, Web
from stac_watch.model.errors import ConfigError
from stac_watch.watch.hints import Hints

LARGEST = 262_144  # bytes; intermediaries of CloudEvents pass 64 KiB on, and an event that holds an item has 20
MOST = 1_000  # entries of a list that are looked at


@dataclass(frozen=True)
class Desk:
    """Takes hints."""

    sources: tuple[Source, ...]
    hints: Hints
    token: Callable[[], str]  # as it is now

    async def answer(self, request: Request) -> Response:
        """Answers a hint with the sources that it is about; 401 without the token, 400 and 413 where it cannot be read."""
        if not _has(request.headers.get("authorization", ""), self.token()):
            self.hints.note("refused")
            return PlainTextResponse("hints need the token\n", 401, headers={"WWW-Authenticate": "Bearer"})
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                self.hints.note("unreadable")
                return PlainTextResponse(f"a hint has {LARGEST} bytes at most\n", 413)
        try:
            document = json.loads(bytes(body)) if body else {}
        except (ValueError, RecursionError):
            document = None
        if document is None and "ce-source" not in request.headers:  # in binary mode the body is the event's data, of any kind
            self.hints.note("unreadable")
            return PlainTextResponse('a hint is JSON: a CloudEvent, or {"source": "NAME"}\n', 400)
        named = set(_named(document, request.headers))
        hinted = [source.name for source in self.sources if not named.isdisjoint((source.name, source.collection))]
        for name in hinted:
            self.hints.give(name)
        self.hints.note("taken" if hinted else "nobody")
        return JSONResponse({"sources": hinted}, 202)


def desk_of(web: Web, sources: tuple[Source, ...], hints: Hints) -> Desk | None:
    """Returns what takes hints, None where the configuration has no token for them.

    Raises:
        ConfigError: the token is not where the configuration says.
    """
    if web.hints is None:
        return None
    try:
        web.hints.read()
    except ConfigError as error:
        raise ConfigError(error.message.replace("auth:", "web.hints:", 1), hint=error.hint) from None
    return Desk(sources, hints, web.hints.read)


def _has(authorization: str, token: str) -> bool:
    """Tells whether a request carries the token: as Bearer, or as the password of a URL (`http://hints:TOKEN@…`, Basic)."""
    scheme, _, said = authorization.partition(" ")
    given = said.strip().encode("latin-1")  # as headers are read
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    return bool(token) and hmac.compare_digest(given, token.encode())


def _named(document: Any, headers: Mapping[str, str]) -> Iterator[str]:  # noqa: ANN401  # a client's JSON
    """Yields every name of a source or a collection that an event has."""
    yield from _of({"source": unquote(headers.get("ce-source", "")), "collection": unquote(headers.get("ce-collection", ""))})
    documents: Iterable[Any] = document[:MOST] if isinstance(document, list) else [document]
    for event in documents:
        if not isinstance(event, dict):
            continue
        yield from _of(event)
        data = event.get("data")
        if isinstance(data, dict):
            yield from _of(data)
        items = event.get("items")  # as `pg_notify` of pgstac's trigger has it
        for item in items[:MOST] if isinstance(items, list) else ():
            if isinstance(item, dict):
                yield from _of(item)


def _of(said: dict[str, Any]) -> Iterator[str]:
    for name in ("source", "collection"):
        value = said.get(name)
        if isinstance(value, str) and value:
            yield value
            yield from _collection(value)


def _collection(address: str) -> Iterator[str]:
    """Yields the collection that a URL names."""
    try:
        parts = urlsplit(address).path.split("/")
    except ValueError:
        return
    for before, part in pairwise(parts):
        if before == "collections":
            yield unquote(part)
