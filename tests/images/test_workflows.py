"""The workflow files of GitHub Actions do nothing but call make, with actions that cannot change under them."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from lab import Lab

ROOT = Path(__file__).parents[2]
ACTIONLINT = "v1.7.7"
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(file: Path) -> list[dict[str, object]]:
    jobs = yaml.safe_load(file.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.fixture(scope="module")
def targets() -> set[str]:
    """What make knows, asked of make itself."""
    said = subprocess.run(["make", "--question", "--print-data-base"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"^([a-z0-9-]+):(?!=)", said, re.MULTILINE))


def test_there_are_workflows():
    assert {file.name for file in FILES} == {"ci.yml", "images.yml"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_steps_call_targets_that_exist(file: Path, targets: set[str]):
    commands = [str(step["run"]) for step in steps(file) if "run" in step]
    called = [command.split()[1] for command in commands if command.startswith("make ")]
    assert called
    assert set(called) <= targets
    others = [command for command in commands if not re.match(r"make [a-z-]+|docker login ghcr\.io ", command)]
    assert others == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_actions_are_pinned_to_a_commit_with_its_version(file: Path):
    used = re.findall(r"uses: (.*)", file.read_text())
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_event_text_reaches_a_shell_and_tokens_can_little(file: Path):
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert [step for step in steps(file) if "${{" in str(step.get("run", ""))] == []
    checkouts = [step for step in steps(file) if str(step.get("uses", "")).startswith("actions/checkout@")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)
    assert "pull_request_target" not in file.read_text()


def test_both_architectures_have_what_the_images_need():
    """arm64 is built without a compiler: each locked package that is installed has a wheel for it, or is pure Python."""
    import tomllib

    packages = {entry["name"]: entry for entry in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    waiting, needed = ["geozarr-runner", "stac-watch"], set()
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            extras = packages[name].get("optional-dependencies", {}).values() if name == "stac-watch" else []
            found = [*packages[name].get("dependencies", []), *(entry for extra in extras for entry in extra)]
            waiting += [entry["name"] for entry in found if "win32" not in entry.get("marker", "")]
    wheel = re.compile(r"-(?:cp313-cp313|cp3\d+-abi3|py3-none|py2\.py3-none)-(?:any|manylinux\w*_(?:x86_64|aarch64)[\w.]*)\.whl$")
    assert len(needed) > 80
    for architecture in ("x86_64", "aarch64"):
        lacking = [
            name
            for name in needed - {"geozarr-runner", "stac-watch"}
            if not any(
                wheel.search(entry["url"]) and ("-any.whl" in entry["url"] or architecture in entry["url"])
                for entry in packages[name].get("wheels", [])
            )
        ]
        assert lacking == [], architecture


@pytest.mark.images
def test_they_are_what_github_understands(lab: Lab):
    """Schemas, expressions, events and runners' labels, as actionlint knows them; compiled from the Go module proxy."""
    argv = ["go", "run", f"github.com/rhysd/actionlint/cmd/actionlint@{ACTIONLINT}"]
    done = lab.call(*argv, *FILES, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
