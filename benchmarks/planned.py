"""Compare `aes_r1.plan` under its default assumptions with measured and published steps: a table for the docs.

    python -m benchmarks.planned

The steps on one card are the rows with equally long answers of the files in benchmarks/results that MEASURED_ON names.
The default of plan.decode_efficiency was taken from the first of them; the other phases were not fitted. The steps on 8
H100 are those of EasyR1, another program, with the same model.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from aes_r1.model.cards import CARDS
from aes_r1.plan import plan
from aes_r1.settings import CostSettings, EngineSettings, ModelSettings, PlanSettings, TrainerSettings
from benchmarks import arithmetic

SIZE = {"qwen2_5_vl_3b": "3B", "qwen2_5_vl_7b": "7B"}
# Each file of benchmarks/results with the card of its rows, the card's memory in 10^9 bytes, and its name in the table.
# The rows of the H200 are from an older commit, at which layers were not compiled and the tower attended to one window
# at a time (docs/performance.md).
MEASURED_ON = {
    "gpu_h100_80gb_hbm3": ("H100 80GB HBM3", 80.0, "one H100"),
    "gpu_h200": ("H200", 141.0, "one H200, not compiled"),
}
# Each measured phase and the parts of the plan that it consists of.
MEASURED = {
    "rollout_s": ("rollout, prompts", "rollout, decoding"),
    "reference_s": ("reference",),
    "update_s": ("update",),
}


@dataclass(frozen=True)
class Published:
    """Hold a row of EasyR1's performance baselines for Qwen2.5-VL-7B on Geometry3k with 8 H100 of 80 GB.

    micro_batch: completions per device and pass of the update; seconds: of one step; tokens_per_s: of one GPU over the
    whole step, prompts included; mfu: of the update, without recomputation. Source: github.com/hiyouga/EasyR1,
    assets/baselines.md (EasyR1 0.3.0), the rest from its examples/config.yaml.
    """

    name: str
    micro_batch: int
    seconds: float
    tokens_per_s: float
    mfu: float


EASYR1 = (
    Published("AMP, 4 completions a pass", 4, 180, 1200, 0.136),
    Published("BF16, 4 completions a pass", 4, 190, 1280, 0.139),
    Published("AMP, 10 completions a pass", 10, 170, 1400, 0.192),
)
PROMPTS, OUTPUTS, GPUS = 512, 5, 8  # of one step, which makes an optimizer step for every 128 prompts
PICTURE, QUESTION = 334, 120  # tokens: its smallest picture (262,144 pixels); the question's length is unknown, so ours


def answer_tokens(row: Published) -> int:
    """Return the mean tokens of an answer: the published throughput without the prompt."""
    return round(row.tokens_per_s * GPUS * row.seconds / (PROMPTS * OUTPUTS)) - PICTURE - QUESTION


def settings_of(row: Published, *, shared_prefix: bool) -> PlanSettings:
    """Return the settings of a step of that workload by Aes-R1."""
    return PlanSettings(
        model=ModelSettings(
            name="qwen2_5_vl_7b", dtype="bfloat16", gradient_checkpointing=True, shared_prefix=shared_prefix
        ),
        trainer=TrainerSettings(
            num_samples=OUTPUTS,
            images_per_step=PROMPTS,
            minibatches=4,
            max_new_tokens=2048,
            micro_batch_size=row.micro_batch,
        ),
        engine=EngineSettings("zero3", {"zero_optimization": {"stage": 3}}),
        plan=CostSettings(
            gpus=GPUS, picture_tokens=PICTURE, question_tokens=QUESTION, answer_tokens=answer_tokens(row)
        ),
    )


def measured_settings(row: dict[str, Any], suite: str) -> PlanSettings:
    """Return the settings of a row of `suite`, a key of MEASURED_ON, with the plan's default assumptions.

    All answers of such a row are equally long.
    """
    settings, (name, memory_gb, _) = arithmetic.settings_of(row), MEASURED_ON[suite]
    card = CARDS[name]
    assumed = dataclasses.replace(
        settings.plan, peak_tflops=card.tflops, bandwidth_gb_s=card.gb_s, memory_gb=memory_gb, longest_answer=1.0
    )
    return dataclasses.replace(settings, plan=assumed)


def lines_of_measured(row: dict[str, Any], suite: str) -> list[str]:
    """Return table rows: seconds by phase, then the 10^9 bytes that the update adds."""
    name = f"{SIZE[row['model']]} with LoRA, {MEASURED_ON[suite][2]}, {row['system']}"
    seconds = plan(measured_settings(row, suite), arithmetic.shape(row["model"])).seconds
    lines = []
    for phase, parts in MEASURED.items():
        lines.append(_line(name, f"{phase.removesuffix('_s')}, s", sum(seconds[part] for part in parts), row[phase], 2))
    lines.append(_line(name, "step, s", sum(seconds.values()), row["step_s"], 2))
    lines.append(_line(name, "GB that the update adds", arithmetic.planned_rise(row), row["update_rise_gb"], 2))
    return lines


def lines_of_published(row: Published) -> list[str]:
    shape, lines = arithmetic.shape("qwen2_5_vl_7b"), []
    for words, shared in (("prompts once per completion", False), ("prompts shared", True)):
        seconds = sum(plan(settings_of(row, shared_prefix=shared), shape).seconds.values())
        name = f"7B, 8 H100, {row.name}; plan: {words}"
        lines.append(_line(name, "step, s", seconds, row.seconds, 0))
        lines.append(_line(name, "completions / s", PROMPTS * OUTPUTS / seconds, PROMPTS * OUTPUTS / row.seconds, 1))
    return lines


def _line(workload: str, what: str, planned: float, found: float, digits: int) -> str:
    return f"| {workload} | {what} | {planned:.{digits}f} | {found:.{digits}f} | {planned / found:.2f} |"


def table() -> str:
    """Return the Markdown table."""
    lines = ["| workload | what | plan | measured or published | plan over it |", "|---|---|---|---|---|"]
    for suite in MEASURED_ON:
        for row in arithmetic.read(suite):
            if row["system"] != "trl" and row.get("lengths", "equal") == "equal":
                lines += lines_of_measured(row, suite)
    for published in EASYR1:
        lines += lines_of_published(published)
    return "\n".join(lines)


def main() -> None:
    print(table())


if __name__ == "__main__":
    main()
