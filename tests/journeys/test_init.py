"""A first configuration: from options alone in a pipe, from answers on a terminal; what is written can be read."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stac_watch.config.draft import Draft, compose, source_name
from stac_watch.config.load import load
from stac_watch.demo.catalog import make_collection

COMMAND = Path(sys.executable).parent / "stac-watch"


@pytest.fixture
def catalog(build):
    world = build()
    world.store.put_collection(make_collection())
    for number in range(3):
        world.publish(number)
    return world


def test_options_alone_write_a_file_and_say_how_many_items_match(catalog, tmp_path, stac_watch):
    said = stac_watch("init", "--api", catalog.url, "--tile", "32TQM", "--max-cloud-cover", "100", cwd=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert "of the newest 3 items 3 match" in said.out
    assert said.out.endswith("next: stac-watch check, then stac-watch watch --once\n")
    found = load(tmp_path / "stac-watch.yaml", {}).sources[0]
    assert (found.api, found.collection, found.filter.tiles) == (catalog.url, "sentinel-2-l2a", ("T32TQM",))
    assert found.allowed_hosts == ("127.0.0.1",)
    assert "# intersects: area.geojson" in (tmp_path / "stac-watch.yaml").read_text()
    again = stac_watch("init", "--api", catalog.url, cwd=tmp_path)
    assert (again.code, "is there already" in again.err) == (65, True)


def test_what_matches_nothing_is_said_and_what_is_wrong_is_not_written(catalog, tmp_path, stac_watch):
    said = stac_watch("init", "--api", catalog.url, "--bbox", "100,10,101,11", cwd=tmp_path)
    assert "of the newest 3 items 0 match; 3 outside_area" in said.out
    assert "warning: nothing that the catalog has would be converted" in said.out
    for wrong, code in (("--bbox=1,2,3", 78), ("--bbox=a,b,c,d", 65), ("--tile=foo", 78), ("--collection=none", 78)):
        refused = stac_watch("init", "--api", catalog.url, wrong, "-c", "other.yaml", cwd=tmp_path)
        assert (refused.code, refused.out) == (code, ""), wrong
    assert not (tmp_path / "other.yaml").exists()


def test_of_several_collections_one_must_be_named_and_those_of_sentinel_2_come_first(catalog, tmp_path, stac_watch):
    catalog.store.put_collection(make_collection() | {"id": "landsat"})
    said = stac_watch("init", "--api", catalog.url, cwd=tmp_path)
    assert said.code == 65
    assert "the catalog has 2 collections: sentinel-2-l2a, landsat" in said.err
    assert "--collection ID" in said.err


def test_on_a_terminal_it_asks(catalog, tmp_path):
    ours, theirs = pty.openpty()
    answers = f"{catalog.url}\n32TQM\n100\n".encode()
    process = subprocess.Popen([str(COMMAND), "init"], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    os.write(ours, answers)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # its other end is closed
        pass
    with process:
        assert process.wait(60) == 0, process.stderr.read()
    os.close(ours)
    assert b"of the newest 3 items 3 match" in said
    assert load(tmp_path / "stac-watch.yaml", {}).sources[0].filter.tiles == ("T32TQM",)


@pytest.mark.parametrize("collection", ["sentinel-2-l2a", "urn:eop:VITO:S2 'x' # y", "ä: {b}", "engine", "-" * 40])
def test_any_collection_gives_a_file_that_can_be_read(collection, tmp_path):
    text = compose(Draft("https://stac.example", collection, {"bbox": [1, 2, 3, 4]}, ["a.example"], "s3://b/{item_id}.zarr"))
    document = yaml.safe_load(text)
    assert document["sources"][0]["collection"] == collection
    assert document["sources"][0]["name"] == source_name(collection)
    assert document["recipe"]["output"] == "s3://b/{item_id}.zarr"
    (tmp_path / "x.yaml").write_text(text)
    if collection == "sentinel-2-l2a":
        assert load(tmp_path / "x.yaml", {}).sources[0].name == "s2-l2a"
