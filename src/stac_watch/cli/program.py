"""The program `stac-watch`: the process around `main`. Whoever calls `main` in a process of their own keeps its settings."""

import gc
import os


def program() -> int:
    """Runs the process's command line and returns its exit code.

    The search for cycles in memory is a quarter of what a short verb costs: verbs that go on for longer start it again.
    """
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it reads every installed package's metadata to find one
    try:
        from stac_watch.cli.main import main

        return main()
    finally:
        gc.freeze()  # the interpreter's end searches once more, through all that goes with the process anyway
