"""Pretraining of the tiny model, shrunken: the same twice, learning facts, never an opinion."""

from __future__ import annotations

import re

import pytest
import torch

from aes_r1.data import scenes
from aes_r1.model import backbone as backbones
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


def test_lessons_hold_facts_and_no_opinion():
    for index in range(200):
        _, _, facts = scenes.render_scene("scenes", index, pretrain.SCENE_SEED)
        assert not NO_OPINIONS.search(scenes.describe(facts))
        for question, value in scenes.measure_questions(facts):
            assert not NO_OPINIONS.search(question)
            assert 0 <= value <= 1
