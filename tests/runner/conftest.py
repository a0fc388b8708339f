"""Products, an HTTP server that can fail on demand, and one converted output for all who only look at it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import loopback
import pytest
from geozarr_runner.cli import main

from stac_watch.demo.native import write_native
from stac_watch.demo.product import write_product

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages
from command_line import arguments

ITEM_ID = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
BANDS = "measurements/reflectance"


@dataclass
class Files:
    """A folder over HTTP. `faults` maps the end of a path to what to answer: statuses, one per request, the last for ever."""

    url: str
    item: bytes = b""  # at /item.json
    faults: dict[str, list[str]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)  # of each request
    sent: Counter[str] = field(default_factory=Counter)  # requests that were answered with a body, not with "not modified"
    stalled: threading.Event = field(default_factory=threading.Event)  # set when silence may end
    gate: threading.Event = field(default_factory=threading.Event)  # chunks wait here; open unless a test closes it
    gated: str = ""  # part of the paths that do; all of them when it is empty

    def chunks_sent(self) -> int:
        """How many objects that hold pixels were sent."""
        return sum(sent for path, sent in self.sent.items() if path.rpartition("/")[2][:1].isdigit())


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, files: Files, **kwargs: Any) -> None:
        self.files = files
        super().__init__(*args, **kwargs)

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):  # a client that was killed
            super().handle_one_request()

    def do_GET(self) -> None:
        self.files.requests[self.path] += 1
        self.files.headers.append(dict(self.headers))
        fault = next((queue for end, queue in self.files.faults.items() if self.path.endswith(end)), None)
        answer = (fault.pop(0) if len(fault) > 1 else fault[0]) if fault else "ok"
        if not self.path.endswith(("json", ".zmetadata", ".zarray", ".zattrs")) and self.files.gated in self.path:
            self.files.gate.wait(600)  # beyond a test's deadlines: opened by itself it would fail a slow machine
        if answer == "ok" and self.path == "/item.json":
            self._answer(200, self.files.item)
        elif answer == "ok":
            super().do_GET()
        elif answer == "stall":  # headers and a few bytes, then silence until the test ends
            self._answer(200, b"x" * 10, length=1000)
            self.wfile.flush()
            self.files.stalled.wait(60)
            self.close_connection = True
        elif answer == "rot":  # the right length and header, and content that no codec takes
            body = Path(self.translate_path(self.path)).read_bytes()
            self._answer(200, body[:16] + b"\xff" * (len(body) - 16))
        elif answer == "cut":  # a well-formed response with half an object: what a broken upload looks like
            body = Path(self.translate_path(self.path)).read_bytes()
            self._answer(200, body[: len(body) // 2])
        elif answer == "drop":  # fewer bytes than announced, then the connection is closed
            self._answer(200, b"x" * 10, length=1000)
            self.close_connection = True
        elif answer.startswith("to "):
            self.send_response(302)
            self.send_header("Location", answer.removeprefix("to "))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._answer(int(answer), b"no")

    def _answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if status == 503:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def send_response(self, code: int, message: str | None = None) -> None:
        self.files.sent[self.path] += code != 304
        super().send_response(code, message)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Returns a function that makes a folder once a session, whichever of pytest's processes asks first. To be read only."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = shared / f"made-{name}", shared / f"made-{name}.done"
        with (shared / f"made-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a test process that died meanwhile
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def product(made_once, tmp_path_factory) -> Path:
    """A whole product, small. Read only; what lies beside it is this process's own."""
    made = made_once("product", lambda folder: write_product(folder, ITEM_ID, size=756))
    mine = tmp_path_factory.mktemp("product") / f"{ITEM_ID}.zarr"
    return Path(shutil.copytree(made / mine.name, mine, copy_function=os.link))


@pytest.fixture
def own_product(product, tmp_path) -> Path:
    """A product that the test may break."""
    return Path(shutil.copytree(product, tmp_path / "own" / product.name))


@pytest.fixture
def files(product) -> Iterator[Files]:
    """The product and an item that points to it, over HTTP."""
    files = Files(url="")
    files.gate.set()
    with loopback.serving(partial(_Handler, files=files, directory=str(product.parent))) as url:
        files.url = url
        files.item = json.dumps({
            "type": "Feature", "stac_version": "1.1.0", "id": ITEM_ID,
            "assets": {"product": {"href": f"{files.url}/{product.name}", "type": "application/vnd+zarr"}},
        }).encode()  # fmt: skip
        yield files
        files.gate.set()
        files.stalled.set()


NATIVE_ID = "S2C_MSIL2A_20260927T133931_N0513_R067_T32TQM_20260927T170511"


@pytest.fixture(scope="session")
def native(made_once) -> Path:
    """A finished GeoZarr, as new acquisitions come. Read only."""
    return made_once("native", lambda folder: write_native(folder, NATIVE_ID, size=252, chunk=84)) / f"{NATIVE_ID}.zarr"


@pytest.fixture
def own_native(native, tmp_path) -> Path:
    """One that the test may break."""
    return Path(shutil.copytree(native, tmp_path / "own" / native.name))


@pytest.fixture
def served():
    """Returns a function that serves a folder over HTTP; the store `NAME` is at `{url}/NAME`."""
    with ExitStack() as stack:

        def serve(folder: Path) -> Files:
            files = Files(url="")
            files.gate.set()
            files.url = stack.enter_context(loopback.serving(partial(_Handler, files=files, directory=str(folder))))
            stack.callback(files.stalled.set)
            return files

        yield serve


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    outcome: dict[str, Any]
    stderr: str

    @property
    def said(self) -> str:
        """The line for people."""
        return next((line for line in self.stderr.splitlines() if line.startswith("geozarr-runner: ")), "")


@pytest.fixture
def runner(tmp_path, capsys):
    """Calls the command line in this process: `runner(source, output, groups=…)`."""

    def call(source: object, output: Path, *, command: str = "run", **options: object) -> Ended:
        outcome = tmp_path / "outcome.json"
        outcome.unlink(missing_ok=True)
        code = main(arguments(source, output, command=command, outcome=outcome, **options))
        return Ended(code, json.loads(outcome.read_text()) if outcome.exists() else {}, capsys.readouterr().err)

    return call


@pytest.fixture(scope="session")
def converted(product, made_once) -> Path:
    """The whole product, converted once for all who only look. Key 0…01."""

    def convert(folder: Path) -> None:
        assert main(arguments(product, folder / product.name, key="000000000001", engine="fast", package="tar")) == 0

    return made_once("converted", convert) / product.name


@pytest.fixture(scope="session")
def tree():
    """Returns a function: every file's content in a store, the marker not counted."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (p for p in folder.rglob("*") if p.is_file() and p.name != "stac-watch.json")
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}

    return read
