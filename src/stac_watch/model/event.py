"""Identity: the key, the run's name, and the CloudEvent of one attempt. Built here and parsed here, nowhere else.

In: what discovery knows of an item revision. Out: strings that are safe as names of Workflows, labels, files and URLs, and
the event's bytes as they are stored, posted and replayed.
Never: I/O, randomness, the clock; the same input gives the same bytes.

Sources: CloudEvents 1.0.2 (structured mode); RFC 1123 names; OGC API - Features event types as eoapi-notifier emits them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

from cloudevents.core.bindings.http import HTTPMessage, from_structured_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from stac_watch.model.errors import IdentityError, InputError

CONTENT_TYPE = "application/cloudevents+json"
DATA_SCHEMA = "urn:stac-watch:conversion:1"
TYPE_PREFIX = "org.ogc.api.collection.item."
MAX_EVENT_BYTES = 16 * 1024  # Argo Events inflates by 4/3 before a 1 MB bus limit; far below it there is nothing to think about
MAX_HREF = 2048  # it stands in the event twice
MAX_NAME = 57  # a Workflow's name may have 63, and `argo resubmit` adds up to 6

ITEM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
COLLECTION = ITEM_ID
TILE = re.compile(r"T\d{2}[A-Z]{3}")
RUN = re.compile(r"gz-[a-z0-9-]{1,54}")
NOT_OF_A_URL = re.compile(r"[^!-~]|[{}<>\"'`\\|^$]")  # not visible ASCII; quotes, braces and others that no URL needs
HOST = re.compile(r"[A-Za-z0-9._-]*|[0-9A-Fa-f:.]+")  # what parsers of URLs agree on; no zone, no escape
METADATA_SERVICES = frozenset({"100.100.100.200", "168.63.129.16", "fd00:ec2::254"})
"""Where clouds hand out a machine's credentials outside 169.254.0.0/16 and fe80::/10: Alibaba, Azure, AWS."""
INSIDE = (".svc", ".cluster.local", ".internal", ".local", ".localhost")  # names that the public DNS does not have
MAPPED = (
    "run", "key", "lane", "reason", "collection", "item_id", "item_href", "product_href", "revision", "datetime", "tile",
    "stac_url", "output_zarr", "groups",
)  # fmt: skip
LATER = ("source_name",)
"""Mapped, too; events that were stored before it was there lack it, and the Sensor has a value for them."""
_PRODUCT_ID = re.compile(
    r"(?P<platform>S2[A-Z])_MSI(?P<level>L1C|L2A)_(?P<sensing>\d{8}T\d{6})_N(?P<baseline>\d{4})_R(?P<orbit>\d{3})"
    r"_(?P<tile>T\d{2}[A-Z]{3})_(?P<generation>\d{8}T\d{6})"
)

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Kind = Literal["create", "replace", "delete"]
Lane = Literal["live", "backfill", "replay"]
PRIORITY: dict[Lane, int] = {"live": 0, "backfill": -10, "replay": 10}


@dataclass(frozen=True)
class Conversion:
    """What one event asks for. Strings only where the Sensor maps them; `priority` is the one number it maps."""

    catalog: str  # the catalogue's root URL, without a trailing slash
    collection: str
    item_id: str
    revision: str
    recipe: str  # digest of what the recipe asks of the converter
    kind: Kind
    reason: str  # new | updated | backfill | replay | retry
    lane: Lane
    time: datetime  # the item's own change stamp, aware
    datetime: datetime  # sensing time, aware
    item_href: str
    product_href: str
    output_zarr: str
    groups: str = ""
    bbox: tuple[float, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    source_name: str = ""  # the source's name in the configuration

    @property
    def key(self) -> str:
        """First 12 hex of a SHA-256 over catalogue root, collection, item id, revision and recipe."""
        return conversion_key(self.catalog, self.collection, self.item_id, self.revision, self.recipe)

    @property
    def tile(self) -> str:
        """MGRS tile as in the product's id (`T32TQM`), empty when the id has none."""
        return tile_of(self.item_id)


def conversion_key(catalog: str, collection: str, item_id: str, revision: str, recipe: str) -> str:
    """Returns the key: equal for equal work, different for different work."""
    parts = (catalog.rstrip("/"), collection, item_id, revision, recipe)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12]


