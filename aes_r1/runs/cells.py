"""Define the types of the content of evaluation.json; docs/evaluation.md explains every key."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

MetricName = Literal["plcc", "srcc", "krcc", "mae", "rmse"]


class Interval(TypedDict):
    """Hold a value and its 95% bootstrap interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


class Cell(TypedDict):
    """Hold the results of one stage on one set under one protocol."""

    n: int
    n_answered: int
    parse_failure_rate: float | None
    plcc: Interval
    srcc: Interval
    krcc: Interval
    mae: Interval
    rmse: Interval
    answered: dict[str, Any]  # n and the same metrics over answered pictures alone
    out_of_range_rate: NotRequired[float | None]
    plcc_logistic: NotRequired[dict[str, Any]]
    calibration: NotRequired[dict[str, Any]]
    conformal: NotRequired[dict[str, Any] | None]
    conformal_scaled: NotRequired[dict[str, Any] | None]
    spread: NotRequired[dict[str, Any]]
    opinions: NotRequired[dict[str, Any]]
    origins: NotRequired[dict[str, Any]]
    critiques: NotRequired[dict[str, Any]]
    sub_scores: NotRequired[dict[str, Cell]]  # by dimension, against its ratings


Stages = dict[str, dict[str, dict[str, Cell]]]  # {STAGE: {DATASET/SPLIT: {PROTOCOL: cell}}}


class Evaluation(TypedDict, total=False):
    """Hold the content of evaluation.json; it is empty for a run that was not evaluated."""

    stages: Stages
    comparisons: list[dict[str, Any]]
    baselines: list[dict[str, Any]]
    baseline_cells: dict[str, dict[str, Any]]
    means: dict[str, Any]
    manifests: dict[str, str]
    critiques: dict[str, Any]
    paper: dict[str, Any]
