"""The verb `report`: what was announced, what was available when, and what is missing; printed, or published as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, cli, reading, show
from stac_watch.model.errors import Exit

if TYPE_CHECKING:
    from stac_watch.report.freshness import Freshness


def _absolute(place: str) -> str:
    from pathlib import Path

    return place if "://" in place or not place else str(Path(place).absolute())


@cli.command()
def report(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
    days: Annotated[int, typer.Option(metavar="N", min=1, max=366, help="Days to report (UTC), today included.")] = 30,
    out: Annotated[
        str, typer.Option(metavar="FOLDER|S3_URL", callback=_absolute, help="Folder or s3:// URL for the page, JSON and Atom feed.")
    ] = "",
) -> int:
    """Show how fresh and complete the outputs are: available within 1, 6 and 24 hours of the announcement, or missing."""
    from stac_watch.app import wall_clock
    from stac_watch.report import freshness

    with reading(context, config) as (settings, ledger):
        names = [source.name for source in settings.sources]
        found = freshness.read(ledger, names, wall_clock(), days, objective=settings.objective, installation=settings.installation)
    if out:
        _publish(found, out)
    show(found, json, freshness.render_freshness, freshness.plain)
    if out and not json:
        print(f"written: {out}/index.html, freshness.json, feed.atom")
    return Exit.OK


def _publish(found: Freshness, out: str) -> None:
    from importlib.metadata import version

    from stac_watch.jobs.publish import publish
    from stac_watch.report.web.freshness import CONTENT, pages

    publish(out, pages(found, version("stac-watch")), CONTENT)
