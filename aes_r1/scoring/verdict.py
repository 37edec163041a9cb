"""Define what a critic says about a picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """Hold the critic's answer about one picture. All scores are in 0..1.

    scores: one per completion, None where it could not be read. score: their mean, None when none could be read. low,
    high: an interval of the kind that `interval` names. "conformal" holds the mean opinion of 9 in 10 pictures like
    those evaluated, "samples" 9 in 10 further answers of the model. "too_few_answers": there is none, because the
    readable answers are too few to say where further ones lie. "not_calibrated": there is none, because the model was
    measured on synthetic scenes alone, which says nothing about photographs. None: no answer could be read. critique:
    the one whose own score is nearest to `score`, or the first readable one without a score; dimensions, judgement: its
    parts. words, agreement, contradiction: whether critique and score agree (WordScoreAgreement). sub_scores:
    {dimension: mean of the answered ones} of those that were asked for.
    """

    score: float | None
    low: float | None
    high: float | None
    interval: str | None
    scores: list[float | None]
    critique: str | None
    dimensions: dict[str, str]
    judgement: str | None
    words: float | None = None
    agreement: float | None = None
    contradiction: str | None = None
    sub_scores: dict[str, float | None] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        return asdict(self)
