"""The demo's story: a catalog that lives while it is watched, told in about a minute, and checked at its end.

Watcher, ledger, engine and runner are the real ones; only the catalog and the pixels are made up.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stac_watch.config.model import Config
from stac_watch.demo.catalog import Server, Store, create_app, make_item
from stac_watch.demo.native import write_native
from stac_watch.demo.outputs import COLLECTION as OUTPUTS
from stac_watch.demo.outputs import OutputFound, registered, search
from stac_watch.demo.product import write_product
from stac_watch.ledger.records import ConversionRow
from stac_watch.model.errors import Exit, Unavailable
from stac_watch.model.event import parse_event
from stac_watch.model.forms import Form, Native
from stac_watch.model.states import State
from stac_watch.report.lines import Line
from stac_watch.report.watching import watching
from stac_watch.runs.local import LocalEngine
from stac_watch.watch.loop import Parts, Tick, Watcher

COLLECTION = "sentinel-2-l2a"
TILES = ("T32TQM", "T33UUP", "T31UFU", "T30TXT")  # Rome, Vienna, Amsterdam, Bilbao
NATIVE = "T33UUP"  # its product is finished GeoZarr already, as new acquisitions are
MISSING = "T29SMC"  # Lisbon: published, and its product is not there
DEADLINE = timedelta(minutes=5)
BEAT = 0.5

Wait = Callable[[float], bool]
Build = Callable[[Config, Wait], Parts]
Serving = Callable[[Config, Parts], AbstractContextManager[tuple[str, Callable[[Tick], None]]]]


@dataclass
class Story:
    """What has been published so far, and what must have become of it."""

    store: Store
    url: str
    products: Path
    size: int
    now: Callable[[], datetime]
    told: bool = False
    first: str = ""
    published: dict[str, int] = field(default_factory=dict)  # item id -> revisions

    def open(self, tiles: tuple[str, ...] = TILES[:3]) -> None:
        """Publishes the first three items."""
        for tile in tiles:
            self.publish(self.item_id(tile))
        self.first = self.item_id(tiles[0])

    def go_on(self, done: set[str]) -> None:
        """When the first item is done: a fourth appears, the first gets a new product, and one comes without its product."""
        if self.told or self.first not in done:
            return
        self.publish(self.item_id(TILES[3]))
        self.publish(self.first)
        self.publish(self.item_id(MISSING), with_product=False)
        self.told = True

    def publish(self, item_id: str, *, with_product: bool = True) -> None:
        """Writes a product and its item; the same id again gets a product elsewhere, as a re-conversion upstream does."""
        revision, native = self.published.get(item_id, 0) + 1, NATIVE in item_id
        folder = self.products / f"cpm_v26{revision}"
        if with_product:
            folder.mkdir(parents=True, exist_ok=True)
            write = write_native if native else write_product
            write(folder, item_id, size=self.size, seed=revision)
        href = f"{self.url}/products/{folder.name}/{item_id}.zarr"
        sensing = datetime.strptime(item_id.split("_")[2], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        self.store.put(
            make_item(item_id, catalog_url=self.url, product_href=href, updated=self.now(), datetime=sensing, native=native)
        )
        self.published[item_id] = revision

    def item_id(self, tile: str) -> str:
        """Returns the product id of yesterday's acquisition of a tile: today's may lie ahead."""
        day, baseline = (self.now() - timedelta(days=1)).strftime("%Y%m%d"), "N0513" if tile == NATIVE else "N0511"
        return f"S2A_MSIL2A_{day}T100041_{baseline}_R122_{tile}_{day}T122613"


@dataclass(frozen=True)
class Claim:
    """One sentence of the summary, and whether it holds."""

    text: str
    holds: bool


def play(
    folder: Path,
    *,
    port: int,
    size: int,
    keep: bool,
    build: Build,
    serving: Serving,
    lines: Callable[[Parts], list[Line]],
    wait: Wait,
    console: Console,
) -> int:
    """Tells the story; returns 0 only if every claim of the summary holds.

    Raises:
        Unavailable: another demo runs in this folder, or the port is taken.
        CannotWrite: the folder cannot be written.
    """
    started = datetime.now(UTC)
    with _fresh(folder) as place:
        products = place / "products"
        products.mkdir()
        served = place / "outputs"
        with (
            Store(place / "catalog.db") as store,
            Server(create_app(store, products=products, outputs=served, now=_now), port=port) as server,
        ):
            console.print(f"demo catalog: {server.url}   everything lies in {place}")
            story = Story(store, server.url, products, size, _now)
            story.open()
            settings = _settings(place, server.url)
            parts = build(settings, wait)
            try:
                with serving(settings, parts) as (page, note):
                    console.print(f"status page: {page}", highlight=False)
                    if not _watch(story, parts, lines, note, wait, console, until=started + DEADLINE):
                        return Exit.INTERRUPTED
                    claims = _claims(story, parts)
                    _write_events(parts, place / "events")
                    _summary(claims, place, story.first, _now() - started, console)
                    _tell_found(search(server.url, _now, parts.rng), console)
                    if keep:
                        console.print(f"\nwatching on, {page} shows it; Ctrl-C ends it", highlight=False)
                        _watch_on(parts, lines, note, console)
            finally:
                parts.engine.close(stop_runs=True)
                parts.ledger.close()
    return Exit.OK if all(claim.holds for claim in claims) else Exit.NOT_ALL_WELL


def _watch_on(parts: Parts, lines: Callable[[Parts], list[Line]], note: Callable[[Tick], None], console: Console) -> None:
    """Watches until it is asked to stop."""
    with _shown(console) as show:

        def told(tick: Tick) -> None:
            note(tick)
            show(lines(parts), tick)

        Watcher(parts).run(told)


def _watch(
    story: Story,
    parts: Parts,
    lines: Callable[[Parts], list[Line]],
    note: Callable[[Tick], None],
    wait: Wait,
    console: Console,
    *,
    until: datetime,
) -> bool:
    """Runs the watcher and the story beside each other, until every claim holds or time is up; False when asked to stop before."""
    watcher = Watcher(parts)
    with _shown(console) as show:
        while True:
            tick = watcher.tick()
            note(tick)
            story.go_on({row.item_id for row in parts.ledger.conversions.find(state=State.DONE)})
            show(lines(parts), tick)
            if parts.now() > until or (story.told and all(claim.holds for claim in _claims(story, parts))):
                return True
            if wait(BEAT):
                return False


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[list[Line], Tick], None]]:
    """Yields what shows the table: live on a terminal, one line per change elsewhere."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            yield lambda rows, tick: live.update(watching(rows, tick.problems))
        return
    seen: dict[str, str] = {}

    def report(rows: list[Line], _tick: Tick) -> None:
        for row in rows:
            stage = row.stage.split(" ")[0] if row.state is State.RUNNING else row.stage  # without the count
            text = f"{row.item}  {row.state.value:9} attempt {row.attempt}  {stage}"
            if seen.get(row.key) != text:
                seen[row.key] = text
                console.print(text, highlight=False, soft_wrap=True)

    yield report


