"""The item that is registered: what the run wrote beside its output, made fit for an API. Pure; the same input, the same bytes.

Of the source's own item that is taken which the product does not say, in its right form and set right; none of its links and
assets: they lead elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from stac_watch.config.register import Register
from stac_watch.model.acquired import checked, gathered
from stac_watch.model.errors import InputError
from stac_watch.model.extensions import used
from stac_watch.model.signatures import unsigned
from stac_watch.model.stamps import parse_stamp, stamp

type ItemJson = Mapping[str, Any]

ZARR = "application/vnd.zarr; version=3"
_FORMER = {"geozarr": "product", "quicklook": "thumbnail"}
"""Names of assets in items that earlier versions wrote: then there was no smaller picture."""
_WEB, _READ = re.compile(r"https?://[^\[\]]", re.IGNORECASE), re.compile(r"(https?|s3)://[^\[\]]", re.IGNORECASE)
_SUN = ("view:sun_elevation", "view:sun_azimuth")


@dataclass(frozen=True)
class Postable:
    """An item as it is sent, and what was set right in it."""

    document: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hash of the content: what is the same is not sent twice."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Outputs:
    """Where outputs are, and how readers reach them."""

    root: str  # what the names of all outputs begin with: `s3://bucket`, or the folder before the template's first field
    base: str  # the URL under which that is served

    def url(self, output: str) -> str:
        """Returns the URL of an output.

        Raises:
            InputError: it lies elsewhere.
        """
        inside = output.rstrip("/").removeprefix(f"{self.root}/") if self.root else output.rstrip("/")
        if (inside == output.rstrip("/") and self.root) or inside.startswith(("/", "../")):
            said = f"{output} does not lie in {self.root or 'the folder of recipe.output'}, which register.href_base stands for"
            raise InputError(
                said, hint="convert it again with `stac-watch replay ITEM`, or register it with the configuration it had"
            )
        return f"{self.base}/{quote(inside)}"


def outputs_of(template: str, base: str) -> Outputs:
    """Returns where a template puts outputs: `base` stands for its bucket, or for the folder before its first field."""
    scheme, sep, rest = template.partition("://")
    if sep and scheme != "file":
        return Outputs(f"{scheme}://{rest.partition('/')[0]}", base)
    return Outputs(template.partition("{")[0].rpartition("/")[0], base)


def postable(
    described: ItemJson, register: Register, outputs: Outputs, *, output: str, item_href: str, source: ItemJson | None
) -> Postable:
    """Returns the item to register.

    Args:
        described: what the run wrote beside the output.
        register: the target, and what it should have.
        outputs: where outputs are.
        output: the output's name.
        item_href: URL of the source's item, which this one is derived from.
        source: that item as its catalog has it now; None where it has none.

    Raises:
        InputError: nothing that a catalog would take can be made of it.
    """
    if not isinstance(described.get("geometry"), dict) or not isinstance(described.get("assets"), dict):
        raise InputError(f"the item beside {output} has no geometry: no STAC API takes it", hint="its product says no footprint")
    url = outputs.url(output)
    acquired = _properties(described, source)
    document: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": described["id"],
        "collection": register.collection,
        "geometry": described["geometry"],
        "bbox": described.get("bbox"),
        "properties": acquired[0] | _lifetime(acquired[0], register),
        "links": _links(described, register, url, item_href, source, acquired[0]),
        "assets": _assets(described["assets"], url, output),
    }
    document["stac_extensions"] = used(document)
    return Postable(document, acquired[1])


def _properties(described: ItemJson, source: ItemJson | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    said = described.get("properties")
    own: dict[str, Any] = dict(said) if isinstance(said, dict) else {}
    theirs = source.get("properties") if source is not None else None
    others = theirs if isinstance(theirs, Mapping) else {}
    found = gathered({name: others.get(name) for name in _SUN}, own, others)
    box, metres = described.get("bbox"), own.get("proj:bbox")
    result = checked(
        own | found,
        str(described["id"]),
        sensed=parse_stamp(own.get("datetime")) or parse_stamp(own.get("start_datetime")),
        bbox=box if isinstance(box, list) and len(box) == 4 else None,
        crs=str(own.get("proj:code") or ""),
        metres=metres if isinstance(metres, list) else (),
    )
    software = others.get("processing:software")
    ours = own.get("processing:software")
    if isinstance(software, Mapping) and isinstance(ours, Mapping):
        kept = {str(name): one for name, one in software.items() if isinstance(one, str) and one.strip()}
        result.properties["processing:software"] = {**kept, **ours}
    return dict(sorted(result.properties.items())), result.notes


def _lifetime(properties: ItemJson, register: Register) -> dict[str, str]:
    """Returns `expires` in whole seconds with `Z`: catalogs compare it as text."""
    sensed = parse_stamp(properties.get("datetime")) or parse_stamp(properties.get("start_datetime"))
    if register.expires_after is None or sensed is None:
        return {}
    return {"expires": stamp((sensed + register.expires_after).replace(microsecond=0))}


def _links(
    described: ItemJson, register: Register, url: str, item_href: str, source: ItemJson | None, properties: ItemJson
) -> list[dict[str, str]]:
    collection = f"{register.api}/collections/{quote(register.collection, safe='')}"
    links = [{"rel": "collection", "href": collection, "type": "application/json"}]
    if _WEB.match(item_href):
        links.append({"rel": "derived_from", "href": unsigned(item_href), "type": "application/geo+json", "title": "Source item"})
    links += [
        {"rel": "via", "href": str(link["href"]), "type": str(link.get("type", "application/vnd.zarr")), "title": "Source product"}
        for link in described.get("links", ())
        if link.get("rel") == "via" and _READ.match(str(link.get("href")))
    ]
    links.append({"rel": "store", "href": url, "type": ZARR, "title": "Zarr store"})
    if doi := properties.get("sci:doi"):
        links.append({"rel": "cite-as", "href": f"https://doi.org/{quote(str(doi))}"})
    links += _licenses(source)
    fields = {"item_id": quote(str(described["id"])), "collection": quote(register.collection), "store": quote(url, safe="")}
    for link in register.links:
        href = link.href
        for name, value in fields.items():
            href = href.replace(f"{{{name}}}", value)
        told = {"type": link.type, "title": link.title}
        links.append({"rel": link.rel, "href": href, **{name: value for name, value in told.items() if value}})
    return links


def _licenses(source: ItemJson | None) -> list[dict[str, str]]:
    given = source.get("links") if source is not None else None
    found = [link for link in given if isinstance(link, dict) and link.get("rel") == "license"] if isinstance(given, list) else []
    return [
        {name: str(link[name]) for name in ("rel", "href", "type", "title") if link.get(name)}
        for link in found
        if _WEB.match(str(link.get("href")))
    ]


def _assets(given: Mapping[str, Any], url: str, output: str) -> dict[str, Any]:
    """Makes hrefs absolute, and says beside each where S3 has the same."""
    beside, parent = url.rpartition("/")[0], output.rstrip("/").rpartition("/")[0]
    assets = {}
    for name, asset in given.items():
        href = str(asset.get("href", ""))
        if not href.startswith("./"):
            assets[_FORMER.get(name, name)] = dict(asset)
            continue
        path = posixpath.normpath(href[2:])
        changed = {**asset, "href": f"{beside}/{quote(path)}"}
        if output.startswith("s3://"):
            changed["alternate"] = {"s3": {"href": f"{parent}/{path}", **_refs(asset)}}
        assets[_FORMER.get(name, name)] = changed
    return assets


def _refs(asset: Mapping[str, Any]) -> dict[str, Any]:
    return {"storage:refs": asset["storage:refs"]} if "storage:refs" in asset else {}
