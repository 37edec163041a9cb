"""Check whether a critique's words and its score agree."""

from __future__ import annotations

from typing import NamedTuple

from aes_r1.aescot.wording import stated_level, valence
from aes_r1.prompts import level_of

# Words and score contradict each other if they are at least so far apart on the 0..1 scale. A closing judgement counts
# as the centre of its level: "bad" is contradicted by scores from .55 on, "good" by scores up to .5, and "fair" by
# scores up to .2 and from .9 on.
APART = 0.35
_LEVEL_CENTRES = {"bad": 0.2, "fair": 0.55, "good": 0.85}


class WordScoreAgreement(NamedTuple):
    """Hold the agreement between the words and the score of one picture.

    words: how favourable the critique is, 0..1 (wording.valence); None where it does not judge. agreement: 1 minus the
    distance between words and score; None if one of them is missing. contradiction: a line on what each of them says,
    if they are at least APART; else None.
    """

    words: float | None
    agreement: float | None
    contradiction: str | None


def word_score_agreement(critique: str | None, score: float | None) -> WordScoreAgreement:
    """Compare the score in [0, 1] with the whole critique, and with its closing judgement alone."""
    words = valence(critique) if critique else None
    if score is None or critique is None:
        return WordScoreAgreement(words, None, None)
    closing = stated_level(critique)
    level = None if words is None else level_of(words)
    distances = {}
    if words is not None:
        distances[f"words say {level}"] = abs(words - score)
    if closing is not None:
        distances[f"closing words say {closing}"] = abs(_LEVEL_CENTRES[closing] - score)
    apart = {claim: distance for claim, distance in distances.items() if distance >= APART}
    if closing == level and len(apart) > 1:  # both claim the same level
        del apart[f"closing words say {closing}"]
    claim = max(apart, key=lambda claim_name: apart[claim_name], default=None)
    contradiction = None if claim is None else f"{claim}, number says {score:.2f}"
    return WordScoreAgreement(words, None if words is None else 1 - abs(words - score), contradiction)
