import math

import pytest
import torch

from aes_r1.reward.error import error_reward

NAN = float("nan")


def test_hand_worked_numbers():
    scores = torch.tensor([[0.5, 0.6, 0.4, NAN], [1.0, 0.0, NAN, 0.9]], dtype=torch.float64)
    mos = torch.tensor([0.5, 1.0], dtype=torch.float64)
    half = math.exp(-0.5)
    expected = torch.tensor([[1, half, half, 0], [1, math.exp(-50), 0, half]], dtype=torch.float64)
    expected += 1e-5 * ~scores.isnan()
    torch.testing.assert_close(error_reward(scores, mos), expected, atol=1e-12, rtol=0)


def test_against_loops():
    torch.manual_seed(0)
    scores, mos = torch.rand(7, 5, dtype=torch.float64), torch.rand(7, dtype=torch.float64)
    scores[torch.rand(7, 5) < 0.3] = NAN
    reward = error_reward(scores, mos, sigma=0.25, epsilon=0.01)
    for i in range(7):
        for k in range(5):
            x = scores[i, k].item()
            wanted = 0.0 if math.isnan(x) else math.exp(-0.5 * (abs(x - mos[i].item()) / 0.25) ** 2) + 0.01
            assert reward[i, k].item() == pytest.approx(wanted, abs=1e-12)


def test_any_answer_beats_a_failed_parse():
    reward = error_reward(torch.tensor([[0.0, NAN]]), torch.tensor([1.0]))
    assert reward[0, 0] > reward[0, 1] == 0


@pytest.mark.parametrize("sigma", [0.0, -0.1, NAN])
def test_sigma_must_be_positive(sigma):
    with pytest.raises(ValueError, match="sigma"):
        error_reward(torch.rand(2, 2), torch.rand(2), sigma=sigma)
