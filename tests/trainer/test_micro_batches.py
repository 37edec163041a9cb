from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aes_r1.model.likelihood import completion_likelihood
from aes_r1.trainer.micro_batches import micro_batches
from aes_r1.trainer.objective import policy_loss


def tokens_of(piece, lengths, prompts, samples, shared):
    images = {row // samples for row in piece}
    if shared:
        return sum(prompts[i] for i in images) + sum(lengths[row] for row in piece)
    return len(piece) * (max(prompts[i] for i in images) + max(lengths[row] for row in piece))


def test_without_a_budget_rows_come_as_they_are():
    pieces = micro_batches([3, 1, 2], [9] * 4, [5, 5], num_samples=2, shared_prefix=True, size=2, max_tokens=None)
    assert pieces == [[3, 1], [2]]


def test_a_budget_by_hand():
    # Two images of two outputs; prompts of 10. The long image: 10 + 30 + 29 = 69 tokens; the short: 21; both: 90.
    lengths, prompts = [5, 6, 30, 29], [10, 10]
    cut = {"num_samples": 2, "size": 1}
    packed = {"shared_prefix": True, **cut}
    assert micro_batches(range(4), lengths, prompts, max_tokens=90, **packed) == [[0, 1, 2, 3]]
    assert micro_batches(range(4), lengths, prompts, max_tokens=89, **packed) == [[2, 3], [0, 1]]
    assert micro_batches(range(4), lengths, prompts, max_tokens=59, **packed) == [[2], [3], [0, 1]]
    assert micro_batches(range(4), lengths, prompts, max_tokens=1, **packed) == [[2], [3], [1], [0]]
    # Four outputs, each with its prompt, padded to 10 + 30.
    assert micro_batches(range(4), lengths, prompts, max_tokens=160, shared_prefix=False, **cut) == [[0, 1, 2, 3]]
    assert micro_batches(range(4), lengths, prompts, max_tokens=159, shared_prefix=False, **cut) == [[2, 3], [0, 1]]


@settings(deadline=None, max_examples=60)
@given(st.data())
@pytest.mark.slow
def test_every_row_once_and_within_the_budget(data):
    images, samples = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    lengths = data.draw(st.lists(st.integers(1, 50), min_size=images * samples, max_size=images * samples))
    prompts = data.draw(st.lists(st.integers(1, 40), min_size=images, max_size=images))
    budget, shared = data.draw(st.integers(1, 400)), data.draw(st.booleans())
    rows = data.draw(st.lists(st.sampled_from(range(images * samples)), unique=True, min_size=1))
    pieces = micro_batches(rows, lengths, prompts, num_samples=samples, shared_prefix=shared, size=1, max_tokens=budget)
    assert sorted(row for piece in pieces for row in piece) == sorted(rows)
    for piece in pieces:
        assert len(piece) == 1 or tokens_of(piece, lengths, prompts, samples, shared) <= budget


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.slow
def test_any_cut_gives_the_same_gradient(backbone, prompts, shared_prefix):
    """Outputs one by one, by fives or by a token budget equal the single pass in loss and gradient (1e-5, float32)."""
    samples, length = 4, 12
    generator = torch.Generator().manual_seed(1)
    allowed = (~backbone.banned).nonzero()[:, 0]
    tokens = allowed[torch.randint(len(allowed), (3 * samples, length), generator=generator)]
    lengths = torch.randint(2, length + 1, (3 * samples,), generator=generator)
    mask = torch.arange(length) < lengths[:, None]
    advantages = torch.linspace(-1, 1, 3 * samples)
    # Off policy and with a reference, so that the clip and the KL are in the gradient too.
    old, reference = (-6 + torch.rand((3 * samples, length), generator=generator) for _ in range(2))

    def gradients(size: int, budget: int | None = None) -> tuple[int, float, dict[str, torch.Tensor]]:
        backbone.model.zero_grad()
        total = 0.0
        pieces = micro_batches(
            range(3 * samples), lengths.tolist(), prompts.prompt_tokens,
            num_samples=samples, shared_prefix=shared_prefix, size=size, max_tokens=budget,
        )  # fmt: skip
        for piece in pieces:
            rows, longest = torch.tensor(piece), int(lengths[piece].max())
            images, image_of = torch.unique(rows // samples, return_inverse=True)
            kept = mask[rows, :longest]
            logps, _ = completion_likelihood(
                backbone, prompts.select(images), tokens[rows, :longest], kept, image_of, shared_prefix=shared_prefix
            )
            loss, _ = policy_loss(
                logps, old[rows, :longest], reference[rows, :longest], advantages[rows], kept,
                clip_low=0.2, clip_high=0.28, kl_coef=0.1, aggregation="sequence_mean", normalizer=3 * samples,
            )  # fmt: skip
            loss.backward()
            total += float(loss.detach())
        grads = {n: p.grad.clone() for n, p in backbone.model.named_parameters() if p.grad is not None}
        return len(pieces), total, grads

    one, loss, whole = gradients(3 * samples)
    assert one == 1
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 0.01
    for number, cut in ((12, gradients(1)), (3, gradients(5)), (3, gradients(3 * samples, budget=150))):
        assert cut[0] >= number
        assert cut[1] == pytest.approx(loss, abs=1e-5)
        for name, gradient in whole.items():
            torch.testing.assert_close(cut[2][name], gradient, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
