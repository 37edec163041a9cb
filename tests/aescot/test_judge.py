import asyncio

import numpy as np
import pytest

from aes_r1.aescot.judge import JudgeVerdict, ScenesJudge, misaligned, read_rating, read_verdict
from aes_r1.aescot.scenes_expert import scenes_critique
from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"level": "fair", "score": 0.5, "unsupported_claims": []}', JudgeVerdict("fair", 0.5, ())),
        (
            'Sure: {"level": "Good ", "score": 1, "unsupported_claims": ["a dog", " "]}',
            JudgeVerdict("good", 1, ("a dog",)),
        ),
        ('{"level": "bad", "score": null, "unsupported_claims": []}', JudgeVerdict("bad", None, ())),
        ('{"level": "great", "score": 0.5, "unsupported_claims": []}', None),
        ('{"level": "fair", "score": 5, "unsupported_claims": []}', None),
        ('{"level": "fair", "score": true, "unsupported_claims": []}', None),
        ('{"level": "fair", "score": 0.5}', None),
        ("fair, 0.5", None),
    ],
)
def test_a_verdict_is_read_strictly(text, verdict):
    assert read_verdict(text)[0] == verdict


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ('{"rating": 7}', 7.0),
        ('Sure: {"Rating": "6.5"} I hope that helps.', 6.5),
        ('{"rating": 2} no, wait: {"rating": 3}', 3.0),
        ('{"verdict": {"rating": 10}}', 10.0),
        ('{"rating": 0}', 0.0),
        ('{"rating": 10.5}', None),
        ('{"rating": -1}', None),
        ('{"rating": true}', None),
        ('{"rating": NaN}', None),
        ('{"rating": "7/10"}', None),
        ('{"rating": [7]}', None),
        ('{"score": 7}', None),
        ("7", None),
        ("", None),
    ],
)
def test_a_rating_is_read_strictly(text, rating):
    assert read_rating(text)[0] == rating


@pytest.mark.parametrize(
    ("verdict", "mos", "agrees"),
    [
        (JudgeVerdict("fair", 0.5, ()), 0.6, True),
        (JudgeVerdict("fair", 0.5, ()), 0.75, False),
        (JudgeVerdict("good", 0.95, ()), 0.72, False),
        (JudgeVerdict("good", None, ()), 0.72, True),
    ],
)
def test_level_and_score_must_both_agree(verdict, mos, agrees):
    assert (misaligned(verdict, mos, 0.2) is None) == agrees


def sample(factors, facts):
    return Sample("a", "a.png", 0.5, "scenes", "train", attributes={"factors": factors, "facts": facts})


def test_the_scenes_judge_reads_the_words_and_knows_the_factors():
    true, facts = dict.fromkeys(DIMENSIONS, 0.9), {"light": "left", "place": "right", "cues": ["moon"]}
    told = scenes_critique(true, facts, 0.5, np.random.default_rng(0))
    judge = ScenesJudge()
    assert asyncio.run(judge.align(sample(true, facts), told)).level == "fair"
    assert asyncio.run(judge.fact(sample(true, facts), told)).unsupported_claims == ()
    other = {"light": "right", "place": "right", "cues": ["birds"]}
    assert set(asyncio.run(judge.fact(sample(true, other), told)).unsupported_claims) == {"left", "moon"}
    darker = {**true, "exposure": 0.1}
    (claim,) = asyncio.run(judge.fact(sample(darker, facts), told)).unsupported_claims
    assert claim == told.dimensions["exposure"]
