"""What `check` does with what does not answer at once."""

from pathlib import Path

import pytest

from stac_watch.cli.checks import patiently, shares
from stac_watch.config.load import parse
from stac_watch.model.errors import Refused, StacWatchError, Temporary


class Asked:
    """Answers with each of these in turn; may wait for so many pauses."""

    def __init__(self, *answers: StacWatchError | str, pauses: int) -> None:
        self.answers, self.left, self.paused = list(answers), pauses, 0

    def __call__(self) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            return answer
        raise answer

    def may_wait(self) -> bool:
        return self.paused < self.left

    def pause(self, seconds: float) -> None:
        assert seconds > 0
        self.paused += 1

    def patiently(self) -> str:
        return patiently(self, self.may_wait, self.pause)


def test_what_does_not_answer_yet_is_asked_again():
    asked = Asked(Temporary("a"), Temporary("b"), "there", pauses=5)
    assert (asked.patiently(), asked.paused) == ("there", 2)


def test_at_the_end_of_its_time_the_last_trouble_is_told():
    asked = Asked(Temporary("a"), Temporary("b"), "there", pauses=1)
    with pytest.raises(Temporary, match="b"):
        asked.patiently()


def test_a_refusal_is_an_answer():
    asked = Asked(Refused("no"), "there", pauses=5)
    with pytest.raises(Refused):
        asked.patiently()
    assert asked.paused == 0


def test_sources_of_one_collection_are_told_of_each_other():
    """What both want is booked under one of them: its figures, filters and limits are that one's alone."""
    sources = ", ".join(
        f"{{name: {name}, api: https://stac.example{path}, collection: {collection}}}"
        for name, path, collection in (("alps", "", "l2a"), ("rome", "/", "l2a"), ("other", "", "l1c"))
    )
    config = parse(f"sources: [{sources}]", Path("stac-watch.yaml"), {})
    told = {s.name: [line.partition(":")[0] for line in shares(config, s) if "same collection" in line] for s in config.sources}
    assert told == {"alps": ["rome reads the same collection"], "rome": ["alps reads the same collection"], "other": []}
