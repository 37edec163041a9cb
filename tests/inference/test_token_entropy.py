"""Kinds of tokens by hand; entropy against its bounds and an independent sum."""

from __future__ import annotations

import math

import pytest
import torch

from aes_r1.data.sample import Sample
from aes_r1.inference.token_entropy import POSITIONS, measure_entropy, token_kinds
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions


def test_kinds_of_a_whole_answer():
    pieces = [
        "<",
        "think",
        ">",
        "soft",
        " light",
        ",",
        " expos",
        "ure",
        " high",
        "</think>",
        "<answer>",
        "0",
        ".",
        "63",
    ]
    pieces += ["</answer>", ""]
    expected = ["tags"] * 3 + ["critique", "dimension", "critique", "dimension", "dimension", "critique"]
    assert token_kinds(pieces) == expected + ["tags"] * 2 + ["score"] * 3 + ["tags"] * 2


def test_kinds_of_odd_answers():
    assert token_kinds(["delight", " moody"]) == ["critique", "critique"]  # names are whole words
    assert token_kinds(["<answer>", "0.5"]) == ["tags", "score"]  # cut before its end
    assert token_kinds([">0", "3", "</"]) == ["critique"] * 3
    assert token_kinds([]) == []
    assert token_kinds(["<answer>0", ".5</answer>"]) == ["score", "score"]  # a token of two kinds gets the rarer one


@pytest.fixture
def pictures(picture_folder):
    return [Sample(path.name, str(path), 0.5, "made", "test") for path in sorted(picture_folder.glob("*.png"))]


@pytest.mark.slow
def test_entropy_of_a_model_agrees_with_its_tokens(backbone, pictures):
    backbone.model.eval()
    found = measure_entropy(backbone, pictures, question=RATING_PROMPT, max_new_tokens=12, seed=3, batch_size=5)
    assert found["n"] == 12
    assert 0 < found["entropy"] <= math.log(backbone.core.lm_head.weight.shape[0])
    assert found == measure_entropy(backbone, pictures, question=RATING_PROMPT, max_new_tokens=12, seed=3, batch_size=5)

    parts = [part for part in found["by_kind"].values() if part["tokens"]]
    assert sum(part["tokens"] for part in parts) == found["tokens"]
    assert sum(part["tokens"] * part["entropy"] for part in parts) / found["tokens"] == pytest.approx(found["entropy"])
    assert len(found["by_position"]) == POSITIONS

    # The first picture alone, by hand.
    from aes_r1.data.sample import open_picture

    one = pictures[:1]
    prompts = backbone.collate([backbone.encode(open_picture(one[0].image), RATING_PROMPT)])
    noise = keyed_uniform_noise([("entropy", 3, "made", one[0].id)], 12)
    with torch.no_grad():
        rollout = sample_completions(backbone, prompts, num_samples=1, max_new_tokens=12, temperature=1.0, noise=noise)
        _, entropy = completion_likelihood(backbone, prompts, rollout.tokens, rollout.mask, torch.tensor([0]))
    alone = measure_entropy(backbone, one, question=RATING_PROMPT, max_new_tokens=12, seed=3)
    assert alone["entropy"] == pytest.approx(float(entropy.sum() / rollout.mask.sum()), abs=1e-6)
