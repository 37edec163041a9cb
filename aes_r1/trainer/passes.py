"""Plan the forward passes of a step once, for the reference, the old policy and the update."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.model.transfer import to_device
from aes_r1.settings import TrainerSettings
from aes_r1.trainer.completions import Completions
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.micro_batches import MicroBatch, plan_micro_batches
from aes_r1.trainer.policy import Policy


class Passes:
    """Plan and run the forward passes over the R completions of this process. Collective to create.

    lengths [R]: number of tokens of each completion; all_micro_batches: the passes over all completions; minibatches:
    [(rows of a minibatch, its passes)], one optimizer step each.
    """

    def __init__(self, completions: Completions, policy: Policy, trainer: TrainerSettings, engine: Engine) -> None:
        self.completions, self.policy, self.trainer, self.device = completions, policy, trainer, engine.device
        self.lengths: list[int] = completions.rollout.mask.sum(dim=1).tolist()  # one synchronisation for all passes
        plan = partial(
            plan_micro_batches,
            lengths=self.lengths,
            prompt_tokens=completions.prompts.prompt_tokens,
            engine=engine,
            num_samples=trainer.num_samples,
            shared_prefix=policy.shares_prefix,
            size=trainer.micro_batch_size,
            max_tokens=trainer.micro_batch_tokens,
        )
        all_rows = torch.arange(len(self.lengths))
        self.all_micro_batches = plan(all_rows)
        self.minibatches = [(rows, plan(rows)) for rows in all_rows.tensor_split(trainer.minibatches)]

    def logps(self, model: Backbone, micro_batch: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows [r] of a pass, and their tokens' log-probabilities and entropies [r, longest] in nats."""
        completions, longest = self.completions, micro_batch.mask.shape[1]
        rows = to_device(micro_batch.rows, self.device)
        images, image_of = torch.unique(micro_batch.rows // self.trainer.num_samples, return_inverse=True)
        tokens = completions.rollout.tokens[rows, :longest]
        sees_image = micro_batch.mask & completions.under_picture[micro_batch.rows, :longest]
        score = partial(
            completion_likelihood,
            model,
            temperature=self.trainer.temperature,
            shared_prefix=self.policy.shares_prefix,
            entropy_gradient=self.trainer.entropy_coef > 0,
        )
        logps, entropy = score(completions.prompts.select(images), tokens, sees_image, image_of)
        if completions.blank is None:
            return rows, logps, entropy
        answer_logps, answer_entropy = score(
            completions.blank, tokens, micro_batch.mask & ~sees_image, torch.zeros_like(image_of)
        )
        return rows, logps + answer_logps, entropy + answer_entropy

    @torch.no_grad()
    def all_logps(self, model: Backbone) -> Tensor:
        """Return the log-probabilities [R, T] of all completions under `model`, 0 beyond their ends."""
        table = torch.zeros(self.completions.rollout.mask.shape, dtype=torch.float32, device=self.device)
        for micro_batch in self.all_micro_batches:
            rows, logps, _ = self.logps(model, micro_batch)
            table[rows, : logps.shape[1]] = logps
        return table

    def reference_logps(self) -> Tensor | None:
        """Return the log-probabilities [R, T] under the reference model, or None where none is needed. Collective."""
        if not self.trainer.needs_reference:
            return None
        with self.policy.reference_model() as reference:
            return self.all_logps(reference)

    def old_logps(self) -> Tensor | None:
        """Return the old log-probabilities [R, T] of the completions, from before the first update of the step.

        None where the step has a single update, which uses its own detached log-probabilities. The local sampler has
        already computed the old ones, up to rounding. They are computed again where that rounding would matter: for
        ratios of whole sequences, whose clip range is narrow (bfloat16 alone would clip a quarter of the tokens at
        3e-4), and for servers, whose numerics differ.
        """
        if self.trainer.inner_epochs * self.trainer.minibatches == 1:
            return None
        if self.policy.served is None and self.trainer.ratio == "token":
            return self.completions.rollout.logps
        return self.all_logps(self.policy.backbone)
