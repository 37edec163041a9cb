import math
from dataclasses import replace

import pytest
import torch

from aes_r1.reward.binary import binary_reward
from aes_r1.reward.error import error_reward
from aes_r1.reward.rank import bradley_terry_reward, rank_reward
from aes_r1.reward.total import sub_score_rewards, total_reward, weights_at
from aes_r1.settings import (
    BinarySettings,
    DistributionSettings,
    ErrorSettings,
    FormatSettings,
    InputError,
    RankSettings,
    RewardSettings,
    TwinSettings,
)

SCORES = torch.tensor([[0.7, 0.6, float("nan")], [0.2, 0.9, 0.4], [0.5, 0.5, 0.1]], dtype=torch.float64)
MOS = torch.tensor([0.8, 0.3, 0.3], dtype=torch.float64)


def test_weighted_sum_of_parts():
    reward = RewardSettings(
        rank=RankSettings(weight=2.0, ties="half", gamma=1e-3),
        error=ErrorSettings(weight=0.5, sigma=0.2),
        binary=BinarySettings(weight=3.0, threshold=0.15),
        format=FormatSettings(weight=0.25),
    )
    total, parts = total_reward(SCORES, MOS, reward)
    rank = rank_reward(SCORES, MOS, ties="half", gamma=1e-3)
    error = error_reward(SCORES, MOS, sigma=0.2)
    binary = binary_reward(SCORES, MOS, threshold=0.15)
    torch.testing.assert_close(total, 2 * rank + 0.5 * error + 3 * binary + 0.25 * ~SCORES.isnan())
    torch.testing.assert_close(parts["rank"], rank)
    assert list(parts) == ["rank", "error", "binary", "format"]
    assert total[0, 2] == 0


def test_parts_of_weight_zero_are_still_measured():
    total, parts = total_reward(SCORES, MOS, RewardSettings(rank=RankSettings(weight=0.0)))
    assert parts["rank"].sum() > 0
    torch.testing.assert_close(total, parts["error"])


def test_pool_is_used_only_when_asked():
    pool = torch.tensor([0, 0, 1])
    _, together = total_reward(SCORES, MOS, RewardSettings(), pool=pool)
    _, apart = total_reward(SCORES, MOS, RewardSettings(rank=RankSettings(pool="dataset")), pool=pool)
    torch.testing.assert_close(together["rank"], rank_reward(SCORES, MOS))
    torch.testing.assert_close(apart["rank"], rank_reward(SCORES, MOS, pool=pool))


def test_bradley_terry_by_setting():
    _, parts = total_reward(SCORES, MOS, RewardSettings(rank=RankSettings(model="bradley_terry", tau=0.3)))
    torch.testing.assert_close(parts["rank"], bradley_terry_reward(SCORES, MOS, tau=0.3))


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("joint", 0.0, {"rank": 1.0, "error": 2.0, "binary": 3.0, "format": 4.0}),
        ("joint", 1.0, {"rank": 1.0, "error": 2.0, "binary": 3.0, "format": 4.0}),
        ("rank_first", 0.49, {"rank": 1.0, "error": 0.0, "binary": 0.0, "format": 4.0}),
        ("rank_first", 0.5, {"rank": 0.0, "error": 2.0, "binary": 3.0, "format": 4.0}),
        ("error_first", 0.49, {"rank": 0.0, "error": 2.0, "binary": 3.0, "format": 4.0}),
        ("error_first", 1.0, {"rank": 1.0, "error": 0.0, "binary": 0.0, "format": 4.0}),
    ],
)
def test_schedules(schedule, progress, expected):
    reward = RewardSettings(
        rank=RankSettings(weight=1.0),
        error=ErrorSettings(weight=2.0),
        binary=BinarySettings(weight=3.0),
        distribution=DistributionSettings(weight=5.0),
        format=FormatSettings(weight=4.0),
        twin=TwinSettings(weight=6.0),
        custom="mine.py:brevity",
        custom_weight=0.5,
        schedule=schedule,
    )
    absolute = 5.0 if expected["error"] else 0.0
    wanted = {**expected, "distribution": absolute, "custom": 0.5, "twin": 6.0, "pair": 0.0}
    assert weights_at(reward, progress) == wanted
    assert weights_at(replace(reward, custom=None), progress) == {**wanted, "custom": 0.0}


