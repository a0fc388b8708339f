"""What a STAC search request asks for, and how a page answers it.

A request that cannot be understood is a `BadRequestError` that names the parameter and the value.

Source: STAC API 1.0 item search with the fields, sort and filter extensions; `next` tokens hold sort values, so a page that was
re-published or deleted in the meantime loses nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import urlencode

from cql2 import Expr

from stac_watch.demo.faults import Faults
from stac_watch.demo.filters import PROPERTY, TEXT, TYPED, Json
from stac_watch.demo.items import Document
from stac_watch.demo.store import Query, Slice
from stac_watch.model.stamps import parse_stamp

OPERATORS = frozenset({
    "and", "or", "not", "=", "<>", "<", "<=", ">", ">=", "between", "in", "like", "isNull", "casei", "accenti",
    "+", "-", "*", "/", "^", "%", "div",
})  # fmt: skip
DEFAULT_LIMIT, MAX_LIMIT = 10, 10_000  # larger limits are clipped without a word, as pgstac does


class BadRequestError(ValueError):
    """The request cannot be understood (400)."""


@dataclass(frozen=True)
class Search:
    """One request: what the store is asked, what of it is shown, and the parameters as they came, for the `next` link."""

    query: Query
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    token: str
    parameters: Mapping[str, Any]


def from_get(parameters: Mapping[str, str], faults: Faults) -> Search:
    """Reads query parameters.

    Raises:
        BadRequestError: a parameter that cannot be understood.
    """
    body: dict[str, Any] = {k: v for k, v in parameters.items() if v != ""}
    for name in ("ids", "collections"):
        if name in body:
            body[name] = body[name].split(",")
    if "bbox" in body:
        body["bbox"] = [_number("bbox", v) for v in body["bbox"].split(",")]
    if "limit" in body:
        body["limit"] = _number("limit", body["limit"])
    if "intersects" in body:
        body["intersects"] = _json("intersects", body["intersects"])
    if "sortby" in body:
        # A `+` that was not percent-encoded arrives as a space.
        names = [name.strip() for name in body["sortby"].split(",")]
        body["sortby"] = [{"field": n.lstrip("+-"), "direction": "desc" if n.startswith("-") else "asc"} for n in names]
    if "fields" in body:
        names = [name.strip() for name in body["fields"].split(",")]
        included, excluded = [n.lstrip("+") for n in names if not n.startswith("-")], [n[1:] for n in names if n.startswith("-")]
        body["fields"] = {"include": included, "exclude": excluded}
    if "filter" in body and body.get("filter-lang", "cql2-text") == "cql2-json":
        body["filter"] = _json("filter", body["filter"])
    return replace(from_post(body, faults), parameters=dict(parameters))


def from_post(body: Json, faults: Faults) -> Search:
    """Reads a JSON body.

    Raises:
        BadRequestError: a member that cannot be understood.
    """
    if not isinstance(body, dict):
        raise BadRequestError("the body is not a JSON object")
    asked = {k: v for k, v in body.items() if k not in faults.ignore and v is not None}
    if "bbox" in asked and "intersects" in asked:
        raise BadRequestError("bbox and intersects exclude each other")
    fields = asked.get("fields") or {}
    query = Query(
        collections=_strings("collections", asked),
        ids=_strings("ids", asked),
        bbox=_bbox(asked.get("bbox")),
        intersects=_geometry(asked.get("intersects")),
        interval=parse_interval(asked.get("datetime")),
        filter=_filter(asked.get("filter")),
        sortby=_sortby(asked.get("sortby"), unique=not faults.id_tokens),
        limit=_limit(asked.get("limit", DEFAULT_LIMIT)),
        dialect=TEXT if faults.text_updated else TYPED,
    )
    return Search(query, _strings("include", fields), _strings("exclude", fields), str(body.get("token") or ""), body)


def parse_interval(value: object) -> tuple[datetime | None, datetime | None]:
    """Reads `datetime`: one time, or an interval that `..` or nothing leaves open.

    Raises:
        BadRequestError: not a time, or an interval that ends before it starts.
    """
    if value is None:
        return None, None
    ends = [None if part in ("", "..") else parse_stamp(part) or _unusable("datetime", value) for part in str(value).split("/")]
    if len(ends) > 2 or not any(ends):
        _unusable("datetime", value)
    start, end = ends[0], ends[-1]
    if start and end and start > end:
        _unusable("datetime", value)
    return start, end


def value_token(after: tuple[Any, ...]) -> str:
    """Returns a token that holds the sort values of a page's last item."""
    return base64.urlsafe_b64encode(json.dumps(after).encode()).decode().rstrip("=")


def parse_value_token(token: str, query: Query) -> tuple[Any, ...]:
    """Returns the sort values in a token.

    Raises:
        BadRequestError: not a token of this server for this order.
    """
    try:
        values = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError):
        values = None
    if not isinstance(values, list) or len(values) != len(query.sortby):
        raise BadRequestError(f"token {token[:40]!r} is not one of this search")
    return tuple(values)


