"""OpenLayers and zarrita in a page: installed once by npm from a lock file, served beside the stores that they are to read.

In: stores on this machine, by name. Out: a page with `draw` and `read`, see `readers/draw.js`. Never: another host, once installed.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import loopback
import pytest
from playwright.sync_api import Browser, Page

HERE = Path(__file__).parent / "readers"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stac-watch" / "services" / "readers"
LOCK = "package-lock.json"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY")  # tests/conftest.py sets them, so that nothing leaves the machine; installing must
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
LONGEST = 300_000  # milliseconds for a map to be drawn: beyond what the slowest machine needs

PAGE = """<!doctype html><meta charset="utf-8"><title>readers</title>
<style>body {{ margin: 0; background: #f0f }} #map {{ width: 128px; height: 128px }}</style>
<div id="map"></div>
<script type="importmap">{imports}</script>
<script type="module" src="/draw.js"></script>"""


def installed() -> Path:
    """Returns the folder of the packages that the lock file names. Without npm the test is skipped, and fails in CI."""
    lock = CACHE / LOCK
    if lock.exists() and lock.read_bytes() == (HERE / LOCK).read_bytes() and (CACHE / "done").exists():
        return CACHE / "node_modules"
    npm = shutil.which("npm")
    if npm is None:
        assert not os.environ.get("CI"), "CI has no npm: apt-get install npm"
        pytest.skip("no npm here: apt-get install npm")
    shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir(parents=True)
    for name in ("package.json", LOCK):
        shutil.copyfile(HERE / name, CACHE / name)
    environ = {k: v for k, v in os.environ.items() if k.upper() not in PROXIES}
    subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=CACHE, env=environ, check=True, timeout=600)
    (CACHE / "done").touch()
    return CACHE / "node_modules"


def _imports(modules: Path) -> dict[str, str]:
    """Returns where a page finds each package, and the parts of it that its `exports` name."""
    found = {}
    for manifest in (*modules.glob("*/package.json"), *modules.glob("@*/*/package.json")):
        known: dict[str, Any] = json.loads(manifest.read_text())
        name, exports = known["name"], known.get("exports")
        found[f"{name}/"] = f"/node_modules/{name}/"
        parts = (
            exports if isinstance(exports, dict) and "." in exports else {".": exports or known.get("module") or known.get("main")}
        )
        for part, target in parts.items():
            while isinstance(target, dict):
                target = target.get("import") or target.get("browser") or target.get("default")
            if isinstance(target, str) and "*" not in part:
                found[name + part.removeprefix(".")] = f"/node_modules/{name}/{target.removeprefix('./')}"
    return found


class _Handler(SimpleHTTPRequestHandler):
    extensions_map: ClassVar[dict[str, str]] = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
    }

    def __init__(self, *args: Any, modules: Path, stores: Mapping[str, Path], **kwargs: Any) -> None:
        self.modules, self.stores = modules, stores
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        if self.path == "/":
            self._answer(200, PAGE.format(imports=json.dumps({"imports": _imports(self.modules)})).encode(), "text/html")
        elif asked := _RANGE.fullmatch(self.headers.get("Range", "")):
            self._part(Path(self.translate_path(self.path)), *asked.groups())
        else:
            super().do_GET()

    def _part(self, file: Path, first: str, last: str) -> None:
        """Answers with a range, as shards are read: `first-last`, or the last bytes where there is no first."""
        if not file.is_file():
            self.send_error(404)
            return
        body = file.read_bytes()
        start = int(first) if first else max(0, len(body) - int(last))
        end = min(int(last) + 1, len(body)) if first and last else len(body)
        self._answer(206, body[start:end], "application/octet-stream", f"bytes {start}-{end - 1}/{len(body)}")

    def _answer(self, status: int, body: bytes, kind: str, part: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()
        self.wfile.write(body)

    def translate_path(self, path: str) -> str:
        first, _, rest = path.partition("?")[0].lstrip("/").partition("/")
        if first == "draw.js":
            return str(HERE / first)
        return str((self.modules if first == "node_modules" else self.stores.get(first, Path("/nowhere"))) / rest)

    def log_message(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class Readers:
    """A page in which stores are read; `url` is where they are served, each below its name."""

    url: str
    page: Page

    def draw(self, store: str, **what: object) -> dict[str, Any]:
        """Draws bands of a store by OpenLayers."""
        return self._asked("draw", {"url": f"{self.url}/{store}", **what})

    def read(self, store: str, path: str, places: list[list[int]]) -> dict[str, Any]:
        """Reads elements of an array by zarrita."""
        return self._asked("read", {"url": f"{self.url}/{store}", "path": path, "places": places})

    def _asked(self, name: str, what: dict[str, object]) -> dict[str, Any]:
        found: dict[str, Any] = self.page.evaluate(f"(what) => window.{name}(what)", what)
        return found


@contextmanager
def reading(browser: Browser, stores: Mapping[str, Path]) -> Iterator[Readers]:
    """Opens a page in which the stores can be read. What a page complains of fails the test; a chunk that is not there is legal."""
    with loopback.serving(partial(_Handler, modules=installed(), stores=stores)) as url:
        context = browser.new_context(viewport={"width": 128, "height": 128})
        page, complaints = context.new_page(), []
        page.set_default_timeout(LONGEST)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: complaints.append(said.text) if said.type == "error" and "404" not in said.text else None,
        )
        page.goto(url)
        page.wait_for_function("window.loaded === true")
        yield Readers(url, page)
        context.close()
    assert complaints == []
