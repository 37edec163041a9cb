from __future__ import annotations

import math

import pytest
import torch

from aes_r1.model.likelihood import completion_table, token_likelihood


def setup(dtype=torch.float32):
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 20, bias=False).to(dtype)
    return torch.randn(50, 8, dtype=dtype, requires_grad=True), torch.randint(3, 20, (50,)), head


def test_chunked_equals_full():
    hidden, targets, head = setup()
    results = []
    for chunk in (7, 1000):
        hidden.grad = head.weight.grad = None
        logps, entropy = token_likelihood(hidden, targets, head, temperature=0.6, chunk_tokens=chunk)
        (logps * torch.arange(50)).sum().backward()
        results.append((logps.detach(), entropy, hidden.grad.clone(), head.weight.grad.clone()))
    for chunked, full in zip(*results, strict=True):
        torch.testing.assert_close(chunked, full, atol=1e-5, rtol=1e-5)


def test_against_the_definition():
    hidden, targets, head = setup()
    logps, entropy = token_likelihood(hidden, targets, head, temperature=2.0)
    probabilities = (head(hidden).detach().double() / 2.0).softmax(dim=1)
    wanted = probabilities.log()
    torch.testing.assert_close(logps.double(), wanted[torch.arange(50), targets], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(entropy.double(), -(probabilities * wanted).sum(dim=1), atol=1e-6, rtol=1e-5)


def test_banned_tokens_have_no_probability():
    hidden, _, head = setup()
    banned = torch.zeros(20, dtype=torch.bool)
    banned[:3] = True
    everything = torch.stack(
        [token_likelihood(hidden, torch.full((50,), v), head, banned=banned)[0] for v in range(20)]
    )
    assert torch.isneginf(everything[:3]).all()
    torch.testing.assert_close(everything[3:].exp().sum(dim=0), torch.ones(50))
    _, entropy = token_likelihood(hidden, torch.full((50,), 5), head, banned=banned)
    assert (entropy <= math.log(17) + 1e-5).all()


def test_float32_whatever_the_weights():
    hidden, targets, head = setup(torch.bfloat16)
    logps, entropy = token_likelihood(hidden, targets, head)
    assert logps.dtype == entropy.dtype == torch.float32
    assert not entropy.requires_grad


@pytest.mark.slow
def test_the_gradients_are_those_of_the_definition():
    """Of log-probabilities and entropy, alone and together, in chunks and with banned tokens."""
    hidden, targets, head = setup()
    banned = torch.zeros(20, dtype=torch.bool)
    banned[:3] = True
    weights = torch.arange(50) / 50
    for of_logps, of_entropy, chunk in ((1.0, 0.0, 7), (0.0, 1.0, 1000), (0.5, 2.0, 7)):
        logps, entropy = token_likelihood(
            hidden, targets, head, banned=banned, temperature=0.7, chunk_tokens=chunk, entropy_gradient=True
        )
        loss = sum(((term * weights).sum() * by for term, by in ((logps, of_logps), (entropy, of_entropy)) if by))
        found = torch.autograd.grad(loss, (hidden, head.weight))
        plain = (head(hidden) / 0.7).masked_fill(banned, -1e30).log_softmax(dim=1)
        known = plain[torch.arange(50), targets], -(plain.exp() * plain.masked_fill(banned, 0.0)).sum(dim=1)
        wanted = torch.autograd.grad(
            (known[0] * weights).sum() * of_logps + (known[1] * weights).sum() * of_entropy, (hidden, head.weight)
        )
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_an_empty_list_of_targets_has_an_empty_result():
    hidden, targets, head = setup()
    logps, entropy = token_likelihood(hidden[:0], targets[:0], head)
    assert logps.shape == entropy.shape == (0,)


def test_a_vocabulary_of_152064_is_added_up_exactly():
    """Where a model is sure, the others' 152,063 terms are too small to be added to the likeliest one by one."""
    logits = torch.randn(8, 152_064, generator=torch.Generator().manual_seed(0)) * 0.1 - 17
    likeliest = torch.arange(8)
    logits[likeliest, likeliest] = 0.0
    exact = logits.double().log_softmax(dim=-1)
    wanted = exact[likeliest, likeliest]
    logps, entropy = token_likelihood(logits, likeliest, torch.nn.Identity(), chunk_tokens=8)
    torch.testing.assert_close(logps.double(), wanted, atol=2e-6, rtol=0)
    torch.testing.assert_close(entropy.double(), -(exact.exp() * exact).sum(dim=-1), atol=2e-5, rtol=1e-4)


def test_a_table_of_completions_by_hand():
    tokens, mask = completion_table([[5, 6, 7], [8]], 0)
    assert tokens.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
