"""Define the small language of the offline experts: per dimension six ordered steps, two or three phrases each.

It is small on purpose: a model of a million parameters has to learn it. Words in [brackets] are used only when the fact
named in {braces} is known; an unknown {subject} is called "subject". No phrase holds a number or the words bad, fair
and good.
"""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np

from aes_r1.data.scenes import CUES, HUES, SUBJECTS

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
    ("cold mood, hardly a story[ with {cue}]", "bleak mood, hardly a story[ with {cue}]"),
    ("vague mood, thin story[ with {cue}]", "faint mood, thin story[ with {cue}]"),
    ("calm mood, some story[ with {cue}]", "quiet mood, some story[ with {cue}]"),
    ("warm mood, clear story[ with {cue}]", "tender mood, clear story[ with {cue}]"),
    ("rich mood, moving story[ with {cue}]", "magic mood, moving story[ with {cue}]"),
)
COMPOSITION = (
    ("chaotic, {subject} lost[ at the {place}]", "broken, {subject} lost[ at the {place}]"),
    ("cluttered, {subject} crowded[ at the {place}]", "messy, {subject} crowded[ at the {place}]"),
    ("loose, {subject} adrift[ at the {place}]", "uneven, {subject} adrift[ at the {place}]"),
    ("steady, {subject} set[ at the {place}]", "simple, {subject} set[ at the {place}]"),
    ("balanced, {subject} placed[ at the {place}]", "tidy, {subject} placed[ at the {place}]"),
    ("elegant, {subject} commanding[ at the {place}]", "masterful, {subject} commanding[ at the {place}]"),
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
GRADE_EDGES = (0.2, 0.4, 0.55, 0.7, 0.85)  # of the MOS; .4 and .7 are also the edges of the levels

# Phrases depend on this table alone, so its hash is the offline experts' prompt_sha256.
BOOK_SHA256 = hashlib.sha256(json.dumps([BOOK, JUDGEMENTS, GRADE_EDGES]).encode()).hexdigest()

_OPTIONAL = re.compile(r"\[([^\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
# The possible values of every fact, from which false claims are drawn.
FACT_WORDS = {
    "light": ("left", "right", "top", "back"),
    "place": ("left", "right", "center"),
    "hues": HUES,
    "brightness": ("too dark", "too bright"),
    "subject": SUBJECTS,
    "cue": CUES,
}


def grade_of(mos: float) -> int:
    """Return the grade 0..5 of a mean opinion score in [0, 1]."""
    return sum(mos >= edge for edge in GRADE_EDGES)


def step_of(factor: float) -> int:
    """Return the step 0..5 of a factor in [0, 1]; steps are equally wide."""
    return min(max(int(factor * 6), 0), 5)


def factor_of(step: int) -> float:
    """Return the middle of the range of factors that `step_of` maps to `step`."""
    return (step + 0.5) / 6


def fill_phrase(phrase: str, facts: dict[str, str]) -> str:
    """Fill the facts into `phrase`; a bracketed part whose fact is unknown is left out."""

    def optional(match: re.Match[str]) -> str:
        slot = _SLOT.search(match[1])
        return match[1] if slot is not None and facts.get(slot[1]) else ""

    return _SLOT.sub(lambda match: facts.get(match[1], match[1]), _OPTIONAL.sub(optional, phrase))


def pattern(phrase: str) -> re.Pattern[str]:
    """Return a regular expression that matches everything `phrase` can say, with its facts as named groups."""
    parts = re.split(r"(\[|\]|\{\w+\})", phrase)
    known = {"[": "(?:", "]": ")?"}
    text = "".join(
        known.get(part) or (rf"(?P<{part[1:-1]}>[a-z ]+?)" if part[:1] == "{" else re.escape(part)) for part in parts
    )
    return re.compile(text)


def write_phrase(dimension: str, step: int, facts: dict[str, str], rng: np.random.Generator) -> str:
    """Draw a phrase of a dimension at a step 0..5, as a sentence without the dimension's name."""
    choices = BOOK[dimension][step]
    return fill_phrase(choices[int(rng.integers(len(choices)))], facts) + "."


def read_phrase(dimension: str, sentence: str) -> tuple[int, dict[str, str]] | None:
    """Return step and facts that a sentence of the phrase book states, with or without its dimension's name."""
    phrase = sentence.strip().rstrip(".").lower()
    phrase = phrase.removeprefix(dimension.replace("_", " ")).lstrip(": ")
    for step, choices in enumerate(_PATTERNS[dimension]):
        for choice in choices:
            match = choice.fullmatch(phrase)
            if match:
                return step, {name: fact for name, fact in match.groupdict().items() if fact}
    return None


def read_grade(judgement: str) -> int | None:
    """Return the grade 0..5 of a judgement that begins with a sentence of the phrase book, else None."""
    sentence = judgement.strip()
    return next((grade for grade, choices in enumerate(JUDGEMENTS) if sentence.startswith(choices)), None)


def write_judgement(grade: int, rng: np.random.Generator) -> str:
    """Draw one of the sentences that express `grade`."""
    choices = JUDGEMENTS[grade]
    return choices[int(rng.integers(len(choices)))]


_PATTERNS = {name: [[pattern(phrase) for phrase in step] for step in steps] for name, steps in BOOK.items()}
