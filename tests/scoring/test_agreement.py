"""Agreement of words and score, computed by hand, and which pairs contradict each other."""

import pytest

from aes_r1.aescot.phrases import BOOK, GRADE_EDGES, JUDGEMENTS, fill_phrase
from aes_r1.aescot.record import Reply
from aes_r1.inference.asking import ModelProfile, saw_scenes_alone
from aes_r1.scoring.agreement import word_score_agreement
from aes_r1.settings import Settings, as_dict, build_settings


def said(step, grade):
    """A critique of the phrase book at one step throughout, with a judgement."""
    return Reply(
        {name: fill_phrase(steps[step][0], {}) + "." for name, steps in BOOK.items()}, JUDGEMENTS[grade][0]
    ).critique


def leaning(mean, grade):
    """A critique of the phrase book whose dimensions' steps have the mean `mean`, with a judgement."""
    upper = round((mean - int(mean)) * len(BOOK))
    steps = [int(mean) + (index < upper) for index in range(len(BOOK))]
    texts = {name: fill_phrase(BOOK[name][step][0], {}) + "." for name, step in zip(BOOK, steps, strict=True)}
    return Reply(texts, JUDGEMENTS[grade][0]).critique


def test_by_hand():
    assert word_score_agreement(said(4, 4), 0.75) == (0.8, pytest.approx(0.95), None)
    assert word_score_agreement(said(4, 4), 0.34) == (0.8, pytest.approx(0.54), "words say good, number says 0.34")
    assert word_score_agreement(said(0, 0), 0.9) == (0.0, pytest.approx(0.1), "words say bad, number says 0.90")


def test_a_closing_judgement_counts_by_itself():
    """A score of .34 beside "A strong picture." is a contradiction, whatever the dimensions say."""
    words = said(1, 4)
    assert words.endswith("A strong picture.")
    assert word_score_agreement(words, 0.34) == (0.2, pytest.approx(0.86), "closing words say good, number says 0.34")
    assert (
        word_score_agreement(words, 0.6).contradiction == "words say bad, number says 0.60"
    )  # .4 off, the closing .25


@pytest.mark.parametrize(
    ("step", "grade", "score", "claim"),
    [
        (2, 0, 0.66, "closing words say bad, number says 0.66"),  # all words .4 are .26 off
        (1.8, 0, 0.59, "closing words say bad, number says 0.59"),  # all words .36 are bad as well, but .23 off
        (1.8, 0, 0.54, None),
        (3.8, 5, 0.45, "closing words say good, number says 0.45"),  # all words .76 are good as well, but .31 off
        (3.8, 5, 0.51, None),
        (0, 0, 0.9, "words say bad, number says 0.90"),  # both are apart and say the same: one is named
    ],
)
def test_a_closing_judgement_counts_also_where_all_words_are_of_its_level(step, grade, score, claim):
    words = leaning(step, grade)
    assert word_score_agreement(words, score).words == pytest.approx(step / 5)
    assert word_score_agreement(words, score).contradiction == claim


def test_any_other_prose_by_its_words():
    assert (
        word_score_agreement("A stunning, elegant and vivid frame.", 0.2).contradiction
        == "words say good, number says 0.20"
    )
    assert word_score_agreement("A house by a lake.", 0.2) == (None, None, None)


@pytest.mark.parametrize(("critique", "score"), [(None, None), (None, 0.5), ("", 0.5)])
def test_nothing_to_compare(critique, score):
    assert word_score_agreement(critique, score) == (None, None, None)


def test_words_without_a_score_are_still_read():
    assert word_score_agreement(said(5, 5), None) == (1.0, None, None)


@pytest.mark.parametrize("step", range(6))
def test_an_expert_who_tells_the_truth_is_never_flagged(step):
    """Every step with the judgement of its own grade, and the scores that the grade stands for."""
    edges = (0.03, *GRADE_EDGES, 0.97)
    for score in (edges[step], edges[step + 1] - 0.01):
        assert word_score_agreement(said(step, step), score).contradiction is None


@pytest.mark.parametrize(
    ("values", "alone"),
    [
        ({}, True),
        ({"data": {"name": "scenes_harsh"}}, True),
        ({"data": {"name": "para"}}, False),
        ({"model": {"path": "Qwen/Qwen2.5-VL-3B-Instruct"}}, False),
        ({"cold_start": {"data": "aescot.jsonl"}}, False),
        ({"trainer": {"init_from": "runs/other/model"}}, False),
    ],
)
def test_who_never_saw_a_photograph(values, alone):
    assert saw_scenes_alone(as_dict(build_settings(Settings, values))) is alone
    said_above = ModelProfile(scenes_alone=alone).warning()
    assert (said_above is not None and "never a photograph" in said_above) is alone
