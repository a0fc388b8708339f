"""What a run or a marker says: read tolerantly, written so that whoever reads it again reads the same."""

import json

import pytest

from stac_watch.model.outcome import Check, Counts, Outcome, Package, outcome_of, parse_outcome

WHOLE = {
    "code": 0, "reason": "done", "hint": "", "stage": "publish", "key": "0123", "revision": "r", "run": "gz-x-1", "attempt": 1,
    "item_id": "S2A", "fence": "2026-03-01T00:00:00.000000Z", "installation": "prod",
    "source": "https://objects.example/x.zarr", "output_zarr": "/data/o.zarr",
    "package": {"href": "/data/o.zarr.tar", "bytes": 7, "sha256": "ab"}, "versions": {"python": "3.12.1"},
    "seconds": {"stage": 1.5},
    "counts": {"arrays": 1, "chunks": 2, "files": 3, "bytes_read": 4, "bytes_written": 5},
    "checks": [{"name": "values", "verdict": "passed", "detail": "12 arrays"}], "groups": ["measurements"], "engine": "fast",
    "form": "eopf-v2", "fingerprint": "a-b-c", "digest": "abc",
    "files": {"report": "/data/o.report.html"}, "finished": "2026-03-01T00:00:00Z",
}  # fmt: skip


def test_the_public_file_has_these_members_in_this_order():
    outcome = parse_outcome(json.dumps(WHOLE))
    assert json.loads(outcome.as_json()) == WHOLE
    assert list(json.loads(outcome.as_json())) == list(WHOLE)
    empty = json.loads(Outcome().as_json())
    assert list(empty) == list(WHOLE)
    assert (empty["package"], empty["checks"], empty["counts"]["files"]) == (None, [], 0)


def test_members_have_their_types():
    outcome = outcome_of(WHOLE)
    assert outcome.package == Package("/data/o.zarr.tar", 7, "ab")
    assert outcome.counts == Counts(1, 2, 3, 4, 5)
    assert outcome.checks == (Check("values", "passed", "12 arrays"),)
    assert outcome.groups == ("measurements",)


@pytest.mark.parametrize(
    "document",
    [
        WHOLE, {**WHOLE, "package": None, "checks": [], "hint": ""}, {"code": 65, "reason": "no such group"},
        {"key": "k", "code": 0},
        {"code": 137, "of a later version": {"a": [1]}}, {"attempt": 0, "stage": "", "seconds": {}}, {"package": None},
        {"checks": [{"name": "values", "verdict": "passed"}]},
    ],
)  # fmt: skip
def test_what_is_read_is_written_again_member_by_member(document):
    outcome = outcome_of(document)
    assert outcome.document() == document
    assert outcome_of(outcome.document()) == outcome


@pytest.mark.parametrize(
    "member",
    [
        {"code": "0"}, {"code": True}, {"code": 10**30}, {"attempt": 1.5}, {"key": 7}, {"reason": None}, {"counts": {"files": "3"}},
        {"counts": []}, {"seconds": {"stage": float("nan")}}, {"checks": [{"name": "values"}]}, {"checks": {}},
        {"files": {"report": 1}},
        {"package": {"href": "/x"}}, {"package": []}, {"groups": "measurements"}, {"groups": [1]}, {"versions": None},
    ],
)  # fmt: skip
def test_a_member_that_has_not_its_form_is_left_out_alone(member):
    outcome = outcome_of({"stage": "convert", **member})
    assert outcome == Outcome(stage="convert")
    assert outcome_of(member) is None


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"text"', "{}", b"\xff", "[" * 100_000])
def test_what_says_nothing_is_none(text):
    assert parse_outcome(text) is None
