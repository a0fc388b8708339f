"""A finished GeoZarr becomes an output as it is: the same objects, byte for byte. Or it stays, and the output says where.

Nothing is converted, so what is wrong is wrong at its source: the run ends with 65, and nothing is published. Both ways ask the
same questions; a reference asks them of a sample, and of every object only whether it is there, and how long.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geozarr_runner.convert.meanwhile import Meanwhile
from geozarr_runner.request import Offer
from geozarr_runner.source import claims, whole
from geozarr_runner.source.arrive import Arrived, bring, fetch_documents
from geozarr_runner.source.complete import Allowance
from geozarr_runner.source.noted import Watch, unchanged, unless_replaced
from geozarr_runner.source.preflight import SAMPLE_BYTES, Plan
from geozarr_runner.source.product import OVERVIEWS, REFLECTANCE
from geozarr_runner.source.samples import Blocks
from geozarr_runner.source.shards import limits_of, read_whole
from geozarr_runner.source.stage import Staged, corrupt_source
from geozarr_runner.source.transcode import keep_objects, noted_for, write_nodes
from geozarr_runner.verify.findings import Compared, Sample, Verification
from geozarr_runner.verify.pyramid import georeferencing, scales
from stac_watch.model.errors import Defect, InputError, SourceNotThere, write_failure
from stac_watch.model.forms import Native
from stac_watch.model.outcome import Check, Outcome
from stac_watch.model.zarr3 import ROOT, StoredArray, StoredTree, fingerprint, same_store

log = logging.getLogger(__name__)

type During = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Marks a stage of so many steps, and yields the function that counts them; see `process.progress`."""

REFERENCE = "reference.json"
"""What the folder of an output holds that is only referenced: the address of the store."""


@dataclass(frozen=True)
class Taken:
    """A finished GeoZarr that was taken in."""

    staged: Staged
    verified: Verification
    fingerprint: str
    store: Path  # where it can be read here: the output, or the sample of it
    sums: Mapping[str, str]  # SHA-256 of objects of the output, as far as they are known


def take(
    plan: Plan,
    folder: Path,
    output: Path,
    during: During,
    called_off: threading.Event,
    *,
    flush: Callable[[Path], None],
    offer: Offer | None,
    allow_empty: bool = False,
) -> Taken:
    """Makes the output, in a folder that must not exist or be empty.

    Raises:
        SourceNotThere: objects are missing that cannot be empty.
        InputError: an object is broken at the source, or the store is not what its metadata says.
        Replaced: it was published anew meanwhile.
        Temporary | Refused | CannotWrite: see `source.classify`.
    """
    tree = plan.tree
    if tree is None:
        raise Defect("only a store in Zarr v3 is taken as it is")
    objects = folder / "objects"
    keep_objects(objects, plan.root)
    partial = plan.native is Native.REFERENCE
    arrays = _smallest(tree) if partial else dict(tree.arrays)
    samples, noted = Blocks(arrays), noted_for(plan, folder)
    keys = tree.documents()
    total = len(keys) + sum(1 for a in arrays.values() for _ in a.keys())  # noqa: SIM118
    root, own = plan.source.local or objects, plan.source.local is None
    with Meanwhile(tree, arrays, root, flush if own else None, None if partial else offer) as meanwhile:
        with during("stage", total) as advance, unless_replaced(plan, objects, noted, called_off) as absent:
            documents = _documents(plan, tree, objects, keys, called_off)
            advance(len(keys))
            arrived = bring(
                plan.source, objects, arrays.values(), noted,
                advance=advance, called_off=called_off, see=samples.see, done=meanwhile.done,
            )  # fmt: skip
            absent |= arrived.missing
            sizes = arrived.sizes
            if partial:
                sizes = _sizes(plan, tree, arrived, samples, called_off, allow_empty=allow_empty)
            odd = whole.require_whole(arrays, arrived.missing, samples, plan.source.url, allow_empty=allow_empty)
            said = claims.contradiction_of_store(plan, arrays, arrived.missing, samples, sizes)
            claims.require(said, plan.source.url, Allowance(allow_empty=allow_empty))
        with unchanged(Watch(plan, objects, noted, arrived.missing, called_off)):
            with during("convert", 0):
                place(plan, documents, arrived, objects, output)
            with during("verify", 0):
                there = _sample_store(tree, arrays, arrived, folder / "sample") if partial else output
                asked = _questions(tree, arrays, there, samples, meanwhile.overviews())
                checks = (*asked, _coverage(arrays, tree, arrived, partial=partial))
            _require_passed(checks, plan)
        _settled(meanwhile, output)
    findings = tuple(_found(path, sampled.pixels) for path, sampled in samples.of.items())
    known = fingerprint(plan.root, sizes, {} if partial else arrived.indexes)
    verified = Verification(checks, findings, Sample(known, 1.0))
    staged = Staged(arrived.root, arrived.missing, len(arrived.objects), arrived.bytes, odd)
    return Taken(staged, verified, known, there, {} if partial else meanwhile.sums)


