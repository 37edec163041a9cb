"""Reward the completions of a step over the images of all processes, so that N is global."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from aes_r1.aescot.failures import ServerGone
from aes_r1.aescot.reward_judge import RewardJudge
from aes_r1.data.edits import EditedSample
from aes_r1.data.opinions import levels_of, rater_shares
from aes_r1.data.pairs import Pair
from aes_r1.data.sample import Sample
from aes_r1.data.splits import datasets_of
from aes_r1.reward.custom import CustomReward, custom_reward, load_reward
from aes_r1.reward.judge import judge_reward
from aes_r1.reward.length import overlong_penalty
from aes_r1.reward.total import sub_score_rewards, total_reward, weights_at
from aes_r1.reward.twin import Twins
from aes_r1.rollout.sampler import Rollout, keyed_uniform_noise
from aes_r1.settings import HARMED, InputError, RewardSettings, TrainerSettings
from aes_r1.trainer.completions import Completions, score_table
from aes_r1.trainer.context import PhaseTimer
from aes_r1.trainer.critique_rewards import ratings_table
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.objective import sequence_kl_k1, zero_spread

_OF_TWINS = ("total", "format", "overlong", "kl")  # rewards of twins besides "twin"; all others need an opinion


@dataclass(frozen=True)
class StepRewards:
    """Hold the rewards of a step's N images x K completions, edited twins included, in the order of ranks.

    scores [N, K]: NaN where parsing failed; mos [N]: mean opinion scores, NaN for twins; pool [N]: numbers of the
    images' data sets. For pairs, scores are the choices and mos the numbers of the better pictures. total [N, K]: the
    reward; parts: {name: [N, K]}, unweighted; the part judge_unread is 1 where the judge gave no readable reply;
    weights: {name: weight} in the total; zero_spread [N] bool: images whose completions all earn the same reward, found
    before a KL divergence is subtracted, because that differs between any two completions; local: the images of this
    process among the N; twins: the result of twins_of.
    """

    scores: Tensor
    mos: Tensor
    pool: Tensor
    total: Tensor
    parts: dict[str, Tensor]
    weights: dict[str, float]
    zero_spread: Tensor
    local: slice
    twins: Twins | None = None

    @property
    def by_name(self) -> dict[str, Tensor]:
        """Return the total and its parts, [N, K] each."""
        return {"total": self.total, **self.parts}

    @property
    def of_this_process(self) -> dict[str, Tensor]:
        """Return the total and its parts for the images of this process, [n, K] each."""
        return {name: table[self.local] for name, table in self.by_name.items()}

    def means(self) -> dict[str, float]:
        """Return the mean of the total and of each part, each over the images that can earn it."""
        if self.twins is None:
            return {name: float(table.mean()) for name, table in self.by_name.items()}
        pair, edited, _ = self.twins
        images = dict.fromkeys(_OF_TWINS, torch.ones_like(edited)) | {"twin": torch.isin(pair, pair[edited])}
        return {name: float(table[images.get(name, ~edited)].mean()) for name, table in self.by_name.items()}


def reward_function(
    images: Sequence[Sample] | Sequence[Pair],
    *,
    trainer: TrainerSettings,
    reward: RewardSettings,
    engine: Engine,
    judge: RewardJudge | None,
) -> Callable[..., StepRewards]:
    """Return `reward_completions` with all arguments of the run on `images`, except completions, progress and timer."""
    return partial(
        reward_completions,
        trainer=trainer,
        reward=reward,
        pools={name: number for number, name in enumerate(sorted(set(datasets_of(images))))},
        engine=engine,
        custom_fn=None if reward.custom is None else load_reward(reward.custom),
        judge=judge,
    )


def reward_completions(
    completions: Completions,
    *,
    trainer: TrainerSettings,
    reward: RewardSettings,
    pools: Mapping[str, int],
    progress: float,
    engine: Engine,
    timer: PhaseTimer,
    custom_fn: CustomReward | None = None,
    judge: RewardJudge | None = None,
) -> StepRewards:
    """Return the rewards of a step's scores, lengths and texts. Collective.

    pools: {data set: its number}; progress: share of training that is done, for reward.schedule; custom_fn: the
    function of reward.custom; judge: the judge of reward.judge, on rank 0.
    """
    images, device = completions.images, engine.device
    count = len(images.local)
    targets = [_target_of(image) for image in images.local]
    mos = engine.all_gather(torch.tensor(targets, device=device, dtype=torch.float32))
    pool = engine.all_gather(torch.tensor([pools[image.dataset] for image in images.local], device=device))
    scores = engine.all_gather(score_table(completions.scores, trainer.num_samples, device))
    guesses = None
    if reward.failed_parse == "random":
        guesses = engine.all_gather(
            keyed_uniform_noise([("guess", *key) for key in images.keys], 1).to(scores).view(count, -1)
        )
    # Pairs are left out: no reward that needs the images is used together with reward.pair.
    all_images = [image for image in chain(*images.by_rank(engine.size)) if isinstance(image, Sample)]
    raters = rater_table(all_images, device) if reward.distribution.weight > 0 else None
    sub_scores = _sub_scores(completions, trainer.num_samples, engine)
    twins = twins_of(all_images, device)
    if twins is not None and reward.twin.of == "sub_score":
        twins = by_edited_dimension(twins, all_images, sub_scores)
    rated = [index for index, image in enumerate(all_images) if not isinstance(image, EditedSample)]
    rated_images = [all_images[index] for index in rated]
    custom = None
    if custom_fn is not None:
        custom = _of_rank_zero(
            lambda texts: custom_reward(custom_fn, str(reward.custom), scores[rated], texts, rated_images),
            rated,
            completions,
            engine,
        ).to(scores)
    total, parts = total_reward(
        scores, mos, reward, pool=pool, progress=progress, guesses=guesses, raters=raters, custom=custom, twins=twins
    )
    of_dimensions = _by_dimension(sub_scores, all_images, reward, pool, progress)
    parts |= of_dimensions
    further_weights = dict.fromkeys(of_dimensions, reward.sub_scores.weight)
    if trainer.overlong_penalty:
        lengths = engine.all_gather(completions.rollout.mask.sum(dim=1).view(count, -1))
        parts["overlong"] = overlong_penalty(lengths, limit=trainer.max_new_tokens, begin=trainer.overlong_from)
        further_weights["overlong"] = trainer.overlong_penalty
    if reward.judge.weight > 0:
        with timer("judge"):
            ratings = _of_rank_zero(lambda texts: _ratings(judge, rated_images, texts), rated, completions, engine)
        ratings, parsed = ratings.to(scores), ~scores.isnan()
        parts |= {"judge": judge_reward(ratings, parsed), "judge_unread": (parsed & ratings.isnan()).to(scores)}
        if trainer.credit != "parts":  # with parts it is paid to the critique's own tokens (step_credit.py)
            further_weights["judge"] = reward.judge.weight
    for name, weight in further_weights.items():
        total = total + weight * parts[name]
    weights = weights_at(reward, progress) | further_weights
    # The advantage of each reward by itself is 0 only where that reward has no spread.
    weighted = [rewards for name, rewards in parts.items() if weights.get(name)]
    in_advantage = weighted if trainer.advantage == "per_reward" else [total]
    without_spread = torch.stack([zero_spread(rewards) for rewards in in_advantage]).all(dim=0)
    local = slice(engine.rank * count, (engine.rank + 1) * count)
    return StepRewards(scores, mos, pool, total, parts, weights, without_spread, local, twins)


def subtract_kl(
    rewards: StepRewards, rollout: Rollout, reference_logps: Tensor | None, *, coef: float, engine: Engine
) -> StepRewards:
    """Subtract `coef` times each completion's divergence from the reference from its reward. Collective.

    reference_logps [R, T]: of this process's completions. The policy's own log-probabilities are the sampler's.
    """
    if coef == 0:
        return rewards
    assert reference_logps is not None
    divergence = sequence_kl_k1(rollout.logps, reference_logps, rollout.mask).view(-1, rewards.total.shape[1])
    gathered = engine.all_gather(divergence)
    return replace(
        rewards,
        total=rewards.total - coef * gathered,
        parts=rewards.parts | {"kl": gathered},
        weights=rewards.weights | {"kl": -coef},
    )


def _target_of(image: Sample | Pair) -> float:
    """Return the number of a pair's better picture, or an image's MOS: NaN for an edited twin, which has none."""
    if isinstance(image, Pair):
        return image.better
    if isinstance(image, EditedSample):
        return math.nan
    assert image.mos is not None  # loader.require_opinions
    return image.mos


def twins_of(images: Sequence[Sample], device: torch.device) -> Twins | None:
    """Return which of a step's images are twins of which others, to compare their scores; None without twins."""
    edited = [isinstance(image, EditedSample) for image in images]
    if not any(edited):
        return None
    index_of = {(image.dataset, image.id): index for index, image in enumerate(images)}
    names = [(image.dataset, image.original if isinstance(image, EditedSample) else image.id) for image in images]
    pair = torch.tensor([index_of[name] for name in names], device=device)
    return Twins(pair, torch.tensor(edited, device=device))


