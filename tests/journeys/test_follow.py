"""`backfill --follow` as a person uses it: in a terminal and in a log, interrupted, braked, and beside a watcher."""

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from command import call
from waiting import until

from stac_watch.demo.catalog import Server, Store, create_app, make_item
from stac_watch.runs.local import LocalEngine

pytestmark = pytest.mark.long

RUN = "import sys; from stac_watch.cli.main import main; sys.exit(main())"
DAY = datetime(2025, 10, 8, tzinfo=UTC)
ASKED = ("backfill", "s2", "--start", "2025-10-08", "--end", "2025-10-10", "--yes", "--follow")


class Command:
    """A running command with all it has written; `tty` gives it a terminal of its own."""

    def __init__(self, argv: list[str], environ: dict[str, str], *, tty: bool) -> None:
        self.text, self._tty = "", tty
        if tty:
            self._read, slave = pty.openpty()
            argv = ["setsid", "--ctty", *argv]  # so that ^C reaches it as it would a person's command
        else:
            self._read, slave = os.pipe()
        environ = environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
        self.process = subprocess.Popen(argv, stdin=slave if tty else subprocess.DEVNULL, stdout=slave, stderr=slave, env=environ)
        os.close(slave)
        self._reader = threading.Thread(target=self._follow)
        self._reader.start()

    def _follow(self) -> None:
        while True:
            try:
                piece = os.read(self._read, 65536)
            except OSError:  # how a terminal says that nobody is there any more
                break
            if not piece:
                break
            self.text += piece.decode(errors="replace")

    def says(self, pattern: str) -> re.Match:
        def found() -> re.Match | None:
            match = re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text))  # colours and cursor aside
            assert match or self.process.poll() is None, f"it ended without saying {pattern!r}:\n{self.text}"
            return match

        return until(found)

    def press_ctrl_c(self) -> None:
        os.write(self._read, b"\x03")

    def ends(self) -> int:
        code = self.process.wait(timeout=120)
        self._reader.join(timeout=10)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(timeout=10)
        os.close(self._read)


class World:
    """A catalog, a configuration, and an installation whose runner is the stand-in."""

    def __init__(self, place: Path, store: Store, url: str) -> None:
        self.place, self.store, self.url = place, store, url
        self.config, self.commands = place / "stac-watch.yaml", []
        self.conversions = place / "conversions"
        self.conversions.touch()
        self._install()

    def _install(self) -> None:
        venv = Path(sys.prefix)
        (self.place / "bin").mkdir()
        (self.place / "lib").symlink_to(venv / "lib")
        (self.place / "pyvenv.cfg").write_text((venv / "pyvenv.cfg").read_text())
        (self.place / "bin" / "python").symlink_to(Path(sys.executable).resolve())
        runner = self.place / "bin" / "geozarr-runner"
        source = Path(__file__).with_name("standin_runner.py").read_text()
        runner.write_text(f"#!{Path(sys.executable).resolve()} -SE\n{source}")
        runner.chmod(0o755)

    def configure(self, max_in_flight: int = 2) -> None:
        document = {
            "ledger": f"sqlite:///{self.place}/ledger.db",
            "sources": [
                {"name": "s2", "api": self.url, "collection": "sentinel-2-l2a", "poll": {"interval": "1s", "since": "1h"}}
            ],
            "recipe": {"output": f"{self.place}/outputs/{{item_id}}.zarr"},
            "engine": {
                "kind": "local", "folder": f"{self.place}/runs", "limits": {"rate": "1000/s", "max_in_flight": max_in_flight},
            },
        }  # fmt: skip
        self.config.write_text(yaml.safe_dump(document))

    def publish(self, number: int, *, minutes_ago: int = 60 * 24 * 3, **told: float | str) -> str:
        sensed = DAY + timedelta(hours=number)
        item_id = f"S2A_MSIL2A_{sensed:%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{sensed:%Y%m%dT}235959"
        self.tell(item_id, **told)
        updated = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        href = f"{self.url}/products/{item_id}.zarr"
        self.store.put(make_item(item_id, catalog_url=self.url, product_href=href, updated=updated, datetime=sensed))
        return item_id

    def tell(self, item_id: str, **told: float | str) -> None:
        product = self.place / "products" / f"{item_id}.zarr"
        product.mkdir(exist_ok=True)
        (product / ".zmetadata").write_text(json.dumps(told))

    def start(self, *arguments: str, tty: bool = False) -> Command:
        environ = dict(os.environ) | {"CONVERSIONS": str(self.conversions)}
        argv = [str(self.place / "bin" / "python"), "-c", RUN, *arguments, "--config", str(self.config)]
        self.commands.append(Command(argv, environ, tty=tty))
        return self.commands[-1]

    def states(self) -> Counter:
        with closing(sqlite3.connect(self.place / "ledger.db")) as db:
            return Counter(state for (state,) in db.execute("SELECT state FROM conversion"))

    def watcher(self) -> str:
        try:
            with closing(sqlite3.connect(self.place / "ledger.db")) as db:
                return "".join(holder for (holder,) in db.execute("SELECT holder FROM lease WHERE name = 'watch'"))
        except sqlite3.OperationalError:  # not made yet
            return ""

    def alive(self) -> int:
        return 99 - LocalEngine(self.place / "runs", command=[], max_in_flight=99, environ={}).headroom()

    def runs(self) -> int:
        return len(list(self.place.glob("runs/gz-*")))

    def converted_twice(self) -> list[str]:
        return [key for key, n in Counter(self.conversions.read_text().split()).items() if n > 1]


