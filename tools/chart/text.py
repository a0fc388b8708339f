"""Writes documents with holes (`stac_watch.cluster.manifests.tree`) as templates of Helm."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stac_watch.cluster.manifests.tree import CLOSE, OPEN, AsText, Each, Either, Hole, Key, Spread, When

BEGIN = '{{- $v := .Values }}\n{{- $f := include "stac-watch.facts" . | fromJson }}\n'
_HOLE = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
type Tree = Any  # a document or a part of one, with holes


def template(documents: Sequence[Tree]) -> str:
    """Returns a file of the chart."""
    lines: list[str] = []
    for document in documents:
        tests, inner = [], document
        while isinstance(inner, When | Each):
            tests.append(f"if {inner.test}" if isinstance(inner, When) else f"range $each := {inner.over}")
            inner = inner.entry
        lines += [f"{{{{- {test} }}}}" for test in tests]
        lines += ["---", *_mapping(inner, "")]
        lines += ["{{- end }}" for _ in tests]
    return BEGIN + "\n".join(lines) + "\n"


def _mapping(node: Mapping[str, Tree], indent: str) -> Iterator[str]:
    spread = [key.test for key in node if isinstance(key, Key) and key.spread]
    own = sorted(str(key) for key in node if not (isinstance(key, Key) and key.spread))
    for key in sorted(node, key=str):
        if isinstance(key, Key) and key.spread:
            continue
        entry = list(_entry(str(key), node[key], indent))
        yield from _when(key.test, entry, indent) if isinstance(key, Key) else entry
    if spread:
        known = " ".join(json.dumps(name) for name in own)
        yield f"{indent}{{{{- range $name, $value := merge (dict) {' '.join(f'({test})' for test in spread)} }}}}"
        yield f"{indent}{{{{- if not (has $name (list {known})) }}}}"
        yield f"{indent}{{{{ toJson $name }}}}: {{{{ toJson $value }}}}"
        yield f"{indent}{{{{- end }}}}"
        yield f"{indent}{{{{- end }}}}"


def _when(test: str, lines: list[str], indent: str) -> Iterator[str]:
    yield f"{indent}{{{{- if {test} }}}}"
    yield from lines
    yield f"{indent}{{{{- end }}}}"


def _entry(key: str, value: Tree, indent: str) -> Iterator[str]:
    name = _scalar(key)
    if isinstance(value, Either):
        yield f"{indent}{{{{- if {value.test} }}}}"
        yield from _entry(key, value.yes, indent)
        yield f"{indent}{{{{- else }}}}"
        yield from _entry(key, value.no, indent)
        yield f"{indent}{{{{- end }}}}"
    elif isinstance(value, AsText):
        yield f"{indent}{name}: |"
        yield from _mapping(value.tree, f"{indent}  ")
    elif isinstance(value, Mapping) and value:
        lines = [f"{indent}{name}:", *_mapping(value, f"{indent}  ")]
        tests = {key.test: None for key in value if isinstance(key, Key)}
        maybe = all(isinstance(key, Key) for key in value)  # then it is there when any of them is: null is no mapping
        yield from _when(f"or {' '.join(f'({test})' for test in tests)}", lines, indent) if maybe else lines
    elif isinstance(value, list | tuple) and value:
        yield f"{indent}{name}:"
        yield from _list(value, f"{indent}  ")
    elif isinstance(value, str) and "\n" in value and OPEN not in value and not value.startswith((" ", "\n")):
        yield f"{indent}{name}: |{'' if value.endswith(chr(10)) else '-'}"
        yield from (f"{indent}  {_escaped(line)}" if line else "" for line in value.removesuffix("\n").split("\n"))
    else:
        yield f"{indent}{name}: {_scalar(value)}"


def _list(node: Sequence[Tree], indent: str) -> Iterator[str]:
    for entry in node:
        if isinstance(entry, When):
            yield from _when(entry.test, list(_list([entry.entry], indent)), indent)
        elif isinstance(entry, Each):
            yield f"{indent}{{{{- range $each := {entry.over} }}}}"
            yield from _list([entry.entry], indent)
            yield f"{indent}{{{{- end }}}}"
        elif isinstance(entry, Spread):
            yield f"{indent}{{{{- range $entry := {entry.over} }}}}"
            yield f"{indent}- {{{{ toJson $entry }}}}"
            yield f"{indent}{{{{- end }}}}"
        elif isinstance(entry, Mapping) and entry:
            yield f"{indent}-"
            yield from _mapping(entry, f"{indent}  ")
        elif isinstance(entry, list) and entry:
            yield f"{indent}-"
            yield from _list(entry, f"{indent}  ")
        else:
            yield f"{indent}- {_scalar(entry)}"


def _scalar(value: Tree) -> str:
    if isinstance(value, str) and OPEN in value:
        if isinstance(value, Hole) or _HOLE.fullmatch(value):
            return f"{{{{ toJson ({_HOLE.fullmatch(value)[1]}) }}}}"  # type: ignore[index]
        parts = [json.dumps(_HOLE.sub("%v", value.replace("%", "%%")), ensure_ascii=False)]
        return f"{{{{ printf {' '.join([*parts, *(f'({found})' for found in _HOLE.findall(value))])} | toJson }}}}"
    return _escaped(json.dumps(value, ensure_ascii=False))


def _escaped(text: str) -> str:
    """Returns a text of which Helm evaluates nothing: `{{` is Argo's, too."""
    return re.sub(r"\{\{|\}\}", lambda found: '{{ "' + found[0] + '" }}', text)
