"""The runbook is held to the code: every target is explained, and every command that a page names exists as it is written."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from command import verbs

from stac_watch.cluster.doctor import PERMISSIONS
from stac_watch.config.model import Config
from stac_watch.model.errors import Exit
from stac_watch.model.item import SkipReason

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
DEPLOY, RUNBOOK = DOCS / "deploy.md", DOCS / "runbook.md"
RULES = ROOT / "deploy" / "components" / "monitoring" / "rules.yaml"


@cache
def targets():
    """What `make help` lists, of every file that the Makefile includes."""
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return set(re.findall(r"^  make ([a-z0-9-]+)", done.stdout, re.MULTILINE))


def code(page):
    """The page's commands: code blocks by line, continued lines joined, and what stands in backticks."""
    text = page.read_text()
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [*lines, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))]


def test_every_target_is_explained():
    tables = (page.read_text().partition("\n## Targets\n")[2].partition("\n## ")[0] for page in (DEPLOY, ROOT / "CONTRIBUTING.md"))
    lines = [line for table in tables for line in table.splitlines() if line.startswith("| ")]
    explained = {name for line in lines for name in re.findall(r"`make ([a-z0-9-]+)", line.split("|")[1])}
    assert len(targets()) > 30
    assert targets() - explained == set()


def test_distclean_takes_nothing_that_is_its_user_s():
    """The ledger, outputs and runs lie in the clone unless the configuration says otherwise."""
    told = subprocess.run(["make", "-n", "distclean"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    removed = {Path(word) for line in re.findall(r"\brm -rf ([^;&|\n]+)", told) for word in line.split()}
    assert Path(".venv") in removed
    source = {"name": "a", "api": "https://a.example", "collection": "c"}
    settings = Config.model_validate({"sources": [source]})
    output = Path(settings.recipe.output.partition("/{")[0])
    theirs = [Path(settings.ledger.removeprefix("sqlite:///")), output, settings.engine.folder, Path("runs")]  # make fetch-tar
    assert not [path for path in theirs if removed & {path, *path.parents}]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_that_a_page_names_exists(page):
    named = set()
    for command in code(page):
        for words in re.findall(r"(?:^|[;&(] ?)make ((?:[a-z0-9-]+ ?)+)(?=$|[^=A-Za-z0-9-])", command.split("#")[0].strip()):
            named |= {word for word in words.split() if not word.startswith("-")}
    assert named <= targets()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_and_option_that_a_page_names_exists(page):
    there = verbs()
    for command in code(page):
        for verb, rest in re.findall(
            r"(?:^|[\s/])stac-watch (?:--debug )?((?:cluster |ledger )?[a-z]+(?:-server)?)\b([^|;&#]*)", command
        ):
            if verb in ("image", "pods"):
                continue
            assert verb in there, f"{page.name}: {command}"
            known = {name for parameter in there[verb].params for name in (*parameter.opts, *parameter.secondary_opts)}
            for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", rest):
                assert option in known | {"--help"}, f"{page.name}: {command}"


def test_the_commands_are_found_where_they_are():
    """Guards the two tests above: patterns that find nothing would let everything pass."""
    text = " ".join(code(RUNBOOK))
    assert text.count("stac-watch ") > 40
    assert text.count("make ") >= 10


def test_the_operators_role_is_what_the_doctor_asks_for():
    [block] = [b for b in re.findall(r"^```yaml\n(.*?)^```", DEPLOY.read_text(), re.MULTILINE | re.DOTALL) if "kind: Role" in b]
    given = {
        (g, r, v)
        for rule in yaml.safe_load(block)["rules"]
        for g in rule["apiGroups"]
        for r in rule["resources"]
        for v in rule["verbs"]
    }
    assert given == {(group, resource, verb) for _, group, resource, verbs in PERMISSIONS for verb in verbs.split()}


def rows(page, heading):
    """The rows of a page's first table below a heading, without its head, each by its first cell."""
    section = page.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines[2:]}


def test_every_alert_that_is_deployed_is_in_the_runbook_as_it_is():
    """The table is written from ALERTS; these are the rules that a cluster has, read from the other end."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    table = rows(RUNBOOK, "Alerts")
    assert sorted(table) == sorted(f"`{rule['alert']}` ({rule['labels']['severity']})" for rule in rules)
    for rule in rules:
        raised, cause, action = table[f"`{rule['alert']}` ({rule['labels']['severity']})"]
        everywhere = rule["expr"].replace('{namespace="geozarr"}', "").replace('namespace="geozarr",', "")
        assert raised.replace("\\|", "|").endswith(f"`{everywhere}` for {rule['for']}")
        assert cause, rule["alert"]
        assert "`" in action, f"{rule['alert']}: no command"


def test_every_exit_code_says_what_why_and_what_to_do():
    table = rows(DOCS / "reference" / "json.md", "Exit codes")
    assert set(table) == {str(code.value) for code in Exit} | {"137"}  # killed: the kernel's, and no code of ours
    for code, (what, _, why, command) in table.items():
        assert what, code
        assert why or code in ("0", "70", "130"), code
        assert "`" in command or "the same command" in command or "killed" in command or "nothing" in command, f"{code}: no command"


def test_every_skip_reason_says_what_why_and_how_to_have_it_all_the_same():
    table = rows(DOCS / "guarantees.md", "Skip reasons")
    assert set(table) == {f"`{reason.value}`" for reason in SkipReason}
    for reason, (what, why, command) in table.items():
        assert what, reason
        assert why, reason
        assert "`" in command or "backfill" in command or "tell the catalog" in command, f"{reason}: no command"


def test_each_trouble_has_a_command():
    sections = RUNBOOK.read_text().partition("\n## Troubleshooting\n")[2].split("\n### ")[1:]
    assert len(sections) >= 15
    for section in sections:
        title, _, body = section.partition("\n")
        assert "| command |" in body or "| exit | means | command |" in body, title
        assert "`" in body.rpartition("command |")[2], title
        if "| exit |" not in body:
            assert "| symptom |" in body, title
            assert "| cause |" in body, title
