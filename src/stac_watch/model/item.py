"""What is known of a STAC item, and every reason for which one is not converted. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

from stac_watch.model.forms import Form

type Moment = datetime


class ItemDocument(TypedDict, total=False):
    """A STAC item as a catalog gave it: a JSON object of which nothing else is sure, not even that it has an id."""

    type: object
    id: object
    collection: object
    bbox: object
    geometry: object
    properties: object
    assets: object
    links: object


@dataclass(frozen=True)
class Item:
    """The part of a STAC item that stac-watch acts on."""

    collection: str
    item_id: str
    revision: str
    updated: datetime | None  # change stamp, aware
    datetime: datetime  # sensing time (start when there is no instant), aware
    product_href: str
    item_href: str
    bbox: tuple[float, ...]
    cloud_cover: float | None  # percent
    tile: str
    deprecated: bool
    form: Form = Form.EOPF_V2  # of its product, as it announces it
    trace: str = ""  # revision, whatever host the product lies on
    others: frozenset[str] = frozenset()  # revisions of this very product under the other names of its host
    published: Moment | None = None  # when it says that it was first there; `created` may be when the product was made


@dataclass(frozen=True)
class Unreadable:
    """An item that cannot be acted on, and why; it is kept and shown, and never fails its page."""

    item_id: str
    why: str


class SkipReason(StrEnum):
    """Every reason for which an item is not converted; counted and shown by `status` and `explain`."""

    OUTSIDE_AREA = "outside_area"  #: its bbox or geometry does not touch the area
    NO_BBOX = "no_bbox"  #: an area is configured, and the item does not say where it lies
    TOO_CLOUDY = "too_cloudy"  #: eo:cloud_cover above the limit
    NO_CLOUD_COVER = "no_cloud_cover"  #: a limit is configured, and the item has no value (seen since CPM 2.6.0)
    TOO_OLD = "too_old"  #: acquired before max_age when first seen
    OTHER_TILE = "other_tile"  #: not one of the tiles
    NO_MATCH = "no_match"  #: the source's CQL2 expression does not hold
    CANNOT_MATCH = "cannot_match"  #: the expression names a property that the item does not have
    DEPRECATED = "deprecated"  #: the catalog says that it should not be used
    WITHDRAWN = "withdrawn"  #: it is gone from the catalog
    RETIRED = "retired"  #: it is gone from the catalog, and its output was removed, see `on_gone`
    LIFETIME_OVER = "lifetime_over"  #: it was converted, and its output was removed when it was old enough, see `expire`
    OTHER_SOURCE = "other_source"  #: the same acquisition is, or was, converted for another source, see `prefer`
    FORM = "form_not_taken"  #: the runner does not take its product's form: one zip file, a later Zarr, another mission's
    SUPERSEDED = "superseded"  #: a newer revision, or a newer processing of the same acquisition, replaced it


class Retirement(StrEnum):
    """What became of the output of an item that is gone from its catalog."""

    KEPT = "kept"  #: it is as it was
    DEPRECATED = "deprecated"  #: its item says that it should not be used
    DELETED = "deleted"  #: it is no longer there


class Look(StrEnum):
    """What a look at the product of an item that was stamped anew found."""

    SAME = "same"  #: the store that its output was made of
    CHANGED = "changed"  #: another one; it is converted again
    RETRIED = "retried"  #: nothing was made of it so far: it had failed, and is tried again
    UNCLEAR = "unclear"  #: it cannot be told: no answer, no sizes, no fingerprint
