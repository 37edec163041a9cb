"""Explain what the interval of a verdict holds, in the same words in the score command, the app and the model card."""

from __future__ import annotations

from aes_r1.evaluation.uncertainty import LEVEL, answers_needed

NOT_CALIBRATED = "no interval: not calibrated for photographs, because the model was measured on made scenes"
_NEEDED = answers_needed(LEVEL)
# The app and the score command have the same option --samples, so one sentence serves both.
TOO_FEW_ANSWERS = (
    f"no interval: only {_NEEDED} answers or more show where 9 in 10 further answers lie; start the command with "
    f"--samples {_NEEDED}"
)
NO_LANGUAGE = "no_language"  # the kind of a scorer's scores
HOLDING = ("conformal", "samples")  # the kinds with low and high
HELD = "the mean opinion of 9 in 10 pictures like those of"  # followed by the set of the evaluation


def meaning(kind: str | None, measured_on: str | None = None) -> str:
    """Return what an interval of `kind` (Verdict.interval) holds, or why there is none; empty for kind None.

    measured_on: the set of the evaluation from which a conformal interval comes.
    """
    if kind == "conformal":
        return f"holds {HELD} {measured_on or 'the evaluation'}"
    if kind == "samples":
        return "holds 9 in 10 further answers of the model, not people's opinions"
    if kind == "too_few_answers":
        return TOO_FEW_ANSWERS
    if kind == NO_LANGUAGE:
        return "no critique and no interval: the scores are those of a scorer without language"
    return NOT_CALIBRATED if kind == "not_calibrated" else ""
