"""The traps of real servers and of pystac-client that a watcher can fall into, and which test holds each.

The traps were measured on stac-fastapi-pgstac with pgstac 0.9.11 and 0.10.0, and with pystac-client 0.9.1. A test that is named
here shows the trap, by the obvious way of asking where there is one, and that nothing is lost.
"""

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from stac_watch.demo.faults import Faults

TESTS = Path(__file__).parents[1]
PGSTAC = "services/test_pgstac.py"
PAGING = "catalog/test_reader.py"
HTTP = "catalog/test_http.py"
AT_ANY_REQUEST = (HTTP, "test_a_fault_at_any_request_changes_nothing")
PROXY = ("services/test_churn.py", "test_behind_a_proxy_that_breaks_every_third_answer_the_result_is_the_same")

SERVERS = {
    "bounds with `Z` lose what has a fraction": [
        (PGSTAC, "test_a_second_is_whole_however_its_stamps_are_written"),
        ("catalog/test_windows.py", "test_a_text_comparing_server_selects_exactly_the_moments_inside_however_they_are_written"),
    ],
    "a declared stamp wants bounds that are times": [
        (PGSTAC, "test_a_declared_stamp_is_asked_for_as_a_time_whatever_the_database_s_time_zone"),
        ("catalog/test_windows.py", "test_a_typed_server_selects_exactly_the_moments_inside"),
    ],
    "a timestamp literal on text is HTTP 500, and the connection is dropped": [
        (PGSTAC, "test_a_timestamp_literal_is_a_server_error_and_the_next_request_finds_its_connection_gone"),
        ("catalog/test_windows.py", "test_the_bounds_literally"),
    ],
    "t_intersects looks at `datetime` whatever it is asked": [
        (PGSTAC, "test_an_operator_for_times_looks_at_another_property_on_the_older_one_and_is_never_used"),
    ],
    "tokens lose equal stamps when the id is not sorted by": [
        (PGSTAC, "test_one_second_with_more_items_than_a_page_is_read_whole")
    ],
    "equal stamps, sorted by id too": [(PGSTAC, "test_one_second_with_more_items_than_a_page_is_read_whole")],
    "the item at a page's edge is deleted: HTTP 500 for ever": [
        (PGSTAC, "test_what_happens_at_a_page_s_edge_takes_nothing_along"),
    ],
    "the item at a page's edge is published again: the rest is lost": [
        (PGSTAC, "test_what_happens_at_a_page_s_edge_takes_nothing_along"),
        (HTTP, "test_tokens_that_lose_items_are_never_followed"),
    ],
    "the same with 400 items of one second": [
        (PAGING, "test_of_400_items_of_one_second_none_is_lost_when_a_page_s_last_one_moves")
    ],
    "a stamp moves backwards, or comes late, while pages are read": [
        (PAGING, "test_a_stamp_that_moves_back_behind_what_was_read_is_found_by_the_next_poll_or_sweep"),
        (
            "discover/test_poll.py",
            "test_an_item_that_becomes_visible_long_after_its_stamp_is_found_and_makes_the_overlap_longer",
        ),
        ("discover/test_sweep.py", "test_a_back_dated_item_is_found"),
    ],
    "something newer appears while pages are read": [
        (PAGING, "test_what_is_published_while_a_poll_reads_is_found_by_it_or_by_the_next"),
    ],
    "one id in two collections": [
        (PGSTAC, "test_the_same_id_in_another_collection_is_another_item"),
        (PAGING, "test_items_of_another_collection_are_never_taken_for_ours"),
    ],
    "an item without the stamp is never in a range": [(PGSTAC, "test_an_item_without_a_stamp_is_found_by_the_sweep_only")],
    "a change of the collection rewrites every item": [
        (PGSTAC, "test_a_change_of_the_collection_that_rewrites_every_item_is_no_event"),
    ],
    "numberMatched is out of date": [
        (PGSTAC, "test_a_count_that_the_server_kept_is_not_believed"),
        (PAGING, "test_counts_that_are_out_of_date_are_not_believed"),
    ],
    "fixed windows and high-water marks lose what is visible later than stamped": [
        ("services/test_churn.py", "test_no_final_state_is_missed_and_nothing_is_announced_twice"),
    ],
    "a stamp without an index costs a second a poll": [
        (
            "catalog/test_probe.py",
            "test_on_a_slow_server_polls_look_at_recent_acquisitions_and_once_per_sweep_at_all_until_it_got_an_index",
        ),
    ],
    "a bulk load keeps stamps as they are spelled": [
        (PGSTAC, "test_a_stamp_that_was_loaded_as_it_was_spelled_is_found_by_the_next_poll"),
    ],
    "datetime null": [
        (PGSTAC, "test_an_item_without_an_instant_is_found_by_its_start"),
        (PAGING, "test_an_item_without_an_instant_is_found_by_its_start"),
    ],
}

