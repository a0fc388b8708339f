"""What backfill, replay, audit and prune found or did, as tables.

What comes from a catalog is wrapped in `Text`: in a plain string rich takes `[/x]` for markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stac_watch.jobs.audit import Audit, Gap
from stac_watch.jobs.backfill import BackfillPlan
from stac_watch.jobs.expire import ExpiryPlan
from stac_watch.jobs.prune import Pruned
from stac_watch.jobs.rebuild import Rebuilt
from stac_watch.jobs.register import RegistrationWish
from stac_watch.jobs.replay import ReplayTarget
from stac_watch.jobs.retire import Retiring
from stac_watch.ledger.backup import Backup
from stac_watch.ledger.copying import Copied
from stac_watch.ledger.deliveries import Told
from stac_watch.model.stamps import stamp
from stac_watch.report.times import when

SHOWN = 50  # lines; --json and files have all
DAYS = 40
OBJECTS = 10  # of one output


def render_wanted(wanted: Sequence[RegistrationWish], title: str = "to be registered") -> RenderableType:
    """Returns what is to be registered, or taken out."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("item", "source", "why"):
        table.add_column(name, overflow="fold")
    for one in wanted[:SHOWN]:
        table.add_row(Text(one.item), one.source, Text(one.why))
    if len(wanted) > SHOWN:
        table.add_row(f"… {len(wanted) - SHOWN} more", "", "")
    return table


def render_told(told: Sequence[Told]) -> RenderableType:
    """Returns what sinks were told, or are to be."""
    table = Table(title="told", title_justify="left", header_style="bold")
    for name in ("about", "event", "made", "sink", "state", "why"):
        table.add_column(name, overflow="fold")
    for one in told[:SHOWN]:
        state = f"{one.state.value} {when(one.changed_at)}"
        table.add_row(Text(one.topic), one.type, when(one.created_at), Text(one.sink), state, Text(one.reason or ""))
    if len(told) > SHOWN:
        table.add_row(f"… {len(told) - SHOWN} more", *[""] * 5)
    return table


def render_plan(plan: BackfillPlan) -> RenderableType:
    """Returns what a backfill would do, by day."""
    table = Table(title=Text(f"{plan.source}: {stamp(plan.start)} to {stamp(plan.end)}"), title_justify="left", header_style="bold")
    columns = ("items", "to_do", "done", "unfinished", "failed", "skipped", "unreadable", "expired")
    table.add_column("day")
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    shown = [day for day in plan.days if day.items or day.unreadable]
    for day in shown[:DAYS]:
        table.add_row(day.day, *(str(getattr(day, name)) for name in columns))
    if len(shown) > DAYS:
        table.add_row(f"… {len(shown) - DAYS} more", *("" for _ in columns))
    table.add_row("all", *(str(sum(getattr(day, name) for day in plan.days)) for name in columns), style="bold")
    basis = "based on conversions here" if plan.measured else "typical of a full Sentinel-2 tile"
    skipped = ", ".join(f"{n} {reason}" for reason, n in plan.reasons.items())
    notes = [Text(f"skipped: {skipped}")] if skipped else []
    notes += [Text(f"to do: {plan.to_do} items, about {plan.gigabytes:g} GB and {plan.hours:g} h ({plan.limit}; {basis})")]
    if plan.other_recipe:
        notes.append(Text(f"{plan.other_recipe} of them were done with another recipe or location, and will be redone"))
    if plan.goes_on_at is not None:
        notes.append(Text(f"an earlier backfill of this range stopped at {stamp(plan.goes_on_at)}; --yes resumes there"))
    if plan.held is not None:
        notes.append(Text(f"on hold: {plan.held}; --yes resumes it", style="yellow"))
    return Group(table, *notes)


def render_targets(targets: Sequence[ReplayTarget]) -> RenderableType:
    """Returns what becomes of each target."""
    table = Table(header_style="bold")
    for column in ("item", "source", "state", "what"):
        table.add_column(column, overflow="fold")
    for t in targets[:SHOWN]:
        what = Text(f"no: {t.refusal}", style="yellow") if t.refusal else Text(t.action)
        table.add_row(Text(t.item), Text(t.source), t.state.value if t.state else "-", what)
    if len(targets) > SHOWN:
        table.add_row(f"… {len(targets) - SHOWN} more", "", "", "")
    return table


def render_retiring(targets: Sequence[Retiring]) -> RenderableType:
    """Returns what becomes of each output."""
    table = Table(header_style="bold")
    for column in ("item", "source", "gone since", "output", "what"):
        table.add_column(column, overflow="fold")
    for t in targets[:SHOWN]:
        what = Text(f"no: {t.refusal}", style="yellow") if t.refusal else Text(t.action)
        since = when(t.gone_since) if t.gone_since is not None else "it is back"
        table.add_row(Text(t.item), Text(t.source), since, Text(t.output), what)
    if len(targets) > SHOWN:
        table.add_row(f"… {len(targets) - SHOWN} more", "", "", "", "")
    return table


