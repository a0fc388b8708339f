"""The webhook of an EventSource, with the answers of Argo Events 1.9.11 in their order (pkg/eventsources/common/webhook)."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import loopback

from fakes.kubernetes import Api, reply

TOKEN = "right"  # of a server in this process


@dataclass
class EventSource:
    """What it was sent, and how it answers a good event."""

    deliver: Callable[[bytes], None]  # what the Sensor does with an accepted event
    answer: tuple[int, str] = (200, "success")  # status 0: takes it, and is killed before it can say so
    sensor: bool = True
    posts: list = field(default_factory=list)  # (headers, body)


class Handler(BaseHTTPRequestHandler):
    source: EventSource
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refused(body):
            return
        status, said = self.source.answer
        if status in (0, 200) and self.source.sensor:
            self.source.deliver(body)
        if status == 0:
            self.close_connection = True
        else:
            self.reply(status, said)

    def do_OPTIONS(self):
        if self.refused(b"OPTIONS"):
            return
        status, said = self.source.answer
        if status == 200:
            self.reply(400, "http method does not match")
        else:
            self.reply(status, said)

    def refused(self, body):
        self.source.posts.append((dict(self.headers), body))
        given = self.headers["Authorization"]
        if self.path != "/items":
            self.reply(404, "404 page not found")
        elif given != f"Bearer {TOKEN}":
            self.reply(401, "Invalid token" if given else "Invalid Authorization Header")
        else:
            return False
        return True

    def reply(self, status, said):
        reply(self, status, said.encode(), **({"Location": "/elsewhere"} if status == 307 else {}))

    def log_message(self, *_):
        pass


@contextmanager
def serving(source: EventSource) -> Iterator[str]:
    """Serves it on loopback, and yields the webhook's URL."""
    with loopback.serving(type("Bound", (Handler,), {"source": source})) as url:
        yield f"{url}/items"


def deliver(api: Api, event: bytes) -> None:
    """Does what the Sensor does: one Workflow for an event, none when it is there; tests/manifests hold what it looks like."""
    data = json.loads(event)["data"]
    if data["run"] not in api.workflows:
        api.put(data["run"], key=data["key"], attempt=data["attempt"])
