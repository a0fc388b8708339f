"""The verbs that a cluster needs: manifests and submit.

In: a configuration for Argo. Out: YAML files, or the name of one Workflow. Never: applies a manifest; that is kubectl's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stac_watch import app as composition
from stac_watch.cli_common import DEFAULT_CONFIG, ConfigOption, cli
from stac_watch.config import ArgoEngine, load
from stac_watch.errors import ConfigError, Exit, Unavailable


@cli.command()
def manifests(
    config: ConfigOption = DEFAULT_CONFIG,
    out: Annotated[Path, typer.Option(help="Where eventsources/, sensors/, workflows/ and deploy/ go.")] = Path(),
    runner_image: Annotated[str, typer.Option(help="Image of the runs; empty = geozarr-runner:VERSION.")] = "",
    poller_image: Annotated[str, typer.Option(help="Image of the poller; empty = stac-watch:VERSION.")] = "",
) -> int:
    """Render every manifest for this configuration."""
    try:
        from stac_watch.manifests.render import render
        from stac_watch.manifests.settings import settings_of
    except ModuleNotFoundError as error:
        raise Unavailable(f"manifests need {error.name}", hint="install the extra: stac-watch[render]") from error
    settings = settings_of(
        load(config, os.environ), config.read_text(encoding="utf-8"), runner_image=runner_image, poller_image=poller_image
    )
    files = render(settings)
    for name, text in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    overlay = out / "deploy" / "overlays" / "production"
    print(f"{len(files)} files under {out.absolute()}; apply them with `kubectl apply -k {overlay}`")
    return Exit.OK


@cli.command()
def submit(
    stac_url: Annotated[str, typer.Argument(help="An item's URL, or a Zarr store's.")],
    config: ConfigOption = DEFAULT_CONFIG,
    output_zarr: Annotated[str, typer.Option(help="s3:// URL, or a path under /data on the run's volume.")] = "/data/output.zarr",
    groups: Annotated[str, typer.Option(help="Space-separated; empty = the whole product.")] = "",
) -> int:
    """Submit one Workflow, without poller or ledger."""
    from stac_watch.manifests.workflow import one_run

    settings = load(config, os.environ)
    if not isinstance(settings.engine, ArgoEngine):
        raise ConfigError("submit is for argo", hint="on one machine call `geozarr-runner run --stac-url URL --output-zarr PATH`")
    asked = {"stac_url": stac_url, "output_zarr": output_zarr, "groups": groups}
    name = composition.build_argo(settings.engine, os.environ).create(one_run(asked, namespace=settings.engine.namespace, name=""))
    print(name)
    return Exit.OK
