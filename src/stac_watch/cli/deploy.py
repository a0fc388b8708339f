"""The verbs that bring something to a cluster: `cluster api-server` and `cluster submit`. To apply a manifest is kubectl's work."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from stac_watch.cli.cluster import NamespaceOption, cluster, operating
from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, environ_of, loaded, stopping
from stac_watch.model.errors import ConfigError, Exit

if TYPE_CHECKING:
    from stac_watch.cluster.submit import Submission
    from stac_watch.runs.kubernetes_api import Cluster


@cluster.command()
def api_server(context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, namespace: NamespaceOption = "") -> int:
    """Print the NetworkPolicy that lets ours reach the Kubernetes API where this cluster has it, for `kubectl apply -f -`."""
    from stac_watch.cluster.api_server import place_of
    from stac_watch.cluster.manifests.network import api_policy
    from stac_watch.cluster.manifests.render import dump

    with operating(context, config, namespace) as opened:
        place = place_of(opened)
        print(dump(api_policy(opened.namespace, place.networks(), place.ports)), end="")
    return Exit.OK


@cluster.command()
def submit(
    context: typer.Context,
    stac_url: Annotated[str, typer.Argument(metavar="STAC_URL", help="An item's URL, or a Zarr store's.")],
    config: ConfigOption = DEFAULT_CONFIG,
    output_zarr: Annotated[
        str, typer.Option(metavar="PATH|S3_URL", help="s3:// URL, or a path under /data on the run's volume.")
    ] = "/data/output.zarr",
    groups: Annotated[str, typer.Option(metavar="GROUPS", help="Space-separated; empty = the whole product.")] = "",
    spatial_chunk: Annotated[str, typer.Option(metavar="PIXELS", help="Pixels per chunk side.")] = "",
    sharding: Annotated[str, typer.Option(metavar="true|false|auto", help="One file per array; auto: in object stores.")] = "",
    encoding: Annotated[str, typer.Option(metavar="packed|decoded|stock", help="How numbers are stored.")] = "",
    native: Annotated[str, typer.Option(metavar="mirror|convert|reference", help="What is done with finished GeoZarr.")] = "",
    package: Annotated[str, typer.Option(metavar="auto|tar|tar.gz|none", help="Which archive lies beside the output.")] = "",
    overwrite: Annotated[str, typer.Option(metavar="true|false", help="true: convert again, even when done.")] = "",
    allow_empty: Annotated[str, typer.Option(metavar="true|false", help="true: treat missing chunks as nodata.")] = "",
    engine: Annotated[str, typer.Option(metavar="auto|fast|stock", help="Who writes; auto: fast where it can.")] = "",
    memory_limit: Annotated[str, typer.Option(metavar="SIZE", help="Such as 2Gi: fewer workers if needed.")] = "",
    dask_perf_html: Annotated[str, typer.Option(metavar="FILE", help="Dask's performance report, as /data/dask.html.")] = "",
    name: Annotated[str, typer.Option(metavar="NAME", help="The run's name: the same one is the same run. Empty = chosen.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run has ended; exit with the runner's code.")] = False,
    ui: Annotated[
        str, typer.Option(metavar="URL", help="Where the Argo UI is reached, for a link; empty = as engine.ui says.")
    ] = "",
    json: JsonOption = False,
) -> int:
    """Submit one Workflow, without poller or ledger. Options that are not given take the WorkflowTemplate's defaults."""
    from stac_watch.app import build_cluster
    from stac_watch.cluster.submit import check_template, create, one_run, submission
    from stac_watch.report.as_json import as_json

    settings = loaded(context, config)
    if settings.engine.kind != "argo":
        raise ConfigError("submit is for argo", hint="on one machine call `geozarr-runner run --stac-url URL --output-zarr PATH`")
    asked = {
        "stac_url": stac_url, "output_zarr": output_zarr, "groups": groups, "spatial_chunk": spatial_chunk, "sharding": sharding,
        "encoding": encoding, "native": native, "package": package, "overwrite": overwrite, "allow_empty": allow_empty,
        "engine": engine, "memory_limit": memory_limit, "dask_perf_html": dask_perf_html,
    }  # fmt: skip
    workflow = one_run(asked, namespace=settings.engine.namespace, name=name, instance_id=settings.engine.instance_id)
    opened = build_cluster(settings.engine, environ_of(context), "")
    with closing(opened):
        check_template(opened)
        run, created = create(opened, workflow)
        told = submission(run, opened.namespace, created=created, ui=ui or settings.engine.ui or "")
        if not json:
            _tell(told)
        end = _awaited(opened, told) if wait else told
    if end is None:
        print(f"run {run} goes on: `{told.follow}`", file=sys.stderr)
        return Exit.INTERRUPTED
    if json:
        print(as_json(end))
    return end.code or Exit.OK


def _tell(told: Submission) -> None:
    """Prints the name alone where a script reads it, and for people what to do with it."""
    print(told.run, flush=True)
    if not told.created:
        print("  → it was there already, and was left as it is", file=sys.stderr)
    if sys.stdout.isatty() or told.link:  # who says where the Argo UI is wants the link
        if told.link:
            print(f"  → {told.link}", file=sys.stderr)
        print(f"  → {told.follow}", file=sys.stderr)


def _awaited(opened: Cluster, told: Submission) -> Submission | None:
    """Waits for a run's end, and says on stderr where it is."""
    from stac_watch.app import wall_clock
    from stac_watch.cluster.submit import wait_for_end

    with stopping() as wait:
        try:
            end = wait_for_end(opened, told, wait=wait, now=wall_clock, show=lambda text: print(text, file=sys.stderr, flush=True))
        except KeyboardInterrupt:
            return None
    if end is not None and end.code:
        print(f"failed ({end.code}): {end.reason}", file=sys.stderr)
        print(f"  → {end.hint or told.follow}", file=sys.stderr)
    return end
