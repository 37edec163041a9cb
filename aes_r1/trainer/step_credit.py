"""Turn the rewards of a step into the advantage of each token, and decide which tokens are in the loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from aes_r1.rollout.sampler import Rollout
from aes_r1.settings import RewardSettings, TrainerSettings
from aes_r1.trainer.credit import critique_advantage, token_advantages, token_kl_coef
from aes_r1.trainer.objective import advantage_by_reward, group_advantage, zero_spread
from aes_r1.trainer.step_rewards import StepRewards


@dataclass(frozen=True)
class StepCredit:
    """Hold the credit of this process's R = n * K completions of up to T tokens.

    advantages [R, T]; kl_coef: one number or [R, T]; in_loss [R, T] bool: tokens that count in the loss; zero_spread
    [N] bool: the images of all processes whose completions all have the same advantages; by_completion: {name: [n, K]},
    advantages for the log.
    """

    advantages: Tensor
    kl_coef: float | Tensor
    in_loss: Tensor
    zero_spread: Tensor
    by_completion: dict[str, Tensor]


def assign_credit(
    rewards: StepRewards, rollout: Rollout, in_critique: Tensor, *, trainer: TrainerSettings, reward: RewardSettings
) -> StepCredit:
    """Return the credit of a step (trainer.credit). in_critique [R, T] bool: the tokens of critiques."""
    if trainer.advantage == "per_reward":
        answer_advantage = advantage_by_reward(rewards.parts, rewards.weights)
    else:
        answer_advantage = group_advantage(rewards.total, scale=trainer.scale_advantage)
    by_completion = {"advantage": answer_advantage[rewards.local]}
    without_spread = rewards.zero_spread
    if trainer.credit == "parts":
        weights = reward.critique_weights
        critique_rewards = {name: rewards.parts[name] for name in weights}
        readable = ~rewards.scores.isnan()
        of_critiques = critique_advantage(critique_rewards, weights, readable, scale=trainer.scale_advantage)
        without_spread = without_spread & zero_spread(of_critiques)
        by_completion["critique_advantage"] = of_critiques[rewards.local]
    in_loss = rollout.mask.clone()
    if trainer.mask_truncated:
        in_loss &= ~rollout.truncated[:, None]
    if trainer.drop_zero_spread:
        in_loss &= ~without_spread[rewards.local].repeat_interleave(trainer.num_samples)[:, None]
    return StepCredit(
        advantages=token_advantages(
            by_completion["advantage"], by_completion.get("critique_advantage"), in_critique, trainer.credit
        ),
        kl_coef=token_kl_coef(trainer.kl_coef, trainer.critique_kl_coef, in_critique),
        in_loss=in_loss,
        zero_spread=without_spread,
        by_completion=by_completion,
    )
