"""The configuration: one YAML file, validated before anything starts, every default with its reason.

Overrides: `STAC_WATCH__ENGINE__LIMITS__RATE=1/s`, `STAC_WATCH__SOURCES__S2_L2A__API=…` (a source by its name or number).
pydantic-settings is not used: it reads the process environment by itself and cannot reach into the list of sources.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    SecretStr,
    field_validator,
    model_validator,
)

from stac_watch.config.areas import Area, Expression, parse_area, parse_expression
from stac_watch.config.auth import Auth, Secret
from stac_watch.config.objective import Objective
from stac_watch.config.places import output_template
from stac_watch.config.register import Register
from stac_watch.config.sharing import default_output, meeting, order
from stac_watch.config.sinks import EventSink
from stac_watch.config.values import Agent, Bbox, CollectionId, Duration, Group, Host, HttpUrl, Off, Rate, SameHost, Size, Tile
from stac_watch.model.errors import ConfigError
from stac_watch.model.forms import ENCODING, Encoding, Native, sharded

OURS = frozenset(
    {"engine", "ledger", "register", "sinks"}
)  # what pages, metrics and `status` call the watcher's own parts beside its sources


class Filter(Group):
    """Which items of the collection are wanted. Every condition that is given must hold."""

    bbox: Bbox | None = None
    """west, south, east, north in degrees (EPSG:4326); west > east crosses the antimeridian. An item counts by its geometry, or its
    bbox."""
    intersects: Annotated[InstanceOf[Area], BeforeValidator(parse_area)] | None = None
    """Area of interest: path of a GeoJSON file in degrees (EPSG:4326), or GeoJSON. An item counts by its geometry, or its bbox."""
    cql2: Annotated[InstanceOf[Expression], BeforeValidator(parse_expression)] | None = None
    """CQL2, as text or JSON, over the item's properties; checked here and not by the server, so that every skip is seen."""
    max_cloud_cover: float | None = Field(default=None, ge=0, le=100)
    """Percent; an item without eo:cloud_cover is skipped under a reason of its own, never silently."""
    max_age: Duration | None = None
    """Age of the acquisition when it is first seen: upstream re-stamps old ones in floods. A backfill or a replay is exempt."""
    tiles: tuple[Tile, ...] = ()
    """MGRS tiles: `T32TQM` or `32TQM`, in any case."""


class Poll(Group):
    """How often the catalog is asked, and how far back."""

    interval: Duration = timedelta(seconds=60)
    """An idle query costs 6-570 ms on the server (100k items, pgstac 0.9): once a minute disturbs nobody."""
    overlap: Duration | Literal["auto"] = "auto"
    """Re-read before the cursor, because a stamp is older than its visibility; auto = twice the lateness that 99.9 % of items stay
    below, at least 15 min (about 14 rows; an hour until 100 new items were seen), at most 24 h."""
    sweep: Duration = timedelta(hours=6)
    """Comparison by acquisition day with what is known; finds back-dated, silently changed and withdrawn items."""
    sweep_back: Duration = timedelta(days=14)
    """How far back that comparison goes."""
    sweep_all: Duration | Off = timedelta(days=7)
    """How often it goes back to the first item; at most one request a second, so an archive of 10 years takes about an hour."""
    since: Duration = timedelta(days=1)
    """Where the very first window starts: a new installation does not convert an archive by accident (use backfill)."""
    most_new: int = Field(default=20_000, ge=1)
    """New items and revisions within an hour; what is more waits for the next, and is said: a catalog that invents items fills no
    disk. All of Sentinel-2 are about 20,000 a day. Backfills and replays are exempt."""
    looks: Rate = Field(default=20.0, validate_default=False)
    """Requests a second to the stores of products, to see whether one was published anew: finished stores have no checksum, and the
    item's new stamp says only that something may have changed. A look takes some 190 requests, and no pixels."""
    page: int = Field(default=1000, ge=1, le=10_000)
    """Items per request. With `fields` 1,000 items are about 1 MB; EODC clips silently at 10,000."""


