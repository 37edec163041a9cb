"""Compute the differences that a study can detect: `python -m experiments.power` prints the table of README.md.

`python -m experiments.power RESULT_JSON` prints it for the spread of differences that a study has measured.

Conditions are run with the same seeds and answer the same pictures; the mean over seeds of a difference of two in SRCC
is tested with a t-test whose error is pooled over conditions. A seed's difference varies because training does:

    var(d) = 2 sd_training^2

All seeds answer the same pictures, so what these do to the difference is the same in every seed. It is not in the
standard deviation that the test sees, and more seeds do not reduce it: the test is about these pictures. Over draws of
n pictures the difference varies besides by

    var_pictures = 2 (1 - c) 1.06 (1 - r^2)^2 / (n - 3)

where r is the SRCC of either condition, c the correlation of the two conditions' estimates over resampled pictures, and
1.06 the factor of Spearman's correlation (Fieller, Hartley and Pearson, 1957). `level_over_pictures` says how often the
test therefore finds a difference that other pictures would not have.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.blocks import contrast, standard_error

MAIN_JOB = Path(__file__).parent / "main_job" / "results" / "result.json"


def picture_variance(srcc: float, n: int, agreement: float) -> float:
    """Return the variance, over draws of `n` pictures, of the difference of two conditions' SRCC.

    `agreement` is c above.
    """
    return 2 * (1 - agreement) * 1.06 * (1 - srcc**2) ** 2 / (n - 3)


def level_over_pictures(sd: float, pictures: float, seeds: int, alpha: float = 0.05) -> float:
    """Return how often a paired t-test over `seeds` rejects where the difference is 0 over all pictures.

    Differences vary by `sd` over seeds and, all alike, by `pictures` over draws of pictures: the statistic is that of
    Student times sqrt(1 + seeds pictures^2 / sd^2).
    """
    from scipy import stats

    critical = stats.t.ppf(1 - alpha / 2, seeds - 1)
    return float(2 * stats.t.sf(critical / math.sqrt(1 + seeds * (pictures / sd) ** 2), seeds - 1))


def power(effect: float, sd: float, seeds: int, alpha: float = 0.05, conditions: int = 2) -> float:
    """Return the chance that a two-sided t-test over `seeds` finds `effect` when differences vary by `sd`.

    The error is pooled over `conditions`; with two it is the paired t-test.
    """
    from scipy import stats

    df = (seeds - 1) * (conditions - 1)
    critical = stats.t.ppf(1 - alpha / 2, df)
    shift = effect / sd * math.sqrt(seeds)
    wrong_side = np.nan_to_num(stats.nct.cdf(-critical, df, shift))  # scipy returns NaN for a chance near 0
    return float(stats.nct.sf(critical, df, shift) + wrong_side)


def detectable(sd: float, seeds: int, alpha: float = 0.05, wanted: float = 0.8, conditions: int = 2) -> float:
    """Return the smallest true effect that is found with chance `wanted`."""
    from scipy.optimize import brentq

    largest = sd
    while power(largest, sd, seeds, alpha, conditions) < wanted:
        largest *= 2
    return float(brentq(lambda effect: power(effect, sd, seeds, alpha, conditions) - wanted, 1e-9 * sd, largest))


def sd_over_seeds(dataset: str = "scenes/test", protocol: str = "sample") -> tuple[float, float]:
    """Return (mean, standard deviation over seeds) of SRCC after RAPO in the main job's recorded runs."""
    rows = json.loads(MAIN_JOB.read_text())["rows"]
    values = [
        row["srcc"]["value"]
        for row in rows
        if (row["condition"], row["set"], row["protocol"], row["stage"]) == ("critique", dataset, protocol, "rapo")
    ]
    return float(np.mean(values)), float(np.std(values, ddof=1))


def table(n: int = 600, agreement: float = 0.5) -> list[str]:
    """Return Markdown rows: the effect that 3, 5 and 10 seeds show with 80% chance, and the level over pictures."""
    srcc, sd = sd_over_seeds()
    pictures = math.sqrt(picture_variance(srcc, n, agreement))
    lines = [
        "| SD of training | seeds | SD of a difference | shown with 80%: 2 conditions | 5 conditions | "
        "level over pictures |",
        "|---|---|---|---|---|---|",
    ]
    for training, name in ((sd, f"{sd:.3f}, as in the main job at 90ba1ce"), (sd / 2, f"{sd / 2:.3f}, half of it")):
        for seeds in (3, 5, 10):
            total = math.sqrt(2) * training
            two, five = (detectable(total, seeds, conditions=conditions) for conditions in (2, 5))
            level = level_over_pictures(total, pictures, seeds)
            lines.append(f"| {name} | {seeds} | {total:.3f} | {two:.3f} | {five:.3f} | {level:.2f} |")
    return lines


def spread(result: Mapping[str, Any], metric: str) -> tuple[float, int] | None:
    """Return the SD over seeds of a difference of two conditions in a result.json, and how many conditions it pools.

    It is of the first set and of conditions with all seeds; None with fewer than two of them, or of two seeds.
    """
    dataset, protocol = result["rows"][0]["set"], result["protocol"]
    rows = [row for row in result["rows"] if (row["set"], row["protocol"]) == (dataset, protocol)]
    values = {row["condition"]: {seed: cell["value"] for seed, cell in row[metric]["seeds"].items()} for row in rows}
    complete = {
        condition: by_seed
        for condition, by_seed in values.items()
        if len(by_seed) == len(result["seeds"]) and None not in by_seed.values()
    }
    if len(complete) < 2:
        return None
    first, second = list(complete)[:2]
    error = standard_error(contrast(complete, {first: 1, second: -1}))
    return None if not error else (error * math.sqrt(len(result["seeds"])), len(complete))


def shown_by(result: Mapping[str, Any], seeds: tuple[int, ...]) -> list[str]:
    """Return Markdown rows: effects that the study's own spread can show, for one test and for Holm's first claim.

    The SD is pooled over its conditions, because one from three seeds is very uncertain.
    """
    claims = max(1, len(result["claims"]))
    strictest = f", the first of {claims} claims (Holm)" if claims > 1 else ""
    lines = [f"| metric | SD of a difference | seeds | shown with 80% |{strictest and ' as' + strictest[1:] + ' |'}"]
    lines.append("|---|---|---|---|" + ("---|" if strictest else ""))
    for metric in ("srcc", "plcc"):
        pooled = spread(result, metric)
        if pooled is None:
            continue
        sd, conditions = pooled
        for number in seeds:
            single, strict = (detectable(sd, number, alpha, conditions=conditions) for alpha in (0.05, 0.05 / claims))
            line = f"| {metric.upper()} | {sd:.3f}, pooled over {conditions} conditions | {number} | {single:.3f} |"
            lines.append(line + (f" {strict:.3f} |" if strictest else ""))
    return lines if len(lines) > 2 else []


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("\n".join(shown_by(json.loads(Path(sys.argv[1]).read_text()), (3, 5, 10))))
    else:
        print("\n".join(table()))
