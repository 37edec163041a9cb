from __future__ import annotations

import subprocess
import sys

import pytest

from aes_r1.command import CONF
from aes_r1.model import cost
from aes_r1.plan import peak, plan, step_flops
from aes_r1.settings import CostSettings, EngineSettings, LoraSettings, ModelSettings, PlanSettings, TrainerSettings


@pytest.fixture(scope="module")
def shape():
    return cost.shape_of(cost.load_config(None, "qwen2_5_vl_7b", CONF / "shapes"))


def settings(stage=3, gpus=8, **model):
    return PlanSettings(
        model=ModelSettings(**{"name": "qwen2_5_vl_7b", "dtype": "bfloat16", "gradient_checkpointing": True, **model}),
        trainer=TrainerSettings(),
        engine=EngineSettings("zero3", {"zero_optimization": {"stage": stage}}),
        plan=CostSettings(gpus=gpus, usd_per_gpu_hour=2.0),
    )


def test_parts_by_hand(shape):
    found = plan(settings(), shape)
    assert found.memory["weights"] == shape.parameters * 2 // 8
    assert found.memory["reference"] == shape.parameters * 2
    assert found.memory["gradients"] == shape.parameters * 2 // 8
    assert found.memory["optimizer"] == shape.parameters * 12 // 8
    # 16 images of 454 tokens and 64 outputs of 1024, 28 layers, 4 key-value heads of 128, keys and values, 2 bytes.
    assert found.memory["KV cache"] == (16 * 454 + 64 * 1024) * 28 * 4 * 128 * 2 * 2
    assert found.usd == pytest.approx(found.hours * 8 * 2.0)
    assert found.steps == 1172


def test_zero_stages_divide_more_and_more(shape):
    def of(stage):
        memory = plan(settings(stage), shape).memory
        return [memory[part] for part in ("optimizer", "gradients", "weights")]

    whole = of(0)
    assert of(1) == [whole[0] // 8, *whole[1:]]
    assert of(2) == [whole[0] // 8, whole[1] // 8, whole[2]]
    assert of(3) == [size // 8 for size in whole]


def test_the_largest_micro_batch_fits_and_the_next_does_not(shape):
    import dataclasses

    tight = settings()
    tight = dataclasses.replace(tight, plan=dataclasses.replace(tight.plan, memory_gb=52.0))
    found = plan(tight, shape).largest_micro_batch
    assert 0 < found < 64

    def peak_at(size):
        trainer = dataclasses.replace(tight.trainer, micro_batch_size=size)
        return peak(plan(dataclasses.replace(tight, trainer=trainer), shape).memory)

    assert peak_at(found) <= 52e9 < peak_at(found + 1)
    assert plan(dataclasses.replace(tight, plan=CostSettings(memory_gb=10.0)), shape).largest_micro_batch == 0


def test_sharing_the_prompt_saves_what_the_prompts_cost(shape):
    shared, plain = step_flops(settings(), shape), step_flops(settings(shared_prefix=False), shape)
    assert shared["rollout, decoding"] == plain["rollout, decoding"]
    assert plain["update"] > 1.5 * shared["update"]
    assert plan(settings(lora=LoraSettings(rank=64)), shape).memory["reference"] == 0


@pytest.mark.slow
def test_the_command_needs_no_weights():
    done = subprocess.run(
        [sys.executable, "-m", "aes_r1.plan", "+experiment=paper", "plan.usd_per_gpu_hour=2", "plan.gpus=16"],
        capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "8.292 B parameters" in done.stdout
    assert "largest micro-batch that fits" in done.stdout
    assert "USD" in done.stdout