def next_link(search: Search, token: str, method: str, href: str) -> Document:
    """Returns the link to the page after this one: POST with a body to merge, or GET with every parameter in the URL."""
    link: Document = {"rel": "next", "type": "application/geo+json", "method": method, "href": href}
    if method == "POST":
        return link | {"merge": True, "body": {"token": token}}
    return link | {"href": f"{href}?{urlencode({**search.parameters, 'token': token})}"}


def project(item: Document, include: Iterable[str], exclude: Iterable[str]) -> Document:
    """Returns what the fields extension leaves of an item; `id` and `collection` always stay."""
    include, exclude = tuple(include), tuple(exclude)
    shown: Document = {} if include else json.loads(json.dumps(item))
    for path in (*include, "id", "collection") if include else ():
        _copy(item, shown, _split(path))
    for path in exclude:
        *parents, last = _split(path)
        node: Any = shown
        for name in parents:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, dict) and path not in ("id", "collection"):
            node.pop(last, None)
    return shown


def render(page: Slice, search: Search, faults: Faults) -> list[str]:
    """Returns the page's features as JSON text; documents that nothing is done to are passed on as they are stored."""
    shaped = bool(search.include or search.exclude)
    rendered = []
    for text, (_, item_id) in zip(page.documents, page.keys, strict=True):
        hrefless = item_id in faults.hrefless or "*" in faults.hrefless
        bare = item_id in faults.no_properties
        if not (shaped or hrefless or bare):
            rendered.append(text)
            continue
        item = json.loads(text)
        if hrefless:
            item["assets"]["thumbnail"] = {"type": "image/png", "roles": ["thumbnail"]}
        item = project(item, search.include, search.exclude) if shaped else item
        if bare:
            item.pop("properties", None)
        rendered.append(json.dumps(item))
    return rendered


def _copy(source: Any, target: Document, path: list[str]) -> None:  # noqa: ANN401  # any JSON value
    name, rest = path[0], path[1:]
    if not isinstance(source, dict) or name not in source:
        return
    if rest and isinstance(source[name], dict):
        _copy(source[name], target.setdefault(name, {}), rest)
    elif not rest:
        target[name] = source[name]


def _split(path: str) -> list[str]:
    """`properties.eo:cloud_cover` and `assets.product.href`; a property's own name may hold dots."""
    head, dot, tail = path.partition(".")
    return [head, tail] if head == "properties" and dot else path.split(".")


def _sortby(value: object, *, unique: bool) -> tuple[tuple[str, bool], ...]:
    """The order; without `unique` ties stay open, and a token in the middle of them loses items, as with pgstac 0.9."""
    rules = value if value is not None else [{"field": "datetime", "direction": "desc"}, {"field": "id", "direction": "desc"}]
    keys = []
    for rule in rules if isinstance(rules, list) else _unusable("sortby", value):
        name = rule.get("field", "") if isinstance(rule, dict) else ""
        if not PROPERTY.fullmatch(name) or rule.get("direction", "asc") not in ("asc", "desc"):
            _unusable("sortby", rule)
        keys.append((name.removeprefix("properties."), rule.get("direction") == "desc"))
    present = {name for name, _ in keys}
    return (*keys, *((name, False) for name in ("id", "collection") if unique and name not in present))


def _filter(value: object) -> Json | None:
    if value is None:
        return None
    try:
        expression = Expr(value if isinstance(value, str) else json.dumps(value))
        expression.to_sql()  # checks the number of arguments; the schema is too strict: servers do take `between` for text
        parsed = expression.to_json()
    except Exception as error:  # cql2 raises bare Exception for what it cannot parse
        raise BadRequestError(f"filter is not CQL2: {' '.join(str(error).split())[:200]}") from error
    for op in _operators(parsed):
        if op not in OPERATORS and not op.startswith(("s_", "t_", "a_")):
            raise BadRequestError(f"filter has the unknown operator {op[:40]!r}")
    return parsed


def _operators(expression: Json) -> Iterator[str]:
    if isinstance(expression, dict) and "op" in expression:
        yield expression["op"]
        for arg in expression["args"]:
            yield from _operators(arg)


def _bbox(value: object) -> tuple[float, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or len(value) not in (4, 6) or not all(isinstance(v, int | float) for v in value):
        _unusable("bbox", value)
    half = len(value) // 2
    if value[1] > value[half + 1]:
        _unusable("bbox", value)
    return (*map(float, value[:2]), *map(float, value[half : half + 2]))


def _geometry(value: object) -> Document | None:
    if value is not None and not (isinstance(value, dict) and value.get("type") and value.get("coordinates")):
        _unusable("intersects", value)
    return value


def _limit(value: object) -> int:
    number = _number("limit", value)
    if number < 1 or number != int(number):
        _unusable("limit", value)
    return min(int(number), MAX_LIMIT)


def _strings(name: str, body: Mapping[str, Any]) -> tuple[str, ...]:
    value = body.get(name) or ()
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        _unusable(name, value)
    return tuple(value)


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # what float cannot take is the error below
    except (TypeError, ValueError):
        _unusable(name, value)


def _json(name: str, text: str) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        _unusable(name, text)


def _unusable(name: str, value: object) -> NoReturn:
    raise BadRequestError(f"{name} cannot be {str(value)[:80]!r}")
