"""Alerts, dashboard and monitors name what there is: metrics and labels of a real /metrics, and rules that promtool evaluates."""

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from stac_watch.cluster.manifests.monitoring import ALERTS, PANELS, of_namespace
from stac_watch.ledger.records import Audited, Order
from stac_watch.model.announcement import DeliveryCount, DeliveryState
from stac_watch.model.publication import PublicationCount, PublicationState
from stac_watch.model.states import State
from stac_watch.report.freshness import Burn
from stac_watch.report.metrics import Loop, families
from stac_watch.report.totals import SourceStatus, Totals

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ARGO_EVENTS = {  # Argo Events 1.9.11, pkg/metrics/metrics.go; `sum` is all that is asked of them
    "argo_events_event_service_running_total", "argo_events_events_sent_total", "argo_events_events_sent_failed_total",
    "argo_events_events_processing_failed_total", "argo_events_action_triggered_total", "argo_events_action_failed_total",
    "argo_events_action_retries_failed_total",
}  # fmt: skip
NAME = re.compile(r"\b(?:stac_watch|argo_events)_[a-z_]+")


def filled(kind, **given):
    """An instance with None wherever nothing is given: only what metrics are made of matters here."""
    return kind(**{**dict.fromkeys(kind.__dataclass_fields__), **given})


@pytest.fixture(scope="module")
def exported():
    """Metric -> its labels, as the poller tells them when everything that can be told is."""
    source = filled(
        SourceStatus, source="s2", lanes={"live": {s.value: 1 for s in State}}, newest_published=NOW, newest_seen=NOW,
        newest_done=NOW, backfill=filled(Order, held="failures"), overlap=900.0, withdrawn=1,
        retired={"kept": 1}, restamped={"waiting": 1},
        cursor=NOW, swept=NOW,
        audited=Audited("s2", NOW, NOW, NOW, {"lost": 1}),
    )  # fmt: skip
    view = filled(
        Totals, at=NOW, states={s.value: 1 for s in State}, skipped={"too_old": 1}, unreadable=1, sources=[source],
        publications=[PublicationCount("s2", state, 1, NOW) for state in PublicationState],
        deliveries=[DeliveryCount("https://hooks.example", state, 1, NOW) for state in DeliveryState],
        waiting_since=NOW, failures={("s2", "it broke"): 1}, ledger_bytes=1,
    )  # fmt: skip
    loop = Loop(
        version="1", ticks=1, last_tick=NOW, leads=True, ailing=frozenset({"s2"}), answered={"s2": NOW}, problems={"s2": 1},
        sightings={("s2", "admitted"): 1}, steps={("s2", "live", "seen"): ([("1", 1), ("+Inf", 1)], 1.0)},
    )  # fmt: skip

    class Once(Collector):
        def collect(self):
            yield from families(view, loop, ("s2",), [Burn("s2", "1h", 1, 1, 1.0)])

    registry = CollectorRegistry()
    registry.register(Once())
    found = defaultdict(set)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return dict(found)


def queries():
    yield from ((alert.name, alert.expr) for alert in ALERTS)
    yield from ((panel.title, expr) for panel in PANELS for expr, _ in panel.queries)


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_a_query_names_metrics_and_labels_that_there_are(exported, where, query):
    names = set(NAME.findall(query))
    assert names
    assert names <= exported.keys() | ARGO_EVENTS, where
    for name, selected in re.findall(r"((?:stac_watch|argo_events)_[a-z_]+)\{([^}]*)\}", query):
        labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", selected))
        assert labels <= exported[name], (where, name)
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
    assert grouped <= set.union(*(exported.get(name, set()) for name in names)), where


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_sees_its_own_namespace_only(alert):
    """A healthy staging in the same Prometheus hid that production was down; other teams' Sensors woke our people."""
    selected = re.findall(r"(?:stac_watch|argo_events)_[a-z_]+(\{[^}]*\})?", of_namespace(alert.expr, "prod"))
    assert selected
    assert all(found.startswith('{namespace="prod"') for found in selected)


def test_legends_name_labels_that_their_query_keeps():
    for panel in PANELS:
        for query, legend in panel.queries:
            kept = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
            if "by (" in query:
                assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept, (panel.title, legend)


