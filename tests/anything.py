"""What strangers may send: values of any kind, and good documents of which one or two values were replaced by such."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st

DEEP = "[" * 150 + "]" * 150
NASTY = [
    None, True, -1, 2**63, 10**400, float("nan"), float("inf"), "", "\ud800", "a\0b", "../../etc", "https://[x", "x" * 20_000,
    "9" * 5_000, f"application/vnd.zarr; version={'9' * 5_000}", f"{'9' * 5_000}.1", "1.2.3", "https://x.example:99999/a.zarr",
    [], {}, [[]], [{}], {"": ""}, {"\ud800": "\ud800"}, {"name": []}, {"name": {}},
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
ANY = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6
)
_WORSE = [DEEP, *map(json.dumps, NASTY)]
SEEDS = range(60)  # of the random values of one test; many more were tried once


def spoiled(data: st.DataObject, document: Any) -> Any:
    """Returns the document with one or two of its values replaced, at any depth."""
    changed = json.loads(json.dumps(document))
    for _ in range(data.draw(st.integers(1, 2))):
        node = changed
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
                node[key] = data.draw(ANY)
                break
            node = node[key]
    return changed


def worsened(rng: random.Random, document: Any) -> Any:
    """Returns the document with one to three of its values replaced by what has broken readers, at any depth; names too."""
    changed = json.loads(json.dumps(document))
    for _ in range(rng.randint(1, 3)):
        node = changed
        while isinstance(node, dict | list) and node:
            key = rng.choice(list(node) if isinstance(node, dict) else list(range(len(node))))
            if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.4:
                if isinstance(node, dict) and rng.random() < 0.1:
                    node[rng.choice(["", "\ud800", "a/../b", "x" * 600])] = node.pop(key)
                else:
                    node[key] = json.loads(rng.choice(_WORSE))
                break
            node = node[key]
    return changed