def tile_of(item_id: str) -> str:
    """Returns `T32TQM` from a Sentinel-2 product id, or an empty string."""
    return next((part for part in item_id.split("_") if TILE.fullmatch(part)), "")


def parse_product_id(item_id: str) -> dict[str, str] | None:
    """Splits `S2A_MSIL2A_…` into platform, level, sensing, baseline, orbit, tile, generation; None for other ids."""
    match = _PRODUCT_ID.match(item_id)
    return match.groupdict() if match else None


def run_name(conversion: Conversion, attempt: int) -> str:
    """Returns the run's deterministic name, DNS-1123, at most 57 characters.

    The same event always names the same run: that, and not the bus, is what makes a second delivery harmless.
    """
    if attempt < 1:
        raise IdentityError(f"attempt {attempt} is not a positive number")
    where = (conversion.tile or _slug(conversion.item_id, 20)).lower()
    when = conversion.datetime.astimezone(UTC).strftime("%Y%m%dt%H%M%S")
    name = f"gz-{where}-{when}-{conversion.key[:10]}-{attempt}"
    if len(name) > MAX_NAME:
        raise IdentityError(f"run name {name!r} has {len(name)} characters, more than {MAX_NAME}")
    return name


def event_id(key: str, attempt: int) -> str:
    """Returns the CloudEvent's id, unique together with its source."""
    return f"{key}-{attempt}"


def parse_event_id(value: str) -> tuple[str, int]:
    """Splits an event id into key and attempt.

    Raises:
        IdentityError: it is not `<12 hex>-<number>`.
    """
    match = re.fullmatch(r"([0-9a-f]{12})-([1-9]\d*)", value)
    if not match:
        raise IdentityError(f"event id {value!r} is not <key>-<attempt>", hint="print a right one with `stac-watch event ITEM`")
    return match[1], int(match[2])


def source_of(catalog: str, collection: str) -> str:
    """Returns the CloudEvent's source, also the collection's URL."""
    return f"{catalog.rstrip('/')}/collections/{collection}"


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


def check_href(value: str, allowed_hosts: tuple[str, ...] = ()) -> str:
    """Returns `value` when it is a plain http(s), s3 or (with no host list) file URL or path to an allowed host.

    Raises:
        IdentityError: another scheme, credentials in the URL, template braces, white space, or a host that is not allowed.
    """
    if len(value) > MAX_HREF:
        raise IdentityError(f"href {value[:60]!r}... is too long: {len(value)} characters", hint=f"{MAX_HREF} are allowed")
    if NOT_OF_A_URL.search(value):
        raise IdentityError(f"href {value[:120]!r} holds characters that a URL must not have")
    try:
        parts = urlsplit(value)
    except ValueError as error:  # a bracket that opens an IPv6 address and does not close it
        raise IdentityError(f"href {value[:120]!r} is not a URL: {error}") from None
    if parts.username or parts.password:
        raise IdentityError(
            f"href of host {parts.hostname!r} carries credentials", hint="credentials come from the environment only"
        )
    _check_target(value, parts.scheme, parts.hostname or "", allowed_hosts)
    return value


