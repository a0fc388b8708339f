"""What watches the watcher: monitors, alerts and a dashboard, for the Prometheus operator and Grafana.

A test reads every metric and label that is named here from a real /metrics, or from the list of Argo Events' own.

Sources: Prometheus operator v1 (ServiceMonitor, PodMonitor, PrometheusRule); Argo Events 1.9.11, pkg/metrics/metrics.go; Grafana's
dashboard schema 39.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from stac_watch.cluster.manifests.pod_values import MOST_SENSORS
from stac_watch.cluster.manifests.settings import EVENT_SOURCE, POLLER, Object, Settings, meta, sensor_name
from stac_watch.cluster.manifests.tree import given, merged

API = "monitoring.coreos.com/v1"
ARGO_EVENTS_METRICS = 7777
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")  # between pages of the documentation
_METRIC = re.compile(r"\b((?:stac_watch|argo_events)_[a-z_]+)(\{)?")


@dataclass(frozen=True)
class Alert:
    """One alerting rule."""

    name: str
    expr: str
    after: str
    severity: str  # page: somebody gets up; ticket: this week
    summary: str
    cause: str  # what it mostly is
    action: str  # what to do first; the runbook's table is written from here

    def rule(self, namespace: str, runbook: str = "") -> Object:
        """Returns the alert as Prometheus reads it, for one namespace."""
        return {
            "alert": self.name,
            "expr": of_namespace(self.expr, namespace),
            "for": self.after,
            "labels": {"severity": self.severity, "namespace": namespace},
            "annotations": {
                "summary": self.summary,
                "cause": self.cause,
                "action": _LINK.sub(r"\1", self.action),
                **given({"runbook_url": runbook}),
            },
        }


@dataclass(frozen=True)
class Panel:
    """One plot: its queries, each with its legend."""

    title: str
    unit: str  # of Grafana
    queries: tuple[tuple[str, str], ...]
    wide: bool = False


ALERTS = (
    Alert(
        "StacWatchDown", "absent(stac_watch_ticks_total)", "10m", "page", "No watcher is scraped: nothing is found or sent.",
        "Pod not scheduled, image missing, configuration wrong (exit 78 in its log).",
        "`kubectl -n geozarr get pods -l app.kubernetes.io/name=stac-watch`, then `stac-watch cluster doctor`.",
    ),
    Alert(
        "StacWatchStalled", "time() - max(stac_watch_last_tick_timestamp_seconds) > 900", "5m", "page",
        "The watcher's loop has not ended a round for a quarter of an hour.",
        "A ledger or an API accepts connections and does not answer; the liveness probe restarts the pod.",
        "`kubectl -n geozarr logs deployment/stac-watch --previous` shows where it hung.",
    ),
    Alert(
        "StacWatchLedgerDown", "max(stac_watch_ledger_up) == 0", "5m", "page", "The ledger does not answer.",
        "PostgreSQL is down, the URL in the Secret `stac-watch-ledger` is wrong, or SQLite's volume is full.",
        "`kubectl -n geozarr logs deployment/stac-watch`; `kubectl -n geozarr exec deployment/stac-watch -- df -h "
        "/var/lib/stac-watch`.",
    ),
    Alert(
        "StacWatchNobodyLeads", "max(stac_watch_leads) == 0", "15m", "page", "Every watcher stands by; none holds the ledger.",
        "The ledger cannot be written: the lease of a watcher that was killed ends after 30 s.",
        "`stac-watch status` names the holder of the lease.",
    ),
    Alert(
        "StacWatchEngineAiling", 'max(stac_watch_ailing{name="engine"}) == 1', "15m", "page",
        "EventSource or Kubernetes API give no usable answer: events wait in the outbox.",
        "Token, EventSource, permissions, API server.",
        "`stac-watch cluster doctor`; [the token is wrong](#the-token-is-wrong).",
    ),
    Alert(
        "StacWatchSourceAiling", 'max by (name) (stac_watch_ailing{name!~"engine|register|sinks"}) == 1', "1h", "ticket",
        "Catalog {{ $labels.name }} gives no usable answer; it is asked again, and nothing is lost.",
        "The catalog is down, throttles, or has moved.",
        "`stac-watch check` shows what it answers.",
    ),
    Alert(
        "StacWatchNotRegistered", "max(stac_watch_oldest_publication_seconds) > 3600", "30m", "ticket",
        "What is done is not registered: outputs are there, and nobody finds them.",
        "The target catalog is down, or takes neither our credentials nor our items.",
        "`stac-watch status` says what it answers; nothing is lost, all of it is sent when it works again.",
    ),
    Alert(
        "StacWatchPublicationsFailed", 'sum by (source) (stac_watch_publications{state="failed"}) > 0', "10m", "ticket",
        "Items of {{ $labels.source }} could not be registered, and are not tried again by themselves.",
        "The target catalog refuses them, or there is no item beside an output.",
        "`stac-watch status` has the reasons; `stac-watch register --failed --yes` tries again.",
    ),
    Alert(
        "StacWatchSinkBehind", 'max(stac_watch_ailing{name="sinks"}) == 1', "1h", "ticket",
        "A sink does not take its events; they wait.",
        "It is down, its URL is another, or its token was changed.",
        "`stac-watch status` says what waits, `stac-watch check` what it answers.",
    ),
    Alert(
        "StacWatchEventsNotTaken", 'sum by (sink) (stac_watch_deliveries{state="refused"}) > 0', "10m", "ticket",
        "Sink {{ $labels.sink }} refused events, and is not told them any more.",
        "It answers everything else, and 400, 413 or 422 to these.",
        "`stac-watch announce --failed` shows what it said; `stac-watch announce --failed --yes` tells it again.",
    ),
    Alert(
        "StacWatchNothingPublished", 'max by (source) (stac_watch_lag_seconds{of="published"}) > 2 * 86400', "1h", "ticket",
        "Catalog {{ $labels.source }} shows nothing new for two days.",
        "The catalog's own pipeline stands still, or its filter changed.",
        "`stac-watch status` has the newest stamp; `stac-watch check` shows what the catalog can do.",
    ),
    Alert(
        "StacWatchFailedGrows", 'sum by (source) (delta(stac_watch_conversions{state="failed"}[1h])) > 3', "5m", "ticket",
        "More than three conversions of {{ $labels.source }} failed within an hour.",
        "A new kind of product, or an output that cannot be written.",
        "`stac-watch status` groups failures that are alike; the first one explains the rest. Once the cause is gone: "
        "`stac-watch replay --error TEXT --yes`.",
    ),
    Alert(
        "StacWatchEventsLost", 'sum(increase(stac_watch_facts_total{fact="silent"}[1h])) > 3', "5m", "ticket",
        "Accepted events became no Workflow and went out again: look at Sensor and bus.",
        "The Sensor is not subscribed or lacks permissions, or the bus was recreated.",
        "`kubectl -n geozarr logs -l app.kubernetes.io/name=sensor`; [the Sensor makes no "
        "Workflows](#the-sensor-makes-no-workflows).",
    ),
    Alert(
        "StacWatchEventsRefused", 'sum(increase(stac_watch_posts_total{answer="refused"}[1h])) > 0', "1m", "ticket",
        "The EventSource refused an event for good.",
        "A value that cannot be a label, or an event that is too large.",
        "`stac-watch items --state failed`, then `stac-watch explain ITEM` names the field.",
    ),
    Alert(
        "StacWatchNothingDone",
        'sum(stac_watch_conversions{state=~"submitted|running"}) > 0 and on() '
        'sum(increase(stac_watch_facts_total{fact="succeeded"}[6h])) == 0',
        "30m", "ticket", "Runs are in flight, and none has succeeded for six hours.",
        "A node, an image, a quota, or a source that is throttled.",
        "`stac-watch cluster runs`, `stac-watch cluster logs`.",
    ),
    Alert(
        "StacWatchUnreadable", "delta(stac_watch_unreadable_items[6h]) > 0", "5m", "ticket",
        "The catalog shows items that cannot be read.",
        "Items without a usable product href, or of another host or collection.",
        "`stac-watch items --unreadable` says what is wrong with each.",
    ),
    Alert(
        "StacWatchBackfillHeld", "max by (source) (stac_watch_backfill_held) == 1", "10m", "ticket",
        "The backfill of {{ $labels.source }} is stopped, by its canary or its failures.",
        "Its canary failed, or `--max-failures` was reached.",
        "`stac-watch status` says why; the same `stac-watch backfill` with `--yes` continues it.",
    ),
    Alert(
        "StacWatchAuditGaps", 'max by (source, kind) (stac_watch_audit_gaps{kind!="unfinished"}) > 0', "1m", "ticket",
        "The last audit of {{ $labels.source }} found what is {{ $labels.kind }}.",
        "Somebody removed an output, or a catalog changed an item without a new stamp.",
        "`stac-watch audit SOURCE --start 30d --end 1d --file gaps`, then `stac-watch replay --file gaps --yes` ([kinds "
        "of gaps](backfill-and-replay.md#what-is-missing)).",
    ),
    Alert(
        "StacWatchNotAudited", "max by (source) (stac_watch_audit_age_seconds) > 3 * 86400", "1h", "ticket",
        "The last audit of {{ $labels.source }} is more than three days old.",
        "The CronWorkflow is suspended, or its runs fail before they compare anything.",
        "`kubectl -n geozarr get cronworkflow stac-watch-audit`; `kubectl -n geozarr get workflow -l "
        "workflows.argoproj.io/cron-workflow=stac-watch-audit`.",
    ),
    Alert(
        "StacWatchNotSwept", "max by (source) (stac_watch_sweep_age_seconds) > 2 * 86400", "1h", "ticket",
        "No sweep of {{ $labels.source }} has ended for two days: what was back-dated is not found.",
        "The catalog answers too slowly, or not at all, for whole days.",
        "`stac-watch status` says when the last sweep ended; `stac-watch check` shows what the catalog answers.",
    ),
    Alert(
        "StacWatchObjectiveBurns",
        'min by (source) (stac_watch_objective_burn_rate{window=~"1h|6h"}) > 6 and on(source) '
        'max by (source) (stac_watch_objective_late{window="6h"}) > 3',
        "5m", "page", "Of {{ $labels.source }} far more is late than the objective allows, for an hour and for six.",
        "Runs fail or wait: the other alerts say where. Or the catalog announces more than can be converted.",
        "`stac-watch report --days 2` lists what is missing, and why.",
    ),
    Alert(
        "StacWatchObjectiveMissed",
        'max by (source) (stac_watch_objective_burn_rate{window="3d"}) > 1 and on(source) '
        'max by (source) (stac_watch_objective_late{window="3d"}) > 3',
        "30m", "ticket", "Of {{ $labels.source }} more was late within three days than the objective allows.",
        "Something is slow or fails, again and again; or the objective promises more than the catalog's own delays leave.",
        "`stac-watch report --days 4` has the days and what is missing; `stac-watch status` groups failures.",
    ),
    Alert(
        "SensorGivesUp", "sum(increase(argo_events_action_retries_failed_total[1h])) > 0", "1m", "page",
        "The Sensor gave up on an event after 60 attempts; it goes out again when `confirm_after` is over.",
        "The API server was away for more than ten minutes, or refuses the Workflow.",
        "`kubectl -n geozarr logs -l app.kubernetes.io/name=sensor`.",
    ),
    Alert(
        "EventSourceCannotSend", "sum(increase(argo_events_events_sent_failed_total[1h])) > 0", "5m", "ticket",
        "The EventSource cannot write to its bus.",
        "Pods of the bus are down, or its volumes are full.",
        "`kubectl -n geozarr get pods -l eventbus-name=geozarr`.",
    ),
)  # fmt: skip
_USUAL = "succeeded|admitted|accepted|run_seen|skipped"
_CHOSEN = 'source=~"$source"'
PANELS = (
    Panel(
        "Conversions by state", "short",
        ((f'sum by (state) (stac_watch_conversions{{{_CHOSEN},state!="skipped"}})', "{{state}}"),), wide=True,
    ),
    Panel("Lag", "s", ((f"max by (source, of) (stac_watch_lag_seconds{{{_CHOSEN}}})", "{{source}} {{of}}"),)),
    Panel(
        "In flight and waiting", "short",
        (
            (f'sum by (lane) (stac_watch_conversions{{{_CHOSEN},state=~"submitted|running"}})', "in flight, {{lane}}"),
            ("sum(stac_watch_outbox_events)", "waiting to be sent"),
        ),
    ),
    Panel("Done per hour", "short", (('sum(increase(stac_watch_facts_total{fact="succeeded"}[1h]))', "done"),)),
    Panel(
        "What else was observed, per hour", "short",
        ((f'sum by (fact) (increase(stac_watch_facts_total{{fact!~"{_USUAL}"}}[1h]))', "{{fact}}"),),
    ),
    Panel(
        "Seen per hour", "short",
        ((f"sum by (source, verdict) (increase(stac_watch_sightings_total{{{_CHOSEN}}}[1h]))", "{{source}} {{verdict}}"),),
    ),
    Panel("Skipped, by reason", "short", (("sum by (reason) (stac_watch_skipped)", "{{reason}}"),)),
    Panel("Failures alike", "short", ((f"topk(10, stac_watch_failures{{{_CHOSEN}}})", "{{source}}: {{fingerprint}}"),), wide=True),
    Panel(
        "95 % of conversions reach a step from the one before within", "s",
        (
            (
                f"histogram_quantile(0.95, sum by (step, le) (rate(stac_watch_step_seconds_bucket{{{_CHOSEN}}}[1h])))", "{{step}}",
            ),
        ),
    ),
    Panel(
        "What the last audit found", "short",
        ((f"max by (source, kind) (stac_watch_audit_gaps{{{_CHOSEN}}})", "{{source}} {{kind}}"),),
    ),
    Panel(
        "Since the last sweep and the last audit, and behind the newest change", "s",
        (
            (f"max by (source) (stac_watch_sweep_age_seconds{{{_CHOSEN}}})", "sweep of {{source}}"),
            (f"max by (source) (stac_watch_audit_age_seconds{{{_CHOSEN}}})", "audit of {{source}}"),
            (f"max by (source) (stac_watch_cursor_age_seconds{{{_CHOSEN}}})", "cursor of {{source}}"),
        ),
    ),
    Panel(
        "Use of the error budget: 1 = as much as the objective allows", "short",
        ((f"max by (source, window) (stac_watch_objective_burn_rate{{{_CHOSEN}}})", "{{source}} {{window}}"),),
    ),
    Panel("Ledger", "bytes", (("max(stac_watch_ledger_bytes)", "on its disk"),)),
    Panel("Posts per minute", "short", (("sum by (answer) (rate(stac_watch_posts_total[5m])) * 60", "{{answer}}"),)),
    Panel(
        "Unusable answers per hour", "short",
        (
            ("sum by (name) (increase(stac_watch_problems_total[1h]))", "{{name}}"),
            ("max by (name) (stac_watch_ailing)", "{{name}} ails"),
        ),
    ),
    Panel(
        "Overlap and longest wait", "s",
        (
            (f"max by (source) (stac_watch_overlap_seconds{{{_CHOSEN}}})", "overlap of {{source}}"),
            ("max(stac_watch_oldest_waiting_seconds)", "longest wait"),
        ),
    ),
    Panel(
        "Argo Events: events on the bus, Workflows made, per minute", "short",
        (
            ("sum(rate(argo_events_events_sent_total[5m])) * 60", "EventSource sent"),
            ("sum(rate(argo_events_action_triggered_total[5m])) * 60", "Sensor triggered"),
        ),
    ),
)  # fmt: skip


def monitors(settings: Settings) -> list[Object]:
    """Returns who is scraped: the poller by its Service, EventSource and Sensor by their pods (they have no Service for it)."""
    argo = [{"key": "controller", "operator": "In", "values": ["eventsource-controller", "sensor-controller"]}]
    ours = [{"key": "owner-name", "operator": "In", "values": [EVENT_SOURCE, *map(sensor_name, range(MOST_SENSORS))]}]
    return [
        {
            "apiVersion": API,
            "kind": "ServiceMonitor",
            "metadata": _chosen(POLLER, settings),
            "spec": {
                "endpoints": [{"port": "web", "path": "/metrics", "interval": "30s"}],
                "selector": {"matchLabels": {"app.kubernetes.io/name": POLLER}},
            },
        },
        {
            "apiVersion": API,
            "kind": "PodMonitor",
            "metadata": _chosen("argo-events", settings),
            "spec": {
                "podMetricsEndpoints": [{"portNumber": ARGO_EVENTS_METRICS, "path": "/metrics", "interval": "30s"}],
                "selector": {"matchExpressions": [*argo, *ours]},
            },
        },
    ]


def of_namespace(expr: str, namespace: str) -> str:
    """Returns an expression that sees one namespace only.

    `absent` and `max` over everything that a Prometheus scrapes hide a dead production behind a healthy staging, and other teams'
    Sensors are not ours to be woken for.
    """
    chosen = f'namespace="{namespace}"'
    return _METRIC.sub(lambda found: f"{found[1]}{{{chosen}," if found[2] else f"{found[1]}{{{chosen}}}", expr)


def rules(settings: Settings) -> Object:
    """Returns the alerts, each for this installation's namespace."""
    runbook = settings.values.monitoring.runbook_url
    groups = [{"name": "stac-watch", "rules": [alert.rule(settings.namespace, runbook) for alert in ALERTS]}]
    return {"apiVersion": API, "kind": "PrometheusRule", "metadata": _chosen(POLLER, settings), "spec": {"groups": groups}}


