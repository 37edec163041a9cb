import math

import pytest
import torch

from aes_r1.reward.judge import judge_reward
from aes_r1.trainer.objective import group_advantage, zero_spread

NONE = math.nan


def test_a_missing_rating_neither_rewards_nor_punishes():
    """By hand: the mean of .2 and .8 stands in; a picture without a rating, and outputs not asked about, earn 0."""
    ratings = torch.tensor([[0.2, NONE, 0.8, NONE], [NONE, NONE, NONE, NONE], [0.3, 0.4, 0.5, 0.6]])
    asked = torch.tensor([[True, True, True, False], [True, True, True, False], [True] * 4])
    reward = judge_reward(ratings, asked)
    torch.testing.assert_close(reward, torch.tensor([[0.2, 0.5, 0.8, 0.0], [0.0] * 4, [0.3, 0.4, 0.5, 0.6]]))
    among_asked = group_advantage(reward[:1, :3])
    assert abs(float(among_asked[0, 1])) < 1e-6
    assert among_asked[0].tolist()[::2] == pytest.approx([-1, 1], abs=1e-3)


def test_equal_ratings_stay_equal_where_one_is_missing():
    """Their mean in float32 would differ in its last bit, which would count as spread."""
    for rating in torch.arange(0, 1.01, 0.1).tolist():
        reward = judge_reward(torch.tensor([[rating, rating, rating, NONE]]), torch.ones(1, 4, dtype=torch.bool))
        assert zero_spread(reward, tolerance=0.0).all()
