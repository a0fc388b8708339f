"""The first items of a collection, by whichever request a catalog takes: what a refusal says is found out by asking for less."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from stac_watch.catalog.answers import BadAnswer, Rejected, TooLarge
from stac_watch.catalog.client import Catalog, ItemPage
from stac_watch.model.errors import CatalogUnavailable, ConfigError, Refused, StacWatchError
from stac_watch.model.stamps import stamp

SAMPLE = 20  # items that are looked at
SMALLER = ((SAMPLE, True), (SAMPLE, False), (5, True), (1, True), (5, False), (1, False))
"""Items that are asked for at once, and whether `fields` says what of them: what is tried, the best first."""
ATTEMPTS = 2  # of a question whose answer is not needed at once


def first_sample(catalog: Catalog, server_now: datetime, methods: Sequence[str] = ()) -> tuple[ItemPage, list[str]]:
    """Returns the first items, by the largest request that the server takes: by POST or GET (`methods`), with `fields` or without.

    Besides, what is in doubt: a method that was given up because of trouble may work tomorrow.

    Raises:
        CatalogUnavailable: no usable answer to any of them; the first refusal is told.
        ConfigError: the search redirects.
        Refused: it wants credentials, or others.
    """
    errors: list[StacWatchError] = []
    for method in methods or catalog.places.methods():
        if (page := _by(method, catalog, server_now, errors)) is not None:
            refusals = [e for e in errors if isinstance(e, Rejected | Refused)]
            if refusals and not catalog.abilities.fields:
                catalog.assume(notes=(f"`fields` is refused ({in_few_words(refusals[-1])})",))
            doubts = [f"whether a search can be asked for otherwise: {e.message}" for e in errors if isinstance(e, BadAnswer)]
            return page, doubts[:1]
    if all(isinstance(e, Rejected) and e.status == 404 for e in errors) and _searches_elsewhere(catalog):
        catalog.assume(empty_404=True, fields=True)
        return ItemPage([], full=False, server_now=server_now), []
    raise next((e for e in errors if not (isinstance(e, Rejected) and e.status in (404, 405))), errors[0])


def _by(method: str, catalog: Catalog, server_now: datetime, errors: list[StacWatchError]) -> ItemPage | None:
    """Returns the first items by one method, or None and what was wrong."""
    refused = 0
    for size, fields in SMALLER:
        catalog.assume(method=method, max_page=size, fields=fields)
        try:
            return _first_items(catalog, server_now)
        except (TooLarge, Rejected, Refused) as error:
            errors.append(error)
            refused += isinstance(error, Refused)
            if refused > 1 or (isinstance(error, Rejected) and error.status in (404, 405, 410, 415)):
                break  # of no request by this method, with `fields` or without
        except (BadAnswer, ConfigError) as error:
            errors.append(error)
            break
    return None


def _first_items(catalog: Catalog, server_now: datetime) -> ItemPage:
    size = catalog.abilities.page(SAMPLE)
    try:
        return catalog.ask({}, limit=size, attempts=ATTEMPTS)
    except TooLarge:
        raise
    except BadAnswer:
        for back in (1, 7, 30, 365):  # days: one item that the server cannot serve must not hide all the others
            try:
                return catalog.ask({"datetime": f"../{stamp(server_now - timedelta(days=back))}"}, limit=size, attempts=ATTEMPTS)
            except BadAnswer:
                continue
        raise


def _searches_elsewhere(catalog: Catalog) -> bool:
    """Tells whether a search in all collections is answered: then 404 means that this one is empty."""
    for method in catalog.places.methods():
        catalog.assume(method=method)
        try:
            catalog.ask({}, limit=1, attempts=ATTEMPTS, anywhere=True)
        except StacWatchError:
            continue
        return True
    return False


def in_few_words(error: CatalogUnavailable | Refused) -> str:
    """Returns a refusal in few words: the server's own, where it has some."""
    return error.words or f"HTTP {error.status}" if isinstance(error, Rejected) else error.message
