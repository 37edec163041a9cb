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
from aes_r1.aescot.judge import ChatJudge, Judge, JudgeVerdict, ScenesJudge
from aes_r1.aescot.leak import find_leak
from aes_r1.aescot.phrases import step_of
from aes_r1.aescot.record import Reply
from aes_r1.aescot.wording import TOUCHED, split_dimensions, stated_level, stated_steps, valence
from aes_r1.data.sample import PictureError, Sample, no_longer_there
from aes_r1.data.splits import stratified_indices
from aes_r1.evaluation.bootstrap import agreement_metrics, bootstrap, mean_with_interval, with_interval
from aes_r1.evaluation.uncertainty import wilson
from aes_r1.inference.predictions import Row
from aes_r1.prompts import DIMENSIONS, level_of
from aes_r1.runs.cells import Interval
from aes_r1.settings import JudgeSettings

_GROUPS, _STUDENT = 10, 2.262  # groups of the jackknife, and the 97.5% t quantile of its 9 degrees of freedom
_MIN_TEXTS = 2 * _GROUPS

Factors = Mapping[str, Mapping[str, float]]
Verdicts = tuple[JudgeVerdict | None, JudgeVerdict | None]


def critique_measures(
    rows: Sequence[Row], *, factors: Factors | None = None, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compute CRITIQUES of docs/evaluation.md from prediction rows that hold a critique and a score.

    factors: {id: {dimension: 0..1}}, a scene's factors or people's ratings; dimensions may be missing. Shares have
    Wilson intervals, means and correlations bootstrap intervals, and diversity, a property of the whole collection,
    jackknife intervals.
    """
    texts = [row["critique"] for row in rows]
    sampled = stratified_indices([row["dataset"] for row in rows], DIVERSITY_SAMPLE, seed)
    touched = {name: [bool(pattern.search(text)) for text in texts] for name, pattern in TOUCHED.items()}
    words = np.asarray([len(text.split()) for text in texts], dtype=np.float64)
    measures: dict[str, Any] = {
        "n": len(rows),
        "words": mean_with_interval(words, n_bootstrap, seed),
        "coverage": {name: share_of(matches) for name, matches in touched.items()},
        "diversity": _diversity([texts[index] for index in sampled], seed),
        "leak_rate": share_of([find_leak(row["critique"], row["score"]) is not None for row in rows]),
        "words_and_score": _words_and_score(rows, n_bootstrap, seed),
    }
    measures["coverage"]["all_five"] = share_of([all(matches) for matches in zip(*touched.values(), strict=True)])
    if factors:
        rated = [row for row in rows if row["id"] in factors]
        measures["faithfulness"] = faithfulness(rated, factors, n_bootstrap=n_bootstrap, seed=seed)
    return measures


def faithfulness(rows: Sequence[Row], factors: Factors, *, n_bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure how well each dimension's stated step (0..5) matches the true factor: {dimension: {"n", "accuracy", ..}}.

    A row counts for the dimensions that have a factor and a statement, so n is 0 where nobody rated a dimension.
    chance: the accuracy of always stating the most common true step, without a look at the picture.
    """
    stated_of_row = [(row, stated_steps(row["critique"])) for row in rows]
    measures = {}
    for name in DIMENSIONS:
        pairs = [
            (steps[name], factors[row["id"]][name])
            for row, steps in stated_of_row
            if name in steps and name in factors[row["id"]]
        ]
        stated, true = np.asarray(pairs, dtype=np.float64).reshape(-1, 2).T
        true_steps = [step_of(float(factor)) for factor in true]
        errors = [abs(int(step) - true_step) for step, true_step in zip(stated, true_steps, strict=True)]
        drawn = bootstrap(stated, true, n_bootstrap, seed, only=("srcc",))["srcc"]
        measures[name] = {
            "n": len(pairs),
            "accuracy": share_of([error == 0 for error in errors]),
            "within_one": share_of([error <= 1 for error in errors]),
            "srcc": with_interval(agreement_metrics(stated, true)["srcc"], drawn),
            "chance": max(map(true_steps.count, true_steps)) / len(true_steps) if true_steps else None,
        }
    return measures


def _words_and_score(rows: Sequence[Row], n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Return the rank correlation of the words' favour with the score, and how often the judgement names its level."""
    pairs = [(valence(row["critique"]), row["score"]) for row in rows]
    judged = [(words, score) for words, score in pairs if words is not None]
    words, scores = np.asarray(judged, dtype=np.float64).reshape(-1, 2).T
    drawn = bootstrap(words, scores, n_bootstrap, seed, only=("srcc",))["srcc"]
    levels = [(stated_level(row["critique"]), level_of(row["score"])) for row in rows]
    return {
        "n": len(words),
        "srcc": with_interval(agreement_metrics(words, scores)["srcc"], drawn),
        "level_agreement": share_of([stated == level for stated, level in levels if stated is not None]),
    }


def _diversity(texts: Sequence[str], seed: int) -> dict[str, Any]:
    """Compute distinct-n and self-BLEU with grouped-jackknife intervals.

    Resampling with replacement would repeat texts.
    """
    overall = diversity(texts)
    names = [name for name in overall if name != "n"]
    if len(texts) < _MIN_TEXTS:
        return {name: {"value": overall[name], "low": None, "high": None} for name in names}
    group_of_text = np.random.default_rng(seed).permutation(len(texts)) % _GROUPS
    leave_one_out = [
        diversity([text for text, group in zip(texts, group_of_text, strict=True) if group != left_out])
        for left_out in range(_GROUPS)
    ]
    measures = {}
    for name in names:
        value = overall[name]
        values = np.asarray([part[name] for part in leave_one_out], dtype=np.float64)
        half_width = _STUDENT * np.sqrt((_GROUPS - 1) / _GROUPS * np.square(values - values.mean()).sum())
        measures[name] = {"value": value, "low": float(value - half_width), "high": float(value + half_width)}
    return measures


def share_of(flags: Sequence[bool]) -> Interval:
    """Return the share of true `flags` with its 95% Wilson interval; nulls where there are none."""
    return wilson(sum(flags), len(flags))


# -- a judge, where one is set -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class WrittenReply(Reply):
    """Hold a model's critique in the form that a judge reads."""

    text: str

    @property
    def critique(self) -> str:
        """The text as it was written."""
        return self.text


def judge_critiques(
    rows: Sequence[Row], samples: Mapping[str, Sample], *, settings: JudgeSettings, journal: Path, max_pixels: int
) -> dict[str, Any]:
    """Summarise a judge's verdicts: {"n", "level_agreement", "unsupported_rate"}; unanswered calls do not count in n.

    From the critique alone the judge names the level that it conveys, which is compared with the level of the score;
    with the picture it lists claims that the picture does not support. Replies are kept in `journal`, so that none is
    paid for twice. Raises ServerGone when the server stops answering, and InputError for a picture that can no longer
    be read.
    """
    with ExitStack() as stack:
        judge: Judge = ScenesJudge()
        if settings.name == "openai":
            judge = ChatJudge(ChatModel(settings, stack.enter_context(Journal(journal))), max_pixels)
        try:
            verdicts = asyncio.run(_verdicts(judge, rows, samples))
        except PictureError as error:
            raise no_longer_there(error) from error
    judged = [(row, align, fact) for row, (align, fact) in zip(rows, verdicts, strict=True) if align and fact]
    return {
        "n": len(judged),
        "level_agreement": share_of([align.level == level_of(row["score"]) for row, align, _ in judged]),
        "unsupported_rate": share_of([bool(fact.unsupported_claims) for *_, fact in judged]),
    }


async def _verdicts(judge: Judge, rows: Sequence[Row], samples: Mapping[str, Sample]) -> list[Verdicts]:
    return await asyncio.gather(*(_verdicts_on(judge, row, samples[row["id"]]) for row in rows))


async def _verdicts_on(judge: Judge, row: Row, sample: Sample) -> Verdicts:
    """Return the judge's verdicts (align, fact) on one critique; None in place of a missing one."""
    texts, judgement = split_dimensions(row["critique"])
    reply = WrittenReply({name: texts.get(name, "") for name in DIMENSIONS}, judgement, row["critique"])
    try:
        return await judge.align(sample, reply), await judge.fact(sample, reply)
    except (NoAnswer, CeilingReached):
        return None, None
