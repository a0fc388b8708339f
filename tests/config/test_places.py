"""Templates of outputs: good for every value that an item may have, or refused when the configuration is read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_watch.config.places import NO_TILE, OUTPUT_FIELDS, output_template
from stac_watch.model.identity import ITEM_ID

GOOD = (
    "var/outputs/{collection}/{item_id}.zarr", "/data/{item_id}.zarr", "s3://bucket/{item_id}.zarr", "out/{tile}/{item_id}.zarr",
    "s3://bucket/{catalog}/{tile}/{key}.zarr", "out/{item_id}-{key}.zarr", "out/{key}", "out/{item_id}/store.zarr",
    "{item_id}.zarr",
    "../elsewhere/{item_id}.zarr", "out/{item_id}.geo.zarr", "{collection}/{item_id}.zarr", "out/{item_id}/{key}",
)  # fmt: skip
BAD = {
    "{tile}/{item_id}.zarr": "begins with what an item may lack", "/{item_id}.zarr": "root", "//{item_id}.zarr": "root",
    "s3://{collection}/{item_id}.zarr": "bucket", "s3:///{item_id}.zarr": "bucket", "s3://{item_id}.zarr": "bucket",
    "s3://bucket//{item_id}.zarr": "empty", "out//{item_id}.zarr": "empty", "out/{item_id}": "another item's",
    "out/{item_id}.tar": "another item's", "out/{item_id}.json": "another item's",
    "out/{key}-{item_id}": "another item's", "out/{item_id:.20}.zarr": "two items one", "out/{item_id!r}.zarr": "two items one",
    "out/{item_id[0]}.zarr": "unknown field", "out/{}.zarr": "unknown field", "out/{item_id}/../x.zarr": "out of its folder",
    "out/{item_id}/./x.zarr": "out of its folder", "s3://bucket/../{item_id}.zarr": "out of its folder",
    "out/{{item_id}}.zarr": "two items one", "out/{item_id.zarr": "not a template",
    "out/x.zarr": "one name", "out/{tile}.zarr": "one name",
    "out/{platform}.zarr": "unknown field",
}  # fmt: skip
BESIDE = (".tar", ".tar.gz", ".report.html", ".report.json", ".quicklook.png", ".thumbnail.webp", ".item.json", ".sha256")
VALUES = st.fixed_dictionaries({
    "catalog": st.just("stac.example"), "collection": st.just("s2"), "tile": st.sampled_from([NO_TILE, "T32TQM"]),
    "item_id": st.from_regex(ITEM_ID, fullmatch=True).filter(lambda s: ".." not in s)
    | st.sampled_from(["A", "A.tar", "A.zarr", "A.zarr.tar"]),
    "key": st.from_regex(r"[0-9a-f]{20}", fullmatch=True),
})  # fmt: skip


@pytest.mark.parametrize(("template", "why"), BAD.items())
def test_what_some_item_could_misuse_is_refused(template, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        output_template(template)


@pytest.mark.parametrize("template", GOOD)
@given(one=VALUES, other=VALUES)
def test_what_is_taken_is_good_for_every_value_that_an_item_may_have(template, one, other):
    assert output_template(template) == template
    assert set(one) == OUTPUT_FIELDS
    path, second = template.format(**one), template.format(**other)
    assert "//" not in path.partition("://")[2] + path.partition("://")[0]
    start = template.partition("{")[0].rpartition("/")[0]
    assert path.startswith(start)
    assert not {".", ".."} & set(path.removeprefix(start).split("/"))
    assert second not in {path + end for end in BESIDE}
