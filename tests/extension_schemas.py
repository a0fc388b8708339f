"""The schemas of the extensions that items declare, kept beside the tests: nothing is asked of the network.

Source: stac-extensions.github.io and cs-si.github.io as published (branches gh-pages, Apache 2.0), and geojson.org's Geometry. Not
there: PROJJSON (no item of ours has one), and STAC 1.0's basics, of which alternate-assets asks nothing but that a field is text.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

ABSENT = (
    "https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/basics.json",
    "https://proj.org/schemas/v0.7/projjson.schema.json",
)


@cache
def _known() -> tuple[dict[str, Any], Registry[Any]]:
    found = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    whole = found | {url: {} for url in ABSENT}
    resources = [(url, Resource.from_contents(schema, default_specification=DRAFT7)) for url, schema in whole.items()]
    return found, Registry().with_resources(resources)


def wrong(document: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with an item, or a collection, by the schema of each extension that it declares."""
    found, registry = _known()
    said = []
    for url in document["stac_extensions"]:
        if url not in found:
            said.append(f"{url}: not among the schemas of the tests")
            continue
        validator = validator_for(found[url])(found[url], registry=registry)
        for error in validator.iter_errors(document):
            inner = [f"{list(one.path)} {one.message[:200]}" for one in error.context or ()]
            said.append(f"{url} {list(error.path)}: {error.message[:200]} {inner}")
    return said
