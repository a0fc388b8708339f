"""What repositories of charts ask of one (`ct lint` of helm/chart-testing): its metadata, and how its YAML is written.

That program is on no registry that the tests have; its rules are written down here. `helm lint --strict` is with the chart's tests.
"""

import re

import pytest
import yaml
from fakes.installation import ROOT
from yamllint import linter
from yamllint.config import YamlLintConfig

CHART = ROOT / "deploy" / "chart"
RULES = YamlLintConfig("""
rules:
  braces: {max-spaces-inside: 0}
  brackets: {max-spaces-inside: 0}
  colons: {max-spaces-before: 0, max-spaces-after: 1}
  commas: {max-spaces-before: 0, min-spaces-after: 1, max-spaces-after: 1}
  comments: {require-starting-space: true, min-spaces-from-content: 2}
  empty-lines: {max: 2, max-start: 0, max-end: 0}
  hyphens: {max-spaces-after: 1}
  indentation: {spaces: consistent, indent-sequences: whatever}
  key-duplicates: enable
  new-line-at-end-of-file: enable
  new-lines: {type: unix}
  trailing-spaces: enable
  truthy: enable
""")
TEXTS = ("apiVersion", "appVersion", "description", "home", "icon", "kubeVersion", "name", "type", "version")


@pytest.mark.parametrize(
    "path",
    [CHART / "Chart.yaml", CHART / "values.yaml", *sorted((ROOT / "deploy").glob("*/*values.yaml"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_the_yaml_that_people_read_is_well_written(path):
    assert [str(problem) for problem in linter.run(path.read_text(), RULES)] == []


def test_the_metadata_is_what_a_repository_of_charts_wants():
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about.keys() >= {"name", "home", "version", "apiVersion", "description", "maintainers"}
    assert about.keys() <= {*TEXTS, "annotations", "dependencies", "deprecated", "keywords", "maintainers", "sources"}
    assert {key: value for key, value in about.items() if key in TEXTS and not isinstance(value, str)} == {}
    assert all(person["name"] and person.keys() <= {"name", "email", "url"} for person in about["maintainers"])
    assert about["apiVersion"] == "v2", "charts without one are of Helm 2"
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", about["version"]), "chart repositories sort by it"


def test_a_second_rendering_is_the_same_wherever_it_is_done():
    """Argo CD renders without a cluster and without a release's history, and again at each look: what asks for them never rests."""
    templates = {path: path.read_text() for path in (CHART / "templates").rglob("*.*")}
    actions = {path: " ".join(re.findall(r"{{(.*?)}}", text, re.DOTALL)) for path, text in templates.items()}
    told = re.compile(
        r"\b(lookup|rand\w+|uuidv4|now|date|dateInZone|ago|gen[A-Z]\w+|htpasswd|encryptAES)\b|\.Release\.(Revision|Is\w+)|\.Capabilities"
    )
    calls = {path: re.sub(r'"[^"]*"|`[^`]*`', "", text) for path, text in actions.items()}
    assert {path.name: found.group() for path, text in calls.items() if (found := told.search(text))} == {}


def test_no_hook_but_the_test():
    """Argo CD takes Helm's hooks for its own, Flux waits for each: one at install or upgrade would run at every sync."""
    texts = {path: path.read_text() for path in (CHART / "templates").rglob("*.yaml")}
    hooks = {path.name: re.findall(r'"?helm\.sh/hook"?: *"?([\w,-]+)', text) for path, text in texts.items()}
    assert {name: found for name, found in hooks.items() if found} == {"check.yaml": ["test"]}
    assert not any("argocd.argoproj.io/hook" in text for text in texts.values())
