"""Kubernetes' quantities: `500m`, `4Gi`, `1.5` as numbers. Pure."""

from __future__ import annotations

import re


def quantity(text: str) -> float:
    """Returns a Kubernetes quantity as a number; 0 for what is none."""
    match = re.fullmatch(r"([0-9.]+)([EPTGMk]i?|Ki|m)?", text)
    if match is None:
        return 0.0
    unit = match[2] or ""
    if unit == "m":
        return float(match[1]) / 1000
    power = " kMGTPE".index(unit[0].replace("K", "k")) if unit else 0
    return float(match[1]) * float((1024 if unit.endswith("i") else 1000) ** power)
