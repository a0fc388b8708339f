"""`make build`, `load`, `push`, `k3d-up`, `argo-install`, `template`, `deploy`: what they call, and what they say instead.

The programs that they call are replaced by one that writes down its arguments: PATH holds it under their names, and little else.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "make", "cat", "git", "env", "touch", "awk")
RELEASE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
RUNNER, POLLER = f"docker.io/library/geozarr-runner:{RELEASE}", f"docker.io/library/stac-watch:{RELEASE}"
RECORDER = """#!/usr/bin/env python3
import json, os, pathlib, sys
argv = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps(argv) + "\\n")
if "--output" in argv and argv[0] != "kubectl" and argv[1] == "save":  # what `save` leaves behind
    pathlib.Path(argv[argv.index("--output") + 1]).touch()
if len(argv) > 2 and argv[1] == "push" and argv[-1].startswith("docker-archive:"):
    pathlib.Path(argv[-1].split(":")[1]).touch()
line = " ".join(argv)
for words, (code, out) in json.loads(os.environ["ANSWERS"]).items():
    if words in line:
        print(out, end="", file=sys.stderr if code else sys.stdout)
        sys.exit(code)
"""


@dataclass
class Machine:
    """A PATH with some programs on it."""

    folder: Path
    record: Path

    def make(self, *arguments: str, answers: dict[str, tuple[int, str]] | None = None):
        env = {
            "PATH": str(self.folder),
            "HOME": os.environ["HOME"],
            "RECORD": str(self.record),
            "ANSWERS": json.dumps(answers or {}),
        }
        argv = ["make", "--silent", "UV=false", *arguments]
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)

    def install(self, *programs: str) -> "Machine":
        for program in programs:
            (self.folder / program).write_text(RECORDER)
            (self.folder / program).chmod(0o755)
        return self

    def calls(self, *beginning: str) -> list[list[str]]:
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [call for call in map(json.loads, lines) if call[: len(beginning)] == list(beginning)]


@pytest.fixture
def computer(tmp_path: Path) -> Machine:
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    (folder / "python3").symlink_to(sys.executable)
    return Machine(folder, tmp_path / "record")


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_build_differs_by_the_builders_name(computer: Machine, builder: str):
    done = computer.install(builder).make("build", "TAG=try", "PLATFORM=linux/arm64", "PORTABLE=1")
    assert done.returncode == 0, done.stderr
    (build,) = computer.calls(builder, "build")
    assert build[build.index("--file") + 1] == str(ROOT / "runner" / "Dockerfile")
    assert build[build.index("--tag") + 1] == "docker.io/library/geozarr-runner:try"
    assert build[build.index("--platform") + 1] == "linux/arm64"
    assert {f"--build-arg=VERSION={RELEASE}", "--build-arg=PORTABLE=1"} < set(build)
    assert f"--label=org.opencontainers.image.version={RELEASE}" in build
    assert build[-1] == str(ROOT)
    assert not [argument for argument in build if "CONVERTER" in argument]
    assert "build/images/geozarr-runner-try.cdx.json" in done.stdout


def test_first_builder_that_answers_is_taken(computer: Machine):
    done = computer.install("docker", "podman").make("build-poller", answers={"docker info": (1, "no daemon")})
    assert done.returncode == 0, done.stderr
    assert computer.calls("docker", "build") == []
    (build,) = computer.calls("podman", "build")
    assert POLLER in build


def test_no_value_reaches_a_shell(computer: Machine, tmp_path: Path):
    trap = tmp_path / "trap"
    for value in (f"x'; touch {trap}; '", f'x"; touch {trap}; "', f"$$(touch {trap})", f"`touch {trap}`"):
        done = computer.install("docker").make("build", f"TAG={value}")
        assert "is no tag" in done.stderr, value
    assert not trap.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "REF=v1", "SUBDIR=tools/x"], "SUBDIR=tools/x must be a folder inside the repository and end in /."),
        (["build", "REF=v1", "SUBDIR=../other/"], "SUBDIR=../other/ must be a folder inside"),
        (["build", "SUBDIR=tools/"], "SUBDIR needs REF"),
        (["build", "REF=--upload-pack=id"], "REF=--upload-pack=id is neither a commit nor a tag"),
        (["build", "REF=v1", "DATA_MODEL=ext::sh -c id"], "DATA_MODEL=ext::sh -c id is no git URL"),
        (["build", "IMAGE=Ghcr.io/X"], "IMAGE=Ghcr.io/X is no image's name"),
        (["build", "TAG=a b"], "TAG=a b is no tag"),
        (["build", "PORTABLE=yes"], "PORTABLE=yes is not known"),
        (["build", "NO_BINARY=rasterio"], "NO_BINARY needs PORTABLE=1"),
        (["build", "PLATFORM=linux/s390x"], "PLATFORM=linux/s390x is not built"),
        (["build", "BUILDER=kaniko"], "BUILDER=kaniko is not known"),
        (["build", "BASE_IMAGE=-v"], "BASE_IMAGE=-v is no image"),
        (["build", "BUILDER=podman"], "podman does not answer"),
        (["push"], "docker.io/library/geozarr-runner:" + RELEASE + " names no registry of yours"),
        (["deploy", "OVERLAY=moon"], "There is no overlay moon."),
        (["load-kind"], "kind is not on PATH."),
        (["k3d-up"], "k3d is not on PATH."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_with_its_remedy(computer: Machine, arguments: list[str], said: str):
    done = computer.install("docker").make(*arguments)
    assert done.returncode != 0
    assert f"error: {said}" in done.stderr
    assert "\n  → " in done.stderr
    assert computer.calls("docker", "build") == []


@pytest.mark.parametrize("target", ["argo-install", "template", "deploy"])
def test_kubectl_or_the_cluster_is_missing(computer: Machine, target: str):
    assert "error: kubectl is not on PATH.\n  → Install it: https://" in computer.make(target).stderr
    refused = {"get --raw /readyz": (1, "connection refused"), "current-context": (0, "lost\n")}
    done = computer.install("kubectl").make(target, answers=refused)
    assert "error: No cluster answers (context: lost): connection refused\n  → Make one: make k3d-up" in done.stderr
    assert computer.calls("kubectl", "apply") == []


def test_without_a_builder(computer: Machine):
    assert "None of docker, podman, buildah answers." in computer.make("build").stderr


@pytest.mark.parametrize(
    ("context", "program", "expected"),
    [
        ("k3d-dev", "k3d", ["k3d", "image", "import", "ARCHIVE", "--cluster", "dev"]),
        ("kind-ci", "kind", ["kind", "load", "image-archive", "ARCHIVE", "--name", "ci"]),
        ("mini", "minikube", ["minikube", "--profile", "mini", "image", "load", "ARCHIVE"]),
    ],
)
def test_load_goes_to_the_current_cluster(computer: Machine, context: str, program: str, expected: list[str]):
    answers = {"config current-context": (0, f"{context}\n"), "profile list": (0, '{"valid": [{"Name": "mini"}]}')}
    done = computer.install("kubectl", "buildah", program).make("load", "TAG=kit-test", answers=answers)
    assert done.returncode == 0, done.stderr
    archives = [ROOT / "build" / "images" / f"{name}-kit-test.tar" for name in ("geozarr-runner", "stac-watch")]
    assert all(archive.exists() for archive in archives)
    loads = [call for call in computer.calls(program) if "list" not in call]
    assert loads == [[str(archive) if word == "ARCHIVE" else word for word in expected] for archive in archives]
    for archive in archives:
        archive.unlink()


def test_load_without_a_cluster_that_takes_archives(computer: Machine):
    remote = {"config current-context": (0, "gke-prod\n")}
    done = computer.install("kubectl", "docker", "minikube").make("load", answers=remote | {"profile list": (0, '{"valid": []}')})
    assert "No k3d, kind or minikube cluster: kubectl's current context is gke-prod, which is none of these." in done.stderr
    assert "make k3d-up" in done.stderr
    assert "make push" in done.stderr


def test_load_of_an_image_that_is_not_built(computer: Machine):
    answers = {"config current-context": (0, "k3d-dev\n"), "inspect": (1, "no such image")}
    done = computer.install("kubectl", "docker", "k3d").make("load-k3d", answers=answers)
    assert f"docker has no image {RUNNER}.\n  → Build it first: make build" in done.stderr


def test_push_and_one_tag_for_two_architectures(computer: Machine):
    names = ["IMAGE=ghcr.io/you/geozarr-runner", "POLLER_IMAGE=localhost:5000/stac-watch"]
    computer.install("docker")
    assert computer.make("push", "TAG=abc-amd64", *names).returncode == 0
    pushed = [call[2] for call in computer.calls("docker", "push")]
    assert pushed == ["ghcr.io/you/geozarr-runner:abc-amd64", "localhost:5000/stac-watch:abc-amd64"]
    assert computer.make("push-index", "TAG=main", "PARTS=abc-amd64 abc-arm64", *names).returncode == 0
    joined = computer.calls("docker", "buildx", "imagetools", "create")
    both = [f"ghcr.io/you/geozarr-runner:abc-{arch}" for arch in ("amd64", "arm64")]
    assert joined[0][4:] == ["--tag", "ghcr.io/you/geozarr-runner:main", *both]
    assert len(joined) == 2


def test_a_digest_is_signed_and_says_where_it_was_built(computer: Machine):
    names = ["IMAGE=ghcr.io/you/geozarr-runner", "POLLER_IMAGE=ghcr.io/you/stac-watch"]
    digest = f"sha256:{'ab' * 32}"
    done = computer.install("docker", "cosign").make("sign", "TAG=1", *names, answers={"imagetools inspect": (0, f"{digest}\n")})
    assert done.returncode == 0, done.stderr
    signed = [call[-1] for call in computer.calls("cosign", "sign", "--yes")]
    assert signed == [f"ghcr.io/you/{name}@{digest}" for name in ("geozarr-runner", "stac-watch")]
    kinds = {call[call.index("--type") + 1] for call in computer.calls("cosign", "attest", "--yes")}
    assert "slsaprovenance1" in kinds
    assert computer.make("sign", "TAG=1").returncode == 2, "of Docker Hub's library nothing is ours"


def test_a_release_s_tag_is_the_version_and_the_chart_goes_with_it(computer: Machine):
    assert computer.make("check-tag", f"NAME=v{RELEASE}").returncode == 0
    assert f"git tag v{RELEASE}" in computer.make("check-tag", "NAME=v9.9.9").stderr
    computer.install("helm", "cosign")
    answers = {"helm push": (0, f"Pushed: ghcr.io/you/charts/stac-watch:{RELEASE}\nDigest: sha256:{'cd' * 32}\n")}
    done = computer.make("push-chart", "CHARTS=oci://ghcr.io/you/charts", answers=answers)
    assert done.returncode == 0, done.stderr
    [package] = computer.calls("helm", "package")
    assert package[2].endswith("deploy/chart")
    [signed] = computer.calls("cosign", "sign")
    assert signed[-1] == f"ghcr.io/you/charts/stac-watch@sha256:{'cd' * 32}"
    assert "OCI" in computer.make("push-chart", "CHARTS=ghcr.io/you").stderr


def test_k3d_is_made_once_and_started_after(computer: Machine):
    computer.install("k3d", "kubectl")
    assert computer.make("k3d-up", answers={"cluster list": (0, "[]")}).returncode == 0
    (made,) = computer.calls("k3d", "cluster", "create")
    assert made[3] == "stac-watch"
    assert computer.make("k3d-up", answers={"cluster list": (0, '[{"name": "stac-watch"}]')}).returncode == 0
    assert len(computer.calls("k3d", "cluster", "create")) == 1
    assert computer.calls("k3d", "cluster", "start") == [["k3d", "cluster", "start", "stac-watch", "--wait"]]


def test_argo_is_installed_from_the_official_manifests_of_the_versions_that_are_tested(computer: Machine):
    versions = tomllib.loads((ROOT / "tests/cluster/harness/versions.toml").read_text())["components"]
    done = computer.install("kubectl").make("argo-install", answers={"get namespace": (1, "not found")})
    assert done.returncode == 0, done.stderr
    created = [call[3] for call in computer.calls("kubectl", "create", "namespace")]
    applied = [call[-1] for call in computer.calls("kubectl", "apply", "--server-side")]
    assert created == ["argo", "argo-events"]
    assert applied == [
        f"https://github.com/argoproj/argo-workflows/releases/download/v{versions['argo-workflows']['version']}/install.yaml",
        f"https://raw.githubusercontent.com/argoproj/argo-events/v{versions['argo-events']['version']}/manifests/install.yaml",
        str(ROOT / "deploy" / "argo"),
    ]
    waited = [call[5] for call in computer.calls("kubectl") if "rollout" in call]
    assert waited == ["deployment/workflow-controller", "deployment/argo-server", "deployment/controller-manager"]


def deployed(image: str, namespace: str, *args: str) -> dict:
    containers = [{"image": image, "args": list(args)}]
    return {"metadata": {"namespace": namespace}, "spec": {"template": {"spec": {"containers": containers}}}}


def test_an_argo_that_is_there_is_not_changed(computer: Machine):
    """It may be others' as well, and whoever installed it would be surprised."""
    computer.install("kubectl")
    versions = tomllib.loads((ROOT / "tests/cluster/harness/versions.toml").read_text())["components"]
    ours = f"v{versions['argo-workflows']['version']}"
    for image, namespace in (
        ("quay.io/argoproj/workflow-controller:v3.7.2", "argo"),
        (f"mirror/workflow-controller:{ours}", "platform"),
    ):
        there = json.dumps({"items": [deployed(image, namespace)]})
        done = computer.make("argo-install", answers={"get deployments": (0, there)})
        assert f"argo-workflows is there already: {image} in namespace {namespace}." in done.stderr
        assert computer.calls("kubectl", "apply") == []
    event_source = deployed(f"quay.io/argoproj/argo-events:v{versions['argo-events']['version']}", "geozarr", "eventsource-service")
    same = deployed(f"quay.io/argoproj/workflow-controller:{ours}", "argo")
    done = computer.make("argo-install", answers={"get deployments": (0, json.dumps({"items": [event_source, same]}))})
    assert done.returncode == 0, done.stderr
    assert "--force-conflicts" not in computer.calls("kubectl", "apply")[-1], "what the controller is told is never taken by force"


