"""Detect the warning signs of a failing run in the rows that it logs; each has a threshold, a meaning and a remedy.

SIGNS is the table of all signs. A sign's `measure` is a pure function of the RAPO rows of metrics.jsonl and the rows of
completions.jsonl so far; it is None while there are too few rows. `HealthMonitor` reports a sign once, when it is first
seen.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from aes_r1.aescot.diversity import diversity
from aes_r1.aescot.leak import find_leak
from aes_r1.prompts import parse_critique, written_order
from aes_r1.runs.cells import Evaluation

log = logging.getLogger("aes_r1")

Rows = Sequence[Mapping[str, Any]]
WINDOW = 10  # steps over which a mean is taken, because single steps are noisy
MIN_SRCC = 0.3  # below it the difference SRCC - PLCC is ignored
MIN_CRITIQUES = 16  # critiques of a step that logged fewer are ignored
ALIKE = 0.60  # share of the different critiques at the start below which critiques count as alike
LOST = 0.50  # share of the words' initial information about the picture below which it counts as lost
MOST_UNREAD = 0.50  # share of unreadable answers from which on the format is at fault, not the words
ALWAYS_FINITE = ("reward/", "policy/", "rollout/")
_NOT_FINITE = "health/not_finite"  # 1 if a row has a skipped optimizer step or a non-finite value, else 0
MAY_BE_MISSING = ("rollout/score_mean", "rollout/score_std")  # null where no completion of a step could be read


@dataclass(frozen=True)
class WarningSign:
    """Describe a sign, seen when `measure(metrics, completions)` is above (`sense` +1) or below (-1) `threshold`."""

    name: str
    threshold: float
    sense: int
    meaning: str
    remedy: str
    measure: Callable[[Rows, Rows], float | None]
    needs: str = f"{WINDOW} logged steps"  # without which `measure` is None

    def shows(self, metrics: Rows, completions: Rows) -> float | None:
        """Return the measured value when it is beyond the threshold, else None."""
        value = self.measure(metrics, completions)
        return value if value is not None and self.sense * (value - self.threshold) > 0 else None


# -- measures ----------------------------------------------------------------------------------------------------------
def recent(metrics: Rows, name: str) -> float | None:
    """Return the mean of `name` over the last WINDOW rows that have it; None with fewer."""
    values = list(islice(_values(reversed(metrics), name), WINDOW))
    return float(np.mean(values)) if len(values) >= WINDOW else None


def share_of_start(metrics: Rows, name: str) -> float | None:
    """Divide the mean of `name` over the last WINDOW rows by that over the first.

    None while the windows overlap, and where the first mean is not positive.
    """
    values = list(islice(_values(metrics, name), 2 * WINDOW))
    if len(values) < 2 * WINDOW:
        return None
    first, last = float(np.mean(values[:WINDOW])), recent(metrics, name)
    return last / first if last is not None and first > 0 else None


def steps_not_finite(metrics: Rows, _: Rows) -> float | None:
    """Count the steps so far with a skipped optimizer step, or a non-finite value of a metric that every step has."""
    return float(sum(row[_NOT_FINITE] for row in metrics)) if metrics else None


def rank_dominates(metrics: Rows, _: Rows) -> float | None:
    """Return the largest SRCC - PLCC of the last validation over its sets, where SRCC is at least MIN_SRCC."""
    for row in reversed(metrics):
        sets = [name.removesuffix("/srcc") for name in row if name.startswith("eval/") and name.endswith("/srcc")]
        pairs = [(row[f"{dataset}/srcc"], row.get(f"{dataset}/plcc")) for dataset in sets]
        gaps = [srcc - plcc for srcc, plcc in pairs if srcc is not None and plcc is not None and srcc >= MIN_SRCC]
        if sets:
            return max(gaps, default=None)
    return None


def diversity_share(_: Rows, completions: Rows) -> float | None:
    """Divide distinct-2 of the critiques logged last by that of the critiques logged first."""
    steps = list(dict.fromkeys(row["step"] for row in completions))
    if len(steps) < 2:
        return None
    first, last = (_critiques(completions, step) for step in (steps[0], steps[-1]))
    count = min(len(first), len(last))  # distinct-n falls with the number of texts, so both sides have equally many
    if count < MIN_CRITIQUES:
        return None
    before, after = (diversity([text for text, _ in critiques[:count]])["distinct_2"] for critiques in (first, last))
    return after / before if before and after is not None else None


def share_of_first(metrics: Rows, name: str) -> float | None:
    """Divide the last value of `name` by the first; None with a single value, or where the first is not positive.

    It is None, too, if most answers of the last validation are unreadable: these have no words, and there is another
    sign for them.
    """
    first_values = list(islice(_values(metrics, name), 2))
    if len(first_values) < 2 or first_values[0] <= 0:
        return None
    last_row = next(row for row in reversed(metrics) if next(_values([row], name), None) is not None)
    sets = [key for key in last_row if key.startswith("eval/") and key.endswith("/parse_failure_rate")]
    unread = [share for key in sets for share in _values([last_row], key)]
    return None if unread and np.mean(unread) >= MOST_UNREAD else last_row[name] / first_values[0]


def leaking(_: Rows, completions: Rows) -> float | None:
    """Return the share of the critiques logged last that state the score that follows, or say that it was known."""
    if not completions:
        return None
    critiques = _critiques(completions, completions[-1]["step"])
    leaks = [find_leak(text, score) is not None for text, score in critiques if score is not None]
    return float(np.mean(leaks)) if len(leaks) >= MIN_CRITIQUES else None


def _with_not_finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return `row` with _NOT_FINITE, computed once per row because all signs are checked at every step."""
    missing = any(
        value is None or not math.isfinite(value)
        for name, value in row.items()
        if name.startswith(ALWAYS_FINITE) and name not in MAY_BE_MISSING
    )
    return {**row, _NOT_FINITE: int(missing or bool(row.get("policy/skipped_steps")))}


