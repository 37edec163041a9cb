"""Build the sections with training curves and warning signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aes_r1.evaluation.health import evaluation_rows, health_rows
from aes_r1.report.charts import Figure, Line, line_chart
from aes_r1.runs.cells import Evaluation
from aes_r1.settings.model import SUB_SCORES
from aes_r1.tracking.glossary import GLOSSARY, definition

_FAMILIES = ("eval/", "reward/sub_")  # starts of metrics that share a line of the glossary
_STAGES = {"sft": "cold start", "rapo": "RAPO"}
_REWARDS = {"rank": "cold", "error": "rapo", "binary": "fourth", "format": "third"}
# (stage, title, {metric: page colour}): charts that start at 0 where no value is below it.
_CURVES: Sequence[tuple[str, str, Mapping[str, str]]] = (
    ("sft", "Cold start: entropy of answers", {"sft/entropy": "cold"}),
    ("sft", "Cold start: answers that can be read", {"sft/answered": "cold"}),
    (
        "rapo",
        "Further rewards",
        {
            "reward/pair": "rapo",
            "reward/twin": "cold",
            "reward/distribution": "third",
            "reward/custom": "fourth",
            "reward/judge": "base",
        },
    ),
    (
        "rapo",
        "Rewards of the sub-scores",
        dict(
            zip((f"reward/sub_{name}" for name in SUB_SCORES), ("rapo", "cold", "third", "fourth", "base"), strict=True)
        ),
    ),
    (
        "rapo",
        "Rewards of the critique",
        {"reward/faithfulness": "rapo", "reward/read_back": "cold", "reward/information": "third"},
    ),
    ("rapo", "Entropy", {"policy/entropy": "rapo"}),
    ("rapo", "Distance from the start (KL)", {"policy/kl_k3": "rapo", "policy/kl_k1": "cold"}),
    ("rapo", "Answers lost", {"rollout/parse_failure_rate": "rapo", "rollout/truncated_rate": "cold"}),
    ("rapo", "Scores given", {"rollout/score_mean": "rapo", "rollout/score_std": "cold"}),
    ("rapo", "Groups without spread", {"rollout/zero_spread_groups": "rapo"}),
    ("rapo", "Completion length", {"rollout/length_mean": "rapo"}),
    ("rapo", "Clipped tokens", {"policy/clip_high_fraction": "rapo", "policy/clip_low_fraction": "cold"}),
    ("rapo", "Sampler against trainer, nats", {"rollout/mismatch_mean": "rapo"}),
    ("rapo", "Gradient norm", {"policy/grad_norm": "rapo"}),
    ("rapo", "Seconds a step", {"time/rollout_s": "rapo", "time/reference_s": "third", "time/update_s": "cold"}),
)


def training_section(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the content of training.html from the rows of metrics.jsonl, None without rows."""
    if not metrics:
        return None
    rows = {stage: [row for row in metrics if row["stage"] == stage] for stage in _STAGES}
    rapo, sft = rows["rapo"], rows["sft"]
    reward_colors = {name: color for name, color in _REWARDS.items() if any(row.get(f"reward/{name}") for row in rapo)}
    charts = [
        _curves(
            rapo,
            "Reward",
            {"reward/total": "ink"} | {f"reward/{name}": reward_colors[name] for name in reward_colors},
            low=0.0,
        )
    ]
    evaluated = {name.rsplit("/", 1)[0] for row in metrics for name in row if name.startswith("eval/")}
    for dataset in sorted(evaluated):
        colors = {f"{dataset}/srcc": "rapo", f"{dataset}/plcc": "cold"}
        charts.append(
            _curves(rapo or sft, f"Validation, {dataset.removeprefix('eval/')}", colors, dots=True, share=True)
        )
    charts.append(_curves(sft, "Cold start: loss", {"sft/loss": "cold"}))
    charts += [_curves(rows[stage], title, colors, low=0.0, dots=stage == "sft") for stage, title, colors in _CURVES]
    logged = dict.fromkeys(name for row in metrics for name in row if name not in ("stage", "step"))
    return {
        "steps": [f"{name} {rows[stage][-1]['step']}" for stage, name in _STAGES.items() if rows[stage]],
        "charts": [chart for chart in charts if chart.chart],
        "glossary": [(name, definition(name)) for name in logged if name in GLOSSARY or name.startswith(_FAMILIES)],
    }


def _curves(
    rows: Sequence[Mapping],
    title: str,
    colors: Mapping[str, str],
    *,
    low: float | None = None,
    dots: bool = False,
    share: bool = False,
) -> Figure:
    lines = [curve(rows, name, name, color, dots=dots) for name, color in colors.items()]
    lines = [line for line in lines if line.xs]
    names = [(line.name.rsplit("/", 1)[-1].replace("_", " "), line.color) for line in lines]
    return Figure(title, line_chart(title, lines, low=low, share=share), names=names)


def curve(rows: Sequence[Mapping], metric: str, name: str, color: str, *, dots: bool = False) -> Line:
    """Return a metric over the steps of the rows that have it."""
    points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
    return Line(name, [step for step, _ in points], [value for _, value in points], color, dots)


def health_section(
    metrics: Sequence[Mapping[str, Any]],
    completions: Sequence[Mapping[str, Any]],
    evaluation: Evaluation,
    last_stage: str | None,
) -> list[dict[str, Any]]:
    """Return the content of health.html: the rows of the evaluation, then a row per sign of RAPO.

    last_stage: that of the run's last model (RunFolder.last_stage), which the evaluation's rows are about. The list is
    empty where a run has neither an evaluation nor rows of RAPO.
    """
    signs = health_rows(metrics, completions) if any(row.get("stage") == "rapo" for row in metrics) else []
    return [*evaluation_rows(evaluation, last_stage), *signs] if evaluation.get("stages") or signs else []
