"""Runs eopf-geozarr 0.12.0 in this process, with each of its known faults worked around here and nowhere else.

It is not believed: `verify` compares what came out with what went in.

| fault of the converter | what is done about it |
| --- | --- |
| xarray 2026.9.0 breaks it: `coarsen().mean(skipna=)` raises (pydata/xarray#11556) | pinned; `require_xarray` says so |
| its import fetches a table from the network without a time-out (data_api/geozarr/common.py) | `load`: with urlopen closed |
| a retry into the same folder skips what is there and keeps holes (`stream_write_dataset`) | a fresh folder per attempt |
| nodata of injected bands becomes reflectance 0.0 (`_coarsen_variable`) | `keep_nodata` |
| a missing chunk reads as fill value without a word | `stage` accounts for each before, `verify` after |
| the source's Zarr v2 filters go into the v3 output, which has no such codecs | `forget_filters` |
| scales, transforms and boxes that contradict the axes | `georeference` |
| `groups` is ignored for Sentinel-2 | `prune` before, `trim` after |
| a group that its list does not have, or one that the list has and the product not: refused | `opened`: it is not asked |
| NaN in root attributes is written as it is: no JSON | `opened` |
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import shutil
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geozarr_runner.convert import georeference, unasked
from geozarr_runner.convert.engine import Options, reason_for_stock
from geozarr_runner.request import Offer
from geozarr_runner.source.metadata import strict
from geozarr_runner.source.product import REFLECTANCE, Selection
from geozarr_runner.verify import conformance
from stac_watch.model.errors import Defect, InputError, Unavailable
from stac_watch.model.forms import Encoding
from stac_watch.model.outcome import Check

if TYPE_CHECKING:
    from geozarr_runner.convert.fast import Begun

log = logging.getLogger(__name__)

_HARMLESS = (
    # zarr v3 strings and consolidated metadata work, and are not in the specification yet; we read them back in `verify`
    (".*does not have a Zarr V3 specification.*", "zarr"),
    (".*Consolidated metadata is currently not part in the Zarr format 3 specification.*", "zarr"),
    (".*CF standard-name validation is DISABLED.*", "eopf_geozarr"),  # our own doing, see `load`
    (".*'extra' configuration is set to `'allow'`.*", "pydantic"),  # of eopf-geozarr's typed dictionaries
    (".*`MISSING` sentinel is no longer experimental.*", "(eopf_geozarr|geozarr_toolkit|zarr_cm)"),  # pydantic 2.14 moved it
    (".*`@` matmul instead of `\\*` mul operator.*", "rioxarray"),  # affine 3, about rioxarray
    (".*has multiple fill values.*", "xarray"),  # `_FillValue` and `missing_value`: both are missing, as CF says
    (".*Failed to open Zarr store with consolidated metadata.*", "eopf_geozarr"),  # local stores may be unconsolidated
)
_CHATTER = "Unknown encoding keys"
"""A warning that the converter logs for every group of every product: CF encodings it does not know."""


@dataclass(frozen=True)
class Converted:
    """What was written: by which engine (`stock: ` and the reason), and what the validators say of its metadata."""

    engine: str
    checks: tuple[Check, ...]
    frames: Mapping[str, int] = field(default_factory=dict)  # checksums of encoded chunks, as far as they were taken
    sums: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of the same files


def convert(
    source: Path,
    selection: Selection,
    folder: Path,
    options: Options,
    *,
    level: str,
    advance: Callable[[int], None] = lambda _: None,
    begun: Begun | None = None,
    offer: Offer | None = None,
) -> Converted:
    """Converts a local Sentinel-2 product.

    Args:
        source: Zarr v2 store, complete.
        selection: what of it to convert.
        folder: where the output goes; must not exist or be empty.
        options: the recipe.
        level: the product's, `L1C` or `L2A`.
        advance: told of each array that was written.
        begun: what of the same conversion has begun already; see `early`.
        offer: takes files of the output that are finished, before the rest is.

    Raises:
        InputError: the converter does not take this product; or the fast engine was asked for, and does not.
        Unavailable: the installed xarray breaks the converter.
        OSError: the folder cannot be written.
    """
    if begun is None and folder.exists() and any(folder.iterdir()):
        raise Defect(f"{folder} is not empty: the converter would skip what is there and keep its holes")
    from geozarr_runner.convert import fast as chunks
    from geozarr_runner.convert.encoding import Unexpected

    reason = reason_for_stock(selection, options, level)
    if reason and options.engine == "fast":
        raise InputError(f"the fast engine cannot do this: {reason}", hint="leave --engine at auto: it takes the stock engine then")
    if not reason:
        try:
            verdicts, writer = chunks.write(
                source, selection, folder, options, level=level, advance=advance, begun=begun, offer=offer
            )
        except Unexpected as error:
            if options.engine == "fast":
                raise Defect(f"the fast engine does not fit this converter: {error}", hint="use --engine stock") from error
            log.warning("the fast engine gives way to the stock one: %s", error)
            shutil.rmtree(folder, ignore_errors=True)
            reason = str(error)
        else:
            return Converted("fast", verdicts, writer.frames, writer.sums)
    return Converted(f"stock: {reason}", _stock(source, selection, folder, options, advance, level))


def _stock(
    source: Path, selection: Selection, folder: Path, options: Options, advance: Callable[[int], None], level: str
) -> tuple[Check, ...]:
    from geozarr_runner.convert import encoding, fast

    with quiet():
        converter = load(distributed=bool(options.dask_perf_html))
        require_xarray()
        tree = opened(converter, source, selection, level)
        with _scheduler(options, _written(folder, selection, advance)):
            run_converter(converter, tree, folder, options)
        if selection.scaffold is not None:
            trim(folder, selection)
        georeference.settle(folder)
        if options.encoding is Encoding.PACKED:
            encoding.declare(folder, encoding.stored(selection, options, level), sharded=options.sharding)
            fast.recode(source, selection, folder, options, level=level)
        return conformance.check(folder)


@dataclass(frozen=True)
class Converter:
    """The two functions of eopf-geozarr that we call."""

    open_source_datatree: Callable[[str], Any]
    convert_s2_optimized: Callable[..., Any]


def load(*, distributed: bool = False) -> Converter:
    """Imports eopf-geozarr with `urlopen` closed: its import fetches the CF name table, and a proxy that stalls hangs it."""

    def closed(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("the runner imports the converter without network")

    real = urllib.request.urlopen
    urllib.request.urlopen = closed
    try:
        with _uncollected(), unasked.spared(distributed=distributed):
            from eopf_geozarr.conversion.open_source import open_source_datatree
            from eopf_geozarr.s2_optimization import s2_multiscale
            from eopf_geozarr.s2_optimization.s2_converter import convert_s2_optimized
    finally:
        urllib.request.urlopen = real
    s2_multiscale.DISTRIBUTED_AVAILABLE = False  # else it draws a progress bar for each group, on a cluster that there is not
    _route_structlog()
    return Converter(open_source_datatree, convert_s2_optimized)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Has no garbage looked for in a first import, nor ever again in what it brought: half a million objects that stay."""
    if "eopf_geozarr" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def require_xarray(mean: Callable[..., Any] | None = None) -> None:
    """Checks that `coarsen().mean()` takes `skipna`, which the converter passes.

    Raises:
        Unavailable: it does not; names the versions.
    """
    import numpy as np
    import xarray as xr

    sample: Any = xr.DataArray(np.zeros(2), dims="x").coarsen(x=2)
    call = mean or sample.mean
    try:
        call(skipna=True)
    except TypeError as error:
        raise Unavailable(
            f"xarray {xr.__version__} does not work with eopf-geozarr {version('eopf-geozarr')}: {error}",
            hint="install the versions that are locked with this runner (xarray 2026.7.0)",
        ) from error