class Source(Group):
    """One collection of one STAC API."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?$")
    """Your choice, except `engine`, `ledger`, `register` and `sinks`; it names the source in ledger, tables and the Argo UI.
    Lower case, digits, and dashes in between."""
    api: HttpUrl
    """Root of the STAC API."""
    collection: CollectionId
    """Id of the collection, as the catalog writes it; in paths and labels `urn:eop:VITO:S2` is `urn-eop-VITO-S2-` and a digest."""
    auth: Auth | None = None
    """What lets us into the catalog; empty = nothing, or what ~/.netrc says."""
    user_agent: Agent = ""
    """Who asks, as the catalog's operator sees it; empty = `stac-watch/VERSION`."""
    filter: Filter = Filter()
    """Which of its items are wanted; empty = all."""
    poll: Poll = Poll()
    """How often it is asked."""
    on: Literal["content", "restamp"] = "content"
    """content: a new revision is a new product; restamp: a new `updated` is enough."""
    reprocessing: Literal["all", "newest"] = "all"
    """A new processing (baseline, generation) of the same acquisition has a new id: convert all of them, or the newest only."""
    max_in_flight: int | None = Field(default=None, ge=1)
    """Unfinished runs of this source, so that a big one leaves room for others; empty = the engine's limit, less one slot for each
    other source (half of the slots at most): a source whose products take for ever stops nobody else."""
    allowed_hosts: tuple[Host, ...] = ()
    """Hosts (and buckets) that product hrefs may name, `*.example.org` for a whole domain; empty = only the catalog's own host.
    A network (`10.0.0.0/8`) lets public names lead to private addresses of it."""

    on_gone: Literal["keep", "deprecate", "delete"] = "keep"
    """What becomes of an output when its item is gone from the catalog, as from a rolling archive: it stays, its item says
    `deprecated`, or it is removed. `stac-watch retire --yes` does it; the watcher alone removes nothing."""
    same_as: tuple[tuple[SameHost, ...], ...] = ()
    """Hosts that are one store under several names, as `[[objects.example.org, data.example.org]]`: a product on one is the same
    on the other. One with the same path and the same `file:checksum` is recognised without it."""
    moved: Literal["hold", "convert"] = "hold"
    """Items of which nothing changed but the product's host: more than five in a week, or than a tenth of those known, are held,
    because a store that moved is no new product; `convert` converts all of them again."""

    def hosts(self) -> tuple[str, ...]:
        """Returns the hosts that product hrefs may name."""
        return self.allowed_hosts or (urlsplit(self.api).hostname or "",)


class Recipe(Group):
    """How a product is converted. Part of the key: another recipe is another conversion."""

    groups: str = ""
    """Space-separated Zarr groups; empty = the whole product."""
    output: Annotated[str, AfterValidator(output_template)] = "var/outputs/{collection}/{item_id}.zarr"
    """Path or s3:// URL; fields: catalog (its host and path), collection, item_id, tile (`no-tile` for an item without one), and
    key. It must name item_id or key, so that no two outputs share one, and end with `.zarr` or the like, so that none meets files
    beside another; with sources of several catalogs or collections also what tells these apart, as a folder. By default
    `{catalog}` is in it where two catalogs have collections of one name."""
    spatial_chunk: int = Field(default=1024, ge=64, le=10_980)
    """Pixels per chunk side: 1024 converts 2.3 times faster than the converter's 256 and makes 13 times fewer files."""
    sharding: Literal["auto"] | bool = "auto"
    """One object for each array: 390 instead of 3,212 for a tile. `auto`: in object stores, which are paid by the request. GDAL
    reads such outputs from 3.13 on."""
    encoding: Encoding = ENCODING
    """`packed`: the source's own integers with scale, offset and missing value, as finished GeoZarr has them, two fifths of the
    bytes; `decoded`: float32; `stock`: float32 in the codec of eopf-geozarr, byte for byte what it writes alone."""
    native: Native = Native.MIRROR
    """What is done with a product that is finished GeoZarr already, as new acquisitions are: `mirror` copies it byte for byte and
    checks each chunk; `convert` makes our encoding and chunks of it; `reference` leaves it where it lies. With `groups` a mirror is
    a conversion: a part of a store is not the same store."""
    package: Literal["auto", "tar", "tar.gz", "none"] = "auto"
    """An archive beside the output. auto: a tar where the output lies on its run's own volume, which is fetched as one file; none
    in object stores and folders, where it would cost the output's bytes again. gzip takes a minute to save 2 %."""

    def digest_fields(self) -> str:
        """Returns what distinguishes two recipes, as one string that goes into the key."""
        groups = " ".join(sorted(self.groups.split()))
        native = "" if self.native is Native.MIRROR else f";native={self.native}"
        encoding = "" if self.encoding is Encoding.STOCK else f";encoding={self.encoding}"  # what it was before it could be chosen
        shape = f"groups={groups};chunk={self.spatial_chunk};sharding={self.sharded}"
        return f"{shape};package={self.package};output={self.output}{native}{encoding}"

    @property
    def sharded(self) -> bool:
        """Says whether each array of an output is one object."""
        return sharded(self.sharding, self.output)


