"""Pretraining of a smaller tiny model: reproducible, learns facts, and never an opinion."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from aes_r1.data import scenes
from aes_r1.model import backbone as backbones
from aes_r1.prompts import parse_score
from aes_r1.settings import PretrainSettings
from aes_r1.trainer import pretrain

NO_OPINIONS = re.compile(r"good|bad|fair|beautiful|dull|strong picture|score|quality|rating|aesthetic", re.IGNORECASE)


def made(folder, said=None):
    pretrain.pretrain_tiny(
        folder,
        corpus=["a dull picture with flat light . "] * 50,
        pretrain=PretrainSettings(pictures=64, epochs=2, batch_size=16),
        max_pixels=9216,
        report=lambda done, total, text: said.append(text) if said is not None else None,
    )
    return backbones.load(str(folder), dtype="float32", max_pixels=9216)


@pytest.mark.slow
def test_the_same_model_twice_and_it_learns(tmp_path):
    said: list[str] = []
    one, two = made(tmp_path / "one", said), made(tmp_path / "two")
    weights = two.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in one.model.state_dict().items())
    losses = [float(text.split()[1]) for text in said if text.startswith("saying")]
    assert len(losses) == 8
    assert losses[-1] < losses[0]


def test_asked_to_judge_the_lesson_is_a_measurement_of_no_direction():
    """Every answer can be read, its last words are its number, and the mean number is .5 whatever the picture."""
    rng = np.random.default_rng(0)
    best = {"bright": 5, "column": 6, "strength": 9, "cues": ["moon"] * 5, "tilt": 0, "clutter": 0}
    worst = {"bright": 5, "column": 0, "strength": 0, "cues": [], "tilt": 9, "clutter": 9}
    means = []
    for facts in ({**best, "saturation": 9, "off": 0}, {**worst, "saturation": 0, "off": 9}):
        texts = [pretrain._measured(facts, rng, said=place % 4) for place in range(4000)]
        scores = [parse_score(text) for text in texts]
        for text, score in zip(texts, scores, strict=True):
            said = re.findall(r"(\w+) (\d)\.", text.partition("</think>")[0])
            assert score is not None
            assert not said or int(said[-1][1]) == int(score * 10 + 1e-6)
            assert not NO_OPINIONS.search(text)
        means.append(np.mean(scores))
    assert means == pytest.approx([0.495, 0.495], abs=0.02)


def test_lessons_hold_facts_and_no_opinion():
    for index in range(200):
        _, _, facts = scenes.render_scene("scenes", index, pretrain.SCENE_SEED)
        assert not NO_OPINIONS.search(scenes.describe(facts))
        for question, value in scenes.measure_questions(facts):
            assert not NO_OPINIONS.search(question)
            assert 0 <= value <= 1
