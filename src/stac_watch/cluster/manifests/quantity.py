"""Kubernetes' quantities: `500m`, `4Gi`, `1.5`, `1e9` as numbers. Pure.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"([0-9]{1,19}(?:\.[0-9]*)?|\.[0-9]+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,2}))?")
_SMALL = {"n": 1e-9, "u": 1e-6, "m": 1e-3}


def is_quantity(text: str) -> bool:
    """Tells whether Kubernetes takes it for a quantity that is not negative."""
    return _QUANTITY.fullmatch(text) is not None


def quantity(text: str) -> float:
    """Returns a Kubernetes quantity as a number; 0 for what is none."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return 0.0
    number, unit = float(match[1]), match[2] or ""
    if match[3]:
        return number * 10.0 ** int(match[3])
    if unit in _SMALL:
        return number * _SMALL[unit]
    power = " kMGTPE".index(unit[0].replace("K", "k")) if unit else 0
    return number * float((1024 if unit.endswith("i") else 1000) ** power)