def _settled(meanwhile: Meanwhile, output: Path) -> None:
    try:
        meanwhile.settle()
    except OSError as error:
        raise write_failure(error, output) from error


def is_still(plan: Plan, marker: Outcome, package: str, called_off: threading.Event) -> bool:
    """Says whether an output that was taken as it is, is what this plan would make: the same store, in the same way.

    Args:
        plan: what is asked for.
        marker: of the output that is there.
        package: the address of the archive that is asked for; empty = none.
        called_off: ends the work early.

    Raises:
        Temporary | Refused: see `source.classify`.
    """
    there = (marker.engine, marker.source, marker.item_id, marker.package.href if marker.package else "")
    if plan.tree is None or there != (str(plan.native), plan.source.url, plan.item_id, package):
        return False
    return same_store(marker.fingerprint, fingerprint(plan.root, plan.source.sizes(limits_of(plan.tree.keys()), called_off), {}))


def place(plan: Plan, documents: Mapping[str, bytes], arrived: Arrived, objects: Path, output: Path) -> None:
    """Puts the objects under the output's name: by a second name of the same bytes where that can be, else copied.

    What was fetched stays until the output has its final name: a run that is killed here goes on from there.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        if plan.native is Native.REFERENCE:
            said = {"href": plan.source.url, "form": str(plan.form)}
            (output / REFERENCE).write_text(json.dumps(said, indent=1) + "\n")
            return
        for key, raw in documents.items():
            target = output / key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(raw)
        for key in arrived.objects:
            target = output / key
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(arrived.root / key, target, own=arrived.root == objects)
    except OSError as error:
        raise write_failure(error, output) from error


def _link(source: Path, target: Path, *, own: bool) -> None:
    if own:  # a source on this machine is somebody's: whoever changes it must not change the output
        try:
            os.link(source, target)
        except OSError:  # another file system, or one that knows no second name
            shutil.copyfile(source, target)
    else:
        shutil.copyfile(source, target)


def _sample_store(tree: StoredTree, arrays: Mapping[str, StoredArray], arrived: Arrived, folder: Path) -> Path:
    """Returns a store of the arrays that were fetched, to be read like any other."""
    shutil.rmtree(folder, ignore_errors=True)
    nodes = {path: node for path, node in tree.nodes.items() if node.get("node_type") == "group" or path in arrays}
    try:
        write_nodes(nodes, folder)
        for key in arrived.objects:
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            _link(arrived.root / key, folder / key, own=arrived.root.parent == folder.parent)
    except OSError as error:
        raise write_failure(error, folder) from error
    return folder


def _smallest(tree: StoredTree) -> dict[str, StoredArray]:
    """Returns the arrays that a reference is judged by: the smallest, up to `SAMPLE_BYTES` of pixels, coordinates among them."""
    found, left = {}, SAMPLE_BYTES
    for path, array in sorted(tree.arrays.items(), key=lambda pair: (pair[1].pixels, pair[0])):
        left -= array.pixels * 8 if len(array.shape) != 2 else array.pixels * 2  # bytes; (y, x)
        if left < 0:
            break
        found[path] = array
    return found


def _documents(plan: Plan, tree: StoredTree, objects: Path, keys: list[str], called_off: threading.Event) -> dict[str, bytes]:
    """Returns every metadata document, after a comparison with what the root says of its node."""
    fetched = fetch_documents(plan.source, objects, keys, called_off)
    lost = [key for key, raw in fetched.items() if raw is None]
    if lost and not called_off.is_set():
        raise SourceNotThere(
            f"{plan.source.url} is still being uploaded: {len(lost)} metadata documents are missing, first {lost[0]}",
            hint="it is tried again later",
        )
    found = {key: raw for key, raw in fetched.items() if raw is not None}
    for key, raw in found.items():
        path = key.removesuffix(ROOT).rstrip("/")
        if path and _plain(raw, f"{plan.source.url}/{key}") != _without(tree.nodes[path]):
            raise InputError(
                f"{plan.source.url} contradicts itself: {key} is not what the root's metadata says of it",
                hint="it may be published again only in part; replay the item once its producer has mended it",
            )
    return found


def _plain(raw: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise InputError(f"{where} is not JSON") from error
    return _without(document) if isinstance(document, dict) else {}


def _without(node: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in node.items() if k != "consolidated_metadata"}


def _sizes(
    plan: Plan, tree: StoredTree, arrived: Arrived, samples: Blocks, called_off: threading.Event, *, allow_empty: bool
) -> dict[str, int]:
    """Returns the size of every object, and requires that what cannot be empty is there."""
    limits = limits_of(tree.keys())
    known = plan.source.sizes(limits, called_off)
    absent = limits.keys() - known.keys() - arrived.objects.keys() - arrived.missing
    lost = whole.lost(tree.arrays, frozenset(absent), samples)
    if lost and not allow_empty:  # nobody looked whether the other bands have something there
        raise SourceNotThere(
            f"{plan.source.url} is still being uploaded: {len(lost)} objects are missing, first {lost[0]}",
            hint="it is tried again later; a mirror looks into what is there, and may find that they are empty",
        )
    return known


def _questions(
    tree: StoredTree, arrays: Mapping[str, StoredArray], root: Path, samples: Blocks, pyramid: Check
) -> tuple[Check, ...]:
    part = StoredTree(tree.nodes, arrays)
    bands = scales(tree)
    told = sorted({f"{scale:g} {offset:+g}" for path, (scale, offset) in bands.items() if "reflectance" in path})
    detail = f"of {len(bands)} arrays, from the store; reflectance: {', '.join(told) or 'not packed'}"
    return (
        _structure(tree), whole.identity(samples), pyramid, georeferencing(tree, root),
        Check("scale and offset", "passed", detail), _second_reader(part, root),
    )  # fmt: skip


def _structure(tree: StoredTree) -> Check:
    levels = [path for path, node in tree.nodes.items() if path.startswith(f"{REFLECTANCE}/r") and node.get("node_type") == "group"]
    return Check("structure", "passed", f"{len(tree.nodes)} nodes, {len(tree.arrays)} arrays, {len(levels)} levels, consolidated")


def _second_reader(tree: StoredTree, root: Path) -> Check:
    """Has zarr-python read the overviews, too: what decodes here is not its own judge."""
    import zarr  # a quarter of a second, which nobody waits for while objects are on their way

    name, pixels = "second reader", 0
    coarse = tuple(f"{REFLECTANCE}/{level}/" for level in OVERVIEWS)
    for path, array in tree.arrays.items():
        if not array.shape or not path.startswith(coarse):
            continue
        there: Any = zarr.open_array(str(root / path), mode="r")
        values, own = np.asarray(there[...]), read_whole(array, root)
        if values.dtype.kind in "Mm":
            values = values.view("i8")
        if not np.array_equal(values, own, equal_nan=own.dtype.kind == "f"):
            return Check(name, "failed", f"zarr-python reads other values of {path}")
        pixels += array.pixels
    return Check(name, "passed", f"zarr-python reads the same {pixels} pixels of the overviews")


def _coverage(arrays: Mapping[str, StoredArray], tree: StoredTree, arrived: Arrived, *, partial: bool) -> Check:
    shards = len(arrived.indexes)
    told = f"{len(arrived.objects)} objects decoded once, {shards} shard indexes by CRC-32C, {len(arrived.missing)} legally absent"
    if partial:
        told += f"; a sample: {len(arrays)} of {len(tree.arrays)} arrays, of the rest presence and size"
    return Check("coverage", "passed", told)


def _require_passed(checks: tuple[Check, ...], plan: Plan) -> None:
    for check in checks:
        log.info("check %s: %s (%s)", check.name, check.verdict, check.detail[:200])
    first = next((check for check in checks if check.verdict == "failed"), None)
    if first is not None:
        raise corrupt_source([f"check {first.name!r} failed: {first.detail}"], plan.source.url)


def _found(path: str, pixels: Mapping[tuple[int, ...], tuple[int, int]]) -> Compared:
    return Compared(path, "native", sum(n for n, _ in pixels.values()), sum(nothing for _, nothing in pixels.values()))
