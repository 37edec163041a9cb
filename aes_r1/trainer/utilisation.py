"""Compute the model FLOPs utilisation of a run's update, the metric perf/mfu."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aes_r1.model import cost, families
from aes_r1.model.backbone import Backbone
from aes_r1.model.cards import Card, card_of
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.trainer.engine import Engine


class Utilisation:
    """Divide the operations of an update by those that the cards could do at their peak in the same time.

    Operations are counted from the model's shape and the real lengths (aes_r1.model.cost), without padding and without
    those that gradient checkpointing repeats. There is no value where the peak is not known: on a CPU, on a card that
    is not in model/cards.py, and for weights that are not 16-bit.
    """

    def __init__(self, backbone: Backbone, engine: Engine, *, shared_prefix: bool, card: Card | None = None) -> None:
        self.engine, self.shared_prefix = engine, shared_prefix
        self.card = card or _card_of(backbone, engine.device)
        if self.card is None:
            return
        self.shape = cost.shape_of(backbone.core.config)
        self.adapter = hasattr(backbone.model, "disable_adapter")
        self.vision = any(p.requires_grad and families.is_vision(name) for name, p in backbone.core.named_parameters())

    def metrics(self, prompts: PromptBatch, lengths: Sequence[int], passes: int, seconds: float) -> dict[str, float]:
        """Return {"perf/mfu": ..} of `passes` passes over the step in `seconds`; empty without a peak. Collective.

        prompts: of this process's n images; lengths [n * K]: tokens of their completions, image by image.
        """
        peak, operations = 0.0, 0.0
        if self.card is not None:
            peak, operations = self.card.tflops, passes * self._operations(prompts, lengths)
        # A process whose card's peak is unknown takes part too, because the others would wait for it.
        local = torch.tensor([operations / 1e12, peak, float(self.card is None)], device=self.engine.device)
        total_operations, total_peak, unknown = self.engine.all_reduce_sum(local).tolist()
        return {} if unknown else {"perf/mfu": total_operations / (total_peak * seconds)}

    def _operations(self, prompts: PromptBatch, lengths: Sequence[int]) -> float:
        """Return the floating-point operations of one pass."""
        samples = len(lengths) // len(prompts)
        return cost.update_flops(
            self.shape,
            prompts.prompt_tokens,
            prompts.tokens_of_pictures(),
            [lengths[image * samples : (image + 1) * samples] for image in range(len(prompts))],
            shared_prefix=self.shared_prefix,
            adapter=self.adapter,
            vision=self.vision,
        )


def _card_of(backbone: Backbone, device: torch.device) -> Card | None:
    half = next(backbone.model.parameters()).dtype in (torch.bfloat16, torch.float16)
    return card_of(torch.cuda.get_device_name(device)) if device.type == "cuda" and half else None