def _claims(story: Story, parts: Parts) -> list[Claim]:
    """Returns what must be true at the end, each with whether it is."""
    rows = parts.ledger.conversions.find()
    whole = [item for item in story.published if MISSING not in item]
    done = [row for row in rows if row.state is State.DONE]
    missing = [row for row in rows if MISSING in row.item_id]
    current = {row.item_id: row for row in sorted(done, key=lambda r: r.created_at)}
    native = [row.outcome for row in done if NATIVE in row.item_id and row.outcome is not None]
    fresh = [run.key for run in parts.engine.runs([r.key for r in rows]) if run.outcome and run.outcome.reason == "done"]
    return [
        Claim(f"{len(whole)} items converted and verified", {row.item_id for row in done} == set(whole)),
        Claim(
            f"{story.first} converted again for its new product, which is what its output holds",
            sum(row.item_id == story.first for row in done) == story.published.get(story.first)
            and all(_holds(parts, row) for row in current.values()),
        ),
        Claim(
            "the item without its product waits: source not there yet",
            [r.state for r in missing] == [State.QUEUED] and "not there yet" in (missing[0].reason or ""),
        ),
        Claim(
            "the one that is finished GeoZarr already was taken in, every chunk of it checked"
            + ("" if parts.recipe.groups else "; byte for byte"),
            [o.form for o in native] == [Form.GEOZARR] and (bool(parts.recipe.groups) or native[0].engine == Native.MIRROR),
        ),
        Claim("no revision was converted twice", len(fresh) == len(set(fresh)) == len(done)),
        Claim("nothing else is in the ledger", len(rows) == len(done) + len(missing)),
        Claim(
            f"a search of collection {OUTPUTS} finds each output, and it opens over HTTP where its item says",
            registered(parts.ledger, [row.key for row in current.values()])
            and {found.item_id for found in search(story.url, story.now, parts.rng) if found.format == 3} == set(whole),
        ),
    ]


