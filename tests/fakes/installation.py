"""What a configuration and values render to, in one mapping: the folders for Argo's users, and the files of an installation."""

from pathlib import Path

from stac_watch.cluster.manifests.facts import settings_of, values_of
from stac_watch.cluster.manifests.render import examples, installation
from stac_watch.cluster.manifests.settings import Settings
from stac_watch.config.load import load

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "base" / "stac-watch.yaml"
PRODUCTION = ROOT / "deploy" / "overlays" / "production" / "stac-watch.yaml"


def told(config: Path, **values: object) -> Settings:
    """Returns the settings of a configuration file and values, as their file would give them."""
    return settings_of(load(config, {}), config.read_text(), values_of(values, "", "values.yaml"))


def files_of(settings: Settings) -> dict[str, str]:
    """Returns every file."""
    return {**examples(settings), **installation(settings)}
