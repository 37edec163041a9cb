"""The soft overlong punishment against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch

from aes_r1.reward.length import overlong_penalty


def test_linear_between_the_soft_limit_and_the_limit():
    """A limit of 100 tokens, soft from 80: 85 tokens are a quarter of the way, 95 three quarters."""
    lengths = torch.tensor([[1, 80, 85], [95, 100, 130]])
    expected = torch.tensor([[0.0, 0.0, -0.25], [-0.75, -1.0, -1.0]])
    torch.testing.assert_close(overlong_penalty(lengths, limit=100, begin=0.8), expected)


def test_from_the_first_token_on():
    assert overlong_penalty(torch.tensor([[0, 3, 6, 12]]), limit=12, begin=0.0).tolist() == [[0.0, -0.25, -0.5, -1.0]]


def test_the_numbers_of_the_paper():
    """DAPO: at most 20,480 tokens, the last 4,096 of them punished."""
    lengths = torch.tensor([[16384, 17408, 20480]])
    assert overlong_penalty(lengths, limit=20480, begin=0.8)[0].tolist() == pytest.approx([0.0, -0.25, -1.0])


def test_longer_never_earns_more():
    penalty = overlong_penalty(torch.arange(1, 97)[None], limit=96, begin=0.7)[0]
    assert (penalty.diff() <= 0).all()
    assert penalty.min() == -1
    assert penalty.max() == 0


@pytest.mark.parametrize("begin", [-0.1, 1.0, 1.5])
def test_a_soft_limit_outside_of_the_range(begin):
    with pytest.raises(ValueError, match="begin"):
        overlong_penalty(torch.ones(1, 2), limit=10, begin=begin)