@pytest.fixture
def world(tmp_path):
    products = tmp_path / "products"
    products.mkdir()
    with Store(None) as store, Server(create_app(store, products=products, now=lambda: datetime.now(UTC))) as server:
        world = World(tmp_path, store, server.url)
        world.configure()
        yield world
        for command in world.commands:
            command.close()
        LocalEngine(tmp_path / "runs", command=[], max_in_flight=0, environ={}).close(stop_runs=True)


def test_in_a_terminal_a_bar_and_an_eta_and_after_ctrl_c_it_goes_on(world):
    for number in range(8):
        world.publish(number, seconds=0.5)
    first = world.start(*ASKED, tty=True)
    first.says("this command converts")
    first.says(r"2/8 2 done, 0 failed, 6 to do, 0:00:\d\d left \(until 20")
    first.press_ctrl_c()
    assert first.ends() == 130
    assert "interrupted; repeat the command to continue" in first.text
    assert "Traceback" not in first.text
    assert "━" in first.text
    assert first.text.rindex("\x1b[?25h") > first.text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert world.alive() == 0, "a run outlived Ctrl-C"
    before = world.states()
    assert 2 <= before["done"] < 8
    second = world.start(*ASKED, tty=True)
    assert second.ends() == 0, second.text
    assert "8/8" in second.text
    assert "8 done, 0 failed, 0 to do" in second.text
    assert world.states() == {"done": 8}
    assert world.converted_twice() == []


def test_in_a_log_there_are_lines_and_no_pictures(world):
    for number in range(3):
        world.publish(number)
    command = world.start(*ASKED)
    assert command.ends() == 0
    assert "\x1b" not in command.text
    assert command.text.splitlines()[:2] == ["3 admitted", "this command converts"]
    assert command.text.splitlines()[-1] == "3 done, 0 failed, 0 to do"
    again = world.start(*ASKED)  # nothing is left to do
    assert again.ends() == 0
    assert again.text.splitlines() == ["0 admitted", "this command converts", "3 done, 0 failed, 0 to do"]


