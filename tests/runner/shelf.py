"""An HTTP server over a dictionary of objects that can be exchanged between two requests, with validators as real stores send them.

In: objects by path, and what to do before each answer. Out: a URL, and what was asked. Never: a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler

import loopback


@dataclass
class Shelf:
    """What is served."""

    objects: Mapping[str, bytes]
    before: Callable[[str], None] = lambda _: None  # told of each path before it is answered
    tag: Callable[[bytes], str] = lambda body: f'"{hashlib.sha256(body).hexdigest()[:16]}"'  # an ETag; empty: none is sent
    absent: int = 404
    refusal: bytes = b"no"  # the body of an answer for what is absent
    headers: dict[str, str] = field(default_factory=dict)  # with every answer
    url: str = ""
    asked: list[str] = field(default_factory=list)
    sent: int = 0  # bodies


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, *args: object, shelf: Shelf) -> None:
        self.shelf = shelf
        super().__init__(*args)

    def do_GET(self) -> None:
        shelf = self.shelf
        shelf.asked.append(self.path)
        shelf.before(self.path)
        body = shelf.objects.get(self.path.lstrip("/"))
        tag = shelf.tag(body) if body is not None else ""
        if body is None:
            self._answer(shelf.absent, shelf.refusal, {})
        elif tag and self.headers.get("If-None-Match") == tag:
            self._answer(304, b"", {"ETag": tag})
        else:
            shelf.sent += 1
            self._answer(200, body, {"ETag": tag} if tag else {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers, **self.shelf.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(shelf: Shelf) -> Iterator[Shelf]:
    """Serves a shelf and says where."""
    with loopback.serving(partial(_Handler, shelf=shelf)) as url:
        shelf.url = url
        yield shelf