def _check_target(href: str, scheme: str, host: str, allowed_hosts: tuple[str, ...]) -> None:
    shown = repr(href[:120])
    if not HOST.fullmatch(host):
        raise IdentityError(f"host {host[:80]!r} of an href is not a host's name")
    if scheme not in ("http", "https", "s3") and (allowed_hosts or scheme not in ("file", "")):
        also = "" if allowed_hosts else ", file"
        raise IdentityError(f"href {shown} has scheme {scheme!r}", hint=f"allowed are http, https, s3{also}")
    if allowed_hosts and not _host_allowed(host, allowed_hosts):
        raise IdentityError(
            f"host {host!r} of href {shown} is not allowed", hint="add it to the source's allowed_hosts if it is right"
        )
    if (literal := _address(host)) is not None and _forbidden(literal):
        raise IdentityError(f"host {host!r} of href {shown} is an address that nobody may be sent to")


def check_address(host: str, address: str, allowed_hosts: tuple[str, ...]) -> None:
    """Returns when a connection to `host` may go to `address`, which its name led to. Called with what is really connected to.

    Link-local, multicast and metadata addresses are refused always. Private ones (loopback too) are refused unless an entry of
    `allowed_hosts` says so: a network that holds the address (`10.0.0.0/8`), the address itself, or a name that only exists
    inside (`localhost`, `catalog.demo.svc`). A public name that suddenly leads to a private address is an attack, or a mistake.

    Raises:
        IdentityError: it may not.
    """
    host, found = host.strip("[]").lower(), _address(address)
    if found is None or _forbidden(found):
        raise IdentityError(f"host {host!r} leads to {address}, which nobody may be sent to")
    public = found.is_global and not (isinstance(found, ipaddress.IPv6Address) and found.is_site_local)
    if public or _in_networks(found, allowed_hosts) or (is_inside(host) and _host_allowed(host, allowed_hosts)):
        return
    raise IdentityError(
        f"host {host!r} leads to {address}, a private address",
        hint=f"if that is right, add its network to allowed_hosts, for example {found}/{found.max_prefixlen}",
    )


def is_inside(host: str) -> bool:
    """Tells whether a host's name says itself that it is not public: an address, or a name that the public DNS does not have."""
    return _address(host) is not None or "." not in host or host.endswith(INSIDE)


def build_event(conversion: Conversion, attempt: int) -> bytes:
    """Returns the event's bytes in CloudEvents structured JSON mode, as stored in the ledger and posted.

    Raises:
        IdentityError: an id that cannot become a name.
        InputError: the event would exceed 16 KiB.
    """
    check_item_id(conversion.item_id)
    check_item_id(conversion.collection)
    c = conversion
    data: dict[str, Any] = {
        "run": run_name(c, attempt), "key": c.key, "attempt": attempt, "lane": c.lane, "priority": PRIORITY[c.lane],
        "reason": c.reason, "source_name": c.source_name, "collection": c.collection, "item_id": c.item_id,
        "item_href": c.item_href,
        "product_href": c.product_href, "revision": c.revision, "datetime": stamp(c.datetime), "tile": c.tile,
        "bbox": list(c.bbox), "stac_url": c.product_href, "output_zarr": c.output_zarr, "groups": c.groups,
        "options": dict(sorted(c.options.items())),
    }  # fmt: skip
    event = CloudEvent(
        attributes={
            "specversion": "1.0", "id": event_id(c.key, attempt), "type": TYPE_PREFIX + c.kind,
            "source": source_of(c.catalog, c.collection), "subject": c.item_id, "time": c.time.astimezone(UTC),
            "datacontenttype": "application/json", "dataschema": DATA_SCHEMA,
        },
        data=data,
    )  # fmt: skip
    body = bytes(to_structured_event(event).body)
    if len(body) > MAX_EVENT_BYTES:
        raise InputError(f"the event of item {c.item_id!r} has {len(body)} bytes, more than {MAX_EVENT_BYTES}")
    return body


