"""The section `objective` of the configuration: what readers of the outputs are promised."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from stac_watch.config.values import Duration, Group


class Objective(Group):
    """What readers are promised: this share of what each source's catalog announces is available in time.

    `/metrics` tells how fast the rest is used up, and two alerts watch that; `stac-watch report` says how well it was kept.
    Backfills are not part of it.
    """

    within: Duration = timedelta(hours=24)
    """How long after the catalog's stamp a verified output is there."""
    share: float = Field(default=0.95, ge=0.5, le=0.9999)
    """Of all items that match the source's rules. The rest may be late, or missing: that is the error budget."""
