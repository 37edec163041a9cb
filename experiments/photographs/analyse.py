"""Put side by side what baselines and people reach on photographs, within a set and across sets.

    python -m experiments.photographs.analyse OUT [OUT ..]
    python -m experiments.photographs.analyse + OUT [OUT ..]      # beside what results/result.json holds already

Each OUT is the folder of an `aes_r1.evaluate baselines=[..]`. Its test sets are taken whole, over all splits that were
asked about. Writes results/result.json and results/table.md.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.evaluation.metrics import correlations
from aes_r1.inference.people import whole_group
from aes_r1.pipeline.baselines_stage import baseline_facts
from aes_r1.runs.cells import format_cell
from aes_r1.runs.files import read_json, write_json
from aes_r1.runs.folder import RunFolder
from experiments.tables import short

RESULTS = Path(__file__).parent / "results"
ORDER = ("mean", "eyes", "handmade", "pretrained", "people")
Row = Mapping[str, Any]


def calibrated(scores: np.ndarray, mos: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the scores after a line that was fitted on the other half of the pictures; both halves in turn.

    It needs opinions of half of the new set, and it does not change the order within a half.
    """
    half = np.random.default_rng(seed).permutation(len(scores)) % 2
    fitted = np.empty(len(scores))
    for side in (0, 1):
        slope, intercept = np.polyfit(scores[half != side], mos[half != side], 1)
        fitted[half == side] = intercept + slope * scores[half == side]
    return fitted


def cell(rows: Sequence[Row]) -> dict[str, Any]:
    """Return n, the share without an answer, SRCC, PLCC, MAE and the MAE after calibration, with intervals.

    A missing answer counts as the mean answer, before and after calibration; a picture without MOS is left out.
    """
    known = [row for row in rows if row["mos"] is not None]
    scores, mos = (np.asarray([row[name] for row in known], dtype=np.float64) for name in ("score", "mos"))
    agreement = correlations(scores, mos)
    names = ("n", "parse_failure_rate", "srcc", "plcc", "mae")
    result: dict[str, Any] = {name: agreement[name] for name in names}
    result["how"] = rows[0].get("how", rows[0].get("protocol"))
    answered = scores[~np.isnan(scores)]
    if len(answered) and np.ptp(answered) > 1e-9:
        filled = np.where(np.isnan(scores), answered.mean(), scores)
        result["mae_calibrated"] = correlations(calibrated(filled, mos), mos)["mae"]
    if result["how"] == "halves":
        result["whole_group_srcc"] = whole_group(agreement["srcc"])
    return result


def measured(out: Path) -> dict[str, Any]:
    """Return {SET: {READER: cell}} of one evaluation, what its baselines were fitted on, and whose eyes they have."""
    run, models = RunFolder(out), set()
    by_set: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for name in run.baselines:
        for row in run.baseline(name):
            by_set[row["dataset"]][name].append(row)
    for row in run.predictions():
        by_set[row["dataset"]][f"{row['stage']}, {row['protocol']}"].append(row)
        models.add(row["stage"])
    facts = [fact for cells in baseline_facts(run).values() for fact in cells.values()]
    fitted = next(fact for fact in facts if "fitted_on" in fact)
    sets = {
        dataset: {name: cell(readers[name]) for name in sorted(readers, key=_order)}
        for dataset, readers in by_set.items()
    }
    return {"fitted_on": fitted["fitted_on"], "fitted_n": fitted["fitted_n"], "models": sorted(models), "sets": sets}


def _order(reader: str) -> tuple[int, str]:
    """Sort baselines in their order, and models behind them."""
    return (ORDER.index(reader) if reader in ORDER else len(ORDER), reader)


def _told(value: Mapping[str, Any] | None) -> str:
    return "–" if value is None else format_cell(value, write=short)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Write one table per evaluation."""
    lines = ["# Photographs: what needs no critique, and people", ""]
    for result in results:
        eyes = f"; the eyes are those of {', '.join(result['models'])}" if result.get("models") else ""
        lines += [
            f"## Fitted on {result['fitted_n']} pictures of {result['fitted_on']}{eyes}",
            "",
            "| tested on | reader | n | no answer | SRCC | PLCC | MAE | MAE, calibrated |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for dataset, readers in result["sets"].items():
            for name, measures in readers.items():
                values = (measures["srcc"], measures["plcc"], measures["mae"], measures.get("mae_calibrated"))
                failed = format(measures["parse_failure_rate"], ".1%")
                lines.append(f"| {dataset} | {name} | {measures['n']} | {failed} | {' | '.join(map(_told, values))} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    known = read_json(RESULTS / "result.json")["evaluations"] if arguments[0] == "+" else []
    results = [*known, *(measured(Path(folder)) for folder in arguments if folder != "+")]
    write_json(RESULTS / "result.json", {"evaluations": results})
    (RESULTS / "table.md").write_text(table(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main(sys.argv[1:])
