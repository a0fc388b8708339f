"""What the tests of the images share. Those that build run when asked for (`make test-images`), else they are skipped."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages

import lab as laboratory

from stac_watch.demo.product import write_product

ASKED = "STAC_WATCH_TEST_IMAGES"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "images: builds images with buildah; `make test-images`")
    config.addinivalue_line("markers", "images_portable: installs GDAL's toolchain as well; `make test-images PORTABLE=1`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        asked = os.environ.get(ASKED)
        if item.get_closest_marker("images") and not asked:
            item.add_marker(pytest.mark.skip(reason="builds images: `make test-images` runs it"))
        if item.get_closest_marker("images_portable") and asked != "portable":
            item.add_marker(pytest.mark.skip(reason="installs GDAL's toolchain: `make test-images PORTABLE=1` runs it"))


@pytest.fixture(scope="session")
def lab() -> Iterator[laboratory.Lab]:
    if reason := laboratory.missing():
        assert os.environ.get("CI") != "true", reason
        pytest.skip(reason)
    with laboratory.open_lab(os.environ) as opened:
        yield opened


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small product of the real structure, which the images' user may write to."""
    folder = tmp_path_factory.mktemp("data")
    write_product(folder, laboratory.ITEM)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 10001, 10001)
    return folder


@pytest.fixture(scope="session")
def repository(lab: laboratory.Lab, tmp_path_factory: pytest.TempPathFactory) -> laboratory.Repository:
    """Source, pyproject.toml and uv.lock as the real repository has them; resolved by uv from the registry here and now."""
    folder, subdir = tmp_path_factory.mktemp("data-model"), "tools/eopf-geozarr/"
    _write_converter(lab, folder)

    def git(*argv: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main")
        return subprocess.run(["git", *identity, *argv], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "at the root")
    git("tag", "v0.12.1")
    (folder / subdir).mkdir(parents=True)
    for name in ("pyproject.toml", "uv.lock", "README.md", "src"):
        git("mv", name, f"{subdir}{name}")
    git("commit", "--quiet", "--message", "in a folder")
    return laboratory.Repository(folder, subdir, git("rev-parse", "HEAD"))


def _write_converter(lab: laboratory.Lab, folder: Path) -> None:
    found = find_spec("eopf_geozarr")  # found, not imported: its import warns
    assert found is not None
    source, skip = Path(str(found.origin)).parent, shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, folder / "src" / "eopf_geozarr", ignore=skip)
    (folder / "README.md").write_text("# data-model\n")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    lab.call(laboratory.ROOT / ".tools" / "bin" / "uv", "lock", "--quiet", "--python", sys.executable, cwd=folder)


#: the real one's parts that matter here: its build backend, groups that must stay out, and bounds of its own; structlog is held
#: at a version that our lock does not have, so that a build shows whose lock it took
PYPROJECT = """
[build-system]
requires = ["setuptools>=61.0", "wheel"]
build-backend = "setuptools.build_meta"

[project]
name = "eopf-geozarr"
version = "0.12.1"
description = "GeoZarr compliant data model for EOPF datasets"
readme = "README.md"
requires-python = ">=3.12"
dependencies = [
    "pydantic-zarr>=0.8.0", "pydantic>=2.12", "zarr[cast-value-rs]>=3.2.0,<3.4.0", "xarray>=2025.7.1",
    "dask[array,distributed]>=2026.1.0", "numpy>=2.3.1", "rioxarray>=0.13.0", "cf-xarray>=0.8.0", "typing-extensions>=4.15.0",
    "zarr-cm>=0.5.0", "aiohttp>=3.14.3", "s3fs>=2024.6.0", "boto3>=1.34.0", "pyproj>=3.7.0", "pystac>=1.8.0", "structlog>=25.5.0",
]

[project.scripts]
eopf-geozarr = "eopf_geozarr.cli:main"

[dependency-groups]
dev = ["pytest>=7.0.0"]
test = ["jsondiff>=2.2.1"]

[tool.setuptools.packages.find]
where = ["src"]
include = ["eopf_geozarr*"]

[tool.setuptools.package-data]
"*" = ["*.json", "*.xml", "*.yml", "*.yaml"]

[tool.uv]
default-groups = ["dev", "test"]
constraint-dependencies = ["structlog==25.5.0", "xarray==2026.7.0"]
"""
