from __future__ import annotations

import itertools

import pytest
import torch

from aes_r1.data.opinions import levels_of, rater_shares
from aes_r1.reward.distribution import distribution_reward
from aes_r1.trainer.objective import group_advantage


def test_by_hand():
    """Two of four raters at 0, two at 1: every score is .5 from them; .2 is .2, .4 and .6 from the others."""
    scores = torch.tensor([[0.2, 0.4, 0.6, 0.8]])
    reward = distribution_reward(scores, torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]))
    wanted = [1 + 3 / 2 * spread / 3 - 0.5 for spread in (0.2 + 0.4 + 0.6, 0.2 + 0.2 + 0.4, 0.8, 1.2)]
    torch.testing.assert_close(reward, torch.tensor([wanted]))


def test_a_failed_parse_earns_less_than_any_answer_and_touches_no_other():
    levels, shares = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])
    worst = distribution_reward(torch.tensor([[0.0, 0.0, 0.0]]), levels, shares)
    assert worst.tolist() == [[0.0, 0.0, 0.0]]
    failed = distribution_reward(torch.tensor([[0.9, float("nan"), 0.7, 0.8]]), levels, shares)
    assert failed[0, 1] == 0
    torch.testing.assert_close(failed[0, 0], torch.tensor(1 + 1.5 * (0.2 + 0.1) / 2 - 0.1))


def test_unknown_raters_and_too_few_scores():
    assert distribution_reward(torch.rand(1, 4), torch.zeros(1, 2), torch.zeros(1, 2)).tolist() == [[0.0] * 4]
    with pytest.raises(ValueError, match="at least 3"):
        distribution_reward(torch.rand(1, 2), torch.zeros(1, 2), torch.ones(1, 2) / 2)


@pytest.mark.parametrize("samples", [3, 4])
def test_the_policy_gradient_is_that_of_the_crps(samples):
    """Summed exactly over all groups that a policy on four levels can draw, with the group's mean as the baseline."""
    levels = torch.tensor([[0.0, 0.3, 0.6, 1.0]], dtype=torch.float64)
    raters = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.float64)
    logits = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
    policy = logits.softmax(0)
    distance = (levels[0][:, None] - levels[0][None, :]).abs()
    crps = policy @ distance @ raters[0] - 0.5 * policy @ distance @ policy
    (wanted,) = torch.autograd.grad(-crps, logits, retain_graph=True)

    groups = torch.tensor(list(itertools.product(range(4), repeat=samples)))
    chance = policy.detach()[groups].prod(1)
    count = len(groups)
    reward = distribution_reward(levels[0][groups], levels.expand(count, 4), raters.expand(count, 4))
    advantage = group_advantage(reward, scale=False)
    surrogate = (chance[:, None] * advantage * policy.log()[groups]).sum() / samples
    (found,) = torch.autograd.grad(surrogate, logits)
    torch.testing.assert_close(found * samples / (samples - 1), wanted)


def test_shares_of_raters():
    assert rater_shares([1, 0, 3], 0.9, 0.1) == [0.25, 0.0, 0.75]
    assert levels_of([0.25, 0.0, 0.75]) == [0.0, 0.5, 1.0]
    assert rater_shares(None, 0.5, None) is None
    assert rater_shares([0, 0], None, 0.1) is None
    normal = rater_shares(None, 0.5, 0.1)
    mean = sum(share * level for share, level in zip(normal, levels_of(normal), strict=True))
    std = sum(share * (level - 0.5) ** 2 for share, level in zip(normal, levels_of(normal), strict=True)) ** 0.5
    assert (sum(normal), mean) == (pytest.approx(1), pytest.approx(0.5))
    assert std == pytest.approx((0.1**2 + 0.05**2 / 12) ** 0.5, rel=1e-3)  # Sheppard: levels are .05 apart
    assert rater_shares(None, 0.8, 0.0)[16] == 1.0