class Limits(Group):
    """How many runs at once, how fast they start, and how often a failure is tried again."""

    max_in_flight: int = Field(default=20, ge=1)
    """Unfinished runs: thousands of Workflows at once have taken clusters down (argo-workflows#10441, #12802)."""
    rate: Rate = Field(default=2.0, validate_default=False)
    """Events per second; one Sensor creates 2.5 Workflows/s and queues the rest where nobody sees it."""
    attempts: int = Field(default=3, ge=1)
    """Attempts per key that may fail temporarily; after the last one the conversion is failed."""
    confirm_after: Duration = timedelta(minutes=15)
    """An accepted event without a run after this goes out again (the bus can lose what it said 200 to)."""
    retry_after: Duration = timedelta(minutes=1)
    """First pause after a temporary failure; doubles with each attempt."""
    not_ready: tuple[Duration, ...] = Field(default=tuple(timedelta(minutes=m) for m in (15, 60, 240, 720, 1440)), min_length=1)
    """Pauses while the source is not there yet; the last one repeats."""
    not_ready_for: Duration = timedelta(days=14)
    """How long to look for a source that is not there; then the conversion is failed."""


class ArgoSettings(Group):
    """Argo Events and Argo Workflows on a Kubernetes cluster."""

    kind: Literal["argo"]
    """`argo`."""
    webhook: HttpUrl
    """URL of the EventSource's endpoint."""
    namespace: str = Field(default="geozarr", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    """Where the Workflows run."""
    token: SecretStr | None = None
    """Bearer token of the EventSource; only from STAC_WATCH__ENGINE__TOKEN or `token_file`, refused in the YAML."""
    token_file: Path | None = None
    """File that holds the token, as a mounted Secret does; read at the start, and replaces `token`."""
    next_token: SecretStr | None = None
    """A second token, tried when the EventSource refuses the first: both are known while it is changed. Only from
    STAC_WATCH__ENGINE__NEXT_TOKEN."""
    ca_file: Path | None = None
    """Certificates (PEM) that the EventSource's is checked with, where `webhook` is https; empty = those of the system."""
    keep: Duration = timedelta(days=3)
    """How long a Workflow that succeeded is kept, and with it an output on its volume (`recipe.output` below `/data`): after that
    its conversion is *expired*. Outputs in an object store stay. Fetch what you need before, or write to `s3://…`."""
    ui: HttpUrl | None = None
    """Where people reach the Argo UI; empty = pages and verbs give no links to it."""
    instance_id: str = Field(default="", pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")
    """`instanceID` of the Workflow controller that runs ours, where several share a cluster; empty = one without."""
    limits: Limits = Limits()
    """How many runs at once, how fast, how often again."""


class LocalSettings(Group):
    """Processes on this machine; for one machine."""

    kind: Literal["local"]
    """`local`."""
    folder: Path = Path("var/runs")
    """One folder per run: event, log, outcome."""
    limits: Limits = Limits(max_in_flight=2)
    """As above; one run uses about a core and 2 GB for a full tile."""
    deadline: Duration = timedelta(hours=6)
    """How long a run may take, as on a cluster; then it is ended, and that attempt has failed. A full tile takes minutes."""
    memory: Size | None = None
    """Memory of its own that a run may have, for example `6Gi`; a product that makes it want more fails alone. Empty = four fifths
    of the machine's, shared between `max_in_flight` runs, and at least 4Gi."""


class Web(Group):
    """What `watch` serves over HTTP: status page, /metrics, probes, /hints. Nothing can be changed there, no secret is shown."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on: this machine only, because whoever reaches the page sees every item; in a pod `0.0.0.0`."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """Port; 0 = any free one."""
    hosts: tuple[Host, ...] = ()
    """Names under which browsers reach it, as through an Ingress. Addresses, and names that only exist inside (`localhost`, one
    label, `.svc`, `.cluster.local`, `.internal`, `.local`), are always answered; others could be an evil page's (DNS rebinding)."""
    hints: Secret | None = None
    """Token with which `POST /hints` lets a source be polled at once; where it is: `env` or `file`. Empty =
    hints are not taken."""


class Config(Group):
    """The whole configuration."""

    ledger: str = Field(default="sqlite:///var/stac-watch.db", repr=False)  # the URL of a PostgreSQL may hold a password
    """Database URL: sqlite:///FILE, or postgresql+psycopg://…; with a password only from STAC_WATCH__LEDGER or `ledger_file`."""
    ledger_file: Path | None = None
    """File that holds the database URL, as a mounted Secret does; read at the start, and replaces `ledger`."""
    installation: str = Field(default="default", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    """This watcher's name among those that write to the same bucket; it is in markers, labels and metrics. A run never replaces
    the output of another installation. Keep it for good: a watcher under a new name may not replace what it made before."""
    sources: tuple[Source, ...] = Field(min_length=1)
    """What is watched; names are unique."""
    prefer: tuple[str, ...] | Literal["all"] = ()
    """Sources by name, the preferred one first: collections of one catalog may have the same acquisition under one id (Zarr v2 and
    v3), and one of them converts it, unless another has begun. Empty = the first in `sources`; sources of several catalogs count as
    having the same only where they are named here. `all` = each converts what it has, two outputs of one scene included."""
    recipe: Recipe = Recipe()
    """How each product is converted."""
    engine: Annotated[ArgoSettings | LocalSettings, Field(discriminator="kind")] = LocalSettings(kind="local")
    """Where the runs happen."""
    registration: Register | None = Field(default=None, alias="register")  # a class of pydantic has a method of that name
    """Where what is done is registered; empty = nowhere, and each output has its item beside it all the same."""
    sinks: tuple[EventSink, ...] = ()
    """Who is told of outputs, and of what fails, by CloudEvents; empty = nobody."""
    web: Web | None = None
    """What `watch` listens on; empty = nothing, which is right on a laptop."""
    objective: Objective | None = None
    """What readers are promised; empty = nothing, and no alert watches it."""

    @field_validator("sources")
    @classmethod
    def _distinct(cls, value: tuple[Source, ...]) -> tuple[Source, ...]:
        names = [source.name for source in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources are named {twice[0]!r}")
        if ours := sorted(OURS.intersection(names)):
            raise ValueError(f"a source is named {ours[0]!r}, and so is a part of the watcher itself; choose another name")
        return value

    @field_validator("sinks")
    @classmethod
    def _sinks_apart(cls, value: tuple[EventSink, ...]) -> tuple[EventSink, ...]:
        names = [sink.name for sink in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sinks are {twice[0]}: what comes before a `?` names one; `types` lists all that it gets")
        return value

    @model_validator(mode="before")
    @classmethod
    def _outputs_apart(cls, given: Any) -> Any:  # noqa: ANN401  # as the file gives it
        """Puts the catalog into the default output where collections of one name would meet in it."""
        recipe = given.get("recipe", {}) if isinstance(given, dict) else None
        if isinstance(recipe, dict) and "output" not in recipe and (output := default_output(given.get("sources"))):
            return {**given, "recipe": {**recipe, "output": output}}
        return given

    @model_validator(mode="after")
    def _prefers_its_own(self) -> Self:
        names = [source.name for source in self.sources]
        for name in () if self.prefer == "all" else self.prefer:
            if name not in names:
                raise ValueError(f"`prefer` names {name!r}, which is no source; there are: {', '.join(names)}")
        return self

    def rivals(self, name: str) -> tuple[frozenset[str], frozenset[str]]:
        """Returns the sources that are preferred to one of them, and those that it is preferred to; see `sharing.order`."""
        return order(self.sources, None if self.prefer == "all" else self.prefer, name)

    @model_validator(mode="after")
    def _no_two_for_one_output(self) -> Self:
        if wrong := meeting(self.sources, self.recipe.output):
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _registers_what_can_be_reached(self) -> Self:
        output = self.recipe.output
        if self.registration is not None and self.engine.kind == "argo" and "://" not in output:
            raise ValueError(
                f"recipe.output {output!r} lies on each run's own volume, where no reader reaches it: `register` needs outputs in"
                " an object store, for example recipe.output: s3://BUCKET/{item_id}.zarr"
            )
        return self

    @property
    def secret(self) -> frozenset[str]:
        """Variables of the environment that hold secrets, of which runs need none."""
        auths = [*(source.auth for source in self.sources), self.registration.auth if self.registration is not None else None]
        hints = self.web.hints if self.web is not None else None
        secrets = [*(s for auth in auths if auth is not None for s in auth.secrets()), *([hints] if hints is not None else [])]
        return frozenset(s.env for s in secrets if s.env is not None)

    @property
    def lifetime(self) -> timedelta | None:
        """How long outputs are there once they are done; None = until somebody removes them."""
        on_volumes = self.engine.kind == "argo" and "://" not in self.recipe.output
        return self.engine.keep if self.engine.kind == "argo" and on_volumes else None

    def source(self, name: str) -> Source:
        """Returns the source of that name.

        Raises:
            ConfigError: there is none; the hint lists those there are.
        """
        for source in self.sources:
            if source.name == name:
                return source
        names = ", ".join(s.name for s in self.sources)
        raise ConfigError(f"no source is named {name!r}", hint=f"the configuration has: {names}")
