"""The documentation is held to the code: what exists is documented, and what is written down is what the code says."""

import ast
import re
import runpy
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stac_watch.cluster.diagnosis import Finding
from stac_watch.cluster.fetch import Fetched
from stac_watch.cluster.runs import RunView, Step
from stac_watch.cluster.submit import Submission
from stac_watch.config.model import Limits
from stac_watch.config.values import Group
from stac_watch.jobs.audit import Audit, Gap, GapKind
from stac_watch.jobs.backfill import BackfillPlan, Day
from stac_watch.jobs.prune import Pruned
from stac_watch.jobs.replay import ReplayTarget
from stac_watch.ledger.records import Audited, HistoryRow, ItemRow, Order
from stac_watch.model.publication import PublicationCount, PublicationState
from stac_watch.model.states import State
from stac_watch.report.explain import Explanation, Next
from stac_watch.report.freshness import Freshness, Missing, SourceFreshness, Sum, Within
from stac_watch.report.items import UnreadableItem
from stac_watch.report.lines import Line
from stac_watch.report.metrics import Loop, families
from stac_watch.report.status import Failure, Status, Waiting
from stac_watch.report.totals import SourceStatus, Totals
from stac_watch.report.web.answers import create_app
from stac_watch.report.web.site import Site
from stac_watch.runs.cleaning import Cleaning
from stac_watch.runs.cleaning import Leftover as Removal

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def rows(page: str, column: int = 0) -> set[str]:
    cells = [line.split("|")[column + 1].strip() for line in (DOCS / page).read_text().splitlines() if line.startswith("| ")]
    return {name for cell in cells for name in re.findall(r"[\w-]+", cell)}


@pytest.mark.parametrize("state", State)
def test_every_state_is_documented(state):
    assert state.value in rows("guarantees.md")


JSON = {
    "a line": Line, "an unreadable item": UnreadableItem, "a status": Status, "a source's entry": SourceStatus,
    "a backfill's order": Order, "a waiting conversion": Waiting, "a group of failures": Failure, "a chain": Explanation,
    "a chain's item": ItemRow, "a move": HistoryRow, "what is next": Next, "a plan": BackfillPlan, "a plan's day": Day,
    "a target": ReplayTarget,
    "an audit": Audit, "a gap": Gap, "a run": RunView, "a step": Step, "a fetched file": Fetched, "a cleaning": Cleaning,
    "an object to clean": Removal, "a finding": Finding, "a submission": Submission,
    "a last audit": Audited, "a pruning": Pruned, "a freshness": Freshness, "a source's freshness": SourceFreshness,
    "a sum": Sum, "a limit": Within, "a missing item": Missing,
}  # fmt: skip


