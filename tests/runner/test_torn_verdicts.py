"""What is found to be wrong with a product that is just being replaced is no verdict on it: it is looked at again, and staged anew.

Each case is one object that a server gives first as it was, and from the next request on as it is now: a mixture that is certain,
however fast anybody is.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import zarr
from geozarr_runner.convert import mirror
from geozarr_runner.source import preflight, stage, transcode
from geozarr_runner.source.noted import Replaced
from geozarr_runner.source.store import Patience
from shelf import Shelf, served

from stac_watch.model.errors import InputError
from stac_watch.model.forms import Form, Native
from stac_watch.model.patience import Backoff

pytestmark = pytest.mark.long

BANDS = "measurements/reflectance"
COARSE = f"{BANDS}/r60m"
SOON = Patience(attempts=1, pauses=Backoff(timedelta(0), timedelta(0)), timeout=60)

type Given = list[bytes | None]  # of one object, answer by answer, the last for ever; None = it is not there


def objects_of(store: Path) -> dict[str, bytes]:
    """Every object of a store by its path on a server."""
    return {f"{store.name}/{p.relative_to(store).as_posix()}": p.read_bytes() for p in store.rglob("*") if p.is_file()}


def turning(objects: dict[str, bytes], given: dict[str, Given], tag: Callable[[bytes], str] | None = None) -> Shelf:
    """Returns a server of whose objects some become others while they are asked for."""
    shelf = Shelf(dict(objects)) if tag is None else Shelf(dict(objects), tag=tag)
    left = {path: list(answers) for path, answers in given.items()}

    def before(path: str) -> None:
        answers = left.get(path.lstrip("/"))
        if answers is None:
            return
        body = answers.pop(0) if len(answers) > 1 else answers[0]
        if body is None:
            shelf.objects.pop(path.lstrip("/"), None)  # type: ignore[attr-defined]
        else:
            shelf.objects[path.lstrip("/")] = body  # type: ignore[index]

    shelf.before = before
    return shelf


def values(store: Path, path: str) -> np.ndarray:
    return np.asarray(zarr.open_array(str(store / path), mode="r")[...])


def _another_band(objects: dict[str, bytes], name: str) -> dict[str, Given]:
    own, other = (f"{name}/{BANDS}/{band}/c/0/0" for band in ("r60m/b02", "r60m/b04"))
    return {own: [objects[other], objects[own]]}


def _cut(objects: dict[str, bytes], name: str) -> dict[str, Given]:
    """Twice, as often as a broken object is fetched."""
    key = f"{name}/{COARSE}/b01/c/0/0"
    return {key: [objects[key][:-9], objects[key][:-9], objects[key]]}


def _absent(objects: dict[str, bytes], name: str) -> dict[str, Given]:
    key = f"{name}/{COARSE}/b01/c/0/0"
    return {key: [None, objects[key]]}


@contextmanager
def _during(_stage: str, _total: int = 0) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def brought(url: str, folder: Path, mode: Native) -> None:
    """Plans and stages, as a run does; what is mirrored is judged, too."""
    off = threading.Event()
    groups = f"{COARSE} {BANDS}/r20m" if mode is Native.CONVERT else ""
    plan = preflight.plan(url, groups, allowed_hosts=(), patience=SOON, wait=off.wait, asked=mode)
    if plan.form is Form.EOPF_V2:
        stage.stage(plan, folder, advance=lambda _: None, called_off=off)
    elif mode is Native.CONVERT:
        transcode.stage(plan, folder, advance=lambda _: None, called_off=off)
    else:
        mirror.take(plan, folder, folder / "output", _during, off, flush=lambda _: None, offer=None)
    assert not off.is_set()


@pytest.mark.parametrize("mode", [Native.MIRROR, Native.CONVERT])
@pytest.mark.parametrize("wrong", [_another_band, _cut, _absent], ids=lambda f: f.__name__.strip("_"))
def test_of_a_finished_geozarr(native, tmp_path, mode, wrong):
    objects = objects_of(native)
    given = wrong(objects, native.name)
    with served(turning(objects, given)) as place, pytest.raises(Replaced, match=next(iter(given)).split("/", 1)[1]):
        brought(f"{place.url}/{native.name}", tmp_path, mode)


@pytest.mark.parametrize("wrong", ["cut", "absent"])
def test_of_a_product_in_zarr_v2(product, tmp_path, wrong):
    objects = objects_of(product)
    key = f"{product.name}/{COARSE}/b01/0.0"
    given: dict[str, Given] = {"cut": [objects[key][:-9]] * 2, "absent": [None]}
    with served(turning(objects, {key: [*given[wrong], objects[key]]})) as place, pytest.raises(Replaced, match=r"r60m/b01/0\.0"):
        brought(f"{place.url}/{product.name}", tmp_path, Native.CONVERT)


def test_a_run_goes_on_with_what_is_there_now(native, runner, tmp_path):
    objects = objects_of(native)
    with served(turning(objects, _another_band(objects, native.name))) as place:
        ended = runner(f"{place.url}/{native.name}", tmp_path / "a.zarr", package="none")
    assert (ended.code, "was replaced while it was read" in ended.stderr) == (0, True), ended.said
    np.testing.assert_array_equal(values(tmp_path / "a.zarr", f"{COARSE}/b02"), values(native, f"{COARSE}/b02"))


def test_what_goes_on_changing_is_left_for_later(native, runner, tmp_path):
    objects = objects_of(native)
    bands = ["b04", "b03", "b05", "b06", "b07", "b11", "b12", "b8a", "b09"]
    ever = [objects[f"{native.name}/{COARSE}/{band}/c/0/0"] for band in bands]
    with served(turning(objects, {f"{native.name}/{COARSE}/b02/c/0/0": ever * 2})) as place:
        ended = runner(f"{place.url}/{native.name}", tmp_path / "a.zarr", package="none")
    assert (ended.code, "was replaced while it was read" in ended.said) == (75, True), ended.said


def test_a_server_that_says_nothing_of_its_objects_is_asked_for_them_again(native, tmp_path):
    objects = objects_of(native)
    given = _another_band(objects, native.name)
    with served(turning(objects, given, tag=lambda _: "")) as place, pytest.raises(Replaced, match="r60m/b02"):
        brought(f"{place.url}/{native.name}", tmp_path, Native.MIRROR)


def test_what_stays_wrong_is_bad_input_and_nothing_is_fetched_again_for_it(native, tmp_path):
    objects = objects_of(native)
    own, other = (f"{native.name}/{COARSE}/{band}/c/0/0" for band in ("b02", "b04"))
    with served(Shelf(objects | {own: objects[other]})) as place:
        with pytest.raises(InputError, match="r60m/b02"):
            brought(f"{place.url}/{native.name}", tmp_path, Native.MIRROR)
        assert place.sent < 1.1 * len(objects)


def test_a_node_of_a_store_that_consolidates_nothing_is_read_again(native, tmp_path):
    objects = {k: body for k, body in objects_of(native).items() if not any(f"/r{n}m/" in k for n in (120, 360, 720))}
    for key in [key for key in objects if key.endswith("zarr.json")]:
        document = json.loads(objects[key])
        document.pop("consolidated_metadata", None)
        objects[key] = json.dumps(document).encode()
    node = f"{native.name}/{COARSE}/b01/zarr.json"
    with served(Shelf(objects)) as place:
        off = threading.Event()
        url = f"{place.url}/{native.name}"
        plan = preflight.plan(url, COARSE, allowed_hosts=(), patience=SOON, wait=off.wait)
        came = transcode.stage(plan, tmp_path, advance=lambda _: None, called_off=off)
        came.watch.require_unchanged()
        place.objects = objects | {node: objects[node].replace(b'"add_offset": -0.1', b'"add_offset": -0.2')}
        with pytest.raises(Replaced, match=r"r60m/b01/zarr\.json"):
            came.watch.require_unchanged()
