"""The documentation is held to the code: what exists is documented, and what is written down is what the code says."""

import re
import runpy
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stac_watch.asking import Unreadable
from stac_watch.audit import Audit, Gap, Kind
from stac_watch.backfill import Day, Plan
from stac_watch.config import Limits
from stac_watch.errors import Exit
from stac_watch.operate.clean import Cleaning
from stac_watch.operate.clean import Item as Removal
from stac_watch.operate.diagnosis import Finding
from stac_watch.operate.fetch import Fetched
from stac_watch.operate.runs import RunView, Step
from stac_watch.operate.submit import Submission
from stac_watch.policy import SkipReason
from stac_watch.records import HistoryRow, ItemRow, Lag, Order
from stac_watch.replay import Target
from stac_watch.states import State
from stac_watch.views.explain import Explanation, Next
from stac_watch.views.lines import Line
from stac_watch.views.metrics import Loop, families
from stac_watch.views.status import Discovery, Failure, SourceStatus, Status, Waiting, source_status, status
from stac_watch.web import Window, create_app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def help_of(*verb: str) -> str:
    command = [sys.executable, "-c", "from stac_watch.cli import main; main()", *verb, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def rows(page: str, column: int = 0) -> set[str]:
    cells = [line.split("|")[column + 1].strip() for line in (DOCS / page).read_text().splitlines() if line.startswith("| ")]
    return {name for cell in cells for name in re.findall(r"[\w-]+", cell)}


def test_every_verb_and_option_is_documented():
    page = (DOCS / "cli.md").read_text()
    verbs = re.findall(r"^  ([a-z]+)  ", help_of().partition("Commands:")[2], re.MULTILINE)
    assert {"watch", "demo", "explain"} <= set(verbs)
    for verb in verbs:
        assert f"`{verb}" in page, f"docs/cli.md does not have the verb {verb}"
        for option in re.findall(r"(--[a-z-]+)", help_of(verb)):
            known = option in page or option.removeprefix("--no-").join(("--", "")) in page
            assert known or option == "--help", f"docs/cli.md does not have {verb} {option}"


@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_is_documented(code):
    assert str(code.value) in rows("cli.md")


@pytest.mark.parametrize("name", [*SkipReason, *State])
def test_every_state_and_skip_reason_is_documented(name):
    assert name.value in rows("guarantees.md")


JSON = {
    "a line": Line, "an unreadable item": Unreadable, "a status": Status, "a source's entry": SourceStatus,
    "a backfill's order": Order, "one that waits": Waiting, "a group of failures": Failure, "a chain": Explanation,
    "a chain's item": ItemRow, "a move": HistoryRow, "what is next": Next, "a plan": Plan, "a plan's day": Day, "a target": Target,
    "an audit": Audit, "a gap": Gap, "a run": RunView, "a step": Step, "a fetched file": Fetched, "a cleaning": Cleaning,
    "an object to clean": Removal, "a finding": Finding, "a submission": Submission,
}  # fmt: skip


@pytest.mark.parametrize("name", JSON)
def test_the_fields_of_every_json_document_are_those_of_the_code(name):
    table = (DOCS / "cli.md").read_text().partition(f"| field of {name} | meaning |\n")[2].partition("\n\n")[0]
    documented = [field for line in table.splitlines()[1:] for field in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(documented) == sorted(JSON[name].__dataclass_fields__)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_gap_is_documented(kind):
    assert kind.value in rows("cli.md")


def test_configuration_page_is_what_the_models_say():
    reference = runpy.run_path(str(ROOT / "tools" / "reference.py"))
    assert (DOCS / "configuration.md").read_text() == reference["page"](), "run `make docs`"


def test_every_link_between_pages_leads_somewhere():
    for page in [*DOCS.glob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_metric_and_path_of_the_web_is_documented():
    page = (DOCS / "monitoring.md").read_text()
    at = datetime(2026, 3, 1, tzinfo=UTC)
    order = Order("s2", at, at, at, 0, None, None)
    source = source_status("s2", {}, Lag(at, at, at), order, at, 0, 0, Discovery(overlap=timedelta(hours=1)))
    view = status({}, at, quarantined=0, watcher=None, sources=[source], waiting=[], dead=[], lines=[])
    loop = Loop("1", 1, at, leads=True, ailing=frozenset())
    told = {f"{f.name}{'_total' * (f.type == 'counter')}{'_info' * (f.type == 'info')}" for f in families(view, loop, ("s2",))}
    assert told == set(re.findall(r"^\| `(stac_watch_\w+)` \|", page, re.MULTILINE))
    labels = {re.sub(r"_(total|info)$", "", name): set(re.findall(r"\w+", text)) for name, text in
              re.findall(r"^\| `(stac_watch_\w+)` \|([\w, ]*)\|", page, re.MULTILINE)}  # fmt: skip
    for family in families(view, loop, ("s2",)):
        for sample in family.samples:
            assert set(sample.labels) == labels[family.name], family.name
    window = Window(None, (), Limits(), None, None, "1")
    paths = set(re.findall(r"^\| (`/[\w./{}]*`) \|", page, re.MULTILINE))
    assert {f"`{route.path}`" for route in create_app(window).routes} == paths
    used = set(re.findall(r"stac_watch_\w+", page.partition("## What to be woken for")[2]))
    assert used <= told
