"""What is wrong with a configuration, in sentences: the key by its source's name, its line, the value and what to write. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stac_watch.config.values import Group

LIST, MAPPING = "must be a list, as [a, b]", "must hold keys and values, as {{key: value}}"
WORDS = {
    "tuple_type": LIST, "list_type": LIST, "frozen_set_type": LIST, "set_type": LIST,
    "model_type": MAPPING, "model_attributes_type": MAPPING, "dict_type": MAPPING,
    "int_type": "must be a whole number", "int_parsing": "must be a whole number", "int_from_float": "must be a whole number",
    "float_type": "must be a number", "float_parsing": "must be a number", "finite_number": "must be a number",
    "bool_type": "must be true or false", "bool_parsing": "must be true or false",
    "string_type": "must be text; write it in quotes",
    "greater_than_equal": "must be at least {ge}", "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}", "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}", "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries", "string_too_short": "must not be empty",
    "union_tag_invalid": "has `kind: {tag}`; write one of {expected_tags}",
}  # fmt: skip
"""What pydantic calls it, and what people are told; other types keep its own sentence."""
_NAMED = re.compile(r"\^\[a-z0-9\]\(\[a-z0-9-\]\{0,(\d+)\}")  # a name as Kubernetes takes it


def explain(error: ValidationError, raw: Mapping[str, Any], text: str, known: Sequence[str] = ()) -> str:
    """Returns sentences about everything that is wrong with a document, as it was read from `text` and overridden.

    `known` are the keys that there are; none = those of the configuration.
    """
    problems = error.errors()
    places = [p["loc"] for p in problems]
    sentences = []
    for problem in problems:
        if any(len(loc) > len(problem["loc"]) and loc[: len(problem["loc"])] == problem["loc"] for loc in places):
            continue  # a list is invalid because an entry is: only the entry is news
        loc = [part for part in problem["loc"] if known or part not in ("argo", "local")]
        sentences.append(_sentence(problem, _named(loc, raw), known) + _line(loc, text))
    return re.sub(r"//[^/@\s]*@", "//***@", "; ".join(sentences))


def _sentence(problem: ErrorDetails, where: str, known: Sequence[str]) -> str:
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = known or [name for model in _groups(Group) for name in model.model_fields]
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        return f"unknown key {where!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
    if kind == "union_tag_not_found":
        return f"'{where}.kind' is missing: write `kind: argo` or `kind: local`"
    if kind == "missing":
        short = isinstance(problem["loc"][-1], int)
        return f"{where.rpartition('.')[0]!r} has too few values" if short else f"{where!r} is missing"
    secret = "auth" in problem["loc"]
    given = "" if isinstance(problem["input"], dict | list) or secret else f" (given: {problem['input']!r})"
    return f"{where!r}{words(problem)}{given}"


def words(problem: ErrorDetails) -> str:
    """Returns what a value must be, with the blank or the colon before it."""
    context = problem.get("ctx", {})
    if problem["type"] == "string_pattern_mismatch" and (named := _NAMED.match(str(context.get("pattern")))):
        return f" must be lower-case letters, digits and hyphens inside, at most {int(named[1]) + 2}"
    known = WORDS.get(problem["type"])
    return " " + known.format(**context) if known else f": {problem['msg'].removeprefix('Value error, ')}"


def _named(loc: Sequence[int | str], raw: Mapping[str, Any]) -> str:
    """Returns a key's path, a source by its name where it has one."""
    parts = [str(part) for part in loc]
    if len(loc) > 1 and loc[0] == "sources" and isinstance(loc[1], int):
        source = raw["sources"][loc[1]]
        parts[1] = str(source.get("name", loc[1])) if isinstance(source, dict) else parts[1]
    return ".".join(parts)


def _line(loc: Sequence[int | str], text: str) -> str:
    """Returns where a key stands, or the nearest one around it that is there; nothing for what a variable gave."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = None
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = [(node.value[part], node.value[part])]
        else:
            found = []
        if not found:
            break
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return f" (line {line})" if line is not None else ""


def _groups(group: type[Group]) -> list[type[Group]]:
    return [found for model in group.__subclasses__() for found in (model, *_groups(model))]
