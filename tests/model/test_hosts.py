"""Which hosts one run may ask: its source's own, of those that all may."""

import pytest

from stac_watch.model.errors import IdentityError
from stac_watch.model.hosts import narrowed

ALL = ("a.example", "*.example.org", "10.0.0.0/8", "192.0.2.7")


@pytest.mark.parametrize(
    "own",
    ["a.example", "A.example", "b.example.org", "*.example.org", "*.deep.example.org", "10.1.0.0/16", "10.1.2.3", "192.0.2.7"],
)
def test_hosts_among_those_of_all_are_those_of_the_run(own):
    assert narrowed((own,), ALL) == (own,)


@pytest.mark.parametrize(
    "own", ["b.example", "*.example", "example.org", "*", "10.0.0.0/7", "0.0.0.0/0", "::/0", "11.0.0.1", "junk/8"]
)
def test_others_are_refused(own):
    with pytest.raises(IdentityError, match="not one of those"):
        narrowed(("a.example", own), ALL)


def test_without_its_own_it_is_all_and_without_those_its_own():
    assert narrowed((), ALL) == ALL
    assert narrowed(("b.example",), ()) == ("b.example",)
