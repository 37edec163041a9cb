"""Analyse a study: rows by condition, paired differences to the baseline, claims, table, figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aes_r1.settings import InputError
from experiments import figures
from experiments.answers import write_answers
from experiments.claims import Claim, judged
from experiments.reading import (
    METRICS,
    Run,
    RunsByCondition,
    by_condition,
    check_pictures,
    origins,
    over_seeds,
    paired,
    read_runs,
    why_unfinished,
)
from experiments.tables import table

HERE = Path(__file__).parent
T = TypeVar("T")
PAPER = json.loads((HERE / "paper.json").read_text())
PROTOCOL = "sample"  # one output at temperature .6, the authors' protocol


@dataclass(frozen=True)
class Study:
    """A study: its conditions, how they are compared, and its claims.

    axes: prefixes of the settings in which conditions differ. label: a run's condition, one of `order`. same_pictures:
    conditions answer the same pictures and are compared picture by picture; a study whose pictures differ on purpose
    has no differences and no claims.
    """

    name: str
    axes: tuple[str, ...]
    label: Callable[[Mapping[str, Any]], str]
    order: tuple[str, ...]
    baseline: str
    claims: tuple[Claim, ...] = ()
    paper: Mapping[str, Mapping[str, float]] | None = None  # {condition: {"plcc", "srcc"}}, another scale
    stage: str = "rapo"
    same_pictures: bool = True
    protocol: str = PROTOCOL  # of differences and claims


def analyse(study: Study, folder: Path, *, n_bootstrap: int = 1000) -> tuple[dict[str, Any], dict[str, dict[int, Run]]]:
    """Return the study's result as plain values, and its runs by condition and seed."""
    finished, unfinished = read_runs(folder)
    runs = by_condition(finished, study.label, study.axes)
    strange = sorted(set(runs) - set(study.order))
    if strange:
        raise InputError(f"{folder}: conditions {', '.join(strange)} are not of the study {study.name}")
    if study.same_pictures:
        check_pictures(finished)
    runs = {condition: runs[condition] for condition in study.order if condition in runs}
    seeds = sorted({seed for by_seed in runs.values() for seed in by_seed})
    failed: dict[str, dict[int, str]] = {}
    for run in unfinished:
        if run.failure is not None and (condition := study.label(run.settings)) in study.order:
            failed.setdefault(condition, {})[run.settings["seed"]] = run.failure
    datasets = list(finished[0].evaluation["stages"].get(study.stage, {}))
    rows = [
        _row(condition, by_seed, study.stage, dataset, protocol)
        for dataset in datasets
        for protocol in finished[0].evaluation["stages"][study.stage][dataset]
        for condition, by_seed in runs.items()
    ]
    stages = (study.stage, study.stage)

    def difference(condition: str, than: str, dataset: str) -> dict[str, Any]:
        values = paired(runs[than], runs[condition], stages, dataset, study.protocol, n_bootstrap)
        return {"condition": condition, "than": than, "set": dataset, "protocol": study.protocol, **values}

    compared = [
        difference(condition, study.baseline, dataset)
        for dataset in datasets
        for condition in runs
        if study.same_pictures and study.baseline in runs and condition != study.baseline
    ]
    result = {
        "study": study.name,
        "seeds": seeds,
        "origins": origins(finished),
        "one_list": all(_one_list(list(by_seed.values()), datasets) for by_seed in runs.values()),
        "people": _people(finished[0]) if study.same_pictures else {},
        "protocol": study.protocol,
        "missing": missing_points(study, seeds, runs),
        "unfinished": why_unfinished(unfinished),
        "failed": failed,
        "rows": rows,
        "differences": compared,
        "claims": claimed(study, rows, failed),
        "paper": study.paper,
    }
    return result, runs


def missing_points(study: Study, seeds: Sequence[int], finished: Mapping[str, Container[int]]) -> list[str]:
    """Return a line for each condition and seed of the study that is not among {condition: seeds} `finished`."""
    return [
        f"{condition}, seed {seed}"
        for condition in study.order
        for seed in seeds
        if seed not in finished.get(condition, ())
    ]


