import pytest

from stac_watch.model.errors import IdentityError
from stac_watch.model.outcome import Outcome
from stac_watch.model.signatures import masked, unsigned

SIGNED = {
    "Azure": "sv=2024-11-04&se=2026-03-01T12%3A00%3A00Z&sr=c&sp=rl&sig=S3cr%2Bet%3D",
    "AWS": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=S3cret&X-Amz-Date=20260301&X-Amz-Signature=S3cret",
    "AWS, version 2": "AWSAccessKeyId=S3cret&Expires=1772366400&Signature=S3cret",
    "CloudFront": "Policy=S3cret&Signature=S3cret&Key-Pair-Id=S3cret",
    "Google": "GoogleAccessId=a%40b&Expires=1&Signature=S3cret",
    "Alibaba": "OSSAccessKeyId=S3cret&Expires=1&Signature=S3cret&security-token=S3cret",
    "Tencent": "q-sign-algorithm=sha1&q-ak=S3cret&q-sign-time=1;2&q-key-time=1;2&q-signature=S3cret",
    "Swift": "temp_url_sig=S3cret&temp_url_expires=1",
    "Akamai": "hdnea=S3cret",
    "nginx": "md5=S3cret&expires=1",
    "OAuth": "access_token=S3cret",
    "gateway": "api_key=S3cret", "another": "subscription-key=S3cret", "a third": "apiKey=S3cret", "a fourth": "token=S3cret",
}  # fmt: skip


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_what_signs_a_url_is_no_part_of_what_it_names_and_is_shown_to_nobody(query):
    href = "https://objects.example/a/x.zarr"
    assert unsigned(f"{href}?{query}") == href
    assert unsigned(f"{href}?versionId=3&{query}#part") == f"{href}?versionId=3#part"
    for text in (f"no product at {href}?{query}: it has no .zmetadata", f'{{"href": "{href}?versionId=3&{query}", "b": 1}}'):
        assert "S3cr" not in masked(text)
        assert href in masked(text)


@pytest.mark.parametrize(
    "href",
    [
        "https://h/x.zarr", "https://h/x.zarr?", "https://h/x.zarr?versionId=3", "https://h/get?key=a/x.zarr", "https://h/x?st=4&file=a",
        "https://h/x?design=1&assignment=2", "s3://bucket/x.zarr", "https://h/x?date=2026-03-01&format=zarr",
    ],
)  # fmt: skip
def test_what_names_a_product_stays_byte_for_byte(href):
    assert unsigned(href) == masked(href) == href


def test_errors_and_outcomes_show_no_signature():
    href = "https://h/x.zarr?sig=S3cret"
    error = IdentityError(f"href {href} is odd", hint=f"see {href}")
    assert "S3cret" not in f"{error}{error.message}{error.hint}"
    outcome = Outcome(source=href, reason=f"no product at {href}", hint=href)
    assert "S3cret" not in outcome.as_json() + str(outcome.document())
