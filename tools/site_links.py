"""MkDocs hook: links that leave docs/ work in the site as they do on a git host.

In: the pages of docs/, as they are. Out: the files of the clone that they link to (`../CHANGELOG.md`, `../deploy/…`), README.md as
the site's first page, and links that fit; fences without the word that marks a test. Never: changes a page's text, or takes a file
that nobody links to.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ALWAYS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
UP = re.compile(r"\]\(\.\./([^)#\s]+)")  # from docs/ into the clone
DOWN = re.compile(r"\]\(docs/")  # from a page of the clone's root into docs/
RUNS = re.compile(r"^(```\w+) runs$", re.MULTILINE)  # tests/docs/test_blocks.py; a git host ignores it, superfences does not


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what lies outside docs/ and is linked from there, at its path in the clone."""
    root = Path(config.config_file_path).parent
    linked = {target for page in files.documentation_pages() for target in UP.findall(page.content_string)}
    for name in sorted({*ALWAYS, *linked}):
        files.append(File.generated(config, name, abs_src_path=str(root / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # MkDocs gives them by name
    """Lets links of pages that were in different folders lead to where both are now."""
    markdown = RUNS.sub(r"\1", markdown)
    return DOWN.sub("](", markdown) if page.file.src_uri in ALWAYS else UP.sub(r"](\1", markdown)