def test_the_dashboard_is_one_that_grafana_imports(rendered):
    board = json.loads(rendered["deploy/components/monitoring/dashboard.json"])
    assert board["uid"] == "stac-watch"
    assert [p["title"] for p in board["panels"]] == [p.title for p in PANELS]
    assert len({p["id"] for p in board["panels"]}) == len(PANELS)
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        assert {t["datasource"]["uid"] for t in panel["targets"]} == {"${datasource}"}


def test_monitors_select_what_there_is(rendered, objects):
    monitors = {d["kind"]: d["spec"] for d in yaml.safe_load_all(rendered["deploy/components/monitoring/monitors.yaml"])}
    service = objects["Service", "stac-watch"]
    assert monitors["ServiceMonitor"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {e["port"] for e in monitors["ServiceMonitor"]["endpoints"]} == {p["name"] for p in service["spec"]["ports"]}
    [endpoint] = monitors["PodMonitor"]["podMetricsEndpoints"]
    allowed = {
        p["port"]
        for name in ("sensor", "eventsource")
        for r in objects["NetworkPolicy", name]["spec"]["ingress"]
        for p in r["ports"]
    }
    assert endpoint["portNumber"] in allowed, "the NetworkPolicies would keep Prometheus out"


def test_alerts_say_how_urgent_they_are_and_what_to_do_first():
    """tests/docs/test_operations.py holds that the runbook has each of them, too."""
    assert {alert.severity for alert in ALERTS} == {"page", "ticket"}
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)
    for alert in ALERTS:
        said = alert.rule("geozarr")["annotations"]
        assert said.keys() == {"summary", "cause", "action"}
        assert alert.rule("geozarr", "https://wiki.example")["annotations"]["runbook_url"] == "https://wiki.example"
        assert "](" not in said["action"]


@pytest.mark.services
def test_prometheus_evaluates_the_rules_as_they_are_meant(rendered, tmp_path):
    """Quiet while all is well; each raised when its cause is there. promtool is Debian's package prometheus."""
    promtool = shutil.which("promtool")
    if promtool is None:
        sentence = "promtool is not installed: apt-get install prometheus"
        assert os.environ.get("CI") != "true", sentence
        pytest.skip(sentence)
    spec = yaml.safe_load(rendered["deploy/components/monitoring/rules.yaml"])["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    tests = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())
    quiet, down, hidden, _others, wrong = tests["tests"]
    assert {t["alertname"] for t in quiet["alert_rule_test"]} == {alert.name for alert in ALERTS}
    labels = {
        "StacWatchSourceAiling": {"name": "s2"}, "StacWatchNothingPublished": {"source": "s2"},
        "StacWatchFailedGrows": {"source": "s2"}, "StacWatchBackfillHeld": {"source": "s2"},
        "StacWatchAuditGaps": {"source": "s2", "kind": "lost"}, "StacWatchNotAudited": {"source": "s2"},
        "StacWatchNotSwept": {"source": "s2"}, "StacWatchPublicationsFailed": {"source": "s2"},
        "StacWatchEventsNotTaken": {"sink": "https://hooks.example"},
        "StacWatchObjectiveBurns": {"source": "s2"}, "StacWatchObjectiveMissed": {"source": "s2"},
    }  # fmt: skip
    rules = {alert.name: alert.rule("geozarr") for alert in ALERTS}

    def raised(name):
        annotations = {
            k: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[name][found[1]], v)
            for k, v in rules[name]["annotations"].items()
        }
        return [{"exp_labels": {**rules[name]["labels"], **labels.get(name, {})}, "exp_annotations": annotations}]

    down["alert_rule_test"][1]["exp_alerts"] = raised("StacWatchDown")
    for case in hidden["alert_rule_test"]:
        case["exp_alerts"] = raised(case["alertname"])
    others = [alert.name for alert in ALERTS if alert.name != "StacWatchDown"]
    wrong["alert_rule_test"] = [{"eval_time": "12h", "alertname": name, "exp_alerts": raised(name)} for name in others]
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    for arguments in (["check", "rules", "rules.yaml"], ["test", "rules", "tests.yaml"]):
        done = subprocess.run([promtool, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
