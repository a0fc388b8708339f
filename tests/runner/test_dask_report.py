"""Dask's performance report: asked for, it is there, is what it says, lies beside the output too, and changes no byte of that."""

from __future__ import annotations

import html.parser
import json
import subprocess

import pytest
from command_line import program

SMALL = "measurements/reflectance/r20m conditions/geometry"


class _Scripts(html.parser.HTMLParser):
    """Collects what lies between script tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._inside = tag == "script"
        if self._inside:
            self.found.append("")

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.found[-1] += data


@pytest.fixture
def converted_with(product, tmp_path):
    """Calls the runner in a process of its own: Dask's scheduler asks the machine for its address, which tests must not."""

    def call(report: object, *, groups: str = SMALL) -> dict:
        command = program(product, tmp_path / "o.zarr", groups=groups, package="none", dask_perf_html=report)
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return call


def _documents(text: str) -> list[dict]:
    """The Bokeh documents that a page embeds as JSON."""
    return [json.loads(s) for s in _Scripts(text).found if s.lstrip().startswith('{"') and '"roots"' in s]


def test_the_report_is_there_lies_beside_the_output_and_changes_nothing(converted_with, product, runner, tree, tmp_path):
    asked = tmp_path / "reports" / "dask.html"
    outcome = converted_with(asked)
    assert outcome["engine"] == "stock: Dask's report needs Dask to do the work"
    (embedded,) = _documents(asked.read_text())
    models = json.dumps(embedded)
    assert "Task Stream" in models
    assert "number of tasks" in models
    beside = tmp_path / "o.zarr.dask.html"
    assert outcome["files"]["dask_report"] == str(beside)
    assert beside.read_bytes() == asked.read_bytes()
    item = json.loads((tmp_path / "o.zarr.item.json").read_text())
    assert item["assets"]["dask_report"]["href"] == "./o.zarr.dask.html"
    assert runner(product, tmp_path / "plain" / "o.zarr", groups=SMALL, package="none", engine="stock").code == 0
    assert tree(tmp_path / "o.zarr") == tree(tmp_path / "plain" / "o.zarr")


def test_it_may_be_asked_for_at_an_address(converted_with, tmp_path):
    converted_with(f"file://{tmp_path}/dask.html", groups="conditions/geometry")
    assert (tmp_path / "dask.html").read_bytes() == (tmp_path / "o.zarr.dask.html").read_bytes()


def test_a_report_that_cannot_be_written_is_said_before_anything_is_converted(product, runner, tmp_path):
    (tmp_path / "file").write_text("")
    ended = runner(product, tmp_path / "o.zarr", groups=SMALL, dask_perf_html=tmp_path / "file" / "dask.html")
    assert (ended.code, ended.outcome["stage"]) == (73, "preflight")
    assert "dask.html" in ended.said
    assert not (tmp_path / "o.zarr").exists()


def test_the_fast_engine_cannot_be_asked_for_with_it(product, runner, tmp_path):
    ended = runner(product, tmp_path / "o.zarr", groups=SMALL, dask_perf_html=tmp_path / "dask.html", engine="fast")
    assert (ended.code, "Dask's report needs Dask" in ended.said) == (65, True)