def by_edited_dimension(twins: Twins, images: Sequence[Sample], sub_scores: Mapping[str, Tensor]) -> Twins:
    """Return `twins` so that each is compared by the sub-score of the dimension that its edit harms.

    images: all N images of the step; sub_scores: {dimension: [N, K]}, NaN where an answer has none.
    """
    pairs = twins.pair.tolist()
    harmed = {
        pair: HARMED[image.edit] for pair, image in zip(pairs, images, strict=True) if isinstance(image, EditedSample)
    }
    nothing = torch.full_like(next(iter(sub_scores.values()))[0], torch.nan)
    rows = [sub_scores[harmed[pair]][row] if pair in harmed else nothing for row, pair in enumerate(pairs)]
    return twins._replace(scores=torch.stack(rows))


def rater_table(images: Sequence[Sample], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return levels and shares [N, V] of each image's raters, padded with shares of 0; all are 0 where unknown."""
    opinions = [rater_shares(image.attributes.get("votes"), image.mos, image.mos_std) or [0.0, 0.0] for image in images]
    width = max(map(len, opinions))
    levels, shares = torch.zeros(2, len(opinions), width, dtype=torch.float64)
    for row, votes in enumerate(opinions):
        levels[row, : len(votes)] = torch.tensor(levels_of(votes), dtype=torch.float64)
        shares[row, : len(votes)] = torch.tensor(votes, dtype=torch.float64)
    return levels.to(device), shares.to(device)


def _sub_scores(completions: Completions, samples: int, engine: Engine) -> dict[str, Tensor]:
    """Return {dimension: [N, K]} of the sub-scores that were asked for, in the order of ranks. Collective."""
    names = tuple(completions.sub_scores[0])
    if not names:
        return {}
    tables = [score_table([row[name] for row in completions.sub_scores], samples, engine.device) for name in names]
    return dict(zip(names, engine.all_gather(torch.stack(tables, dim=2)).unbind(2), strict=True))


def _by_dimension(
    sub_scores: Mapping[str, Tensor], images: Sequence[Sample], reward: RewardSettings, pool: Tensor, progress: float
) -> dict[str, Tensor]:
    """Return {"sub_DIMENSION": [N, K]}, the rewards of `sub_scores`; images: all N, in the order of ranks."""
    if not sub_scores:
        return {}
    ratings = ratings_table(images, tuple(sub_scores)).to(pool.device)
    earned = sub_score_rewards(
        torch.stack([*sub_scores.values()], dim=2), ratings, reward, pool=pool, progress=progress
    )
    return {f"sub_{name}": part for name, part in zip(sub_scores, earned.unbind(2), strict=True)}


def _ratings(judge: RewardJudge | None, images: Sequence[Sample], texts: Sequence[Sequence[str]]) -> Tensor:
    assert judge is not None  # rank 0 has one
    return torch.tensor(judge.rate(images, texts))


def _of_rank_zero(
    rate: Callable[[list[list[str]]], Tensor], rated: Sequence[int], completions: Completions, engine: Engine
) -> Tensor:
    """Return the rewards [N, K] that `rate`, called on rank 0, gives the images `rated`; 0 elsewhere. Collective.

    If it raises InputError or ServerGone, every process does, so that none waits for the others.
    """
    texts = engine.all_gather_objects(list(completions.texts))
    samples = len(completions.texts) // len(completions.images.local)
    groups = [texts[start : start + samples] for start in range(0, len(texts), samples)]
    own_result: list[Tensor | InputError | ServerGone] = []  # empty on all processes but rank 0
    if engine.rank == 0:
        try:
            own_result = [rate([groups[index] for index in rated])]
        except (InputError, ServerGone) as error:
            own_result = [error]
    (result,) = engine.all_gather_objects(own_result)
    if isinstance(result, InputError | ServerGone):
        raise result
    rewards = result.new_zeros(len(groups), samples)
    rewards[rated] = result
    return rewards
