"""Packages that the converter's import brings although no run of ours calls them: a third of the time until a run begins.

boto3 and s3fs would reach buckets, but the converter is given folders; `distributed` would be asked for a cluster that there is
not, by eopf-geozarr, xarray and dask, each of which does without it. A run that was given s3:// has s3fs already, and keeps it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

ABSENT: dict[str, ModuleType] = {"boto3": None, "distributed": None}  # type: ignore[dict-item]  # how Python notes that there is none


@contextmanager
def spared(*, distributed: bool) -> Iterator[None]:
    """Has them not imported inside; `distributed` not afterwards either, unless it is wanted."""
    unwanted = {"s3fs": _s3fs(), **ABSENT}
    if distributed:
        del unwanted["distributed"]
    set_aside = {name: module for name, module in unwanted.items() if name not in sys.modules}
    sys.modules.update(set_aside)
    try:
        yield
    finally:
        for name in set_aside.keys() - {"distributed"}:
            del sys.modules[name]


def _s3fs() -> ModuleType:
    """Returns what stands in for s3fs: eopf-geozarr names its class where it says what a function takes."""
    module = ModuleType("s3fs")
    module.S3FileSystem = type("S3FileSystem", (), {})  # type: ignore[attr-defined]  # a module of our own making
    return module
