"""What a step's rewards need beside the scores."""

from __future__ import annotations

import pytest
import torch

from aes_r1.data.edits import edited_sample
from aes_r1.data.sample import Sample
from aes_r1.reward.twin import Twins
from aes_r1.rollout.sampler import Rollout
from aes_r1.settings import FaithfulnessSettings, RewardSettings, TrainerSettings
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.step_credit import assign_credit
from aes_r1.trainer.step_rewards import StepRewards, by_edited_dimension, rater_table, subtract_kl, twins_of
from tests.trainer.cold_starts import engine_of


@pytest.fixture
def engine(backbone) -> Engine:
    return engine_of(backbone, weight_decay=0.0)


def sample(**known) -> Sample:
    return Sample("a", "a.jpg", 0.5, "ava", "train", **known)


def test_the_table_of_raters_has_a_row_for_every_image_of_any_set():
    """Two levels, a normal on its own 21, nothing known: padded with shares of 0."""
    images = [sample(attributes={"votes": [1, 3]}), sample(mos_std=0.1), sample()]
    levels, shares = rater_table(images, torch.device("cpu"))
    assert levels.shape == shares.shape == (3, 21)
    assert shares[0, :2].tolist() == [0.25, 0.75]
    assert levels[0, :2].tolist() == [0.0, 1.0]
    torch.testing.assert_close(shares.sum(1), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close((levels * shares).sum(1)[:2], torch.tensor([0.75, 0.5], dtype=torch.float64))


def test_pairs_are_found_in_the_order_of_any_number_of_processes():
    """Two sets share an id; twins stand at the end of each process's images."""
    ava, para = sample(), Sample("a", "b.jpg", 0.5, "para", "train")
    twins = [edited_sample(one, "tilt", seed=0) for one in (ava, para)]
    pair, edited, _ = twins_of([ava, para, *twins], torch.device("cpu"))
    assert (pair.tolist(), edited.tolist()) == ([0, 1, 0, 1], [False, False, True, True])
    pair, edited, _ = twins_of([ava, twins[0], para, twins[1]], torch.device("cpu"))
    assert (pair.tolist(), edited.tolist()) == ([0, 0, 2, 2], [False, True, False, True])
    assert twins_of([ava, para], torch.device("cpu")) is None


def test_each_pair_is_compared_by_the_dimension_that_its_edit_harms():
    """Crop harms composition, desaturation color; a picture without a twin is compared by nothing."""
    one, two, alone = (Sample(name, f"{name}.jpg", 0.5, "ava", "train") for name in "abc")
    images = [one, alone, two, edited_sample(two, "crop", seed=0), edited_sample(one, "desaturate", seed=0)]
    twins = twins_of(images, torch.device("cpu"))
    color = torch.arange(10.0).view(5, 2)
    compared = by_edited_dimension(twins, images, {"color": color, "composition": color + 100})
    assert (compared.pair.tolist(), compared.edited.tolist()) == (twins.pair.tolist(), twins.edited.tolist())
    scores = compared.scores
    assert scores[[0, 4]].tolist() == [[0, 1], [8, 9]], "desaturated: color"
    assert scores[[2, 3]].tolist() == [[104, 105], [106, 107]], "cropped: composition"
    assert scores[1].isnan().all()


def test_a_logged_mean_is_over_the_images_that_the_reward_is_for():
    parts = {"error": [[0.2, 0.4], [0.6, 0.8], [0.0, 0.0]], "twin": [[0.0, 0.0], [0.5, 0.7], [0.9, 0.7]]}
    twins = Twins(torch.tensor([0, 1, 1]), torch.tensor([False, False, True]))
    means = rewards_of(parts, {"error": 1.0, "twin": 1.0}, twins=twins).means()
    assert means == pytest.approx({"total": 4.8 / 6, "error": 0.5, "twin": 0.7})
    assert rewards_of(parts, {"error": 1.0}).means()["error"] == pytest.approx(2.0 / 6)


def rewards_of(parts: dict[str, list[list[float]]], weights: dict[str, float], **changes) -> StepRewards:
    table = {name: torch.tensor(rows) for name, rows in parts.items()}
    total = sum(weights.get(name, 0.0) * rows for name, rows in table.items())
    without = torch.tensor([False, True])  # of the scores' rewards
    scores = torch.full_like(total, 0.5)
    known = {"scores": scores, "mos": scores[:, 0], "pool": scores[:, 0], "total": total, "parts": table}
    return StepRewards(**known, weights=weights, zero_spread=without, local=slice(0, 2), **changes)


ROLLOUT = Rollout(
    tokens=torch.zeros(4, 3, dtype=torch.long),
    logps=torch.tensor([[-1.0] * 3, [-2.0] * 3, [-3.0] * 3, [-4.0] * 3]),
    mask=torch.ones(4, 3, dtype=torch.bool),
    truncated=torch.zeros(4, dtype=torch.bool),
)


def in_loss(rewards: StepRewards, reward: RewardSettings, **trainer) -> list[bool]:
    """For each of two images with two completions: whether its tokens count with trainer.drop_zero_spread."""
    settings = TrainerSettings(num_samples=2, drop_zero_spread=True, **trainer)
    critique = torch.tensor([[True, False, False]] * 4)
    credit = assign_credit(rewards, ROLLOUT, critique, trainer=settings, reward=reward)
    assert credit.zero_spread.tolist() == [not counts for counts in credit.in_loss.view(2, -1).all(dim=1).tolist()]
    return credit.in_loss.view(2, -1).all(dim=1).tolist()


@pytest.mark.slow
def test_a_divergence_in_the_reward_gives_no_image_spread(engine):
    """With it no two completions earn the same; without spread in the scores they still teach nothing."""
    rewards = rewards_of({"error": [[0.0, 1.0], [1.0, 1.0]]}, {"error": 1.0})
    less = subtract_kl(rewards, ROLLOUT, torch.zeros(4, 3), coef=0.1, engine=engine)
    assert len(less.total[1].unique()) == 2
    assert in_loss(less, RewardSettings(), kl_reward_coef=0.1) == [True, False]


def test_rewards_of_critiques_teach_where_scores_do_not():
    reward = RewardSettings(faithfulness=FaithfulnessSettings(weight=1.0))
    equal = rewards_of({"error": [[0.0, 1.0], [1.0, 1.0]], "faithfulness": [[0.5, 0.5], [0.5, 0.5]]}, {"error": 1.0})
    apart = rewards_of({"error": [[0.0, 1.0], [1.0, 1.0]], "faithfulness": [[0.5, 0.5], [0.2, 0.9]]}, {"error": 1.0})
    assert in_loss(equal, reward, credit="parts") == [True, False]
    assert in_loss(apart, reward, credit="parts") == [True, True]
