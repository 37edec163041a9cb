"""Update the policy on the completions of a step: inner epochs of minibatches of micro-batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from aes_r1.model.transfer import to_device
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.objective import Surrogate, importance_weights, loss_divisor, policy_loss
from aes_r1.trainer.passes import Passes
from aes_r1.trainer.skipped import SkippedSteps
from aes_r1.trainer.step_credit import StepCredit


@dataclass
class UpdateResult:
    """Hold the results of a step's update that are logged.

    sums: of the metrics of policy_loss, weighted by their tokens, and of entropy and tokens; "loss" is the mean over
    the optimizer steps and "ratio_max" the maximum; logp_diffs: log pi of the trainer minus that of the sampler before
    any update, [r, longest] for each micro-batch of the first minibatch that is in the loss, 0 beyond its mask;
    grad_norm: of the last optimizer step; skipped: optimizer steps that were skipped.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    logp_diffs: list[Tensor] = field(default_factory=list)
    grad_norm: float = 0.0
    skipped: int = 0

    def add(self, loss: Tensor, metrics: dict[str, Tensor], entropy: Tensor, tokens: int) -> None:
        """Add one micro-batch to the sums; tensors stay on the device.

        loss, metrics: the results of policy_loss; entropy [r, longest]: of every completion token; tokens: the number
        of completion tokens.
        """
        weighted = {
            name: value * metrics["tokens"] for name, value in metrics.items() if name not in ("tokens", "ratio_max")
        }
        added = {
            **weighted,
            "loss": loss.detach(),
            "tokens": metrics["tokens"],
            "entropy": entropy.detach().sum(),
            "completion_tokens": entropy.new_full((), tokens),
        }
        for name, value in added.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.sums["ratio_max"] = torch.maximum(self.sums.get("ratio_max", metrics["ratio_max"]), metrics["ratio_max"])


def update_policy(
    passes: Passes,
    credit: StepCredit,
    engine: Engine,
    *,
    reference_logps: Tensor | None,
    old_logps: Tensor | None,
    lr: float,
    skips: SkippedSteps,
) -> UpdateResult:
    """Take trainer.inner_epochs * trainer.minibatches optimizer steps with the learning rate `lr`. Collective.

    Advantages of completions from servers are multiplied by min(pi / mu, cap), where mu is the server's probability of
    the token, and pi the trainer's before the first update of the step. This corrects for the servers' different
    numerics and older weights.
    """
    policy, trainer, rollout = passes.policy, passes.trainer, passes.completions.rollout
    loss_of = partial(
        policy_loss,
        clip_low=trainer.clip_low,
        clip_high=trainer.clip_high,
        aggregation=trainer.aggregation,
        surrogate=Surrogate(
            kind=trainer.clip,
            ratio=trainer.ratio,
            ratio_cap=trainer.ratio_cap,
            sapo_temperatures=(trainer.sapo_temperatures[0], trainer.sapo_temperatures[1]),
            entropy_coef=trainer.entropy_coef,
        ),
    )
    result = UpdateResult()
    policy.backbone.model.train()
    for number, (minibatch, micro_batches) in enumerate(passes.minibatches * trainer.inner_epochs):
        loss_mask = credit.in_loss[to_device(minibatch, engine.device)]
        divisor = engine.all_reduce_sum(loss_divisor(loss_mask, trainer.aggregation, trainer.max_new_tokens))
        divisor = divisor.clamp(min=1)  # if no completion of any process is in the loss
        for micro_batch in micro_batches:
            rows, logps, entropy = passes.logps(policy.backbone, micro_batch)
            longest = logps.shape[1]
            old = logps.detach() if old_logps is None else old_logps[rows, :longest]
            sampler_logps = rollout.logps[rows, :longest]
            advantages = credit.advantages[rows, :longest]
            if policy.served is not None:
                advantages = advantages * importance_weights(old - sampler_logps, policy.served.settings.cap)
            loss, metrics = loss_of(
                logps,
                old,
                None if reference_logps is None else reference_logps[rows, :longest],
                advantages,
                credit.in_loss[rows, :longest] & micro_batch.in_loss,
                kl_coef=credit.kl_coef[rows, :longest] if isinstance(credit.kl_coef, Tensor) else credit.kl_coef,
                entropy=entropy,
                normalizer=divisor,
            )
            engine.backward(loss)
            if micro_batch.in_loss:
                result.add(loss, metrics, entropy, int(micro_batch.mask.sum()))
                if number == 0:  # before any update, so that both have the same weights unless drawn ahead
                    result.logp_diffs.append(logps.detach() - sampler_logps)
        result.grad_norm = float(engine.step(lr))
        result.skipped += skips.count(result.grad_norm)
    result.sums["loss"] /= len(passes.minibatches) * trainer.inner_epochs
    return result
