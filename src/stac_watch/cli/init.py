"""The verb `init`: a first configuration. It asks on a terminal, and takes options alone in a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, cli, environ_of
from stac_watch.model.errors import CannotWrite, Exit, InputError, printable

if TYPE_CHECKING:
    from stac_watch.catalog.client import Catalog
    from stac_watch.catalog.offered import Offered
    from stac_watch.config.model import Config, Source

SHOWN = 30  # collections that are listed
DEFAULT_API = "https://stac.core.eopf.eodc.eu"


@cli.command()
def init(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    api: Annotated[str | None, typer.Option(metavar="URL", help="Root of the STAC API.")] = None,
    collection: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of the collection; else it is asked for, or the only one.")
    ] = None,
    bbox: Annotated[str | None, typer.Option(metavar="W,S,E,N", help="Area: west,south,east,north in degrees.")] = None,
    area: Annotated[Path | None, typer.Option(metavar="FILE", resolve_path=True, help="Area: a GeoJSON file in degrees.")] = None,
    tile: Annotated[list[str] | None, typer.Option(metavar="TILE", help="Area: an MGRS tile; may be given several times.")] = None,
    max_cloud_cover: Annotated[float | None, typer.Option(metavar="PERCENT", help="Maximum cloud cover, per cent.")] = None,
    output: Annotated[
        str, typer.Option(metavar="PATH|S3_URL", help="Where outputs go: a path, or s3://….")
    ] = "var/outputs/{collection}/{item_id}.zarr",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> int:
    """Write a first configuration: list a catalog's collections, ask for area and filters, and say how many items match."""
    from stac_watch.config import draft
    from stac_watch.discover.outlook import product_hosts

    if config.exists() and not force:
        raise InputError(f"{config} is there already", hint="name another with --config FILE, or write over it with --force")
    asks = sys.stdin.isatty() and sys.stdout.isatty()
    api = (api or (typer.prompt("STAC API", default=DEFAULT_API) if asks else DEFAULT_API)).rstrip("/")
    chosen = collection or _chosen(_offered(api), asks=asks)
    wanted = _filter(config, bbox, area, tile or [], max_cloud_cover)
    if asks and not wanted:
        wanted = _asked_filter(config)
    catalog = _probed(api, chosen)
    text = draft.compose(draft.Draft(api, chosen, wanted, product_hosts(catalog), output))
    told = _outlook(_read(text, config, context).sources[0], catalog)
    _write(config, text)
    print("\n".join([f"{config}: {chosen} of {api}", *(f"  {line}" for line in told)]))
    named = "" if config == DEFAULT_CONFIG.absolute() else f" -c {config}"
    print(f"next: stac-watch check{named}, then stac-watch watch{named} --once")
    return Exit.OK


def _offered(api: str) -> list[Offered]:
    from stac_watch.app import build_catalog, jitter
    from stac_watch.catalog.offered import collections

    return collections(build_catalog(_source(api, "any"), jitter()).http)


def _chosen(offered: list[Offered], *, asks: bool) -> str:
    if not offered:
        raise InputError("the catalog lists no collections", hint="name one with --collection ID")
    if len(offered) == 1:
        return offered[0].id
    if not asks:
        names = ", ".join(printable(entry.id) for entry in offered[:SHOWN]) + (" …" if len(offered) > SHOWN else "")
        raise InputError(f"the catalog has {len(offered)} collections: {names}", hint="name one with --collection ID")
    for number, entry in enumerate(offered[:SHOWN], 1):
        print(printable(f"{number:>3}  {entry.id}  {entry.title}".rstrip()))
    said: str = typer.prompt("collection: a number or an id", default="1").strip()
    return offered[int(said) - 1].id if said.isdecimal() and 1 <= int(said) <= len(offered) else said


def _filter(config: Path, bbox: str | None, area: Path | None, tiles: list[str], cloud: float | None) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if bbox is not None:
        try:
            wanted["bbox"] = [float(part) for part in bbox.split(",")]
        except ValueError:
            raise InputError(f"--bbox {bbox!r} is not four numbers", hint="west,south,east,north, such as 10,45,12,47") from None
    if area is not None:
        wanted["intersects"] = str(area.relative_to(config.parent) if area.is_relative_to(config.parent) else area)
    if tiles:
        wanted["tiles"] = tiles
    if cloud is not None:
        wanted["max_cloud_cover"] = cloud
    return wanted


def _asked_filter(config: Path) -> dict[str, Any]:
    said: str = typer.prompt(
        "area: west,south,east,north, a GeoJSON file, tiles, or nothing for all", default="", show_default=False
    )
    said = said.strip()
    cloud = typer.prompt("at most so much cloud, in per cent, or nothing", default="", show_default=False).strip().rstrip("% ")
    try:
        most = float(cloud) if cloud else None
    except ValueError:
        raise InputError(f"{cloud!r} is no number of per cent") from None
    if said.count(",") == 3 and said[:1] in "-+0123456789" and not said[-1:].isalpha():  # four numbers
        return _filter(config, said, None, [], most)
    if said.lower().endswith((".json", ".geojson")):
        return _filter(config, None, Path(said).expanduser().resolve(), [], most)
    return _filter(config, None, None, said.replace(",", " ").split(), most)


def _source(api: str, collection: str) -> Source:
    from pydantic import ValidationError

    from stac_watch.config.model import Source

    try:
        return Source(name="init", api=api, collection=collection)
    except ValidationError:
        raise InputError(f"{api!r} is not the root of a STAC API", hint="an address such as https://stac.example.org/v1") from None


def _probed(api: str, collection: str) -> Catalog:
    """Returns the catalog, once it was found out what it can do, and that it has the collection."""
    from stac_watch.app import build_catalog, jitter
    from stac_watch.catalog.probe import probe

    source = _source(api, collection)
    catalog = build_catalog(source, jitter())
    catalog.clock()
    probe(catalog, source.poll.page)
    return catalog


def _read(text: str, config: Path, context: typer.Context) -> Config:
    import os

    from stac_watch.config.load import parse

    if config.parent.is_dir():
        os.chdir(config.parent)  # as every verb does that reads it
    return parse(text, config, environ_of(context))


def _outlook(source: Source, probed: Catalog) -> list[str]:
    from stac_watch.app import build_catalog, jitter, wall_clock
    from stac_watch.discover.outlook import outlook

    catalog = build_catalog(source, jitter())  # asks for what the filter needs
    catalog.abilities = probed.abilities
    return outlook(source, catalog, wall_clock()).words(source.filter) or ["the collection is empty: each poll looks again"]


def _write(config: Path, text: str) -> None:
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"cannot write {config}: {error.strerror}", hint="name another with --config FILE") from None
