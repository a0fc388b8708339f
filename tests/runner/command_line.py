"""The runner's command line, for a call in this process and for a process of its own.

In: a source, an output, options as keywords. Out: arguments. Never: a start.
"""

import sys


def arguments(source: object, output: object, *, command: str = "run", **options: object) -> list[str]:
    """What follows the program's name; `allowed_hosts="…"` is `--allowed-hosts …`."""
    argv = [command, "--stac-url", str(source), "--output-zarr", str(output)]
    return argv + [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def program(source: object, output: object, *, command: str = "run", **options: object) -> list[str]:
    """The same with what starts it."""
    return [sys.executable, "-m", "geozarr_runner.cli", *arguments(source, output, command=command, **options)]
