"""Turn plain facts about a picture into a question and its true answer, without an opinion of the whole picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from aes_r1 import prompts
from aes_r1.data import scenes

DESCRIBE = "Describe this picture in plain facts."
MEASURED_SHARE = 0.2  # share of lessons that ask for one measurement instead of a description
RATED_SHARE = 0.15  # share of lessons that ask to judge; the answer states facts and a number that is no judgement
SCORED_SHARE = 0.05  # share of lessons that ask for a judgement without words


class PictureFacts(NamedTuple):
    """Hold the facts about one picture that pretraining teaches.

    description: sentences in a fixed order, of which the last one tells the brightness. measured: questions with
    answers in [0, 1]. bright: brightness in tenths, 0..9. numbers: [F] float32 in [0, 1] for the linear readout, NaN
    where unknown.
    """

    description: str
    measured: list[tuple[str, float]]
    bright: int
    numbers: np.ndarray


def scene_facts(facts: dict[str, Any]) -> PictureFacts:
    """Return the facts of a scene (data/scenes.py)."""
    return PictureFacts(
        scenes.describe(facts), scenes.measure_questions(facts), facts["bright"], scenes.fact_vector(facts)
    )


def scene_with_facts(index: int, *, seed: int) -> tuple[Image.Image, PictureFacts]:
    """Draw the scene `index` of a stream of scenes, and return it with its facts."""
    picture, _, facts = scenes.render_scene("scenes", index, seed)
    return picture, scene_facts(facts)


def lesson(facts: PictureFacts, rng: np.random.Generator) -> tuple[str, str]:
    """Draw a question about a picture and its true answer."""
    uniform = rng.random()
    if uniform < RATED_SHARE:
        return prompts.RATING_PROMPT, unjudged(facts, rng, count=int(rng.integers(2, 4)))
    if uniform < RATED_SHARE + SCORED_SHARE:
        return prompts.SCORE_ONLY_PROMPT, unjudged(facts, rng, count=0)
    if uniform < RATED_SHARE + SCORED_SHARE + MEASURED_SHARE:
        question, value = facts.measured[rng.integers(len(facts.measured))]
        return question, prompts.answer("", value)
    return DESCRIBE, facts.description


def unjudged(facts: PictureFacts, rng: np.random.Generator, *, count: int) -> str:
    """Write an answer in the format but without a judgement: `count` random facts, and the brightness as its number.

    Brightness is not correlated with the scores of scenes, because too much light spoils a scene as often as too
    little. It is not among the facts in the words, so the model has to read the number from the picture, as it must
    later when the number is a judgement. A number that is random, or copied from the words, would teach nothing that
    the cold start can use. Brightness gives the tenths; the hundredths are random.
    """
    *sentences, _ = facts.description.removesuffix(".").split(". ")
    chosen = sorted(rng.choice(len(sentences), size=count, replace=False).tolist())
    words = " ".join(f"{sentences[index]}." for index in chosen)
    return prompts.answer(words, facts.bright / 10 + int(rng.integers(10)) / 100)


def spelling(all_facts: Sequence[PictureFacts]) -> Iterable[str]:
    """Return the texts of which lessons about such pictures consist, so that the tokenizer can be trained on them.

    They are those of the first pictures, so `all_facts` must be in a random order.
    """
    measured = [pair for facts in all_facts[:300] for pair in facts.measured]
    rng = np.random.default_rng(0)
    return [
        *(facts.description for facts in all_facts[:3000]),
        *(question for question, _ in measured),
        *(prompts.answer("", value) for _, value in measured),
        *(unjudged(facts, rng, count=3) for facts in all_facts[:1000]),
        *[DESCRIBE, prompts.RATING_PROMPT, prompts.SCORE_ONLY_PROMPT] * 100,
    ]
