import re

import numpy as np
import pytest

from aes_r1.aescot.leak import find_leak
from aes_r1.aescot.phrases import (
    BOOK,
    FACT_WORDS,
    GRADE_EDGES,
    JUDGEMENTS,
    fill_phrase,
    grade_of,
    read_grade,
    read_phrase,
    step_of,
    write_phrase,
)
from aes_r1.prompts import level_of

FACTS = {name: words[0] for name, words in FACT_WORDS.items()}


@pytest.mark.parametrize("dimension", BOOK)
@pytest.mark.parametrize("facts", [FACTS, {}])
def test_what_is_said_is_heard_again(dimension, facts):
    rng = np.random.default_rng(0)
    for step in range(6):
        for _ in range(8):
            sentence = write_phrase(dimension, step, facts, rng)
            heard_step, told = read_phrase(dimension, sentence)
            assert heard_step == step
            assert told == {name: facts.get(name, name) for name in told}


def test_a_name_may_lead_the_sentence_and_other_words_are_not_understood():
    assert read_phrase("light_and_shadow", "Light and shadow: strong light from the left, deep shadow.") == (
        5,
        {"light": "left"},
    )
    assert read_phrase("light_and_shadow", "A lamp glows.") is None
    assert read_grade("Who knows.") is None


def test_grades_follow_the_levels():
    assert [grade_of(mos) for mos in (0.0, 0.2, 0.4, 0.55, 0.7, 0.85, 1.0)] == [0, 1, 2, 3, 4, 5, 5]
    for mos in np.linspace(0, 1, 101):
        assert level_of(float(mos)) == ("bad", "bad", "fair", "fair", "good", "good")[grade_of(float(mos))]
    assert len(JUDGEMENTS) == len(GRADE_EDGES) + 1


def test_steps_are_six_of_equal_width():
    assert [step_of(value) for value in (0.0, 0.16, 0.17, 0.5, 0.84, 1.0)] == [0, 0, 1, 3, 5, 5]


def test_no_phrase_is_said_twice_holds_a_number_or_leaks():
    phrases = [phrase for steps in BOOK.values() for step in steps for phrase in step]
    told = [fill_phrase(phrase, FACTS) for phrase in phrases] + [message for grade in JUDGEMENTS for message in grade]
    assert len(set(told)) == len(told)
    for sentence in told:
        assert not re.search(r"\d|\b(?:bad|fair|good)\b", sentence)
        assert find_leak(sentence, 0.5) is None


def test_the_vocabulary_stays_small():
    phrases = [fill_phrase(phrase, {}) for steps in BOOK.values() for step in steps for phrase in step]
    assert len({word for phrase in phrases for word in re.findall(r"[a-z]+", phrase)}) < 120
