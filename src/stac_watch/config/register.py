"""Where what is done is registered, so that people find it: the section `register`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from stac_watch.config.auth import Auth
from stac_watch.config.values import Duration, Group, HttpUrl, Rate

LINK_FIELDS = ("collection", "item_id", "store", "x", "y", "z")


def _template(value: str) -> str:
    unknown = set(re.findall(r"{([^{}]*)}", value)) - set(LINK_FIELDS)
    if not value.startswith(("http://", "https://")) or re.search(r"\s", value):
        raise ValueError(f"{value!r} is no http(s) URL; write a space as %20")
    if unknown:
        raise ValueError(f"unknown field {{{min(unknown)}}}; known are {', '.join(LINK_FIELDS)}")
    return value


class MapLink(Group):
    """A link of each item to a map of it."""

    rel: str = Field(pattern=r"^[a-z][a-z0-9.-]*$")
    """`xyz`, `tilejson`, `viewer`, or another relation."""
    href: Annotated[str, AfterValidator(_template)]
    """URL with fields: item_id, collection, store (the output's URL, quoted as a parameter); {x}, {y} and {z} stay as they are."""
    type: str = ""
    """Media type; empty = none is said."""
    title: str = ""
    """For people."""


class Register(Group):
    """The STAC API in which what is done is registered, one item for each output. Needs its extension Transactions."""

    api: HttpUrl
    """Root of the STAC API."""
    collection: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Id of the collection; it is created where there is none."""
    href_base: HttpUrl
    """URL under which readers find what `recipe.output` names: its bucket, or the folder before its first field. Items of an API
    have absolute hrefs only."""
    auth: Auth | None = None
    """What lets us write: bearer, basic, header, OIDC client credentials, as a source's `auth`; empty = nothing."""
    collection_file: Path | None = None
    """JSON of the collection; empty = one of our own. Extent and summaries are widened as items come, and never narrowed."""
    links: tuple[MapLink, ...] = ()
    """Links to maps."""
    expires_after: Duration | None = None
    """Sets `expires` of each item, so long after the acquisition; empty = it does not expire. Nothing is removed by it."""
    at_once: int = Field(default=8, ge=1, le=64)
    """Items that are sent at the same time: one by one takes 0.4 s each, eight were measured to be six times as fast."""
    rate: Rate = Field(default=20.0, validate_default=False)
    """Items per second at most, so that a backlog does not take the catalog from its readers."""
