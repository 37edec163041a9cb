"""Interpret the words of a critique: the dimensions it touches, how it judges them, and what its opposite would say.

The phrase book of the offline experts is understood exactly; other prose by a list of opposites.
"""

from __future__ import annotations

import re

import numpy as np

from aes_r1.aescot.judge import GRADE_CENTRES
from aes_r1.aescot.phrases import JUDGEMENTS, factor_of, read_grade, read_phrase, write_phrase
from aes_r1.aescot.record import DIMENSION_NAMES, Reply
from aes_r1.prompts import DIMENSIONS, level_of, split_critique

TOP_STEP = 5  # the highest step of a dimension, and grade of the closing judgement

# Words that a critique of a dimension can hardly do without.
_TOUCHED = {
    "light_and_shadow": r"light(?:ing|s|ed)?|shadows?|sunlit|sunlight|backlit|backlight|highlights?|illuminat\w+",
    "mood_and_narrative": r"mood\w*|narrativ\w+|stor(?:y|ies)|emotion\w*|atmospher\w+|gestures?|symbol\w*|tension",
    "composition": r"compos\w+|fram(?:e|ed|ing)|balanc\w+|thirds|symmetr\w+|perspective|background|clutter\w*",
    "color": r"colou?r\w*|hues?|palette|saturat\w+|tones?|tonal|warm|cool|complementary|monochrom\w+",
    "exposure": r"expos\w+|brightness|overexposed|underexposed|dynamic range|blown|clipp\w+|high[- ]key|low[- ]key",
}
TOUCHED = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in _TOUCHED.items()}

# Pairs of a favourable word and its opposite.
OPPOSITES = (
    ("strong", "weak"), ("balanced", "unbalanced"), ("beautiful", "ugly"), ("superb", "terrible"),
    ("excellent", "poor"), ("good", "bad"), ("stunning", "dreadful"), ("fine", "lacking"), ("solid", "middling"),
    ("harmonious", "clashing"), ("pleasing", "unpleasant"), ("clear", "muddled"), ("clean", "cluttered"),
    ("sharp", "blurry"), ("vivid", "dull"), ("rich", "flat"), ("dramatic", "lifeless"), ("compelling", "uninspired"),
    ("elegant", "clumsy"), ("engaging", "boring"), ("well", "badly"), ("effective", "ineffective"),
    ("successful", "failed"), ("careful", "careless"), ("precise", "sloppy"), ("refined", "crude"),
    ("coherent", "incoherent"), ("deep", "shallow"), ("enhances", "weakens"), ("draws", "loses"),
    ("supports", "undermines"), ("appealing", "unappealing"), ("interesting", "ordinary"), ("crisp", "soft"),
    ("masterful", "amateurish"), ("perfect", "ruined"), ("tidy", "messy"), ("fresh", "tired"), ("warm", "cold"),
    ("lively", "empty"), ("natural", "artificial"),
)  # fmt: skip
_OPPOSITE_OF = {a: b for pair in OPPOSITES for a, b in (pair, pair[::-1])}
_GOOD = {good for good, _ in OPPOSITES}
_BAD = {bad for _, bad in OPPOSITES}
_WORD = re.compile(r"[A-Za-z]+")
_KEYS = {name.lower(): key for key, name in DIMENSION_NAMES.items()}


def split_dimensions(critique: str) -> tuple[dict[str, str], str]:
    """Split a critique into the texts of the dimensions that it names, and its closing judgement.

    Texts about the same dimension in several places are joined.
    """
    named, judgement = split_critique(critique)
    texts: dict[str, str] = {}
    for name, text in named:
        key = _KEYS.get(name.lower().replace("&", "and").replace("colour", "color"))
        if key is not None:
            texts[key] = f"{texts[key]} {text}" if key in texts else text
    return texts, judgement


def stated_steps(critique: str) -> dict[str, int]:
    """Return the step 0..5 of each dimension that is described in the words of the phrase book."""
    phrases = {name: read_phrase(name, text) for name, text in split_dimensions(critique)[0].items()}
    return {name: phrase[0] for name, phrase in phrases.items() if phrase is not None}


def stated_values(critique: str) -> dict[str, float]:
    """Rate each dimension 0..1: the middle of its step in the phrase book, else its share of favourable words.

    A dimension without a judging word is left out.
    """
    values = {}
    for name, text in split_dimensions(critique)[0].items():
        phrase = read_phrase(name, text)
        good, bad = _count_judging_words(text)
        if phrase is not None:
            values[name] = factor_of(phrase[0])
        elif good + bad:
            values[name] = good / (good + bad)
    return values


def stated_level(critique: str) -> str | None:
    """Return the level of the closing judgement, bad, fair or good; None if it holds no judging word."""
    judgement = split_dimensions(critique)[1]
    grade = read_grade(judgement)
    if grade is not None:
        return level_of(GRADE_CENTRES[grade])
    good, bad = _count_judging_words(judgement)
    return None if good + bad == 0 else "good" if good > bad else "bad" if bad > good else "fair"


def valence(critique: str) -> float | None:
    """Return how favourable the words are, 0..1: mean step of the phrase book, else share of good words, or None."""
    steps = stated_steps(critique)
    if steps:
        return float(np.mean(list(steps.values()))) / TOP_STEP
    good, bad = _count_judging_words(critique)
    return good / (good + bad) if good + bad else None


def negated(critique: str) -> str:
    """Return the critique that says the opposite: every dimension and the judgement are inverted, facts kept.

    In the words of the phrase book step s becomes 5 - s; elsewhere each word of OPPOSITES becomes its opposite.
    """
    texts, judgement = split_dimensions(critique)
    phrases = {name: read_phrase(name, text) for name, text in texts.items()}
    if set(phrases) != set(DIMENSIONS) or None in phrases.values():
        return _WORD.sub(_opposite_word, critique)
    rng = np.random.default_rng(0)
    opposites = {
        name: write_phrase(name, TOP_STEP - phrase[0], phrase[1], rng)
        for name, phrase in phrases.items()
        if phrase is not None
    }
    grade = read_grade(judgement)
    closing = _WORD.sub(_opposite_word, judgement) if grade is None else JUDGEMENTS[TOP_STEP - grade][0]
    return Reply(opposites, closing).critique


def _opposite_word(match: re.Match[str]) -> str:
    word = match[0]
    opposite = _OPPOSITE_OF.get(word.lower(), word)
    return opposite.capitalize() if word[0].isupper() else opposite


def _count_judging_words(text: str) -> tuple[int, int]:
    """Return the numbers of favourable and of unfavourable words in `text`."""
    words = [word.lower() for word in _WORD.findall(text)]
    return sum(word in _GOOD for word in words), sum(word in _BAD for word in words)
