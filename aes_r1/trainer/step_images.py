"""Choose the images of a step, from seed and step alone, and encode them ahead of their use."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aes_r1.data.edits import EditedSample, edited_sample, picture_of
from aes_r1.data.pairs import Pair
from aes_r1.data.prefetch import prefetch
from aes_r1.data.sample import Sample
from aes_r1.data.splits import datasets_of
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.settings import InputError, TrainerSettings
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.order import batch_indices_without_repeats, least_first
from aes_r1.trainer.policy import Policy


@dataclass(frozen=True)
class StepImages:
    """Hold the images of one step, or the pairs of images.

    all_ranks: the N images of all processes in the order of the step, with edited twins at the end; local: the n of
    this process, every size-th of them; keys [n * K]: the key of each of this process's completions, from which its
    noise is drawn. An id is unique only within its data set, so the key includes the set where a run has several.
    """

    all_ranks: list[Sample | Pair]
    local: list[Sample | Pair]
    keys: list[tuple]

    @classmethod
    def of(
        cls,
        all_ranks: Sequence[Sample | Pair],
        step: int,
        *,
        trainer: TrainerSettings,
        engine: Engine,
        seed: int,
        mixed: bool,
    ) -> StepImages:
        """Distribute the images `all_ranks` of `step` over the processes; mixed: whether the run has several sets."""
        local = list(all_ranks[engine.rank :: engine.size])
        names = [(image.dataset, image.id) if mixed else (image.id,) for image in local]
        keys = [(seed, step, *name, k) for name in names for k in range(trainer.num_samples)]
        return cls(list(all_ranks), local, keys)

    def by_rank(self, size: int) -> list[list[Sample | Pair]]:
        """Return the images of each of `size` processes, in the order in which gathered tensors hold them."""
        return [self.all_ranks[rank::size] for rank in range(size)]


class UpcomingImages:
    """Hand out the images of `steps` and their encoded prompts, in order; a thread opens pictures two steps ahead."""

    def __init__(
        self,
        images: Sequence[Sample | Pair],
        steps: range,
        policy: Policy,
        trainer: TrainerSettings,
        engine: Engine,
        *,
        seed: int,
    ) -> None:
        self.images, self.trainer, self.engine, self.seed = images, trainer, engine, seed
        self.first_pass, self.mixed = first_pass(images, trainer, seed=seed), is_mixed(images)
        per_step = math.ceil(trainer.groups_per_step / engine.size)
        self._encoded = prefetch(
            (image for step in steps for image in self._of(step).local),
            lambda image: encode_image(image, policy),
            workers=1,
            ahead=2 * per_step,
        )

    def take(self, step: int) -> tuple[StepImages, list[EncodedPrompt]]:
        """Return the images of `step`, counted from 0, and the prompts of this process's."""
        images = self._of(step)
        return images, [next(self._encoded) for _ in images.local]

    def _of(self, step: int) -> StepImages:
        indices = batch_indices_without_repeats(
            step,
            per_step=self.trainer.images_per_step,
            count=len(self.images),
            seed=self.seed,
            first_pass=self.first_pass,
        )
        chosen = [self.images[index] for index in indices]
        twins = edited_twins(chosen, step, trainer=self.trainer, seed=self.seed, mixed=self.mixed)
        with_twins = [*chosen, *twins]
        return StepImages.of(
            with_twins, step, trainer=self.trainer, engine=self.engine, seed=self.seed, mixed=self.mixed
        )


def is_mixed(images: Sequence[Sample | Pair]) -> bool:
    """Return whether `images` come from several sets, so that an id may name one picture in each of them."""
    return len(np.unique(datasets_of(images))) > 1


def rapo_steps(count: int, trainer: TrainerSettings) -> int:
    """Return the steps of the whole run over `count` images."""
    return trainer.max_steps or math.ceil(count * trainer.epochs / trainer.images_per_step)


def require_a_step(count: int, trainer: TrainerSettings) -> None:
    """Raise InputError unless `count` training pictures are enough for a step of RAPO."""
    if trainer.name == "rapo" and trainer.images_per_step > count:
        raise InputError(
            f"trainer.images_per_step={trainer.images_per_step}: there are {count} training pictures; "
            "give at most that many, for a picture is not compared with itself"
        )


def first_pass(images: Sequence[Sample | Pair], trainer: TrainerSettings, *, seed: int) -> list[int] | None:
    """Return the order of the first pass with trainer.curriculum: images on whose quality raters agree come first.

    Images are ordered within their data set, so that every quarter of the pass has the same shares of the sets. Images
    whose spread of opinions is unknown come last in their set; a set without any known spread keeps the drawn order.
    Returns None without trainer.curriculum, because the order is then drawn.
    """
    if not trainer.curriculum:
        return None
    steps = min(len(images) // trainer.images_per_step, rapo_steps(len(images), trainer))
    spread = [_disagreement(image) for image in images]
    sets = ["" if isinstance(image, Pair) else image.dataset for image in images]
    return least_first(spread, pool=sets, shown=steps * trainer.images_per_step, seed=seed)


def _disagreement(image: Sample | Pair) -> float:
    """Return the standard deviation of the opinions of `image`; infinity where it is unknown, as for a pair."""
    return math.inf if isinstance(image, Pair) or image.mos_std is None else image.mos_std


def edited_twins(
    images: Sequence[Sample | Pair], step: int, *, trainer: TrainerSettings, seed: int, mixed: bool
) -> list[EditedSample]:
    """Return a twin of each of the first trainer.edited_pairs `images` of `step`, after a drawn edit.

    The images of a step are in random order, so any of them may have a twin. The edits are drawn from seed and step,
    and their strengths from seed and id. mixed: the run has several data sets, so a strength depends on the set as
    well.
    """
    drawn = np.random.default_rng([seed, step, 2]).integers(len(trainer.edits), size=trainer.edited_pairs)
    edits = [trainer.edits[index] for index in drawn]
    singles = [image for image in images if isinstance(image, Sample)]  # no twin of a pair is made
    return [
        edited_sample(image, edit, seed=_seed_of_set(seed, image.dataset) if mixed else seed)
        for image, edit in zip(singles[: len(edits)], edits, strict=True)
    ]


def _seed_of_set(seed: int, dataset: str) -> int:
    """Return a seed for the pictures of one set, in [0, 2^32)."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{dataset}".encode()).digest()[:4])


def encode_image(image: Sample | Pair, policy: Policy) -> EncodedPrompt:
    """Return the policy's prompt about `image`."""
    samples = [image.first, image.second] if isinstance(image, Pair) else [image]
    return policy.backbone.encode_pictures([picture_of(sample) for sample in samples], policy.question)
