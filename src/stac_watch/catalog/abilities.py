"""What a server was found to do, and what that means for a person. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

STAMPS = ("updated", "published", "created")


@dataclass(frozen=True)
class Abilities:
    """What a server was found to do for one collection. The defaults are what a good STAC API does."""

    method: str = "POST"
    stamp: str = "updated"  # what windows are about; `datetime` where no change stamp can be used
    typed: bool = False  # compares stamps as times; else as text
    filters: bool = True  # takes CQL2 at all
    sorts: bool = True
    fields: bool = True
    product: bool = False  # items have their store in the asset `product`, and it can be asked for alone
    max_page: int = 10_000  # items that it returns at most
    honest_next: bool = True  # a page without `next` is the last one
    idle: float = 0.0  # seconds that a query takes which finds nothing
    samples: int = 1  # items that were looked at
    stamps: tuple[str, ...] = ("updated",)  # change stamps that could be used; the first one is
    unstamped: bool = False  # items were met that have none at all: only a baseline tells what of them is new
    rejected: tuple[str, ...] = ()  # change stamps that cannot be used, and why
    far: bool = True  # takes the year 9999; where not, what is open to the future has no end
    fraction: bool = True  # takes microseconds in `datetime`
    empty_404: bool = False  # a search that finds nothing is answered 404
    notes: tuple[str, ...] = ()  # what else a person should know
    doubts: tuple[str, ...] = ()  # what could not be found out, because the server was in trouble: it is asked again soon
    doubted: int = 0  # probes in a row that ended in doubts

    def page(self, wanted: int) -> int:
        """Returns how many items to ask for at once."""
        return max(1, min(wanted, self.max_page, wanted if self.fields else WHOLE_PAGE))


WHOLE_PAGE = 200  # items per request where a server ignores `fields`: 20 KB each

EXPENSIVE = 0.3  # seconds for a query that finds nothing: an index is missing, and asking is a burden


def restore(found: dict[str, Any]) -> Abilities | None:
    """Returns abilities as the ledger keeps them; None when they are of another version."""
    names = {f.name for f in fields(Abilities)}
    if set(found) != names:
        return None
    return Abilities(**{**found, **{name: tuple(found[name]) for name in ("stamps", "rejected", "notes", "doubts")}})


def words(a: Abilities) -> list[str]:
    """Returns what was found and what follows, a sentence each."""
    doubts = [f"in doubt, and asked again soon: {doubt}" for doubt in a.doubts]
    if not a.samples:
        return ["the collection is empty: nothing is known yet, each poll looks again", *a.notes, *doubts]
    told = [*doubts, f"search by {a.method}, {a.max_page} items a page", *a.rejected, *a.notes]
    if a.stamp == "datetime":
        told.append("no change stamp can be used: the last days are read again by acquisition time")
    elif a.typed:
        told.append(f"`{a.stamp}` is compared as time: windows on it, bounds in {'micro' if a.fraction else ''}seconds")
    else:
        told.append(f"`{a.stamp}` is compared as text: windows on it, bounds in bare seconds")
    if others := [f"`{name}`" for name in a.stamps if name != a.stamp]:
        told.append(f"{' and '.join(others)} could be used in its place")
    if not a.fields:
        told.append("`fields` cannot be used: whole items are read, some twenty times the bytes")
    elif not a.product:
        told.append("not every item has an asset `product`: all assets are read, some ten times the bytes")
    if not a.sorts:
        told.append("`sortby` cannot be used: a second with more items than a page cannot be read")
    if not a.honest_next:
        told.append("complete pages have a `next` too: whether there is more is told by their length")
    cost = f"a query that finds nothing takes {a.idle * 1000:.0f} ms"
    told.append(f"{cost}: {_FLOORED}" if a.idle > EXPENSIVE else cost)
    return told


def summary(a: Abilities) -> str:
    """Returns what was found, in one line."""
    if not a.samples:
        return "the collection is empty"
    how = "acquisition time" if a.stamp == "datetime" else f"`{a.stamp}` as {'time' if a.typed else 'text'}"
    told = [f"search by {a.method}, {a.max_page} items a page", f"windows on {how}"]
    told += ["in doubt"] if a.doubts else []
    told += [f"`{name}` cannot be used" for name, honoured in (("fields", a.fields), ("sortby", a.sorts)) if not honoured]
    return ", ".join([*told, f"{a.idle * 1000:.0f} ms to find nothing"])


_FLOORED = "polls look at recent acquisitions only, and at all of them once per sweep; an index on the stamp would help"
