"""The CloudEvent of one attempt, and the name of its run. Built here and parsed here, nowhere else.

The strings are safe as names of Workflows, labels, files and URLs; the bytes are what is stored, posted and replayed. The same
input always gives the same bytes.

Sources: CloudEvents 1.0.2 (structured mode); RFC 1123 names; OGC API - Features event types as eoapi-notifier emits them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from stac_watch.model.errors import IdentityError, InputError
from stac_watch.model.identity import (
    check_collection,
    check_item_id,
    conversion_key,
    event_id,
    key_in_name,
    label_name,
    parse_event_id,
    source_of,
    tile_of,
    title_of,
)
from stac_watch.model.stamps import ordered_stamp, parse_stamp, stamp

CONTENT_TYPE = "application/cloudevents+json"
DATA_SCHEMA = "urn:stac-watch:conversion:1"
TYPE_PREFIX = "org.ogc.api.collection.item."
MAX_EVENT_BYTES = 16 * 1024  # Argo Events inflates by 4/3 before a 1 MB bus limit; far below it there is nothing to think about
MAX_TEXT = 4096  # bytes of one value; hrefs have half of it
MAX_NAME = 57  # a Workflow's name may have 63, and `argo resubmit` adds up to 6

RUN = re.compile(r"gz-[a-z0-9-]{1,54}")
MAPPED = (
    "run", "key", "lane", "reason", "collection", "item_id", "item_href", "product_href", "revision", "datetime", "tile",
    "stac_url", "output_zarr", "groups",
)  # fmt: skip
LATER = {
    "source_name": "unknown",
    "fence": "",
    "installation": "",
    "allowed_hosts": "",
    "form": "",
    "collection_label": "",
    "title": "",
}
"""Mapped, too. Events that were stored before these fields existed lack them; the Sensor has these defaults for them."""
OPTIONS = ("spatial_chunk", "sharding", "encoding", "native", "package", "overwrite", "allow_empty", "dask_perf_html")
"""What an event may ask of the converter, under `options`: the Sensor and the local engine pass on these and no others."""
OLDER_OPTIONS = {"sharding": "false", "encoding": "stock", "native": "mirror"}
"""What events that were stored before these options existed ask for."""
_SLUG = 14  # characters of an item id that is no Sentinel-2 product's: it leaves six digits to the attempt


Kind = Literal["create", "replace", "delete"]
Lane = Literal["live", "backfill", "replay"]
PRIORITY: dict[Lane, int] = {"live": 0, "backfill": -10, "replay": 10}


@dataclass(frozen=True)
class Conversion:
    """What one event asks for. Strings only where the Sensor maps them; `priority` is the one number it maps."""

    catalog: str  # the catalog's root URL, without a trailing slash
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
    fence: str = ""  # orders the revisions of an item, see `fence_of`; empty = not known
    installation: str = ""  # whose conversion it is
    form: str = ""  # of the product, as the item announces it; the runner looks for itself
    allowed_hosts: str = ""  # that the run may fetch from, comma-separated: those of the item's own source

    @property
    def key(self) -> str:
        """First 20 hex digits of a SHA-256 over catalog root, collection, item id, revision and recipe."""
        return conversion_key(self.catalog, self.collection, self.item_id, self.revision, self.recipe)

    @property
    def tile(self) -> str:
        """MGRS tile as in the product's id (`T32TQM`), empty when the id has none."""
        return tile_of(self.item_id)


def fence_of(updated: datetime | None, now: datetime, before: str = "") -> str:
    """Returns the fence of a revision: a later one sorts behind an earlier one.

    It is when the catalog says that the item changed; where it says nothing, or what has not happened yet, when it was seen.

    Args:
        updated: the item's own change stamp, aware.
        now: when it is seen.
        before: the fence of the revision that it follows, behind which it is put in any case.
    """
    fence = ordered_stamp(min(updated, now) if updated is not None else now)
    last = parse_stamp(before)
    return fence if last is None or fence > before else ordered_stamp(last + timedelta(microseconds=1))


def run_name(conversion: Conversion, attempt: int) -> str:
    """Returns the run's deterministic name, DNS-1123, at most 57 characters.

    The same event always names the same run: that, and not the bus, is what makes a second delivery harmless.
    """
    if attempt < 1:
        raise IdentityError(f"attempt {attempt} is not a positive number")
    where = (conversion.tile or _slug(conversion.item_id, _SLUG)).lower()
    when = conversion.datetime.astimezone(UTC).strftime("%Y%m%dt%H%M%S")
    name = f"gz-{where}-{when}-{key_in_name(conversion.key)}-{attempt}"
    if len(name) > MAX_NAME:
        raise IdentityError(f"run name {name!r} has {len(name)} characters, more than {MAX_NAME}")
    return name


