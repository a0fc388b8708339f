"""Commands of README and docs are run as they are written: page by page, in a folder of their own, against a catalog on loopback.

In docs/ a fence that says `runs` is run; of README every `$` line is, unless it is excused here. A YAML fence is a file, and its
first line says its name. The real catalog is replaced in the way that docs/reference/configuration.md offers, by the environment.
README's commands convert a product, and two arrays of it: all of them are test_main_job's. Those of docs/ are an installation's
whose runner is the stand-in of tests/journeys: what they show is the verbs, and a conversion costs seconds of processor time.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stac_watch.demo.catalog import Server, Store, create_app, make_item
from stac_watch.demo.product import write_product
from stac_watch.model.identity import tile_of

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FENCE = re.compile(r"^(?: *)```(\w+)([^\n]*)\n(.*?)^(?: *)```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = {  # lines of README that are not run here, and why
    "make demo": "tests/demo and the first page of every release run it; half a minute",
    "make test": "this is it",
    ".venv/bin/stac-watch watch": "goes on until stopped; tests/journeys",
}
STANDIN = ROOT / "tests" / "journeys" / "standin_runner.py"
LEFT = {  # what a page's commands leave behind: outputs, by tile and attempt
    "README.md": {("T32TQM", 1)},
    "getting-started.md": {("T32TQM", 1)},
    "backfill-and-replay.md": {("T32TQM", 1), ("T33UUP", 2)},
}


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = []
    for language, info, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if page.parent == ROOT:
            lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
            text = text if language == "yaml" else "\n".join(line for line in lines if line.split(" #")[0].strip() not in ELSEWHERE)
        elif "runs" not in info.split():
            continue
        if text.strip() and language in ("yaml", "sh", "console"):
            found.append(Block(language, re.sub(r"^\$ ", "", text, flags=re.MULTILINE)))
    return found


PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if blocks(page)]


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """A virtual environment like ours, but for its runner: what is beside the interpreter is what a watcher starts."""
    place = tmp_path_factory.mktemp("installation")
    (place / "bin").mkdir()
    (place / "lib").symlink_to(BIN.parent / "lib")
    (place / "pyvenv.cfg").write_text((BIN.parent / "pyvenv.cfg").read_text())
    (place / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    ours = (BIN / "stac-watch").read_text().partition("\n")[2]
    programs = {
        "stac-watch": f"#!{place}/bin/python\n{ours}",
        "geozarr-runner": f"#!{Path(sys.executable).resolve()} -SE\n{STANDIN.read_text()}",
    }
    for name, text in programs.items():
        (place / "bin" / name).write_text(text)
        (place / "bin" / name).chmod(0o755)
    return place


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """A catalog with one item of today, and one of three days ago."""
    products = tmp_path_factory.mktemp("products")
    now = datetime.now(UTC)
    with Store() as store, Server(create_app(store, products=products, now=lambda: datetime.now(UTC))) as server:
        for tile, age in (("T32TQM", timedelta(hours=1)), ("T33UUP", timedelta(days=3))):
            at = now - age
            item = f"S2A_MSIL2A_{at:%Y%m%dT%H%M%S}_N0511_R122_{tile}_{at:%Y%m%dT%H%M%S}"
            write_product(products, item, size=360)
            href = f"{server.url}/products/{item}.zarr"
            store.put(make_item(item, catalog_url=server.url, product_href=href, updated=at, datetime=at))
        yield server.url


def test_the_pages_with_commands_are_found():
    """Guards the test below: a pattern that finds nothing would let everything pass."""
    assert {"README.md", "getting-started.md", "backfill-and-replay.md"} <= {page.name for page in PAGES}
    assert (
        sum(block.language != "yaml" for page in PAGES for block in blocks(page)) >= 7
    )  # README 1, getting started 1, the guide 4, deploy 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, catalog, installation, tmp_path):
    home = BIN.parent if page.parent == ROOT else installation
    (tmp_path / ".venv").symlink_to(home)
    (tmp_path / "deploy" / "base").mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "base" / "stac-watch.yaml", tmp_path / "deploy" / "base")
    if "# stac-watch.yaml" not in "".join(block.text for block in blocks(page)):  # a page that goes on where the first one ended
        (tmp_path / "stac-watch.yaml").write_text(next(b.text for b in blocks(ROOT / "README.md") if b.language == "yaml"))
    environ = os.environ | {
        "PATH": f"{home}/bin:{os.environ['PATH']}",
        "CONVERSIONS": str(tmp_path / "conversions"),  # the stand-in's
        "STAC_WATCH__RECIPE__GROUPS": "quality/atmosphere/r60m",
        "STAC_WATCH__SOURCES__S2_L2A__API": catalog,
        "STAC_WATCH__SOURCES__S2_L2A__ALLOWED_HOSTS": "[127.0.0.1]",
    }
    for block in blocks(page):
        if block.language == "yaml":
            name = re.match(r"# (\S+)\n", block.text)
            assert name, f"{page.name}: the first line of a file's fence is its name"
            (tmp_path / name[1]).write_text(block.text)
            continue
        done = subprocess.run(
            ["sh", "-euc", block.text], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{page.name}:\n{block.text}\n{done.stdout}{done.stderr}"
    markers = tmp_path.glob("var/outputs/sentinel-2-l2a/*.zarr/stac-watch.json")
    left = {(tile_of(marker.parent.stem), json.loads(marker.read_text())["attempt"]) for marker in markers}
    assert left == LEFT.get(page.name, set())
    if page.name == "deploy.md":
        assert (tmp_path / "manifests" / "kustomization.yaml").is_file()
