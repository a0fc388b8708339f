"""A watcher that dies: forks a process per line of stdin, each one a `watch --once` that is killed at its N-th commit point.

Protocol: `{"config": FILE, "die_at": N}` per line; answers `{"status": exit status or -signal, "points": passed}`. Commit points
are before and after every transaction of the ledger, and before and after every submission to the engine. The parent imports
everything once, what `app` imports where it is used too, so that killing a watcher a hundred times takes seconds.
"""

import gc
import json
import netrc
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cloudevents.core.bindings.http
import dateutil.parser
from sqlalchemy import event as sa_event
from sqlalchemy.dialects import postgresql, sqlite  # noqa: F401  # see above

from stac_watch import app
from stac_watch.config.load import load
from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger
from stac_watch.ledger.session import Session
from stac_watch.runs.local import LocalEngine
from stac_watch.runs.markers import find_marker
from stac_watch.watch.loop import Watcher

LATE = (cloudevents, dateutil, netrc)  # see above
STANDIN = Path(__file__).with_name("standin_runner.py")


class Death:
    """Counts commit points, and kills the process at one of them."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0

    def point(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


class MortalSession(Session):
    def __init__(self, engine, death: Death) -> None:
        super().__init__(engine)
        self._death = death

    @contextmanager
    def begin(self) -> Iterator:
        with super().begin() as tx:
            yield tx
            self._death.point()
        self._death.point()


class MortalEngine:
    def __init__(self, inner: LocalEngine, death: Death) -> None:
        self._inner, self._death = inner, death
        self.runs, self.headroom, self.close = inner.runs, inner.headroom, inner.close

    def submit(self, event: bytes):
        self._death.point()
        receipt = self._inner.submit(event)
        self._death.point()
        return receipt


def watch_once(config: Path, die_at: int) -> int:
    """Returns how many commit points were passed, when it lives."""
    settings, death = load(config, {}), Death(die_at)

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return False

    parts = app.build(settings, os.environ, wait, beat=0.02)
    engine = open_engine(settings.ledger)
    if engine.dialect.name == "sqlite":  # what a killed process handed to the kernel is not lost; a power failure is not played
        sa_event.listen(engine, "connect", lambda connection, _record: connection.execute("PRAGMA synchronous=OFF"))
    ledger = Ledger(engine, MortalSession(engine, death))
    inner = LocalEngine(
        settings.engine.folder, command=[sys.executable, "-S", "-E", str(STANDIN), "run"], max_in_flight=4, environ=os.environ
    )
    # one name for all: started again it need not wait for the end of the killed one's lease (that is test_lease.py)
    parts = replace(parts, ledger=ledger, engine=MortalEngine(inner, death), rng=random.Random(1), holder="mortal")
    Watcher(parts).drain(lambda tick: None)
    inner.close(stop_runs=False)
    return death.passed


def main() -> None:
    find_marker("/nowhere")  # fsspec imports what reads a file when it is asked to
    gc.freeze()  # what was imported is not looked through in each child
    for line in sys.stdin:
        task = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os.write(writer, str(watch_once(Path(task["config"]), task["die_at"])).encode())
            os._exit(0)
        os.close(writer)
        points = os.read(reader, 32).decode()
        os.close(reader)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "points": int(points or 0)}), flush=True)


if __name__ == "__main__":
    main()
