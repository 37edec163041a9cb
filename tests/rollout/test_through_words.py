"""Outputs whose answer is drawn from their words alone: same critiques, answers of a reader who sees a gray square."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from aes_r1.data.sample import blank_picture, open_picture
from aes_r1.model import backbone as backbones
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import RATING_PROMPT, parse_critique, parse_score, unscored
from aes_r1.rollout.forced_prefix import complete_prefix
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from aes_r1.rollout.through_words import answer_from_words, blank_prompt, critique_lengths
from aes_r1.scoring.critic import Critic
from tests.trainer.test_loops import rapo

K, LENGTH = 3, 64


@pytest.fixture(scope="module")
def talker(talking_run):
    backbone = backbones.load(talking_run / "model", dtype="float32", max_pixels=9216)
    backbone.model.eval()
    pictures = [open_picture(path) for path in sorted((talking_run / "pictures").glob("*.png"))[::4]]
    return backbone, backbone.collate([backbone.encode(picture, RATING_PROMPT) for picture in pictures])


def drawn(talker, *, noise, length=LENGTH, count=K, temperature=1.3):
    backbone, prompts = talker
    how = {"max_new_tokens": length, "temperature": temperature, "noise": noise}
    first = sample_completions(backbone, prompts, num_samples=count, **how)
    return first, answer_from_words(backbone, first, blank_prompt(backbone, RATING_PROMPT, "words"), **how)


def test_nothing_changes_where_answers_see_the_picture(backbone, prompts):
    first = sample_completions(backbone, prompts, num_samples=1, max_new_tokens=4, temperature=1.0, noise=None)
    blank = blank_prompt(backbone, RATING_PROMPT, "image")
    assert answer_from_words(backbone, first, blank, max_new_tokens=4, temperature=1.0, noise=None) is first


def test_outputs_without_a_critique_stay_as_they_are(backbone, prompts):
    first = sample_completions(
        backbone, prompts, num_samples=2, max_new_tokens=6, temperature=1.0, noise=torch.rand(6, 6)
    )
    assert (critique_lengths(backbone, first) == first.mask.sum(dim=1)).all()
    blank = blank_prompt(backbone, RATING_PROMPT, "words")
    again = answer_from_words(backbone, first, blank, max_new_tokens=6, temperature=1.0, noise=torch.rand(6, 6))
    assert torch.equal(again.tokens, first.tokens)


@pytest.mark.slow
def test_each_part_is_drawn_after_its_own_prompt(talker):
    """Critiques are those of the picture, token by token; log-probabilities those of teacher forcing, part by part."""
    backbone, prompts = talker
    first, found = drawn(talker, noise=keyed_uniform_noise([("words", row) for row in range(3 * K)], LENGTH))
    lengths = critique_lengths(backbone, first)
    assert (lengths == critique_lengths(backbone, found)).all()
    in_critique = torch.arange(found.mask.shape[1]) < lengths[:, None]
    assert torch.equal(found.tokens[in_critique], first.tokens[in_critique[:, : first.tokens.shape[1]]])
    assert not torch.equal(found.tokens[:, : first.tokens.shape[1]], first.tokens), "some answer is another"
    image_of = torch.arange(3 * K) // K
    temperature = {"temperature": 1.3}
    seen, _ = completion_likelihood(backbone, prompts, found.tokens, found.mask & in_critique, image_of, **temperature)
    blank = backbone.collate([backbone.encode(blank_picture(), RATING_PROMPT)])
    read, _ = completion_likelihood(
        backbone, blank, found.tokens, found.mask & ~in_critique, torch.zeros_like(image_of), **temperature
    )
    torch.testing.assert_close(found.logps, seen + read, atol=2e-4, rtol=1e-4)
    assert (found.logps[found.mask] < 0).any()
    assert (found.truncated == ~((found.tokens == backbone.end_token) & found.mask).any(dim=1)).all()


@pytest.mark.slow
def test_greedily_it_is_the_score_read_back(talker):
    backbone, _ = talker
    _, found = drawn(talker, noise=None, count=1)
    texts = [backbone.decode(row[mask]) for row, mask in zip(found.tokens, found.mask, strict=True)]
    blank = backbone.encode(blank_picture(), RATING_PROMPT)
    said = [unscored(parse_critique(text) or "") for text in texts]
    assert [parse_score(text) for text in texts] == [
        parse_score(text) for text in complete_prefix(backbone, [blank] * len(said), said)
    ]


@pytest.mark.slow
def test_no_output_is_longer_than_allowed(talker):
    backbone, _ = talker
    first, _ = drawn(talker, noise=None, count=1)
    length = int(critique_lengths(backbone, first).max()) + 2  # room for two tokens of an answer
    _, short = drawn(talker, noise=None, count=1, length=length)
    assert short.tokens.shape[1] <= length
    assert short.truncated.any()


@pytest.mark.slow
def test_steps_whose_answers_come_from_words(talker, talking_run, tmp_path):
    """On policy: the trainer's log-probabilities are the sampler's, the start has no divergence, any cut is as good."""
    start, pictures = talker[0], talking_run / "pictures"
    how = {"steps": 2, "max_new_tokens": LENGTH, "temperature": 1.2, "answer_from": "words", "completions_every": 1}
    whole, completions = rapo(copy.deepcopy(start), pictures, tmp_path / "whole", **how)
    cut, _ = rapo(copy.deepcopy(start), pictures, tmp_path / "cut", **{**how, "steps": 1}, micro_batch_size=3)
    assert whole[0]["rollout/mismatch_max"] < 2e-3
    assert whole[0]["policy/kl_k3"] == pytest.approx(0.0, abs=1e-6)
    assert whole[1]["policy/kl_k3"] > 0
    assert cut[0] == pytest.approx(whole[0], rel=1e-3, abs=1e-4)
    plain, _ = rapo(copy.deepcopy(start), pictures, tmp_path / "plain", **{**how, "steps": 1, "answer_from": "image"})
    assert plain[0]["policy/grad_norm"] != pytest.approx(whole[0]["policy/grad_norm"], rel=0.01)
    assert len(completions) == 32


@pytest.mark.slow
def test_a_critic_reads_its_own_words(talking_run):
    critic = Critic.load(talking_run, samples=1)
    critic.profile = replace(critic.profile, answer_from="words")
    text = critic.answers([open_picture(talking_run / "pictures" / "04.png")])[0][0]
    blank = critic.backbone.encode(blank_picture(), RATING_PROMPT)
    [wanted] = complete_prefix(critic.backbone, [blank], [unscored(parse_critique(text) or "")])
    assert parse_score(text) == parse_score(wanted)
