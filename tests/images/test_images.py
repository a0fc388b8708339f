"""Both images, built as people build them and run as a pod runs them: read-only, without network, as their own user."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from lab import ITEM, ROOT, Lab, Opened, Repository, release

pytestmark = pytest.mark.images

TAG = "test-images"
FINAL_STAGE_LACKS = re.compile(r"(pip[\d.]*|uv|gcc.*|g\+\+.*|cc|c\+\+|clang.*|ld|make|cmake|git|curl|wget)")
CATALOG = """
import json, os, subprocess, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from stac_watch.demo.catalog import Server, Store, create_app, make_item

now = datetime.now(UTC)
with Store(None) as store, Server(create_app(store, now=lambda: datetime.now(UTC))) as server:
    sensed = now - timedelta(days=1)  # a range ends at the present second, and what was sensed within it is not in the range
    item = f"S2A_MSIL2A_{sensed:%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{sensed:%Y%m%dT%H%M%S}"
    store.put_many([make_item(item, catalog_url=server.url, product_href=f"{server.url}/products/{item}.zarr", updated=now)])
    Path("stac-watch.yaml").write_text(sys.argv[1].replace("CATALOG", server.url))
    cluster = {"name": "none", "cluster": {"server": "https://127.0.0.1:9"}}
    context = {"name": "none", "context": {"cluster": "none", "user": "none"}}
    Path("kubeconfig").write_text(json.dumps({"clusters": [cluster], "contexts": [context], "current-context": "none",
                                              "users": [{"name": "none", "user": {}}]}))
    os.environ["KUBECONFIG"] = "kubeconfig"
    day = f"{sensed:%Y-%m-%d}"
    sys.exit(subprocess.run(["stac-watch", "backfill", "here", "--start", day, "--end", day, "--json"]).returncode)