def test_the_distribution_and_a_reward_of_ones_own_are_parts_of_the_sum():
    reward = RewardSettings(distribution=DistributionSettings(weight=2.0), custom="mine.py:brevity", custom_weight=0.5)
    scores, mos = torch.tensor([[0.2, 0.4, 0.6], [0.5, 0.5, float("nan")]]), torch.tensor([0.3, 0.5])
    raters = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    custom = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    total, parts = total_reward(scores, mos, reward, raters=raters, custom=custom)
    assert parts["distribution"][1].tolist() == [0.0, 0.0, 0.0]
    added = 2 * parts["distribution"] + 0.5 * custom
    torch.testing.assert_close(total, parts["rank"] + parts["error"] + added)
    plain, without = total_reward(scores, mos, RewardSettings())
    assert set(without) == {"rank", "error", "binary", "format"}
    torch.testing.assert_close(total - added, plain)
    with pytest.raises(ValueError, match="needs raters"):
        total_reward(scores, mos, reward)


def test_progress_outside_training_is_refused():
    with pytest.raises(ValueError, match="progress"):
        weights_at(RewardSettings(), 1.5)


def test_a_schedule_needs_both_sides():
    with pytest.raises(InputError, match=r"reward\.schedule=rank_first"):
        RewardSettings(error=ErrorSettings(weight=0.0), schedule="rank_first")


def test_a_guess_stands_in_for_a_failed_parse_everywhere_but_in_format():
    scores = torch.tensor([[0.5, math.nan], [0.9, 0.7]])
    guesses = torch.tensor([[0.1, 0.3], [0.2, 0.2]])
    mos, reward = torch.tensor([0.4, 0.8]), RewardSettings()
    total, parts = total_reward(scores, mos, reward, guesses=guesses)
    filled, as_read = total_reward(torch.tensor([[0.5, 0.3], [0.9, 0.7]]), mos, reward)
    assert torch.equal(total, filled)
    assert torch.equal(parts["rank"], as_read["rank"])
    assert parts["format"].tolist() == [[1, 0], [1, 1]]
    # Without guesses the failed parse earns nothing and does not affect the other picture's ranking.
    _, none = total_reward(scores, mos, reward)
    assert none["error"][0, 1] == none["rank"][0, 1] == 0
    assert not torch.equal(none["rank"][1], parts["rank"][1])


NAN = math.nan


def test_sub_scores_earn_by_hand():
    """Two pictures, one output each: the difference of scores is many standard deviations, so rank is 1 or 0."""
    sub_scores = torch.tensor([[[0.9, 0.2]], [[0.1, 0.4]]])
    ratings = torch.tensor([[0.8, 0.6], [0.1, 0.4]])
    reward = RewardSettings(error=ErrorSettings(weight=0.5, sigma=0.1, epsilon=0.0))
    earned = sub_score_rewards(sub_scores, ratings, reward)
    # Dimension 0 is in the right order, errors .1 and 0; dimension 1 in the wrong one, errors .4 and 0.
    wanted = [[[1 + 0.5 * math.exp(-0.5), 0.5 * math.exp(-8)]], [[1.5, 0.5]]]
    torch.testing.assert_close(earned, torch.tensor(wanted), atol=1e-6, rtol=1e-6)


def test_a_sub_score_earns_what_a_score_does():
    opinions = torch.tensor([[0.8, 0.1], [0.3, 0.5], [0.3, 0.9]], dtype=torch.float64)
    reward = RewardSettings(
        rank=RankSettings(weight=2.0, ties="half", pool="dataset", model="bradley_terry"),
        error=ErrorSettings(weight=0.5),
        schedule="rank_first",
    )
    pool = torch.tensor([0, 0, 1])
    earned = sub_score_rewards(torch.stack([SCORES, SCORES], dim=2), opinions, reward, pool=pool, progress=0.2)
    for dimension in (0, 1):
        _, parts = total_reward(SCORES, opinions[:, dimension], reward, pool=pool)
        torch.testing.assert_close(earned[:, :, dimension], 2 * parts["rank"])
    later = sub_score_rewards(torch.stack([SCORES, SCORES], dim=2), opinions, reward, pool=pool, progress=0.7)
    torch.testing.assert_close(later[:, :, 0], 0.5 * error_reward(SCORES, opinions[:, 0]))


def test_a_picture_without_a_rating_earns_nothing_and_is_nobodys_opponent():
    ratings = torch.tensor([[0.8], [NAN], [0.3]])
    sub_scores = torch.tensor([[[0.7], [NAN]], [[0.2], [0.9]], [[0.5], [0.1]]])
    earned = sub_score_rewards(sub_scores, ratings, RewardSettings())
    assert earned[1].eq(0).all()
    assert earned[0, 1, 0] == 0, "an answer without the sub-score"
    torch.testing.assert_close(earned[[0, 2]], sub_score_rewards(sub_scores[[0, 2]], ratings[[0, 2]], RewardSettings()))
    nobody = sub_score_rewards(sub_scores, torch.full((3, 1), NAN), RewardSettings())
    assert nobody.eq(0).all()
