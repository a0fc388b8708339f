"""The verbs about the ledger itself: `ledger prune`, `ledger copy`, `ledger backup`; `recovery` has `ledger rebuild`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from stac_watch.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    YesOption,
    environ_of,
    group,
    loaded,
    progress,
    show,
    stopping,
)
from stac_watch.model.errors import ConfigError, Exit

ledger = group("ledger")


@ledger.callback()
def _about() -> None:
    """Look after the ledger."""


@ledger.command()
def prune(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    older_than: Annotated[str, typer.Option(metavar="SPAN", help="Only what has not changed for this long.")] = "400d",
    json: JsonOption = False,
    yes: YesOption = False,
) -> int:
    """Remove details of what was done or skipped long ago. Works beside a watcher; run again to continue."""
    from stac_watch import app
    from stac_watch.cli.times import read_span
    from stac_watch.jobs import prune as pruning
    from stac_watch.report.jobs import render_pruning

    age = read_span(older_than)
    settings = loaded(context, config)
    with stopping() as wait:
        opened = app.open_ledger(settings)
        try:
            found = pruning.prune(opened, app.wall_clock() - age, yes=yes, wait=wait)
        finally:
            opened.close()
    show(found, json, lambda view: render_pruning(view, app.ledger_file(settings)))
    return Exit.OK if found.complete else Exit.INTERRUPTED


@ledger.command()
def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="Database URL, env:NAME, or @FILE that holds it.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="As FROM; an empty database, or a file that is not there yet.")],
    json: JsonOption = False,
) -> int:
    """Copy a ledger into another database, and compare both. Stop the watcher first; run again to continue."""
    from stac_watch import app
    from stac_watch.report.jobs import render_copy

    environ = environ_of(context)
    urls = _url(source, environ), _url(target, environ)
    with stopping() as wait, progress(quiet=json) as told:
        copied = app.copy_ledger(*urls, wait=wait, show=told)
    show(copied, json, render_copy)
    return Exit.OK if copied.complete else Exit.INTERRUPTED


@ledger.command()
def backup(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the copies go: best a volume of their own.")],
    config: ConfigOption = DEFAULT_CONFIG,
    keep: Annotated[int, typer.Option(metavar="N", min=1, help="Copies to keep; older ones go once the new one is complete.")] = 3,
    json: JsonOption = False,
) -> int:
    """Copy a SQLite ledger beside a watcher, check the copy, and keep the last ones. Ends with 73 where there is no room."""
    from stac_watch import app
    from stac_watch.ledger.backup import back_up
    from stac_watch.report.jobs import render_backup

    file = app.ledger_file(loaded(context, config))
    if file is None:
        raise ConfigError("the ledger is in PostgreSQL", hint="back it up with pg_dump, or with what your provider has")
    made = back_up(Path(file), folder, f"{app.wall_clock():%Y%m%dT%H%M%SZ}", keep)
    show(made, json, render_backup)
    return Exit.OK


def _url(given: str, environ: Mapping[str, str]) -> str:
    """Returns the URL that an argument names; arguments are seen by every process of a machine, so none holds a password."""
    from stac_watch.ledger.database import has_password

    if given.startswith("env:"):
        if url := environ.get(given[4:], "").strip():
            return url
        raise ConfigError(f"{given}: the environment has no {given[4:]}", hint="export it, or name a file as @FILE")
    if given.startswith("@"):
        try:
            return Path(given[1:]).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"cannot read {given[1:]}: {error.strerror}", hint="name a file that holds a database URL") from None
    if has_password(given):
        raise ConfigError("a password must not stand in an argument", hint="put the URL into a file and write @FILE, or env:NAME")
    return given
