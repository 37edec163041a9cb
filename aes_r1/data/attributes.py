"""Check the attributes of a picture that the program itself reads, and recognise synthetic scenes.

votes: how many raters chose each level, lowest first; other_votes: the same for further groups, by name; ratings:
people's ratings of single dimensions, 0..1; factors, facts: the values from which a synthetic scene was drawn. All
other attributes are kept unchanged, and so are ratings under other names. Null is the same as absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aes_r1.data.sample import Sample
from aes_r1.data.scene_sets import SCENE_SETS
from aes_r1.prompts import DIMENSIONS

RESERVED = ("votes", "other_votes", "factors", "facts", "ratings")
ROUNDING = 1e-9  # rounding error that is accepted in a mean or a rescaled opinion, as a share of the scale
MAX_RATERS = 10**9  # most raters on one level, so that sums stay exact


def is_made_scene(sample: Sample) -> bool:
    """Return whether the program has drawn the picture itself, so that the factor of every dimension is known."""
    return sample.dataset in SCENE_SETS and _are_factors(sample.attributes.get("factors"))


def attributes_fault(attributes: Mapping[str, Any], dataset: str) -> str | None:
    """Return what is wrong with the RESERVED attributes of a picture of `dataset`; None where nothing is."""
    for name in RESERVED:
        rule = _broken_rule(name, attributes[name], dataset) if attributes.get(name) is not None else None
        if rule is not None:
            given = f"attributes.{name}={repr(attributes[name])[:40]}"
            return f"{given} must be {rule}; give a column of yours another name"
    return None


def _broken_rule(name: str, value: Any, dataset: str) -> str | None:
    """Return what the value of a RESERVED attribute must be if it is not that, else None."""
    if name in ("factors", "facts") and dataset not in SCENE_SETS:
        return f"of a made scene ({', '.join(SCENE_SETS)})"
    if name == "factors":
        return None if _are_factors(value) else "the factor of every dimension in [0, 1]"
    if name == "facts":
        return None if _are_facts(value) else "a mapping of facts"
    if name == "ratings":
        return None if _are_ratings(value) else f"ratings in [0, 1] of dimensions ({', '.join(DIMENSIONS)})"
    if name == "other_votes":
        counted = isinstance(value, Mapping) and all(votes is None or _are_votes(votes) for votes in value.values())
        return None if counted else "lists of raters on each level, lowest first, by group"
    return None if _are_votes(value) else "a list of raters on each level, lowest first"


def _are_votes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(_is_within(count, MAX_RATERS) and count == int(count) for count in value)
    )


def _are_factors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_within(value.get(name), 1) for name in DIMENSIONS)


def _are_ratings(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        value.get(name) is None or _is_within(value[name], 1, slack=ROUNDING) for name in DIMENSIONS
    )


def _are_facts(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("cues", []), list)


def _is_within(value: Any, high: float, slack: float = 0.0) -> bool:
    """Return whether `value` is a number in [0, high], or at most `slack` outside."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -slack <= value <= high + slack
