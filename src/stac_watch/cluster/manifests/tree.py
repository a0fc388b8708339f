"""What an object is made of where the values decide: one way to write it, for manifests and for the chart.

The builders of objects are given `Settings`. With real ones they return plain documents. With those of `chart`, whose fields are
holes (expressions of Helm's templates), they return the same documents with holes, and `helm` writes them as a template. So
nothing in a builder asks `if settings.x`: it says `when(settings.x, …)`, which is decided here, or by Helm.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import yaml

OPEN, CLOSE = "\ue000", "\ue001"  # of a private area: in no manifest


class Hole(str):
    """An expression of Helm's templates in place of a value; it survives in texts that it becomes a part of."""

    __slots__ = ()

    def __new__(cls, expression: str) -> Self:
        """Wraps an expression; one that is a hole already stays as it is: pydantic makes copies."""
        return super().__new__(cls, expression if expression.startswith(OPEN) else f"{OPEN}{expression}{CLOSE}")

    @property
    def expression(self) -> str:
        """What Helm evaluates."""
        return str(self)[1:-1]


@dataclass(frozen=True)
class When:
    """An entry of a list, or a document, that is there when an expression is true."""

    test: str
    entry: Any


@dataclass(frozen=True)
class Each:
    """One entry of a list for each of what an expression has."""

    over: str
    entry: Any


@dataclass(frozen=True)
class Spread:
    """All entries of a list, or keys of a mapping, that an expression has."""

    over: str


@dataclass(frozen=True)
class AsText:
    """A text that is YAML of something with holes."""

    tree: Any


class Key(str):  # noqa: SLOT000  # it has two attributes more
    """A key that is there when an expression is true; `spread`: in place of it, all keys of the value."""

    test: str
    spread: bool

    def __new__(cls, name: str, test: str, *, spread: bool = False) -> Self:
        """Makes one."""
        made = super().__new__(cls, name)
        made.test, made.spread = test, spread
        return made


def expression_of(condition: object) -> str | None:
    """Returns the expression of a hole; None for a real value."""
    return condition.expression if isinstance(condition, Hole) else None


def is_one(value: str, *texts: str) -> Any:  # noqa: ANN401  # a condition: real, or a hole
    """Returns whether a value is one of these."""
    test = expression_of(value)
    return value in texts if test is None else Hole(f"has {test} (list {' '.join(json.dumps(text) for text in texts)})")


def both(one: Any, other: Any) -> Any:  # noqa: ANN401  # conditions: real, or holes
    """Returns whether both hold."""
    if isinstance(one, Hole) and isinstance(other, Hole):
        return Hole(f"and ({one.expression}) ({other.expression})")
    return one and other


def absent(condition: Any) -> Any:  # noqa: ANN401  # a value or a hole
    """Returns the opposite of a condition."""
    return Hole(f"not ({condition.expression})") if isinstance(condition, Hole) else not condition


def when(condition: object, *entries: Any) -> list[Any]:  # noqa: ANN401  # parts of documents
    """Returns entries of a list that are there when the condition holds."""
    test = expression_of(condition)
    if test is not None:
        return [When(test, entry) for entry in entries]
    return list(entries) if condition else []


def given(document: Mapping[str, Any], condition: object = None) -> dict[str, Any]:
    """Returns the keys whose values are not empty; with a condition all of them, when it holds."""
    made: dict[str, Any] = {}
    for name, value in document.items():
        decides = value if condition is None else condition
        test = expression_of(decides)
        if test is not None:
            made[Key(name, test)] = value
        elif decides:
            made[name] = value
    return made


def each(values: Any, make: Callable[[Any], Any]) -> list[Any]:  # noqa: ANN401  # a sequence or a hole
    """Returns one entry for each value."""
    over = expression_of(values)
    return [make(value) for value in values] if over is None else [Each(over, make(Hole("$each")))]


def numbered(count: int, make: Callable[[Any], Any]) -> list[Any]:
    """Returns one entry for each number below a count."""
    test = expression_of(count)
    return [make(number) for number in range(count)] if test is None else [Each(f"until (int ({test}))", make(Hole("$each")))]


def all_of(values: Any) -> list[Any]:  # noqa: ANN401  # a sequence or a hole
    """Returns the entries that the values give."""
    over = expression_of(values)
    return list(values) if over is None else [Spread(over)]


def merged(own: Mapping[str, Any], more: Any) -> dict[str, Any]:  # noqa: ANN401  # a mapping or a hole
    """Returns a mapping and what the values add to it."""
    over = expression_of(more)
    if over is None:
        return {**more, **own}
    return {**own, Key(f"~{over}", over, spread=True): more}


def as_text(tree: Any, *, width: int = 80) -> Any:  # noqa: ANN401  # a text, or what becomes one
    """Returns a tree as YAML in a text."""
    return AsText(tree) if has_holes(tree) else yaml.safe_dump(tree, sort_keys=True, width=width)


def has_holes(tree: Any) -> bool:  # noqa: ANN401  # any part of a document
    """Tells whether anything in a tree is for Helm to decide."""
    if isinstance(tree, Mapping):
        return any(isinstance(key, Key) or has_holes(value) for key, value in tree.items())
    if isinstance(tree, list | tuple):
        return any(map(has_holes, tree))
    if isinstance(tree, str):
        return OPEN in tree
    return isinstance(tree, When | Each | Spread | AsText | Either)


@dataclass(frozen=True)
class Either:
    """One of two values, by an expression."""

    test: str
    yes: Any
    no: Any


def either(chosen: Any, ours: Any, condition: Any = True) -> Any:  # noqa: ANN401  # values or holes
    """Returns what was chosen, else ours where the condition holds, else what is empty; to be given to `given`."""
    test = expression_of(chosen)
    if test is None:
        return chosen or (ours if condition else type(ours)())
    return Either(test, chosen, ours)
