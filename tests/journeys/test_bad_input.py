"""Bad input, as a person meets it: one line that says what, where and what next; the documented exit code; nothing half-done."""

import json
import socket
import subprocess
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import loopback
import pytest
import yaml
from command import Result
from command import call as run

from stac_watch.demo.catalog import Server, Store, create_app, make_collection, make_item
from stac_watch.demo.product import write_product

pytestmark = pytest.mark.long

ITEM = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"


def refused(result: Result, code: int, *words: str) -> None:
    assert result.code == code, result.said
    assert "Traceback" not in result.err
    error, hint = result.err.strip().splitlines()[-2:]
    assert error.startswith("error: ")
    assert hint.startswith("  → ")
    for word in words:
        assert word in result.err, f"{word!r} is not in: {result.err}"


def settings(folder: Path, api: str = "http://127.0.0.1:9", **changes: object) -> Path:
    document = {
        "ledger": f"sqlite:///{folder}/ledger.db",
        "sources": [{"name": "s2", "api": api, "collection": "sentinel-2-l2a", "poll": {"since": "3650d"}}],
        "recipe": {"output": f"{folder}/outputs/{{item_id}}.zarr", "package": "none"},
        "engine": {"kind": "local", "folder": f"{folder}/runs"},
        **changes,
    }
    path = folder / "stac-watch.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def answering(body: bytes, content_type: str, status: int = 200) -> AbstractContextManager[str]:
    """A server that answers everything with the same thing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # the name that http.server calls

        def log_message(self, *_: object) -> None:
            return

    return loopback.serving(Handler)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources: [{name: a, api: 'http://x', collection: c, pol: {}}]", ["unknown key 'sources.a.pol'", "did you mean 'poll'"]),
        ("sources: [{name: a, api: 'http://x', collection: c, poll: {interval: 5 min}}]", ["interval", "5 min", "15m"]),
        ("sources: [{name: a, api: 'ftp://x', collection: c}]", ["api", "ftp://x", "http"]),
        ("sources: []", ["sources"]),
        ("sources: [", ["is not YAML", "line 1"]),
        ("", ["holds no mapping"]),
        ("sources: [{name: a, api: 'http://x', collection: c}]\nrecipe: {output: 'o/{item}.zarr'}", ["{item}", "item_id"]),
        (
            "sources: [{name: a, api: 'http://x', collection: c}]\nengine: {kind: local, limits: {rate: fast}}",
            ["rate", "fast", "2/s"],
        ),
    ],
)
def test_configuration(tmp_path, text, words):
    path = tmp_path / "stac-watch.yaml"
    path.write_text(text)
    refused(run("watch", "--once", cwd=tmp_path), 78, str(path.name), *words)
    assert list(tmp_path.iterdir()) == [path], "something was made before the configuration was understood"


def test_no_configuration_and_wrong_usage(tmp_path):
    refused(run("watch", "--once", cwd=tmp_path), 78, "stac-watch.yaml", "--config")
    refused(run("wach", cwd=tmp_path), 2, "wach")
    refused(run("items", "--state", "lost", "-c", str(settings(tmp_path)), cwd=tmp_path), 2, "lost")


def test_catalog_answers_html(tmp_path):
    with answering(b"<html>maintenance</html>", "text/html") as url:
        refused(run("watch", "--once", "-c", str(settings(tmp_path, url)), cwd=tmp_path), 75, url, "not JSON")


def test_catalog_is_not_stac(tmp_path):
    with answering(b'{"hello": "world"}', "application/json") as url:
        refused(run("watch", "--once", "-c", str(settings(tmp_path, url)), cwd=tmp_path), 78, url, "STAC", "`api:`")


def test_no_such_collection(tmp_path):
    with Store(None) as store, Server(create_app(store, now=lambda: datetime.now(UTC))) as server:
        path = settings(tmp_path, server.url, sources=[{"name": "s2", "api": server.url, "collection": "sentinel-9"}])
        refused(run("watch", "--once", "-c", str(path), cwd=tmp_path), 78, "sentinel-9", f"{server.url}/collections")


def test_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(run("demo", "--folder", str(tmp_path / "demo"), "--port", port, "--size", "360", cwd=tmp_path), 69, port)


def test_folder_that_is_not_the_demos(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    refused(run("demo", "--folder", str(tmp_path), cwd=tmp_path), 69, "not a demo's folder", "--folder")
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_output_folder_cannot_be_written(tmp_path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    refused(run("watch", "--once", "-c", str(settings(tmp_path)), cwd=tmp_path), 73, "outputs")


def test_ledger_is_something_else(tmp_path):
    (tmp_path / "ledger.db").write_text("a text that is long enough to be read as a database header, and is none" * 10)
    refused(run("status", "-c", str(settings(tmp_path)), cwd=tmp_path), 78, "ledger")


def test_unknown_item(tmp_path, open_ledger):
    open_ledger(tmp_path / "ledger.db").close()
    refused(run("explain", "S2A_NOWHERE", "-c", str(settings(tmp_path)), cwd=tmp_path), 65, "S2A_NOWHERE", "items")


@pytest.mark.parametrize(
    ("spoil", "groups", "state", "code", "words"),
    [
        ("none", "measurements/reflectance/r30m", "failed", 65, ["r30m", "r20m"]),
        ("not sentinel-2", "", "failed", 65, ["Sentinel-2"]),
        ("truncated", "", "failed", 65, ["b02"]),
        ("host", "", None, None, ["not allowed"]),
    ],
)
def test_product_that_cannot_be_converted(tmp_path, spoil, groups, state, code, words):
    """The watcher goes on; the item ends as failed (or unreadable) with its reason, and no output under any name."""
    products = tmp_path / "products"
    products.mkdir()
    product = write_product(products, ITEM, size=360)
    if spoil == "truncated":
        chunk = product / "measurements" / "reflectance" / "r10m" / "b02" / "0.0"
        chunk.write_bytes(chunk.read_bytes()[:100])
    if spoil == "not sentinel-2":
        metadata = json.loads((product / ".zmetadata").read_text())
        kept = {k: v for k, v in metadata["metadata"].items() if not k.startswith("measurements")}
        (product / ".zmetadata").write_text(json.dumps(metadata | {"metadata": kept}))
    with Store(None) as store, Server(create_app(store, products=products, now=lambda: datetime.now(UTC))) as server:
        path = settings(tmp_path, server.url)
        document = yaml.safe_load(path.read_text())
        document["recipe"]["groups"] = groups
        path.write_text(yaml.safe_dump(document))
        href = f"http://{'169.254.169.254' if spoil == 'host' else server.url[7:]}/products/{ITEM}.zarr"
        sensed = datetime(2025, 10, 8, 10, 0, 41, tzinfo=UTC)
        store.put(make_item(ITEM, catalog_url=server.url, product_href=href, updated=datetime.now(UTC), datetime=sensed))
        result = run("watch", "--once", "-c", str(path), cwd=tmp_path)
        assert result.code == (1 if state == "failed" else 0), result.said
        shown = run("items", "--json", "-c", str(path), cwd=tmp_path).out if state else result.out
        status = run("status", "--json", "-c", str(path), cwd=tmp_path).out
    if state == "failed":
        (line,) = json.loads(shown)
        assert line["state"] == state
        explained = json.loads(run("explain", ITEM, "--json", "-c", str(path), cwd=tmp_path).out)
        assert explained[0]["outcome"]["code"] == code
        for word in words:
            assert word in line["reason"], line["reason"]
    else:
        assert json.loads(status)["unreadable"] == 1
    assert list((tmp_path / "outputs").iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 8 MB, half of them for the WAL; mounting one needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_disk_of_the_ledger_is_full(tmp_path, tiny_disk):
    """One line, exit 73; and when there is space again the same command goes on."""
    with Store(None) as store, Server(create_app(store, now=lambda: datetime.now(UTC))) as server:
        store.put_collection(make_collection())
        path = settings(tmp_path, server.url, ledger=f"sqlite:///{tiny_disk}/ledger.db")
        assert run("watch", "--once", "-c", str(path), cwd=tmp_path).code == 0
        sensed = datetime(2025, 10, 8, 10, 0, 41, tzinfo=UTC)
        for n in range(4):  # each is a run later on
            item_id = ITEM.replace("R122", f"R{n:03}")
            href = f"{server.url}/products/{item_id}.zarr"
            store.put(make_item(item_id, catalog_url=server.url, product_href=href, updated=datetime.now(UTC), datetime=sensed))
        ballast = tiny_disk / "ballast"
        with pytest.raises(OSError, match="No space"), ballast.open("wb") as file:
            file.write(b"0" * 9_000_000)
        refused(run("watch", "--once", "-c", str(path), cwd=tmp_path), 73, "cannot write the ledger", "free space")
        ballast.unlink()
        assert json.loads(run("items", "--json", "-c", str(path), cwd=tmp_path).out) == []
        again = run("watch", "--once", "-c", str(path), cwd=tmp_path)
        assert again.code == 0, again.err
        assert len(json.loads(run("items", "--json", "-c", str(path), cwd=tmp_path).out)) == 4