def _values(metrics: Iterable[Mapping[str, Any]], name: str) -> Iterator[float]:
    """Yield the finite values of `name`, in the order of `metrics`; `steps_not_finite` reports the others."""
    return (row[name] for row in metrics if row.get(name) is not None and math.isfinite(row[name]))


def _critiques(completions: Rows, step: int) -> list[tuple[str, float | None]]:
    texts = [(row["text"], row["score"]) for row in completions if row["step"] == step]
    critiques = [(parse_critique(text, written_order(text)), score) for text, score in texts]
    return [(text, score) for text, score in critiques if text]


ON_TEXT = (diversity_share, leaking)  # measures that change only when completions are logged


# -- the table ---------------------------------------------------------------------------------------------------------
SIGNS = (
    WarningSign(
        "rank dominates", 0.10, +1,
        "SRCC - PLCC of a validation set: pictures are ordered well, but scores drift from opinions",
        "raise reward.error.weight or lower reward.rank.weight",
        rank_dominates,
        f"a validation with an SRCC of {MIN_SRCC} or more",
    ),
    WarningSign(
        "entropy collapse", 0.30, -1,
        "token entropy as a share of its start: completions of a picture become the same, nothing is left to compare",
        "lower trainer.lr, raise trainer.clip_high or trainer.kl_coef; start from a shorter cold start",
        lambda metrics, _: share_of_start(metrics, "policy/entropy"),
        f"{2 * WINDOW} logged steps",
    ),
    WarningSign(
        "zero-spread groups", 0.30, +1,
        "share of pictures whose completions all earn the same: they teach nothing",
        "raise trainer.num_samples or trainer.temperature; raise reward.rank.gamma; trainer.drop_zero_spread=true",
        lambda metrics, _: recent(metrics, "rollout/zero_spread_groups"),
    ),
    WarningSign(
        "parse failures", 0.10, +1,
        "share of completions that cannot be read: the format was never learned, or is being lost",
        "a longer cold start, reward.format.weight=1, a lower trainer.lr",
        lambda metrics, _: recent(metrics, "rollout/parse_failure_rate"),
    ),
    WarningSign(
        "truncation", 0.10, +1,
        "share of completions cut at the longest length: they never reach a score",
        "raise trainer.max_new_tokens, or shorten the critiques of the cold start",
        lambda metrics, _: recent(metrics, "rollout/truncated_rate"),
    ),
    WarningSign(
        "generic critiques", 0.60, -1,
        "distinct pairs of words as a share of their start: one critique is said of every picture",
        "raise trainer.kl_coef, stop earlier; check that the critique is used (model.prompt=score_only)",
        diversity_share,
        f"completions of two steps, {MIN_CRITIQUES} critiques each",
    ),
    WarningSign(
        "critiques turn alike", ALIKE, -1,
        "different greedy critiques of the validation pictures as a share of their start: the words no longer tell "
        "pictures apart, though sampled ones may still vary",
        "trainer.credit=answer (+experiment=grounded); raise trainer.critique_kl_coef",
        lambda metrics, _: share_of_first(metrics, "critique/distinct"),
        "two validations with critiques, where most answers of the last can be read",
    ),
    WarningSign(
        "words lose the picture", LOST, -1,
        "what the words know of the picture, nats, as a share of its start: the score is learned, its reasons are lost",
        "trainer.credit=answer (+experiment=grounded); raise trainer.critique_kl_coef",
        lambda metrics, _: share_of_first(metrics, "critique/information_nats"),
        "two validations with critiques, where most answers of the last can be read",
    ),
    WarningSign(
        "leaking critiques", 0.05, +1,
        "share of critiques that name their score or say that it was known: it is written, not reasoned",
        "filter the cold start's data again (aes_r1.distill), raise trainer.kl_coef",
        leaking,
        f"{MIN_CRITIQUES} logged critiques with a score",
    ),
    WarningSign(
        "KL running away", 0.50, +1,
        "mean k3 divergence from the start, nats per token: the policy leaves what it was taught",
        "lower trainer.lr, raise trainer.kl_coef",
        lambda metrics, _: recent(metrics, "policy/kl_k3"),
    ),
    WarningSign(
        "not finite", 0.0, +1,
        "steps whose loss, gradient or another value was NaN or infinite: a skipped step teaches nothing",
        "lower trainer.lr, raise trainer.kl_coef; a single one is harmless; if there are many, use model.dtype=float32",
        steps_not_finite,
        "a logged step",
    ),
    # A ratio that is off by 2% per token uses up a tenth of clip_low=.2 before anything is learned. It is more than ten
    # times the bfloat16 rounding of equal weights (docs/distributed.md), so sampler and trainer really differ.
    WarningSign(
        "sampler mismatch", 0.02, +1,
        "mean difference of log-probability between sampler and trainer, nats per token: the update reweights by it",
        "compare model.shared_prefix=false and model.dtype=float32: equal policies differ by rounding alone",
        lambda metrics, _: recent(metrics, "rollout/mismatch_mean"),
    ),
)  # fmt: skip


