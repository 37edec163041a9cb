"""Lessons of pretraining hold facts of a picture and never an opinion of it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import spearmanr

from aes_r1.data import scenes
from aes_r1.data.scene_sets import quality
from aes_r1.prompts import parse_critique, parse_score
from aes_r1.trainer.lessons import scene_facts, unjudged
from aes_r1.trainer.pretrain import SCENE_SEED

NO_OPINIONS = re.compile(r"good|bad|fair|beautiful|dull|strong picture|score|quality|rating|aesthetic", re.IGNORECASE)


@pytest.mark.slow
def test_asked_to_judge_the_lesson_is_facts_and_a_brightness_that_they_do_not_tell():
    """Every answer can be read, its words are facts of the picture, and its number is none that stands in them."""
    rng = np.random.default_rng(0)
    for index in range(200):
        _, _, facts = scenes.render_scene("scenes", index, SCENE_SEED)
        text = unjudged(scene_facts(facts), rng, count=index % 4)
        words, score = parse_critique(text), parse_score(text)
        assert int(score * 10 + 1e-6) == facts["bright"]
        said = [part for part in words.split(".") if part.strip()]
        assert len(said) == index % 4
        assert all(part.strip() + "." in scenes.describe(facts) for part in said)
        assert "bright" not in words
        assert not NO_OPINIONS.search(text)


@pytest.mark.slow
def test_brightness_is_not_correlated_with_the_scores():
    """In either set its rank correlation with the quality of 600 pictures is no larger than chance makes it."""
    for name in ("scenes", "scenes_shifted"):
        drawn = [scenes.render_scene(name, index, SCENE_SEED) for index in range(600)]
        opinions = [quality(name, factors, facts["subject"]) for _, factors, facts in drawn]
        bright = [facts["bright"] for _, _, facts in drawn]
        assert abs(spearmanr(bright, opinions).statistic) < 0.1


@pytest.mark.slow
def test_lessons_hold_facts_and_no_opinion():
    for index in range(200):
        _, _, facts = scenes.render_scene("scenes", index, SCENE_SEED)
        assert not NO_OPINIONS.search(scenes.describe(facts))
        for question, value in scenes.measure_questions(facts):
            assert not NO_OPINIONS.search(question)
            assert 0 <= value <= 1
