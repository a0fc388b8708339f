"""The same configuration means the same ledger and outputs from every folder, and who asks makes nothing."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from stac_watch.ledger.database import open_engine
from stac_watch.ledger.ledger import Ledger

CONFIG = """
ledger: sqlite:///state/ledger.db
sources: [{name: s2, api: "http://127.0.0.1:9", collection: sentinel-2-l2a, filter: {intersects: area.geojson}}]
engine: {kind: local, folder: runs}
"""
AREA = {"type": "Polygon", "coordinates": [[[10, 40], [11, 40], [11, 41], [10, 41], [10, 40]]]}
ASKING = [("status",), ("items",), ("explain", "T32TQM"), ("event", "T32TQM"), ("report",)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a configuration whose paths are relative."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "stac-watch.yaml").write_text(CONFIG)
    (folder / "area.geojson").write_text(json.dumps(AREA))
    return folder


def make_ledger(home: Path, make) -> None:
    (home / "state").mkdir()
    ledger = Ledger(open_engine(f"sqlite:///{home}/state/ledger.db"))
    ledger.prepare()
    ledger.items.commit("s2", [make.sighting()], [], None, make.now)
    ledger.close()


@pytest.mark.parametrize("verb", ASKING)
def test_who_asks_where_there_is_no_ledger_hears_so_and_makes_none(stac_watch, home, tmp_path, verb) -> None:
    said = stac_watch(*verb, "-c", home / "stac-watch.yaml", cwd=tmp_path)
    assert (said.code, said.out) == (78, "")
    assert f"there is no ledger at {home}/state/ledger.db" in said.err
    assert "--config" in said.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["area.geojson", "home", "stac-watch.yaml"]


def test_an_empty_file_is_no_ledger_and_who_asks_makes_none_of_it(stac_watch, home, tmp_path) -> None:
    (home / "state").mkdir()
    (home / "state" / "ledger.db").touch()
    said = stac_watch("status", "-c", home / "stac-watch.yaml", cwd=tmp_path)
    assert (said.code, said.out) == (78, "")
    assert f"there is no ledger at {home}/state/ledger.db" in said.err
    assert (home / "state" / "ledger.db").stat().st_size == 0


def test_relative_paths_are_those_of_the_file_wherever_one_stands(stac_watch, home, tmp_path, make) -> None:
    make_ledger(home, make)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for cwd, config in (
        (elsewhere, Path("../home/stac-watch.yaml")),
        (home, Path("stac-watch.yaml")),
        (tmp_path, home / "stac-watch.yaml"),
    ):
        said = stac_watch("items", "--json", "-c", config, cwd=cwd)
        assert [line["item"] for line in json.loads(said.out)] == [make.item_id]
    assert list(elsewhere.iterdir()) == []


def test_check_says_that_the_ledger_will_be_made_and_does_not_make_it(stac_watch, home) -> None:
    said = stac_watch("check", cwd=home)
    assert "ok    ledger: sqlite:///state/ledger.db: not there yet, `stac-watch watch` makes it" in said.out
    assert not (home / "state").exists()


def test_check_waits_for_a_span_of_time_and_says_how_one_is_written(stac_watch, home) -> None:
    said = stac_watch("check", "--wait", "soon", cwd=home)
    assert (said.code, said.out) == (65, "")
    assert "'soon' is no span of time" in said.err


def test_a_path_on_the_command_line_is_that_of_the_person_who_types_it(stac_watch, home, tmp_path, make) -> None:
    make_ledger(home, make)
    (tmp_path / "wanted.txt").write_text(make.item_id)
    said = stac_watch("replay", "--json", "--file", "wanted.txt", "-c", "home/stac-watch.yaml", cwd=tmp_path)
    assert "it is already queued" in said.out


def test_a_report_is_published_where_it_was_asked_for_and_says_the_same_everywhere(stac_watch, home, tmp_path, make) -> None:
    make_ledger(home, make)
    said = stac_watch("report", "--days", "366", "--out", "www/fresh", "--json", "-c", "home/stac-watch.yaml", cwd=tmp_path)
    assert (said.code, said.err) == (0, "")
    folder = tmp_path / "www" / "fresh"
    assert sorted(path.name for path in folder.iterdir()) == ["feed.atom", "freshness.json", "icon.svg", "index.html"]
    assert (folder / "freshness.json").read_text() == said.out
    assert f"missing\ts2\t{make.item_id}\t" in stac_watch("report", "--days", "366", cwd=home).out


@pytest.mark.skipif(shutil.which("mount") is None, reason="a read-only disk is made with mount")
def test_who_may_only_read_the_disk_can_ask(stac_watch, home, tmp_path, make) -> None:
    make_ledger(home, make)
    done = subprocess.run(["mount", "--bind", "-o", "ro", str(home), str(home)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mount needs root: {done.stderr.strip()}")
    try:
        said = stac_watch("items", "--json", "-c", home / "stac-watch.yaml", cwd=tmp_path)
    finally:
        subprocess.run(["umount", str(home)], check=True)
    assert (said.code, said.err) == (0, "")
    assert [line["item"] for line in json.loads(said.out)] == [make.item_id]
