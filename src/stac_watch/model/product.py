"""The Zarr product that a STAC item points to, and which acquisition it is of. Pure; the same rule in both programs."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from stac_watch.model.identity import parse_product_id

_MEDIA_TYPE = re.compile(r"application/vnd[.+]zarr", re.IGNORECASE)
_ROOT = re.compile(r".*?\.zarr(?=/|$)")
_ARCHIVES = (".zip", ".tar", ".gz")


def acquisition(item_id: str) -> tuple[str, str] | None:
    """Splits a Sentinel-2 product's id into what was acquired and which processing of it this is; None for other ids.

    Reprocessing gives the same datatake and tile a new id: baseline N0511 became N0512 and N0513, and each run of a processor has
    its own generation time. Both parts compare as text: `("S2A L2A 20251008T100041 R122 T32TQM", "0511 20251008T122613")`.
    """
    parts = parse_product_id(item_id)
    if parts is None:
        return None
    what = (parts["platform"], parts["level"], parts["sensing"], f"R{parts['orbit']}", parts["tile"])
    return " ".join(what), f"{parts['baseline']} {parts['generation']}"


def product_href(document: Mapping[str, Any]) -> str | None:
    """Returns the root of the Zarr store that an item points to; None when it points to none.

    1. The asset `product`, if it is a Zarr: by its media type, or by its name. (It may as well be a zip, with the Zarr beside it.)
    2. Assets of a Zarr media type lead to groups or single bands of a store: its root is what ends in `.zarr`. Of several roots the
       shortest: what lies beside a product is called like it, and longer.
    3. Where no path has `.zarr` in it: the folder that these assets have in common.
    """
    assets = document.get("assets")
    if not isinstance(assets, Mapping):
        return None
    found = {name: asset for name, asset in assets.items() if isinstance(asset, Mapping) and isinstance(asset.get("href"), str)}
    product = found.get("product")
    if product is not None and (_is_zarr(product) or product["href"].partition("?")[0].rstrip("/").endswith(".zarr")):
        return str(product["href"]).rstrip("/")
    hrefs = sorted({asset["href"].rstrip("/") for asset in found.values() if _is_zarr(asset)})
    roots = [root[0] for root in map(_ROOT.match, hrefs) if root]
    return min(roots, key=lambda root: (len(root), root)) if roots else _common([h for h in hrefs if not h.endswith(_ARCHIVES)])


def _is_zarr(asset: Mapping[str, Any]) -> bool:
    """Tells it by the media type, of which one real item has both spellings."""
    return _MEDIA_TYPE.match(str(asset.get("type", ""))) is not None


def _common(hrefs: Sequence[str]) -> str | None:
    """Returns the folder that hrefs of one host lie in; the only one as it is."""
    try:
        parts = [urlsplit(href) for href in hrefs]
        path = posixpath.commonpath([part.path for part in parts])
    except ValueError:  # none, no URL, or paths seen from two places
        return None
    places = {(part.scheme, part.netloc) for part in parts}
    return urlunsplit((*places.pop(), path, "", "")) if len(places) == 1 and path.strip("/") else None
