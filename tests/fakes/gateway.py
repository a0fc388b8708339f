"""What stands in front of a catalog: a gateway, a proxy, a stricter server. It answers in its place, or changes its answers.

In: the demo catalog's application. Out: the same application behind rules that a test sets. Never: another catalog's logic.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette


@dataclass
class Asked:
    """A request as it came; `query` holds the parameters, of a body or of the URL."""

    method: str
    path: str
    query: dict[str, Any]
    headers: dict[str, str]
    length: int  # of path and parameters

    @property
    def search(self) -> bool:
        return self.path.endswith("/search")


@dataclass
class Answer:
    """An answer; `body` is bytes, or what becomes JSON."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Gateway:
    """The rules, and what came by.

    Attributes:
        prefix: path under which the catalog lies; the catalog itself does not know it.
        elsewhere: paths under which others lie, besides.
        drops_bodies: of a POST it passes on that it came, and no more.
        before: answers in the catalog's place where it returns an answer.
        after: changes the catalog's answer.
        seen: every request, and the status it got.
    """

    def __init__(self) -> None:
        self.prefix = ""
        self.elsewhere: dict[str, str] = {}
        self.drops_bodies = False
        self.before: Callable[[Asked], Answer | None] = lambda asked: None
        self.after: Callable[[Asked, Answer], Answer | None] = lambda asked, answer: None
        self.seen: list[tuple[Asked, int]] = []

    def stand_before(self, app: Starlette) -> Starlette:
        app.add_middleware(_Layer, gateway=self)
        return app

    def searches(self) -> list[Asked]:
        return [asked for asked, _ in self.seen if asked.search]


class _Layer:
    def __init__(self, app, gateway: Gateway) -> None:
        self._app, self._gateway = app, gateway

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        given = scope["query_string"].decode()
        query = json.loads(body) if body.startswith(b"{") else dict(parse_qsl(given))
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        asked = Asked(scope["method"], scope["path"], query, headers, len(scope["path"]) + len(given))
        answer = self._gateway.before(asked)
        if answer is None:
            answer = await self._passed_on(scope, body)
            answer = self._gateway.after(asked, answer) or answer
        self._gateway.seen.append((asked, answer.status))
        raw = answer.raw()
        lines = {"content-type": answer.kind, "content-length": str(len(raw))} | {k.lower(): v for k, v in answer.headers.items()}
        await send({"type": "http.response.start", "status": answer.status, "headers": _lines(lines)})
        await send({"type": "http.response.body", "body": raw})

    async def _passed_on(self, scope, body: bytes) -> Answer:
        path = self._gateway.elsewhere.get(scope["path"], scope["path"])
        body = b"{}" if self._gateway.drops_bodies and body else body
        if not path.startswith(self._gateway.prefix):
            return Answer(404, {"detail": "Not Found"})
        inner = path.removeprefix(self._gateway.prefix).rstrip("/") or "/"
        got: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            got.append(message)

        await self._app({**scope, "path": inner, "raw_path": inner.encode()}, receive, send)
        headers = {name.decode(): value.decode() for name, value in got[0].get("headers", [])}
        kind = headers.pop("content-type", "application/json")
        headers.pop("content-length", None)
        return Answer(got[0]["status"], b"".join(m.get("body", b"") for m in got[1:]), headers, kind)


def _lines(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
