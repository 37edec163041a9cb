from __future__ import annotations

import dataclasses

import pytest

from aes_r1.model import cost
from aes_r1.plan_memory import (
    PHASES,
    cures,
    disk,
    host_memory,
    largest_micro_batch,
    memory_per_gpu,
    most_disk,
    outputs_per_pass,
    peak,
    phase_memory,
    trained_parameters,
)
from aes_r1.settings import (
    ColdStartSettings,
    CostSettings,
    DistributionSettings,
    EngineSettings,
    LoraSettings,
    RewardSettings,
    RolloutSettings,
)
from aes_r1.trainer.micro_batches import micro_batches
from tests.paper_plan import paper_plan, paper_shape, trainer

DISTRIBUTION = RewardSettings(distribution=DistributionSettings(weight=1.0))


@pytest.fixture(scope="module")
def shape():
    return paper_shape()


def settings(stage=3, gpus=8, zero=None, **model):
    return paper_plan(stage, CostSettings(gpus=gpus), zero=zero, **model)


def one_process(**model):
    return dataclasses.replace(settings(gpus=1, **model), engine=EngineSettings())


def memory(settings, shape, size=8):
    return memory_per_gpu(settings, shape, trained_parameters(settings, shape), size)


@pytest.mark.slow
def test_parts_by_hand(shape):
    found, parameters = memory(settings(), shape), 8_292_166_656
    assert found["weights"] == found["gradients"] == parameters * 2 // 8
    assert found["reference"] == parameters * 2
    assert found["optimizer"] == parameters * 12 // 8
    # 16 images of 454 tokens and 64 outputs of 1024, 28 layers, 4 key-value heads of 128, keys and values, 2 bytes.
    assert found["KV cache"] == (16 * 454 + 64 * 1024) * 28 * 4 * 128 * 2 * 2
    assert found["weights gathered for the rollout"] == parameters * 2 - parameters * 2 // 8
    assert found["weights copied for the rollout"] == 28 * 3584 * (3584 + 2 * 512) * 2
    assert found["prompt pass"] == 16 * 454 * 2 * (3 * 3584 + 4 * 18944)
    # DeepSpeed's buffer of 5e8 numbers; embedding and head have 545 M each, so their gradient stands beside it.
    assert found["reduce bucket"] == 2 * (500_000_000 + 3584 * 152_064)
    assert found["live weights"] == 2 * (1_000_000_000 + 50_000_000)
    # ZeRO-3 steps 1e9 parameters at a time: the gradient in float32, the square root of the second moment.
    assert found["optimizer's temporaries"] == 8 * 1_000_000_000
    assert found["attention scores"] == found["reference on the GPU for its pass"] == 0


def test_deepspeed_s_own_keys_are_read(shape):
    zero = {
        "reduce_bucket_size": 2e8, "stage3_max_live_parameters": 3e8, "stage3_prefetch_bucket_size": 1e7,
        "sub_group_size": 4e8,
    }  # fmt: skip
    found = memory(settings(zero=zero), shape)
    assert found["reduce bucket"] == 2 * (200_000_000 + 3584 * 152_064)
    assert found["live weights"] == 2 * 310_000_000
    assert found["optimizer's temporaries"] == 8 * 400_000_000
    assert memory(settings(stage=2, zero={"overlap_comm": True}), shape)["reduce bucket"] == 2 * (1e9 + 3584 * 152_064)
    kept = dataclasses.replace(settings(), engine=EngineSettings("zero3", {"data_types": {"grad_accum_dtype": "fp32"}}))
    assert memory(kept, shape)["gradients"] == shape.parameters * 4


def test_scores_are_counted_where_no_fused_kernel_exists(shape):
    """8 outputs, 28 heads, 1,024 tokens that look at 1,478, float32, three times: 4.07 GB; of all layers without
    checkpointing; none where every output has its own prompt, for then no mask is needed."""
    unfused = dataclasses.replace(settings(), plan=CostSettings(fused_attention=False))
    by_hand = 3 * 4 * 8 * 28 * 1024 * 1478
    assert memory(unfused, shape)["attention scores"] == by_hand == pytest.approx(4.07e9, rel=0.001)
    kept = dataclasses.replace(unfused, model=dataclasses.replace(unfused.model, gradient_checkpointing=False))
    assert memory(kept, shape)["attention scores"] == 28 * by_hand
    plain = dataclasses.replace(unfused, model=dataclasses.replace(unfused.model, shared_prefix=False))
    assert memory(plain, shape)["attention scores"] == 0


def test_one_process_keeps_float32_beside_half_precision(shape):
    """Float32 weights (4) and moments (8) of the optimizer, and gradients that add up in float32 (4)."""
    found = memory(one_process(), shape)
    assert found["optimizer"] == shape.parameters * 12
    assert found["gradients"] == shape.parameters * 4
    assert found["optimizer's temporaries"] == shape.parameters * 4
    assert found["reduce bucket"] == found["live weights"] == found["weights gathered for the rollout"] == 0


