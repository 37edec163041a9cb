"""Write table.md of a study from its result: rows by set and protocol, differences, power, claims, missing runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from aes_r1.runs.cells import format_cell
from experiments.blocks import contrast, equivalent
from experiments.power import shown_by
from experiments.reading import METRICS

MARGIN = 0.02  # of SRCC: a smaller difference does not matter


def table(result: Mapping[str, Any]) -> str:
    lines = [*_covered(result), *_rows(result), *_differences(result), *_claims(result), *missing(result)]
    return "\n".join(lines).rstrip() + "\n"


def interval(value: Mapping[str, Any], *, signed: bool = False) -> str:
    """Format 0.812 [0.790, 0.834], with a sign for a difference, and (2 of 3 seeds) where the others have no value.

    No interval from fewer than three: with one degree of freedom it would be wider than the scale of correlations.
    """
    defined = f"{value['n']} of {value['run']} seeds" if value["n"] != value["run"] else ""
    if value["mean"] is None:
        return f"not defined ({defined})" if defined else "–"
    shown = value if value["n"] > 2 else {**value, "low": None}
    return format_cell(shown, "mean", signed=signed) + (f" ({defined})" if defined else "")


def short(number: float, digits: int) -> str:
    """Format a number without the zero before its point: .812, -.014, 6.9."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{number:.{digits}f}")


