"""Plain facts of photographs: ranks among them, digits that follow what is measured, and no opinion of a whole one."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from aes_r1.inference.handmade import NAMES
from aes_r1.inference.photograph_facts import measured, photograph_facts, ranks
from aes_r1.prompts import DIMENSIONS
from aes_r1.trainer.lessons import lesson, unjudged
from tests.conftest import picture
from tests.trainer.test_lessons import NO_OPINIONS


def darker_and_darker(count: int) -> list[Image.Image]:
    return [ImageEnhance.Brightness(picture(90, 60)).enhance(1 - place / count) for place in range(count)]


def test_a_rank_is_the_share_of_the_others_that_have_less():
    values = np.array([[3.0, 1.0], [1.0, np.nan], [2.0, 1.0], [9.0, 4.0], [2.0, np.nan]])
    expected = [[0.75, 0.25], [0, np.nan], [0.375, 0.25], [1, 1], [0.375, np.nan]]
    assert ranks(values) == pytest.approx(np.array(expected), nan_ok=True)
    assert ranks(np.array([[7.0]])) == pytest.approx(0)


@pytest.mark.slow
def test_the_numbers_are_ranks_of_the_measures_and_of_the_ratings():
    looks = [measured(one) for one in darker_and_darker(11)]
    ratings = [{"composition": place / 10} for place in range(11)]
    facts = photograph_facts(looks, ratings)
    table = np.stack([one.numbers for one in facts])
    assert table.shape == (11, len(NAMES) + len(DIMENSIONS))
    assert table[:, NAMES.index("brightness")] == pytest.approx(np.linspace(1, 0, 11))
    assert table[:, len(NAMES) + DIMENSIONS.index("composition")] == pytest.approx(np.linspace(0, 1, 11))
    assert np.isnan(table[:, len(NAMES) + DIMENSIONS.index("color")]).all()
    assert np.nanmin(table) >= 0
    assert np.nanmax(table) <= 1
    assert [int(re.search(r"composition (\d)", one.description)[1]) for one in facts] == [*range(10), 9]
    assert facts[0].bright > facts[-1].bright == 0


@pytest.mark.slow
def test_lessons_about_a_photograph_hold_facts_and_no_opinion():
    rng = np.random.default_rng(0)
    looks = [measured(one) for one in (*darker_and_darker(5), Image.new("RGB", (1, 1)))]
    for ratings in ({}, {"light_and_shadow": 0.7, "mood_and_narrative": 0.2}):
        for facts in photograph_facts(looks, [ratings] * len(looks)):
            assert ("light and shadow" in facts.description) == bool(ratings)
            assert not NO_OPINIONS.search(facts.description)
            assert "bright" not in unjudged(facts, rng, count=3)
            assert all(0 <= value <= 1 for _, value in facts.measured)
            for _ in range(10):
                assert all(lesson(facts, rng))
