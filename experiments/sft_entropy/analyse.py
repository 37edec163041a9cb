"""Relate length of the cold start, token entropy and RAPO's gain; test rules that pick the starting checkpoint.

python -m experiments.sft_entropy.analyse [RUNS [OUT]]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt

from aes_r1.inference.token_entropy import TOKEN_KINDS
from experiments.figures import WIDTH
from experiments.reading import RunsByCondition, over_seeds
from experiments.sft_entropy.starts import FIXED, FLOOR, by_seed, gains, relations
from experiments.study import PAPER, Claim, Study, analyse, folders, run_analysis, write
from experiments.tables import interval, table

EPOCHS = (0, 1, 2, 3, 5, 10)
RULES = {
    "entropy": f"highest entropy with at least {FLOOR:.0%} readable answers",
    **{name: f"always {name}" for name in FIXED},
}
# Colours and marks that colour-blind readers tell apart (Okabe and Ito, 2008).
COLORS = dict(
    zip(
        (f"{epochs} epochs" for epochs in EPOCHS),
        ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00"),
        strict=True,
    )
)
MARKERS = dict(zip((f"{epochs} epochs" for epochs in EPOCHS), "osv^D*", strict=True))
NONE_READABLE = "none reaches the floor"

STUDY = Study(
    name="sft_entropy",
    axes=("cold_start.epochs",),
    label=lambda settings: f"{settings['cold_start']['epochs']} epochs",
    order=tuple(f"{epochs} epochs" for epochs in EPOCHS),
    baseline="1 epochs",
    claims=(
        Claim("10 epochs, then RAPO ends below 1 epoch, then RAPO", "10 epochs", "1 epochs", "srcc", -1),
        Claim("2 epochs, then RAPO ends below 1 epoch, then RAPO", "2 epochs", "1 epochs", "srcc", -1),
        Claim("RAPO from the base model ends below 1 epoch, then RAPO", "0 epochs", "1 epochs", "srcc", -1),
    ),
    paper={
        f"{epochs} epochs": PAPER["sft_epochs"][f"{epochs} epochs + RAPO"]
        for epochs in EPOCHS
        if "note" not in PAPER["sft_epochs"].get(f"{epochs} epochs + RAPO", {"note": ""})
    },
)


def probes(runs: RunsByCondition) -> dict[str, dict[int, list[dict]]]:
    """Return the measurements during the cold start by condition and seed."""
    return {
        condition: {seed: run.folder.entropy for seed, run in by_seed.items()} for condition, by_seed in runs.items()
    }


def draw(result: Mapping[str, Any]) -> Any:
    """Draw entropy by step, by kind and by position; gain and final SRCC against entropy at the start of RAPO."""
    with plt.rc_context({"font.size": 8, "axes.titlesize": 8}):
        figure, grid = plt.subplots(2, 3, figsize=(WIDTH, 0.68 * WIDTH), layout="constrained")
        by_step, by_kind, by_position, gain, outcome, key = grid.ravel()
        key.axis("off")
        _courses(result, by_step, by_kind, by_position)
        for axis, name in ((gain, "gains"), (outcome, "ends")):
            for condition in STUDY.order:
                points = [
                    (rule["starts"][condition]["entropy"], rule[name][condition])
                    for rule in result["rule"]
                    if rule[name].get(condition) is not None
                ]
                if points:
                    style = {"color": COLORS[condition], "marker": MARKERS[condition], "ls": "none", "ms": 4}
                    axis.plot(*zip(*points, strict=True), label=condition, **style)
            axis.set_xlabel("entropy at the start of RAPO, nats")
        gain.axhline(0, lw=0.6, color="black")
        gain.set_ylabel("gain in SRCC by RAPO")
        outcome.set_ylabel("SRCC after RAPO, one sample")
        handles = dict(zip(*reversed(outcome.get_legend_handles_labels()), strict=True))
        title = "length of the cold start;\na point is a seed"
        key.legend(handles.values(), handles, loc="center", title=title, frameon=False)
        for axis in grid.ravel():
            axis.grid(lw=0.3)
    return figure


def _courses(result: Mapping[str, Any], by_step: Any, by_kind: Any, by_position: Any) -> None:
    """Draw how entropy moves during the cold start: of all lengths, and of the longest by kind and by position."""
    for condition, seeds in result["probes"].items():
        for rows in seeds.values():
            points = [row["step"] for row in rows], [row["entropy"] for row in rows]
            by_step.plot(*points, lw=1, color=COLORS[condition])
    by_step.set(xlabel="step of the cold start", ylabel="entropy of a token, nats")
    longest = [condition for condition in result["probes"] if any(result["probes"][condition].values())][-1:]
    for condition in longest:
        rows = next(rows for rows in result["probes"][condition].values() if rows)
        for kind, color in zip(TOKEN_KINDS, COLORS.values(), strict=False):
            points = [(row["step"], row["by_kind"][kind]["entropy"]) for row in rows]
            by_kind.plot(*zip(*points, strict=True), lw=1, color=color, label=kind)
        for row, color in zip((rows[0], rows[len(rows) // 2], rows[-1]), COLORS.values(), strict=False):
            tenths = range(1, len(row["by_position"]) + 1)
            by_position.plot(tenths, row["by_position"], lw=1, color=color, label=f"step {row['step']}")
        by_kind.set_title(f"{condition}, by kind of token", loc="left")
        by_position.set_xticks(range(2, 11, 2))
        by_position.set_title(f"{condition}, by position", loc="left")
        for axis, label in ((by_kind, "step of the cold start"), (by_position, "tenth of the completion")):
            axis.set_xlabel(label)
            axis.legend(frameon=False)


def section(result: Mapping[str, Any]) -> str:
    """Return the part of table.md that only this study has."""
    return "\n".join([*_peaks(result), *_gains(result), *_relations(result), *_rules(result)]) + "\n"


def _peaks(result: Mapping[str, Any]) -> list[str]:
    text = ["", "### Where entropy peaks", ""]
    text += [
        "| seed | start with the highest entropy | of the readable | during the longest cold start |",
        "|---|---|---|---|",
    ]
    for rule in result["rule"]:
        during = rule["peak_during"]
        where = "not measured"
        if during:
            epoch = "" if during["epoch"] is None else f", epoch {during['epoch']:.1f}"
            where = f"{during['entropy']:.3f} at step {during['step']} of {during['last']}{epoch}"
        peak = f"{rule['peak']}, {rule['starts'][rule['peak']]['entropy']:.3f}"
        readable = rule["picked"]["entropy"]
        readable = f"{readable}, {rule['starts'][readable]['entropy']:.3f}" if readable else NONE_READABLE
        text.append(f"| {rule['seed']} | {peak} | {readable} | {where} |")
    return text


def _gains(result: Mapping[str, Any]) -> list[str]:
    text = ["", "### What RAPO adds to its cold start", ""]
    text += ["| start | entropy | readable | SRCC | PLCC |", "|---|---|---|---|---|"]
    for gain in result["gains"]:
        cells = [interval(gain[metric], signed=True) if gain[metric] else "not defined" for metric in ("srcc", "plcc")]
        start = f"{interval(gain['entropy'])} | {_mean(gain['answered'])}"
        text.append(f"| {gain['condition']} | {start} | {' | '.join(cells)} |")
    if any(gain["srcc"] is None for gain in result["gains"]):
        text += ["", "0 epochs have no cold start to subtract, and the study does not ask the base model: not defined."]
    return text


def _relations(result: Mapping[str, Any]) -> list[str]:
    names = {"gains": "gain in SRCC by RAPO", "ends": "final SRCC"}
    text = ["", "### Does what comes of a start follow its entropy?", ""]
    text += [
        "Spearman's correlation over the starts of one seed, and the mean over seeds. Of n starts, one has a standard "
        "deviation of 1 / sqrt(n - 1) by chance alone: .71 for three, .5 for five.",
        "",
        "| entropy with | starts | by seed (starts ranked) | mean |",
        "|---|---|---|---|",
    ]
    for relation in result["relations"]:
        seeds = ", ".join(
            f"{'–' if cell['rho'] is None else format(cell['rho'], '+.2f')} ({cell['starts']} of {cell['of']})"
            for cell in relation["seeds"].values()
        )
        starts = f"at least {relation['floor']:.0%} readable" if relation["floor"] else "all with a cold start"
        starts = "all" if relation["outcome"] == "ends" and not relation["floor"] else starts
        text.append(f"| {names[relation['outcome']]} | {starts} | {seeds} | {_mean(relation, signed=True)} |")
    return text


def _rules(result: Mapping[str, Any]) -> list[str]:
    text = ["", "### Rules that pick the start, and their regret in final SRCC", ""]
    text += [
        "Regret: the best start's SRCC less the picked one's. The best is the highest of noisy values on the same test "
        "pictures, so that no rule reaches 0 but by luck. Not defined where the picked start ended without a "
        "correlation.",
        "",
    ]
    rows = result["rule"]
    head = " | ".join(f"seed {row['seed']}" for row in rows)
    text += [f"| rule | {head} | mean |", "|---|" + "---|" * (len(rows) + 1)]
    text.append(f"| the best start | {' | '.join(row['best'] or 'not defined' for row in rows)} | – |")
    for rule, name in RULES.items():
        asked = [row for row in rows if rule in row["picked"]]
        cells = []
        for row in rows:
            picked, regret = row["picked"].get(rule), row["regret"].get(rule)
            if rule not in row["picked"]:
                cells.append("not run")
            elif picked is None:
                cells.append(NONE_READABLE)
            else:
                cells.append(f"{picked}: {'not defined' if regret is None else format(regret, '.3f')}")
        text.append(f"| {name} | {' | '.join(cells)} | {_mean(over_seeds(row['regret'][rule] for row in asked))} |")
    return text


def _mean(value: Mapping[str, Any], *, signed: bool = False) -> str:
    """Format the mean over seeds alone: a t-interval of three bounded values would exceed their bound."""
    return interval({**value, "low": None, "high": None}, signed=signed)


def main(arguments: list[str]) -> None:
    folder, out = folders(STUDY.name, arguments)
    result, runs = run_analysis(lambda: analyse(STUDY, folder))
    dataset = result["rows"][0]["set"]
    added = run_analysis(lambda: gains(runs, dataset, 1000))
    rule = by_seed(runs, dataset, added)
    result |= {"gains": added, "rule": rule, "relations": relations(rule), "probes": probes(runs)}
    write(out, result, lambda: draw(result), table(result) + section(result), runs)


if __name__ == "__main__":
    main(sys.argv[1:])
