"""Define the types of what evaluation.json holds, and format its values; docs/evaluation.md explains every key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NotRequired, TypedDict

MetricName = Literal["plcc", "srcc", "krcc", "mae", "rmse"]
METRIC = "metric"  # the protocol of a no-reference metric, which has a scale of its own and is not a model


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
    sensitivity: NotRequired[dict[str, Any]]
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
    written = write or (lambda number, decimals: f"{number:{'+' if signed else ''}.{decimals}f}")
    if cell[key] is None:
        return missing
    value, decimals = written(cell[key], digits), digits if end_digits is None else end_digits
    if cell["low"] is None:
        return value
    return f"{value} [{written(cell['low'], decimals)}, {written(cell['high'], decimals)}]"
