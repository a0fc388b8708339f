"""What the ledger's columns hold, for SQLite and PostgreSQL alike: stamps, words, outcomes, events."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, LargeBinary, Text, TypeDecorator

from stac_watch.model.outcome import Outcome, outcome_of
from stac_watch.model.signatures import masked
from stac_watch.model.texts import visible


class Stamp(TypeDecorator[datetime]):
    """An aware datetime in UTC on both databases; SQLite itself keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  # interface
        """Converts to UTC; a naive datetime is a mistake of ours."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"naive datetime {value} must not reach the ledger")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ANN401, ARG002  # interface
        """Returns an aware datetime."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Words(TypeDecorator[str]):
    """Text that may come from elsewhere, for people: bounded, what acts on a terminal spelled out, what signs a URL masked."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # interface
        """Returns what every database can store."""
        return visible(masked(value.replace("\0", "\\0")), lines=True) if value is not None else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:  # noqa: ANN401, ARG002  # interface
        """Returns it so, whatever an earlier version stored."""
        return visible(str(value), lines=True) if value is not None else None


class Ending(TypeDecorator[Outcome]):
    """A run's outcome, stored as the JSON document that it is."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Outcome | None, dialect: Dialect) -> dict[str, Any] | None:  # noqa: ARG002  # interface
        """Returns the document."""
        return value.bounded().document() if value is not None else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Outcome | None:  # noqa: ANN401, ARG002  # interface
        """Returns the outcome, whatever an earlier version stored."""
        return outcome_of(value)


class Body(TypeDecorator[bytes]):
    """An event's bytes; those of old ones are kept packed by `retention`, and read as if they were not."""

    impl = LargeBinary
    cache_ok = True

    def process_result_value(self, value: Any | None, dialect: Dialect) -> bytes | None:  # noqa: ANN401, ARG002  # interface
        """Returns what was or will be posted: a JSON object, which no zlib stream begins like."""
        if value is None:
            return None
        body = bytes(value)
        return body if body.startswith(b"{") else zlib.decompress(body)
