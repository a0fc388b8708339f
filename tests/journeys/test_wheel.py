"""What an index would hand out: both packages, built from their source archives, installed where there is no clone."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "stac_watch": (ROOT, ROOT / "src"),
    "geozarr_runner": (ROOT / "runner", ROOT / "runner"),
}  # project, and its package's folder
CONFIG = """
sources: [{name: s2, api: "http://127.0.0.1:9", collection: sentinel-2-l2a}]
"""


def run(*argv, **more):
    given = {"capture_output": True, "text": True, "check": False, "timeout": 120, **more}
    return subprocess.run([str(each) for each in argv], **given)


def build(kind, project, out):
    done = run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", out, cwd=project)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Package -> its wheel, made of nothing but its source archive."""
    made = {}
    for name, (project, _) in PACKAGES.items():
        folder = tmp_path_factory.mktemp(name)
        with tarfile.open(build("sdist", project, folder)) as archive:
            archive.extractall(folder / "unpacked", filter="data")
        [source] = (folder / "unpacked").iterdir()
        made[name] = build("wheel", source, folder)
    return made


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        return message_from_string(archive.read(name).decode())


@pytest.mark.parametrize("name", PACKAGES)
def test_a_wheel_has_every_file_of_its_package_and_nothing_else(wheels, name):
    folder = PACKAGES[name][1]
    tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard", name, cwd=folder, check=True).stdout.split()
    with zipfile.ZipFile(wheels[name]) as archive:
        packed = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert packed == set(tracked)


@pytest.mark.parametrize("name", PACKAGES)
def test_what_an_index_shows_is_there_and_leads_nowhere_into_the_clone(wheels, name):
    said = metadata(wheels[name])
    assert said["License-Expression"] == "Apache-2.0"
    assert said["License-File"] == "LICENSE"
    assert said["Summary"]
    assert said["Requires-Python"] == ">=3.12"
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_all("Classifier")
    links = re.findall(r"\]\(([^)]*)\)", said.get_payload())
    assert all(link.startswith("https://") for link in links)


def test_both_have_one_version_and_the_runner_asks_for_it(wheels):
    ours, runners = (metadata(wheels[name]) for name in PACKAGES)
    assert ours["Version"] == runners["Version"]
    assert f"stac-watch=={ours['Version']}" in runners.get_all("Requires-Dist")


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """The folder of the programs in an environment that has both wheels, and the libraries of this one."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    uv = ROOT / ".tools" / "bin" / "uv"
    done = run(uv, "pip", "install", "--quiet", "--offline", "--no-cache", "--no-deps", "--python", python, *wheels.values())
    assert done.returncode == 0, done.stderr
    [site] = home.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files, as of the clone, are not read
    return home / "bin"


@pytest.fixture
def elsewhere(installed, tmp_path):
    """Runs a program of the wheels in an empty folder."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("STAC_WATCH", "PYTHON", "VIRTUAL_ENV"))}

    def call(program, *argv):
        done = run(installed / program, *argv, cwd=tmp_path, env=environ | {"PATH": f"{installed}:/usr/bin:/bin"})
        assert str(ROOT) not in done.stdout + done.stderr
        return done

    return call


def test_the_programs_work_where_there_is_no_clone(elsewhere, installed, tmp_path):
    place = run(
        installed / "python", "-c", "import stac_watch, geozarr_runner; print(stac_watch.__file__, geozarr_runner.__file__)"
    )
    assert place.stdout.count("site-packages") == 2
    assert str(ROOT) not in place.stdout
    helped = elsewhere("stac-watch", "--help")
    assert helped.returncode == 0
    assert "backfill" in helped.stdout
    versions = {elsewhere(program, "--version").stdout.split()[1].strip(",") for program in ("stac-watch", "geozarr-runner")}
    assert len(versions) == 1
    nothing = elsewhere("stac-watch", "check")
    assert nothing.returncode == 78
    assert "--config" in nothing.stderr
    (tmp_path / "stac-watch.yaml").write_text(CONFIG)
    checked = elsewhere("stac-watch", "check")
    assert checked.returncode == 75  # nobody listens at that port
    assert re.search(r"^ok    engine", checked.stdout, re.MULTILINE), checked.stdout
