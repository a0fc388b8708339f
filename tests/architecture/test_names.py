"""A name means one thing: no two classes, and no two types, of both programs are called alike."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src/stac_watch", "runner/geozarr_runner")


def test_no_class_name_exists_twice():
    found = defaultdict(list)
    for path in sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8"), path).body:
            name = node.name if isinstance(node, ast.ClassDef) else node.name.id if isinstance(node, ast.TypeAlias) else "_"
            if not name.startswith("_"):
                found[name].append(path.relative_to(ROOT).as_posix())
    twice = {name: places for name, places in found.items() if len(places) > 1}
    assert not twice, f"{twice}: call one of each after what makes it different"
