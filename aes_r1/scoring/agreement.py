"""Check whether a critique's words and its score agree."""

from __future__ import annotations

from typing import NamedTuple

from aes_r1.aescot.wording import stated_level, valence
from aes_r1.prompts import level_of

# On the 0..1 scale words and score this far apart contradict each other. A closing judgement counts as the centre of
# its level: beside "bad" a score from .55 is a contradiction, beside "good" one up to .5, beside "fair" the ends alone.
APART = 0.35
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
    distances = {}
    if words is not None:
        distances[f"words say {level}"] = abs(words - score)
    if closing is not None:
        distances[f"closing words say {closing}"] = abs(_LEVEL_CENTRES[closing] - score)
    apart = {claim: distance for claim, distance in distances.items() if distance >= APART}
    if closing == level and len(apart) > 1:  # the closing adds nothing to what all words say
        del apart[f"closing words say {closing}"]
    claim = max(apart, key=lambda one: apart[one], default=None)
    contradiction = None if claim is None else f"{claim}, number says {score:.2f}"
    return Agreement(words, None if words is None else 1 - abs(words - score), contradiction)
