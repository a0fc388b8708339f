"""What import-linter cannot say (`make lint` holds the layers): sizes, banned calls, imports without effects, no mocks."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIS = "stac_watch.cli. geozarr_runner.cli"
CALLS = {  # an attribute or, with (), a call, as it is written: modules that may write it
    "print()": CLIS,
    "os.environ os.getenv": CLIS,
    # geozarr_runner.convert.skeleton is the program of a process of its own, which is ended without an interpreter's goodbye
    "sys.exit sys.argv os._exit exit()": f"{CLIS} geozarr_runner.convert.skeleton",
    "datetime.now datetime.utcnow datetime.today date.today time.time time.time_ns":
        "stac_watch.app stac_watch.demo.scenario geozarr_runner.cli",
    "random.Random() random.random random.choice random.uniform uuid.uuid4": "stac_watch.app",
    "os.system os.popen eval() exec()": "",
}  # fmt: skip
MODULE_LINES, FUNCTION_LINES = 400, 60
NO_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}


def sources(folder: str, package: str) -> dict[str, tuple[Path, ast.Module]]:
    """Module name -> its file and tree."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(".__init__")
        found[name] = (path, ast.parse(path.read_text(encoding="utf-8"), path))
    return found


ALL = sources("src/stac_watch", "stac_watch") | sources("runner/geozarr_runner", "geozarr_runner")


def among(module: str, names: str) -> bool:
    return any(module == n or (n.endswith(".") and (f"{module}.").startswith(n)) for n in names.split())


def test_imports_are_absolute():
    for name, (_, tree) in ALL.items():
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level], name


@pytest.mark.parametrize(("names", "owners"), CALLS.items())
def test_the_process_the_clock_and_chance_are_touched_in_few_places(names, owners):
    wanted = set(names.split())
    for name, (_, tree) in ALL.items():
        if not among(name, owners):
            written = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
            written |= {f"{ast.unparse(n.func)}()" for n in ast.walk(tree) if isinstance(n, ast.Call)}
            assert not written & wanted, name
            # …and they are not taken under another name
            taken = {f"{n.module}.{a.name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
            assert not taken & {w.removesuffix("()") for w in wanted}, name


def test_a_module_is_small_and_named_after_what_it_is_for():
    for name, (path, tree) in ALL.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MODULE_LINES, (
            f"{name} has {lines} lines: split it where a second subject begins, and name the new module after it"
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= FUNCTION_LINES, (
                    f"{name}.{node.name} has {length} lines: give the step that has a name a function of its own"
                )
        vague = {path.stem, path.parent.name} & NO_NAMES
        assert not vague, f"{name}: {vague} says nothing; name it after what it knows"
        assert ast.get_docstring(tree), f"{name} has no docstring: say what a reader must know before the code"


def test_importing_a_module_does_nothing():
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for name, (_, tree) in ALL.items():
        classes = {n.name for n in tree.body if isinstance(n, ast.ClassDef)}
        for node in tree.body:
            own = (
                isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ast.unparse(node.value).split(".")[0] in classes
            )
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            guard = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
            assert docstring or guard or own or isinstance(node, (*allowed, ast.TypeAlias)), f"{name}:{node.lineno}"


def test_tests_fake_with_servers_and_values():
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), path)
        imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        imported |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not {i for i in imported if i in ("mock", "pytest_mock") or i.startswith("unittest")}, path
        attributes = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        assert not {a for a in attributes if a.startswith(("mocker.", "monkeypatch.setattr", "monkeypatch.delattr"))}, path
