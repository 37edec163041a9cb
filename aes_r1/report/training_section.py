"""The report's training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from aes_r1.report.charts import Line, line_chart
from aes_r1.report.html import figure
from aes_r1.tracking import GLOSSARY, definition


def training_section(metrics: Sequence[Mapping]) -> str:
    """Curves of both stages from the rows of metrics.jsonl; empty without any."""
    if not metrics:
        return ""
    by_stage = {stage: [one for one in metrics if one["stage"] == stage] for stage in ("sft", "rapo")}
    evaluated = sorted({name.rsplit("/", 1)[0] for one in metrics for name in one if name.startswith("eval/")})
    rapo, sft = by_stage["rapo"], by_stage["sft"]
    weighted = [name for name in ("rank", "error", "binary", "format") if _varies(rapo, f"reward/{name}")]
    tones = {"total": "ink", "rank": "cold", "error": "rapo", "binary": "fourth", "format": "third"}
    charts = [_curves(rapo, "Reward", {f"reward/{name}": tones[name] for name in ("total", *weighted)}, floor=0.0)]
    for one in evaluated:
        wanted = {f"{one}/srcc": "rapo", f"{one}/plcc": "cold"}
        charts.append(_curves(rapo or sft, f"Validation, {one.removeprefix('eval/')}", wanted, dots=True))
    charts += [
        _curves(sft, "Cold start: loss", {"sft/loss": "cold"}),
        _curves(sft, "Cold start: entropy of answers", {"sft/entropy": "cold"}, floor=0.0, dots=True),
        _curves(sft, "Cold start: answers that can be read", {"sft/answered": "cold"}, floor=0.0, dots=True),
        _curves(rapo, "Entropy", {"policy/entropy": "rapo"}, floor=0.0),
        _curves(rapo, "Distance from the start (KL)", {"policy/kl_k3": "rapo", "policy/kl_k1": "cold"}, floor=0.0),
        _curves(
            rapo, "Answers lost", {"rollout/parse_failure_rate": "rapo", "rollout/truncated_rate": "cold"}, floor=0.0
        ),
        _curves(rapo, "Scores given", {"rollout/score_mean": "rapo", "rollout/score_std": "cold"}, floor=0.0),
        _curves(rapo, "Groups without spread", {"rollout/zero_spread_groups": "rapo"}, floor=0.0),
        _curves(rapo, "Completion length", {"rollout/length_mean": "rapo"}, floor=0.0),
        _curves(
            rapo, "Clipped tokens", {"policy/clip_high_fraction": "rapo", "policy/clip_low_fraction": "cold"}, floor=0.0
        ),
        _curves(rapo, "Gradient norm", {"policy/grad_norm": "rapo"}, floor=0.0),
        _curves(
            rapo,
            "Seconds a step",
            {"time/rollout_s": "rapo", "time/reference_s": "third", "time/update_s": "cold"},
            floor=0.0,
        ),
    ]
    steps = ", ".join(
        f"{name} {len(by_stage[stage])}" for stage, name in (("sft", "cold start"), ("rapo", "RAPO")) if by_stage[stage]
    )
    shown = "".join(charts)
    said = f"Logged steps: {steps}. Across: optimizer step. At the right end: the last value."
    return f'<h2>Training</h2><p class="note">{said}</p><div class="charts">{shown}</div>{_glossary(metrics)}'


def _curves(
    rows: Sequence[Mapping], title: str, colors: Mapping[str, str], *, floor: float | None = None, dots: bool = False
) -> str:
    lines = []
    for name, color in colors.items():
        known = [(one["step"], one[name]) for one in rows if one.get(name) is not None]
        if known:
            lines.append(Line(name, [step for step, _ in known], [value for _, value in known], color, dots))
    legend_names = [(line.name.rsplit("/", 1)[-1].replace("_", " "), line.color) for line in lines]
    return figure(title, line_chart(title, lines, low=floor), names=legend_names)


def _varies(rows: Sequence[Mapping], name: str) -> bool:
    return any(one.get(name) for one in rows)


def _glossary(metrics: Sequence[Mapping]) -> str:
    logged = dict.fromkeys(name for one in metrics for name in one if name not in ("stage", "step"))
    known = [name for name in logged if name in GLOSSARY or name.startswith("eval/")]
    items = "".join(f"<dt><code>{escape(name)}</code></dt><dd>{escape(definition(name))}</dd>" for name in known)
    return f'<details><summary>What each curve is</summary><dl class="words">{items}</dl></details>'
