"""Notice a scale that is far wider than the opinions on it: an opinion of 10 on a scale to 100 is read as 0.1."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aes_r1.data.catalog import CATALOG
from aes_r1.data.scene_sets import SCENE_SETS

_LEAST_PICTURES = 20  # fewer may be alike by chance
_LEAST_SHARE = 0.25  # of the scale, which the opinions of a whole set span


def too_wide(
    name: str, opinions: Sequence[float | None], scale: Sequence[float] | None, *, settable: bool = True
) -> str | None:
    """Return a warning where `opinions` in 0..1 of the set `name` span little of their scale; None where there is none.

    scale: its lowest and highest opinion as the user gave them, None for 0 and 1. `settable`: whether data.scale is
    for the data; opinions of a manifest or an AesCoT file have been put on a scale from 0 to 1 before. The scales of
    made scenes and of published sets are known, so nothing is said of them.
    """
    published = name != "folder" and name in CATALOG and CATALOG[name].scale is not None
    if published or name in SCENE_SETS:
        return None
    known = [opinion for opinion in opinions if opinion is not None and not math.isnan(opinion)]
    if len(known) < _LEAST_PICTURES or max(known) - min(known) >= _LEAST_SHARE:
        return None
    low, high = scale or (0.0, 1.0)
    lowest, highest = (f"{low + (high - low) * value:.4g}" for value in (min(known), max(known)))
    remedy = "prepare or train again with its ends as data.scale"
    if not settable:
        remedy = "write (x - low) / (high - low) of its ends as mos, or make the file anew with data.scale=[low,high]"
    return (
        f"{name}: the opinions of {len(known)} pictures lie between {lowest} and {highest}, which is less than a "
        f"quarter of the scale [{low:g}, {high:g}]; if they were given on another one, {remedy}"
    )
