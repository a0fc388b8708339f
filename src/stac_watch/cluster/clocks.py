"""Whether the clocks of a cluster's nodes agree with its API server's. Pure.

A node renews its lease by its own clock; when that arrived, the API server writes down by its own (`managedFields[].time`, which
changes with each value). Both stand in the lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from stac_watch.cluster.diagnosis import Finding, Verdict

AGREES = 5  # seconds; the API server's are whole ones, and a renewal takes a moment


def judge(leases: Sequence[Mapping[str, Any]]) -> Finding:
    """Judges the nodes' leases: tokens and certificates are refused where clocks are minutes apart."""
    apart = {}
    for lease in leases:
        renewed = (lease.get("spec") or {}).get("renewTime")
        heard = [entry["time"] for entry in lease["metadata"].get("managedFields") or [] if entry.get("time")]
        if renewed and heard:
            seconds = datetime.fromisoformat(str(renewed)) - datetime.fromisoformat(max(heard))
            apart[str(lease["metadata"]["name"])] = seconds.total_seconds()
    wrong = sorted(f"{node} ({seconds:+.0f} s)" for node, seconds in apart.items() if abs(seconds) > AGREES)
    if wrong:
        said = f"nodes whose clocks are not the API server's: {', '.join(wrong)}"
        return Finding("clocks", Verdict.WARN, said, "synchronize them, as with chrony")
    return Finding("clocks", Verdict.OK, f"of {len(apart)} nodes")
