"""Writes docs/reference/{configuration,cli}.md, the runbook's alerts and the architecture's packages from the code.

It prints the pages, or with `--write` puts them in place. Only each page's introduction says more than the code.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer
import typer.main
from geozarr_runner.options import parser as runner_parser
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

sys.path.insert(0, str(Path(__file__).parent))
from field_docs import said_of

from stac_watch.cli.main import cli
from stac_watch.cluster.manifests.monitoring import ALERTS
from stac_watch.cluster.manifests.values import PARTS
from stac_watch.config import auth, objective, register, sinks
from stac_watch.config import model as config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RUNNER = ("source", "convert", "verify", "publish", "process")  # its packages, in the order in which a product meets them
WRITTEN = "<!-- written by tools/reference.py: `make docs` -->\n"
CONFIGURATION = f"""# Configuration

One YAML file; every scalar can be overridden by an environment variable, `STAC_WATCH__` and the key's path joined by `__`:
`STAC_WATCH__ENGINE__LIMITS__RATE=1/s`, `STAC_WATCH__SOURCES__S2_L2A__API=…` (a source by its name or number).
An unknown key is an error. Relative paths are relative to the file. Durations are a number and `s`, `m`, `h` or `d`; rates are
`2/s`, `90/m`, `1000/h`.

{WRITTEN}"""
SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("(top)", config.Config),
    ("sources[]", config.Source),
    ("sources[].auth", auth.Auth),
    ("sources[].auth.bearer", auth.Secret),
    ("sources[].auth.header", auth.HeaderSecret),
    ("sources[].auth.basic", auth.BasicSecret),
    ("sources[].auth.oidc", auth.OidcSecret),
    ("sources[].filter", config.Filter),
    ("sources[].poll", config.Poll),
    ("recipe", config.Recipe),
    ("engine (kind: local)", config.LocalSettings),
    ("engine (kind: argo)", config.ArgoSettings),
    ("engine.limits", config.Limits),
    ("register", register.Register),
    ("register.links[]", register.MapLink),
    ("sinks[]", sinks.EventSink),
    ("web", config.Web),
    ("objective", objective.Objective),
)
VALUES = f"""# Values

