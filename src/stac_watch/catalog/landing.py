"""The root of a STAC API: which of its links are asked, and what stands there when it is none. Pure.

Links name whatever host and path a server believes to have. So each is only a proposal, and what the specification says (the search
lies at `/search` under the root) is the last one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from stac_watch.catalog.answers import printable
from stac_watch.model.errors import ConfigError

METHODS = ("POST", "GET")  # in the order in which they are tried: a window is longer than some servers' URLs
_JSON = re.compile(r"application/(geo\+|[\w.-]+\+)?json", re.IGNORECASE)
_PARTS = {"Collection": "a collection", "Feature": "an item", "FeatureCollection": "a page of items"}
_BELOW = re.compile(r"/(collections|search|items|conformance|queryables|api\.html)(/.*)?$")


@dataclass(frozen=True)
class Endpoint:
    """Where a search may be asked for, and how."""

    url: str
    method: str


def endpoints(landing: dict[str, Any], api: str) -> list[Endpoint]:
    """Returns where the search may be, most likely first: by the links, then where the specification has it."""
    found = [e for link in links(landing, "search") for e in _offered(link, api)]
    found += [Endpoint(f"{api}/search", method) for method in METHODS if not found or any(e.method == method for e in found)]
    return sorted(dict.fromkeys(found), key=lambda e: METHODS.index(e.method))


def _offered(link: dict[str, Any], api: str) -> Iterator[Endpoint]:
    kind, given = link.get("type"), str(link.get("method") or "").upper()
    if isinstance(kind, str) and kind and not _JSON.match(kind):
        return  # a page for people, or OpenSearch
    for method in (given,) if given in METHODS else METHODS:  # it need not say, and many that take POST do not
        yield Endpoint(resolve(str(link["href"]), api), method)


def resolve(href: str, api: str) -> str:
    """Returns a link's target: relative to the root, without the parameters that it proposes."""
    path: str = re.split(r"[?{#]", href, maxsplit=1)[0]
    try:
        return urljoin(f"{api}/", path)
    except ValueError:  # no URL
        return api


def links(document: dict[str, Any], rel: str) -> list[dict[str, Any]]:
    """Returns the links of a relation that have an href."""
    given = document.get("links")
    return (
        [k for k in given if isinstance(k, dict) and k.get("rel") == rel and isinstance(k.get("href"), str)]
        if isinstance(given, list)
        else []
    )


def collection_urls(landing: dict[str, Any], api: str, name: str) -> list[str]:
    """Returns where else a collection may be than where the specification has it: by the links."""
    names = dict.fromkeys(quote(name, safe=safe) for safe in ("", ":@!$&'()*+,;=", ":@!$&'()*+,;=/"))  # servers differ in it
    under = [f"{api}/collections", *(resolve(link["href"], api).rstrip("/") for link in links(landing, "data"))]
    found = [f"{url}/{spelled}" for url in under for spelled in names]
    children = (resolve(link["href"], api).rstrip("/") for link in links(landing, "child"))
    return list(dict.fromkeys([*found, *(url for url in children if unquote(url).endswith(f"/{name}"))]))


def check_root(document: dict[str, Any], api: str) -> None:
    """Refuses what is JSON and no root of an API, and says which URL may be the one.

    Raises:
        ConfigError: it is a collection, an item, a page of a search, or a catalog that is no API.
    """
    kind = document.get("type")
    if kind in ("Collection", "Feature", "FeatureCollection") or (kind is None and isinstance(document.get("collections"), list)):
        what = {"Collection": "a collection", "Feature": "an item", "FeatureCollection": "a page of items"}.get(
            str(kind), "a list of collections"
        )
        raise ConfigError(f"{api} is {what}, and not the root of a STAC API", hint=f"write {_root(document, api)} into `api:`")
    if not isinstance(document.get("links"), list):
        raise ConfigError(
            f"{api} answered JSON that is not STAC", hint="`api:` is the root of a STAC API, its landing page has `links`"
        )
    rels = {link.get("rel") for link in document["links"] if isinstance(link, dict)}
    if not document.get("conformsTo") and not rels & {"search", "data", "conformance", "service-desc"} and rels & {"child", "item"}:
        raise ConfigError(
            f"{api} is a static catalog, files without a search", hint="a STAC API is needed: ask its operator whether there is one"
        )


def _root(document: dict[str, Any], api: str) -> str:
    """Returns where the root may be: where the document says, if that is above; else the URL without what is below a root."""
    cut = _BELOW.sub("", api)
    for link in links(document, "root"):
        path = urlsplit(resolve(link["href"], api)).path.rstrip("/")
        if path != urlsplit(api).path and urlsplit(api).path.startswith(path):
            return printable(f"{urlsplit(api).scheme}://{urlsplit(api).netloc}{path}")
    return cut if cut != api else "the URL of its root, which its link `root` names,"


def shown_by_browser(url: str) -> str | None:
    """Returns the API that a page of STAC Browser shows, by the page's own URL; None if it is none."""
    found = re.search(r"/external/(?:(https?):/+)?([A-Za-z0-9][^?#\s]*)", url)
    return _BELOW.sub("", f"{found[1] or 'https'}://{found[2]}").rstrip("/") if found else None


def named_in_page(text: str) -> str | None:
    """Returns the API that a page of STAC Browser says to show; None where it does not say."""
    found = re.search(r"catalogUrl[\"']?\s*[:=]\s*[\"'](https?://[^\"'\s<>]+)", text)
    return found[1] if found else None


def similar(wanted: str, names: Iterable[str]) -> list[str]:
    """Returns the names that may have been meant, the closest first."""
    import difflib

    known = sorted(names)
    return difflib.get_close_matches(wanted, known, n=3, cutoff=0.4) or known[:5]
