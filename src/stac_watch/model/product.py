"""The Zarr product that a STAC item points to, and which acquisition it is of. Pure; the same rule in both programs."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from stac_watch.model.forms import is_archive
from stac_watch.model.identity import parse_product_id

_MEDIA_TYPE = re.compile(r"application/(x-|vnd[.+])?zarr([+.-]?v?\d+)?\s*(;|$)", re.IGNORECASE)
_ROOT = re.compile(r"[^?#]*?\.zarr(?=/|$|[?#])", re.IGNORECASE)
_INSIDE = re.compile(r"([^?#]*)/(?:measurements|quality|conditions)(?=/|$|[?#])")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z")
_SCHEMES = ("", "http", "https", "s3", "file")  # that a product is read by; an alternate takes the place of others
type _Assets = Mapping[str, tuple[str, str]]  # by name: href and media type


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


def is_made_of(source: str, href: str) -> bool:
    """Tells whether an output whose marker names `source` may be of the product at `href`: no doubt where either says nothing.

    Signatures and the spelling of host and path do not count, and what is no store's name (an item's URL) cannot be compared.
    """
    mine, asked = _spelled(source), _spelled(href)
    return mine == asked or not source or not asked[2].endswith(".zarr")


def _spelled(url: str) -> tuple[str, str, str]:
    scheme, sep, rest = url.partition("://")
    if not sep or scheme == "file":
        return "", "", posixpath.normpath(unquote(rest if sep else url))
    host, _, path = rest.partition("?")[0].partition("#")[0].partition("/")
    return scheme.lower(), host.lower(), unquote(path).rstrip("/")


def product_href(document: Mapping[str, Any], base: str = "") -> str | None:
    """Returns the root of the Zarr store that an item points to, the first of `product_hrefs`; None when it points to none."""
    return next(iter(product_hrefs(document, base)), None)


def product_hrefs(document: Mapping[str, Any], base: str = "") -> list[str]:
    """Returns every URL by which an item points to its Zarr store, the one to take first.

    1. The asset `product`, if it is a Zarr: by its media type, or by its name. (It may as well be a zip, with the Zarr beside it.)
    2. Assets of a Zarr media type lead to groups or single bands of a store: its root is what ends in `.zarr`. Of several roots the
       shortest, where the others are called like it, and longer: they lie beside it. Where none has such a type, those without any
       are asked.
    3. Where no path has `.zarr` in it: what lies above `measurements`, `quality` or `conditions`, where any does and it is one;
       else the folder that these assets have in common.

    Alternates (the extension alternate-assets: the same by S3, say) come after what they are alternates of, unless that has a
    scheme by which nothing is read here. An archive is no store, whatever its type says.

    Args:
        document: the item.
        base: the item's own URL, which a relative href is relative to.
    """
    assets = document.get("assets")
    if not isinstance(assets, Mapping):
        return []
    given = {name: asset for name, asset in assets.items() if isinstance(asset, Mapping)}
    kinds = {str(kind) for asset in given.values() if isinstance(a := asset.get("alternate"), Mapping) for kind in a}
    found = [_store(dict(_variant(given, kind))) for kind in ("", *sorted(kinds, key=lambda k: (not k.startswith("http"), k)))]
    hrefs = dict.fromkeys(_absolute(href, base) for href in found if href is not None)
    return sorted(hrefs, key=lambda href: _scheme(href) not in _SCHEMES)


def archive_hrefs(document: Mapping[str, Any], base: str = "") -> list[str]:
    """Returns the URLs of a Zarr in one zip file, for items that point to nothing else; see `model.forms`."""
    assets = document.get("assets")
    found = assets.values() if isinstance(assets, Mapping) else []
    return [_absolute(str(asset["href"]), base) for asset in found if isinstance(asset, Mapping) and is_archive(asset)]


def _variant(assets: Mapping[str, Mapping[str, Any]], kind: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yields the assets as they are, or their alternates of one kind; no archives."""
    for name, asset in assets.items():
        alternates = asset.get("alternate")
        entry = alternates.get(kind) if kind and isinstance(alternates, Mapping) else None if kind else asset
        href = entry.get("href") if isinstance(entry, Mapping) else None
        if isinstance(href, str) and href and not _path(href).lower().endswith(_ARCHIVES):
            given = entry.get("type", asset.get("type")) if isinstance(entry, Mapping) else None
            yield name, (href, given.strip() if isinstance(given, str) else "")


def _store(assets: _Assets) -> str | None:
    product = assets.get("product")
    if product is not None and (_MEDIA_TYPE.match(product[1]) or _path(product[0]).lower().endswith(".zarr")):
        return product[0].rstrip("/")
    hrefs = sorted({href.rstrip("/") for href, kind in assets.values() if _MEDIA_TYPE.match(kind)})
    if not hrefs:
        hrefs = sorted({href for href, kind in assets.values() if not kind and _ROOT.match(href)})
    roots = [f"{root[0]}{_query(href)}" for href in hrefs if (root := _ROOT.match(href))]
    if not roots:
        return _above_members(hrefs)
    shortest = min(roots, key=lambda root: (len(_path(root)), root))
    stem = _path(shortest).removesuffix(".zarr")
    return shortest if all(root.startswith(stem) for root in roots) else None  # strangers: nobody knows which one is meant


def _absolute(href: str, base: str) -> str:
    if re.search(r"[\t\r\n]", href):  # `urljoin` would drop them; whoever opens it refuses them
        return href
    try:
        return urljoin(base, href)
    except ValueError:  # no URL: whoever opens it says so
        return href


def _path(href: str) -> str:
    return re.split(r"[?#]", href, maxsplit=1)[0].rstrip("/")


def _query(href: str) -> str:
    return "".join(href.partition("?")[1:]).partition("#")[0]


def _scheme(href: str) -> str:
    return href.partition("://")[0].lower() if "://" in href else ""


def _above_members(hrefs: Sequence[str]) -> str | None:
    inside = [f"{found[1]}{_query(href)}" for href in hrefs if (found := _INSIDE.match(href))]
    if not inside:
        return _common(hrefs)
    root = max(inside, key=lambda href: len(_path(href)))  # above the store may be a folder called like a group of it
    return root if all(f"{_path(href)}/".startswith(f"{_path(root)}/") for href in hrefs) else None


def _common(hrefs: Sequence[str]) -> str | None:
    """Returns the folder that hrefs of one host lie in; the only one as it is."""
    try:
        parts = [urlsplit(href) for href in hrefs]
        path = posixpath.commonpath([part.path for part in parts])
    except ValueError:  # none, no URL, or paths seen from two places
        return None
    places = {(part.scheme, part.netloc) for part in parts}
    return urlunsplit((*places.pop(), path, "", "")) if len(places) == 1 and path.strip("/") else None
