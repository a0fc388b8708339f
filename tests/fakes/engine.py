"""Engines without runs, for what ends when an event was accepted."""

from stac_watch.runs.engine import Answer, Receipt


class Taker:
    """An engine that accepts everything, and has no runs to show."""

    def submit(self, event):
        return Receipt(Answer.ACCEPTED)

    def runs(self, keys):
        return []

    def headroom(self) -> int:
        return 10
