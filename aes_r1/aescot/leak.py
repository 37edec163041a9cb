"""Find words of a critique that reveal the score, or that the writer knew it.

`find_leak` is a pure function of critique and hidden score (method, stage 0). In case of doubt it reports a leak: a
lost critique costs one call, while a leaking one teaches the model to refer to a number that it will not be given. The
patterns of leak_rules.py judge words; the code here judges numbers by their distance to the score.
"""

from __future__ import annotations

import re
import unicodedata

from aes_r1.aescot.leak_rules import COUNTED, FRAME, NUMBER_WORD, RULES, SHOUTED_LEVEL, TENS, UNITS, rule

NEAR = 0.06  # a bare number this close to the score gives it away

_PERCENT = rule(rf"\b(?:\d+(?:[.,]\d+)?|{NUMBER_WORD}(?:[ -]{NUMBER_WORD})?)[ -]?(?:%|per ?cent\b)")
_OF_THE_FRAME = rule(rf"\s*{FRAME}")
_DECIMAL = rule(rf"(?<![\w/:.])(\d{{0,3}}[.,]\d{{1,19}})(?!\d|[.,]\d)(?![ -]?(?:{COUNTED}|:\d))")
_INTEGER = rule(rf"(?<![\w/:.,-])(\d{{1,3}})(?![\d/:]|[.,]\d|(?:st|nd|rd|th|s)\b)(?![ -]?(?:{COUNTED}|%|per ?cent))")
_SPELLED = rule(rf"\b({'|'.join(TENS)})[ -]({'|'.join(UNITS[1:10])})\b(?![ -]?(?:{COUNTED}))")
_DECADE = rule(rf"\b({'|'.join(ten[:-1] for ten in TENS)})ies\b(?! (?:style|look|car|fashion|film))")
_PLAIN = str.maketrans({"’": "'", "‐": "-", "‑": "-", "–": "-", "—": " - ", "*": "", "_": " ", "⁄": "/", "∕": "/"})
_ALONE = re.compile(r"\s*(?:[.,;!?)]|$)")


def find_leak(critique: str, mos: float) -> str | None:
    """Return the words of `critique` that give away the score `mos` (0..1) or that it was known, else None."""
    text = _normalised(critique)
    for pattern in (*RULES, SHOUTED_LEVEL):
        match = pattern.search(text)
        if match:
            return match[0].strip()
    return _number_near(text, mos)


def _normalised(critique: str) -> str:
    """Normalise a text: one line, compatibility forms folded, no accents, no invisible characters, plain quotes."""
    folded = unicodedata.normalize("NFKD", critique)
    visible = "".join(letter for letter in folded if unicodedata.category(letter) not in ("Cf", "Mn", "Me"))
    return " ".join(visible.translate(_PLAIN).split())


def _number_near(text: str, mos: float) -> str | None:
    """Return the first number that can be read as the score, on a scale to 1, 10 or 100."""
    for match in _PERCENT.finditer(text):
        if not _OF_THE_FRAME.match(text, match.end()):
            return match[0]
    for match in _DECIMAL.finditer(text):
        value = float(match[1].replace(",", "."))
        if value <= 1 or abs(value / 10 - mos) <= NEAR or abs(value / 100 - mos) <= NEAR:
            return match[0]
    for match in _SPELLED.finditer(text):
        value = 10 * (TENS.index(match[1].lower()) + 2) + UNITS.index(match[2].lower())
        if abs(value / 100 - mos) <= NEAR:
            return match[0]
    for match in _DECADE.finditer(text):
        value = 10 * (TENS.index(f"{match[1].lower()}y") + 2)
        if value / 100 - NEAR <= mos <= (value + 9) / 100 + NEAR:
            return match[0]
    for match in _INTEGER.finditer(text):
        value = int(match[1])
        ends_sentence = _ALONE.match(text, match.end()) is not None
        if abs(value / 100 - mos) <= NEAR or (ends_sentence and value <= 10 and abs(value / 10 - mos) <= NEAR):
            return match[0]
    return None
