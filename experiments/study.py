"""What every study's analysis does: rows by condition, paired differences to the baseline, claims, table, figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from aes_r1.settings import InputError, as_dict
from experiments.reading import METRICS, Run, by_condition, over_seeds, paired, read_runs

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PAPER = json.loads((HERE / "paper.json").read_text())
PROTOCOL = "sample"  # of differences and claims: one output at .6, the authors' protocol


@dataclass(frozen=True)
class Claim:
    """`condition` against `than` in `metric` on the first set; `sign` is the direction that the text claims."""

    text: str
    condition: str
    than: str
    metric: str
    sign: int


@dataclass(frozen=True)
class Study:
    """axes: prefixes of the settings that conditions differ in. label: a run's condition, one of `order`."""

    name: str
    axes: tuple[str, ...]
    label: Callable[[Mapping[str, Any]], str]
    order: tuple[str, ...]
    baseline: str
    claims: tuple[Claim, ...] = ()
    paper: Mapping[str, Mapping[str, float]] | None = None  # {condition: {"plcc", "srcc"}}, another scale
    stage: str = "rapo"


def analyse(study: Study, folder: Path, *, n_bootstrap: int = 1000) -> tuple[dict[str, Any], dict[str, dict[int, Run]]]:
    """The study's result as plain values, and its runs by condition and seed."""
    runs, unfinished = read_runs(folder)
    found = by_condition(runs, study.label, study.axes)
    strange = sorted(set(found) - set(study.order))
    if strange:
        raise InputError(f"{folder}: conditions {', '.join(strange)} are not of the study {study.name}")
    found = {condition: found[condition] for condition in study.order if condition in found}
    seeds = sorted({seed for by_seed in found.values() for seed in by_seed})
    places = list(runs[0].evaluation["stages"].get(study.stage, {}))
    rows = [
        _row(condition, by_seed, study.stage, place, protocol)
        for place in places
        for protocol in runs[0].evaluation["stages"][study.stage][place]
        for condition, by_seed in found.items()
    ]
    stages = (study.stage, study.stage)

    def difference(condition: str, than: str, place: str) -> dict[str, Any]:
        values = paired(found[than], found[condition], stages, place, PROTOCOL, n_bootstrap)
        return {"condition": condition, "than": than, "set": place, "protocol": PROTOCOL, **values}

    compared = [
        difference(condition, study.baseline, place)
        for place in places
        for condition in found
        if study.baseline in found and condition != study.baseline
    ]
    claims = [
        {
            **as_dict(claim),
            "verdict": verdict(difference(claim.condition, claim.than, places[0])[claim.metric], claim.sign)
            if {claim.condition, claim.than} <= found.keys()
            else "not run",
        }
        for claim in study.claims
    ]
    result = {
        "study": study.name,
        "seeds": seeds,
        "missing": [
            f"{condition}, seed {seed}"
            for condition in study.order
            for seed in seeds
            if seed not in found.get(condition, {})
        ],
        "unfinished": unfinished,
        "rows": rows,
        "differences": compared,
        "claims": claims,
        "paper": study.paper,
    }
    return result, found


