"""The status page as a reader meets it: served on loopback, in front of a world whose watcher goes on when the test says so."""

import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families

from stac_watch.config.model import Limits
from stac_watch.demo.catalog import make_collection
from stac_watch.report.links import Links
from stac_watch.report.web import answers
from stac_watch.report.web import site as web
from stac_watch.watch.loop import Watcher
from stac_watch.watch.pulse import Recorder


def ask(url, path, method="GET", **headers):
    """Status, text and headers of an answer, whatever its status."""
    request = urllib.request.Request(url.rstrip("/") + path, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


@dataclass
class Site:
    """A world, its watcher, and the page that is served."""

    world: object
    watcher: Watcher
    pulse: Recorder
    url: str

    def ask(self, path, method="GET", **headers):
        return ask(self.url, path, method, **headers)

    def read(self, path):
        """The text at an address that there is."""
        status, text, _ = self.ask(path)
        assert status == 200, text
        return text

    def turn(self, times=1, minutes=1):
        for _ in range(times):
            self.pulse.note(self.watcher.turn(to_the_end=True))
            self.world.clock.time += timedelta(minutes=minutes)

    def metrics(self):
        """Every sample by its name and its labels' values, in whatever order."""
        families = text_string_to_metric_families(self.ask("/metrics")[1])
        return {(s.name, frozenset(s.labels.values())): s.value for family in families for s in family.samples}

    def rows(self, text, title):
        """The cells of a section's table, without markup."""
        section = text.partition(f">{title}</h")[2].partition("</section>")[0].partition("</table>")[0]
        parts = (part.split("</tr>")[0] for part in section.split("<tr>")[1:])
        return [[strip(cell.split("</td>")[0]) for cell in row.split("<td")[1:]] for row in parts]

    def events(self, path="/events"):
        """The stream's events as they come: name and text."""
        with urllib.request.urlopen(self.url.rstrip("/") + path, timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            name, lines, deadline = "", [], time.monotonic() + 40
            for raw in answer:  # a stream that is silent says so every 15 s
                assert time.monotonic() < deadline
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    lines.append(line[6:])
                elif not line and name:
                    yield name, "\n".join(lines)
                    name, lines = "", []


def strip(html):
    """The words of a piece of a page."""
    words, inside = [], False
    for char in html.partition(">")[2]:
        inside = char == "<" or (inside and char != ">")
        words.append("" if inside or char == ">" else char)
    return " ".join("".join(words).split())


@contextmanager
def serve(world, **links):
    """Serves the page of a world, with its watcher beside it; `links` are those of `Links`."""
    world.store.put_collection(make_collection())
    pulse = Recorder(world.clock, clock=lambda: world.clock.time.timestamp())
    world.ledger.listen(pulse.hear)
    site = web.Site(world.ledger, (world.source,), Limits(), pulse.read, world.clock, "1.2.3", Links(**links))
    with answers.serving(site, "127.0.0.1", 0) as url:
        yield Site(world, Watcher(world.parts), pulse, url)
