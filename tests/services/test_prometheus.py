"""Debian's Prometheus scrapes a watcher that works, and evaluates the deploy kit's rules on what it was told."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from pgstac_servers import free_port
from waiting import until

from stac_watch.demo.catalog import Server, Store, create_app, make_collection, make_item

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "components" / "monitoring" / "rules.yaml"
COMMAND = Path(sys.executable).parent / "stac-watch"


@contextmanager
def running(argv, log):
    with log.open("w") as file, subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def watcher(folder, catalog, store):
    """`stac-watch watch`; yields where its page is."""
    store.put_collection(make_collection())  # first: a watcher whose collection is not there ends
    config = folder / "stac-watch.yaml"
    config.write_text(yaml.safe_dump({
        "ledger": f"sqlite:///{folder}/ledger.db",
        "sources": [{"name": "s2", "api": catalog, "collection": "sentinel-2-l2a", "filter": {"max_cloud_cover": 5}}],
        "recipe": {"output": f"{folder}/outputs/{{item_id}}.zarr"}, "engine": {"kind": "local", "folder": f"{folder}/runs"},
        "web": {"port": 0},
    }))  # fmt: skip
    log = folder / "watch.log"
    with running([str(COMMAND), "watch", "-c", str(config), "--log=json"], log):
        line = until(lambda: log.read_text().partition("\n")[0] if "\n" in log.read_text() else None, 60)
        yield json.loads(line)["url"].split("/")[2]


def test_prometheus_scrapes_the_watcher_and_evaluates_every_rule(tmp_path):
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        sentence = "prometheus is not installed: apt-get install prometheus"
        assert os.environ.get("CI") != "true", sentence
        pytest.skip(sentence)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(yaml.safe_load(RULES.read_text())["spec"]))
    port = free_port()
    with (
        Store(None) as store,
        Server(create_app(store, products=tmp_path, now=lambda: datetime.now(UTC))) as catalog,
        watcher(tmp_path, catalog.url, store) as target,
    ):
        now = datetime.now(UTC)
        item = f"S2A_MSIL2A_{now - timedelta(days=1):%Y%m%dT%H%M%S}_N0511_R122_T32TQM_{now:%Y%m%dT%H%M%S}"
        store.put(make_item(item, catalog_url=catalog.url, product_href=f"{catalog.url}/products/{item}.zarr", updated=now))
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "2s", "evaluation_interval": "2s"}, "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": "stac-watch", "static_configs": [{"targets": [target], "labels": {"namespace": "geozarr"}}]},
            ],
        }))  # fmt: skip
        argv = [prometheus, f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip

        def ask(path):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as answer:
                    return json.load(answer)["data"]
            except OSError:
                return None

        def value(query):
            found = ask(f"query?query={query}")
            return float(found["result"][0]["value"][1]) if found and found["result"] else None

        with running(argv, tmp_path / "prometheus.log"):
            until(lambda: value("up") == 1, 60, every=0.2)
            assert value("stac_watch_ledger_up") == 1
            until(lambda: value('stac_watch_skipped{reason="too_cloudy"}') == 1, 90, every=0.2)
            assert value("stac_watch_ledger_bytes") > 10_000
            groups = until(
                lambda: (
                    (found := ask("rules"))
                    and all(r["lastEvaluation"] > "1" for g in found["groups"] for r in g["rules"])
                    and found["groups"]
                ),
                60,
                every=0.2,
            )
            rules = [rule for group in groups for rule in group["rules"]]
            assert len(rules) == len(yaml.safe_load(RULES.read_text())["spec"]["groups"][0]["rules"])
            assert {rule["health"] for rule in rules} == {"ok"}, [r["lastError"] for r in rules if r["health"] != "ok"]
            assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
        said = [json.loads(line) for line in (tmp_path / "watch.log").read_text().splitlines()]
        [moved] = [line for line in said if line["event"] == "moved"]
        assert {name: moved[name] for name in ("source", "item", "from", "fact", "to", "why", "lane", "attempt")} == {
            "source": "s2", "item": item, "from": None, "fact": "skipped", "to": "skipped", "why": "rule too_cloudy",
            "lane": "live", "attempt": 1,
        }  # fmt: skip
        assert moved["key"]
        assert moved["run"].startswith("gz-t32tqm-")
