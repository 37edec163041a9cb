"""Choose the images of a step, from seed and step alone, and encode them ahead of their use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aes_r1.data.prefetch import prefetch
from aes_r1.data.sample import Sample, open_picture
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.settings import TrainerSettings
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.order import batch_indices_without_repeats
from aes_r1.trainer.policy import Policy


@dataclass(frozen=True)
class StepImages:
    """Hold the images of one step.

    all_ranks: the N images of all processes in the order of the step; local: the n of this process, every size-th of
    them; keys [n * K]: what identifies each of this process's completions, and with it the completion's noise.
    """

    all_ranks: list[Sample]
    local: list[Sample]
    keys: list[tuple]

    @classmethod
    def of(
        cls, all_ranks: Sequence[Sample], step: int, *, trainer: TrainerSettings, engine: Engine, seed: int
    ) -> StepImages:
        """Share the images `all_ranks` of `step` out to the processes."""
        local = list(all_ranks[engine.rank :: engine.size])
        keys = [(seed, step, image.id, k) for image in local for k in range(trainer.num_samples)]
        return cls(list(all_ranks), local, keys)

    def by_rank(self, size: int) -> list[list[Sample]]:
        """Return the images of each of `size` processes: the order in which gathered tensors hold them."""
        return [self.all_ranks[rank::size] for rank in range(size)]


def step_images(
    images: Sequence[Sample], step: int, *, trainer: TrainerSettings, engine: Engine, seed: int
) -> StepImages:
    """Return the images of `step`, counted from 0."""
    chosen = batch_indices_without_repeats(step, per_step=trainer.images_per_step, count=len(images), seed=seed)
    return StepImages.of([images[index] for index in chosen], step, trainer=trainer, engine=engine, seed=seed)


def encoded_ahead(images: Iterator[Sample], policy: Policy, *, per_step: int) -> Iterator[EncodedPrompt]:
    """Yield the encoded prompts of `images`; a thread opens pictures up to two steps ahead."""
    return prefetch(
        images,
        lambda image: policy.backbone.encode(open_picture(image.image), policy.question),
        workers=1,
        ahead=2 * per_step,
    )