def render_expiry(found: ExpiryPlan) -> RenderableType:
    """Returns which outputs go, or went, and what they take."""
    table = Table(title=f"{found.since} before {stamp(found.before)}", title_justify="left", header_style="bold")
    for column in ("item", "source", "acquired", "done", "GB", "output", "what"):
        table.add_column(column, overflow="fold")
    for one in found.outputs[:SHOWN]:
        what = Text(f"no: {one.refusal}", style="yellow") if one.refusal else Text("removed" if found.removed else "is removed")
        size = f"{one.bytes / 1e9:.2f}"
        table.add_row(Text(one.item), one.source, when(one.acquired), when(one.done), size, Text(one.output), what)
    if len(found.outputs) > SHOWN:
        table.add_row(f"… {len(found.outputs) - SHOWN} more", *[""] * 6)
    return table


def render_audit(found: Audit) -> RenderableType:
    """Returns what is wrong, or that nothing is."""
    head = Text(
        f"{found.source}, {stamp(found.start)} to {stamp(found.end)}: {found.items} items in the catalog,"
        f" {found.done} done and verified, {found.skipped} skipped" + (f", {found.retired} retired" if found.retired else "")
    )
    if found.unseen:
        head.append(f"\n{found.unseen} of them according to their runs only: the outputs cannot be read from here")
    if found.checked:
        head.append(f"\n{found.checked} of them were read in full and match their checksums")
    if not found.gaps:
        return Group(head, Text("nothing is missing, stale or duplicated", style="green"))
    table = Table(header_style="bold")
    for column in ("gap", "item", "state", "why", "remedy"):
        table.add_column(column, overflow="fold")
    for gap in found.gaps[:SHOWN]:
        table.add_row(gap.kind.value, Text(gap.item), gap.state.value if gap.state else "-", _why(gap), Text(gap.remedy))
    if len(found.gaps) > SHOWN:
        table.add_row(f"… {len(found.gaps) - SHOWN} more", "", "", "", "")
    return Group(head, Text(", ".join(f"{n} {kind}" for kind, n in found.kinds.items()), style="bold red"), table)


def _why(gap: Gap) -> Text:
    more = [f"… {len(gap.objects) - OBJECTS} more"] if len(gap.objects) > OBJECTS else []
    return Text("\n".join([gap.why, *gap.objects[:OBJECTS], *more]))


def render_copy(found: Copied) -> RenderableType:
    """Returns how many rows of each table a copy has."""
    table = Table(header_style="bold")
    table.add_column("table")
    table.add_column("rows", justify="right")
    for name, n in found.rows.items():
        if n:
            table.add_row(name, f"{n:,}")
    if found.complete:
        return Group(table, Text("every row was copied and compared; name the copy as `ledger:`"))
    return Group(table, Text("stopped before the end; the same command resumes", style="yellow"))


def render_rebuilt(found: Rebuilt) -> RenderableType:
    """Returns what was found of a lost ledger, and what comes next."""
    verb = "added" if found.done else "would be added (--yes does it)"
    notes = [Text(f"{found.outputs:,} places looked at, {found.known:,} known already; {found.added:,} conversions {verb}")]
    notes += [Text(f"left out: {n:,} {why}", style="yellow") for why, n in found.left.items()]
    if not found.complete:
        notes.append(Text("stopped before the end; the same command resumes", style="yellow"))
    elif found.done:
        notes.append(Text("what was not done yet: `stac-watch backfill SOURCE --start … --end … --yes`, then `watch`"))
    return Group(*notes)


def render_backup(made: Backup) -> RenderableType:
    """Returns where a copy of the ledger is, and what went for it."""
    gone = f", without {', '.join(made.removed)}" if made.removed else ""
    return Text(f"{made.path}: {made.bytes:,} bytes, checked; {made.kept} kept{gone}")


def render_pruning(found: Pruned, file: str | None) -> RenderableType:
    """Returns what was or would be forgotten; `file` is the ledger's, where it is one."""
    table = Table(title=f"not changed since {when(found.before)}", title_justify="left", header_style="bold")
    table.add_column("table")
    table.add_column("what")
    table.add_column("rows", justify="right")
    for name, what, n in (
        ("event", "of earlier attempts", found.events),
        ("event", "last ones, packed", found.packed),
        ("history", "moves between the first and the last", found.moves),
        ("conversion", "outcomes, to what audits read", found.outcomes),
        ("announcement", "what sinks were told, but the last of each item", found.announcements),
        ("publication", "of items that were taken out, and whose outputs are no more", found.publications),
    ):
        table.add_row(name, what, f"{n:,}")
    verb = "freed" if found.done else "would be freed (--yes does it)"
    of = f"{found.conversions:,} of {found.looked_at:,} conversions"
    notes = [Text(f"{of}: {found.bytes / 1e6:,.1f} MB {verb}, indexes apart")]
    if not found.complete:
        notes.append(Text("stopped before the end; the same command resumes", style="yellow"))
    if found.done and found.file_bytes is not None and found.free_bytes:
        notes.append(
            Text(
                f"{found.free_bytes / 1e6:,.1f} of the file's {found.file_bytes / 1e6:,.1f} MB are free, and used for what comes."
                f" To make it smaller: stop the watcher, then\n  python -m sqlite3 {file} VACUUM"
            )
        )
    return Group(table, *notes)
