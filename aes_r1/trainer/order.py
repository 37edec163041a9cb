"""Choose the samples of a step by a pure function of seed and step, so that a resumed run needs no iterator state."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np


def batch_indices(step: int, *, per_step: int, count: int, seed: int) -> list[int]:
    """Return the indices of step `step` (from 0): `per_step` of `count`, each epoch a fresh seeded permutation.

    Steps continue across epochs, so every sample is seen once per epoch and every step is full.
    """
    positions = range(step * per_step, (step + 1) * per_step)
    epochs = {position // count for position in positions}
    permutations = {epoch: np.random.default_rng([seed, epoch]).permutation(count) for epoch in epochs}
    return [int(permutations[position // count][position % count]) for position in positions]


def further_indices(
    step: int, round_number: int, *, wanted: int, used: Collection[int], count: int, seed: int
) -> list[int]:
    """Return up to `wanted` indices of `count` that are not `used`, for refill `round_number` (from 0) of a step.

    They come from a separate permutation, so that the images of the other steps do not change.
    """
    permutation = np.random.default_rng([seed, step, round_number, 1]).permutation(count)
    return [index for index in permutation.tolist() if index not in used][:wanted]


def batch_indices_without_repeats(
    step: int, *, per_step: int, count: int, seed: int, first_pass: Sequence[int] | None = None
) -> list[int]:
    """Return indices as `batch_indices` does, but never the same sample twice in a step.

    Samples that do not fill a step at the end of an epoch are left out of that epoch. Needs per_step <= count.
    first_pass: the order of the first epoch in place of a drawn one.
    """
    epoch, step_in_epoch = divmod(step, count // per_step)
    order = first_pass if epoch == 0 else None
    if order is None:
        order = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    return list(order[step_in_epoch * per_step : (step_in_epoch + 1) * per_step])


def least_first(difficulty: Sequence[float], *, pool: Sequence[str], shown: int, seed: int) -> list[int]:
    """Return the first `shown` indices of the first epoch, the quarter of least difficulty of each pool first.

    difficulty and pool have one entry per sample. The same samples are shown as without this order, every quarter has
    the same shares of the pools, and within a quarter the drawn order is kept.
    """
    drawn = np.random.default_rng([seed, 0]).permutation(len(difficulty))[:shown]
    values, pools = np.asarray(difficulty)[drawn], np.asarray(pool)[drawn]
    quarter = np.zeros(len(drawn), dtype=np.int64)
    for name in set(pool):
        inside = np.flatnonzero(pools == name)
        rank = np.argsort(np.argsort(values[inside], kind="stable"), kind="stable")
        quarter[inside] = 4 * rank // max(len(inside), 1)
    return drawn[np.argsort(quarter, kind="stable")].tolist()
