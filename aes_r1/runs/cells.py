"""Define the types of what evaluation.json holds, and format its values; docs/evaluation.md explains every key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NotRequired, TypedDict

MetricName = Literal["plcc", "srcc", "krcc", "mae", "rmse"]
DistanceName = Literal["emd", "crps", "kl", "crps_of_raters"]
DISTANCES: tuple[DistanceName, ...] = ("emd", "crps", "kl", "crps_of_raters")  # evaluation/opinions.py explains them
METRIC = "metric"  # the protocol of a no-reference metric, which has a scale of its own and is not a model


class Interval(TypedDict):
    """Hold a value and its 95% bootstrap interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


class Measures(TypedDict):
    """Hold the five metrics over n pictures."""

    n: int
    plcc: Interval
    srcc: Interval
    krcc: Interval
    mae: Interval
    rmse: Interval


class Logistic(Interval):
    """Hold the PLCC after a logistic fit; parameters: top, bottom, middle, width."""

    parameters: list[float] | None


class Calibration(TypedDict):
    """Hold the mean error of the scores, and the line that leads from scores to opinions."""

    bias: Interval
    slope: Interval
    intercept: Interval


class Conformal(TypedDict):
    """Hold a split-conformal interval around a score and how often it holds; widths on the scale of the scores."""

    level: float
    half_width: float
    mean_half_width: float
    coverage: Interval
    splits: int
    n_calibration: int
    n_test: int


class Coverage(TypedDict):
    """Hold how often an interval of one nominal level holds the MOS, and the opinions of single raters."""

    nominal: float
    coverage: float
    low: float | None
    high: float | None
    raters: float | None


class Spread(TypedDict):
    """Hold what the spread of repeated completions says of their error; standard deviations on 0..1."""

    n_samples: int
    mean_std: float
    curve: list[Coverage]
    rater_std: float | None
    rater_srcc: Interval


class OpinionDistances(TypedDict):
    """Hold the mean distances of n pictures' scores from their raters' opinions."""

    n: int
    emd: Interval
    crps: Interval
    kl: Interval
    crps_of_raters: Interval


class Faithfulness(Interval):
    """Hold the mean over dimensions of the SRCC of what critiques state and what is known, and each dimension's."""

    dimensions: dict[str, Interval]


class Grounding(TypedDict):
    """Hold whether the critiques depend on the picture; None where it was not measured."""

    n: int
    distinct: Interval
    words_srcc: Interval | None
    information_nats: Interval | None
    score_information_nats: Interval | None
    faithfulness: Faithfulness | None
    follow_critique: Interval | None
    follow_picture: Interval | None


class Sensitivity(TypedDict):
    """Hold how scores change when the pictures are made worse by one edit."""

    dimension: str
    n: int
    unanswered_rate: float
    higher: Interval
    tied: float | None
    mean_difference: Interval


class Cell(Measures):
    """Hold the results of one stage on one set under one protocol."""

    n_answered: int
    parse_failure_rate: float | None
    answered: Measures  # over answered pictures alone
    out_of_range_rate: NotRequired[float | None]
    plcc_logistic: NotRequired[Logistic]
    calibration: NotRequired[Calibration]
    conformal: NotRequired[Conformal | None]
    conformal_scaled: NotRequired[Conformal | None]
    spread: NotRequired[Spread]
    opinions: NotRequired[OpinionDistances]
    origins: NotRequired[dict[str, OriginCell]]
    critiques: NotRequired[Grounding]
    sensitivity: NotRequired[dict[str, Sensitivity]]  # by edit
    sub_scores: NotRequired[dict[str, Cell]]  # by dimension, against its ratings


class OriginCell(Cell):
    """Hold the results on the pictures of one origin: photographs, or generated pictures."""

    bias: Interval


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
    pairs: dict[str, dict[str, Any]]  # {STAGE: {DATASET/SPLIT: measures}}
    paper: dict[str, Any]


def last_model(measured: Iterable[tuple[str, str]], last_stage: str | None = None) -> str | None:
    """Return the last model among the stages of `measured`, (stage, protocol) in order; None where none is a model.

    It is `last_stage` (RunFolder.last_stage) if that was measured. A stage with no protocol but METRIC is not a model.
    """
    protocols: dict[str, set[str]] = {}
    for stage, protocol in measured:
        protocols.setdefault(stage, set()).add(protocol)
    if last_stage in protocols:
        return last_stage
    return next((stage for stage in reversed(protocols) if protocols[stage] != {METRIC}), None)


def measured_in(stages: Stages) -> list[tuple[str, str]]:
    """Return (stage, protocol) of everything in `stages`, in order."""
    return [(stage, protocol) for stage, sets in stages.items() for cells in sets.values() for protocol in cells]


def format_cell(
    cell: Mapping[str, Any],
    key: str = "value",
    *,
    digits: int = 3,
    end_digits: int | None = None,
    signed: bool = False,
    write: Callable[[float, int], str] | None = None,
    missing: str = "–",
) -> str:
    """Format the number of `cell` under `key` with its interval, 0.812 [0.790, 0.834], or alone where it has none.

    The ends have `end_digits` decimals, by default `digits` as the number has. `signed` writes a plus before numbers
    that are not negative. `write(number, decimals)` formats them in another way; `missing` is returned for None.
    """
    format_number = write or (lambda number, decimals: f"{number:{'+' if signed else ''}.{decimals}f}")
    if cell[key] is None:
        return missing
    value, decimals = format_number(cell[key], digits), digits if end_digits is None else end_digits
    if cell["low"] is None:
        return value
    return f"{value} [{format_number(cell['low'], decimals)}, {format_number(cell['high'], decimals)}]"
