"""Which output answers a request: the same key's, unless a new conversion is asked for."""

from dataclasses import replace

import pytest
from geozarr_runner.publish.folder import target_of

from stac_watch.model.outcome import Counts, Outcome

KEY = "0123456789ab"


def made_by(run, attempt, key=KEY):
    return Outcome(
        code=0, reason="done", hint="", stage="publish", key=key, revision="r", run=run, attempt=attempt, item_id="i", source="s",
        output_zarr="/o.zarr", package=None, versions={}, seconds={}, counts=Counts(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("run", "attempt", "plain", "again"),
    [
        ("gz-1", 1, True, False),  # what an earlier attempt made: done, unless it is asked for once more
        ("gz-2", 2, True, True),  # its own work, before it was killed
        ("gz-3", 3, True, True),  # a later attempt's: an old event must not undo it
        ("", 2, True, False),  # made by hand
    ],
)
def test_what_answers_attempt_2(run, attempt, plain, again):
    for overwrite, expected in ((False, plain), (True, again)):
        target = target_of("/o.zarr", KEY, 2, None, run="gz-2", overwrite=overwrite)
        assert target.is_answered_by(made_by(run, attempt)) is expected
        assert not target.is_answered_by(made_by(run, attempt, key="of another"))


@pytest.mark.parametrize(
    ("asked", "made", "answered"),
    [
        ("https://h.example/x.zarr", "https://h.example/x.zarr", True),
        ("https://h.example/x.zarr?sig=a&se=b", "https://h.example/x.zarr", True),
        ("https://h.example/x.zarr", "", True),  # the marker of an earlier version
        ("https://h.example/items/x", "https://o.example/x.zarr", True),  # an item led there
        ("https://h.example/x.zarr", "https://h.example/y.zarr", False),
        ("https://h.example/x.zarr", "https://other.example/x.zarr", False),
        ("/products/x.zarr", "file:///products/x.zarr", True),
    ],
)
def test_what_was_made_of_another_product_answers_nobody_who_asks_for_this_one(asked, made, answered):
    """An event that was edited made it, under the same key: the next attempt must not find it done."""
    target = target_of("/o.zarr", KEY, 2, None, run="gz-2", source=asked)
    assert target.is_answered_by(replace(made_by("gz-1", 1), source=made)) is answered


def test_by_hand_overwrite_converts_each_time():
    assert not target_of("/o.zarr", KEY, 1, None, run="", overwrite=True).is_answered_by(made_by("", 1))
