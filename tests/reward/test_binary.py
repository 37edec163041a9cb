import pytest
import torch

from aes_r1.reward.binary import binary_reward

NAN = float("nan")


def test_inside_outside_and_on_the_edge():
    # .25 and .75 are exact in binary, so the edge is exactly at the threshold and outside.
    scores = torch.tensor([[0.5, 0.74, 0.75, 0.25, 0.26, NAN]])
    reward = binary_reward(scores, torch.tensor([0.5]), threshold=0.25)
    assert reward.tolist() == [[1.0, 1.0, 0.0, 0.0, 1.0, 0.0]]


def test_threshold_must_be_positive():
    with pytest.raises(ValueError, match="threshold"):
        binary_reward(torch.rand(2, 2), torch.rand(2), threshold=0.0)
