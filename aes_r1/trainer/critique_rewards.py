"""Compute the rewards of a step's critiques: prepare the tensors that the formulas in reward/critique.py need.

Every process evaluates its own critiques; values that are compared over pictures are gathered first, so that any number
of processes gives the same rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from aes_r1.aescot.wording import stated_values
from aes_r1.data.ratings import known_ratings
from aes_r1.data.sample import Sample, open_listed
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import likelihood_of_pairs
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.prompts import DIMENSIONS, parse_critique, parse_score, sub_scores_of
from aes_r1.reward.critique import faithfulness_reward, information_reward
from aes_r1.reward.error import error_reward
from aes_r1.rollout.forced_prefix import read_back
from aes_r1.settings import RewardSettings
from aes_r1.trainer.completions import Completions
from aes_r1.trainer.engine import Engine

OTHERS = 2  # other pictures of the step under which a critique's likelihood is computed


@dataclass(frozen=True)
class StepCritiques:
    """Hold the completions that one process sampled for its n images of a step.

    texts, scores [n * K]: a completion whose score is None counts as having no critique. tokens [n * K, T]: the
    completions' tokens; in_critique [n * K, T] bool: which of them belong to the critique. images: all N images in the
    order of the step, every size-th of which belongs to this process; prompts [n]: the encoded prompts of this
    process's images.
    """

    texts: Sequence[str]
    scores: Sequence[float | None]
    tokens: Tensor
    in_critique: Tensor
    images: Sequence[Sample]
    prompts: Sequence[EncodedPrompt]

    @classmethod
    def of(cls, completions: Completions, in_critique: Tensor) -> StepCritiques:
        """Return the critiques of `completions`."""
        # Critiques of pairs have no rewards of their own, so no image is a pair.
        images = [image for image in completions.images.all_ranks if isinstance(image, Sample)]
        tokens = completions.rollout.tokens
        return cls(completions.texts, completions.scores, tokens, in_critique, images, completions.encoded)


def critique_rewards(
    step: StepCritiques,
    *,
    reward: RewardSettings,
    mos: Tensor,
    pool: Tensor,
    question: str,
    engine: Engine,
    reference_model: Callable[[], AbstractContextManager[Backbone]],
    micro_batch_size: int,
) -> dict[str, Tensor]:
    """Return {name: [N, K]} of each weighted critique reward except the judge's, over all processes. Collective.

    The N images are in the order of ranks, as in StepRewards, which holds the judge's reward. A completion without a
    critique earns 0. mos, pool [N]: in the same order. reference_model(): a context manager that yields the whole
    initial model, which reads critiques and computes their likelihood, `micro_batch_size` at once.
    """
    weights, own_images = reward.critique_weights, step.images[engine.rank :: engine.size]
    shape = (len(own_images), len(step.texts) // len(own_images))
    scored_texts = zip(step.texts, step.scores, strict=True)
    critiques = [None if score is None else parse_critique(text) for text, score in scored_texts]
    rewards: dict[str, Tensor] = {}
    if "faithfulness" in weights:
        stated = engine.all_gather(stated_table(critiques).to(mos.device).view(*shape, len(DIMENSIONS)))
        ratings = engine.all_gather(ratings_table(own_images).to(mos.device))
        rewards["faithfulness"] = faithfulness_reward(
            stated, ratings, form=reward.faithfulness.form, pool=pool if reward.rank.pool == "dataset" else None
        )
    if not reward.needs_reference:
        return rewards
    with reference_model() as reference, torch.no_grad():
        if "read_back" in weights:
            own_scores = read_scores(reference, critiques, question=question, batch_size=micro_batch_size)
            scores = engine.all_gather(own_scores.to(mos.device).view(shape))
            rewards["read_back"] = error_reward(scores, mos, sigma=reward.error.sigma, epsilon=reward.error.epsilon)
        if "information" in weights:
            positions = range(engine.rank, len(step.images), engine.size)
            pictures = dict(zip(positions, step.prompts, strict=True))
            logps = logps_under_pictures(
                reference,
                critiques,
                step.tokens,
                step.in_critique,
                step.images,
                pictures,
                question=question,
                batch_size=micro_batch_size,
            ).view(*shape, -1)
            gathered = engine.all_gather(logps)
            rewards["information"] = information_reward(
                gathered[:, :, 0], gathered[:, :, 1:], cap=reward.information.cap
            )
    return rewards


def stated_table(critiques: Sequence[str | None]) -> Tensor:
    """Return [R, D]: each critique's stated values of the five dimensions, 0..1 (wording.stated_values), else NaN."""
    stated = [stated_values(critique) if critique else {} for critique in critiques]
    return torch.tensor([[values.get(name, math.nan) for name in DIMENSIONS] for values in stated])


def ratings_table(images: Sequence[Sample], names: Sequence[str] = DIMENSIONS) -> Tensor:
    """Return [n, D]: the known ratings of the dimensions `names` of each picture, 0..1; NaN where none is known."""
    ratings = [known_ratings(image) for image in images]
    return torch.tensor([[values.get(name, math.nan) for name in names] for values in ratings])


def read_scores(reader: Backbone, critiques: Sequence[str | None], *, question: str, batch_size: int) -> Tensor:
    """Return [R]: the greedy score of `reader` after each critique with the picture blanked, NaN where unreadable."""
    names = sub_scores_of(question)
    texts = read_back(reader, critiques, question, batch_size=batch_size)
    scores = [None if text is None else parse_score(text, sub_scores=names) for text in texts]
    return torch.tensor([math.nan if score is None else score for score in scores])


def logps_under_pictures(
    scorer: Backbone,
    critiques: Sequence[str | None],
    tokens: Tensor,
    in_critique: Tensor,
    images: Sequence[Sample],
    pictures: dict[int, EncodedPrompt],
    *,
    question: str,
    batch_size: int,
) -> Tensor:
    """Return [R, 1 + M] log-probabilities, in nats, of critiques under their own picture and M others.

    They are NaN without a critique. The other pictures are the next M = OTHERS of the step, cyclically in `images`,
    whichever process they belong to. pictures: {index in `images`: prompt} of this process's n pictures, each with
    R / n critiques. in_critique [R, T] bool: the tokens of the critiques, with which the completions begin.
    """
    own_positions, shifts = list(pictures), range(1 + min(OTHERS, len(images) - 1))  # shift 0 is the own picture
    per_image = len(critiques) // len(own_positions)
    encoded = dict(pictures)
    for position in {(own + shift) % len(images) for own in own_positions for shift in shifts} - set(encoded):
        encoded[position] = scorer.encode(open_listed(images[position].image), question)
    words = [row[block].tolist() for row, block in zip(tokens.cpu(), in_critique.cpu(), strict=True)]
    table = torch.full((len(critiques), len(shifts)), math.nan, device=tokens.device)
    rows = [row for row, critique in enumerate(critiques) if critique]
    for shift in shifts if rows else ():
        pairs = [(row, (own_positions[row // per_image] + shift) % len(images)) for row in rows]
        batches = likelihood_of_pairs(scorer, words, encoded.__getitem__, pairs, batch_size=batch_size)
        table[rows, shift] = torch.cat([logps.sum(dim=1) for logps in batches])
    return table
