"""Compare the estimates of `aes_r1.plan` with measurements: benchmarks/results/SUITE.json -> two tables.

    python -m benchmarks.arithmetic scaling cpu

Seconds: the plan divides operations by a speed that it is given. Here that speed is the median over all rows of the
same model and phase, so a row's error is how far time departs from the arithmetic of K, N and length. Bytes: the plan's
gradients, activations and logits against the rise of the process's memory in the update; nothing is fitted.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from aes_r1.model import cost
from aes_r1.plan_memory import memory_per_gpu
from aes_r1.plan_seconds import step_flops
from aes_r1.settings import CostSettings, LoraSettings, ModelSettings, PlanSettings, TrainerSettings
from benchmarks.workload import config_of

QUESTION_TOKENS = 141  # the rating prompt and its template in the benchmark's tokenizer
RESULTS = Path(__file__).parent / "results"
# Phases of a measured step and their parts in the plan. Processor seconds are least affected by other work.
PHASES = {
    "rollout_cpu_s": ("rollout, prompts", "rollout, decoding"),
    "reference_cpu_s": ("reference",),
    "update_cpu_s": ("update",),
}


@functools.cache
def shape(model: str) -> cost.Shape:
    from transformers import AutoConfig

    return cost.shape_of(AutoConfig.for_model(**config_of(model)))


def settings_of(row: dict[str, Any]) -> PlanSettings:
    """Return the plan's settings for a measured row."""
    side = 2 * config_of(row["model"])["vision_config"]["patch_size"]
    width, height = row["picture"]
    rows = row["K"] * row["N"]
    return PlanSettings(
        model=ModelSettings(
            name=row["model"],
            dtype=row["dtype"],
            lora=LoraSettings(rank=row["lora"]),
            freeze_vision=not row.get("tower", not row["lora"]),
            shared_prefix=row["system"] == "ours",
            gradient_checkpointing=row["gradient_checkpointing"],
        ),
        trainer=TrainerSettings(
            num_samples=row["K"],
            images_per_step=row["N"],
            max_new_tokens=row["new_tokens"],
            micro_batch_size=row["micro_batch"] or rows,
        ),
        plan=CostSettings(
            gpus=1,
            picture_tokens=(width // side) * (height // side),
            question_tokens=QUESTION_TOKENS,
            answer_tokens=row["new_tokens"],
        ),
    )


def phase_flops(row: dict[str, Any]) -> dict[str, float]:
    """Return the operations of each measured phase."""
    parts = step_flops(settings_of(row), shape(row["model"]))
    return {phase: sum(parts[name] for name in names) for phase, names in PHASES.items()}


def planned_rise(row: dict[str, Any]) -> float:
    """Return how many 10^9 bytes the update adds to the memory in use before it, by the plan."""
    settings, found = settings_of(row), shape(row["model"])
    trained = cost.lora_parameters(found, row["lora"]) if row["lora"] else found.parameters
    parts = memory_per_gpu(settings, found, trained, settings.trainer.micro_batch_size)
    return (parts["gradients"] + parts["activations"] + parts["logits"]) / 1e9


def speeds(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], float]:
    """Return the median operations per second by (system, model, phase)."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        for phase, operations in phase_flops(row).items():
            found.setdefault((row["system"], row["model"], phase), []).append(operations / row[phase])
    return {key: statistics.median(values) for key, values in found.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table of planned over measured, by row."""
    lines = [
        "| model | K | N | T | system | rollout s | reference s | update s | update GB: planned | measured | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    found = speeds(rows)
    for row in rows:
        cells = [f"{row['model']} | {row['K']} | {row['N']} | {row['new_tokens']} | {row['system']}"]
        for phase, operations in phase_flops(row).items():
            planned = operations / found[row["system"], row["model"], phase]
            cells.append(f"{row[phase]:.2f} ({planned / row[phase] - 1:+.0%})")
        rise = planned_rise(row)
        measured = row["update_rise_gb"]
        cells.append(f"{rise:.3f} | {measured:.3f} | {rise / measured:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read(suite: str) -> list[dict[str, Any]]:
    return json.loads((RESULTS / f"{suite}.json").read_text())["rows"]


def main() -> None:
    rows = [row for suite in sys.argv[1:] for row in read(suite) if row["system"] != "trl"]
    print(table(rows))


if __name__ == "__main__":
    main()
