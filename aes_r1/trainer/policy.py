"""Define the policy: the model that RAPO trains, its frozen start, and how both are asked."""

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
    """Hold the model that is trained and all that stays the same over the steps.

    backbone: the model, trained in place; reference: its frozen start (None: no KL, or the adapter is disabled to get
    it); question: the prompt beside each image; answer_from: "image", or "words" if the answer is written without
    seeing the image (model.answer_from); shared_prefix: whether prompt and image are computed once for their K
    completions in the update; served: vLLM servers that draw the completions instead of this process.
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
        """Return whether prompts are really computed once, which not every family of models supports."""
        return self.shared_prefix and self.backbone.shares_prefix

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Backbone]:
        """Yield the frozen start for the block. Collective."""
        with reference_weights(self.backbone, self.reference) as start:
            yield start

    @contextlib.contextmanager
    def whole_frozen(self, engine: Engine) -> Iterator[Backbone]:
        """Yield the frozen start, whole on the device so that it can decode, for the block. Collective.

        Beside a reference of its own the policy stays divided, so the device never holds both whole.
        """
        gathered = engine.gathered_parameters() if self.reference is None else contextlib.nullcontext()
        with gathered, self.frozen() as start:
            yield start
