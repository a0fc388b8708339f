"""A secret is where it is used, and nowhere else: not in what is printed, logged, stored or rendered, nor in a command line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import kubernetes
import pytest
import yaml
from fakes.installation import files_of
from fakes.kubernetes import Api
from fakes.kubernetes import serving as serving_kubernetes
from loopback import serving
from pydantic import SecretStr

from stac_watch.cluster.manifests.facts import settings_of
from stac_watch.config.load import load
from stac_watch.demo.catalog import Server, Store, create_app
from stac_watch.ledger.database import open_engine, shown_url
from stac_watch.model.errors import ConfigError, Refused
from stac_watch.model.event import Conversion, build_event
from stac_watch.runs.argo import ArgoEngine
from stac_watch.runs.kubernetes_api import Cluster

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "stac-watch"
TOKEN = "t0k3n-of-this-test-only"
PASSWORD = "p4ssw0rd-of-this-test-only"


@dataclass
class Webhook:
    """An EventSource that refuses every token, and remembers what it was sent."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    seen_by_ps: str = ""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    kept = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            kept.tokens.append(self.headers.get("Authorization", ""))
            kept.seen_by_ps = "\n".join(
                path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                for path in Path("/proc").glob("[0-9]*/cmdline")
                if readable(path)
            )
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with serving(Handler) as url:
        kept.url = f"{url}/items"
        yield kept


def readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:  # the process ended, or is another user's
        return False
    return True


@pytest.fixture
def event() -> bytes:
    moment = datetime(2025, 10, 8, 10, tzinfo=UTC)
    return build_event(
        Conversion(
            catalog="https://stac.example", collection="c", item_id="S2A_X", revision="0" * 16, recipe="r", kind="create",
            reason="new", lane="live", time=moment, datetime=moment, item_href="https://stac.example/i", product_href="https://data.example/x.zarr",
            output_zarr="s3://out/x.zarr",
        ), 1,
    )  # fmt: skip


@pytest.fixture
def kubernetes_url(tmp_path) -> Iterator[str]:
    """A cluster with nothing in it."""
    with serving_kubernetes(Api(volume=tmp_path)) as url:
        yield url


@pytest.fixture
def config(tmp_path, webhook, kubernetes_url) -> Iterator[Path]:
    """An installation for Argo on an empty cluster; its catalog answers, with no collection."""
    with Store() as store, Server(create_app(store, now=lambda: datetime.now(UTC))) as catalog:
        yield installed(tmp_path, webhook.url, catalog.url, kubernetes_url)


def installed(tmp_path: Path, webhook: str, api: str, kubernetes_url: str) -> Path:
    path = tmp_path / "stac-watch.yaml"
    sources = [{"name": "s2", "api": api, "collection": "c"}]
    path.write_text(yaml.safe_dump({
        "ledger": f"sqlite:///{tmp_path}/ledger.db", "sources": sources, "engine": {"kind": "argo", "webhook": webhook},
    }))  # fmt: skip
    cluster = {"name": "c", "cluster": {"server": kubernetes_url}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    kube = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kube))
    return path


def run(config: Path, *arguments: str, stdin: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "STAC_WATCH__ENGINE__TOKEN": TOKEN, "KUBECONFIG": str(config.parent / "kubeconfig")}
    argv = [str(COMMAND), *arguments, "--config", str(config)]
    told = {"input": stdin, "env": environ, "cwd": config.parent}
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, **told)


def test_the_token_goes_into_one_header_and_nowhere_else(config, webhook, event, stac_watch):
    """Sent for real, refused for real, with the traceback that --debug adds; and what `ps` shows meanwhile."""
    sent = run(config, "--debug", "send", "-", stdin=event.decode())
    assert sent.returncode == 77, sent.stdout + sent.stderr
    assert webhook.tokens == [f"Bearer {TOKEN}"]
    assert webhook.bodies == [event]
    assert "stac-watch" in webhook.seen_by_ps, "the list of processes was looked at while it was sent"
    told = [sent.stdout, sent.stderr, webhook.seen_by_ps, event.decode()]
    given = {"STAC_WATCH__ENGINE__TOKEN": TOKEN, "KUBECONFIG": str(config.parent / "kubeconfig")}
    told += [stac_watch(verb, "--config", config, cwd=config.parent, **given).said for verb in ("check", "status")]
    told += [path.read_bytes().decode(errors="replace") for path in config.parent.rglob("*") if path.is_file()]  # ledger included
    assert not [text for text in told if TOKEN in text]


