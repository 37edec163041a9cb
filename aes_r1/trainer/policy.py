"""Define the policy: the model that RAPO trains, its reference model, and how both are prompted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from aes_r1.model.backbone import Backbone
from aes_r1.prompts import Order, order_of
from aes_r1.rollout.served import ServedPolicy
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.reference import Reference, reference_weights


@dataclass(frozen=True)
class Policy:
    """Hold the model that is trained, and everything about it that does not change from step to step.

    backbone: the model, trained in place; reference: the frozen initial model (None: no KL term, or the reference is
    the model with its adapter disabled); question: the text of the prompt; answer_from: "image", or "words" if the
    answer is written without seeing the image (model.answer_from); shared_prefix: whether prompt and image are computed
    once for their K completions in the update; served: vLLM servers that draw the completions instead of this process.
    """

    backbone: Backbone
    reference: Reference | None
    question: str
    answer_from: str = "image"
    shared_prefix: bool = True
    served: ServedPolicy | None = None

    @property
    def order(self) -> Order:
        """Return the order of the blocks in an answer to the question."""
        return order_of(self.question)

    @property
    def shares_prefix(self) -> bool:
        """Return whether prompts are computed once per image, which not every family of models supports."""
        return self.shared_prefix and self.backbone.shares_prefix

    @contextlib.contextmanager
    def reference_model(self) -> Iterator[Backbone]:
        """Yield the reference model for the block. Collective."""
        with reference_weights(self.backbone, self.reference) as reference:
            yield reference

    @contextlib.contextmanager
    def whole_reference_model(self, engine: Engine) -> Iterator[Backbone]:
        """Yield the reference model for the block, with whole weights on the device so that it can decode. Collective.

        If the reference has weights of its own, the policy stays sharded, so the device never holds both models whole.
        """
        gathered = engine.gathered_parameters() if self.reference is None else contextlib.nullcontext()
        with gathered, self.reference_model() as reference:
            yield reference