def next_attempt(body: bytes, attempt: int, *, reason: str, lane: Lane | None = None, overwrite: bool = False) -> tuple[bytes, str]:
    """Returns the event of a later attempt of the same key, and its run's name; all else stays as it was first decided.

    With `overwrite` the run converts again although an output with the key is there; so do the attempts after it.
    """
    document = json.loads(body)
    data = document["data"]
    run = f"{data['run'].rpartition('-')[0]}-{attempt}"
    data |= {"run": run, "attempt": attempt, "reason": reason}
    if lane is not None:
        data |= {"lane": lane, "priority": PRIORITY[lane]}
    if overwrite:
        data["options"] = {**data.get("options", {}), "overwrite": "true"}
    document |= {"id": event_id(data["key"], attempt), "data": data}
    return json.dumps(document).encode(), run


def parse_event(body: bytes) -> dict[str, Any]:
    """Returns the event's attributes and, under `data`, its data.

    Raises:
        InputError: not a CloudEvent of ours in structured JSON mode.
    """
    hint = "events are printed by `stac-watch event ITEM`"
    try:
        event = from_structured_event(HTTPMessage(headers={"content-type": CONTENT_TYPE}, body=body))
    except Exception as error:  # the SDK raises ValueError, KeyError, TypeError and its own, undocumented
        raise InputError(f"not a CloudEvent: {error}", hint=hint) from error
    data = event.get_data()
    if not isinstance(data, dict) or event.get_attributes().get("dataschema") != DATA_SCHEMA:
        raise InputError(f"not an event of schema {DATA_SCHEMA}", hint=hint)
    document = json.loads(body)
    if document.get("specversion") != "1.0":  # the SDK fills it in where it is missing
        raise InputError("not a CloudEvent of specversion 1.0", hint=hint)
    missing = sorted({*MAPPED, "attempt"} - data.keys())
    if missing:
        raise InputError(f"the event's data lacks {', '.join(missing)}", hint=hint)
    options = data.get("options", {})
    wrong = [name for name in (*MAPPED, *LATER) if not isinstance(data.get(name, ""), str)]
    if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
        wrong.append("the values of options")
    if wrong:
        raise InputError(f"in the event's data {', '.join(wrong)} must be text", hint=hint)
    check_item_id(data["item_id"])
    key, attempt = parse_event_id(str(event.get_id()))
    # the run's name becomes a folder or a Workflow: whoever wrote the event, it is the one that its id says
    named = RUN.fullmatch(data["run"]) and data["run"].endswith(f"-{key[:10]}-{attempt}")
    if not named or (data["key"], data["attempt"]) != (key, attempt):
        raise IdentityError(f"run {data['run'][:80]!r} is not the one of event {event.get_id()!r}", hint=hint)
    return {**document, "data": data}


def stamp(value: datetime) -> str:
    """Returns an RFC 3339 time in UTC with `Z`, microseconds only where there are any."""
    text = value.astimezone(UTC).isoformat(timespec="microseconds" if value.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def parse_stamp(value: object) -> datetime | None:
    """Returns an aware datetime for an RFC 3339 string (catalogues mix `…13Z`, `….734678Z` and `+00:00`), else None."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):  # overflow: year 1 or 9999 with an offset that leads out of the calendar
        return None


def _slug(text: str, length: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:length].strip("-") or "item"


def _host_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    literal = _address(host)
    if literal is not None and _in_networks(literal, allowed):
        return True
    return any(host.lower() == a or (a.startswith("*.") and host.endswith(a[1:])) for a in (h.lower() for h in allowed))


def _in_networks(address: Address, allowed: tuple[str, ...]) -> bool:
    return any(address in ipaddress.ip_network(entry, strict=False) for entry in allowed if "/" in entry)


@lru_cache(1024)  # each item names a host, of a few; to find out that a name is no address takes an exception
def _address(text: str) -> Address | None:
    """Returns the address that a text is, an IPv4 one also where it is wrapped in IPv6 (mapped, NAT64, 6to4), else None."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(address.packed[-4:])
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _forbidden(address: Address) -> bool:
    special = address.is_link_local or address.is_multicast or address.is_unspecified or str(address) in METADATA_SERVICES
    return special or (address.is_reserved and not address.is_loopback)  # ::1 is reserved, too
