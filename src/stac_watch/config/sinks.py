"""Who is told of outputs: the section `sinks`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from stac_watch.config.values import Group, require_place

Told = Literal[
    "org.ogc.api.collection.item.create",
    "org.ogc.api.collection.item.replace",
    "org.ogc.api.collection.item.delete",
    "conversion.failed",
    "conversion.resolved",
]


def _address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s{}@#]+", value):
        raise ValueError(f"{value!r} is not an http(s) URL (credentials never go into the URL)")
    require_place(value)
    return value


class EventSink(Group):
    """Somebody who is told of outputs: each CloudEvent is posted there until it is taken."""

    url: Annotated[str, AfterValidator(_address)]
    """Where events are posted, in CloudEvents' structured mode. What comes before a `?` names the sink, wherever it is shown."""
    token_file: Path | None = None
    """File that holds a bearer token, as a mounted Secret does; read for each post, so that it may be replaced."""
    types: tuple[Told, ...] = ()
    """Types of events that it gets: of items `org.ogc.api.collection.item.create`, `.replace` and `.delete`, of what goes wrong
    `conversion.failed` and `conversion.resolved`; empty = all."""

    @property
    def name(self) -> str:
        """What the ledger and people call it: its URL without parameters, which may be secret."""
        return self.url.partition("?")[0]