def error_bars(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return half the intervals that `interval` prints, 0 where it prints none."""
    return [0.0 if row["low"] is None or row["n"] < 3 else row["high"] - row["mean"] for row in rows]


def commits(result: Mapping[str, Any], what: str = "commits") -> str:
    """Name the commits, or the base models ("base"), of a result's runs with their numbers of runs."""
    return ", ".join(f"{name} ({runs} runs)" for name, runs in result["origins"][what].items())


def over_pictures(value: Mapping[str, Any]) -> str:
    """Format the range from the lowest to the highest end of the seeds' own intervals over pictures."""
    cells = [cell for cell in value["seeds"].values() if cell["low"] is not None]
    if not cells:
        return "–"
    return f"[{min(cell['low'] for cell in cells):+.3f}, {max(cell['high'] for cell in cells):+.3f}]"


def effects(result: Mapping[str, Any], dataset: str, weights: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the lines of a table of contrasts, {name: {condition: weight}}, of one set under the study's protocol."""
    rows = [row for row in result["rows"] if (row["set"], row["protocol"]) == (dataset, result["protocol"])]
    lines = [
        "With the error pooled over all conditions; not adjusted for their number. Equal: the contrast of SRCC is "
        f"within {MARGIN:g} by two one-sided tests at .05.",
        "",
        f"| difference | SRCC | PLCC | equal within {MARGIN:g} |",
        "|---|---|---|---|",
    ]
    for name, of_conditions in weights.items():
        estimates = {}
        for metric in ("srcc", "plcc"):
            seeds = {row["condition"]: row[metric]["seeds"] for row in rows}
            values = {
                condition: {seed: cell["value"] for seed, cell in cells.items()} for condition, cells in seeds.items()
            }
            estimates[metric] = contrast(values, of_conditions)
        cells = " | ".join(interval({**estimate, "run": estimate["n"]}, signed=True) for estimate in estimates.values())
        lines.append(f"| {name} | {cells} | {'yes' if equivalent(estimates['srcc'], MARGIN) else 'not shown'} |")
    return lines


def _covered(result: Mapping[str, Any]) -> list[str]:
    """Describe the runs, and what their intervals do and do not cover."""
    seeds = ", ".join(str(seed) for seed in result["seeds"])
    pictures = "given these pictures" if result["one_list"] else "each with pictures of its own"
    several = len(result["origins"]["base"]) > 1
    bases, unseen = ("a base model of each", "") if several else ("one base model", ", base models")
    return [
        f"Seeds {seeds}. Means over seeds, with 95% t-intervals where there are at least three. The intervals cover "
        f"seeds, {pictures} and {bases}: not other pictures{unseen} or recipes. None is adjusted for their number.",
        "",
        f"Code: {commits(result)}. Base model: {commits(result, 'base')}.",
        "",
    ]


def _rows(result: Mapping[str, Any]) -> list[str]:
    lines, paper = [], result["paper"]
    for dataset, protocol in dict.fromkeys((row["set"], row["protocol"]) for row in result["rows"]):
        head = "| condition | seeds | pictures | SRCC | PLCC | MAE | failed |" + (
            " paper SRCC / PLCC* |" if paper else ""
        )
        lines += [f"### {dataset}, {protocol}", "", head, "|---|---|---|---|---|---|---|" + ("---|" if paper else "")]
        for row in result["rows"]:
            if (row["set"], row["protocol"]) != (dataset, protocol):
                continue
            cells = " | ".join(interval(row[metric]) for metric in METRICS)
            counts = f"{row['srcc']['run']} | {row['n']}"
            line = f"| {row['condition']} | {counts} | {cells} | {row['parse_failure_rate']:.1%} |"
            if paper:
                beside = paper.get(row["condition"])
                line += f" {beside['srcc']:.4f} / {beside['plcc']:.4f} |" if beside else " – |"
            lines.append(line)
        lines.append("")
    if paper:
        lines += ["\\* Five-set averages of a 7B on photographs: another scale, for the pattern only.", ""]
    if any(row[metric]["n"] < row[metric]["run"] for row in result["rows"] for metric in METRICS):
        lines += [
            "A run that answers nothing, or a constant, has no correlation: such means are of the other seeds.",
            "",
        ]
    return lines


def _differences(result: Mapping[str, Any]) -> list[str]:
    if not result["differences"]:
        return []
    lines = [
        f"### Differences, paired by seed and picture, {result['protocol']}",
        "",
        "Intervals are of each pair's own seeds. Over pictures: from the lowest to the highest end of the seeds' own "
        "95% intervals, each given its run.",
        "",
        "| set | condition - baseline | seeds | SRCC | PLCC | MAE | SRCC over pictures | PLCC over pictures |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["differences"]:
        cells = " | ".join(interval(row[metric], signed=True) for metric in METRICS)
        pictures = " | ".join(over_pictures(row[metric]) for metric in ("srcc", "plcc"))
        ends = f"{row['condition']} - {row['than']} | {row['srcc']['run']}"
        lines.append(f"| {row['set']} | {ends} | {cells} | {pictures} |")
    lines.append("")
    shown = shown_by(result, (len(result["seeds"]),)) if len(result["seeds"]) > 1 else []
    if shown:
        dataset = result["rows"][0]["set"]
        lines += [
            f"Smallest true difference that these seeds show, by their own spread on {dataset}, in one test:",
            "",
            *shown,
            "",
        ]
    return lines


def _claims(result: Mapping[str, Any]) -> list[str]:
    if not result["claims"]:
        return []
    lines = [
        f"### Claims, on {result['rows'][0]['set']}",
        "",
        "t-test within seeds with the error pooled over all conditions, as is the interval; p adjusted for the number "
        "of claims (Holm): yes and no are below .05, for and against. Not shown: neither. A margin makes the claim one "
        "of not being worse by as much. Pooling assumes that all conditions vary alike; p alone is of a paired t-test "
        "of the two sides without the other conditions, not adjusted.",
        "",
        "| claim | margin | seeds | difference | p | p (Holm) | verdict | p alone |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for claim in result["claims"]:
        difference = claim["difference"]
        shown = "– | –" if difference is None else f"{difference['run']} | {interval(difference, signed=True)}"
        p = " | ".join("–" if value is None else f"{value:.3f}" for value in (claim["p"], claim["p_holm"]))
        alone = "–" if claim["p_alone"] is None else f"{claim['p_alone']:.3f}"
        margin = f"{claim['margin']:g}" if claim["margin"] else "–"
        lines.append(f"| {claim['text']} | {margin} | {shown} | {p} | {claim['verdict']} | {alone} |")
    return [*lines, ""]


def missing(result: Mapping[str, Any]) -> list[str]:
    """Return a line for every condition that lacks runs, and one for every unfinished run."""
    seeds: dict[str, list[str]] = {}
    for point in result["missing"]:
        condition, _, seed = point.rpartition(", seed ")
        seeds.setdefault(condition, []).append(seed)
    lines = [
        f"Missing: {condition}, seed{'s' * (len(lacking) > 1)} {', '.join(lacking)}."
        for condition, lacking in seeds.items()
    ]
    return lines + [f"Unfinished: {run}." for run in result["unfinished"]]
