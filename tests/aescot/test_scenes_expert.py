import numpy as np
import pytest

from aes_r1.aescot.filters import form_reasons
from aes_r1.aescot.phrases import grade_of, read_grade, read_phrase, step_of
from aes_r1.aescot.scenes_expert import PLANTS, draw_plant, planted_critique, scenes_critique
from aes_r1.prompts import DIMENSIONS, level_of

FACTS = {
    "light": "left",
    "place": "right",
    "hues": "blue",
    "brightness": "too dark",
    "subject": "boat",
    "cues": ["birds", "moon"],
}


def factors(rng):
    return {name: float(rng.random()) for name in DIMENSIONS}


def test_every_dimension_tells_its_step_and_the_verdict_follows_the_score():
    rng = np.random.default_rng(0)
    for _ in range(200):
        true, mos = factors(rng), float(rng.random())
        reply = scenes_critique(true, FACTS, mos, rng)
        for name in DIMENSIONS:
            step, told = read_phrase(name, reply.dimensions[name])
            assert step == step_of(true[name])
            assert all(word in (FACTS.get(fact), *FACTS["cues"]) for fact, word in told.items())
        assert read_grade(reply.judgement) == grade_of(mos)


@pytest.mark.slow
def test_critiques_are_short_named_and_the_same_for_the_same_seed():
    rng = np.random.default_rng(1)
    for seed in range(100):
        true, mos = factors(rng), float(rng.random())
        reply = scenes_critique(true, FACTS, mos, np.random.default_rng(seed))
        assert reply == scenes_critique(true, FACTS, mos, np.random.default_rng(seed))
        assert 30 <= len(reply.critique.split()) <= 50
        assert reply.critique.startswith("Light and shadow: ")
        assert all(
            f" {name}: " in reply.critique for name in ("Mood and narrative", "Composition", "Color", "Exposure")
        )
        assert form_reasons(reply, mos, min_words=20, max_words=80) == {}


def test_facts_that_are_not_known_are_left_out():
    reply = scenes_critique(dict.fromkeys(DIMENSIONS, 0.5), {}, 0.5, np.random.default_rng(0))
    assert "{" not in reply.critique
    assert "[" not in reply.critique
    assert "subject" in reply.dimensions["composition"]


def test_plants_come_at_their_rates():
    rng = np.random.default_rng(0)
    drawn = [draw_plant({"leak": 0.1, "align": 0.2, "fact": 0.0}, rng) for _ in range(5000)]
    assert drawn.count("leak") / 5000 == pytest.approx(0.1, abs=0.015)
    assert drawn.count("align") / 5000 == pytest.approx(0.2, abs=0.02)
    assert drawn.count("fact") == 0


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.slow
def test_a_planted_error_is_of_its_kind_alone(kind):
    rng = np.random.default_rng(0)
    for _ in range(200):
        true, mos = factors(rng), float(rng.random())
        reply = planted_critique(kind, true, FACTS, mos, rng)
        assert ("leak" in form_reasons(reply, mos, min_words=20, max_words=80)) == (kind == "leak")
        told_level = level_of((0.1, 0.3, 0.475, 0.625, 0.775, 0.925)[read_grade(reply.judgement)])
        assert (told_level != level_of(mos)) == (kind == "align")
        told = {name: read_phrase(name, reply.dimensions[name]) for name in DIMENSIONS}
        far = any(abs(step - step_of(true[name])) >= 3 for name, (step, _) in told.items())
        false = any(
            word not in (FACTS[fact] if fact != "cue" else FACTS["cues"])
            for _, facts in told.values()
            for fact, word in facts.items()
        )
        assert (far or false) == (kind == "fact")


def test_leaks_are_planted_in_every_listed_form():
    """The score in digits, "given", out of ten, percent, spelled out, "rating", the hidden level as a label."""
    rng = np.random.default_rng(0)
    told = [planted_critique("leak", factors(rng), FACTS, 0.63, rng).judgement for _ in range(300)]
    for words in ("score is 0.63", "given 0.63", "6 out of ten", "63 percent", "Sixty-three out of a hundred",
                  "fair rating", "level is fair"):  # fmt: skip
        assert any(words in judgement for judgement in told), words


def test_a_false_claim_is_found_even_where_every_cue_is_there():
    facts = {"cues": ["birds", "moon", "companion", "path", "balloon"]}
    for seed in range(50):
        reply = planted_critique("fact", dict.fromkeys(DIMENSIONS, 0.9), facts, 0.9, np.random.default_rng(seed))
        steps = [read_phrase(name, reply.dimensions[name])[0] for name in DIMENSIONS]
        assert sum(abs(step - step_of(0.9)) >= 3 for step in steps) == 1