def _row(condition: str, by_seed: Mapping[int, Run], stage: str, place: str, protocol: str) -> dict[str, Any]:
    cells = {seed: run.evaluation["stages"][stage][place][protocol] for seed, run in sorted(by_seed.items())}
    return {
        "condition": condition,
        "set": place,
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


def verdict(difference: Mapping[str, Any], sign: int) -> str:
    """yes or no where the interval over seeds leaves out 0, "not shown" where it does not, "one seed" without one."""
    if difference["low"] is None:
        return "one seed" if difference["n"] else "not defined"
    if difference["low"] > 0 or difference["high"] < 0:
        return "yes" if (difference["mean"] > 0) == (sign > 0) else "no"
    return "not shown"


# -- writing -----------------------------------------------------------------------------------------------------------
def table(result: Mapping[str, Any]) -> str:
    """table.md: rows by set and protocol, differences, claims, what is missing."""
    seeds = ", ".join(str(seed) for seed in result["seeds"])
    lines = [f"Seeds {seeds}. Means over seeds, with 95% t-intervals where there are at least two.", ""]
    for place, protocol in dict.fromkeys((row["set"], row["protocol"]) for row in result["rows"]):
        mine = [row for row in result["rows"] if (row["set"], row["protocol"]) == (place, protocol)]
        paper = result["paper"]
        head = "| condition | n | SRCC | PLCC | MAE | failed |" + (" paper SRCC / PLCC* |" if paper else "")
        lines += [f"### {place}, {protocol}", "", head, "|---|---|---|---|---|---|" + ("---|" if paper else "")]
        for row in mine:
            cells = " | ".join(interval(row[metric]) for metric in METRICS)
            line = f"| {row['condition']} | {row['n']} | {cells} | {row['parse_failure_rate']:.1%} |"
            if paper:
                beside = paper.get(row["condition"])
                line += f" {beside['srcc']:.4f} / {beside['plcc']:.4f} |" if beside else " – |"
            lines.append(line)
        lines.append("")
    if result["paper"]:
        lines += ["\\* Five-set averages of a 7B on photographs: another scale, for the pattern only.", ""]
    if result["differences"]:
        lines += [
            f"### Differences, paired by seed and picture, {PROTOCOL}",
            "",
            "| set | condition - baseline | SRCC | PLCC | MAE |",
            "|---|---|---|---|---|",
        ]
        for one in result["differences"]:
            cells = " | ".join(interval(one[metric], signed=True) for metric in METRICS)
            lines.append(f"| {one['set']} | {one['condition']} - {one['than']} | {cells} |")
        lines.append("")
    if result["claims"]:
        lines += ["### Claims, 95% over seeds", "", "| claim | verdict |", "|---|---|"]
        lines += [f"| {claim['text']} | {claim['verdict']} |" for claim in result["claims"]] + [""]
    lines += [f"Missing: {one}." for one in result["missing"]] + [f"Unfinished: {one}." for one in result["unfinished"]]
    return "\n".join(lines).rstrip() + "\n"


def interval(value: Mapping[str, Any], *, signed: bool = False) -> str:
    """0.812 [0.790, 0.834], with a sign where it is a difference."""
    form = "+.3f" if signed else ".3f"
    if value["mean"] is None:
        return "–"
    if value["low"] is None:
        return f"{value['mean']:{form}}"
    return f"{value['mean']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def dots(study: Study, result: Mapping[str, Any]) -> Any:
    """A figure: SRCC and PLCC by condition, a dot per seed and a bar at their mean, one row of axes per set."""
    places = list(dict.fromkeys(row["set"] for row in result["rows"]))
    width = max(6.0, 1.1 * len(study.order) + 3)
    figure, axes = plt.subplots(
        len(places), 2, figsize=(2 * width / 1.6, 2.6 * len(places)), squeeze=False, layout="constrained"
    )
    for line, place in zip(axes, places, strict=True):
        mine = [row for row in result["rows"] if row["set"] == place and row["protocol"] == PROTOCOL]
        for axis, metric in zip(line, ("srcc", "plcc"), strict=True):
            for x, row in enumerate(mine):
                values = [cell["value"] for cell in row[metric]["seeds"].values() if cell["value"] is not None]
                axis.plot([x] * len(values), values, "o", ms=4, color="C0", alpha=0.6)
                if row[metric]["mean"] is not None:
                    axis.hlines(row[metric]["mean"], x - 0.25, x + 0.25, color="C1", lw=2)
            axis.set_xticks(range(len(mine)), [row["condition"] for row in mine], fontsize=8)
            axis.set_title(f"{metric.upper()}, {place}, one sample", fontsize=9)
            axis.grid(axis="y", lw=0.3)
    return figure


def write(here: Path, result: Mapping[str, Any], figure: Any) -> None:
    """result.json, table.md, figure.svg and figure.png in `here`."""
    here.mkdir(parents=True, exist_ok=True)
    (here / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (here / "table.md").write_text(table(result))
    for kind in ("svg", "png"):
        figure.savefig(here / f"figure.{kind}", dpi=150)
    plt.close(figure)


def folders(name: str, arguments: list[str]) -> tuple[Path, Path]:
    """(run folders, where results go): the command line's, or runs/NAME and experiments/NAME/results."""
    given = [Path(argument) for argument in arguments]
    return (given[0] if given else Path("runs") / name, given[1] if len(given) > 1 else HERE / name / "results")


def main(study: Study, arguments: list[str] | None = None) -> None:
    """`python -m experiments.NAME.analyse [RUNS [OUT]]`."""
    runs, out = folders(study.name, sys.argv[1:] if arguments is None else arguments)
    try:
        result, _ = analyse(study, runs)
    except InputError as error:
        sys.exit(f"aes_r1: {error}")
    write(out, result, dots(study, result))
    print((out / "table.md").read_text())
