"""Measure critiques: coverage of the dimensions, variety, leaks, agreement with the score and with known factors.

Interventions, which need the model, are in interventions.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.aescot.budget import CeilingReached
from aes_r1.aescot.chat import ChatModel
from aes_r1.aescot.diversity import DIVERSITY_SAMPLE, diversity
from aes_r1.aescot.failures import NoAnswer
from aes_r1.aescot.journal import Journal
from aes_r1.aescot.judge import ChatJudge, Judge, ScenesJudge
from aes_r1.aescot.leak import find_leak
from aes_r1.aescot.phrases import step_of
from aes_r1.aescot.record import Reply
from aes_r1.aescot.wording import TOUCHED, split_dimensions, stated_level, stated_steps, valence
from aes_r1.data.sample import Sample
from aes_r1.data.splits import stratified_indices
from aes_r1.evaluation.bootstrap import Array, bootstrap, points, resamples, with_interval
from aes_r1.evaluation.uncertainty import wilson
from aes_r1.inference.predictions import Row
from aes_r1.prompts import DIMENSIONS, level_of
from aes_r1.runs.cells import Interval
from aes_r1.settings import JudgeSettings

_GROUPS, _STUDENT = 10, 2.262  # groups of the jackknife, and the 97.5% t quantile of its 9 degrees of freedom
_FEWEST_TEXTS = 2 * _GROUPS

Factors = Mapping[str, Mapping[str, float]]


def critique_measures(
    rows: Sequence[Row], *, factors: Factors | None = None, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compute CRITIQUES of docs/evaluation.md from prediction rows that hold a critique and a score.

    factors: {id: {dimension: true factor 0..1}} of scenes. Shares have Wilson intervals, means and correlations
    bootstrap intervals, and diversity (a property of the whole collection) jackknife intervals.
    """
    texts = [row["critique"] for row in rows]
    varied = stratified_indices([row["dataset"] for row in rows], DIVERSITY_SAMPLE, seed)
    touched = {name: [bool(pattern.search(text)) for text in texts] for name, pattern in TOUCHED.items()}
    words = np.asarray([len(text.split()) for text in texts], dtype=np.float64)
    measures: dict[str, Any] = {
        "n": len(rows),
        "words": mean_of(words, n_bootstrap, seed),
        "coverage": {name: share_of(found) for name, found in touched.items()},
        "diversity": _diversity([texts[place] for place in varied], seed),
        "leak_rate": share_of([find_leak(row["critique"], row["score"]) is not None for row in rows]),
        "words_and_score": _words_and_score(rows, n_bootstrap, seed),
    }
    measures["coverage"]["all_five"] = share_of([all(found) for found in zip(*touched.values(), strict=True)])
    if factors:
        known = [row for row in rows if row["id"] in factors]
        measures["faithfulness"] = faithfulness(known, factors, n_bootstrap=n_bootstrap, seed=seed)
    return measures