def claimed(
    study: Study, rows: Sequence[Mapping[str, Any]], failed: Mapping[str, Mapping[Any, str]]
) -> list[dict[str, Any]]:
    """Return the study's claims, judged on the first set under the study's protocol."""
    dataset = rows[0]["set"] if rows else None
    of_dataset = [row for row in rows if (row["set"], row["protocol"]) == (dataset, study.protocol)]
    return judged(study.claims, of_dataset, failed)


def _row(condition: str, by_seed: Mapping[int, Run], stage: str, dataset: str, protocol: str) -> dict[str, Any]:
    cells = {seed: run.evaluation["stages"][stage][dataset][protocol] for seed, run in sorted(by_seed.items())}
    return {
        "condition": condition,
        "set": dataset,
        "protocol": protocol,
        "n": max(cell["n"] for cell in cells.values()),
        "parse_failure_rate": over_seeds(cell["parse_failure_rate"] for cell in cells.values())["mean"],
        **{
            metric: {
                **over_seeds(cell[metric]["value"] for cell in cells.values()),
                "seeds": {seed: cell[metric] for seed, cell in cells.items()},
            }
            for metric in METRICS
        },
    }


def _one_list(runs: Sequence[Run], datasets: Sequence[str]) -> bool:
    """Return whether all seeds answered the same pictures, as far as the folders record it."""
    return all(len({run.lists[dataset] for run in runs if dataset in run.lists}) <= 1 for dataset in datasets)


def _people(run: Run) -> dict[str, float]:
    """Return {set: SRCC of one half of its raters with the other}, of the sets whose opinions tell it."""
    cells = {
        dataset: baselines["people"]
        for dataset, baselines in run.evaluation.get("baseline_cells", {}).items()
        if "people" in baselines
    }
    return {dataset: cell["srcc"]["value"] for dataset, cell in cells.items() if cell["srcc"]["value"] is not None}


# -- writing -----------------------------------------------------------------------------------------------------------
def drawn(study: Study, result: Mapping[str, Any], folder: Path) -> Any:
    """Return the figure of a study, with the cold starts whose answers are in `folder`."""
    return figures.draw(
        [row for row in result["rows"] if row["protocol"] == study.protocol],
        form=figures.TITLES[study.protocol],
        baseline=study.baseline if study.same_pictures else None,
        starts=figures.starts_of(folder / "answers.csv.gz", study.protocol),
        people=result.get("people", {}),
    )


def write(
    folder: Path,
    result: Mapping[str, Any],
    draw: Callable[[], Any],
    text: str,
    runs: RunsByCondition | None = None,
) -> None:
    """Write result.json, table.md (`text`), figure.svg and figure.png to `folder`, and print the table.

    draw: returns the figure; it is called after the answers were written, from which it may draw. runs: the study's
    runs by condition and seed, whose answers go to answers.csv.gz; None for a study of runs whose answers are in
    another study's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if runs is not None:
        write_answers(folder / "answers.csv.gz", runs)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "table.md").write_text(text)
    figures.save(draw(), folder)
    print(text)


def folders(name: str, arguments: list[str]) -> tuple[Path, Path]:
    """Return (run folders, where results go): the command line's, or runs/NAME and experiments/NAME/results."""
    paths = [Path(argument) for argument in arguments]
    return (paths[0] if paths else Path("runs") / name, paths[1] if len(paths) > 1 else HERE / name / "results")


def run_analysis(analysis: Callable[[], T]) -> T:
    """Return what `analysis` returns; end the command with one line where its input is wrong."""
    try:
        return analysis()
    except InputError as error:
        sys.exit(f"aes_r1: {error}")


def main(
    study: Study,
    arguments: list[str] | None = None,
    section: Callable[[Mapping[str, Any]], str] = lambda _: "",
) -> None:
    """Run the analysis: `python -m experiments.NAME.analyse [RUNS [OUT]]`. section: what table.md has besides."""
    folder, out = folders(study.name, sys.argv[1:] if arguments is None else arguments)
    result, runs = run_analysis(lambda: analyse(study, folder))
    write(out, result, lambda: drawn(study, result, out), table(result) + section(result), runs)
