"""The small language of the offline experts: per dimension six ordered levels, two or three phrases each.

It is small on purpose: a model of a million parameters has to learn it. Words in [brackets] are said only when the fact
named in {braces} is known. No phrase holds a number or one of the words bad, fair and good.
"""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np

LIGHT = (
    ("flat light, no shadow", "dead light, no shadow"),
    ("weak light[ from the {light}], faint shadow", "poor light[ from the {light}], faint shadow"),
    ("dull light[ from the {light}], thin shadow", "soft light[ from the {light}], thin shadow"),
    ("plain light[ from the {light}], some shadow", "even light[ from the {light}], some shadow"),
    ("clear light[ from the {light}], firm shadow", "crisp light[ from the {light}], firm shadow"),
    ("strong light[ from the {light}], deep shadow", "dramatic light[ from the {light}], deep shadow"),
)
MOOD = (
    ("empty mood, no story", "lifeless mood, no story"),
    ("cold mood, hardly a story", "bleak mood, hardly a story"),
    ("vague mood, thin story", "faint mood, thin story"),
    ("calm mood, some story", "quiet mood, some story"),
    ("warm mood, clear story", "tender mood, clear story"),
    ("rich mood, moving story", "magic mood, moving story"),
)
COMPOSITION = (
    ("chaotic, subject lost[ at the {place}]", "broken, subject lost[ at the {place}]"),
    ("cluttered, subject crowded[ at the {place}]", "messy, subject crowded[ at the {place}]"),
    ("loose, subject adrift[ at the {place}]", "uneven, subject adrift[ at the {place}]"),
    ("steady, subject set[ at the {place}]", "simple, subject set[ at the {place}]"),
    ("balanced, subject placed[ at the {place}]", "tidy, subject placed[ at the {place}]"),
    ("elegant, subject commanding[ at the {place}]", "masterful, subject commanding[ at the {place}]"),
)
COLOR = (
    ("ugly clash[ in {hues}]", "garish clash[ in {hues}]"),
    ("harsh hues[ in {hues}]", "jarring hues[ in {hues}]"),
    ("muddy hues[ in {hues}]", "tired hues[ in {hues}]"),
    ("modest hues[ in {hues}]", "usual hues[ in {hues}]"),
    ("pleasant harmony[ in {hues}]", "fresh harmony[ in {hues}]"),
    ("beautiful harmony[ in {hues}]", "glowing harmony[ in {hues}]"),
)
EXPOSURE = (
    ("ruined[, {brightness}], detail gone", "failed[, {brightness}], detail gone"),
    ("badly off[, {brightness}], much detail hidden", "rough[, {brightness}], much detail hidden"),
    ("off[, {brightness}], some detail hidden", "wrong[, {brightness}], some detail hidden"),
    ("usable, most detail kept", "passable, most detail kept"),
    ("sound, detail kept", "careful, detail kept"),
    ("perfect, every detail kept", "exact, every detail kept"),
)
BOOK = {
    "light_and_shadow": LIGHT,
    "mood_and_narrative": MOOD,
    "composition": COMPOSITION,
    "color": COLOR,
    "exposure": EXPOSURE,
}
JUDGEMENTS = (
    ("A terrible picture.", "A dreadful picture."),
    ("A weak picture.", "A lacking picture."),
    ("A mixed picture.", "A middling picture."),
    ("A decent picture.", "A solid picture."),
    ("A strong picture.", "A fine picture."),
    ("A superb picture.", "A stunning picture."),
)
GRADE_EDGES = (0.2, 0.4, 0.55, 0.7, 0.85)  # in mos; .4 and .7 are the levels' own edges

# Phrases depend on this table alone, so its hash is the offline experts' prompt_sha256.
BOOK_SHA256 = hashlib.sha256(json.dumps([BOOK, JUDGEMENTS, GRADE_EDGES]).encode()).hexdigest()

_OPTIONAL = re.compile(r"\[([^\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def grade_of(mos: float) -> int:
    """Grade 0..5 of a mean opinion score in [0, 1]."""
    return sum(mos >= edge for edge in GRADE_EDGES)


def step_of(factor: float) -> int:
    """Step 0..5 of a factor in [0, 1], equal widths."""
    return min(max(int(factor * 6), 0), 5)


def fill(phrase: str, facts: dict[str, str]) -> str:
    """`phrase` with its facts filled in; a bracketed part whose fact is unknown is left out."""

    def optional(match: re.Match[str]) -> str:
        slot = _SLOT.search(match[1])
        known = slot is not None and facts.get(slot[1])
        return match[1].replace(f"{{{slot[1]}}}", facts[slot[1]]) if slot and known else ""

    return _OPTIONAL.sub(optional, phrase)


def say(dimension: str, step: int, facts: dict[str, str], rng: np.random.Generator) -> str:
    """One phrase of a dimension at a step 0..5, as a sentence without the dimension's name."""
    choices = BOOK[dimension][step]
    return fill(choices[int(rng.integers(len(choices)))], facts) + "."


def judge_aloud(grade: int, rng: np.random.Generator) -> str:
    choices = JUDGEMENTS[grade]
    return choices[int(rng.integers(len(choices)))]
