"""What a source's rules make of the newest items: a filter that can match nothing is said before it skips for weeks."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from stac_watch.catalog.answers import BadAnswer
from stac_watch.catalog.client import Catalog
from stac_watch.config.model import Filter, Source
from stac_watch.discover.intake import read_document
from stac_watch.discover.policy import Skip, judge
from stac_watch.model.causes import fingerprint
from stac_watch.model.item import Item, ItemDocument, SkipReason
from stac_watch.model.product import product_href

NEWEST = 400  # items: a day of a third of the globe
FEWER = (NEWEST, 100, 20, 5)  # where an answer may not be so large

_LOOK_AT = {
    SkipReason.OUTSIDE_AREA: "filter.bbox and filter.intersects: west, south, east, north, longitude first",
    SkipReason.NO_BBOX: "an area is configured, and these items do not say where they lie",
    SkipReason.TOO_CLOUDY: "filter.max_cloud_cover: per cent, 0 to 100",
    SkipReason.NO_CLOUD_COVER: "filter.max_cloud_cover is set, and these items have no eo:cloud_cover",
    SkipReason.TOO_OLD: "filter.max_age: counted from the acquisition",
    SkipReason.FORM: "the runner does not take the form of these products: does another collection of the catalog have them?",
    SkipReason.OTHER_TILE: "filter.tiles: is the catalog of another region, or do its items not name their tile in grid:code?",
    SkipReason.NO_MATCH: "filter.cql2: how do these items spell what it compares?",
    SkipReason.CANNOT_MATCH: "filter.cql2 names a property that these items do not have",
}


@dataclass(frozen=True)
class Outlook:
    """What would become of the newest items."""

    items: int
    matching: int
    skipped: dict[SkipReason, int]  # by the first rule that says no
    unreadable: int
    forms: dict[str, int]  # of their products
    examples: list[str]  # of reasons for it, one of each kind

    def words(self, rules: Filter) -> list[str]:
        """Returns it in sentences, warnings included."""
        if not self.items:
            return []
        parts = [f"{n} {reason.value}" for reason, n in self.skipped.items()]
        parts += [f"{self.unreadable} unreadable"] if self.unreadable else []
        told = [f"of the newest {self.items} items {self.matching} match" + (f"; {', '.join(parts)}" if parts else "")]
        told += [f"their products: {', '.join(f'{n} {form}' for form, n in self.forms.items())}"] if self.forms else []
        if not self.matching:
            hints = [hint for reason in self.skipped if (hint := _LOOK_AT.get(reason))]
            told.append(f"warning: nothing that the catalog has would be converted → {'; '.join(hints) or 'see below'}")
        told += [f"unreadable, for example: {why}" for why in self.examples[:3]]
        if rules.max_cloud_cover is not None and 0 < rules.max_cloud_cover <= 1:
            told.append(
                f"warning: max_cloud_cover {rules.max_cloud_cover:g} is less than one per cent or so: it is no share"
                f" → write {rules.max_cloud_cover * 100:g} if that is what you mean"
            )
        return told


def _newest(catalog: Catalog) -> list[ItemDocument]:
    """Returns the newest items, fewer where so many cannot be answered at once."""
    query = {"sortby": ["-properties.datetime", "-id"]} if catalog.abilities.sorts else {}
    for limit in FEWER:
        with contextlib.suppress(BadAnswer):
            return catalog.ask(query, limit=catalog.abilities.page(limit), attempts=2).items
    return catalog.ask(query, limit=1).items


def outlook(source: Source, catalog: Catalog, now: datetime) -> Outlook:
    """Asks for a page of the newest items and judges them; writes nothing.

    Raises:
        CatalogUnavailable: no usable answer.
    """
    documents = _newest(catalog)
    skipped, forms, unreadable, matching = Counter[SkipReason](), Counter[str](), list[str](), 0
    for document in documents:
        item = read_document(document, source)
        if not isinstance(item, Item):
            unreadable.append(item.why)
            continue
        forms[item.form.value] += 1
        if isinstance(verdict := judge(item, source.filter, now, document), Skip):
            skipped[verdict.reason] += 1
        else:
            matching += 1
    examples = list({fingerprint(why): why for why in reversed(unreadable)}.values())
    counted = dict(skipped.most_common()), len(unreadable), dict(forms.most_common())
    return Outlook(len(documents), matching, *counted, examples)


def product_hosts(catalog: Catalog) -> list[str]:
    """Returns the hosts, and buckets, on which the products of the newest items lie; those of most items first.

    Raises:
        CatalogUnavailable: no usable answer.
    """
    hrefs = (product_href(document, catalog.api) for document in _newest(catalog))
    hosts = Counter(host for href in hrefs if href is not None and (host := _host(href)))
    return [host for host, _ in hosts.most_common()]


def _host(href: str) -> str | None:
    try:
        return urlsplit(href).hostname
    except ValueError:  # no URL
        return None
