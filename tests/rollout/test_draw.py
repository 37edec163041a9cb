"""Tokens drawn by inverse CDF, against the definition in float64 and at its edges."""

from __future__ import annotations

import pytest
import torch

from aes_r1.rollout.draw import BLOCK, draw


@pytest.mark.parametrize("vocabulary", [5, BLOCK, 3 * BLOCK - 7, 2 * BLOCK + 1])
def test_tokens_and_log_probabilities_are_those_of_the_definition(vocabulary):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(400, vocabulary, generator=generator) * 3
    banned = torch.rand(vocabulary, generator=generator) < 0.2
    banned[2] = False
    noise = torch.rand(400, generator=generator)
    chosen, logps = draw(logits, banned, 0.7, noise)
    exact = (logits.double() / 0.7).masked_fill(banned, float("-inf")).log_softmax(dim=1)
    below = torch.cat([torch.zeros(400, 1).double(), exact.exp().cumsum(dim=1)], dim=1)
    assert (below.gather(1, chosen[:, None])[:, 0] <= noise + 1e-6).all()
    assert (below.gather(1, chosen[:, None] + 1)[:, 0] > noise - 1e-6).all()
    assert not banned[chosen].any()
    torch.testing.assert_close(logps.double(), exact.gather(1, chosen[:, None])[:, 0], atol=1e-5, rtol=1e-5)


def test_by_hand():
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log().expand(6, -1)
    noise = torch.tensor([0.0, 0.09, 0.11, 0.29, 0.31, 0.61])
    chosen, logps = draw(logits, torch.zeros(4, dtype=torch.bool), 1.0, noise)
    assert chosen.tolist() == [0, 0, 1, 1, 2, 3]
    torch.testing.assert_close(logps.exp(), torch.tensor([0.1, 0.1, 0.2, 0.2, 0.3, 0.4]))
    likeliest, logps = draw(logits, torch.tensor([False, False, False, True]), 0.5, None)
    assert likeliest.tolist() == [2] * 6
    torch.testing.assert_close(logps.exp(), torch.full((6,), 0.09 / 0.14))


@pytest.mark.parametrize("noise", [0.0, 0.5, 1 - 2**-24])
def test_a_banned_token_is_never_drawn_at_the_edges(noise):
    """Also where the only tokens left stand at a block's first or last place, and the last blocks are banned."""
    for allowed in ([0], [BLOCK - 1], [BLOCK], [BLOCK - 1, BLOCK], [3, 2 * BLOCK - 1], [3 * BLOCK]):
        logits = torch.randn(50, 3 * BLOCK + 9, generator=torch.Generator().manual_seed(len(allowed))) * 20
        banned = torch.ones(logits.shape[1], dtype=torch.bool)
        banned[allowed] = False
        chosen, logps = draw(logits, banned, 1.0, torch.full((50,), noise))
        assert set(chosen.tolist()) <= set(allowed)
        assert logps.isfinite().all()