def _holds(parts: Parts, row: ConversionRow) -> bool:
    marker = parts.read_marker(row.output_zarr)
    return marker is not None and marker.key == row.key


def _summary(claims: list[Claim], place: Path, first: str, took: timedelta, console: Console) -> None:
    console.print()
    table = Table(show_header=False, title=f"after {took.total_seconds():.0f} s", title_justify="left")
    for claim in claims:
        table.add_row(Text("yes" if claim.holds else "NO", style="green" if claim.holds else "bold red"), claim.text)
    console.print(table)
    command = _short(Path(sys.executable).parent / "stac-watch")
    settings = _short(place / "stac-watch.yaml")
    console.print(f"outputs      {_short(place / 'outputs')}", soft_wrap=True)
    console.print(f"CloudEvents  {_short(place / 'events')}", soft_wrap=True)
    console.print(f"reports      {_short(place / 'outputs')}/*/*.report.html", soft_wrap=True)
    output = place / "outputs" / COLLECTION / f"{first}.zarr"
    opening = f"import xarray; print(xarray.open_datatree('{_short(output)}', engine='zarr'))"
    beside = [file for end in ("quicklook.png", "report.html") for file in output.parent.glob(f"{first}*.{end}")]
    lines = ["look at:", *(f"  {_short(file)}" for file in beside)]
    lines += [f'  {_short(Path(sys.executable))} -c "{opening}"', "ask:"]
    lines += [f"  {command} {verb} -c {settings}" for verb in (f"explain {first}", f"logs {first}", "items --tile 32TQM")]
    lines += ["and keep watching, with its status page:", f"  {command} demo --keep"]
    for text in lines:
        console.print(text, soft_wrap=True, highlight=False)


def _tell_found(found: list[OutputFound], console: Console) -> None:
    console.print(f"\na search of collection {OUTPUTS} found {len(found)} items:", highlight=False)
    for one in found:
        console.print(f"  {one.item_id}  {one.href}", soft_wrap=True, highlight=False)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _settings(place: Path, url: str) -> Config:
    document = {
        "ledger": f"sqlite:///{place / 'stac-watch.db'}",
        "sources": [{"name": "demo", "api": url, "collection": COLLECTION, "poll": {"interval": "1s"}}],
        "recipe": {"output": f"{place}/outputs/{{collection}}/{{item_id}}.zarr"},
        "engine": {"kind": "local", "folder": str(place / "runs"), "limits": {"max_in_flight": 2}},
        "register": {"api": url, "collection": OUTPUTS, "href_base": f"{url}/outputs"},
        "web": {"port": 0},
    }
    (place / "stac-watch.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return Config.model_validate(document)


def _write_events(parts: Parts, folder: Path) -> None:
    folder.mkdir()
    for row in parts.ledger.conversions.find():
        for body in parts.ledger.conversions.events(row.key):
            (folder / f"{parse_event(body)['id']}.json").write_bytes(json.dumps(json.loads(body), indent=2).encode())


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """Makes the demo's folder anew; refuses to touch a folder that is not a demo's, or one where a demo runs."""
    place = folder.absolute()
    sign = place / ".stac-watch-demo"
    if place.exists() and any(place.iterdir()) and not sign.exists():
        raise Unavailable(f"{place} exists and is not a demo's folder", hint="name another with --folder")
    place.mkdir(parents=True, exist_ok=True)
    with sign.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another demo runs in {place}", hint="stop it, or name another folder with --folder") from None
        # a demo that was killed may have left runs behind: they would write into the new one's folders
        LocalEngine(place / "runs", command=[], max_in_flight=0, environ={}).close(stop_runs=True)
        for entry in place.iterdir():
            if entry != sign:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        yield place


def _now() -> datetime:
    return datetime.now(UTC)
