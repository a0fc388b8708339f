"""A product that is replaced at its source, while it is staged or between two attempts, never becomes a mixture of old and new."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from geozarr_runner.source import preflight, stage
from geozarr_runner.source.noted import Noted, Replaced, Watch
from geozarr_runner.source.store import Patience
from geozarr_runner.source.transfer import Validator
from shelf import Shelf, served

from stac_watch.model.errors import SourceNotThere, Temporary
from stac_watch.model.patience import Backoff

GROUP = "quality/atmosphere/r60m"
ARRAYS = ("aot", "wvp")
SOON = Patience(attempts=1, pauses=Backoff(timedelta(0), timedelta(0)), timeout=5)


def _filled(product: Path, value: int) -> dict[str, bytes]:
    """Returns the product's objects with one value in two arrays: old or new can be told from each pixel."""
    objects = {f"{product.name}/{p.relative_to(product)}": p.read_bytes() for p in product.rglob("*") if p.is_file()}
    for name in ARRAYS:
        at = f"{product.name}/{GROUP}/{name}"
        array = json.loads(objects[f"{at}/.zarray"])
        chunk = numcodecs.get_codec(array["compressor"]).encode(np.full(array["chunks"], value, array["dtype"]))
        objects |= {key: chunk for key in objects if key.startswith(f"{at}/") and "/.z" not in key}
    return objects


@pytest.fixture(scope="module")
def two(product):
    return _filled(product, 1111), _filled(product, 2222)


@contextmanager
def _replacing(two):
    """Serves the old product, and after its first array the new one."""
    old, new = two
    found = Shelf(old)

    def before(_path: str) -> None:
        if any(f"{GROUP}/aot/0" in path for path in found.asked[:-1]):
            found.objects = new

    found.before = before
    with served(found):
        yield found


def _staged(url: str, folder: Path):
    plan = preflight.plan(url, GROUP, allowed_hosts=(), patience=SOON, wait=threading.Event().wait)
    return plan, stage.stage(plan, folder, advance=lambda _: None, called_off=threading.Event())


def _watch(plan, staged) -> Watch:
    return Watch(plan, staged.root, staged.noted, staged.absent, threading.Event())


def _values(root: Path) -> set[int]:
    group = zarr.open_group(str(root), mode="r")
    return {int(v) for name in ARRAYS for v in np.unique(group[f"{GROUP}/{name}"][...])}


def test_a_run_during_which_the_product_is_replaced_gives_the_new_one(two, product, runner, tmp_path):
    with _replacing(two) as shelf:
        ended = runner(f"{shelf.url}/{product.name}", tmp_path / "o.zarr", groups=GROUP, package="none", allowed_hosts="127.0.0.1")
    assert ended.code == 0, ended.stderr
    assert "was replaced while it was read" in ended.stderr
    assert _values(tmp_path / "o.zarr") == {2222}


def test_what_has_changed_is_named_discarded_and_staged_anew(two, product, tmp_path):
    with _replacing(two) as shelf:
        plan, staged = _staged(f"{shelf.url}/{product.name}", tmp_path)
        with pytest.raises(Replaced, match=r"was replaced while it was read: [12] objects") as said:
            _watch(plan, staged).require_unchanged()
        assert isinstance(said.value, Temporary)
        shelf.sent = 0
        shelf.asked.clear()
        plan, staged = _staged(f"{shelf.url}/{product.name}", tmp_path)
        assert shelf.sent - sum("/.z" in path for path in shelf.asked) <= 3, "objects that had not changed were fetched again"
        _watch(plan, staged).require_unchanged()
    assert _values(staged.root) == {2222}


def test_a_later_attempt_does_not_keep_what_an_earlier_one_staged_of_another_product(two, product, tmp_path):
    old, new = two
    chunk = next(key for key in old if f"{GROUP}/wvp/" in key and "/.z" not in key)
    with served(Shelf({key: body for key, body in old.items() if key != chunk})) as shelf:
        with pytest.raises(SourceNotThere):
            _staged(f"{shelf.url}/{product.name}", tmp_path)
        shelf.objects = new
        plan, staged = _staged(f"{shelf.url}/{product.name}", tmp_path)
        with pytest.raises(Replaced):
            _watch(plan, staged).require_unchanged()
        plan, staged = _staged(f"{shelf.url}/{product.name}", tmp_path)
        _watch(plan, staged).require_unchanged()
    assert _values(staged.root) == {2222}