def opened(converter: Converter, source: Path, selection: Selection, level: str) -> Any:  # noqa: ANN401  # idem
    """Returns the source as the converter is given it: what was selected, decoded, and without what it is known to trip over."""
    tree = converter.open_source_datatree(str(source))
    prune(tree, selection)
    keep_nodata(tree)
    forget_filters(tree)
    georeference.declare(tree, selection)
    # its own test compares the store with a closed list of groups; `preflight` has judged it, and additions are left out already.
    # Of a tree that names no store it says that it is "not checkable" (`_validate_s2_input`)
    tree.set_close(None)
    tree.name = level  # where `product:type` is absent, it takes the level from here (`S2Type.from_datatree`)
    tree.attrs = strict(tree.attrs)  # it cleans the attributes of arrays and groups, and writes those of the root as they are
    return tree


def prune(tree: Any, selection: Selection) -> None:  # noqa: ANN401  # xarray.DataTree, untyped here so that importing us stays light
    """Removes from the tree, in memory, what is not to be converted: groups, arrays, quicklooks, all but one scaffold band."""
    groups = {*selection.groups, *(a.group for a in selection.arrays)}
    wanted = {"", *groups, *("/".join(g.split("/")[:n]) for g in groups for n in range(1, g.count("/") + 1))}
    for path in sorted((g.strip("/") for g in tree.groups), key=lambda path: -path.count("/")):
        if path not in wanted:
            parent, _, name = path.rpartition("/")
            del (tree[parent] if parent else tree)[name]
    for path in groups:
        dataset = tree[path].to_dataset(inherit=False)
        kept = {a.name for a in selection.arrays if a.group == path}
        tree[path].dataset = dataset.drop_vars([name for name in dataset.variables if name not in kept])


