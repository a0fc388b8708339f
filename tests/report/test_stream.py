"""What a reader of the stream is sent."""

from itertools import chain, repeat

import anyio

from stac_watch.report.web.stream import Readers, event


def read(texts, *, ended_after, readers=None):
    """Everything that a reader gets while these are rendered, one after the other."""
    looks, given = iter(range(10_000)), chain(texts, repeat(texts[-1]))
    readers = readers or Readers(1, lambda: next(looks) >= ended_after, beat=0.0)

    async def collect():
        return [part async for part in readers.changes(lambda: next(given))]

    return anyio.run(collect)


def test_what_has_not_changed_is_not_sent_again():
    parts = read([("page", "a"), ("page", "a"), ("page", "b"), ("trouble", "b"), ("trouble", "b")], ended_after=60)
    assert parts[0].startswith(b"retry: ")
    assert parts[1:] == [event("page", "a"), event("page", "b"), event("trouble", "b")]


def test_a_reader_too_many_is_sent_away_and_a_place_that_is_left_is_free_again():
    readers = Readers(1, lambda: True, beat=0.0)

    async def two():
        first = readers.changes(lambda: ("page", "a"))
        assert (await anext(first)).startswith(b"retry")
        second = [part async for part in readers.changes(lambda: ("page", "a"))]
        await first.aclose()
        return second, [part async for part in readers.changes(lambda: ("page", "a"))]

    second, third = anyio.run(two)
    assert second == [event("busy", "")]
    assert third[1:] == [event("page", "a")]


def test_text_of_several_lines_is_one_event():
    assert event("page", "a\nb") == b"event: page\ndata: a\ndata: b\n\n"
    assert event("busy", "") == b"event: busy\ndata: \n\n"


def test_who_hears_nothing_new_hears_that_somebody_is_there():
    looks = iter(range(10_000))
    readers = Readers(1, lambda: next(looks) >= 8, beat=0.01, silence=0.005)

    async def collect():
        return [part async for part in readers.changes(lambda: ("page", "a"))]

    assert event("beat", "") in anyio.run(collect)
