"""One YAML file and an environment become a `Config`, or a sentence that names the key.

Overrides: `STAC_WATCH__ENGINE__LIMITS__RATE=1/s`, `STAC_WATCH__SOURCES__S2_L2A__API=…` (a source by its name or number).
pydantic-settings is not used: it reads the process environment by itself and cannot reach into the list of sources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml
from pydantic import ValidationError

from stac_watch.config.model import Config
from stac_watch.config.wording import explain
from stac_watch.model.errors import ConfigError
from stac_watch.model.files import fault

ENV_PREFIX = "STAC_WATCH__"
NO_FILE = "`stac-watch init --api URL` writes one; one that lies elsewhere is named with --config FILE, or STAC_WATCH_CONFIG"
SMALLEST = "the smallest one is `sources: [{name: s2, api: https://stac.example.org, collection: sentinel-2-l2a}]`"


def read_yaml(path: Path) -> tuple[dict[str, Any], str]:
    """Returns a file of keys and values, and its text.

    Raises:
        ConfigError: it is not there, cannot be read, or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = _parsed(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {fault(error)}", hint="name the file that you mean") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}", hint="check the line named above") from error
    if not isinstance(raw, dict | None):
        raise ConfigError(f"{path} holds no mapping", hint="write keys and values, as `images: {registry: ghcr.io/you}`")
    return raw or {}, text


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Reads, overrides and validates the configuration.

    Raises:
        ConfigError: names the file, the key, the value and the remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no configuration at {path}", hint=NO_FILE) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {fault(error)}", hint="name the file that you mean with --config FILE") from error
    return parse(text, path, environ)


def parse(text: str, path: Path, environ: Mapping[str, str]) -> Config:
    """Overrides and validates a configuration that was read, or is to be written, there.

    Raises:
        ConfigError: names the file, the key, the value and the remedy.
    """
    try:
        raw = _parsed(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}", hint="check the line named above") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds no mapping", hint=SMALLEST)
    _refuse_secrets(raw, path)
    settings = _read_secrets(_override(raw, environ), environ)
    if re.search(r"[?&](ssl)?password=", unquote(str(settings.get("ledger", "")))):
        raise ConfigError(
            f"{path}: the URL of ledger has a password after its host, where it is shown whenever the URL is",
            hint="write it before the host: postgresql+psycopg://USER:PASSWORD@HOST/NAME; change it if it was shown",
        )
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, settings, text)}", hint="correct it there, then `stac-watch check`") from None


class _Yaml(yaml.SafeLoader):
    """YAML whose only booleans are true and false, as in YAML 1.2: `on:` is a key here, and `off` a word."""


def _once(loader: _Yaml, node: yaml.MappingNode) -> dict[Any, Any]:
    """Reads a mapping; a key that stands twice is an error: YAML's readers take the last one, and say nothing."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.value in lines and key.tag != "tag:yaml.org,2002:merge":
            raise ValueError(f"key {key.value!r} stands twice, in lines {lines[key.value]} and {line}")
        lines[str(key.value)] = line
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Yaml.add_constructor("tag:yaml.org,2002:map", _once)
_BOOL = "tag:yaml.org,2002:bool"
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def _parsed(text: str) -> Any:  # noqa: ANN401  # a YAML tree
    try:
        return yaml.load(text, Loader=_Yaml)  # noqa: S506  # a SafeLoader
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_secrets(raw: Mapping[str, Any], path: Path) -> None:
    """Refuses a token or a password in the configuration itself: it is committed, mailed, and on a cluster a ConfigMap."""
    if isinstance(raw.get("engine"), dict) and {"token", "next_token"} & raw["engine"].keys():
        raise ConfigError(
            f"{path}: engine.token stands in the file, which many may read (on a cluster it is a ConfigMap)",
            hint="give it as STAC_WATCH__ENGINE__TOKEN, or in a file that engine.token_file names; change it where it is checked",
        )
    for source in _authorized(raw):
        for way, given in _ways(source).items():
            if not isinstance(given, dict) or "value" in given:
                raise ConfigError(
                    f"{path}: the secret of auth.{way} stands in the file, which many may read (on a cluster it is a ConfigMap)",
                    hint=f"name where it is: {way}: {{env: VARIABLE}} or {way}: {{file: PATH}}; change it if it was shown",
                )
    hints = _hints(raw)
    if hints is not None and (not isinstance(hints, dict) or "value" in hints):
        raise ConfigError(
            f"{path}: the token of web.hints stands in the file, which many may read (on a cluster it is a ConfigMap)",
            hint="name where it is: hints: {env: VARIABLE} or hints: {file: PATH}; change it if it was shown",
        )
    if re.search(r"//[^/@\s]*:[^@\s]+@", str(raw.get("ledger", ""))):
        raise ConfigError(
            f"{path}: the URL of ledger has a password, and many may read the file (on a cluster it is a ConfigMap)",
            hint="give the URL as STAC_WATCH__LEDGER, or in a file that ledger_file names; change the password",
        )


def _sources(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = raw.get("sources")
    return [source for source in given if isinstance(source, dict)] if isinstance(given, list) else []


def _authorized(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what may have an `auth`: the sources, and where outputs are registered."""
    register = raw.get("register")
    return [*_sources(raw), *([register] if isinstance(register, dict) else [])]