"""
WHICH_PROJ = """
import pyproj
assert pyproj.CRS.from_epsg(32632).name == "WGS 84 / UTM zone 32N"
print(*{line.split()[-1] for line in open("/proc/self/maps") if "/libproj" in line})
"""
CONFIG = """
ledger: sqlite:///var/stac-watch.db
sources: [{name: here, api: CATALOG, collection: sentinel-2-l2a, allowed_hosts: [127.0.0.1]}]
recipe: {output: "var/{item_id}.zarr"}
engine: {kind: argo, webhook: "http://127.0.0.1:9/items"}
"""


@pytest.fixture(scope="module")
def runner(lab: Lab) -> Iterator[Opened]:
    lab.make("build", f"TAG={TAG}")
    with lab.opened(f"docker.io/library/geozarr-runner:{TAG}") as opened:
        yield opened


@pytest.fixture(scope="module")
def poller(lab: Lab) -> Iterator[Opened]:
    lab.make("build-poller", f"TAG={TAG}")
    with lab.opened(f"docker.io/library/stac-watch:{TAG}") as opened:
        yield opened


def bill(name: str) -> dict[str, str]:
    """What an image's bill of materials says is in it: package -> version. It lies beside the image, and is valid."""
    text = (ROOT / "build" / "images" / f"{name}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    return {entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(text)["components"]}


def locked() -> dict[str, str]:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return {entry["name"]: entry["version"] for entry in packages if "registry" in entry["source"]}


def convert(image: Opened, folder: Path, name: str) -> Mapping[str, Any]:
    """Converts the product inside the image and returns the outcome."""
    done = image.run("run", f"--stac-url=/data/{ITEM}.zarr", f"--output-zarr=/data/{name}.zarr", "--package=tar", folder=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout)
    assert (folder / f"{name}.zarr" / "stac-watch.json").exists()
    assert (folder / f"{name}.zarr.tar").exists()
    assert (folder / f"{name}.zarr").stat().st_uid == 10001
    return outcome


def test_runner_converts_where_nothing_but_its_volume_can_be_written(runner: Opened, product: Path):
    outcome = convert(runner, product, "locked")
    assert outcome["versions"]["eopf-geozarr"] == locked()["eopf-geozarr"]
    refused = runner.run("-c", "touch /opt/geozarr/new", folder=product, entrypoint=["/bin/sh"])
    assert "Read-only file system" in refused.stderr


def test_runner_tells_its_version_and_the_converters(runner: Opened, product: Path):
    said = runner.run("--version", folder=product).stdout
    assert said == f"geozarr-runner {release()}, eopf-geozarr {locked()['eopf-geozarr']}\n"


def test_poller_reads_a_catalog(poller: Opened, tmp_path: Path):
    tmp_path.chmod(0o777)
    done = poller.run("-c", CATALOG, CONFIG, folder=tmp_path, entrypoint=["python"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["to_do"] == 1


@pytest.mark.parametrize("name", ["runner", "poller"])
def test_image_says_what_it_is_and_holds_no_tools(name: str, request: pytest.FixtureRequest, lab: Lab):
    image: Opened = request.getfixturevalue(name)
    labels = image.config["Labels"]
    commit = lab.call("git", "rev-parse", "HEAD").stdout.strip()
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == commit
    assert labels["org.opencontainers.image.version"] == release()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert "org.opencontainers.image.source" in labels
    found = [p for folder in ("usr", "opt", "root", "bin") for p in (image.root / folder).rglob("*") if p.is_file()]
    assert len(found) > 5000
    assert [str(p) for p in found if FINAL_STAGE_LACKS.fullmatch(p.name) and p.stat().st_mode & 0o111] == []
    assert [p for p in found if "ensurepip" in p.parts or "site-packages/pip/" in str(p)] == []


@pytest.mark.parametrize("name", ["runner", "poller"])
def test_image_starts_as_the_user_that_the_pods_name_with_compiled_code(name: str, request: pytest.FixtureRequest):
    image: Opened = request.getfixturevalue(name)
    pod = yaml.safe_load((ROOT / "workflows" / "geozarr-convert.yaml").read_text())["spec"]["securityContext"]
    assert image.config["User"] == f"{pod['runAsUser']}:{pod['runAsGroup']}"
    home = next(image.root.glob("opt/*/lib/python3*/site-packages"))
    modules = [p for p in home.rglob("*.py") if "tests" not in p.parts]
    compiled = {p.name.partition(".cpython")[0] for p in home.rglob("*.pyc")}
    assert {p.stem for p in modules} - compiled == set()
    own = next(home.glob("stac_watch/model/__pycache__/errors.*.pyc")).read_bytes()
    assert int.from_bytes(own[4:8], "little") == 0b01, "a hash that is never compared: nothing can change"


@pytest.mark.parametrize("name", ["runner", "poller"])
def test_image_holds_exactly_what_the_lock_says(name: str, request: pytest.FixtureRequest):
    request.getfixturevalue(name)
    held = bill(f"{'geozarr-runner' if name == 'runner' else 'stac-watch'}-{TAG}")
    lock = locked() | {"stac-watch": release(), "geozarr-runner": release()}
    assert {package: version for package, version in held.items() if lock.get(package) != version} == {}
    assert ("eopf-geozarr" in held) == (name == "runner")
    assert ("kubernetes" in held) == (name == "poller")


@pytest.mark.parametrize("where", ["root by tag", "folder by commit"])
def test_converter_of_a_ref_with_its_own_lock(where: str, lab: Lab, repository: Repository, product: Path):
    by_tag = where == "root by tag"
    choice = ["REF=v0.12.1"] if by_tag else [f"REF={repository.later[:12]}", f"SUBDIR={repository.subdir}"]
    lab.make("build", f"DATA_MODEL=file://{repository.folder}", f"TAG={TAG}-ref", *choice)
    held = bill(f"geozarr-runner-{TAG}-ref")
    assert (held["eopf-geozarr"], held["structlog"]) == ("0.12.1", "25.5.0"), "the converter's lock decides"
    assert locked()["structlog"] != held["structlog"]
    assert {"jinja2", "pystac", "cloudevents"} <= set(held), "what the runner needs beyond it"
    assert "pytest" not in held
    with lab.opened(f"docker.io/library/geozarr-runner:{TAG}-ref") as image:
        wanted = lab.call("git", "rev-parse", "v0.12.1" if by_tag else repository.later, cwd=repository.folder).stdout.strip()
        assert image.config["Labels"]["stac-watch.converter.revision"] == wanted
        assert image.config["Labels"]["stac-watch.converter.source"] == f"file://{repository.folder}"
        if not by_tag:
            assert convert(image, product, "ref")["versions"]["eopf-geozarr"] == "0.12.1"


@pytest.mark.images_portable
def test_portable_image_converts_with_what_was_compiled_for_it(lab: Lab, product: Path):
    """As on an architecture without wheels: pyproj is compiled against the system's PROJ, and runs with it."""
    lab.make("build", "PORTABLE=1", "NO_BINARY=pyproj", f"TAG={TAG}-portable")
    with lab.opened(f"docker.io/library/geozarr-runner:{TAG}-portable") as image:
        said = image.run("-c", WHICH_PROJ, folder=product, entrypoint=["python"])
        assert said.returncode == 0, said.stderr
        used = said.stdout.split()
        assert used
        assert [path for path in used if not path.startswith("/usr/lib/")] == []
        assert convert(image, product, "portable")["versions"]["eopf-geozarr"] == locked()["eopf-geozarr"]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (["REF=v9"], "REF=v9 is not in"),
        (["REF=main"], "the root at main has no pyproject.toml and no uv.lock."),
        (["REF=main", "SUBDIR=tools/"], "tools/ at main has no pyproject.toml"),
    ],
)
def test_ref_that_holds_no_converter(choice: list[str], said: str, lab: Lab, repository: Repository):
    done = lab.make("build", f"DATA_MODEL={repository.folder}", *choice, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "→" in done.stderr
