"""Draw further images in place of those whose completions all earn the same: dynamic sampling (DAPO).

Such a group has no advantage and teaches nothing. The further images of a step are a function of seed, step and number
of the drawing, so a resumed run draws the same, and the order of the images of later steps does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aes_r1.data.pairs import Pair
from aes_r1.data.sample import Sample
from aes_r1.settings import TrainerSettings
from aes_r1.trainer.completions import Completions, Rollouts
from aes_r1.trainer.context import PhaseTimer
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.order import batch_indices_without_repeats, further_indices
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.step_images import StepImages, encode_image, first_pass, is_mixed
from aes_r1.trainer.step_rewards import StepRewards


class Refill:
    """Draws further images of a run's steps, up to trainer.refill_rounds times a step; 0: none."""

    def __init__(
        self,
        images: Sequence[Sample | Pair],
        policy: Policy,
        rollouts: Rollouts,
        trainer: TrainerSettings,
        engine: Engine,
        *,
        seed: int,
    ) -> None:
        self.images, self.policy, self.rollouts, self.trainer, self.engine = images, policy, rollouts, trainer, engine
        self.seed, self.first_pass, self.mixed = seed, first_pass(images, trainer, seed=seed), is_mixed(images)

    def __call__(
        self,
        step: int,
        completions: Completions,
        rewards: StepRewards,
        reward_fn: Callable[[Completions], StepRewards],
        timer: PhaseTimer,
    ) -> tuple[Completions, StepRewards]:
        """Return what is kept of `completions` and of the further ones, with its rewards. Collective.

        Each round draws, for every process, as many images as the process with the most groups without spread has of
        them, so that all processes draw equally many. All are rewarded together, and each process keeps as many images
        as it had, first those with spread. They are rewarded again, because the rank reward depends on the other
        images. reward_fn(completions): the rewards.
        """
        count, processes = len(completions.images.local), self.engine.size
        used = set(self._first_indices(step))
        for drawing in range(self.trainer.refill_rounds):
            lacking = int(rewards.zero_spread.view(processes, count).sum(dim=1).max())
            wanted = min(lacking, (len(self.images) - len(used)) // processes) * processes
            if wanted == 0:
                break
            further = further_indices(step, drawing, wanted=wanted, used=used, count=len(self.images), seed=self.seed)
            used |= set(further)
            parts = [completions, self._draw(step, further, timer)]
            several = count + wanted // processes
            together = self._choose(step, parts, [list(range(several))] * processes)
            without = reward_fn(together).zero_spread.view(processes, several)
            best_first = [sorted(range(several), key=row.__getitem__) for row in without.tolist()]
            completions = self._choose(step, parts, [sorted(order[:count]) for order in best_first])
            rewards = reward_fn(completions)
        return completions, rewards

    def metrics(self, step: int, images: StepImages) -> dict[str, float]:
        """Return {"rollout/refilled": share of `images` that stand in for others in `step`}; empty without drawings."""
        if not self.trainer.refill_rounds:
            return {}
        first = {_identity(self.images[index]) for index in self._first_indices(step)}
        stand_ins = sum(_identity(image) not in first for image in images.all_ranks)
        return {"rollout/refilled": stand_ins / len(images.all_ranks)}

    def _first_indices(self, step: int) -> list[int]:
        return batch_indices_without_repeats(
            step,
            per_step=self.trainer.images_per_step,
            count=len(self.images),
            seed=self.seed,
            first_pass=self.first_pass,
        )

    def _shared_out(self, step: int, all_ranks: Sequence[Sample | Pair]) -> StepImages:
        return StepImages.of(
            all_ranks, step, trainer=self.trainer, engine=self.engine, seed=self.seed, mixed=self.mixed
        )

    def _draw(self, step: int, indices: Sequence[int], timer: PhaseTimer) -> Completions:
        images = self._shared_out(step, [self.images[index] for index in indices])
        with timer("wait"):
            encoded = [encode_image(image, self.policy) for image in images.local]
        pending = self.rollouts.begin(images, encoded, timer, pushed=True)
        with timer("rollout"):
            return pending.finish()

    def _choose(self, step: int, parts: Sequence[Completions], chosen: Sequence[Sequence[int]]) -> Completions:
        """Return the `chosen` images of every process, numbered through all `parts`. Collective."""
        of_parts = [part.images.by_rank(self.engine.size) for part in parts]
        of_ranks = [[image for part in of_parts for image in part[rank]] for rank in range(self.engine.size)]
        kept = [[images[index] for index in indices] for images, indices in zip(of_ranks, chosen, strict=True)]
        images = self._shared_out(step, [image for row in zip(*kept, strict=True) for image in row])
        return self.rollouts.choose(parts, images, chosen[self.engine.rank])


def _identity(image: Sample | Pair) -> tuple[str, str]:
    """Return what names an image in a mix of sets. A list of images may make a new object each time it is read."""
    return image.dataset, image.id
