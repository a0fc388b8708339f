"""`cluster manifests`: one configuration and one values file become every object of an installation."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stac_watch.cli.cluster import cluster
from stac_watch.cli.terminal import DEFAULT_CONFIG, ConfigOption, environ_of
from stac_watch.cli.values import ValuesOption, engine_of, settings_from
from stac_watch.model.errors import Exit

if TYPE_CHECKING:
    from stac_watch.cluster.manifests.settings import Settings


@cluster.command()
def manifests(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    values: ValuesOption = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", resolve_path=True, help="The folder that is written, or checked.")] = Path(
        "manifests"
    ),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; show how the folder differs. Exit code 1 if it does.")
    ] = False,
    applied: Annotated[
        bool, typer.Option("--applied", help="With --check: how the cluster differs, from what would be applied.")
    ] = False,
) -> int:
    """Render every object of an installation, for `kubectl apply -k`."""
    from stac_watch.cluster.manifests.render import installation

    settings = settings_from(context, config, values)
    files = installation(settings)
    if check:
        return _checked(context, settings, files, out, applied=applied)
    _write(out, files)
    print(f"{len(files)} files in {out.absolute()}; apply them with `kubectl apply --server-side -k {out}`")
    _advise(settings)
    return Exit.OK


@cluster.command()
def images(context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, values: ValuesOption = None) -> int:
    """List every image of an installation, Argo's included in the versions that were tested: what a mirror must have."""
    from stac_watch.cluster.manifests.images import images as all_of_them

    print("\n".join(all_of_them(settings_from(context, config, values))))
    return Exit.OK


def _checked(context: typer.Context, settings: Settings, files: dict[str, str], out: Path, *, applied: bool) -> int:
    from stac_watch.app import build_cluster
    from stac_watch.cluster.installed import in_cluster, in_files

    if not applied:
        return _shown(in_files(out, files), f"{out} is what would be rendered")
    with closing(build_cluster(engine_of(settings), environ_of(context), settings.namespace)) as opened:
        return _shown(in_cluster(opened.get, files), f"namespace {settings.namespace} has what would be rendered")


def _shown(lines: Iterable[str], same: str) -> int:
    found = 0
    for line in lines:
        found += 1
        print(line)
    if not found:
        print(same)
    return Exit.NOT_ALL_WELL if found else Exit.OK


def _write(out: Path, files: dict[str, str]) -> None:
    """Writes files, and removes rendered ones that are rendered no more."""
    from stac_watch.cluster.installed import stale

    for name, text in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in stale(out, files):
        path.unlink()
        print(
            f"{path} is rendered no more and was removed: what is applied of it is removed by hand, or by GitOps", file=sys.stderr
        )


def _advise(settings: Settings) -> None:
    from stac_watch.runs.cleaning import spelled

    if "://" not in settings.output:
        lasts = f"go {spelled(timedelta(seconds=settings.keep))} after their runs succeeded (engine.keep)"
        print(f"  → recipe.output {settings.output} is on volumes that {lasts}; what was done is expired then", file=sys.stderr)
    policy = settings.values.network_policy
    if policy.enabled and not policy.api_servers and policy.flavour == "kubernetes":
        print("  → and let ours reach the Kubernetes API: `stac-watch cluster api-server | kubectl apply -f -`", file=sys.stderr)
