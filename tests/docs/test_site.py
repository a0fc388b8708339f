"""The documentation as a site: it builds strictly, every page can be found, and nothing is fetched from elsewhere to read it."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}  # what a browser asks for by itself
NOT_FETCHED = {"canonical", "next", "prev"}  # links of `link` that only say something


class Tags(HTMLParser):
    """What a page has: what it fetches, and the text of its paragraphs."""

    def __init__(self):
        super().__init__()
        self.fetched, self.paragraphs, self._inside = [], [], False

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in FETCHED and given.get("rel") not in NOT_FETCHED and given.get(FETCHED[tag]):
            self.fetched.append(given[FETCHED[tag]])
        if tag == "p":
            self._inside = True
            self.paragraphs.append("")

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "p"

    def handle_data(self, data):
        if self._inside:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs-site` builds it: a page outside the nav, a dead link or anchor is an error."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", place],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def pages(site):
    read = {}
    for path in sorted(site.rglob("*.html")):
        read[str(path.relative_to(site))] = Tags()
        read[str(path.relative_to(site))].feed(path.read_text(encoding="utf-8"))
    return read


def nav(entries):
    """The files that a nav names."""
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [value] if isinstance(value, str) else nav(value)


def test_every_page_is_in_the_nav_once_and_in_the_site(site):
    named = list(nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(named) == len(set(named))
    written = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert written <= set(named)
    assert set(named) - written == {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"}
    for name in named:
        assert (site / name.replace("README.md", "index.md").replace(".md", ".html")).is_file(), name


def test_nothing_is_fetched_from_elsewhere(site, pages):
    assert len(pages) >= 15
    for name, page in pages.items():
        assert page.fetched, name
        for address in page.fetched:
            parts = urlsplit(address)
            assert not parts.netloc, f"{name} fetches {address}"
            if not parts.scheme and name != "404.html":  # data: is part of the page; 404.html does not know where it is shown
                assert (site / name).parent.joinpath(parts.path).resolve().is_file(), f"{name} fetches {address}"
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_a_link_that_leaves_the_docs_leads_to_the_same_file(site):
    changes = (site / "CHANGELOG.html").read_text(encoding="utf-8")
    assert 'href="security.html"' in changes
    assert 'href="CHANGELOG.html"' in (site / "deploy.html").read_text(encoding="utf-8")
    assert 'href="../runbook.html#killed-exit-137"' in (site / "reference" / "json.html").read_text(encoding="utf-8")
    assert 'href="index.html#use-it"' in (site / "backfill-and-replay.html").read_text(encoding="utf-8")
    assert 'href="guarantees.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_no_list_table_or_fence_is_left_as_text(pages):
    """A git host and the site read Markdown alike only where a list or a table has an empty line before it."""
    for name, page in pages.items():
        for text in page.paragraphs:
            assert not re.search(r"^(\||[-*] |\d+\. |```)", text, re.MULTILINE), f"{name}: {text[:200]}"


def test_what_is_said_can_be_searched(site):
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    for word in (
        "confirm_after",
        "StacWatchEventsLost",
        "cannot_match",
        "stac-watch/lane",
        "summer",
        "country",
        "xarray",
        "cancel",
        "proxy",
    ):
        assert word in index


@pytest.mark.parametrize("picture", sorted((DOCS / "pictures").glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_can_be_read_by_everybody_and_asks_for_nothing(picture):
    tree = ET.fromstring(picture.read_text(encoding="utf-8"))
    space = "{http://www.w3.org/2000/svg}"
    assert tree.find(f"{space}title").text
    assert tree.find(f"{space}desc").text
    kinds = {node.tag.removeprefix(space) for node in tree.iter()}
    assert not kinds & {"script", "image", "foreignObject", "use", "a"}
    assert not re.search(r"@import|url\((?!#)|href", picture.read_text(encoding="utf-8"))
    # light or dark, the page behind it does not matter: the first thing drawn is a ground of its own under everything
    _, _, width, height = map(float, tree.get("viewBox").split())
    ground = next(node for node in tree if node.tag == f"{space}rect")
    assert (float(ground.get("width")), float(ground.get("height"))) == (width, height)
    assert any(f"pictures/{picture.name}" in page.read_text() for page in DOCS.glob("*.md"))