def test_the_token_is_in_no_repr_and_no_error(webhook, event, kubernetes_url):
    api = kubernetes.client.ApiClient(kubernetes.client.Configuration(host=kubernetes_url))
    engine = ArgoEngine(
        webhook.url,
        [SecretStr(TOKEN)],
        cluster=Cluster(api, "n"),
        max_in_flight=1,
        confirm_after=timedelta(0),
        now=lambda: datetime.now(UTC),
    )
    with pytest.raises(Refused) as error:
        engine.submit(event)
    engine.close(stop_runs=False)
    assert TOKEN not in f"{error.value!r} {error.value.message} {error.value.hint} {engine!r} {vars(engine)!r}"


def test_a_configuration_shows_no_secret_however_it_is_shown(config):
    settings = load(config, {"STAC_WATCH__ENGINE__TOKEN": TOKEN, "STAC_WATCH__LEDGER": f"postgresql+psycopg://me:{PASSWORD}@db/x"})
    shown = f"{settings!r} {settings} {settings.engine!r} {settings.engine.model_dump_json()}"
    assert TOKEN not in shown
    assert PASSWORD not in shown
    assert PASSWORD not in shown_url(settings.ledger)
    assert "***" in shown_url(settings.ledger)


def test_a_token_in_the_file_is_refused_because_the_file_becomes_a_configmap(config):
    document = yaml.safe_load(config.read_text())
    document["engine"]["token"] = TOKEN
    config.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=r"engine\.token") as error:
        load(config, {})
    assert TOKEN not in error.value.message
    assert "STAC_WATCH__ENGINE__TOKEN" in error.value.hint


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg//me:{PASSWORD}@db/x", f"postgresql+nothing://me:{PASSWORD}@db/x", f"me:{PASSWORD}@db", f"postgres://me:{PASSWORD}@127.0.0.1:9/x",
    ],
)  # fmt: skip
def test_a_wrong_ledger_url_is_named_without_its_password(url):
    with pytest.raises(Exception, match=r".") as error:  # ours, or a driver's own, which must not tell either
        open_engine(url).connect()
    assert PASSWORD not in f"{error.value} {getattr(error.value, 'hint', '')}"


@pytest.mark.parametrize("query", ["password=", "user=me&password=", "sslmode=require&sslpassword=", "user=me&p%61ssword="])
@pytest.mark.parametrize("place", ["file", "environment", "secret"])
def test_a_password_after_the_host_is_refused_because_only_what_is_before_it_is_masked(config, query, place):
    url = f"postgresql+psycopg://db/x?{query}{PASSWORD}"
    document, environ = yaml.safe_load(config.read_text()), {}
    if place == "file":
        document["ledger"] = url
    elif place == "environment":
        environ["STAC_WATCH__LEDGER"] = url
    else:
        document["ledger_file"] = str(config.parent / "url")
        (config.parent / "url").write_text(url)
    config.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match="ledger") as error:
        load(config, environ)
    assert PASSWORD not in f"{error.value!r} {error.value.message} {error.value.hint}"
    assert "write it before the host" in error.value.hint


def test_an_override_that_cannot_be_used_is_named_without_its_value(config):
    with pytest.raises(ConfigError) as error:
        load(config, {"STAC_WATCH__LEDGER": f"[postgresql://me:{PASSWORD}@db"})
    assert PASSWORD not in error.value.message


def test_manifests_name_secrets_and_hold_none(config):
    files = files_of(settings_of(load(config, {"STAC_WATCH__ENGINE__TOKEN": TOKEN}), config.read_text()))
    everything = "\n".join(files.values())
    assert TOKEN not in everything
    documents = [
        d for path, text in files.items() if path.endswith(".yaml") for d in yaml.safe_load_all(text) if isinstance(d, dict)
    ]
    assert not [d for d in documents if d.get("kind") == "Secret"]
    assert "stac-watch-webhook" in everything


def test_the_sensor_puts_nothing_of_the_request_s_headers_into_a_workflow(config):
    """Argo Events stores every header of a request but Authorization; parameters are taken from the body alone."""
    files = files_of(settings_of(load(config, {}), config.read_text()))
    sensor = yaml.safe_load(files["sensors/geozarr.yaml"])
    keys = [p["src"]["dataKey"] for p in sensor["spec"]["triggers"][0]["template"]["k8s"]["parameters"]]
    assert keys
    assert all(key.startswith("body.data.") for key in keys)
    assert "secret" not in json.dumps(keys).lower()


def test_a_run_of_the_local_engine_does_not_inherit_the_watchers_settings(tmp_path):
    from stac_watch.app import build_engine
    from stac_watch.config.model import Config

    source = {"name": "a", "api": "https://a.example", "collection": "c"}
    settings = Config.model_validate({"sources": [source], "engine": {"kind": "local", "folder": str(tmp_path / "runs")}})
    engine = build_engine(
        settings, {"STAC_WATCH__LEDGER": PASSWORD, "STAC_WATCH__ENGINE__TOKEN": TOKEN, "PATH": os.environ["PATH"]}
    )
    assert TOKEN not in repr(vars(engine))
    assert PASSWORD not in repr(vars(engine))
