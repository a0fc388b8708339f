"""A proxy before a real STAC API that does as awkward ones do: it signs hrefs, is in trouble at first, has a replica that lags.

In: the API's URL. Out: a server on loopback that passes everything else on. Never: random.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import requests
from place import Place
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stac_watch.demo.faults import FaultControl, Faults, Server

LAG = 3.0  # seconds


@dataclass
class Replica:
    """A collection that has everything a while later: what writers do is done to it again."""

    place: Place
    lag: float = LAG
    _todo: queue.Queue = field(default_factory=queue.Queue)

    def follow(self, verb: str, given: dict | str) -> None:
        """Takes note of what was done to the collection itself."""
        self._todo.put((time.monotonic() + self.lag, verb, json.loads(json.dumps(given))))

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield
        finally:
            self._todo.put(None)
            thread.join()

    def _work(self) -> None:
        while (entry := self._todo.get()) is not None:
            due, verb, given = entry
            time.sleep(max(0.0, due - time.monotonic()))
            mine = given if isinstance(given, str) else given | {"collection": self.place.collection}
            getattr(self.place, verb)(mine)


@dataclass
class Awkward:
    """The running proxy."""

    url: str
    answers: list[str]  # signed, refused, late: what was done, in order
    calm: threading.Event  # set: no trouble, and no replica, any more


@contextmanager
def awkward(
    upstream: str, *, signs: bool = False, refuses: int = 0, replica: Place | None = None, of: str = ""
) -> Iterator[Awkward]:
    """Runs the proxy.

    Args:
        upstream: the API.
        signs: every answer signs the products' hrefs anew.
        refuses: so many filtered searches are answered with 503 at first.
        replica: every other answer is its, in place of collection `of`.
        of: the collection.
    """
    answers, calm, count, turn = list[str](), threading.Event(), itertools.count(1), itertools.count()
    with requests.Session() as session:

        async def pass_on(request: Request) -> Response:
            body, path = await request.body(), request.url.path
            if path == "/search" and b"filter" in body and answers.count("refused") < refuses and not calm.is_set():
                answers.append("refused")
                return Response(b"overloaded", 503)
            behind = replica is not None and of in path + body.decode() and next(turn) % 2 and not calm.is_set()
            if behind:
                answers.append("late")
                path, body = path.replace(of, replica.collection), body.replace(of.encode(), replica.collection.encode())
            answer = await asyncio.to_thread(
                session.request, request.method, f"{upstream}{path}", params=request.query_params, data=body,
                headers={"content-type": request.headers.get("content-type", "application/json")}, timeout=30,
            )  # fmt: skip
            content = answer.content.replace(upstream.encode(), str(request.base_url).rstrip("/").encode())
            if behind:
                content = content.replace(replica.collection.encode(), of.encode())
            if signs and answer.ok and path == "/search":
                content = _signed(content, next(count))
                answers.append("signed")
            return Response(content, answer.status_code, media_type=answer.headers.get("content-type"))

        app = Starlette(routes=[Route("/{path:path}", pass_on, methods=["GET", "POST"])])
        app.state.faults = FaultControl(Faults())
        with Server(app) as server:
            yield Awkward(server.url, answers, calm)


def _signed(content: bytes, number: int) -> bytes:
    page = json.loads(content)
    for feature in page.get("features", []):
        for asset in feature.get("assets", {}).values():
            asset["href"] += f"?st=1&se=2&sp=r&sig={number}"
    return json.dumps(page).encode()


def beside(place: Place) -> Place:
    """Returns a place of the same API for another collection."""
    return replace(place, collection=f"{place.collection}-late", http=requests.Session())