@dataclass
class HealthMonitor:
    """Follow the RAPO stage of a run, and call `alert(title, text)` once per sign, when it is first seen."""

    alert: Callable[[str, str], None]
    metrics: list[Mapping[str, Any]] = field(default_factory=list)
    completions: list[Mapping[str, Any]] = field(default_factory=list)
    raised: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Mark the signs in the rows from before a resume, so that they are not reported again."""
        self.raised |= {str(row["sign"]) for row in health_rows(self.metrics, self.completions) if row["step"]}
        self.metrics = [_with_not_finite(row) for row in self.metrics]

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Check all signs after `step`; the completions of that step must be logged before its metrics."""
        self.metrics.append(_with_not_finite({"step": step, **metrics}))
        new_text = bool(self.completions) and self.completions[-1]["step"] == step
        for sign in SIGNS:
            if sign.name in self.raised or (sign.measure in ON_TEXT and not new_text):
                continue
            value = sign.shows(self.metrics, self.completions)
            if value is not None:
                self.raised.add(sign.name)
                text = f"{sign.meaning}: {value:.3g} (threshold {sign.threshold:g}). First remedy: {sign.remedy}."
                log.warning("step %d: %s: %s", step, sign.name, text)
                self.alert(sign.name, f"Step {step}. {text}")

    def log_completions(self, step: int, rows: Rows) -> None:
        """Record the completions that were sampled at `step`."""
        self.completions.extend({"step": step, **row} for row in rows)


UNREAD = WarningSign(
    "unreadable evaluation", 0.10, +1,
    "largest share of the pictures of a set that got no answer that can be read from the run's last model",
    "a longer cold start (cold_start.min_steps), longer answers (evaluation.max_new_tokens)",
    lambda _, __: None,
    "an evaluation of the last model",
)  # fmt: skip