What an installation is told beside its [configuration](configuration.md), in one YAML file: `cluster manifests --values`.
An unknown key is an error. What Kubernetes knows (tolerations, affinity, resources) goes into the pods as it is written.
[On a cluster](../deploy.md#configure) has examples.

{WRITTEN}"""
COMMANDS = f"""# Command reference

Every verb of `stac-watch` and `geozarr-runner` with its options and defaults, as `--help` prints them. What `--json` prints and
what the exit codes mean: [JSON and exit codes](json.md).

- Verbs that need a configuration take `--config FILE` (default `stac-watch.yaml`). `stac-watch --debug VERB` adds a traceback to an
  error.
- A verb that asks changes nothing. A verb that acts on many items prints what it would do, and does it with `--yes`.
- `--start` and `--end` take a day, an RFC 3339 time, or a span before now (`30d`, `10h`). A day as the end is included; a time or a
  span is not. A span in days starts at the beginning of that day (UTC), and today as the end means all of today: the same command
  means the same range until midnight.

{WRITTEN}
## Environment

| variable | read by | meaning |
| --- | --- | --- |
| `STAC_WATCH__…` | `stac-watch` | overrides a key of the [configuration](configuration.md); secrets come this way, or from a file |
| `KUBECONFIG` | verbs that reach a cluster | which cluster, as for kubectl; in a pod, the pod's own account is used |
| `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` | both | as usual; the EventSource's token never goes through a proxy |
| `AWS_CONFIG_FILE`, `AWS_SHARED_CREDENTIALS_FILE`, `AWS_…` | both, for `s3://…` | credentials and endpoint, as for the AWS CLI |
| `ARGO_PROGRESS_FILE` | `geozarr-runner` | set by Argo: the file that the step's progress is written to |
"""


def configuration() -> str:
    """Returns the page about the configuration."""
    return CONFIGURATION + "".join(_section(name, model) for name, model in SECTIONS)


def values() -> str:
    """Returns the page about the values."""
    return VALUES + "".join(_section(name, part) for name, part in PARTS)


def _section(name: str, model: type[BaseModel]) -> str:
    said = said_of(model)
    fields = model.model_fields.items()
    rows = ((f"`{field.alias or key}`", _default(field.default), _line(said[key])) for key, field in fields)
    return f"\n## {name}\n\n{model.__doc__}\n\n" + _table(("key", "default", "meaning"), rows)


def _default(value: Any) -> str:  # noqa: ANN401  # whatever a model has
    if value is PydanticUndefined:
        return "(required)"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple) and value and isinstance(value[0], timedelta):
        return "`" + ", ".join(_span(v) for v in value) + "`"
    if isinstance(value, timedelta):
        return f"`{_span(value)}`"
    if value in (None, "", (), {}):
        return "(empty)"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _span(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    return next(
        f"{seconds // size}{unit}" for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)) if seconds % size == 0
    )


def commands() -> str:
    """Returns the page about both command lines."""
    verbs = dict(_verbs(typer.main.get_command(cli)))
    watch = "".join(_verb(name, verbs[name]) for name in sorted(verbs))
    parser = runner_parser()
    [choices] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001  # argparse has no other way
    said = {choice.dest: choice.help for choice in choices._choices_actions}  # noqa: SLF001  # argparse has no other way
    runner, last = "", ("", "")
    for name, sub in choices.choices.items():
        entry = _runner_verb(f"geozarr-runner {name}", said[name] or "", sub)
        head, start, table = entry.partition("| argument |")
        runner += (
            f"{head}Its arguments are those of [{last[0]}](#{last[0].replace(' ', '-')}).\n"
            if table == last[1]
            else head + start + table
        )
        last = (f"geozarr-runner {name}", table)
    return COMMANDS + watch + runner


def _verbs(command: Any, *path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # Typer types its groups as single commands
    """Yields every verb, those of a group with its name in front."""
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, inner in command.commands.items():
        yield from _verbs(inner, *path, name)


def _verb(name: str, command: Any) -> str:  # noqa: ANN401  # Typer's own Click is private to it
    context = typer.Context(command, info_name=f"stac-watch {name}")
    rows = []
    for parameter in command.params:
        names, meaning = parameter.get_help_record(context)
        text, _, extra = meaning.partition("  [") if "  [" in meaning else (meaning, "", "")
        if meaning.startswith("["):
            text, extra = "", meaning[1:]
        facts = [fact for fact in extra.removesuffix("]").split("; ") if fact]
        default = next((f"`{f.removeprefix('default: ')}`" for f in facts if f.startswith("default: ")), "")
        bounds = [f"`{fact}`" for fact in facts if not fact.startswith("default: ") and fact != "required"]
        rows.append((f"`{names}`", "(required)" if "required" in facts else default, " ".join([_line(text), *bounds])))
    usage = command.get_usage(context).removeprefix("Usage: ")
    return _entry(name, usage, _line(command.help), rows)


def _runner_verb(name: str, text: str, parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way
        if action.dest != "help":
            value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
            default = "" if action.default in (None, "", False, []) else f"`{action.default}`"
            names = f"`{', '.join(action.option_strings)}{value}`"
            rows.append((names, "(required)" if action.required else default, _line(action.help or "")))
    return _entry(name, f"{name} [OPTIONS]", f"{text[0].upper()}{text[1:]}.", rows)


def _entry(name: str, usage: str, text: str, rows: Iterable[tuple[str, ...]]) -> str:
    return f"\n## {name}\n\n```text\n{usage}\n```\n\n{text}\n\n" + _table(("argument", "default", "meaning"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def _line(text: str) -> str:
    return " ".join(text.split())


def runbook() -> str:
    """Returns the runbook with its table of alerts written anew; the rest of the page is prose."""
    rows = (
        (f"`{a.name}` ({a.severity})", f"{_labelled(a.summary)} `{a.expr}` for {a.after}", _line(a.cause), _line(a.action))
        for a in ALERTS
    )
    table = _table(("alert", "raised when", "usual cause", "first action"), rows)
    return _put("runbook.md", "alerts", table)


def architecture() -> str:
    """Returns the page about the architecture with its layers and packages written anew; the rest of the page is prose."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    layers = contracts["importlinter:contract:way"]["layers"].split("\n")[1:]
    text = "".join(f"\n### `{name}`\n\n{_docstring(path)}\n" for name, path in _packages(layers))
    drawn = "```text\n" + "\n".join(layers) + "\n```\n"
    return _put("architecture.md", "packages", text.lstrip("\n"), _put("architecture.md", "layers", drawn))


def _packages(layers: Iterable[str]) -> Iterable[tuple[str, Path]]:
    """Every package with the file of its docstring: the poller's from the model up, then the runner's."""
    poller, runner = ROOT / "src" / "stac_watch", ROOT / "runner" / "geozarr_runner"
    for layer in reversed(list(layers)):
        for name in layer.split(" | "):
            yield name, poller / f"{name}.py" if (poller / f"{name}.py").is_file() else poller / name / "__init__.py"
    for name in RUNNER:
        yield f"geozarr_runner.{name}", runner / name / "__init__.py"


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _put(page: str, name: str, text: str, whole: str = "") -> str:
    """Returns a page with what stands between two of its comments replaced."""
    whole = whole or (DOCS / page).read_text(encoding="utf-8")
    start, end = f"<!-- {name}: written by tools/reference.py -->", f"<!-- {name}: end -->"
    before, _, rest = whole.partition(start)
    return f"{before}{start}\n\n{text}\n{end}{rest.partition(end)[2]}"


def _labelled(summary: str) -> str:
    """Returns an alert's summary with the names of its labels in place of Prometheus' own syntax."""
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", summary)


PAGES: dict[str, Callable[[], str]] = {
    "reference/configuration.md": configuration,
    "reference/values.md": values,
    "reference/cli.md": commands,
    "runbook.md": runbook,
    "architecture.md": architecture,
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        if "--write" in sys.argv:
            (DOCS / name).write_text(page(), encoding="utf-8")
        else:
            sys.stdout.write(page())