CLIENT = {
    "500, 502 or 503 once: APIError": [AT_ANY_REQUEST, PROXY],
    "429 or 503 with Retry-After: APIError on POST": [AT_ANY_REQUEST, (HTTP, "test_retry_after_is_what_is_waited")],
    "a reset connection": [AT_ANY_REQUEST, PROXY],
    "a hang is waited for, for ever; Client.open drops the time-out": [
        (HTTP, "test_a_hanging_answer_is_cut_off_and_asked_for_again"),
        (HTTP, "test_a_server_that_drips_is_not_waited_for_for_ever"),
        PROXY,
    ],
    "a truncated body is not asked for again": [AT_ANY_REQUEST, PROXY],
    "a byte that is no UTF-8": [AT_ANY_REQUEST, PROXY],
    "HTML with 200": [AT_ANY_REQUEST, PROXY],
    "an empty page with a next ends the search": [AT_ANY_REQUEST, PROXY],
    "items without properties, assets without href, datetime null end items()": [
        (HTTP, "test_items_that_pystac_dies_of_do_not_hide_the_others"),
        (PAGING, "test_an_item_without_an_instant_is_found_by_its_start"),
        PROXY,
    ],
    "POST is never retried": [AT_ANY_REQUEST],
    "a redirected POST arrives as a GET without its body": [
        (HTTP, "test_a_redirect_is_never_followed_and_never_needed"),
        (PAGING, "test_items_of_another_collection_are_never_taken_for_ours"),
        PROXY,
    ],
    "sortby, filter, fields and limit are ignored without a word": [
        ("catalog/test_probe.py", "test_what_a_server_does_is_found_out_and_nothing_is_missed"),
        (HTTP, "test_a_server_that_clips_the_limit_without_a_word_loses_nothing"),
    ],
    "items() keeps every item in memory": [
        (PAGING, "test_a_sweep_keeps_nothing_of_what_it_read"),
    ],
    "CQL2 is text on GET": [("catalog/test_probe.py", "test_what_a_server_does_is_found_out_and_nothing_is_missed")],
}


@pytest.mark.parametrize(("row", "holders"), [*SERVERS.items(), *CLIENT.items()], ids=lambda v: v if isinstance(v, str) else "")
def test_each_trap_is_held_by_a_test(row, holders):
    assert holders, row
    for file, name in holders:
        functions = {
            node.name for node in ast.parse((TESTS / file).read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, f"{row}: {file} has no {name}"


@pytest.mark.parametrize("switch", [field.name for field in fields(Faults)])
def test_discovery_is_tested_with_each_fault_of_the_demo_catalog(switch):
    tests = [path for folder in ("catalog", "discover", "watch") for path in sorted((TESTS / folder).glob("test_*.py"))]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in tests]
    named = {word.arg for tree in trees for word in ast.walk(tree) if isinstance(word, ast.keyword)}
    named |= {word.value for tree in trees for word in ast.walk(tree) if isinstance(word, ast.Constant)}
    assert switch in named
