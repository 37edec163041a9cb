"""Compute the reward that RAPO maximises: a weighted sum of parts, all at once or in two phases.

    r = w_rank r_rank + w_error r_error + w_binary r_binary + w_distribution r_distribution + w_format r_format
        + w_custom r_custom + w_twin r_twin

Sub-scores add w_sub_scores (w_rank r_rank + w_error r_error) of each dimension (sub_score_rewards). A comparison of two
pictures has no score; its reward is w_pair r_pair + w_format r_format. trainer/step_rewards.py adds what needs more
than scores: the judge's reward, the overlong penalty and the KL divergence.

The schedule decides when the relative part (rank) and the absolute part (error, binary and distribution) count. The
format reward, a custom reward and the comparison with an edited twin always count.

    joint        both parts throughout (the paper)
    rank_first   relative during the first half of training, absolute during the second
    error_first  the reverse

A failed parse has no score (reward.failed_parse=none). The authors' code gives it a uniform random score instead, which
then earns a reward and changes every other image's rank reward. `random` reproduces that for comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from aes_r1.reward.binary import binary_reward
from aes_r1.reward.distribution import distribution_reward
from aes_r1.reward.error import error_reward
from aes_r1.reward.format import format_reward
from aes_r1.reward.pair import pair_reward
from aes_r1.reward.rank import bradley_terry_reward, rank_reward
from aes_r1.reward.twin import Twins, twin_reward
from aes_r1.settings import RewardSettings


def weights_at(reward: RewardSettings, progress: float) -> dict[str, float]:
    """Return the weight of every part when the share `progress` in [0, 1] of training is done. ValueError outside."""
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress={progress}: must be in [0, 1]")
    second_half = progress >= 0.5
    relative = reward.schedule == "joint" or (reward.schedule == "rank_first") != second_half
    absolute = reward.schedule == "joint" or (reward.schedule == "error_first") != second_half
    return {
        "rank": reward.rank.weight * relative,
        "error": reward.error.weight * absolute,
        "binary": reward.binary.weight * absolute,
        "distribution": reward.distribution.weight * absolute,
        "pair": reward.pair.weight,
        "format": reward.format.weight,
        "twin": reward.twin.weight,
        "custom": 0.0 if reward.custom is None else reward.custom_weight,
    }


def total_reward(
    scores: Tensor,
    mos: Tensor,
    reward: RewardSettings,
    *,
    pool: Tensor | None = None,
    progress: float = 0.0,
    guesses: Tensor | None = None,
    raters: tuple[Tensor, Tensor] | None = None,
    custom: Tensor | None = None,
    twins: Twins | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the total [N, K] and its parts {"rank", "error", "binary", "format", ..}, each [N, K] and unweighted.

    `scores` [N, K] with NaN for a failed parse, `mos` [N]. `pool` [N] numbers the data set of each picture; it is used
    when reward.rank.pool is "dataset". `guesses` [N, K] replace failed parses, except in the part "format", which still
    counts them as failed, and in the part "twin" if sub-scores are compared (twins.scores), for which there are no
    guesses. Parts of weight 0 are computed too, so that every run logs the same curves; but "distribution" exists only
    if it has a weight, and "custom" and "twin" only if `custom` and `twins` are given. `raters`: levels and shares
    [N, V] of opinions (distribution_reward); `custom` [N, K]: the custom reward. `twins`: how edited twins are
    compared. Twins have no opinion, so they earn only "twin" and "format", and are no opponents in "rank".

    With reward.pair.weight, `scores` are the choices between two pictures and `mos` the numbers of the better ones
    (pair_reward); the parts are then {"pair", "format"}. ValueError where the distribution reward lacks `raters`.
    """
    weights = weights_at(reward, progress)
    if reward.pair.weight > 0:
        parts = {"pair": pair_reward(scores, mos), "format": format_reward(scores)}
    else:
        parts = _parts_of_scores(
            scores, mos, reward, pool=pool, guesses=guesses, raters=raters, custom=custom, twins=twins
        )
    total = sum((weights[name] * part for name, part in parts.items()), start=scores.new_zeros(scores.shape))
    return total, parts


def _parts_of_scores(
    scores: Tensor,
    mos: Tensor,
    reward: RewardSettings,
    *,
    pool: Tensor | None,
    guesses: Tensor | None,
    raters: tuple[Tensor, Tensor] | None,
    custom: Tensor | None,
    twins: Twins | None,
) -> dict[str, Tensor]:
    readable = scores
    scores = scores if guesses is None else torch.where(scores.isnan(), guesses, scores)
    rated = scores if twins is None else scores.masked_fill(twins.edited[:, None], torch.nan)
    parts = {
        "rank": relative_reward(rated, mos, reward, pool=pool),
        "error": error_reward(rated, mos, sigma=reward.error.sigma, epsilon=reward.error.epsilon),
        "binary": binary_reward(rated, mos, threshold=reward.binary.threshold),
        "format": format_reward(readable),
    }
    if reward.distribution.weight > 0:
        if raters is None:
            raise ValueError("reward.distribution needs raters")
        parts["distribution"] = distribution_reward(rated, *raters)
    if twins is not None:
        compared = scores if twins.scores is None else twins.scores
        parts["twin"] = twin_reward(compared, twins.pair, twins.edited, compare=_pairwise_model(reward))
    if custom is not None:
        parts["custom"] = custom.to(scores)
    return parts


def relative_reward(scores: Tensor, mos: Tensor, reward: RewardSettings, *, pool: Tensor | None) -> Tensor:
    """Return the rank reward [N, K] of the pairwise model that reward.rank names. Arguments as for `total_reward`."""
    pool = pool if reward.rank.pool == "dataset" else None
    return _pairwise_model(reward)(scores, mos, ties=reward.rank.ties, pool=pool)


def _pairwise_model(reward: RewardSettings) -> Callable[..., Tensor]:
    if reward.rank.model == "bradley_terry":
        return partial(bradley_terry_reward, tau=reward.rank.tau)
    return partial(rank_reward, gamma=reward.rank.gamma)


def sub_score_rewards(
    sub_scores: Tensor,
    ratings: Tensor,
    reward: RewardSettings,
    *,
    pool: Tensor | None = None,
    progress: float = 0.0,
) -> Tensor:
    """Return [N, K, D]: the rank and error rewards of the sub-score of each of D dimensions.

        r_ikd = w_rank r_rank(o_ikd) + w_error r_error(o_ikd)

    with the rating of the dimension in place of the mean opinion score, and the same weights as for the score.
    sub_scores [N, K, D]: NaN where an answer has none, which earns 0; ratings [N, D]: NaN where nobody rated a
    dimension; such a picture is no opponent in that dimension, and its completions earn 0 there. `pool`, `progress`: as
    for `total_reward` and `weights_at`.
    """
    weights, rated = weights_at(reward, progress), ~ratings.isnan()
    compared = torch.where(rated[:, None, :], sub_scores, torch.nan)
    by_dimension = []
    for scores, opinions in zip(compared.unbind(2), ratings.nan_to_num(0.0).unbind(1), strict=True):
        error = error_reward(scores, opinions, sigma=reward.error.sigma, epsilon=reward.error.epsilon)
        rank = relative_reward(scores, opinions, reward, pool=pool)
        by_dimension.append(weights["rank"] * rank + weights["error"] * error)
    return torch.stack(by_dimension, dim=2)
