"""Reward the completions of a step over the images of all processes, so that N is global."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aes_r1.reward.length import overlong_penalty
from aes_r1.reward.total import total_reward
from aes_r1.rollout.sampler import keyed_uniform_noise
from aes_r1.settings import RewardSettings, TrainerSettings
from aes_r1.trainer.completions import Completions, score_table
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.step_images import StepImages


@dataclass(frozen=True)
class StepRewards:
    """Hold the rewards of a step's N images x K completions, in the order of ranks.

    scores [N, K]: NaN where parsing failed; mos, pool [N]: mean opinion scores, and numbers of the images' data sets;
    total [N, K]: the reward; parts: {name: [N, K]}, unweighted; here: the images of this process among the N.
    """

    scores: Tensor
    mos: Tensor
    pool: Tensor
    total: Tensor
    parts: dict[str, Tensor]
    here: slice


def reward_completions(
    completions: Completions,
    images: StepImages,
    *,
    trainer: TrainerSettings,
    reward: RewardSettings,
    pools: Mapping[str, int],
    progress: float,
    engine: Engine,
) -> StepRewards:
    """Return the rewards of a step's scores and lengths. Collective.

    pools: {data set: its number}; progress: share of training that is done, for reward.schedule.
    """
    device, count = engine.device, len(images.here)
    mos = engine.all_gather(torch.tensor([image.mos for image in images.here], device=device))
    pool = engine.all_gather(torch.tensor([pools[image.dataset] for image in images.here], device=device))
    scores = engine.all_gather(score_table(completions.scores, trainer.num_samples, device))
    guesses = None
    if reward.failed_parse == "random":
        guesses = engine.all_gather(
            keyed_uniform_noise([("guess", *key) for key in images.keys], 1).to(scores).view(count, -1)
        )
    total, parts = total_reward(scores, mos, reward, pool=pool, progress=progress, guesses=guesses)
    if trainer.overlong_penalty:
        lengths = engine.all_gather(completions.rollout.mask.sum(dim=1).view(count, -1))
        overlong = overlong_penalty(lengths, limit=trainer.max_new_tokens, begin=trainer.overlong_from)
        total = total + trainer.overlong_penalty * overlong
        parts |= {"overlong": overlong}
    return StepRewards(scores, mos, pool, total, parts, slice(engine.rank * count, (engine.rank + 1) * count))
