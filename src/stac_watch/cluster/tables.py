"""Runs, findings, and what is cleaned, as people see them: rich renderables and lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stac_watch.cluster.diagnosis import Finding, Verdict
from stac_watch.cluster.runs import RunView
from stac_watch.model.outcome import DATA
from stac_watch.runs.cleaning import Cleaning, Leftover
from stac_watch.runs.engine import Phase

_PHASES = {Phase.SUCCEEDED: "green", Phase.FAILED: "bold red", Phase.RUNNING: "yellow", Phase.PENDING: "cyan"}
_STEPS = {"Succeeded": "green", "Failed": "bold red", "Error": "bold red", "Running": "yellow", "Pending": "cyan"}
_VERDICTS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "dim"}


def render_runs(runs: Sequence[RunView]) -> RenderableType:
    """Returns runs, the newest first."""
    if not runs:
        return Text("there is no run; `stac-watch cluster submit STAC_URL` starts one")
    table = Table(header_style="bold")
    for column in ("run", "state", "took", "item or source", "why"):
        table.add_column(column, overflow="fold")
    for run in runs:
        state = Text(run.phase.value, style=_PHASES[run.phase])
        table.add_row(Text(run.run), state, spelled(run.seconds), Text(run.item or run.source), Text(run.reason))
    return table


def render_run(run: RunView) -> RenderableType:
    """Returns one run: its head, its steps, how it ended and what to do next."""
    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold")
    head.add_column(overflow="fold")
    rows = {
        "run": Text(run.run),
        "state": Text.assemble((run.phase.value, _PHASES[run.phase]), f" after {spelled(run.seconds)}"),
        "item": Text(run.item or "-"),
        "from": Text(run.source),
        "to": Text(run.output),
        "lane": Text(run.lane or "-"),
        "Argo UI": Text(f"{run.link}"),
    }
    for name, value in rows.items():
        head.add_row(name, value)
    table = Table(header_style="bold")
    for column in ("step", "state", "took", "progress", "Kubernetes says"):
        table.add_column(column, overflow="fold")
    for step in run.steps:
        state = Text(step.phase, style=_STEPS.get(step.phase, ""))
        table.add_row(Text(step.name), state, spelled(step.seconds), Text(step.progress), Text(step.message))
    said = [Text(f"{run.reason}" + (f"\n  → {run.hint}" if run.hint else ""))] if run.reason else []
    return Group(head, *([table] if run.steps else []), *said, Text(_next(run)))


def _next(run: RunView) -> str:
    if run.phase is Phase.SUCCEEDED and run.output.startswith(DATA):
        return f"fetch it: stac-watch cluster fetch {run.run}"
    over = run.phase in (Phase.SUCCEEDED, Phase.FAILED)
    return f"its logs: stac-watch cluster logs {run.run}" if over else (f"follow it: stac-watch cluster logs {run.run} --follow")


def render_cleaning(cleaning: Cleaning) -> RenderableType:
    """Returns what would go and what stays."""
    if not cleaning.remove and not cleaning.keep:
        return Text("there is nothing to clean")
    table = Table(header_style="bold")
    for column in ("", "kind", "name", "why", "holds"):
        table.add_column(column, overflow="fold")
    for items, word, style in ((cleaning.remove, "goes", "yellow"), (cleaning.keep, "stays", "dim")):
        for item in items:
            table.add_row(Text(word, style=style), item.kind.value, Text(item.name), Text(item.why), Text(item.holds))
    return Group(table, Text(f"{len(cleaning.remove)} would be removed, {len(cleaning.keep)} stay"))


def removed(item: Leftover, *, done: bool) -> str:
    """Returns a line about one removal."""
    return f"removed {item.kind.value} {item.name}" if done else f"kept {item.kind.value} {item.name}: it changed meanwhile"


def finding(found: Finding) -> Text:
    """Returns a finding as one line."""
    remedy = f" → {found.remedy}" if found.remedy else ""
    return Text.assemble((f"{found.verdict.value:<5}", _VERDICTS[found.verdict]), f" {found.check}: {found.found}{remedy}")


def spelled(seconds: float | None) -> str:
    """Returns a span as people say it."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