def shown(settings: Settings) -> Object:
    """Returns the dashboard's ConfigMap, with the label that Grafana's sidecar looks for."""
    metadata = meta("stac-watch-dashboard", settings)
    own = {**metadata, "labels": {**metadata["labels"], "grafana_dashboard": "1"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": own, "data": {"stac-watch.json": dashboard_text()}}


def dashboard_text() -> str:
    """Returns the dashboard as the JSON that Grafana imports."""
    return json.dumps(dashboard(), indent=1) + "\n"


def _chosen(name: str, settings: Settings) -> Object:
    """Returns metadata with the labels that a Prometheus operator selects by."""
    metadata = meta(name, settings)
    return {**metadata, "labels": merged(metadata["labels"], settings.values.monitoring.labels)}


def dashboard() -> Object:
    """Returns the Grafana dashboard, importable as it is; the data source is chosen in it."""
    panels, x, y = [], 0, 0
    for number, panel in enumerate(PANELS, start=1):
        width = 24 if panel.wide else 12
        if x + width > 24:
            x, y = 0, y + 8
        panels.append(_panel(number, panel, {"h": 8, "w": width, "x": x, "y": y}))
        x += width
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    choice = {
        "name": "source", "type": "query", "label": "Source", "includeAll": True, "multi": True, "refresh": 2, "allValue": ".*",
        "datasource": _SOURCE, "query": "label_values(stac_watch_conversions, source)",
    }  # fmt: skip
    return {
        "title": "stac-watch", "uid": "stac-watch", "schemaVersion": 39, "version": 1, "editable": True, "tags": ["stac-watch"],
        "time": {"from": "now-24h", "to": "now"}, "refresh": "1m", "timezone": "utc",
        "templating": {"list": [source, choice]}, "panels": panels,
    }  # fmt: skip


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _panel(number: int, panel: Panel, place: Object) -> Object:
    targets = [
        {"datasource": _SOURCE, "expr": expr, "legendFormat": legend, "refId": chr(ord("A") + index)}
        for index, (expr, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number, "title": panel.title, "type": "timeseries", "datasource": _SOURCE, "gridPos": place, "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
    }  # fmt: skip
