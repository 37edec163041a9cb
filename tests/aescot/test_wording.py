"""The meaning of words: exact for the phrase book, by a list of opposites for other prose."""

import numpy as np
import pytest

from aes_r1.aescot.phrases import grade_of, step_of
from aes_r1.aescot.scenes_expert import scenes_critique
from aes_r1.aescot.wording import OPPOSITES, TOUCHED, negated, split_dimensions, stated_level, stated_steps, valence
from aes_r1.prompts import DIMENSIONS, level_of

FACTS = {
    "light": "left",
    "subject": "boat",
    "place": "right",
    "hues": "red",
    "cues": ["moon"],
    "brightness": "too dark",
}
PROSE = "The lighting is strong and dramatic, and the balanced frame draws the eye. Colors are rich. A superb picture."


def spoken(rng):
    factors = dict(zip(DIMENSIONS, rng.random(5).tolist(), strict=True))
    mos = float(rng.random())
    return scenes_critique(factors, FACTS, mos, rng).critique, factors, mos


@pytest.mark.parametrize(
    ("critique", "texts"),
    [
        ("Color: warm. Exposure: even. Color: harsh. A calm end.", {"color": "warm. harsh.", "exposure": "even."}),
        ("Color: warm. Colour: harsh. Color: rich. A calm end.", {"color": "warm. harsh. rich."}),
        (
            "Light and shadow: soft. Light & shadow: deep. Exposure: even. A calm end.",
            {"light_and_shadow": "soft. deep.", "exposure": "even."},
        ),
    ],
)
def test_what_is_said_of_a_dimension_in_several_places_is_joined(critique, texts):
    assert split_dimensions(critique) == (texts, "A calm end.")


@pytest.mark.parametrize("seed", range(30))
def test_the_phrase_book_is_understood_and_turned_round(seed):
    critique, factors, mos = spoken(np.random.default_rng(seed))
    steps = {name: step_of(factors[name]) for name in DIMENSIONS}
    assert stated_steps(critique) == steps
    assert stated_level(critique) == level_of((0.1, 0.3, 0.475, 0.625, 0.775, 0.925)[grade_of(mos)])
    opposite = negated(critique)
    assert stated_steps(opposite) == {name: 5 - step for name, step in steps.items()}
    assert valence(opposite) == pytest.approx(1 - valence(critique))
    assert all(pattern.search(critique) for pattern in TOUCHED.values())


def test_prose_is_turned_round_word_by_word_and_back():
    opposite = negated(PROSE)
    assert "weak and lifeless" in opposite
    assert "A terrible picture." in opposite
    assert negated(opposite) == PROSE
    assert valence(PROSE) == 1.0
    assert valence(opposite) == 0.0
    assert (stated_level(PROSE), stated_level(opposite)) == ("good", "bad")


def test_every_word_has_one_opposite():
    words = [word for pair in OPPOSITES for word in pair]
    assert len(set(words)) == len(words)


def test_words_that_judge_nothing():
    assert valence("A house by a lake.") is None
    assert stated_level("A house by a lake.") is None
    assert negated("A house by a lake.") == "A house by a lake."
    assert stated_steps("Composition: diagonal lines lead to the house. Nice.") == {}


def test_parts_by_any_spelling_of_their_names():
    texts, judgement = split_dimensions("**Light & Shadow:** soft. Colour: warm. A fine picture.")
    assert texts == {"light_and_shadow": "soft.", "color": "warm."}
    assert judgement == "A fine picture."
