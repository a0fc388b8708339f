"""Names: of conversions, events and collections, and what the id of a Sentinel-2 product is made of. Pure."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from urllib.parse import quote

from stac_watch.model.errors import IdentityError

ITEM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_COLLECTION = re.compile(r"[^{}]{1,256}")  # it is in every URL of an event; braces are those of templates
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
TILE = re.compile(r"T\d{2}[A-Z]{3}")
_PRODUCT_ID = re.compile(
    r"(?P<platform>S2[A-Z])_MSI(?P<level>L1C|L2A)_(?P<sensing>\d{8}T\d{6})_N(?P<baseline>\d{4})_R(?P<orbit>\d{3})"
    r"_(?P<tile>T\d{2}[A-Z]{3})_(?P<generation>\d{8}T\d{6})"
)


KEY_DIGITS, NAME_DIGITS = 20, 16
"""Hex digits of a key, and of those the ones in its runs' names: 80 and 64 bits, so that nobody finds a second one by trying."""
FORMER = {12: 10}  # digits of keys before schema 5, and of those in their runs' names: what has such a key keeps it
_KEY = "|".join(f"[0-9a-f]{{{digits}}}" for digits in (KEY_DIGITS, *FORMER))


def conversion_key(catalog: str, collection: str, item_id: str, revision: str, recipe: str) -> str:
    """Returns the key: equal for equal work, different for different work."""
    parts = (catalog.rstrip("/"), collection, item_id, revision, recipe)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:KEY_DIGITS]


def key_in_name(key: str) -> str:
    """Returns what the names of a key's runs hold of it."""
    return key[: FORMER.get(len(key), NAME_DIGITS)]


def tile_of(item_id: str) -> str:
    """Returns `T32TQM` from a Sentinel-2 product id, or an empty string."""
    return next((part for part in item_id.split("_") if TILE.fullmatch(part)), "")


def tile_name(value: str) -> str:
    """Returns an MGRS tile as products are called after it, `T32TQM`, from that, `32TQM`, `MGRS-32TQM`, in any case."""
    match = re.fullmatch(r"(?:MGRS-|T)?(\d{1,2})([C-HJ-NP-X][A-HJ-NP-Z]{2})", value.strip().upper())
    if not match or not 1 <= int(match[1]) <= 60:
        raise ValueError(
            f"{value!r} is no MGRS tile; write it as T32TQM: zone 01 to 60, a band C to X, two letters, none of them I or O"
        )
    return f"T{int(match[1]):02}{match[2]}"


def parse_product_id(item_id: str) -> dict[str, str] | None:
    """Splits `S2A_MSIL2A_…` into platform, level, sensing, baseline, orbit, tile, generation; None for other ids."""
    match = _PRODUCT_ID.match(item_id)
    return match.groupdict() if match else None


def title_of(item_id: str, sensed: datetime) -> str:
    """Returns what people look for in a list, first what differs: `T32TQM 8 Oct 10:00 · S2A L2A N0511`; other ids as they are."""
    parts = parse_product_id(item_id)
    if parts is None:
        return item_id
    when = sensed.astimezone(UTC)
    return f"{parts['tile']} {when.day} {when:%b %H:%M} · {parts['platform']} {parts['level']} N{parts['baseline']}"


def event_id(key: str, attempt: int) -> str:
    """Returns the CloudEvent's id, unique together with its source."""
    return f"{key}-{attempt}"


def read_attempt(text: str) -> int:
    """Returns the attempt that a label or an argument names, 0 where it is none that can be: nobody's numbers go on from it."""
    return int(text) if re.fullmatch(r"[1-9]\d{0,4}", text, re.ASCII) else 0


def parse_event_id(value: str) -> tuple[str, int]:
    """Splits an event id into key and attempt.

    Raises:
        IdentityError: it is not `<20 hex>-<number up to 99999>`; 12 hex digits are a key of an earlier version.
    """
    match = re.fullmatch(rf"({_KEY})-([1-9]\d{{0,4}})", value, re.ASCII)
    if not match:
        raise IdentityError(f"event id {value!r} is not <key>-<attempt>", hint="print a right one with `stac-watch event ITEM`")
    return match[1], int(match[2])


def source_of(catalog: str, collection: str) -> str:
    """Returns the CloudEvent's source, also the collection's URL."""
    return f"{catalog.rstrip('/')}/collections/{quote(collection, safe='')}"


def check_collection(value: str) -> str:
    """Returns `value` when it may be a collection's id: STAC and OGC API leave it nearly free (`urn:eop:VITO:S2`, `a/b`, `Höhe 1`).

    Raises:
        IdentityError: it is empty, `.` or `..`, longer than 256 characters, or holds what cannot be seen, or braces.
    """
    if value in (".", "..") or value != value.strip() or not _COLLECTION.fullmatch(value) or not value.isprintable():
        raise IdentityError(
            f"collection {value[:80]!r} is not usable as a name",
            hint="visible characters but braces, spaces between them, 256 at most",
        )
    return value


def folder_name(text: str) -> str:
    """Returns what a collection is called in paths: its id, or, where that is no plain name, what is plain of it and a digest."""
    return text if ITEM_ID.fullmatch(text) and ".." not in text else _plain(text, 128)


def label_name(text: str) -> str:
    """Returns what a collection is called in labels of Kubernetes, at most 63 characters."""
    return text if _LABEL.fullmatch(text) else _plain(text, 63)


def _plain(text: str, longest: int) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    stem = re.sub(r"[^A-Za-z0-9._-]+|\.{2,}", "-", text)[: longest - len(digest) - 1].strip("-._")
    return f"{stem or 'collection'}-{digest}"


def check_item_id(value: str) -> str:
    """Returns `value` when it may become part of names, labels and paths.

    Raises:
        IdentityError: it holds anything but letters, digits, `.`, `_`, `-`, or more than 128 characters.
    """
    if not ITEM_ID.fullmatch(value) or ".." in value:
        shown = value if len(value) <= 80 else value[:77] + "..."
        raise IdentityError(
            f"item id {shown!r} is not usable as a name",
            hint="allowed are letters, digits, '.', '_' and '-', 128 at most",
        )
    return value
