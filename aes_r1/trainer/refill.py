"""Draw further images in place of those whose completions all earn the same: dynamic sampling (DAPO).

Such a group has no advantage and teaches nothing. The further images of a step are a function of seed, step and number
of the drawing, so a resumed run draws the same, and the order of the images of later steps does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from aes_r1.data.sample import Sample, open_picture
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.settings import TrainerSettings
from aes_r1.trainer.completions import Completions, Rollouts
from aes_r1.trainer.context import PhaseTimer
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.order import batch_indices_without_repeats, further_indices
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.step_images import StepImages
from aes_r1.trainer.step_rewards import StepRewards


class Drawn(NamedTuple):
    """Hold the images of a step, and the prompts [n] and completions [n * K] of this one's."""

    images: StepImages
    prompts: Sequence[EncodedPrompt]
    completions: Completions


class Refill:
    """Draws further images of a run's steps, up to trainer.refill_rounds times a step; 0: none."""

    def __init__(
        self,
        images: Sequence[Sample],
        policy: Policy,
        rollouts: Rollouts,
        trainer: TrainerSettings,
        engine: Engine,
        *,
        seed: int,
    ) -> None:
        self.images, self.policy, self.rollouts, self.trainer, self.engine = images, policy, rollouts, trainer, engine
        self.seed = seed

    def __call__(
        self,
        step: int,
        drawn: Drawn,
        rewards: StepRewards,
        reward_fn: Callable[[Completions, StepImages], StepRewards],
        timer: PhaseTimer,
    ) -> tuple[Drawn, StepRewards]:
        """Return what is kept of `drawn` and of the further drawings, with its rewards. Collective.

        Each round draws, for every process, as many images as the process with the most groups without spread has of
        them, so that all processes draw equally many. All are rewarded together, and each process keeps as many images
        as it had, first those with spread. They are rewarded again, because the rank reward depends on the other
        images. reward_fn(completions, images): the rewards.
        """
        count, processes = len(drawn.images.local), self.engine.size
        used = set(self._first_indices(step))
        for drawing in range(self.trainer.refill_rounds):
            lacking = int(rewards.zero_spread.view(processes, count).sum(dim=1).max())
            wanted = min(lacking, (len(self.images) - len(used)) // processes) * processes
            if wanted == 0:
                break
            further = further_indices(step, drawing, wanted=wanted, used=used, count=len(self.images), seed=self.seed)
            used |= set(further)
            parts = [drawn, self._draw(step, further, timer)]
            several = count + wanted // processes
            together = self._choose(step, parts, [list(range(several))] * processes)
            without = reward_fn(together.completions, together.images).zero_spread.view(processes, several)
            best_first = [sorted(range(several), key=row.__getitem__) for row in without.tolist()]
            drawn = self._choose(step, parts, [sorted(order[:count]) for order in best_first])
            rewards = reward_fn(drawn.completions, drawn.images)
        return drawn, rewards

    def share(self, step: int, images: StepImages) -> float:
        """Return the share of `images` that stand in for others in `step`."""
        first = {_identity(self.images[index]) for index in self._first_indices(step)}
        return sum(_identity(image) not in first for image in images.all_ranks) / len(images.all_ranks)

    def _first_indices(self, step: int) -> list[int]:
        return batch_indices_without_repeats(
            step, per_step=self.trainer.images_per_step, count=len(self.images), seed=self.seed
        )

    def _shared_out(self, step: int, all_ranks: Sequence[Sample]) -> StepImages:
        return StepImages.of(all_ranks, step, trainer=self.trainer, engine=self.engine, seed=self.seed)

    def _draw(self, step: int, indices: Sequence[int], timer: PhaseTimer) -> Drawn:
        images = self._shared_out(step, [self.images[index] for index in indices])
        with timer("wait"):
            prompts = [
                self.policy.backbone.encode(open_picture(image.image), self.policy.question) for image in images.local
            ]
        drawing = self.rollouts.begin(prompts, images.keys, timer)
        with timer("rollout"):
            return Drawn(images, prompts, drawing.finish())

    def _choose(self, step: int, parts: Sequence[Drawn], chosen: Sequence[Sequence[int]]) -> Drawn:
        """Return the `chosen` images of every process, numbered through all `parts`. Collective."""
        of_parts = [part.images.by_rank(self.engine.size) for part in parts]
        of_ranks = [[image for part in of_parts for image in part[rank]] for rank in range(self.engine.size)]
        kept = [[images[index] for index in indices] for images, indices in zip(of_ranks, chosen, strict=True)]
        images = self._shared_out(step, [image for row in zip(*kept, strict=True) for image in row])
        prompts, local = [prompt for part in parts for prompt in part.prompts], chosen[self.engine.rank]
        completions = self.rollouts.choose([part.completions for part in parts], prompts, local)
        return Drawn(images, [prompts[index] for index in local], completions)


def _identity(image: Sample) -> tuple[str, str]:
    """Return what names an image in a mix of sets. A list of images may make a new object each time it is read."""
    return image.dataset, image.id
