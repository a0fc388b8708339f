"""Shows people what happens: one line per step with its time; on a terminal the running step moves.

It writes to standard error only.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

Detail = Callable[[str], None]


class Steps:
    """The steps of one call."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, name: str) -> Iterator[Detail]:
        """A step that takes a while; the value is called with what it is at."""
        began = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(f"  .. {name}", markup=False, highlight=False)
        with self.console.status(escape(name)) as status:

            def detail(text: str) -> None:
                status.update(f"{escape(name)} [dim]{time.monotonic() - began:.0f} s  {escape(text[:100])}[/dim]")

            try:
                yield detail
            except BaseException:
                self.console.print(f"  [red]failed[/red] {escape(name)} ({time.monotonic() - began:.1f} s)", highlight=False)
                raise
        self.console.print(f"  [green]ok[/green] {escape(name)} [dim]({time.monotonic() - began:.1f} s)[/dim]", highlight=False)

    def say(self, text: str) -> None:
        """One line that is not a step."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
