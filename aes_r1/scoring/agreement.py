"""Check whether a critique's words and its score agree."""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

from aes_r1.aescot.wording import stated_level, valence
from aes_r1.prompts import level_of

APART = 0.35  # on the 0..1 scale: words and score this far apart contradict each other
_LEVEL_CENTRES = {"bad": 0.2, "fair": 0.55, "good": 0.85}


class Agreement(NamedTuple):
    """Hold the agreement between words and score of one picture.

    words: how favourable the critique is, 0..1 (wording.valence); None where it does not judge. agreement: 1 less the
    distance between words and score; None without either. contradiction: what each says, where they are APART.
    """

    words: float | None
    agreement: float | None
    contradiction: str | None


def agreement_of(critique: str | None, score: float | None) -> Agreement:
    """Compare the whole critique, and its closing judgement by itself, with the score in [0, 1]."""
    words = valence(critique) if critique else None
    if score is None or critique is None:
        return Agreement(words, None, None)
    closing = stated_level(critique)
    level = None if words is None else level_of(words)
    distances = {} if words is None else {f"words say {level}": abs(words - score)}
    if closing is not None and closing != level:
        distances[f"closing words say {closing}"] = abs(_LEVEL_CENTRES[closing] - score)
    claim, distance = max(distances.items(), key=itemgetter(1), default=("", 0.0))
    contradiction = f"{claim}, number says {score:.2f}" if distance >= APART else None
    return Agreement(words, None if words is None else 1 - abs(words - score), contradiction)
