"""What `--help` says of each verb beside its options: the heading that it stands under, a line that fits, and an example.

A verb without an entry has no place in the help, which a test refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

VERBS: dict[str, dict[str, tuple[str, str]]] = {  # heading -> verb -> its line, its example
    "Begin": {
        "init": ("Write a first configuration, and say what matches", "init --api https://stac.example --bbox 10,45,12,47"),
        "check": ("Check configuration, catalogs, ledger and engine", "check"),
        "demo": ("Show the whole thing on this machine in a minute", "demo --keep"),
    },
    "Convert": {
        "watch": ("Convert what is new, until stopped", "watch --once"),
        "backfill": ("Convert what was acquired in a range of days", "backfill s2-l2a --start 2026-06 --end 2026-08 --yes"),
        "replay": ("Try again, or now", "replay T32TQM --now --yes"),
        "send": ("Post a CloudEvent from a file", "send event.json"),
    },
    "Look": {
        "status": ("How many are where, what waits, what failed", "status"),
        "items": ("List conversions, the last changed first", "items --tile 32TQM --sensed yesterday"),
        "explain": ("Everything that happened to one item", "explain T32TQM"),
        "logs": ("What an item's last run wrote", "logs T32TQM"),
        "event": ("Print the CloudEvent of an item", "event T32TQM > event.json"),
        "item": ("Print the STAC item of an output", "item T32TQM"),
        "report": ("How much was available within 1, 6 and 24 hours", "report --days 30 --out freshness"),
    },
    "Repair": {
        "audit": ("Compare catalog, ledger, runs and outputs", "audit s2-l2a --start 30d --end 1d --file gaps.json"),
        "register": ("Have outputs registered, or once more", "register --failed --yes"),
        "unregister": ("Have items taken out of the catalog of outputs", "unregister T32TQM --yes"),
        "announce": ("What sinks were told, or tell them once more", "announce"),
        "expire": ("Remove outputs older than their lifetime", "expire --older-than 90d --yes"),
        "retire": ("Treat outputs whose items are gone, as configured", "retire s2-l2a --yes"),
    },
    "Operate": {
        "ledger": ("Prune, copy, back up or rebuild the ledger", ""),
        "cluster": ("Run an installation on Kubernetes", ""),
    },
}
INNER: dict[str, dict[str, tuple[str, str]]] = {  # of a sub-application: verb -> its line, its example
    "cluster": {
        "runs": ("Show the runs that the cluster has", "cluster runs @latest"),
        "logs": ("Print what a run's steps wrote", "cluster logs @latest --follow"),
        "fetch": ("Copy what a run left on its volume", "cluster fetch @latest --out results"),
        "clean": ("Remove Workflows that have ended", "cluster clean"),
        "doctor": ("Say what is wrong with an installation", "cluster doctor"),
        "api-server": ("Print the NetworkPolicy for the Kubernetes API", "cluster api-server"),
        "submit": ("Submit one Workflow, without a ledger", "cluster submit https://stac.example/collections/c/items/ITEM"),
        "images": ("List every image of an installation", "cluster images --values values.yaml"),
        "manifests": ("Render every object of an installation", "cluster manifests --values values.yaml --out installation"),
    },
    "ledger": {
        "prune": ("Remove details of what was done long ago", "ledger prune --older-than 90d --yes"),
        "copy": ("Copy a ledger into another database", "ledger copy sqlite:///old.db sqlite:///new.db"),
        "backup": ("Copy a SQLite ledger beside a watcher", "ledger backup backups"),
        "rebuild": ("Make a lost ledger again, from outputs and runs", "ledger rebuild --yes"),
    },
}


class Synopsis(TyperGroup):
    """An application whose help stands in groups, and whose verbs end with an example."""

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Returns a verb, with its line and its example."""
        command = super().get_command(ctx, cmd_name)
        known = INNER.get(self.name or "") or {name: said for verbs in VERBS.values() for name, said in verbs.items()}
        if command is not None and cmd_name in known:
            command.short_help, example = known[cmd_name]
            command.epilog = f"\b\nExample:\n  stac-watch {example}" if example else None
        return command

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes the verbs, each under its heading."""
        inner = INNER.get(self.name or "")
        names = self.list_commands(ctx)
        for heading, verbs in ({"Commands": inner} if inner else VERBS).items():
            rows = [(name, said) for name, (said, _) in verbs.items() if name in names]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
