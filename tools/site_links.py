"""MkDocs hook: links that leave docs/ work in the site as they do on a git host.

Files of the clone that a page links to (`../CHANGELOG.md`, `../deploy/…`) join the site at their path in the clone, README.md as
its first page, and links are changed to fit. Fences lose the word that marks a test. No other text of a page is touched.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ALWAYS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
DOWN = re.compile(r"\]\(docs/")  # from a page of the clone's root into docs/
RUNS = re.compile(r"^(```\w+) runs$", re.MULTILINE)  # tests/docs/test_blocks.py; a git host ignores it, superfences does not


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what lies outside docs/ and is linked from there, at its path in the clone."""
    root = Path(config.config_file_path).parent
    linked = {target for page in files.documentation_pages() for target in _up(page.src_uri).findall(page.content_string)}
    for name in sorted({*ALWAYS, *linked}):
        files.append(File.generated(config, name, abs_src_path=str(root / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # MkDocs gives them by name
    """Makes links between pages of different folders lead to where both are now."""
    markdown = RUNS.sub(r"\1", markdown)
    uri = page.file.src_uri
    return DOWN.sub("](", markdown) if uri in ALWAYS else _up(uri).sub(rf"]({'../' * uri.count('/')}\1", markdown)


def _up(uri: str) -> re.Pattern[str]:
    """Returns what a link from a page of docs/ into the clone looks like: one step more than to docs/ itself."""
    return re.compile(rf"\]\({re.escape('../' * (uri.count('/') + 1))}(?!\.\./)([^)#\s]+)")