def keep_nodata(tree: Any) -> None:  # noqa: ANN401  # idem
    """Removes the packed fill value from reflectance, which is decoded: nodata is NaN there already.

    With it, the converter masks 0 (a valid reflectance) in what it coarsens, and then fills NaN with 0.0: the nodata of every
    injected band, b08 above all, became valid pixels at every overview level (84,392 of them in a tile of 2196 x 2196).
    """
    for path in [g.strip("/") for g in tree.groups]:
        if path.startswith(f"{REFLECTANCE}/"):
            dataset = tree[path].to_dataset(inherit=False)
            for name in dataset.data_vars:
                dataset[name].attrs.pop("fill_value", None)
                dataset[name].encoding.pop("_FillValue", None)
            tree[path].dataset = dataset


def forget_filters(tree: Any) -> None:  # noqa: ANN401  # idem
    """Removes the filters that the source's chunks were stored with; the values do not depend on them."""
    for path in [g.strip("/") for g in tree.groups]:
        dataset = tree[path].to_dataset(inherit=False) if path else None
        filtered = [v for v in dataset.variables.values() if v.encoding.get("filters")] if dataset is not None else []
        for variable in filtered:
            variable.encoding.pop("filters")
        if filtered:
            tree[path].dataset = dataset


def trim(folder: Path, selection: Selection) -> None:
    """Takes out of the output what only the scaffold caused, and writes the metadata that depends on it anew."""
    import zarr

    kept = [g.rpartition("/")[2] for g in selection.groups if g.startswith(f"{REFLECTANCE}/")]
    for level in (folder / REFLECTANCE).iterdir():
        if level.is_dir() and level.name not in kept:
            shutil.rmtree(level)
    root = zarr.open_group(str(folder), mode="r+", use_consolidated=False)
    if kept:
        _describe_levels(folder, kept)
        zarr.consolidate_metadata(str(folder / REFLECTANCE), zarr_format=3)
    else:
        shutil.rmtree(folder / REFLECTANCE.partition("/")[0])
        discovery = root.attrs.get("stac_discovery")
        if isinstance(discovery, dict) and isinstance(discovery.get("assets"), dict):
            discovery["assets"].pop("reflectance", None)
            root.attrs["stac_discovery"] = discovery
    zarr.consolidate_metadata(str(folder), zarr_format=3)


