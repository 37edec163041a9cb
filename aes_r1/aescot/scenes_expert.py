"""Write critiques of synthetic scenes offline, from their true factors.

Errors are planted at set rates, so that the filters can be measured against known errors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from aes_r1.aescot.leak_rules import TEENS, TENS, UNITS
from aes_r1.aescot.phrases import (
    BOOK,
    FACT_WORDS,
    JUDGEMENTS,
    grade_of,
    read_phrase,
    step_of,
    write_judgement,
    write_phrase,
)
from aes_r1.aescot.record import Reply
from aes_r1.prompts import DIMENSIONS, level_of

PLANTS = ("leak", "align", "fact")
_LEAKS = (
    "The score is {score}.",
    "I was given {score} for it.",
    "Worth {tenths} out of ten.",
    "About {percent} percent.",
    "{spelled} out of a hundred.",
    "This matches its {level} rating.",
    "Its level is {level}.",
)


def scenes_critique(factors: dict[str, float], facts: dict[str, Any], mos: float, rng: np.random.Generator) -> Reply:
    """Write a true critique: a phrase per factor (0..1) at its step, with facts, and a judgement that follows `mos`."""
    return _critique(factors, phrase_facts(facts, rng), mos, rng)


def phrase_facts(facts: dict[str, Any], rng: np.random.Generator) -> dict[str, str]:
    """Return the facts of a scene that the phrases can name; one of several cues is drawn."""
    known = {name: str(facts[name]) for name in FACT_WORDS if facts.get(name)}
    cues = list(facts.get("cues") or ())
    return {**known, "cue": str(cues[int(rng.integers(len(cues)))])} if cues else known


def _critique(factors: dict[str, float], words: dict[str, str], mos: float, rng: np.random.Generator) -> Reply:
    sentences = {name: write_phrase(name, step_of(factors[name]), words, rng) for name in DIMENSIONS}
    return Reply(sentences, write_judgement(grade_of(mos), rng))


def draw_plant(rates: dict[str, float], rng: np.random.Generator) -> str | None:
    """Draw the error, if any, of the next critique; `rates` maps names of PLANTS to probabilities."""
    edges = np.cumsum([rates.get(name, 0.0) for name in PLANTS])
    index = int(np.searchsorted(edges, rng.random(), side="right"))
    return PLANTS[index] if index < len(PLANTS) else None


def planted_critique(
    kind: str, factors: dict[str, float], facts: dict[str, Any], mos: float, rng: np.random.Generator
) -> Reply:
    """Write a critique with one error of `kind`: it leaks the score, judges another level or makes a false claim."""
    if kind == "fact":
        return _false_claim(factors, facts, mos, rng)
    reply = scenes_critique(factors, facts, mos, rng)
    if kind == "align":
        others = [grade for grade in range(len(JUDGEMENTS)) if _level_of_grade(grade) != level_of(mos)]
        others = [grade for grade in others if abs(grade - grade_of(mos)) >= 2] or others
        return replace(reply, judgement=write_judgement(int(rng.choice(others)), rng))
    template = _LEAKS[int(rng.integers(len(_LEAKS)))]
    percent = round(mos * 100)
    values = {"tenths": round(mos * 10), "percent": percent, "spelled": _spelled(percent).capitalize()}
    leak = template.format(score=f"{mos:.2f}", level=level_of(mos), **values)
    return replace(reply, judgement=f"{reply.judgement} {leak}")


def _spelled(number: int) -> str:
    """Spell a whole number from 0 to 100 in words."""
    if number < 20:
        return (*UNITS, *TEENS)[number]
    if number == 100:
        return "one hundred"
    tens, units = divmod(number, 10)
    return TENS[tens - 2] + (f"-{UNITS[units]}" if units else "")


def _level_of_grade(grade: int) -> str:
    return ("bad", "bad", "fair", "fair", "good", "good")[grade]


def _false_claim(factors: dict[str, float], facts: dict[str, Any], mos: float, rng: np.random.Generator) -> Reply:
    """Write a critique in which one named fact is false, or one dimension is at least three steps off the truth."""
    words = phrase_facts(facts, rng)
    sentences = [read_phrase(name, write_phrase(name, step_of(factors[name]), words, rng)) for name in DIMENSIONS]
    stated = {name for sentence in sentences if sentence for name in sentence[1] if name in words}
    false_words = {name: others for name in sorted(stated) if (others := _false_words(name, words[name], facts))}
    if false_words and rng.random() < 0.5:
        name = str(rng.choice(list(false_words)))
        return _critique(factors, {**words, name: str(rng.choice(false_words[name]))}, mos, rng)
    dimension = DIMENSIONS[int(rng.integers(len(DIMENSIONS)))]
    step = step_of(factors[dimension])
    far = [other for other in range(len(BOOK[dimension])) if abs(other - step) >= 3]
    return _critique({**factors, dimension: (int(rng.choice(far)) + 0.5) / 6}, words, mos, rng)


def _false_words(fact: str, truth: str, facts: dict[str, Any]) -> list[str]:
    """Return the words that are false for a fact; none where every word is true, as with all cues in one picture."""
    true = set(facts.get("cues") or ()) if fact == "cue" else {truth}
    return [word for word in FACT_WORDS[fact] if not any(word in held for held in true)]


def expert_corpus() -> list[str]:
    """Return critiques of every kind that the offline experts write, to train a tokenizer that encodes them briefly."""
    rng = np.random.default_rng(0)
    rows = [(rng.random(5), rng.random()) for _ in range(2000)]
    return [
        scenes_critique(dict(zip(DIMENSIONS, factors, strict=True)), _random_facts(rng), mos, rng).critique
        for factors, mos in rows
    ]


def _random_facts(rng: np.random.Generator) -> dict[str, Any]:
    facts = {name: str(rng.choice(values)) for name, values in FACT_WORDS.items() if name != "cue"}
    return {**facts, "cues": [str(rng.choice(FACT_WORDS["cue"]))]}
