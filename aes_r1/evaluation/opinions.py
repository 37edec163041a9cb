"""Compare the scores that a model gives a picture with the opinions of its raters, as distributions on 0..1.

emd    earth mover's distance (Wasserstein 1): the area between the two distribution functions
crps   continuous ranked probability score of the scores, averaged over the raters' opinions: E |o - v| - 1/2
       E |o - o'| over opinions v and pairs of different scores o, o' (the fair form; without such pairs, for a
       single score, the second term is 0). It is a proper score: in expectation no other distribution of scores gets
       a lower one than the raters' own does
kl     Kullback-Leibler divergence from raters to scores, nats, on the raters' levels. Each score counts for its
       nearest level, and one further score is shared equally by all levels, so that the divergence is finite
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aes_r1.data.opinions import levels_of
from aes_r1.evaluation.bootstrap import resamples, with_interval
from aes_r1.runs.cells import DISTANCES, OpinionDistances

Array = NDArray[np.float64]


def distances(scores: Sequence[float], shares: Sequence[float]) -> dict[str, float]:
    """Return {emd, crps, kl, crps_of_raters} of one picture; the last is the crps of the raters' own distribution.

    scores: at least one, 0..1; for kl a score outside counts for the nearest level. shares: the share of raters on each
    of len(shares) levels 0..1 (data.opinions.rater_shares).
    """
    outputs, levels, weights = np.asarray(scores), np.asarray(levels_of(shares)), np.asarray(shares)
    count = len(outputs)
    among_outputs = np.abs(outputs[:, None] - outputs[None, :]).sum() / max(1, count * (count - 1))
    to_raters = float(np.abs(outputs[:, None] - levels[None, :]).mean(axis=0) @ weights)
    among_raters = float(weights @ np.abs(levels[:, None] - levels[None, :]) @ weights)
    edges = np.unique(np.concatenate([outputs, levels]))
    output_cdf = (outputs[None, :] <= edges[:, None]).mean(axis=1)
    rater_cdf = (levels[None, :] <= edges[:, None]) @ weights
    nearest = np.rint(outputs.clip(0, 1) * (len(levels) - 1)).astype(int)
    output_shares = (np.bincount(nearest, minlength=len(levels)) + 1 / len(levels)) / (count + 1)
    rated = weights > 0
    return {
        "emd": float((np.abs(output_cdf - rater_cdf)[:-1] * np.diff(edges)).sum()),
        "crps": to_raters - among_outputs / 2,
        "kl": float((weights[rated] * np.log(weights[rated] / output_shares[rated])).sum()),
        "crps_of_raters": among_raters / 2,
    }


def opinion_distances(measured: Array, *, n_bootstrap: int = 1000, seed: int = 0) -> OpinionDistances | None:
    """Return {"n", emd, crps, kl, crps_of_raters}: means over pictures with 95% bootstrap intervals; None without any.

    measured [n, 4]: `distances` of each picture in the order of DISTANCES, NaN where the raters are unknown or no score
    could be read; such pictures do not count in n.
    """
    measurable = measured[np.isfinite(measured).all(axis=1)]
    if not len(measurable):
        return None
    resampled = [counts @ measurable / len(measurable) for counts in resamples(len(measurable), n_bootstrap, seed)]
    draws = np.concatenate([np.empty((0, len(DISTANCES))), *resampled])
    means = measurable.mean(axis=0)
    intervals = {name: with_interval(float(means[index]), draws[:, index]) for index, name in enumerate(DISTANCES)}
    return {
        "n": len(measurable),
        "emd": intervals["emd"],
        "crps": intervals["crps"],
        "kl": intervals["kl"],
        "crps_of_raters": intervals["crps_of_raters"],
    }


NOT_KNOWN = (math.nan,) * len(DISTANCES)
