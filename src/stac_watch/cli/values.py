"""The values file on the command line: it and a configuration become the settings of an installation."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from stac_watch.cli.terminal import environ_of, loaded
from stac_watch.model.errors import ConfigError

if TYPE_CHECKING:
    from stac_watch.cluster.manifests.settings import Settings
    from stac_watch.config.model import ArgoSettings, Config

ValuesOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", resolve_path=True, help="What the cluster is told beside the configuration; may hold it, too."),
]


def settings_from(context: typer.Context, config: Path, values: Path | None) -> Settings:
    """Returns what a configuration and a values file say, wherever the configuration is."""
    from stac_watch.cluster.manifests.facts import completed, settings_of, text_of, values_of
    from stac_watch.config.load import load, read_yaml

    raw, text = read_yaml(values) if values else ({}, "")
    told = values_of(raw, text, str(values))
    if not told.config:
        read = loaded(context, config)
        files = {**_beside(read), **told.config_files}
        return settings_of(read, config.read_text(encoding="utf-8"), told.model_copy(update={"config_files": files}))
    written = text_of(completed(told.config, told))
    with TemporaryDirectory() as folder, chdir(folder):  # its relative paths are relative to it
        place = Path(folder) / "stac-watch.yaml"
        for name, content in {**told.config_files, place.name: written}.items():
            (place.parent / name).write_text(content, encoding="utf-8")
        try:
            read = load(place, environ_of(context))
        except ConfigError as error:
            raise ConfigError(error.message.replace(str(place), f"{values}, config"), hint=error.hint) from None
    return settings_of(read, written, told)


def _beside(config: Config) -> dict[str, str]:
    """Returns the files that a configuration names by a relative path: without them in the ConfigMap no pod would start."""
    areas = [source.filter.intersects for source in config.sources]
    names = {area.name for area in areas if area is not None and area.name}
    found = {name: Path(name).read_text(encoding="utf-8") for name in sorted(names) if not Path(name).is_absolute()}
    nested = [name for name in found if "/" in name]
    if nested:
        raise ConfigError(
            f"filter.intersects is {nested[0]!r}, and in a pod every file is beside the configuration",
            hint="put it beside the configuration, and name it without a folder",
        )
    return found


def engine_of(settings: Settings) -> ArgoSettings:
    """Returns what is needed to reach the cluster of an installation."""
    from stac_watch.config.model import ArgoSettings

    return ArgoSettings(
        kind="argo", webhook="http://asked.by.nobody", namespace=settings.namespace, instance_id=settings.instance_id
    )