def test_sigterm_is_an_orderly_end_too(world):
    for number in range(4):
        world.publish(number, seconds=30)
    command = world.start(*ASKED)
    until(lambda: world.alive() == 2)
    command.process.send_signal(signal.SIGTERM)
    assert command.ends() == 130, command.text
    assert world.alive() == 0
    watcher = world.start("watch")  # need not wait for a lease
    until(lambda: world.alive() == 2, 20)
    watcher.process.send_signal(signal.SIGTERM)
    assert watcher.ends() == 0


def test_a_canary_that_fails_stops_it_and_the_same_command_goes_on(world):
    items = [world.publish(number) for number in range(6)]
    world.tell(items[0], exit=65)
    world.tell(items[1], seconds=2.0)  # still under way when the other one fails: it is seen through
    first = world.start(*ASKED, "--canary", "2")
    assert first.ends() == 1
    assert "on hold: 1 of the first 2 failed" in first.text
    assert world.runs() == 2
    assert world.states() == {"failed": 1, "done": 1, "queued": 4}
    status = call("status", "--config", world.config)
    assert status.code == 0
    assert "1 of the first 2 failed" in status.out
    second = world.start(*ASKED, "--canary", "2")
    assert second.ends() == 1  # one has failed still
    assert "on hold" not in second.text
    assert world.states() == {"failed": 1, "done": 5}


def test_max_failures_is_a_brake(world):
    world.configure(max_in_flight=1)
    for number in range(6):
        world.publish(number, exit=65)
    command = world.start(*ASKED, "--max-failures", "3")
    assert command.ends() == 1
    assert "on hold: 3 of its conversions failed, 3 were the limit" in command.text
    assert (world.runs(), world.states()) == (3, {"failed": 3, "queued": 3})


def test_it_does_not_wait_for_days_for_a_product_that_is_not_there(world):
    for number in range(3):
        world.publish(number)
    (world.place / "products").joinpath(f"{world.publish(3)}.zarr", ".zmetadata").unlink()
    command = world.start(*ASKED)
    assert command.ends() == 1
    assert "3 done, 0 failed, 0 to do, 1 not there yet" in command.text
    assert "a watcher keeps looking for them" in command.text


def test_it_gives_way_to_a_watcher_so_that_new_items_are_not_starved(world):
    held = world.place / "held"  # no run ends before it is gone: who has the ledger when does not hang on how fast this machine is
    held.touch()
    for number in range(8):
        world.publish(number, **{"while": str(held)})
    follower = world.start(*ASKED)
    follower.says("this command converts")
    until(lambda: world.alive() == 2)
    watcher = world.start("watch")
    watcher.says(r"standby: .*backfill --follow has this ledger")
    follower.says(rf"process {watcher.process.pid}, [0-9a-f]{{6}} converts")
    new = world.publish(100, minutes_ago=0)
    until(lambda: world.states().total() == 9)
    held.unlink()
    marker = world.place / "outputs" / f"{new}.zarr" / "stac-watch.json"
    until(marker.exists)
    assert follower.ends() == 0, follower.text
    order = world.conversions.read_text().split()
    assert order.index(json.loads(marker.read_bytes())["key"]) < len(order) - 2, "it did not wait for the archive's end"
    assert follower.text.splitlines()[-1] == "8 done, 0 failed, 0 to do"
    assert watcher.process.poll() is None
    watcher.process.send_signal(signal.SIGTERM)
    assert watcher.ends() == 0
    assert world.states() == {"done": 9}
    assert world.converted_twice() == []


def test_beside_a_watcher_it_shows_and_its_end_is_not_that_of_the_runs(world):
    for number in range(4):
        world.publish(number, seconds=30)
    watcher = world.start("watch")
    until(lambda: str(watcher.process.pid) in world.watcher())
    follower = world.start(*ASKED)
    follower.says(rf"process {watcher.process.pid}, [0-9a-f]{{6}} converts")
    until(lambda: world.alive() == 2)
    follower.process.send_signal(signal.SIGINT)
    assert follower.ends() == 130
    assert world.alive() == 2
    assert watcher.process.poll() is None
