"""What one array says of pixels that another one describes, too: who has to be there because of it. Pure.

Flags and probabilities may be all zero, so that an absent chunk of them is believed. Not where the scene classification has classes
that come from them, or flags of another band say that there is no data.

Sources: Sen2Cor's scene classification (8, 9 clouds of medium and high probability, 11 snow or ice) is derived from its cloud and
snow confidences, which are the product's `cld` and `snw`. 10, thin cirrus, comes from another band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

CLASSES = {"cld": (8, 9), "snw": (11,)}
"""Probability -> the classes that there is none of without it."""
NODATA = "nodata"
LEAST = {**dict.fromkeys(CLASSES, 0.0001), NODATA: 0.01}
"""Share of the pixels of an absent chunk from which the others' word is believed."""
SAYS = {"cld": "has clouds there", "snw": "has snow there", NODATA: "flags nodata there"}
PROBABILITY = "quality/probability/"
MASK = "quality/mask/"
CLASSIFICATION = "conditions/mask/l2a_classification/"

type Says = Callable[[Any], Any]
"""Pixels -> which of them say a word."""


def marks_of(path: str, attributes: Mapping[str, Any]) -> dict[str, Says]:
    """Returns the words that an array's pixels can say, each with how."""
    if path.startswith(CLASSIFICATION):
        scale, offset = float(attributes.get("scale_factor", 1)), float(attributes.get("add_offset", 0))
        return {word: partial(_is_class, scale=scale, offset=offset, wanted=wanted) for word, wanted in CLASSES.items()}
    bit = nodata_bit(attributes) if path.startswith(MASK) else 0
    return {NODATA: partial(_has_bit, bit=bit)} if bit else {}


def _is_class(pixels: Any, *, scale: float, offset: float, wanted: tuple[int, ...]) -> Any:  # noqa: ANN401  # pixels
    return np.isin(np.rint(pixels * scale + offset), wanted)


def _has_bit(pixels: Any, *, bit: int) -> Any:  # noqa: ANN401  # pixels
    return (pixels & bit) != 0 if pixels.dtype.kind in "iu" else np.zeros(pixels.shape, bool)


def word_on(path: str, attributes: Mapping[str, Any]) -> str:
    """Returns the word that forbids a chunk of an array to be absent where others say it; empty when none does."""
    name = path.rpartition("/")[2]
    if path.startswith(PROBABILITY):
        return name if name in CLASSES else ""
    return NODATA if path.startswith(MASK) and nodata_bit(attributes) else ""


def nodata_bit(attributes: Mapping[str, Any]) -> int:
    """Returns the bit of a mask that means nodata; 0 when it has none."""
    masks, meanings = attributes.get("flag_masks"), attributes.get("flag_meanings")
    words = meanings.split() if isinstance(meanings, str) else meanings
    if not isinstance(masks, list) or not isinstance(words, list):
        return 0
    found = [mask for mask, word in zip(masks, words, strict=False) if "NODATA" in str(word).upper() and type(mask) is int]
    return found[0] if found else 0