def test_objects_that_nobody_vouches_for_are_fetched_again_by_a_later_attempt(two, product, tmp_path):
    with served(Shelf(two[0], tag=lambda _: "")) as shelf:
        _staged(f"{shelf.url}/{product.name}", tmp_path)
        shelf.objects = two[1]
        _, staged = _staged(f"{shelf.url}/{product.name}", tmp_path)
    assert _values(staged.root) == {2222}


def test_new_metadata_alone_is_a_new_product(two, product, tmp_path):
    with served(Shelf(dict(two[0]), tag=lambda _: "")) as shelf:
        plan, staged = _staged(f"{shelf.url}/{product.name}", tmp_path)
        _watch(plan, staged).require_unchanged()
        document = json.loads(two[0][f"{product.name}/.zmetadata"])
        document["metadata"][".zattrs"]["other_metadata"]["republished"] = "2025-10-09"
        shelf.objects[f"{product.name}/.zmetadata"] = json.dumps(document).encode()
        with pytest.raises(Replaced, match=r"\.zmetadata"):
            _watch(plan, staged).require_unchanged()


def test_a_server_that_gives_a_tag_to_each_answer_has_not_replaced_anything(two, product, tmp_path):
    with served(Shelf(two[0])) as shelf:
        shelf.tag = lambda _: f'"{len(shelf.asked)}"'
        plan, staged = _staged(f"{shelf.url}/{product.name}", tmp_path)
        _watch(plan, staged).require_unchanged()


def test_an_object_that_came_later_or_is_gone_is_a_change(two, product, tmp_path):
    with served(Shelf(dict(two[0]))) as shelf:
        plan, staged = _staged(f"{shelf.url}/{product.name}", tmp_path)
        chunk = next(key for key in plan.selection.keys if f"{GROUP}/aot" in key)
        late = Watch(plan, staged.root, staged.noted, {chunk}, threading.Event())
        with pytest.raises(Replaced, match="aot"):
            late.require_unchanged()
        del shelf.objects[f"{product.name}/{chunk}"]
        with pytest.raises(Replaced, match="aot"):
            _watch(plan, staged).require_unchanged()


def test_a_local_product_that_is_rewritten_meanwhile_is_noticed(own_product, tmp_path):
    plan, staged = _staged(str(own_product), tmp_path)
    with _watch(plan, staged) as watch:
        watch.require_unchanged()
    chunk = own_product / next(key for key in plan.selection.keys if f"{GROUP}/aot" in key)
    chunk.write_bytes(chunk.read_bytes() + b"x")
    with pytest.raises(Replaced, match="aot"):
        _watch(plan, staged).require_unchanged()
    assert chunk.exists(), "what is not ours is not removed"


def test_notes_outlive_their_writer_and_a_line_that_was_cut(tmp_path):
    file = tmp_path / "noted.jsonl"
    noted = Noted(file)
    noted.add("a/0", Validator('"1"', "", 7))
    noted.add("b/0", Validator(size=7))
    file.write_text(file.read_text() + '{"key": "c/0", "et')
    again = Noted(file)
    assert again.known == noted.known
    assert (again.vouches("a/0"), again.vouches("b/0"), again.vouches("c/0")) == (True, False, False)


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        (Validator('"a"', "Mon", 1), Validator('W/"a"', "Mon", 1), False),
        (Validator('"a"'), Validator('"b"'), True),
        (Validator("", "Mon", 1), Validator("", "Tue", 1), True),
        (Validator('"a"', "", 1), Validator('"a"', "", 2), True),
        (Validator('"a"'), Validator("", "Mon", 1), False),
    ],
)
def test_what_two_answers_say_of_one_object(one, other, differs):
    assert one.differs(other) is differs
