"""The documentation is held to the code: what exists is documented, and what is written down is what the code says."""

import re
import runpy
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
import typer.main

from stac_watch.cli.main import cli
from stac_watch.cluster.diagnosis import Finding
from stac_watch.cluster.fetch import Fetched
from stac_watch.cluster.runs import RunView, Step
from stac_watch.cluster.submit import Submission
from stac_watch.config.model import Limits
from stac_watch.jobs.audit import Audit, Gap, Kind
from stac_watch.jobs.backfill import Day, Plan
from stac_watch.jobs.prune import Pruning
from stac_watch.jobs.replay import Target
from stac_watch.ledger.records import Audited, HistoryRow, ItemRow, Lag, Order
from stac_watch.model.errors import Exit
from stac_watch.model.item import SkipReason
from stac_watch.model.states import State
from stac_watch.report.explain import Explanation, Next
from stac_watch.report.lines import Line
from stac_watch.report.metrics import Loop, families
from stac_watch.report.questions import UnreadableItem
from stac_watch.report.status import Discovery, Failure, SourceStatus, Status, Waiting, source_status, status
from stac_watch.report.web.site import Window, create_app
from stac_watch.runs.cleaning import Cleaning
from stac_watch.runs.cleaning import Leftover as Removal

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@cache
def options_of() -> dict[str, set[str]]:
    """Every verb with the long names of its options."""
    verbs = typer.main.get_command(cli).commands
    return {
        name: {o for p in verb.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")} for name, verb in verbs.items()
    }


def rows(page: str, column: int = 0) -> set[str]:
    cells = [line.split("|")[column + 1].strip() for line in (DOCS / page).read_text().splitlines() if line.startswith("| ")]
    return {name for cell in cells for name in re.findall(r"[\w-]+", cell)}


def test_every_verb_is_in_the_list_and_has_its_entry():
    guide, reference = (DOCS / "reference/json.md").read_text(), (DOCS / "cli-reference.md").read_text()
    assert {"watch", "demo", "explain"} <= set(options_of())
    for verb, options in options_of().items():
        assert f"`{verb}" in guide, f"docs/reference/json.md does not have the verb {verb}"
        entry = reference.partition(f"\n## {verb}\n")[2].partition("\n## ")[0]
        for option in options:
            assert f"{option} " in entry.replace("`", " "), f"docs/cli-reference.md does not have {verb} {option}"


@pytest.mark.parametrize("command", ["preflight", "convert", "run"])
def test_every_option_of_the_runner_is_in_the_reference(command):
    runner = [sys.executable, "-c", "from geozarr_runner.cli import main; main()", command, "--help"]
    told = subprocess.run(runner, capture_output=True, text=True, check=True, timeout=60).stdout
    entry = (DOCS / "cli-reference.md").read_text().partition(f"\n## geozarr-runner {command}\n")[2].partition("\n## ")[0]
    if "those of [geozarr-runner convert]" in entry:
        entry = (DOCS / "cli-reference.md").read_text().partition("\n## geozarr-runner convert\n")[2]
    options = {*re.findall(r"(--[a-z-]+)", told.partition("options:")[2])} - {"--help"}
    assert len(options) > 15
    for option in options:
        assert f"`{option}" in entry, f"docs/cli-reference.md does not have geozarr-runner {command} {option}"


@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_is_documented(code):
    assert str(code.value) in rows("reference/json.md")


@pytest.mark.parametrize("name", [*SkipReason, *State])
def test_every_state_and_skip_reason_is_documented(name):
    assert name.value in rows("guarantees.md")


JSON = {
    "a line": Line, "an unreadable item": UnreadableItem, "a status": Status, "a source's entry": SourceStatus,
    "a backfill's order": Order, "one that waits": Waiting, "a group of failures": Failure, "a chain": Explanation,
    "a chain's item": ItemRow, "a move": HistoryRow, "what is next": Next, "a plan": Plan, "a plan's day": Day, "a target": Target,
    "an audit": Audit, "a gap": Gap, "a run": RunView, "a step": Step, "a fetched file": Fetched, "a cleaning": Cleaning,
    "an object to clean": Removal, "a finding": Finding, "a submission": Submission,
    "a last audit": Audited, "a pruning": Pruning,
}  # fmt: skip


@pytest.mark.parametrize("name", JSON)
def test_the_fields_of_every_json_document_are_those_of_the_code(name):
    table = (DOCS / "reference/json.md").read_text().partition(f"| field of {name} | meaning |\n")[2].partition("\n\n")[0]
    documented = [field for line in table.splitlines()[1:] for field in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(documented) == sorted(JSON[name].__dataclass_fields__)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_gap_is_documented(kind):
    assert kind.value in rows("reference/json.md")


@pytest.mark.parametrize("page", ["configuration.md", "cli-reference.md"])
def test_a_page_that_is_written_from_the_code_is_what_the_code_says(page):
    reference = runpy.run_path(str(ROOT / "tools" / "reference.py"))
    assert (DOCS / page).read_text() == reference["PAGES"][page](), "run `make docs`"


def test_every_module_has_its_place_on_the_page_of_the_architecture():
    named = set(re.findall(r"`(\w+)`", (DOCS / "architecture.md").read_text()))
    modules = {path.stem for folder in ("src/stac_watch", "runner/geozarr_runner") for path in (ROOT / folder).glob("*.py")}
    packages = {path.parent.name for path in (ROOT / "src" / "stac_watch").glob("*/__init__.py")}
    assert {name for name in modules | packages if not name.startswith(("__", "cli_"))} - named == set()


def test_every_link_between_pages_leads_somewhere():
    for page in [*DOCS.glob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_metric_and_path_of_the_web_is_documented():
    page = (DOCS / "monitoring.md").read_text()
    at = datetime(2026, 3, 1, tzinfo=UTC)
    order = Order("s2", at, at, at, 0, None, None)
    source = source_status("s2", {}, Lag(at, at, at), order, at, 0, 0, Discovery(overlap=timedelta(hours=1)))
    view = status({}, at, unreadable=0, watcher=None, sources=[source], waiting=[], failed=[], lines=[])
    loop = Loop("1", 1, at, leads=True, ailing=frozenset())
    told = {f"{f.name}{'_total' * (f.type == 'counter')}{'_info' * (f.type == 'info')}" for f in families(view, loop, ("s2",))}
    assert told == set(re.findall(r"^\| `(stac_watch_\w+)` \|", page, re.MULTILINE))
    labels = {re.sub(r"_(total|info)$", "", name): set(re.findall(r"\w+", text)) for name, text in
              re.findall(r"^\| `(stac_watch_\w+)` \|([\w, ]*)\|", page, re.MULTILINE)}  # fmt: skip
    for family in families(view, loop, ("s2",)):
        for sample in family.samples:
            assert set(sample.labels) == labels[family.name], family.name
    window = Window(None, (), Limits(), None, None, "1")
    cells = re.findall(r"^\| (`/[^|]*) \|", page, re.MULTILINE)
    paths = {path for cell in cells for path in re.findall(r"`/[\w./{}]*`", cell)}
    assert {f"`{route.path}`" for route in create_app(window).routes} == paths
    used = set(re.findall(r"stac_watch_\w+", page.partition("## What to be woken for")[2]))
    assert used <= told