def _hints(raw: Mapping[str, Any]) -> Any:  # noqa: ANN401  # as the file gives it
    web = raw.get("web")
    return web.get("hints") if isinstance(web, dict) else None


def _ways(source: dict[str, Any]) -> dict[str, Any]:
    """Returns a source's `auth`, by way; nothing where there is none."""
    auth = source.get("auth")
    if auth is None or isinstance(auth, dict):
        return {str(way): given for way, given in (auth or {}).items() if given is not None}
    return {"bearer": auth}


def _read_secrets(raw: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Puts what `token_file` and `ledger_file` hold, and what variables that `auth` names, where it is used."""
    for given in (*(way for source in _authorized(raw) for way in _ways(source).values()), _hints(raw)):
        if isinstance(given, dict) and isinstance(given.get("env"), str) and given["env"] in environ:
            given.setdefault("value", environ[given["env"]])
    engine = raw.get("engine")
    for node, name, place in ((raw, "ledger", "ledger_file"), (engine, "token", "engine.token_file")):
        key = f"{name}_file"
        if not isinstance(node, dict) or not isinstance(node.get(key), str):
            continue  # not given, or of a type that the model refuses
        try:
            text = Path(node[key]).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{place}: cannot read {node[key]}: {fault(error)}", hint="is the Secret mounted there?") from None
        if not text or len(text.split()) > 1:
            raise ConfigError(f"{place}: {node[key]} must hold one line, and nothing else", hint="write it again, without spaces")
        node[name] = text
    return raw


def _override(raw: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    for name in sorted(n for n in environ if n.startswith(ENV_PREFIX)):
        *parents, last = name.removeprefix(ENV_PREFIX).lower().split("__")
        node: Any = raw
        for part in parents:
            node = _step(node, part, name)
        if not isinstance(node, dict):
            raise ConfigError(f"environment variable {name} points into a value that has no keys")
        try:
            node[last] = environ[name] if last in ("token", "next_token", "value") else _parsed(environ[name])
        except (yaml.YAMLError, ValueError):
            raise ConfigError(f"environment variable {name} is not YAML", hint="put its value in quotes, as in a file") from None
    return raw


def _step(node: Any, part: str, name: str) -> Any:  # noqa: ANN401  # a YAML tree
    if isinstance(node, dict):
        if node.get(part) is None:  # `web: null` is the same as no `web`
            node[part] = {}
        return node[part]
    if isinstance(node, list):
        for index, entry in enumerate(node):
            if part == str(index) or (isinstance(entry, dict) and str(entry.get("name", "")).replace("-", "_") == part):
                return entry
    raise ConfigError(f"environment variable {name}: there is no {part!r} in the configuration")
