"""What comes from outside is taken or refused by name, whatever it holds: event bodies, configurations, outcomes, markers.

Items are fuzzed in tests/discover/test_items.py, and what others serve in test_fuzz_worlds.py. Bounded: `--hypothesis-seed=random`
and a higher `max_examples` look further.
"""

import contextlib
import io
import json
from datetime import timedelta

import yaml
from anything import ANY, spoiled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from stac_watch.config.load import load
from stac_watch.config.model import Limits
from stac_watch.jobs import backfill
from stac_watch.ledger.records import Move
from stac_watch.model.errors import ConfigError, StacWatchError
from stac_watch.model.event import build_event, parse_event
from stac_watch.model.outcome import Outcome, parse_outcome
from stac_watch.model.states import Fact, State
from stac_watch.report.as_json import as_json
from stac_watch.report.explain import Circumstances, explanation, render_explanation
from stac_watch.report.lines import line, table
from stac_watch.report.web.page import ItemLinks, ItemStory, render_item
from stac_watch.runs import markers
from stac_watch.runs.engine import Phase, Run
from stac_watch.runs.reconcile import Seen, decide
from stac_watch.runs.workflow import run_of

NAMES = ["code", "key", "reason", "hint", "checks", "counts", "seconds", "files", "attempt", "versions", "package", "stage"]
LEFT = st.dictionaries(st.sampled_from(NAMES), ANY, max_size=6)
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(read):
    """The error of ours that reading raises; another one fails the test."""
    try:
        read()
    except ConfigError as error:
        return error
    return None


@SETTINGS
@given(data=st.data())
def test_an_event_is_read_or_refused(make, data):
    good = json.loads(build_event(make.conversion(), 1))
    body = json.dumps(spoiled(data, good)).encode() if data.draw(st.booleans()) else data.draw(st.binary(max_size=60))
    with contextlib.suppress(StacWatchError):
        event = parse_event(body)
        assert event["data"]["run"]


@SETTINGS
@given(data=st.data())
def test_a_configuration_is_read_or_refused_with_its_place(data, tmp_path):
    good = {
        "ledger": "sqlite:///var/stac-watch.db",
        "sources": [{"name": "s2", "api": "https://stac.example", "collection": "c", "allowed_hosts": ["objects.example"],
                     "filter": {"bbox": [1, 2, 3, 4], "max_age": "30d"}, "poll": {"interval": "60s", "overlap": "auto"}}],
        "recipe": {"output": "var/{item_id}.zarr", "spatial_chunk": 1024},
        "engine": {"kind": "argo", "webhook": "https://hook.example/items", "limits": {"rate": "2/s", "max_in_flight": 3}},
        "web": {"port": 8080},
    }  # fmt: skip
    path = tmp_path / "stac-watch.yaml"
    path.write_text(yaml.safe_dump(spoiled(data, good)))
    refusal = refused(lambda: load(path, {}))
    assert refusal is None or (str(path) in refusal.message and refusal.hint)


@SETTINGS
@given(left=LEFT, phase=st.sampled_from(Phase))
def test_whatever_a_run_leaves_behind_leads_to_a_move_or_to_none(make, left, phase):
    row, outcome = make.row(state=State.RUNNING), parse_outcome(json.dumps(left))
    run = Run(row.run, row.key, 1, phase, "convert", outcome=outcome)
    for marker in (None, outcome):
        move = decide(row, run, Seen(marker), make.now + timedelta(days=1), Limits(), superseded=False)
        assert move is None or isinstance(move, Move)
        if move is not None and move.fact is Fact.SUCCEEDED:
            assert left["key"] == row.key


@SETTINGS
@given(left=LEFT)
def test_whatever_an_outcome_holds_can_be_shown(make, left):
    row = make.row(state=State.DONE, outcome=parse_outcome(json.dumps(left)), reason=None)
    backfill.usual([row])
    console = Console(file=io.StringIO(), width=80)
    bodies, nothing = [build_event(make.conversion(), 1)], Circumstances(None, None, None)
    view = explanation(row, make.now, Limits(), item=None, history=[], bodies=bodies, around=nothing, log=None)
    for part in (render_explanation(view), table([line(row, make.now)])):
        console.print(part)
    assert row.item_id in console.file.getvalue().replace("\n", "")
    assert as_json(view)
    assert row.item_id in render_item(ItemStory([view], make.now, {row.key: ItemLinks()}, cluster=False), "1")


@SETTINGS
@given(text=st.text(max_size=40) | LEFT.map(json.dumps) | st.just("[" * 100_000))
def test_a_workflow_is_read_whatever_its_runner_left_in_it(make, text):
    event = json.loads(build_event(make.conversion(), 1))["data"]
    outputs = {"exitCode": "65", "parameters": [{"name": "outcome", "value": text}]}
    node = {"type": "Pod", "displayName": "convert(0)", "templateName": "convert", "phase": "Failed", "outputs": outputs}
    labels = {"stac-watch/key": event["key"], "stac-watch/attempt": "1"}
    run = run_of({
        "metadata": {"name": event["run"], "namespace": "n", "labels": labels},
        "status": {"phase": "Failed", "startedAt": "2026-03-01T00:00:00Z", "nodes": {"a": node}},
    })  # fmt: skip
    assert (run.name, run.phase) == (event["run"], Phase.FAILED)
    move = decide(make.row(state=State.RUNNING), run, Seen(), make.now, Limits(), superseded=False)
    assert move is not None


@SETTINGS
@given(value=ANY | st.binary(max_size=20))
def test_a_marker_is_a_document_or_none(tmp_path, value):
    folder = tmp_path / "x.zarr"
    folder.mkdir(exist_ok=True)
    (folder / "stac-watch.json").write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    found = markers.find_marker(str(folder))
    assert found is None or isinstance(found, Outcome)
