"""Texts of other people are bounded, and act on nothing, wherever they are kept or shown."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.ledger.records import Move
from stac_watch.model.errors import CatalogUnavailable
from stac_watch.model.outcome import parse_outcome
from stac_watch.model.states import Fact
from stac_watch.model.texts import MOST, visible

ACTS = ["\x1b]0;owned\x07", "\x1b[2J", "\r", "\x9b1A", "\u202egnp.exe", "\x08" * 9, "\u2066", "a\ud800"]


@given(st.text(max_size=200))
def test_what_is_visible_has_one_line_and_nothing_that_acts(text):
    shown = visible(text)
    assert "\n" not in shown
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
    shown.encode()
    assert visible(shown) == shown


@pytest.mark.parametrize("evil", ACTS)
def test_errors_and_outcomes_show_it_spelled_out(evil):
    error = CatalogUnavailable(f"said {evil}", hint=f"see {evil}")
    for text in (error.message, error.hint, str(error), parse_outcome(json.dumps({"code": 65, "reason": f"said {evil}"})).reason):
        assert evil not in text
        assert text.isprintable()


def test_a_reason_without_end_is_cut_where_it_is_kept_and_where_it_is_shown(ledger, make):
    """60 MB of asset names made the ledger, its page and `status` unusable."""
    endless = "band_\x1b[2J, " * 400_000
    assert len(CatalogUnavailable(endless).message) < 2 * MOST
    ledger.items.commit("s2", [make.sighting()], [], None, make.now)
    (row,) = ledger.conversions.find()
    said = {"code": 65, "reason": endless, "groups": ["g" * 1000] * 3000, "checks": [], "others": {"x": "y" * 10**6}}
    outcome = parse_outcome(json.dumps(said))
    ledger.conversions.move(row, Move(Fact.FAILED_PERMANENT, endless, reason=endless, outcome=outcome), make.now)
    kept = ledger.conversions.get(row.key)
    assert len(kept.reason) < 2 * MOST
    assert len(json.dumps(kept.outcome.document())) < 300_000
    assert "\x1b" not in kept.reason + kept.outcome.reason
