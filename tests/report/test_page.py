"""Words of the status page that are pure."""

import shlex

import pytest

from stac_watch.report.web.page import quoted


@pytest.mark.parametrize(
    "text", ["", "plain", "two words", "no group 'r20m' in ID", 'it\'s "odd"', "$HOME's", "`x`'", "a\\'b", "!'", "ä'\n"]
)
def test_a_command_s_word_is_the_text_again_for_a_shell(text):
    assert shlex.split(f"x {quoted(text)}") == ["x", text]


def test_apostrophes_are_read_by_people():
    assert quoted("no group 'r20m' in ID") == "\"no group 'r20m' in ID\""
    assert "$" not in quoted("$HOME's").replace("'$HOME'", "")
