"""What one run is asked to do: identity, recipe, places, patience."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from stac_watch.model.forms import ENCODING, Encoding


@dataclass(frozen=True)
class Service:
    """Where an S3 client sends its requests, whichever of arguments, environment and configuration files said so."""

    endpoint: str
    region: str = ""


@dataclass(frozen=True)
class Identity:
    """Who this run is; the event's words."""

    key: str
    revision: str = ""
    run: str = ""
    attempt: int = 1
    item_id: str = ""
    fence: str = ""  # orders the item's revisions; empty = not known
    installation: str = ""  # whose run it is; empty = nobody's, it was started by hand


@dataclass(frozen=True)
class RunRecipe:
    """What is asked of the converter and the packer."""

    groups: str = ""
    spatial_chunk: int = 1024
    sharding: bool = False
    encoding: Encoding = ENCODING
    package: str = "none"
    dask_perf_html: str = ""
    native: str = "mirror"  # mirror, convert or reference: what is done with a store that is finished GeoZarr already
    engine: str = "auto"  # auto, fast or stock; not part of the key: both write the same values

    @property
    def compact(self) -> bool:
        """Says whether an output takes no more than its source, at any moment: the stock engine writes floats before integers."""
        return self.encoding is Encoding.PACKED and self.engine != "stock" and not self.dask_perf_html


class Offer(Protocol):
    """Takes an object under its name in the output, and where it lies now, or a little later."""

    def __call__(self, name: str, *places: Path, crc: int | None = None) -> None:
        """Takes it, with its CRC32C where that is known; what comes of it is told at the end."""


@dataclass(frozen=True)
class Request:
    """Everything one run needs to know."""

    identity: Identity
    stac_url: str
    output_zarr: str
    recipe: RunRecipe = field(default_factory=RunRecipe)
    overwrite: bool = False
    allow_empty: bool = False  # a person takes missing chunks for nodata
    work: Path | None = None  # default: beside the output; for s3://, in the current folder
    allowed_hosts: tuple[str, ...] = ()
    attempts: int = 5  # per object
    timeout: float = 60.0  # seconds of silence on a connection
    memory_limit: str = ""  # e.g. 2Gi; default: the container's
    scratch: int = 0  # bytes of room in a folder that goes with its pod; 0 = it is none
    service: Service | None = None  # of an object store, as its client found it; for the item
    offer: Offer | None = field(default=None, repr=False)  # takes what of the output is written for good, before the rest is


def is_store(stac_url: str) -> bool:
    """Tells a store's URL from an item's, by its name."""
    return urlsplit(stac_url).path.rstrip("/").endswith(".zarr")
