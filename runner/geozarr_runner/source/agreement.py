"""Consolidated metadata is a copy: does each array's own document say the same of what its pixels are, and of where they lie?

Read while the chunks are on their way. One reader opens a store by its consolidated metadata, the next by the nodes' own, and which
of them is right nobody knows. Attributes that change no pixel may differ; a document that is not there, or no JSON, says nothing.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np

from geozarr_runner.source import crs
from geozarr_runner.source.preflight import Plan
from geozarr_runner.source.threads import CONNECTIONS
from stac_watch.model.errors import InputError, Refused, SourceNotThere, printable
from stac_watch.model.zarr3 import ROOT, attributes_of, consolidated

_LIMIT = 1 << 20  #: bytes of a node's own document: a thousand times a real one
_V2 = ("shape", "chunks", "dtype", "order", "fill_value", "compressor", "filters", "dimension_separator")
_V3 = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs", "fill_value")
_DEFAULTS = {"order": "C", "dimension_separator": ".", "scale_factor": 1, "add_offset": 0}
_PIXELS = ("scale_factor", "add_offset", "_FillValue", "missing_value")
"""Attributes that say what a stored number means (CF 1.11, 2.5.1 and 8.1)."""

type Documents = Mapping[str, Mapping[str, Any]]


class Agreement:
    """Reads the nodes' own documents meanwhile."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._ended = plan, threading.Event()

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(CONNECTIONS // 2, thread_name_prefix="agree")
        self._asked: dict[str, Future[Mapping[str, Any] | None]] = {key: self._pool.submit(self._own, key) for key in self._keys()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._pool.shutdown(wait=kind is None or issubclass(kind, Exception), cancel_futures=True)

    def require(self) -> None:
        """Waits for the documents.

        Raises:
            InputError: one contradicts the consolidated metadata; names both.
            Temporary: one could not be read.
        """
        own = {key: document for key, asked in self._asked.items() if (document := asked.result()) is not None}
        said = next(_contradictions(self._known(), own, self._plan.selection.crs), "")
        if said:
            raise InputError(
                f"{self._plan.source.url} contradicts itself: {said}",
                hint="it may be published again only in part; replay the item once its producer has mended it",
            )

    def _keys(self) -> list[str]:
        arrays, tree = self._plan.selection.arrays, self._plan.tree
        if tree is None:
            return [".zattrs", *(f"{a.path}/{name}" for a in arrays for name in (".zarray", ".zattrs"))]
        return [f"{a.path}/{ROOT}" for a in arrays] if consolidated(dict(tree.nodes[""])) else []

    def _known(self) -> Documents:
        tree = self._plan.tree
        return self._plan.documents if tree is None else {f"{path}/{ROOT}": node for path, node in tree.nodes.items()}

    def _own(self, key: str) -> Mapping[str, Any] | None:
        if self._ended.is_set():
            return None
        try:
            found = json.loads(self._plan.source.read(key, limit=_LIMIT))
        except (SourceNotThere, Refused, InputError, ValueError, RecursionError):  # of a store that can be read it is not there
            return None
        return found if isinstance(found, dict) else None


def _contradictions(known: Documents, own: Documents, code: str) -> Iterator[str]:
    for key, document in own.items():
        there = known.get(key, {})
        fields = {".zarray": _V2, ROOT: _V3}.get(key.rpartition("/")[2], ())
        pairs = [(name, there.get(name, _DEFAULTS.get(name)), document.get(name, _DEFAULTS.get(name))) for name in fields]
        attributes = [attributes_of(d) if key.endswith(ROOT) else d for d in (there, document)]
        if key != ".zattrs" and not key.endswith(".zarray"):
            pairs += [(name, *(a.get(name, _DEFAULTS.get(name)) for a in attributes)) for name in _PIXELS]
        for name, said, other in pairs:
            if _plain(name, said) != _plain(name, other):
                yield f"{key} has {name} {_short(other)}, the consolidated metadata {_short(said)}"
    arrays = {key.rpartition("/")[0]: attributes_of(d) if key.endswith(ROOT) else d for key, d in own.items() if "/" in key}
    for other, place in crs.named(own.get(".zattrs", {}), arrays).items():
        if other != code:
            yield f"the document of {place} has {other}, the consolidated metadata {code}"


def _plain(name: str, value: Any) -> Any:  # noqa: ANN401  # of a stranger's JSON
    """Returns a value so that two spellings of one are equal."""
    if name == "dtype":
        try:
            return np.dtype(value).str
        except (TypeError, ValueError):
            return str(value)
    if name == "compressor":
        return value.get("id") if isinstance(value, dict) else value  # frames say the rest themselves
    if name == "codecs":
        return [codec.get("name") for codec in value] if isinstance(value, list) else value
    if name in _PIXELS and isinstance(value, list) and len(value) == 1:
        value = value[0]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def _short(value: object) -> str:
    return printable(json.dumps(value, default=str), 80)