def test_deploy_before_argo(computer: Machine):
    done = computer.install("kubectl").make("deploy", answers={"get crd sensors": (1, "not found")})
    assert "The cluster does not know sensors.\n  → Install both Argos first: make argo-install" in done.stderr


def test_template_without_its_namespace(computer: Machine):
    rendered = json.dumps({"kind": "WorkflowTemplate", "metadata": {"namespace": "geozarr"}})
    answers = {"create --dry-run=client": (0, rendered), "get namespace geozarr": (1, "")}
    done = computer.install("kubectl").make("template", answers=answers)
    assert "The cluster has no namespace geozarr.\n  → make deploy makes it" in done.stderr


def test_deploy_names_the_secrets_that_are_missing(computer: Machine):
    reference = {
        "webhook": {"authSecret": {"name": "token", "key": "token"}},
        "maybe": {"secretKeyRef": {"name": "a", "optional": True}},
    }
    rendered = json.dumps({"kind": "EventSource", "metadata": {"namespace": "geozarr"}, "spec": reference})
    answers = {"create --dry-run=client": (0, rendered), "get secret token": (1, "not found")}
    done = computer.install("kubectl").make("deploy", answers=answers)
    assert done.returncode == 0, done.stderr
    assert "missing: kubectl --namespace geozarr create secret generic token --from-file=token=FILE" in done.stdout
    assert "generic a " not in done.stdout
    (applied,) = computer.calls("kubectl", "apply")
    assert applied[-2:] == ["-k", str(ROOT / "deploy" / "overlays" / "k3d")]
    with_tag = computer.make("deploy", "TAG=abc", answers=answers)
    assert with_tag.returncode == 0, with_tag.stderr
    folder = Path(computer.calls("kubectl", "apply", "--server-side", "--force-conflicts", "-k")[-1][-1])
    assert folder.name.startswith("stac-watch-"), "a kustomization of its own, with the other images"
