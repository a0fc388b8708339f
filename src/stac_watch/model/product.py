"""The Zarr product that a STAC item points to, and which acquisition it is of. Pure; the same rule in both programs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stac_watch.model.identity import parse_product_id

ZARR_MEDIA_TYPE = re.compile(r"application/vnd[.+]zarr")
ROOT = re.compile(r".*?\.zarr(?=/|$)")


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


def product_href(document: Mapping[str, object]) -> str | None:
    """Returns the Zarr root: the asset `product`, else the shortest root of a store that an asset of a Zarr media type lies in.

    The media type is inconsistent within one real item: `application/vnd.zarr` and `application/vnd+zarr`.
    """
    assets = document.get("assets")
    if not isinstance(assets, Mapping):
        return None
    hrefs: dict[str, str] = {
        name: asset["href"] for name, asset in assets.items() if isinstance(asset, Mapping) and isinstance(asset.get("href"), str)
    }
    if "product" in hrefs:
        return hrefs["product"].rstrip("/")
    # assets of single bands or groups lead to their store's root: …/X.zarr/measurements/reflectance/r10m -> …/X.zarr
    zarr = [ROOT.match(h) for name, h in hrefs.items() if ZARR_MEDIA_TYPE.match(str(assets[name].get("type", "")))]
    return min((m[0] for m in zarr if m), key=lambda h: (len(h), h), default=None)
