"""What `check` does with what does not answer at once."""

import pytest

from stac_watch.cli.checks import patiently
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
