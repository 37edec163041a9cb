"""Write critiques offline from people's ratings of single dimensions of photographs.

A dimension that nobody rated (exposure, in every published set) is measured as by the pixels expert, and so are the
facts that the phrases mention. The judgement follows the mean opinion score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from aes_r1.aescot.phrases import grade_of, step_of, write_judgement, write_phrase
from aes_r1.aescot.pixels_expert import Measurement, measured_factors, measured_facts
from aes_r1.aescot.record import Reply
from aes_r1.data.ratings import known_ratings
from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS

_RANGE_PERCENTILES = (5, 95)  # percentiles of the ratings of a dimension, between which its six steps lie

Ranges = Mapping[str, tuple[float, float]]


def usual_ranges(samples: Iterable[Sample]) -> dict[str, tuple[float, float]]:
    """Return {dimension: (5th, 95th percentile)} of the known ratings of `samples`; without unrated dimensions.

    The phrases of a dimension have six steps. Mean ratings lie in the middle of their scale (half of PARA's means for
    light lie between .45 and .61), so steps as wide as a sixth of the scale would say the same of most pictures.
    """
    values: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in known_ratings(sample).items():
            values.setdefault(name, []).append(value)
    return {
        name: (float(low), float(high))
        for name in values
        for low, high in [np.percentile(values[name], _RANGE_PERCENTILES)]
    }


def rated_factors(ratings: Mapping[str, float], usual: Ranges, measurement: Measurement) -> dict[str, float]:
    """Return 0..1 of every dimension: the rating within its usual range, or the measurement where nobody rated.

    The ends of the range become .05 and .95, as in the pixels expert. If all pictures have the same rating in a
    dimension, it becomes .5.
    """
    factors = measured_factors(measurement)
    for name, value in ratings.items():
        low, high = usual[name]
        factors[name] = float(np.interp(value, (low, high), (0.05, 0.95))) if high > low else 0.5
    return factors


def attributes_critique(
    ratings: Mapping[str, float], usual: Ranges, measurement: Measurement, mos: float, rng: np.random.Generator
) -> Reply:
    """Put people's ratings into the offline experts' words, with a judgement that follows `mos`."""
    factors, facts = rated_factors(ratings, usual, measurement), measured_facts(measurement)
    return Reply(
        {name: write_phrase(name, step_of(factors[name]), facts, rng) for name in DIMENSIONS},
        write_judgement(grade_of(mos), rng),
    )
