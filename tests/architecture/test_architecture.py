"""DESIGN's order of layers, who owns which library, and the sizes: read from the source's syntax trees, nothing is imported.

A new module needs a place in LAYERS before it can be merged. A layer is a list of families: modules of one family may import each
other, families of one layer may not, and a lower layer never imports an upper one. A name with a trailing dot is a whole package.
"""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = [
    ["cli cli_asking cli_acting cli_deploying cli_ledger cli_operating cli_terminal"],
    ["app"],
    ["demo.", "web stream server", "manifests.", "tables"],
    ["pulse", "asking"],
    ["watch", "backfill", "replay", "audit", "prune", "operate."],
    ["observe"],
    ["sweep"],
    ["discover", "dispatch", "reconcile"],
    ["pages probe"],
    ["catalog http", "ledger retention observations moves sums migrations queries statements database schema", "lanes", "views.",
     "markers", "engines.argo engines.workflows", "engines.local"],
    ["engines", "records"],
    ["policy", "windows"],
    ["changes"],
    ["config", "events", "states", "outcomes"],
    ["errors", "failures", "rules"],
]  # fmt: skip
OWNERS = {  # library: modules that may import it; everything else reaches it through them
    "sqlalchemy alembic psycopg": "stac_watch.ledger stac_watch.retention stac_watch.observations stac_watch.moves "
    "stac_watch.migrations stac_watch.queries stac_watch.statements stac_watch.sums stac_watch.schema stac_watch.database",
    "sqlite3": "stac_watch.demo.",
    "pystac_client requests": "stac_watch.catalog stac_watch.http",
    "pystac": "geozarr_runner.",
    "kubernetes": "stac_watch.engines.argo stac_watch.operate.cluster",
    "urllib3": "stac_watch.engines.argo stac_watch.http stac_watch.operate.cluster",
    "websocket": "stac_watch.operate.cluster",
    "subprocess multiprocessing": "stac_watch.engines.local geozarr_runner.",
    "hera": "stac_watch.manifests.",
    "numpy numcodecs": "stac_watch.demo. geozarr_runner.",
    "utm": "stac_watch.demo.",
    "starlette uvicorn": "stac_watch.demo. stac_watch.web stac_watch.server",
    "anyio": "stac_watch.stream",
    "prometheus_client": "stac_watch.web stac_watch.views.metrics",
    "jinja2": "stac_watch.views.page geozarr_runner.",
    "xarray zarr dask distributed eopf_geozarr geozarr_toolkit aiohttp": "geozarr_runner.",
    "typer": "stac_watch.cli stac_watch.cli_asking stac_watch.cli_acting stac_watch.cli_deploying stac_watch.cli_ledger "
    "stac_watch.cli_operating stac_watch.cli_terminal",
    "argparse": "geozarr_runner.cli",
}
CLIS = (
    "stac_watch.cli stac_watch.cli_asking stac_watch.cli_acting stac_watch.cli_deploying stac_watch.cli_ledger "
    "stac_watch.cli_operating stac_watch.cli_terminal geozarr_runner.cli"
)
CALLS = {  # an attribute or, with (), a call, as it is written: modules that may write it
    "print()": CLIS,
    "os.environ os.getenv": CLIS,
    # geozarr_runner.skeleton is the program of a process of its own, which is ended without an interpreter's goodbye
    "sys.exit sys.argv os._exit exit()": f"{CLIS} geozarr_runner.skeleton",
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


WATCH, RUNNER = sources("src/stac_watch", "stac_watch"), sources("runner/geozarr_runner", "geozarr_runner")
ALL = WATCH | RUNNER


def imports(tree: ast.Module) -> set[str]:
    """What a module imports, anywhere in it, by the full name of the module that the name comes from."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {m if m in ALL else str(node.module) for m in modules}
    return found


def among(module: str, names: str) -> bool:
    return any(module == n or (n.endswith(".") and (f"{module}.").startswith(n)) for n in names.split())


def place(module: str) -> tuple[int, int] | None:
    """(layer, family) of a module of stac_watch; 0 is the top."""
    short = module.removeprefix("stac_watch.")
    return next(((i, j) for i, layer in enumerate(LAYERS) for j, names in enumerate(layer) if among(short, names)), None)


@pytest.mark.parametrize("module", sorted(WATCH.keys() - {"stac_watch"}))
def test_a_module_imports_its_own_family_and_lower_layers_only(module):
    here = place(module)
    assert here is not None, f"{module} has no place in LAYERS"
    for other in sorted(i for i in imports(WATCH[module][1]) if i in WATCH and i not in ("stac_watch", module)):
        there = place(other)
        assert there is not None, f"{other} has no place in LAYERS"
        assert there == here or there[0] > here[0], f"{module} imports {other}, which is not below it"


def test_imports_are_absolute():
    for name, (_, tree) in ALL.items():
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level], name


def test_there_are_no_cycles():
    graph = {name: {i for i in imports(tree) if i in ALL and i != name} for name, (_, tree) in ALL.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming the cycle


def test_the_runner_takes_errors_and_events_of_the_poller_and_the_poller_nothing_of_the_runner():
    for name, (_, tree) in RUNNER.items():
        taken = {i for i in imports(tree) if i.split(".")[0] == "stac_watch"}
        assert taken <= {"stac_watch.errors", "stac_watch.events"}, name
    for name, (_, tree) in WATCH.items():
        assert not {i for i in imports(tree) if i.split(".")[0] == "geozarr_runner"}, name


@pytest.mark.parametrize(("libraries", "owners"), OWNERS.items())
def test_a_library_has_its_owners(libraries, owners):
    users = {name for name, (_, tree) in ALL.items() if {i.split(".")[0] for i in imports(tree)} & set(libraries.split())}
    assert {name for name in users if not among(name, owners)} == set()


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


@pytest.mark.parametrize("module", sorted(ALL))
def test_a_module_is_small_says_what_it_is_for_and_is_named_after_that(module):
    path, tree = ALL[module]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION_LINES, node.name
    assert not {path.stem, path.parent.name} & NO_NAMES
    doc = ast.get_docstring(tree) or ""
    if len(tree.body) > 1:  # more than a package's name
        assert len(doc.splitlines()) >= 2, "role, what comes in, what goes out, what it never does"
        for word in ("In:", "Out:", "Never:"):
            assert word in doc, f"the docstring lacks `{word}`"


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
        assert not {i for i in imports(tree) if i in ("mock", "pytest_mock") or i.startswith("unittest")}, path
        attributes = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        assert not {a for a in attributes if a.startswith(("mocker.", "monkeypatch.setattr", "monkeypatch.delattr"))}, path
