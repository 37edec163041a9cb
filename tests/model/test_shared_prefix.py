"""The shared-prefix computation equals the plain one, in values and gradients."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from aes_r1.model.likelihood import completion_likelihood
from aes_r1.model.shared_prefix import causal_mask

IMAGE_OF = {"image by image": [0, 0, 1, 1, 2, 2], "mixed": [2, 0, 1, 0, 2, 0], "one image": [1, 1, 1, 1, 1, 1]}


def completions(backbone, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    allowed = (~backbone.banned.cpu()).nonzero()[:, 0]
    tokens = allowed[torch.randint(len(allowed), (rows, length), generator=generator)]
    lengths = torch.randint(2, length + 1, (rows,), generator=generator)
    return tokens, torch.arange(length) < lengths[:, None]


def run(backbone, prompts, shared: bool, image_of: list[int], asked=None):
    tokens, mask = completions(backbone, len(image_of), 9)
    mask = mask if asked is None else asked
    tokens = tokens.to(backbone.device)
    backbone.model.zero_grad()
    logps, entropy = completion_likelihood(
        backbone, prompts, tokens, mask, torch.tensor(image_of), temperature=0.7, shared_prefix=shared
    )
    weight = torch.linspace(-1, 1, logps.numel(), device=logps.device)
    (logps * weight.reshape(logps.shape)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in backbone.model.named_parameters() if p.grad is not None}
    return logps.detach(), entropy, gradients


@pytest.mark.parametrize("image_of", IMAGE_OF.values(), ids=IMAGE_OF.keys())
@pytest.mark.slow
def test_shared_prefix_equals_plain(backbone, prompts, image_of):
    shared, plain = run(backbone, prompts, True, image_of), run(backbone, prompts, False, image_of)
    torch.testing.assert_close(shared[0], plain[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shared[1], plain[1], atol=1e-5, rtol=1e-5)
    assert shared[2].keys() == plain[2].keys()
    assert any(".visual." in name for name in shared[2])
    for name, gradient in plain[2].items():
        torch.testing.assert_close(shared[2][name], gradient, atol=2e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_any_subset_of_tokens_can_be_scored(backbone, prompts):
    """First tokens alone, later ones alone, gaps, rows and images of which nothing is asked."""
    asked = torch.zeros(5, 9, dtype=torch.bool)
    asked[0, 0] = asked[2, 4:7] = asked[4, [0, 3, 8]] = True
    shared, plain = (run(backbone, prompts, shared, [1, 2, 0, 2, 1], asked) for shared in (True, False))
    assert shared[0].ne(0).equal(asked)
    torch.testing.assert_close(shared[0], plain[0], atol=1e-5, rtol=1e-5)
    for name, gradient in plain[2].items():
        torch.testing.assert_close(shared[2][name], gradient, atol=2e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_with_an_empty_mask_every_layer_still_runs_backward(backbone, prompts):
    """Processes that train together must all meet every weight, whatever their own completions are."""
    for shared in (True, False):
        logps, _, gradients = run(backbone, prompts, shared, [0, 2], torch.zeros(2, 9, dtype=torch.bool))
        assert not logps.any()
        assert any("layers.0.self_attn" in name for name in gradients)
        assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.slow
def test_recomputation_changes_no_bit(backbone, prompts):
    kept = run(backbone, prompts, True, IMAGE_OF["mixed"])
    backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    backbone.model.train()
    again = run(backbone, prompts, True, IMAGE_OF["mixed"])
    assert torch.equal(kept[0], again[0])
    assert all(torch.equal(gradient, again[2][name]) for name, gradient in kept[2].items())


@pytest.mark.gpu
def test_in_16_bits_on_cuda(backbone, prompts):
    """No further from float32 than the plain path in 16 bits, layers recomputed."""
    image_of = IMAGE_OF["mixed"]
    exact = run(backbone, prompts, False, image_of)
    backbone.model.to("cuda", torch.bfloat16).gradient_checkpointing_enable({"use_reentrant": False})
    backbone.model.train()
    prompts = prompts.to("cuda")
    plain, shared = (run(backbone, prompts, shared, image_of) for shared in (False, True))

    def error(found, wanted):
        return float((found.cpu().float() - wanted).norm() / wanted.norm())

    assert error(shared[0], exact[0]) < 1.5 * error(plain[0], exact[0]) + 1e-3
    for name, gradient in exact[2].items():
        if gradient.norm() > 1e-6:  # of a key's bias it is nothing but rounding
            assert error(shared[2][name], gradient) < 1.5 * error(plain[2][name], gradient) + 2e-2, name


@pytest.mark.gpu
@pytest.mark.parametrize("image_of", IMAGE_OF.values(), ids=IMAGE_OF.keys())
def test_shared_prefix_equals_plain_on_cuda(backbone, prompts, image_of):
    on_cpu = run(backbone, prompts, True, image_of)
    backbone.model.to("cuda")
    prompts = prompts.to("cuda")
    shared, plain = run(backbone, prompts, True, image_of), run(backbone, prompts, False, image_of)
    for one, other in ((shared, plain), (shared, on_cpu)):
        torch.testing.assert_close(one[0].cpu(), other[0].cpu(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one[1].cpu(), other[1].cpu(), atol=1e-4, rtol=1e-4)
        assert one[2].keys() == other[2].keys()
        for name, gradient in other[2].items():
            torch.testing.assert_close(one[2][name].cpu(), gradient.cpu(), atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_completions_do_not_see_each_other(backbone, prompts):
    tokens, mask = completions(backbone, 4, 9)
    image_of = torch.tensor([0, 0, 1, 2])
    before, _ = completion_likelihood(backbone, prompts, tokens, mask, image_of)
    changed = tokens.clone()
    changed[1] = tokens[1].roll(1)
    after, _ = completion_likelihood(backbone, prompts, changed, mask, image_of)
    torch.testing.assert_close(before[[0, 2, 3]], after[[0, 2, 3]])
    assert not torch.allclose(before[1], after[1])


def test_causal_mask():
    whole = SimpleNamespace(padded=False, attention_mask=torch.ones(2, 3, dtype=torch.bool))
    assert causal_mask(whole) is None
    mask = causal_mask(SimpleNamespace(padded=True, attention_mask=torch.tensor([[False, True, True]])))
    expected = [[True, False, False], [False, True, False], [False, True, True]]
    assert mask.shape == (1, 1, 3, 3)
    assert mask[0, 0].tolist() == expected


@pytest.mark.slow
def test_select_equals_collating_the_subset(backbone, prompts):
    chosen = prompts.select(torch.tensor([2, 1]))
    tokens, mask = completions(backbone, 3, 6)
    whole, _ = completion_likelihood(backbone, prompts, tokens, mask, torch.tensor([2, 1, 2]))
    part, _ = completion_likelihood(backbone, chosen, tokens, mask, torch.tensor([0, 1, 0]))
    torch.testing.assert_close(whole, part, atol=1e-5, rtol=1e-5)
    assert chosen.input_ids.shape[1] == int(prompts.attention_mask[[2, 1]].sum(dim=1).max())
