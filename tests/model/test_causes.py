import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.model.causes import LENGTH, fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP 404 for https://a.example/x.zarr/.zmetadata", "HTTP 404 for https://b.example/y.zarr/.zmetadata?x=1"),
        ("no space left while writing /data/a/b, 123 GB needed", "no space left while writing /data/c/d, 7.5 GB needed"),
        ("chunk 3.12 of S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613 is broken",
         "chunk 10.1 of S2B_MSIL2A_20241008T100041_N0511_R122_T33UUP_20251008T122613.zarr is broken"),
        ("run of key 00ab12cd34ef failed", "run of key ff0012cd34ab failed"),
    ],
)  # fmt: skip
def test_what_differs_from_run_to_run_is_left_out(one, other):
    assert fingerprint(one) == fingerprint(other) != one


def test_what_is_different_stays_different():
    told = ["no such group", "no such band", "the source is not there", "disk full"]
    assert len({fingerprint(text) for text in told}) == len(told)


@given(st.text(max_size=1000))
def test_it_is_one_short_line_and_its_own_fingerprint_s_length(text):
    found = fingerprint(text)
    assert len(found) <= LENGTH
    assert "\n" not in found
    assert found.isprintable()
