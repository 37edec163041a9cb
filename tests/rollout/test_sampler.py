from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from tests.conftest import picture

LENGTH = 24


def keys(images, samples=2):
    return [("test", image, k) for image in images for k in range(samples)]


@pytest.fixture
def encoded(backbone):
    sizes = ((192, 192), (224, 160), (96, 200))
    return [backbone.encode(picture(*size, seed=i), RATING_PROMPT) for i, size in enumerate(sizes)]


def draw(backbone, encoded, images, samples=2, temperature=0.8):
    return sample_completions(
        backbone,
        backbone.collate([encoded[image] for image in images]),
        num_samples=samples,
        max_new_tokens=LENGTH,
        temperature=temperature,
        noise=keyed_uniform_noise(keys(images, samples), LENGTH),
    )


@pytest.mark.slow
def test_greedy_equals_generate(backbone, prompts):
    ours = sample_completions(backbone, prompts, num_samples=1, max_new_tokens=LENGTH, temperature=1.0, noise=None)
    theirs = backbone.model.generate(
        input_ids=prompts.input_ids,
        attention_mask=prompts.attention_mask.long(),
        pixel_values=prompts.pixel_values,
        image_grid_thw=prompts.image_grid_thw,
        mm_token_type_ids=(prompts.input_ids == backbone.image_token).int(),
        max_new_tokens=LENGTH,
        do_sample=False,
        suppress_tokens=backbone.banned.nonzero()[:, 0].tolist(),
    )[:, prompts.input_ids.shape[1] :]
    assert ours.tokens.shape[1] >= theirs.shape[1] - 1
    width = min(ours.tokens.shape[1], theirs.shape[1])
    mask = ours.mask[:, :width]
    assert (ours.tokens[:, :width][mask] == theirs[:, :width][mask]).all()


@pytest.mark.slow
def test_sampled_log_probability_is_the_trainers(backbone, encoded):
    rollout = draw(backbone, encoded, [0, 1, 2])
    prompts = backbone.collate(encoded)
    image_of = torch.arange(3).repeat_interleave(2)
    logps, _ = completion_likelihood(backbone, prompts, rollout.tokens, rollout.mask, image_of, temperature=0.8)
    torch.testing.assert_close(rollout.logps, logps.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_completion_depends_on_its_key_alone(backbone, encoded):
    together, alone = draw(backbone, encoded, [2, 0, 1]), draw(backbone, encoded, [0])
    width = alone.tokens.shape[1]
    assert (together.tokens[2:4, :width][alone.mask] == alone.tokens[alone.mask]).all()
    assert (together.mask[2:4].sum(dim=1) == alone.mask.sum(dim=1)).all()
    assert not torch.equal(alone.tokens[0], alone.tokens[1])


@pytest.mark.slow
def test_ends_and_truncation(backbone, encoded):
    with torch.no_grad():  # make the end of the turn likely, so that both kinds occur
        backbone.core.lm_head.weight[backbone.end_token] *= 6
    rollout = draw(backbone, encoded, [0, 1, 2], samples=8)
    ended = ((rollout.tokens == backbone.end_token) & rollout.mask).sum(dim=1)
    assert set(ended.tolist()) <= {0, 1}
    assert torch.equal(ended == 0, rollout.truncated)
    assert 0 < int(rollout.truncated.sum()) < len(rollout.truncated)
    last = rollout.mask.sum(dim=1) - 1
    done = ~rollout.truncated
    assert (rollout.tokens[done, last[done]] == backbone.end_token).all()
    assert (rollout.mask[rollout.truncated].sum(dim=1) == LENGTH).all()
    assert (rollout.logps[~rollout.mask] == 0).all()


@pytest.mark.slow
def test_finished_rows_dropped_on_the_way_change_nothing(backbone, encoded):
    with torch.no_grad():
        backbone.core.lm_head.weight[backbone.end_token] *= 6
    many = draw(backbone, encoded, [0, 1, 2], samples=8)
    for image in range(3):
        few = draw(backbone, encoded, [image], samples=8)
        width = few.tokens.shape[1]
        rows = slice(8 * image, 8 * image + 8)
        assert torch.equal(many.tokens[rows, :width] * few.mask, few.tokens * few.mask)


@pytest.mark.slow
def test_special_tokens_are_never_drawn(backbone, encoded):
    rollout = draw(backbone, encoded, [0, 1, 2], samples=8, temperature=5.0)
    assert not backbone.banned[rollout.tokens[rollout.mask]].any()


@pytest.mark.slow
def test_first_tokens_follow_the_distribution(backbone, encoded):
    samples = 3000
    prompts = backbone.collate(encoded[:1])
    rollout = sample_completions(
        backbone,
        prompts,
        num_samples=samples,
        max_new_tokens=1,
        temperature=0.3,
        noise=keyed_uniform_noise([("chi", k) for k in range(samples)], 1),
    )
    vocabulary = len(backbone.banned)
    every = torch.arange(vocabulary)[:, None]
    logps, _ = completion_likelihood(
        backbone,
        prompts,
        every,
        torch.ones_like(every, dtype=torch.bool),
        torch.zeros(vocabulary, dtype=torch.long),
        temperature=0.3,
    )
    expected = logps.detach().exp()[:, 0].double().numpy() * samples
    observed = np.bincount(rollout.tokens[:, 0].numpy(), minlength=vocabulary)
    common = expected >= 5
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


def test_noise_is_keyed():
    first, again, other = (
        keyed_uniform_noise([("a", 1), ("a", 2)], 50),
        keyed_uniform_noise([("a", 2)], 20),
        keyed_uniform_noise([("b", 2)], 20),
    )
    assert torch.equal(first[1, :20], again[0])
    assert not torch.equal(again, other)
    assert first.min() >= 0
    assert first.max() < 1
