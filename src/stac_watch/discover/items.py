"""What an item document says: an `Item`, or an `Unreadable` where nothing can be done with it. Pure.

A revision is a short hash of what matters in an item: product href, deprecated, processing versions, checksum; never of the whole
JSON, because on pgstac 0.9 one collection update rewrites every item's JSON. Of the href it takes what names the product: no
signature, and one name for a host that has several.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from stac_watch.catalog.abilities import STAMPS
from stac_watch.model.errors import IdentityError
from stac_watch.model.forms import Form, form_of
from stac_watch.model.hosts import check_href
from stac_watch.model.identity import check_item_id, source_of
from stac_watch.model.item import Item, ItemDocument, Unreadable
from stac_watch.model.product import archive_hrefs, product_hrefs
from stac_watch.model.signatures import unsigned
from stac_watch.model.stamps import parse_stamp

type Hosts = Sequence[Sequence[str]]
_GRID_CODE = re.compile(r"MGRS-(\d{1,2})([A-Z]{3})")


def shown_id(document: ItemDocument) -> str:
    """Returns what names an item where its id cannot: lone surrogates and NUL, which a database cannot store, are spelled out."""
    raw = document.get("id")
    try:
        return repr(raw[:200])[1:-1][:200] if isinstance(raw, str) else repr(raw)[:80]
    except (RecursionError, ValueError):  # a list in lists without end; an integer of thousands of digits
        return f"(an id that is a {type(raw).__name__})"


def read_item(
    document: ItemDocument,
    *,
    collection: str,
    api: str,
    on: Literal["content", "restamp"],
    allowed_hosts: tuple[str, ...],
    same_as: Hosts = (),
) -> Item | Unreadable:
    """Reads one item document as the catalog gave it; `same_as` holds hosts that are one under several names."""
    raw_id, shown = document.get("id"), shown_id(document)
    if not isinstance(raw_id, str):
        return Unreadable(shown, "the item has no id")
    properties = document.get("properties")
    if not isinstance(properties, Mapping):
        return Unreadable(shown, "the item has no properties")
    given = document.get("collection")
    if given not in (None, collection):
        return Unreadable(shown, f"the item belongs to collection {str(given)[:80]!r}, asked was {collection!r}")
    sensing = parse_stamp(properties.get("datetime")) or parse_stamp(properties.get("start_datetime"))
    if sensing is None:
        return Unreadable(shown, "neither datetime nor start_datetime is an RFC 3339 time")
    try:
        item_id = check_item_id(raw_id)
        # built, not taken: a self link names whatever host the catalog believes to have
        item_href = f"{source_of(api, collection)}/items/{item_id}"
        form = form_of(document)
        hrefs = product_hrefs(document, item_href) or (archive_hrefs(document, item_href) if form is Form.ARCHIVE else [])
        href = _allowed(hrefs, allowed_hosts)
        if href is None:
            return Unreadable(item_id, "no asset with an href is a Zarr store")
    except IdentityError as error:
        return Unreadable(shown, error.message)
    updated = next((s for s in (parse_stamp(properties.get(f)) for f in STAMPS) if s), None)
    first, *others = _names(href, same_as)
    code = _GRID_CODE.fullmatch(str(properties.get("grid:code", "")).upper())
    tile = f"T{code[1]:0>2}{code[2]}" if code else ""
    return Item(
        collection=collection,
        item_id=item_id,
        revision=revision_of(document, first, on),
        updated=updated,
        datetime=sensing,
        product_href=href,
        item_href=item_href,
        bbox=_bbox(document.get("bbox")),
        cloud_cover=_number(properties.get("eo:cloud_cover")),
        tile=tile,
        deprecated=properties.get("deprecated") is True,
        form=form,
        trace=trace_of(document, href, on),
        others=frozenset(revision_of(document, name, on) for name in others),
        published=parse_stamp(properties.get("published")),
    )


def _allowed(hrefs: Sequence[str], allowed_hosts: tuple[str, ...]) -> str | None:
    """Returns the first href that may be read; what is wrong with the first of all is raised where none may."""
    wrong: IdentityError | None = None
    for href in hrefs:
        try:
            return check_href(href, allowed_hosts)
        except IdentityError as error:
            wrong = wrong or error
    if wrong is not None:
        raise wrong
    return None


def revision_of(document: ItemDocument, href: str, on: str) -> str:
    """Returns the revision that an item has, or had while its product lay at `href`."""
    properties = document.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    software = properties.get("processing:software")
    parts = [
        unsigned(href),
        str(properties.get("deprecated") is True),
        str(properties.get("processing:version", "")),
        repr(sorted(software.items())) if isinstance(software, Mapping) else "",
        checksum_of(document),
        str(properties.get("updated", "")) if on == "restamp" else "",
    ]
    return hashlib.blake2b("\x1f".join(parts).encode(errors="backslashreplace"), digest_size=8).hexdigest()


def trace_of(document: ItemDocument, href: str, on: str) -> str:
    """Returns the revision as it would be on any host."""
    return revision_of(document, _place(href), on)


def checksum_of(document: ItemDocument) -> str:
    """Returns what the item says of its product's bytes, nothing where it does not."""
    assets = document.get("assets")
    product = assets.get("product") if isinstance(assets, Mapping) else None
    return str(product.get("file:checksum", "")) if isinstance(product, Mapping) else ""


def host_of(href: str) -> str:
    """Returns host and port of a URL, or the bucket."""
    return _split(href).netloc


def _place(href: str) -> str:
    """Returns what an href has besides scheme, host and port, however many slashes it is spelled with."""
    path, mark, query = unsigned(href).partition("?")
    if "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    if "//" in path:
        path = re.sub(r"/{2,}", "/", path)
    return path.rstrip("/") + mark + query


def _names(href: str, same_as: Hosts) -> list[str]:
    """Returns the href under the first name of its host, then under all the others, schemes included."""
    if not same_as:
        return [href]
    parts = _split(href)
    group = next((g for g in same_as if {parts.netloc.lower(), (parts.hostname or "").lower()} & {n.lower() for n in g}), None)
    if group is None:
        return [href]
    schemes = dict.fromkeys(("https", "http", parts.scheme))
    ports = dict.fromkeys(("", f":{port}" if (port := parts.netloc.rpartition(":")[2]).isdigit() else ""))
    names = [parts._replace(scheme=s, netloc=name + port).geturl() for name in group for port in ports for s in schemes]
    return list(dict.fromkeys((*names, href)))


def _split(href: str) -> SplitResult:
    try:
        return urlsplit(href)
    except ValueError:  # a bracket that opens an IPv6 address and does not close it
        return SplitResult("", "", href, "", "")


def _bbox(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) not in (4, 6):
        return ()
    numbers = [n for n in (_number(v) for v in value) if n is not None]
    if len(numbers) != len(value):
        return ()
    return (*numbers[:2], *numbers[len(numbers) // 2 :][:2])


def _number(value: object) -> float | None:
    """Returns a finite number; JSON as Python reads it also holds NaN, Infinity and integers of any length."""
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