ONE_PLACE = WarningSign(
    "one place", 0.75, +1,
    "largest share of a set's answers about pairs that name the same place, whatever pictures stand there",
    "a longer cold start with more comparisons (cold_start.pairs, cold_start.min_steps): it must be right in over half",
    lambda _, __: None,
    "readable answers of the last model about pairs",
)  # fmt: skip
OF_EVALUATION = (UNREAD, ONE_PLACE)


def unread_share(evaluation: Evaluation, stage: str | None) -> float | None:
    """Return the largest parse_failure_rate of `stage` over sets and protocols that ask for a critique.

    It is None where the stage was not evaluated.
    """
    sets = (evaluation.get("stages") or {}).get(stage or "", {})
    shares = [
        cell["parse_failure_rate"]
        for cells in sets.values()
        for protocol, cell in cells.items()
        if protocol in ("sample", "greedy", "mean") and cell["parse_failure_rate"] is not None
    ]
    return max(shares, default=None)


def one_place_share(evaluation: Evaluation, stage: str | None) -> float | None:
    """Return the largest share over sets of the answers of `stage` about pairs that name the first, or the second.

    It is None if the stage was not asked about pairs, or gave no readable answer.
    """
    sets = (evaluation.get("pairs") or {}).get(stage or "", {})
    shares = [measures["first_share"]["value"] for measures in sets.values()]
    return max((max(share, 1 - share) for share in shares if share is not None), default=None)


def evaluation_rows(evaluation: Evaluation, stage: str | None) -> list[dict[str, Any]]:
    """Build the report's rows for the signs in the evaluation of `stage`, in the form of health_rows.

    ONE_PLACE has a row where pairs were asked about.
    """
    measured = [(UNREAD, unread_share(evaluation, stage))]
    measured += [(ONE_PLACE, one_place_share(evaluation, stage))] if evaluation.get("pairs") else []
    return [
        _row(sign, share, "in the evaluation" if share is not None and share > sign.threshold else None)
        for sign, share in measured
    ]


def long_enough(metrics: Rows) -> bool:
    """Return whether RAPO logged enough steps for the signs that are means over the last WINDOW of them."""
    rapo = [row for row in metrics if row.get("stage", "rapo") == "rapo"]
    return recent(rapo, "rollout/parse_failure_rate") is not None


def raised_in(log_text: str) -> dict[str, int]:
    """Return {sign: step} of the warnings in run.log, with the last step of a warning that a resumed run repeated."""
    names = "|".join(re.escape(sign.name) for sign in SIGNS)
    return {name: int(step) for step, name in re.findall(rf"step (\d+): ({names}): ", log_text)}


def health_rows(metrics: Rows, completions: Rows) -> list[dict[str, Any]]:
    """Build a row of the report per sign: its last value, threshold and text, and the step at which it was first seen.

    `metrics` and `completions` are the rows of the two files; only those of the RAPO stage count. "checked" is false
    for a sign with neither value nor step: it could not be checked, which does not mean that all is well.
    """
    metrics = [_with_not_finite(row) for row in metrics if row.get("stage", "rapo") == "rapo"]
    completions = [row for row in completions if row.get("stage", "rapo") == "rapo"]
    logged = sorted({row["step"] for row in completions})
    rows = []
    for sign in SIGNS:
        first = None
        on_text = sign.measure in ON_TEXT
        for count, row in enumerate(metrics, 1):
            if on_text and row["step"] not in logged:
                continue  # no new completions
            so_far = [completion for completion in completions if completion["step"] <= row["step"]] if on_text else []
            if sign.shows(metrics[:count], so_far) is not None:
                first = row["step"]
                break
        value = sign.measure(metrics, completions)
        rows.append({**_row(sign, value, None if first is None else f"from step {first}"), "step": first})
    return rows


def _row(sign: WarningSign, value: float | None, shown: str | None) -> dict[str, Any]:
    return {
        "sign": sign.name,
        "value": value,
        "threshold": sign.threshold,
        "sense": "above" if sign.sense > 0 else "below",
        "shown": shown,
        "checked": value is not None or shown is not None,
        "meaning": sign.meaning,
        "remedy": sign.remedy,
        "needs": sign.needs,
    }
