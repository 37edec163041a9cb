"""Explain why a run has no numbers, or numbers that mean little, in the first line of its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aes_r1.evaluation.health import MOST_UNREAD
from aes_r1.prompts import out_of_range, written_order
from aes_r1.runs.cells import Evaluation
from aes_r1.tracking.headline import headline_key

_MODELS = {"base": "the base model", "cold_start": "the model after its cold start", "rapo": "the model after RAPO"}


def trouble(
    state: str,
    evaluation: Evaluation,
    predictions: Iterable[Mapping[str, Any]],
    last_stage: str | None = None,
) -> str:
    """Explain in a sentence or two why the last model did not answer.

    The text is empty where it did answer. `state` and `last_stage` are those of RunFolder.
    """
    if state.startswith("failed: "):
        return f"This run failed: {state.removeprefix('failed: ').rstrip('.')}."
    stages = evaluation.get("stages") or {}
    if not stages:
        return "This run has not been evaluated: it was stopped before, or is still going on."
    stage, dataset, protocol = headline_key(stages, last_stage)
    cell, model = stages[stage][dataset][protocol], _MODELS.get(stage, stage)
    failed = cell["parse_failure_rate"] or 0.0  # None without pictures
    if cell["srcc"]["value"] is not None and failed < MOST_UNREAD:
        return ""
    if failed < MOST_UNREAD:
        all_equal = "scores or opinions are the same for all pictures"
        explanation = "fewer than three pictures were answered" if cell["n_answered"] < 3 else all_equal
        return f"No correlation is defined on {dataset} for {model}: {explanation}."
    reasons = Counter(
        describe_unreadable(row.get("text") or "", tuple(row.get("sub_scores", ())))
        for row in predictions
        if (row["stage"], row["protocol"], f"{row['dataset']}/{row['split']}") == (stage, protocol, dataset)
        and row["score"] is None
    )
    answered = "No picture" if not cell["n_answered"] else f"Only {cell['n_answered']} of {cell['n']} pictures"
    explanation = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    remedy = "train the cold start longer (cold_start.min_steps), or let completions be longer (trainer.max_new_tokens)"
    return (
        f"{answered} of {dataset} got an answer that can be read from {model}"
        f"{f'; of its completions, {explanation}' if explanation else ''}. "
        f"What to try: {'a cold start, which teaches the format' if stage == 'base' else remedy}."
    )


def describe_unreadable(text: str, sub_scores: Sequence[str] = ()) -> str:
    """Return what an unreadable completion did, worded to follow a number of them; sub_scores: those asked for."""
    if not text.strip():
        return "said nothing"
    if "<answer>" not in text:
        return "ended without an answer"
    is_outside = out_of_range(text, written_order(text), sub_scores)
    return "gave a number outside 0 to 1" if is_outside else "broke the format"
