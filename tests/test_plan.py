from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from aes_r1.command import CONF
from aes_r1.model import cost
from aes_r1.plan import peak, plan, step_flops
from aes_r1.settings import (
    CostSettings,
    EngineSettings,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    PlanSettings,
    TrainerSettings,
)


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
    assert found.usd == pytest.approx(sum(found.stage_hours.values()) * 8 * 2.0)
    assert found.steps == 1172


def test_stages_by_hand(shape):
    """9,900 critiques of 454 + 200 tokens, vision tower forward alone; 38,000 answers in batches of 64 per GPU."""
    found = plan(settings(), shape)
    language = cost.language_flops(shape, 654, 654 * 655 / 2, 200)
    vision = cost.vision_flops(shape, 334)
    speed = 8 * 989e12 * 0.4
    assert found.stage_hours["cold start"] == pytest.approx(9900 * (4 * language + vision) / speed / 3600)
    one_protocol = dataclasses.replace(settings(), evaluation=EvaluationSettings(protocols=["greedy"], stages=["rapo"]))
    prompts = 38000 * (cost.language_flops(shape, 454, 454 * 455 / 2, 1) + vision) / speed
    read = 200 * ((shape.parameters - shape.vision_parameters) * 2 + cost.cache_bytes(shape, 64 * (454 + 100), 2))
    decoding = 75 * read / (3350e9 * 0.5)  # 38,000 / (8 * 64) batches
    assert plan(one_protocol, shape).stage_hours["evaluation"] == pytest.approx((prompts + decoding) / 3600)
    # Four more outputs of a picture share its prompt, in the pass and in what decoding reads.
    wider = dataclasses.replace(one_protocol, evaluation=EvaluationSettings(protocols=["mean"], stages=["rapo"]))
    more = 200 * cost.cache_bytes(shape, 64 * 3 * 100, 2) * 75 / (3350e9 * 0.5) / 3600
    assert plan(wider, shape).stage_hours["evaluation"] == pytest.approx((prompts + decoding) / 3600 + more)


def test_one_process_keeps_float32_beside_half_precision(shape):
    """Float32 weights (4) and moments (8) of the optimizer, and gradients that add up in float32 (4)."""
    single = dataclasses.replace(settings(gpus=1), engine=EngineSettings())
    memory = plan(single, shape).memory
    assert memory["optimizer"] == shape.parameters * 12
    assert memory["gradients"] == shape.parameters * 4


def test_zero_stages_divide_more_and_more(shape):
    def of(stage):
        memory = plan(settings(stage), shape).memory
        return [memory[part] for part in ("optimizer", "gradients", "weights")]

    whole = of(0)
    assert of(1) == [whole[0] // 8, *whole[1:]]
    assert of(2) == [whole[0] // 8, whole[1] // 8, whole[2]]
    assert of(3) == [size // 8 for size in whole]


def test_the_largest_micro_batch_fits_and_the_next_does_not(shape):
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


def test_a_reference_elsewhere_takes_its_room_in_its_phase_alone(shape):
    whole, (host, sharded) = shape.parameters * 2, (plan(settings(reference=p), shape) for p in ("host", "sharded"))
    assert (host.memory["reference"], sharded.memory["reference"]) == (0, whole // 8)
    assert host.memory["reference gathered for its phase"] == whole
    assert plan(settings(), shape).memory["reference gathered for its phase"] == 0


def test_gradients_that_add_up_in_float32_take_four_bytes(shape):
    wanted = settings()
    wanted.engine.config["data_types"] = {"grad_accum_dtype": "fp32"}
    assert plan(wanted, shape).memory["gradients"] == shape.parameters * 4 // 8
