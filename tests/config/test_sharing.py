"""Two sources never share an output by accident, and the sentence says what to write."""

import pytest
from pydantic import ValidationError

from stac_watch.config.model import Config
from stac_watch.config.sharing import catalog_name
from stac_watch.discover.recipes import conversion

A = {"name": "a", "api": "https://one.example/stac", "collection": "s2"}


def config(*others, output=None):
    recipe = {} if output is None else {"output": output}
    return Config.model_validate({"sources": [A, *({**A, "name": "b", **other} for other in others)], "recipe": recipe})


@pytest.mark.parametrize(
    ("other", "output"),
    [
        ({"api": "https://two.example"}, "out/{collection}/{item_id}.zarr"),
        ({"api": "https://two.example"}, "s3://bucket/{item_id}.zarr"),
        ({"collection": "s2-l1c"}, "out/{item_id}.zarr"),
        ({"collection": "s2-l1c"}, "out/{collection}{item_id}.zarr"),  # of `s2` and `-l1c-x`, and of `s2-l1c` and `-x`
        ({"api": "http://one.example/stac"}, "out/{catalog}/{item_id}.zarr"),  # one catalog, written in two ways
    ],
)
def test_sources_whose_items_can_have_one_path_are_refused(other, output):
    with pytest.raises(ValidationError, match=r"'a' and 'b'.*the same path; write \{catalog\} and \{collection\} into it"):
        config(other, output=output)


@pytest.mark.parametrize(
    ("other", "output"),
    [
        ({"api": "https://two.example"}, "out/{catalog}/{item_id}.zarr"),
        ({"api": "https://one.example:8443/stac"}, "out/{catalog}/{item_id}.zarr"),
        ({"collection": "s2-l1c"}, "out/{collection}/{item_id}.zarr"),
        ({"collection": "s2-l1c"}, "out/x-{collection}/{tile}/{item_id}.zarr"),
        ({"api": "https://two.example"}, "out/{key}.zarr"),
        ({}, "out/{item_id}.zarr"),  # one collection: one conversion for both
    ],
)
def test_sources_that_cannot_meet_are_taken(other, output):
    assert len(config(other, output=output).sources) == 2


def test_the_default_output_tells_catalogs_apart_where_it_must(make):
    assert config({"collection": "other"}).recipe.output == "var/outputs/{collection}/{item_id}.zarr"
    apart = config({"api": "https://two.example"})
    outputs = {
        conversion(make.item(collection="s2"), source, apart.recipe, "live", replaced=False).output_zarr for source in apart.sources
    }
    assert outputs == {f"var/outputs/{host}/s2/{make.item_id}.zarr" for host in ("one.example-stac", "two.example")}


@pytest.mark.parametrize("differs", [{"on": "restamp"}, {"same_as": [["a.example", "b.example"]]}])
def test_sources_of_one_collection_agree_on_what_a_revision_is(differs):
    with pytest.raises(ValidationError, match=f"differ in `{next(iter(differs))}`"):
        config(differs, output="out/{item_id}.zarr")
    assert config(differs, output="out/{item_id}-{key}.zarr")


def test_a_catalog_s_name_is_a_folder_s():
    assert catalog_name("https://Stac.example:8443/a/b c/") == "stac.example-8443-a-b-c"
