"""What every engine must do, in one body: for the local engine, for Argo's with a server that answers like one, and on a cluster.

It is given an engine with room for three and nothing running, a way to end a run with an exit code, and three events.
"""

from datetime import UTC, datetime

from waiting import until

from stac_watch.model.event import Conversion, build_event, next_attempt, parse_event
from stac_watch.runs.engine import Answer, Phase


def hold(engine, end, events, *, patience):
    """The contract; `patience` is how many seconds what was accepted may take to show."""
    keys = [data_of(e)["key"] for e in events]

    def settled(key):
        ended = (Phase.SUCCEEDED, Phase.FAILED)
        return until(lambda: next((r for r in engine.runs([key]) if r.phase in ended), None), patience, every=0.1)

    def seen(asked, number):
        return until(lambda: (found := list(engine.runs(asked))) and len(found) == number and found, patience, every=0.1)

    assert engine.headroom() == 3
    assert list(engine.runs(keys)) == []  # absence is an answer, not an error
    assert engine.submit(b"{}").answer is Answer.REFUSED
    for event in events:
        assert engine.submit(event).answer is Answer.ACCEPTED
    assert engine.headroom() == 0
    assert engine.submit(events[0]).answer is Answer.ACCEPTED  # the same again is harmless
    runs = seen([*keys, "000000000000"], 3)
    assert sorted(run.name for run in runs) == sorted(data_of(e)["run"] for e in events)
    assert {(run.key, run.attempt) for run in runs} == {(key, 1) for key in keys}

    end(events[0], 0)
    run = settled(keys[0])
    assert (run.phase, run.outcome.code, run.outcome.key) == (Phase.SUCCEEDED, 0, keys[0])
    assert run.started is not None
    assert run.ended is not None
    end(events[1], 75)
    run = settled(keys[1])
    assert (run.phase, run.outcome.code, run.outcome.reason) == (Phase.FAILED, 75, "told so")
    assert until(engine.headroom, patience) == 2  # a full cluster is not asked every second
    again, name = next_attempt(events[1], 2, reason="retry")
    assert engine.submit(again).answer is Answer.ACCEPTED
    assert {(r.name, r.attempt) for r in seen(keys[1:2], 2)} == {(run.name, 1), (name, 2)}
    end(again, 0)
    end(events[2], 65)
    assert settled(keys[2]).outcome.code == 65


def event_of(number=1, attempt=1, **changes):
    """The CloudEvent of one attempt to convert an item."""
    at = datetime(2025, 9, 1, tzinfo=UTC)
    given = {
        "catalog": "https://stac.example", "collection": "c", "item_id": f"item-{number}", "revision": "r", "recipe": "x",
        "kind": "create", "reason": "new", "lane": "live", "time": at, "datetime": at, "item_href": "https://stac.example/i",
        "product_href": "https://objects.example/p.zarr", "output_zarr": "/data/o.zarr",
    }  # fmt: skip
    return build_event(Conversion(**given | changes), attempt)


def data_of(event):
    """The data of a CloudEvent's bytes."""
    return parse_event(event)["data"]
