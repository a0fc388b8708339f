"""CQL2 to SQLite, as far as an index helps; what is beyond goes to the `cql2` package, one item at a time.

Comparisons of properties with literals become columns or `json_extract`, with their values as parameters. Everything else (spatial,
temporal, functions) becomes `cql2_matches(expression, core)`, so that its semantics are those of `cql2`.

Text mode does what pgstac does with properties that are not declared as queryables: it compares strings, fails on timestamp
literals, and its temporal operators look at `datetime` whatever property they are given (measured with pgstac 0.9.11).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shapely.errors import ShapelyError
from shapely.geometry import shape

from stac_watch.model.stamps import parse_stamp

Sql = tuple[str, list[Any]]
Json = Any

PROPERTY = re.compile(r"[A-Za-z_][\w:.\-]*")
INSTANTS = {"datetime": "datetime", "start_datetime": "starts", "end_datetime": "ends", "updated": "updated"}
STAMPS = frozenset({"updated", "created", "published"})  # times, unless the catalog compares text
_COMPARISONS = frozenset({"=", "<>", "<", "<=", ">", ">="})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UnusableFilterError(ValueError):
    """The filter cannot be answered: the client's mistake (400)."""


class FilterFailedError(RuntimeError):
    """The filter makes the server fail (500), as pgstac does with timestamp literals on text."""


@dataclass(frozen=True)
class Dialect:
    """How a catalog compares its change stamps."""

    text: bool = False

    def column(self, name: str) -> tuple[Sql, bool]:
        """Returns the SQL of a property, and whether it is an instant (microseconds since 1970, UTC).

        Raises:
            UnusableFilterError: not a name that a property can have.
        """
        name = name.removeprefix("properties.")
        if not PROPERTY.fullmatch(name):
            raise UnusableFilterError(f"{name[:80]!r} is not the name of a property")
        if name in ("id", "collection"):
            return (name, []), False
        if name == "updated" and self.text:
            return ("updated_text", []), False
        if name in INSTANTS:
            return (INSTANTS[name], []), True
        instant = name in STAMPS and not self.text
        return ("instant(json_extract(core, ?))" if instant else "json_extract(core, ?)", [f'$.properties."{name}"']), instant

    def where(self, expression: Json) -> Sql:
        """Returns the WHERE clause of a CQL2 JSON expression.

        Raises:
            UnusableFilterError: a literal or a name that cannot be used.
            FilterFailedError: a timestamp literal on a property that is compared as text.
        """
        if isinstance(expression, bool):
            return str(int(expression)), []
        op, args = expression["op"], expression["args"]
        if op in ("and", "or"):
            parts = [self.where(arg) for arg in args]
            return f"({f' {op} '.join(sql for sql, _ in parts)})", [value for _, values in parts for value in values]
        if op == "not":
            sql, values = self.where(args[0])
            return f"(NOT {sql})", values
        simple = self._simple(str(op), args)
        if simple:
            return simple
        box, corners = _box(str(op), args)
        return f"({box}cql2_matches(?, core))", [*corners, json.dumps(self._retarget(expression))]

    def _simple(self, op: str, args: list[Json]) -> Sql | None:
        """Comparisons between properties and literals; None when there is anything else in them."""
        listed = op == "in" and len(args) == 2 and isinstance(args[1], list)
        operands = [args[0], *args[1]] if listed else args
        if not (listed or op in _COMPARISONS or op in ("between", "isNull", "like")) or not all(map(_is_plain, operands)):
            return None
        instant = any(self.column(arg["property"])[1] for arg in operands if _is_property(arg))
        texts, values = [], []
        for operand in operands:
            sql, value = self._operand(operand, instant=instant)
            texts.append(sql)
            values += value
        first, *rest = texts
        if listed:
            return f"({first} IN ({', '.join(rest)}))", values
        if op == "between":
            return f"({first} BETWEEN {rest[0]} AND {rest[1]})", values
        if op == "isNull":
            return f"({first} IS NULL)", values
        return f"({first} {'LIKE' if op == 'like' else op} {rest[0]}{' ESCAPE char(92)' if op == 'like' else ''})", values

    def _operand(self, operand: Json, *, instant: bool) -> Sql:
        if _is_property(operand):
            return self.column(operand["property"])[0]
        if isinstance(operand, dict):
            if not instant and self.text:
                raise FilterFailedError("operator does not exist: text >= timestamp with time zone")
            operand = operand.get("timestamp", operand.get("date"))
        if not instant:
            return "?", [operand]
        parsed = parse_stamp(operand)
        if parsed is None:
            raise UnusableFilterError(f"{str(operand)[:60]!r} is not a time")
        return "?", [to_micros(parsed)]

    def _retarget(self, expression: Json) -> Json:
        if not self.text or not str(expression.get("op", "")).startswith("t_"):
            return expression
        return expression | {"args": [{"property": "datetime"} if _is_property(arg) else arg for arg in expression["args"]]}


TYPED, TEXT = Dialect(), Dialect(text=True)


def to_micros(value: datetime) -> int:
    """Returns microseconds since 1970 in UTC: exact, and sortable as an integer."""
    return (value - _EPOCH) // timedelta(microseconds=1)


def stamp_micros(value: object) -> int | None:
    """Returns microseconds since 1970 of an RFC 3339 string, None when it is not one."""
    parsed = parse_stamp(value)
    return None if parsed is None else to_micros(parsed)


def _box(op: str, args: list[Json]) -> Sql:
    """What an index can say first about a spatial operator: whatever is not disjoint has boxes that meet."""
    literal = next((arg for arg in args if isinstance(arg, dict) and "type" in arg), None)
    if literal is None or not op.startswith("s_") or op == "s_disjoint":
        return "", []
    try:
        west, south, east, north = shape(literal).bounds
    except (
        ShapelyError,
        TypeError,
        ValueError,
        AttributeError,
        KeyError,
    ) as error:  # what shapely says of nonsense differs by type
        raise UnusableFilterError(f"{str(literal)[:80]!r} is not a geometry") from error
    return "east >= ? AND west <= ? AND north >= ? AND south <= ? AND ", [west, east, south, north]


def _is_property(arg: Json) -> bool:
    return isinstance(arg, dict) and isinstance(arg.get("property"), str)


def _is_plain(arg: Json) -> bool:
    return isinstance(arg, str | int | float) or (
        isinstance(arg, dict) and len(arg) == 1 and set(arg) <= {"property", "timestamp", "date"}
    )
