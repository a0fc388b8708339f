"""Which output answers a request: the same key's, unless a new conversion is asked for."""

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


def test_by_hand_overwrite_converts_each_time():
    assert not target_of("/o.zarr", KEY, 1, None, run="", overwrite=True).is_answered_by(made_by("", 1))
