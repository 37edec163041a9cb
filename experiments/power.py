"""Compute the differences that a study can detect: `python -m experiments.power` prints the table of README.md.

`python -m experiments.power RESULT_JSON` prints it for the spread of differences that a study has measured.

Two conditions are run with the same seeds and answer the same pictures; the mean over seeds of the difference in SRCC
is tested with a t-test over seeds. A seed's difference varies because training does and because pictures are few:

    var(d) = 2 sd_training^2 + var_pictures,    var_pictures = 2 (1 - c) 1.06 (1 - r^2)^2 / (n - 3)

r is the SRCC of either condition, c the correlation of the two conditions' estimates over resampled pictures, 1.06 the
factor of Spearman's correlation (Fieller, Hartley and Pearson, 1957). All seeds answer the same pictures, so more seeds
do not reduce the part of the variance that is due to pictures. The test treats it as if they did, and so overestimates
the power a little with many seeds.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MAIN_JOB = Path(__file__).parent / "main_job" / "results" / "result.json"


def picture_variance(srcc: float, n: int, agreement: float) -> float:
    """Return the variance, over draws of `n` pictures, of the difference of two conditions' SRCC.

    `agreement` is c above.
    """
    return 2 * (1 - agreement) * 1.06 * (1 - srcc**2) ** 2 / (n - 3)


def power(effect: float, sd: float, seeds: int, alpha: float = 0.05) -> float:
    """Return the chance that a two-sided paired t-test over `seeds` finds `effect` when differences vary by `sd`."""
    from scipy import stats

    df = seeds - 1
    critical = stats.t.ppf(1 - alpha / 2, df)
    shift = effect / sd * math.sqrt(seeds)
    wrong_side = np.nan_to_num(stats.nct.cdf(-critical, df, shift))  # scipy returns NaN for a chance near 0
    return float(stats.nct.sf(critical, df, shift) + wrong_side)


def detectable(sd: float, seeds: int, alpha: float = 0.05, wanted: float = 0.8) -> float:
    """Return the smallest true effect that is found with chance `wanted`."""
    from scipy.optimize import brentq

    largest = sd
    while power(largest, sd, seeds, alpha) < wanted:
        largest *= 2
    return float(brentq(lambda effect: power(effect, sd, seeds, alpha) - wanted, 1e-9 * sd, largest))


def sd_over_seeds(place: str = "scenes/test", protocol: str = "sample") -> tuple[float, float]:
    """Return (mean, standard deviation over seeds) of SRCC after RAPO in the main job's recorded runs."""
    rows = json.loads(MAIN_JOB.read_text())["rows"]
    values = [
        row["srcc"]["value"]
        for row in rows
        if (row["condition"], row["set"], row["protocol"], row["stage"]) == ("critique", place, protocol, "rapo")
    ]
    return float(np.mean(values)), float(np.std(values, ddof=1))


def table(n: int = 600, agreement: float = 0.5) -> list[str]:
    """Return Markdown rows: the effect that 3, 5 and 10 seeds show with 80% chance."""
    srcc, sd = sd_over_seeds()
    pictures = math.sqrt(picture_variance(srcc, n, agreement))
    lines = [
        "| SD of training | seeds | SD of a difference | smallest SRCC difference shown with 80% |",
        "|---|---|---|---|",
    ]
    for training, name in ((sd, f"{sd:.3f}, as in the main job"), (sd / 2, f"{sd / 2:.3f}, half of it")):
        for seeds in (3, 5, 10):
            total = math.sqrt(2 * training**2 + pictures**2)
            lines.append(f"| {name} | {seeds} | {total:.3f} | {detectable(total, seeds):.3f} |")
    return lines


def spread(result: Mapping[str, Any], metric: str) -> list[float]:
    """Return, per condition, the SD over seeds of the differences to the baseline in a result.json, for its first set.

    Conditions with fewer than two seeds, or with a seed without a difference, are left out.
    """
    place = result["rows"][0]["set"]
    found = []
    for comparison in result["differences"]:
        values = [seed["difference"] for seed in comparison[metric]["seeds"].values()]
        if comparison["set"] == place and len(values) > 1 and None not in values:
            found.append(float(np.std(values, ddof=1)))
    return found


def shown_by(result: Mapping[str, Any], seeds: tuple[int, ...]) -> list[str]:
    """Return Markdown rows: effects that the study's own spread can show, for one test and for Holm's first claim.

    The SDs of its comparisons are pooled (root of the mean variance), because one from three seeds is very uncertain.
    """
    claims = max(1, len(result["claims"]))
    strictest = f", the first of {claims} claims (Holm)" if claims > 1 else ""
    lines = [f"| metric | SD of a difference | seeds | shown with 80% |{strictest and ' as' + strictest[1:] + ' |'}"]
    lines.append("|---|---|---|---|" + ("---|" if strictest else ""))
    for metric in ("srcc", "plcc"):
        each = spread(result, metric)
        if not each or not any(each):
            continue
        pooled = math.sqrt(float(np.mean(np.square(each))))
        name = f"{pooled:.3f} pooled of {len(each)}, {min(each):.3f} to {max(each):.3f}"
        for number in seeds:
            line = f"| {metric.upper()} | {name} | {number} | {detectable(pooled, number):.3f} |"
            lines.append(line + (f" {detectable(pooled, number, 0.05 / claims):.3f} |" if strictest else ""))
    return lines if len(lines) > 2 else []


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("\n".join(shown_by(json.loads(Path(sys.argv[1]).read_text()), (3, 5, 10))))
    else:
        print("\n".join(table()))