def faithfulness(rows: Sequence[Row], factors: Factors, *, n_bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure how well each dimension's stated step (0..5) matches the true factor: {dimension: {"n", "accuracy", ..}}.

    chance: the accuracy of always stating the most common true step, which needs no look at the picture.
    """
    steps = [stated_steps(row["critique"]) for row in rows]
    found = {}
    for name in DIMENSIONS:
        pairs = [(one[name], factors[row["id"]][name]) for row, one in zip(rows, steps, strict=True) if name in one]
        said, true = np.asarray(pairs, dtype=np.float64).reshape(-1, 2).T
        at = [step_of(float(factor)) for factor in true]
        apart = [abs(int(one) - step) for one, step in zip(said, at, strict=True)]
        drawn = bootstrap(said, true, n_bootstrap, seed, only=("srcc",))["srcc"]
        found[name] = {
            "n": len(pairs),
            "accuracy": share_of([distance == 0 for distance in apart]),
            "within_one": share_of([distance <= 1 for distance in apart]),
            "srcc": with_interval(points(said, true)["srcc"], drawn),
            "chance": max(map(at.count, at)) / len(at) if at else None,
        }
    return found


def _words_and_score(rows: Sequence[Row], n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Correlate favourable words and score (Spearman); return also how often the judgement's level is the score's."""
    favour = [(valence(row["critique"]), row["score"]) for row in rows]
    words, scores = np.asarray([one for one in favour if one[0] is not None], dtype=np.float64).reshape(-1, 2).T
    drawn = bootstrap(words, scores, n_bootstrap, seed, only=("srcc",))["srcc"]
    levels = [(stated_level(row["critique"]), level_of(row["score"])) for row in rows]
    return {
        "n": len(words),
        "srcc": with_interval(points(words, scores)["srcc"], drawn),
        "level_agreement": share_of([said == given for said, given in levels if said is not None]),
    }


def _diversity(texts: Sequence[str], seed: int) -> dict[str, Any]:
    """Compute distinct-n and self-BLEU with grouped-jackknife intervals.

    Resampling with replacement would repeat texts.
    """
    whole = diversity(texts)
    names = [name for name in whole if name != "n"]
    if len(texts) < _FEWEST_TEXTS:
        return {name: {"value": whole[name], "low": None, "high": None} for name in names}
    group = np.random.default_rng(seed).permutation(len(texts)) % _GROUPS
    without = [
        diversity([text for text, own in zip(texts, group, strict=True) if own != left]) for left in range(_GROUPS)
    ]
    found = {}
    for name in names:
        values = np.asarray([one[name] for one in without], dtype=np.float64)
        reach = _STUDENT * np.sqrt((_GROUPS - 1) / _GROUPS * np.square(values - values.mean()).sum())
        found[name] = {"value": whole[name], "low": float(whole[name] - reach), "high": float(whole[name] + reach)}
    return found


def share_of(found: Sequence[bool]) -> dict[str, float | None]:
    """Return a share with its 95% Wilson interval; null of nothing."""
    return {"value": sum(found) / len(found) if len(found) else None, **wilson(sum(found), len(found))}


def mean_of(values: Array, n_bootstrap: int, seed: int) -> Interval:
    """Return the mean of `values` with its 95% bootstrap interval; None where there are none."""
    if not len(values):
        return {"value": None, "low": None, "high": None}
    drawn = [counts @ values / len(values) for counts in resamples(len(values), n_bootstrap, seed)]
    return with_interval(float(values.mean()), np.concatenate(drawn or [np.empty(0)]))


# -- a judge, where one is set -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Written(Reply):
    """A model's critique in the form that a judge reads: the text as it was written."""

    text: str

    @property
    def critique(self) -> str:
        """The text as it was written."""
        return self.text


def judge_critiques(
    rows: Sequence[Row],
    samples: Mapping[str, Sample],
    *,
    settings: JudgeSettings,
    journal: Path,
    max_pixels: int,
) -> dict[str, Any]:
    """Summarise a judge's verdicts: {"n", "level_agreement", "unsupported_rate"}; unanswered calls do not count in n.

    From the critique alone the judge names the level that it conveys, which is compared with the level of the score;
    with the picture it lists claims that the picture does not support. Answers are kept in `journal` and not bought
    twice. Raises ServerGone when the server stops answering.
    """
    with ExitStack() as stack:
        judge: Judge = ScenesJudge()
        if settings.name == "openai":
            judge = ChatJudge(ChatModel(settings, stack.enter_context(Journal(journal))), max_pixels)
        verdicts = asyncio.run(_verdicts(judge, rows, samples))
    read = [(row, align, fact) for row, (align, fact) in zip(rows, verdicts, strict=True) if align and fact]
    return {
        "n": len(read),
        "level_agreement": share_of([align.level == level_of(row["score"]) for row, align, _ in read]),
        "unsupported_rate": share_of([bool(fact.unsupported_claims) for *_, fact in read]),
    }


async def _verdicts(judge: Judge, rows: Sequence[Row], samples: Mapping[str, Sample]) -> list[tuple]:
    async def one(row: Row) -> tuple:
        texts, judgement = split_dimensions(row["critique"])
        reply = Written({name: texts.get(name, "") for name in DIMENSIONS}, judgement, row["critique"])
        try:
            return await judge.align(samples[row["id"]], reply), await judge.fact(samples[row["id"]], reply)
        except (NoAnswer, CeilingReached):
            return None, None

    return await asyncio.gather(*(one(row) for row in rows))
