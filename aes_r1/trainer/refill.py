"""Replace images whose completions all earn the same reward: dynamic sampling (DAPO).

Such a group has no advantage and teaches nothing. The replacements of a step are a function of seed, step and round,
and each takes the place of one image in the order of the step. So a resumed run trains on the same images, and so does
a run with another number of processes if its completions are the same. The images of later steps do not change.
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
    """Draw replacements in a run's steps, up to trainer.dynamic_sampling times per step; false: none."""

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
        """Return `completions` with those of images without spread replaced, and the rewards of all. Collective.

        Each round draws a replacement for every image of the step whose rewards have no spread, while there are images
        that the step has not used. All completions are rewarded again, because the rank reward depends on the other
        images. A rollout is collective, so every process draws as many images as the process with the most images to
        replace; surplus images are dropped. reward_fn(completions) returns the rewards.
        """
        count, processes = len(completions.images.local), self.engine.size
        used = set(self._first_indices(step))
        for round_number in range(self.trainer.dynamic_sampling):
            is_zero_spread = rewards.zero_spread.view(processes, count).T.flatten()  # in the order of the step
            positions = is_zero_spread.nonzero().flatten().tolist()
            unused = len(self.images) - len(used)
            wanted = min(len(positions), unused)
            if wanted == 0:
                break
            replacements = further_indices(
                step, round_number, wanted=wanted, used=used, count=len(self.images), seed=self.seed
            )
            used |= set(replacements)
            chosen, drawn = stand_ins(replacements, positions, count=count, processes=processes)
            completions = self._choose(step, [completions, self._draw(step, drawn, timer)], chosen)
            rewards = reward_fn(completions)
        return completions, rewards

    def metrics(self, step: int, images: StepImages) -> dict[str, float]:
        """Return {"rollout/refilled": share of `images` that replace others in `step`}; {} without dynamic_sampling."""
        if not self.trainer.dynamic_sampling:
            return {}
        original = {_identity(self.images[index]) for index in self._first_indices(step)}
        replaced = sum(_identity(image) not in original for image in images.all_ranks)
        return {"rollout/refilled": replaced / len(images.all_ranks)}

    def _first_indices(self, step: int) -> list[int]:
        return batch_indices_without_repeats(
            step,
            per_step=self.trainer.images_per_step,
            count=len(self.images),
            seed=self.seed,
            first_pass=self.first_pass,
        )

    def _step_images(self, step: int, all_ranks: Sequence[Sample | Pair]) -> StepImages:
        return StepImages.of(
            all_ranks, step, trainer=self.trainer, engine=self.engine, seed=self.seed, mixed=self.mixed
        )

    def _draw(self, step: int, indices: Sequence[int], timer: PhaseTimer) -> Completions:
        images = self._step_images(step, [self.images[index] for index in indices])
        with timer("wait"):
            encoded = [encode_image(image, self.policy) for image in images.local]
        pending = self.rollouts.begin(images, encoded, timer, pushed=True)
        with timer("rollout"):
            return pending.finish()

    def _choose(self, step: int, parts: Sequence[Completions], chosen: Sequence[Sequence[int]]) -> Completions:
        """Return the completions of the images `chosen` [size][n], indices into the joined `parts`. Collective."""
        of_parts = [part.images.by_rank(self.engine.size) for part in parts]
        of_ranks = [[image for part in of_parts for image in part[rank]] for rank in range(self.engine.size)]
        chosen_images = [[images[index] for index in indices] for images, indices in zip(of_ranks, chosen, strict=True)]
        images = self._step_images(step, [image for row in zip(*chosen_images, strict=True) for image in row])
        return self.rollouts.choose(parts, images, chosen[self.engine.rank])


def stand_ins(
    replacements: Sequence[int], positions: Sequence[int], *, count: int, processes: int
) -> tuple[list[list[int]], list[int]]:
    """Return the images that each of `processes` keeps, and the images to draw, in the order of a step.

    replacements: the images that take the places of those at the first of `positions`, in a step with `count` images
    per process. Every process gets equally many images to draw. The indices that it keeps count its own images from 0,
    then the images that it drew.
    """
    chosen = [list(range(count)) for _ in range(processes)]
    to_draw: list[list[int]] = [[] for _ in range(processes)]
    for position, image in zip(positions, replacements, strict=False):
        local, rank = divmod(position, processes)
        chosen[rank][local] = count + len(to_draw[rank])
        to_draw[rank].append(image)
    longest = max(map(len, to_draw))
    padded = [[*images, *[replacements[0]] * (longest - len(images))] for images in to_draw]
    return chosen, [image for row in zip(*padded, strict=True) for image in row]


def _identity(image: Sample | Pair) -> tuple[str, str]:
    """Return the name of an image in a mix of sets.

    Objects cannot be compared, because a list may build a sample anew each time it is read.
    """
    return image.dataset, image.id
