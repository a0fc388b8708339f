"""One contract for both engines: the local one with a program that ends as it is told, Argo's before fake servers."""

import sys

import pytest
from engine_contract import data_of, event_of, hold
from fakes.workflows import ended

from stac_watch.runs.local import LocalEngine


@pytest.fixture
def local(tmp_path):
    """The local engine with a runner that waits until it is told how to end."""
    runner = tmp_path / "runner.py"
    runner.write_text("""
import json, pathlib, sys, time
given = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:] if "=" in a)
outcome = pathlib.Path(sys.argv[sys.argv.index("--outcome") + 1])
order = outcome.with_name("order")
while not order.exists():
    time.sleep(0.01)
code = int(order.read_text())
outcome.write_text(json.dumps({"code": code, "key": given["key"], "reason": "told so", "stage": "convert"}))
sys.exit(code)
""")
    folder = tmp_path / "runs"
    engine = LocalEngine(folder, command=[sys.executable, str(runner)], max_in_flight=3, environ={})

    def end(event, code):
        order = folder / data_of(event)["run"] / "order"
        order.with_suffix(".new").write_text(str(code))
        order.with_suffix(".new").rename(order)

    yield engine, end
    engine.close(stop_runs=True)


@pytest.fixture
def remote(engine, api, clock):
    def end(event, code):
        clock.forward(seconds=10)  # a run takes longer than a full cluster is left alone
        data = data_of(event)
        api.put(data["run"], status=ended(code, data["key"], "told so"))

    return engine, end


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_the_contract_of_an_engine(kind, request):
    engine, end = request.getfixturevalue(kind)
    hold(engine, end, [event_of(n) for n in (1, 2, 3)], patience=20)
