from __future__ import annotations

import pytest

from aes_r1.model import cost
from benchmarks.arithmetic import PHASES, phase_flops, planned_rise, settings_of, shape, speeds, table

ROW = {
    "system": "ours", "model": "tiny", "K": 4, "N": 2, "new_tokens": 10, "picture": [96, 96], "dtype": "float32",
    "lora": 0, "micro_batch": 0, "gradient_checkpointing": False,
}  # fmt: skip


def measured(speed, rise=1.0, **changes):
    row = {**ROW, **changes}
    return {**row, **{phase: flops / speed for phase, flops in phase_flops(row).items()}, "update_rise_gb": rise}


def test_a_row_becomes_the_plan_s_settings():
    settings = settings_of(ROW)
    assert settings.plan.picture_tokens == 16  # 8 x 8 patches of 12 pixels, four of them a token
    assert settings.trainer.micro_batch_size == 8
    assert settings.model.shared_prefix
    assert not settings_of({**ROW, "system": "trl"}).model.shared_prefix


def test_operations_by_hand():
    """Prompts of 16 + 141 tokens once per picture; 8 answers of 10 tokens; a backward pass costs two forwards."""
    tiny = shape("tiny")
    prompt, answer = 157, 10
    prompts = cost.language_flops(tiny, 2 * prompt, 2 * prompt * (prompt + 1) / 2, 0)
    answers = cost.language_flops(tiny, 80, 8 * (answer * prompt + 55), 80)
    pictures = 2 * cost.vision_flops(tiny, 16)
    assert phase_flops(ROW)["reference_cpu_s"] == pytest.approx(prompts + answers + pictures)
    assert phase_flops(ROW)["update_cpu_s"] == pytest.approx(3 * (prompts + answers + pictures))
    plain = phase_flops({**ROW, "system": "ours_plain"})
    assert plain["reference_cpu_s"] == pytest.approx(4 * prompts + answers + 4 * pictures)
    assert plain["rollout_cpu_s"] == phase_flops(ROW)["rollout_cpu_s"]


def test_the_speed_is_the_median_of_a_model_s_rows():
    rows = [measured(1e9, K=2), measured(2e9, K=4), measured(8e9, K=8)]
    assert speeds(rows)["ours", "tiny", "update_cpu_s"] == pytest.approx(2e9)
    assert set(PHASES) == {phase for _, _, phase in speeds(rows)}
    lines = table(rows).splitlines()[2:]
    assert "(-50%)" in lines[0]  # twice slower than the arithmetic with the median speed
    assert "(+0%)" in lines[1]
    assert "(+300%)" in lines[2]


def test_bytes_grow_with_what_stands_in_one_pass():
    whole, half = planned_rise(ROW), planned_rise({**ROW, "micro_batch": 4})
    gradients = shape("tiny").parameters * 4 / 1e9
    assert gradients < half < whole
    assert planned_rise({**ROW, "system": "ours_plain"}) > whole
