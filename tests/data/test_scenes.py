from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from aes_r1.data import scenes
from aes_r1.prompts import DIMENSIONS

OPINIONS = ("good", "bad", "fair", "beautiful", "ugly", "score", "quality", "aesthetic", "nice", "weak", "superb")


@pytest.fixture(scope="module")
def drawn():
    return [scenes.render_scene("scenes", index, 5) for index in range(200)]


def test_a_scene_is_a_function_of_its_name_seed_and_index():
    first, again = scenes.render_scene("scenes", 7, 1), scenes.render_scene("scenes", 7, 1)
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1:] == again[1:]
    others = [scenes.render_scene("scenes", 8, 1), scenes.render_scene("scenes", 7, 2), scenes.render_scene("x", 7, 1)]
    assert all(other[0].tobytes() != first[0].tobytes() for other in others)


def test_factors_are_shares_and_little_correlated(drawn):
    values = np.array([[factors[name] for name in DIMENSIONS] for _, factors, _ in drawn])
    assert values.min() >= 0
    assert values.max() <= 1
    between = spearmanr(values).statistic[np.triu_indices(5, 1)]
    assert between.mean() < 0.35
    assert values.std(axis=0).min() > 0.2


@pytest.mark.parametrize(
    ("dimension", "fact", "sign"),
    [
        ("light_and_shadow", lambda facts: facts["strength"], 1),
        ("mood_and_narrative", lambda facts: len(facts["cues"]), 1),
        ("composition", lambda facts: facts["tilt"], -1),
        ("composition", lambda facts: facts["clutter"], -1),
        ("color", lambda facts: facts["saturation"], 1),
        ("exposure", lambda facts: facts["off"], -1),
    ],
)
def test_facts_follow_their_factor(drawn, dimension, fact, sign):
    pairs = [(factors[dimension], fact(facts)) for _, factors, facts in drawn]
    assert sign * spearmanr(pairs).statistic > 0.9


def test_what_is_seen_is_measured(drawn):
    bright = [(np.asarray(picture).mean(), facts["bright"]) for picture, _, facts in drawn]
    assert spearmanr(bright).statistic > 0.97


def test_the_unseen_set_has_other_formats(drawn):
    assert {picture.size for picture, _, _ in drawn} == {(192, 192)}
    sizes = {scenes.render_scene("scenes_shifted", index, 0)[0].size for index in range(4)}
    assert sizes == {(224, 160), (160, 224)}


def test_facts_hold_no_opinion(drawn):
    for _, _, facts in drawn[:50]:
        text = scenes.describe(facts) + " ".join(question for question, _ in scenes.measure_questions(facts))
        assert not [word for word in OPINIONS if word in text.lower()]
        assert all(0 <= value <= 1 for _, value in scenes.measure_questions(facts))


def test_fact_vector(drawn):
    vectors = np.stack([scenes.fact_vector(facts) for _, _, facts in drawn])
    assert vectors.shape == (200, 36)
    assert vectors.min() >= 0
    assert vectors.max() <= 1
    assert (vectors.std(axis=0) > 0).all()
