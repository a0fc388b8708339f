"""Values that nobody can mean: option, value and remedy are named, the exit code says whose fault it is, and nothing is done."""

import pytest

CONFIG = """
ledger: sqlite:///ledger.db
sources:
  - {name: s2-l2a, api: "http://127.0.0.1:9", collection: sentinel-2-l2a}
"""
USAGE, INPUT, CONFIGURATION = 2, 65, 78
A_TIME, A_SPAN, A_NUMBER = "neither a day nor a time", "no span of time", "must be a whole number"
WRONG = [
    (("items", "--limit=many"), USAGE, "--limit", A_NUMBER),
    (("items", "--limit=" + "9" * 40), USAGE, "--limit", "must be at most"),  # SQLite's own numbers end there
    (("items", "--state=x"), USAGE, "--state", "'x' is not one of 'queued'"),
    (("items", "--tile=x"), INPUT, "'x'", "T32TQM"),
    (("items", "--sensed=tomorrow"), INPUT, "--sensed: 'tomorrow'", A_TIME),
    (("items", "--sensed=2099"), INPUT, "--sensed: '2099'", A_TIME),
    (("items", "--sensed=2099-01"), INPUT, "--sensed", "nothing that is past lies in '2099-01'"),
    (("items", "--since=x"), INPUT, "--since: 'x'", A_TIME),
    (("items", "--source=x"), CONFIGURATION, "'x'", "the configuration has: s2-l2a"),
    (("replay", "--held=x", "--yes"), CONFIGURATION, "'x'", "the configuration has: s2-l2a"),
    (("replay", "--error=", "--yes"), INPUT, "--error", "is empty"),  # part of every error: all that failed
    (("replay", "--runner=", "--yes"), INPUT, "--runner", "is empty"),
    (("replay", "", "--yes"), INPUT, "item", "is empty"),
    (("replay", "--file=.", "--yes"), INPUT, "cannot read", "Is a directory"),
    (("items", "--text= "), INPUT, "--text", "is empty"),
    (("explain", ""), INPUT, "item", "is empty"),
    (("backfill", "s2-l2a", "--start=x", "--end=1d"), INPUT, "--start: 'x'", A_TIME),
    (("backfill", "s2-l2a", "--start=1d", "--end=x"), INPUT, "--end: 'x'", A_TIME),
    (("backfill", "s2-l2a", "--start=2d", "--end=1d", "--canary=x"), USAGE, "--canary", A_NUMBER),
    (("expire", "--older-than=x"), INPUT, "--older-than: 'x'", A_SPAN),
    (("check", "--wait=x"), INPUT, "--wait: 'x'", A_SPAN),
    (("check", "--config=."), CONFIGURATION, "Is a directory", "--config FILE"),
    (("init", "--max-cloud-cover=x", "-c", "new.yaml"), USAGE, "--max-cloud-cover", "must be a number"),
    (("watch", "--log=x"), USAGE, "--log", "'x' is not one of"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("wrong")
    (place / "stac-watch.yaml").write_text(CONFIG)
    return place


@pytest.mark.parametrize(("argv", "code", "named", "why"), WRONG, ids=[" ".join(argv)[:40] for argv, *_ in WRONG])
def test_what_nobody_can_mean_is_named_with_a_remedy(stac_watch, open_ledger, place, argv, code, named, why):
    open_ledger(place / "ledger.db").close()
    said = stac_watch(*argv, cwd=place)
    assert (said.code, said.out) == (code, "")
    assert named in said.err
    assert why in said.err
    assert "→ " in said.err
    assert "valid integer" not in said.err, "pydantic's words"
    assert "Traceback" not in said.err


def test_a_list_that_is_empty_says_so_beside_the_list(stac_watch, open_ledger, place):
    open_ledger(place / "ledger.db").close()
    said = stac_watch("items", "--source", "s2-l2a", cwd=place)
    assert (said.code, said.out) == (0, "")
    assert "no conversion matches" in said.err