@pytest.mark.parametrize("name", JSON)
def test_the_fields_of_every_json_document_are_those_of_the_code(name):
    table = (DOCS / "reference" / "json.md").read_text().partition(f"| field of {name} | meaning |\n")[2].partition("\n\n")[0]
    documented = [field for line in table.splitlines()[1:] for field in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(documented) == sorted(JSON[name].__dataclass_fields__)


@pytest.mark.parametrize("kind", GapKind)
def test_every_kind_of_gap_is_documented(kind):
    assert kind.value in rows("backfill-and-replay.md")


@pytest.fixture(scope="module")
def reference():
    return runpy.run_path(str(ROOT / "tools" / "reference.py"))


def test_every_key_of_the_configuration_says_what_it_is(reference):
    todo = list(Group.__subclasses__())
    assert len(todo) > 5
    for model in todo:
        assert model.model_fields.keys() == reference["said_of"](model).keys(), f"a key of {model.__name__} has no docstring"


@pytest.mark.parametrize(
    "page", ["reference/configuration.md", "reference/values.md", "reference/cli.md", "runbook.md", "architecture.md"]
)
def test_a_page_that_is_written_from_the_code_is_what_the_code_says(page, reference):
    assert (DOCS / page).read_text() == reference["PAGES"][page](), "run `make docs`"


def test_the_page_of_the_architecture_has_every_package_with_its_own_words():
    """Guards the test above: a page without the marks would be what it is, whatever the packages say."""
    page = (DOCS / "architecture.md").read_text()
    for folder, prefix in (("src/stac_watch", ""), ("runner/geozarr_runner", "geozarr_runner.")):
        for path in (ROOT / folder).glob("*/__init__.py"):
            words = ast.get_docstring(ast.parse(path.read_text()))
            assert f"### `{prefix}{path.parent.name}`\n\n{words}\n" in page, f"{path.parent.name}: run `make docs`"


def test_what_the_page_of_the_architecture_sends_people_to_is_there():
    page = (DOCS / "architecture.md").read_text()
    for heading, column in (("Where to look", 2), ("Where to add what", 2)):
        lines = page.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
        named = {name for line in lines[3:] if line for name in re.findall(r"`([a-z_/]+/[a-z_]+)`", line.split("|")[column])}
        assert len(named) > 10
        for name in named:
            at = ROOT / (
                name
                if name.startswith("tests/")
                else f"runner/{name}"
                if name.startswith("geozarr_runner/")
                else f"src/stac_watch/{name}"
            )
            assert at.is_dir() or at.with_suffix(".py").is_file(), f"{heading}: there is no {name}"


def test_every_link_between_pages_leads_somewhere():
    for page in [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


OF_THE_CLONE = re.compile(
    r"\bdocs/[a-z/-]+\.md|README|CONTRIBUTING|CHANGELOG|Makefile|`make |\bmake (?:install|demo|build|deploy)|\./runner"
)


def said_by(path: Path) -> list[str]:
    """The texts of a module that a person may read: all but docstrings, which are help in the command line and count there."""
    tree = ast.parse(path.read_text())
    inner = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    unsaid = {id(n.body[0].value) for n in inner if n.body and isinstance(n.body[0], ast.Expr)}
    unsaid = {id(tree.body[0].value)} if path.parent.name == "cli" else unsaid
    return [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in unsaid]


def test_nothing_that_is_printed_leads_to_a_file_of_the_repository():
    """Who installed a wheel, or runs a container, has no clone. What `cluster manifests` renders is there for them, too."""
    modules = [file for folder in ("src/stac_watch", "runner/geozarr_runner") for file in (ROOT / folder).rglob("*.py")]
    assert len(modules) > 200
    found = {
        f"{file.relative_to(ROOT)}: {text}" for file in modules for text in said_by(file)
        if OF_THE_CLONE.search(text) and "/blob/" not in text
    }  # fmt: skip
    assert not found, "say it in the hint itself, or name a verb"


def test_every_metric_and_path_of_the_web_is_documented():
    page = (DOCS / "monitoring.md").read_text()
    at = datetime(2026, 3, 1, tzinfo=UTC)
    order = Order("s2", at, at, at, 0, None, None)
    source = SourceStatus(
        "s2", {}, at, at, at, done_last_hour=0, done_last_day=0, unfinished=0, eta=None, backfill=order, catalog=None, probed=None,
        overlap=3600.0, lateness_samples=0, withdrawn=0, retired={}, restamped={}, cursor=at, swept=at, audited=None,
    )  # fmt: skip
    counts = [PublicationCount("s2", PublicationState.PENDING, 1, at)]
    view = Totals(at, {s.value: 0 for s in State}, {}, {}, 0, None, [source], 0, counts)
    loop = Loop("1", 1, at, leads=True, ailing=frozenset())
    told = {f"{f.name}{'_total' * (f.type == 'counter')}{'_info' * (f.type == 'info')}" for f in families(view, loop, ("s2",))}
    assert told == set(re.findall(r"^\| `(stac_watch_\w+)` \|", page, re.MULTILINE))
    labels = {re.sub(r"_(total|info)$", "", name): set(re.findall(r"\w+", text)) for name, text in
              re.findall(r"^\| `(stac_watch_\w+)` \|([\w, ]*)\|", page, re.MULTILINE)}  # fmt: skip
    for family in families(view, loop, ("s2",)):
        for sample in family.samples:
            assert set(sample.labels) == labels[family.name], family.name
    site = Site(None, (), Limits(), None, None, "1")
    cells = re.findall(r"^\| (`/[^|]*) \|", page, re.MULTILINE)
    paths = {path for cell in cells for path in re.findall(r"`/[\w./{}]*`", cell)}
    assert {f"`{route.path}`" for route in create_app(site).routes} == paths