def _describe_levels(folder: Path, levels: list[str]) -> None:
    """Rewrites the pyramid's description for the levels that are left, by the converter's own function."""
    import xarray as xr
    import zarr
    from eopf_geozarr.s2_optimization.s2_multiscale import add_multiscales_metadata_to_parent

    group = zarr.open_group(str(folder), mode="r+", path=REFLECTANCE, use_consolidated=False)
    group.attrs.clear()
    group.attrs.put({})
    datasets = {
        level: xr.open_dataset(
            str(folder), engine="zarr", group=f"{REFLECTANCE}/{level}", chunks={}, decode_coords="all", consolidated=False
        )
        for level in levels
    }
    add_multiscales_metadata_to_parent(group, datasets)


def run_converter(converter: Converter, tree: Any, folder: Path, options: Options) -> None:  # noqa: ANN401  # idem
    """Calls the converter, with every option that works, and without those that do not.

    Raises:
        InputError: it does not accept the product.
    """
    try:
        converter.convert_s2_optimized(
            dt_input=tree,
            output_path=str(folder),
            enable_sharding=options.sharding,
            spatial_chunk=options.spatial_chunk,
            compression_level=3,  # what it writes whatever is asked; 3 so that nobody reads another number here
            validate_output=False,  # a stub that always says yes
            keep_scale_offset=False,  # true averages nodata into every overview; see `encoding` for how integers are kept
        )
    except ValueError as error:
        if "not a Sentinel-2 product" in str(error):
            raise InputError(
                "the converter does not accept this product as Sentinel-2: its structure differs from L1C and L2A",
                hint="compare it with a product that converts; run again with --debug to see the converter's own words",
            ) from error
        raise


@contextlib.contextmanager
def _scheduler(options: Options, written: Callable[[], None]) -> Iterator[None]:
    """Dask in threads, as many as the container's CPU limit allows; with a report, the same as a local distributed cluster."""
    import dask
    from dask.callbacks import Callback

    workers = options.workers
    if not options.dask_perf_html:
        # a pool of our own: when a task fails, the others have ended before anybody removes what they write into
        with (
            ThreadPoolExecutor(workers) as pool,
            dask.config.set(scheduler="threads", pool=pool),
            Callback(finish=lambda *_: written()),  # type: ignore[no-untyped-call]  # dask has no types
        ):
            yield
        return
    from distributed import Client, performance_report
    from eopf_geozarr.s2_optimization import s2_multiscale

    s2_multiscale.DISTRIBUTED_AVAILABLE = True  # see `load`: here there is a cluster
    target = Path(options.dask_perf_html)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        Client(processes=False, n_workers=1, threads_per_worker=workers, dashboard_address=None),  # type: ignore[no-untyped-call]  # idem
        performance_report(filename=str(target)),  # type: ignore[no-untyped-call]  # idem
    ):
        yield


def _written(folder: Path, selection: Selection, advance: Callable[[int], None]) -> Callable[[], None]:
    """Returns a callback that reports the arrays of the groups that have appeared in the output since it was called last."""
    waiting = {group: sum(a.group == group for a in selection.arrays) for group in selection.groups}

    def look() -> None:
        there = [group for group in waiting if (folder / group / "zarr.json").exists()]
        if there:
            advance(sum(waiting.pop(group) for group in there))

    return look


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what the converter prints (progress bars), and silences the warnings that are known and harmless."""
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        for message, module in _HARMLESS:
            warnings.filterwarnings("ignore", message=message, module=f"({module}.*|geozarr_runner.*)")
        yield


def _route_structlog() -> None:
    """Sends the converter's own log, warnings and above, through ours, so that every line has item, run and stage."""
    import structlog

    def to_text(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        if str(event.get("event", "")).startswith(_CHATTER):
            raise structlog.DropEvent
        details = " ".join(f"{k}={v}" for k, v in event.items() if k != "event")
        return f"{event.get('event', '')} {details}".strip()

    structlog.configure(
        processors=[to_text],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: logging.getLogger("eopf_geozarr"),
        cache_logger_on_first_use=False,
    )