def build_event(conversion: Conversion, attempt: int) -> bytes:
    """Returns the event's bytes in CloudEvents structured JSON mode, as stored in the ledger and posted.

    Raises:
        IdentityError: an id that cannot become a name.
        InputError: the event would exceed 16 KiB.
    """
    from cloudevents.core.bindings.http import to_structured_event  # who only asks the ledger needs neither
    from cloudevents.core.v1.event import CloudEvent

    check_item_id(conversion.item_id)
    check_collection(conversion.collection)
    c = conversion
    data: dict[str, Any] = {
        "run": run_name(c, attempt), "key": c.key, "attempt": attempt, "lane": c.lane, "priority": PRIORITY[c.lane],
        "reason": c.reason, "source_name": c.source_name, "fence": c.fence, "installation": c.installation,
        "allowed_hosts": c.allowed_hosts, "form": c.form,
        "collection": c.collection, "collection_label": label_name(c.collection), "item_id": c.item_id,
        "item_href": c.item_href, "title": title_of(c.item_id, c.datetime),
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


def next_attempt(
    body: bytes,
    attempt: int,
    *,
    reason: str,
    lane: Lane | None = None,
    overwrite: bool = False,
    allow_empty: bool = False,
    fence: str = "",
    allowed_hosts: str = "",
) -> tuple[bytes, str]:
    """Returns the event of a later attempt of the same key, and its run's name; everything else stays as first decided.

    With `overwrite` the run converts again although an output with the key is there, with `allow_empty` it takes chunks that are
    missing for nodata; so do the attempts after it. A `fence` takes the place of the event's own: the item returned to this
    revision after it had another. So do `allowed_hosts`: the source's may have changed since.
    """
    document = json.loads(body)
    data = document["data"]
    run = f"{data['run'].rpartition('-')[0]}-{attempt}"
    data |= {"run": run, "attempt": attempt, "reason": reason}
    if fence:
        data |= {"fence": fence}
    if allowed_hosts:
        data |= {"allowed_hosts": allowed_hosts}
    if lane is not None:
        data |= {"lane": lane, "priority": PRIORITY[lane]}
    if overwrite:
        data["options"] = {**data.get("options", {}), "overwrite": "true"}
    document |= {"id": event_id(data["key"], attempt), "data": data}
    body = json.dumps(document).encode()
    return allowing_empty(body) if allow_empty else body, run


def allowing_empty(body: bytes) -> bytes:
    """Returns an event that asks for the same, and to take chunks that are missing for nodata."""
    document = json.loads(body)
    data = document["data"]
    options = {**data.get("options", {}), "allow_empty": "true"}
    return json.dumps({**document, "data": {**data, "options": options}}).encode()


def relocated(body: bytes, product_href: str) -> bytes:
    """Returns an event that asks for the same, of a product that is to be had there now: under a fresh signature, on a new host."""
    document = json.loads(body)
    data = document["data"]
    if data["product_href"] == product_href:
        return body
    stac_url = product_href if data["stac_url"] == data["product_href"] else data["stac_url"]
    return json.dumps({**document, "data": {**data, "product_href": product_href, "stac_url": stac_url}}).encode()


def attempt_of(body: bytes) -> tuple[int, bool]:
    """Returns the number of a stored event's attempt, and whether it asks for what is done to be made again."""
    data = json.loads(body)["data"]
    return int(data["attempt"]), data.get("options", {}).get("overwrite") == "true"


def parse_event(body: bytes) -> dict[str, Any]:
    """Returns the event's attributes and, under `data`, its data.

    Raises:
        InputError: not a CloudEvent of ours in structured JSON mode.
    """
    from cloudevents.core.bindings.http import HTTPMessage, from_structured_event

    hint = "events are printed by `stac-watch event ITEM`"
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        where = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        said = str(error) if where else "it is nested too deep, or has a number of thousands of digits"
        raise InputError(f"not a CloudEvent: {said}", hint=hint) from error
    if not isinstance(document, dict):
        raise InputError("not a CloudEvent: its JSON is no object", hint=hint)
    try:
        event = from_structured_event(HTTPMessage(headers={"content-type": CONTENT_TYPE}, body=body))
    except Exception as error:  # the SDK raises ValueError, KeyError, TypeError and its own, undocumented
        raise InputError(f"not a CloudEvent: {error}", hint=hint) from error
    data = event.get_data()
    if not isinstance(data, dict) or event.get_attributes().get("dataschema") != DATA_SCHEMA:
        raise InputError(f"not an event of schema {DATA_SCHEMA}", hint=hint)
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
    _check_sizes(data, hint)
    check_item_id(data["item_id"])
    key, attempt = parse_event_id(str(event.get_id()))
    # the run's name becomes a folder or a Workflow: whoever wrote the event, it must be the one that the id implies
    named = RUN.fullmatch(data["run"]) and data["run"].endswith(f"-{key_in_name(key)}-{attempt}")
    if not named or (data["key"], data["attempt"]) != (key, attempt):
        raise IdentityError(f"run {data['run'][:80]!r} is not the one of event {event.get_id()!r}", hint=hint)
    return {**document, "data": data}


def _check_sizes(data: Mapping[str, Any], hint: str) -> None:
    """Raises for what the Sensor would not take: a text without end, a priority that none of ours has."""
    texts = {name: data.get(name, "") for name in (*MAPPED, *LATER)} | data.get("options", {})
    long = sorted(name for name, text in texts.items() if len(text.encode(errors="surrogatepass")) > MAX_TEXT)
    if long:
        raise InputError(f"in the event's data {', '.join(long)[:200]} has more than {MAX_TEXT} bytes", hint=hint)
    least, most = min(PRIORITY.values()), max(PRIORITY.values())
    priority = data.get("priority")
    if type(priority) is not int or not least <= priority <= most:
        raise InputError(f"the event's priority is not a whole number from {least} to {most}", hint=hint)


def _slug(text: str, length: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:length].strip("-") or "item"