def test_zero_stages_divide_more_and_more(shape):
    def of(stage):
        found = memory(settings(stage), shape)
        return [found[part] for part in ("optimizer", "gradients", "weights")]

    whole = [size * shape.parameters for size in (12, 2, 2)]
    assert of(1) == [whole[0] // 8, *whole[1:]]
    assert of(2) == [whole[0] // 8, whole[1] // 8, whole[2]]
    assert of(3) == [size // 8 for size in whole]


def test_offloading_takes_the_optimizer_to_the_host(shape):
    offloaded = settings(zero={"offload_optimizer": {"device": "cpu"}})
    found = memory(offloaded, shape)
    assert found["optimizer"] == found["optimizer's temporaries"] == 0
    assert host_memory(offloaded, shape, shape.parameters)["optimizer"] == 12 * shape.parameters


def test_servers_hold_the_cache_of_what_they_decode(shape):
    """The trainer gathers the weights all the same, to push them."""
    here = memory(settings(), shape)
    served = dataclasses.replace(settings(), rollout=RolloutSettings("vllm", ["http://127.0.0.1:8100"]))
    gone = {"KV cache", "weights copied for the rollout", "prompt pass"}
    assert memory(served, shape) == {name: 0 if name in gone else size for name, size in here.items()}
    assert all(here[name] > 0 for name in gone)


def test_every_part_belongs_to_a_phase_or_to_all(shape):
    found = memory(settings(), shape)
    passing = [name for names in PHASES.values() for name in names]
    assert set(passing) <= set(found)
    assert len(passing) == len(set(passing))
    always = sum(found[name] for name in found if name not in passing)
    assert phase_memory(found)["rollout"] == always + sum(found[name] for name in PHASES["rollout"])
    assert peak(found) == max(phase_memory(found).values())


def test_the_largest_micro_batch_fits_and_the_next_does_not(shape):
    tight = dataclasses.replace(settings(), plan=CostSettings(memory_gb=57.0))
    found = largest_micro_batch(tight, shape, shape.parameters)
    assert 0 < found < 64
    assert peak(memory(tight, shape, found)) <= 57e9 < peak(memory(tight, shape, found + 1))
    assert largest_micro_batch(dataclasses.replace(tight, plan=CostSettings(memory_gb=10.0)), shape, 1) == 0


@pytest.mark.slow
def test_a_budget_of_tokens_is_a_number_of_the_longest_outputs():
    """Four outputs of 1,024 and their prompt of 454 are 4,550 tokens; eight and two prompts 9,100."""

    def outputs(tokens, **model):
        changed = settings(**model)
        return outputs_per_pass(dataclasses.replace(changed, trainer=trainer(micro_batch_tokens=tokens)))

    assert [outputs(tokens) for tokens in (100, 4549, 4550, 9099, 9100)] == [1, 3, 4, 4, 8]
    assert outputs(9100, shared_prefix=False) == 4
    assert outputs(10**9) == 64
    for shared in (True, False):
        for tokens in (100, 3000, 9100, 16384, 40000):
            how = {"num_samples": 4, "shared_prefix": shared, "size": 8, "max_tokens": tokens}
            pieces = micro_batches(range(64), [1024] * 64, [454] * 16, **how)
            assert outputs(tokens, shared_prefix=shared) == max(len(piece) for piece in pieces)


def test_4_bit_weights_by_hand(shape):
    """28 layers of 233,046,016 weights in 4 + 1/8 + 1/512 bits; all others, and the adapter, in 16."""
    whole = one_process(lora=LoraSettings(rank=64))
    small = dataclasses.replace(whole, model=dataclasses.replace(whole.model, quantize="nf4"))
    trained, layers = trained_parameters(small, shape), 28 * 233_046_016
    found = memory(small, shape)
    packed = round(layers * (4 + 1 / 8 + 1 / 512) / 8)
    assert found["weights"] == (8_292_166_656 - layers + trained) * 2 + packed
    assert found["one matrix in 16 bits"] == 3584 * 18944 * 2
    assert found["weights copied for the rollout"] == 0
    # every completion has its own prompt of 454 tokens
    rows = small.trainer.images_per_step * small.trainer.num_samples
    assert found["KV cache"] == rows * (454 + 1024) * 28 * 4 * 128 * 2 * 2
    assert cures(whole, shape)["model.quantize=nf4"] == peak(memory(small, shape, 1))
    assert "model.quantize=nf4" not in cures(small, shape)


def test_an_adapter_on_the_tower_is_counted(shape):
    """32 blocks of Qwen2.5-VL's tower (qkv, proj, gate, up, down) and the two layers of its merger, by their sides."""
    block = (1280 + 3 * 1280) + (1280 + 1280) + 2 * (1280 + 3420) + (3420 + 1280)
    merger = (5120 + 5120) + (5120 + 3584)
    assert shape.vision_linear_sides == 32 * block + merger
    adapters = (LoraSettings(rank=8, target=name) for name in ("language", "all"))
    both = [trained_parameters(one_process(lora=adapter), shape) for adapter in adapters]
    assert both[1] - both[0] == 8 * shape.vision_linear_sides


def test_no_cure_has_fewer_images_than_twins(shape):
    for pairs, known in ((0, True), (96, False)):
        found = cures(dataclasses.replace(settings(), trainer=trainer(edited_pairs=pairs)), shape)
        assert any("images_per_step" in name for name in found) is known


@pytest.mark.parametrize(("reward", "samples"), [(RewardSettings(), 2), (DISTRIBUTION, 3)])
def test_no_cure_has_fewer_outputs_than_the_reward_needs(shape, reward, samples):
    """Six outputs can be halved for either reward; four of them only where two are enough."""
    for count in (4, 6):
        planned = dataclasses.replace(settings(), reward=reward, trainer=trainer(num_samples=count))
        halved = next((name for name in cures(planned, shape) if "num_samples" in name), None)
        assert halved == (f"trainer.num_samples={count // 2}" if count // 2 >= samples else None)


def test_cures_are_not_on_yet_and_do_lower_the_peak(shape):
    plain = settings(gpus=2, stage=2, gradient_checkpointing=False)
    found = cures(plain, shape)
    now = peak(memory(plain, shape, 1))
    assert all(size < now for size in found.values())
    assert list(found.values()) == sorted(found.values())
    assert {"engine=zero3", "engine=zero3_offload", "plan.gpus=4", "model.lora.rank=64", "model.reference=host"} <= set(
        found
    )
    assert found["engine=zero3"] == peak(memory(settings(gpus=2, gradient_checkpointing=False), shape, 1))
    everything = settings(zero={"offload_optimizer": {"device": "cpu"}}, freeze_vision=True, lora=LoraSettings(rank=8))
    sizes = {"plan.gpus=16", "trainer.images_per_step=64", "trainer.num_samples=2", "trainer.max_new_tokens=512"}
    assert set(cures(everything, shape)) <= sizes, "what is on already is no cure"


@pytest.mark.parametrize("reference", ["host", "sharded"])
def test_an_adapter_is_a_cure_wherever_the_reference_is_kept(shape, reference):
    sizes = cures(settings(reference=reference), shape)
    adapted = settings(lora=LoraSettings(rank=64))
    assert sizes["model.lora.rank=64 model.reference=device"] == peak(memory(adapted, shape, 1))


def test_the_host_holds_what_every_process_loads(shape):
    """8 processes with a policy of 16.6 GB and its copy, the reference; without KL or with an adapter no copy."""
    model = 2 * 8_292_166_656
    assert sum(host_memory(settings(), shape, shape.parameters).values()) == 8 * 2 * model
    assert sum(host_memory(settings(lora=LoraSettings(rank=8)), shape, 1).values()) == 8 * model
    free = dataclasses.replace(settings(), trainer=trainer(kl_coef=0.0))
    assert sum(host_memory(free, shape, shape.parameters).values()) == 8 * model


def test_disk_by_hand(shape):
    """Checkpoints of 116 GB, their 16-bit models included: two kept, one being written; before them three of the cold
    start, whose vision tower is fixed; models of 16.6 GB: cold start, last, and the best twice while it is replaced."""
    parameters, vision = 8_292_166_656, shape.vision_parameters
    found = disk(settings(), shape, parameters)
    assert found["one checkpoint"] == 14 * parameters == pytest.approx(116.1e9, rel=0.001)
    assert found["RAPO's checkpoints"] == 3 * 14 * parameters
    assert found["the cold start's checkpoints"] == 3 * (12 * (parameters - vision) + 2 * vision)
    assert found["models (cold start, last, best)"] == 4 * 2 * parameters
    assert most_disk(found) == 3 * 14 * parameters + 8 * parameters
    assert disk(settings(stage=2), shape, parameters)["one checkpoint"] == 16 * parameters
    assert disk(one_process(), shape, parameters)["one checkpoint"] == 16 * parameters
    assert disk(one_process(dtype="float32"), shape, parameters)["one checkpoint"] == 14 * parameters
    adapter = cost.lora_parameters(shape, 64)
    adapted = disk(settings(lora=LoraSettings(rank=64)), shape, adapter)
    assert adapted["one checkpoint"] == 12 * adapter + 4 * parameters
    without = dataclasses.replace(settings(), cold_start=ColdStartSettings(epochs=0))
    assert disk(without, shape, parameters)["models (cold start, last, best)"] == 3 * 2 * parameters
    assert disk(without, shape, parameters)["the cold start's checkpoints"] == 0


def test_a_reference_elsewhere_takes_its_room_in_its_pass_alone(shape):
    whole = shape.parameters * 2
    host, sharded = (memory_per_gpu(settings(reference=place), shape, 10**9, 8) for place in ("host", "sharded"))
    assert (host["reference"], sharded["reference"]) == (0, whole // 8)
    assert host["reference on the GPU for its pass"] == whole
