"""Estimate the bytes of a run: on a GPU by phase, in host memory and on disk; and settings that lower those on a GPU.

The formulas are in aes_r1/model/cost.py; here they are applied to a run's settings.
"""

from __future__ import annotations

import dataclasses
import math
from operator import itemgetter
from typing import Any

from aes_r1.model import cost
from aes_r1.model.cost import Shape
from aes_r1.model.likelihood import CHUNK_LOGITS
from aes_r1.model.quantize import BITS
from aes_r1.settings import LoraSettings, PlanSettings

ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}


def trained_parameters(settings: PlanSettings, shape: Shape) -> int:
    """Count the weights that RAPO trains."""
    if settings.model.lora.rank > 0:
        return cost.lora_parameters(shape, settings.model.lora.rank, vision=settings.model.lora.target == "all")
    return shape.parameters - (shape.vision_parameters if settings.model.freeze_vision else 0)


def trains_vision(settings: PlanSettings) -> bool:
    """Return whether RAPO's gradient reaches the vision tower."""
    model = settings.model
    return model.lora.target == "all" if model.lora.rank > 0 else not model.freeze_vision


def reference_place(settings: PlanSettings) -> str:
    """Return where the reference is kept, as cost.reference_bytes takes it.

    There is none where neither a KL term nor a reward needs it; with an adapter the frozen base serves as one.
    """
    needed = settings.trainer.needs_reference or settings.reward.needs_reference
    if not needed or settings.model.lora.rank > 0:
        return "none"
    return settings.model.reference


def own_images(settings: PlanSettings) -> int:
    """Return the number of prompts (groups of completions) of one GPU in one step, edited twins included."""
    return math.ceil(settings.trainer.groups_per_step / settings.plan.gpus)


def shown_in_rapo(settings: PlanSettings) -> int:
    """Return the number of pictures that a prompt of RAPO shows."""
    return 2 if settings.reward.pair.weight > 0 else 1


def prompt_tokens(settings: PlanSettings, pictures: int) -> int:
    """Return the tokens of a prompt that shows `pictures`."""
    return pictures * settings.plan.picture_tokens + settings.plan.question_tokens


def mean_answer(settings: PlanSettings, pictures: int = 1) -> int:
    """Return the mean length of an answer about `pictures` in tokens: it holds a critique of each."""
    limit = settings.trainer.max_new_tokens
    return min(pictures * (settings.plan.answer_tokens or limit), limit)


def outputs_per_pass(settings: PlanSettings) -> int:
    """Return the completions of one forward pass on one GPU; under a token budget, as many of the longest as fit.

    Under a budget an image's completions stay together where they fit (trainer/micro_batches.py).
    """
    trainer = settings.trainer
    budget, completions = trainer.micro_batch_tokens, own_images(settings) * trainer.num_samples
    if budget is None:
        return min(trainer.micro_batch_size, completions)
    fitting = [n for n in range(1, completions + 1) if pass_tokens(settings, n, trainer.max_new_tokens) <= budget]
    whole_images = [n for n in fitting if n % trainer.num_samples == 0]
    return max(whole_images or fitting, default=1)


def passes_over(settings: PlanSettings, outputs: int) -> int:
    """Count the passes over `outputs` completions on one GPU; under a budget of tokens, with answers of mean length."""
    budget = settings.trainer.micro_batch_tokens
    if budget is None:
        return math.ceil(outputs / outputs_per_pass(settings))
    return math.ceil(pass_tokens(settings, outputs, mean_answer(settings, shown_in_rapo(settings))) / budget)


def pass_tokens(settings: PlanSettings, outputs: int, answer: int) -> int:
    """Count the tokens of a pass over `outputs` completions of `answer` tokens, with their prompts."""
    return images_of(settings, outputs) * prompt_tokens(settings, shown_in_rapo(settings)) + outputs * answer


def images_of(settings: PlanSettings, outputs: int) -> int:
    """Return how often a pass over `outputs` completions computes a prompt and its pictures."""
    return math.ceil(outputs / settings.trainer.num_samples) if settings.model.shared_prefix else outputs


def zero_stage(settings: PlanSettings) -> int:
    """Return the ZeRO stage of the engine, 0 without ZeRO."""
    return int(_zero(settings).get("stage", 0))


# Parts of memory_per_gpu that exist in a single phase; all others exist all the time.
PHASES = {
    "rollout": ("KV cache", "weights gathered for the rollout", "weights copied for the rollout", "prompt pass"),
    "reference": ("reference on the GPU for its pass",),
    "update": ("activations", "attention scores", "logits", "live weights"),
    "optimizer step": ("optimizer's temporaries",),
}


def memory_per_gpu(settings: PlanSettings, shape: Shape, trained: int, micro_batch: int) -> dict[str, int]:
    """Count the bytes on one GPU by part, with `micro_batch` completions in a pass of the update.

    ZeRO divides the optimizer from stage 1 on, gradients from 2 and weights from 3 among the GPUs. Every answer counts
    with trainer.max_new_tokens. All parts are listed here, although some never exist together; `phase_memory` adds up
    each phase. Only one stage's engine exists at a time, so RAPO's alone is counted. The rollout's prompt pass ends
    before its cache is full; counting both leaves room for the pass of the vision tower.
    """
    parts = {
        **_state_memory(settings, shape, trained),
        **_update_memory(settings, shape, trained, micro_batch),
        **_rollout_memory(settings, shape, trained),
        "reference on the GPU for its pass": _reference_bytes(settings, shape)[1],
        "optimizer's temporaries": _optimizer_temporaries(settings, trained),
    }
    offloaded = {"optimizer", "optimizer's temporaries"} if _zero(settings).get("offload_optimizer") else set()
    return {name: 0 if name in offloaded else size for name, size in parts.items()}


def _zero(settings: PlanSettings) -> dict[str, Any]:
    return settings.engine.config.get("zero_optimization", {})


_SHARDED_FROM = {"optimizer": 1, "gradients": 2, "weights": 3}  # the ZeRO stage from which GPUs share a part


def _shards(settings: PlanSettings, part: str) -> int:
    """Return among how many GPUs `part` is divided."""
    return settings.plan.gpus if zero_stage(settings) >= _SHARDED_FROM[part] else 1


def _state_memory(settings: PlanSettings, shape: Shape, trained: int) -> dict[str, int]:
    """Count the bytes of what exists throughout: weights, gradients, optimizer and reference."""
    zero, stage, element = _zero(settings), zero_stage(settings), ELEMENT[settings.model.dtype]
    largest = 0 if settings.model.lora.rank else shape.width * shape.vocabulary
    buckets = 2 if stage < 3 and zero.get("overlap_comm") else 1
    bucket = cost.reduce_bytes(largest, element, bucket=int(zero.get("reduce_bucket_size", 5e8)), buckets=buckets)
    per_parameter = 12 if element == 2 else 8  # two float32 moments, and a float32 copy of 16-bit weights
    return {
        "weights": whole_bytes(settings, shape, trained) // _shards(settings, "weights"),
        "reference": _reference_bytes(settings, shape)[0],
        "gradients": trained * _gradient_element(settings) // _shards(settings, "gradients"),
        "optimizer": trained * per_parameter // _shards(settings, "optimizer"),
        "reduce bucket": bucket if stage > 0 else 0,
        # In every pass the 4-bit layers unpack their matrices, one at a time.
        "one matrix in 16 bits": shape.hidden * shape.width * element if settings.model.quantize == "nf4" else 0,
    }


def _update_memory(settings: PlanSettings, shape: Shape, trained: int, micro_batch: int) -> dict[str, int]:
    """Count the bytes of an update's pass over `micro_batch` completions."""
    trainer, model, assumed, zero = settings.trainer, settings.model, settings.plan, _zero(settings)
    element, checkpointed = ELEMENT[model.dtype], model.gradient_checkpointing
    tokens = pass_tokens(settings, micro_batch, trainer.max_new_tokens)
    activations = cost.language_activation_bytes(shape, tokens, element, checkpointed=checkpointed)
    if trains_vision(settings):
        pictures = images_of(settings, micro_batch) * shown_in_rapo(settings)
        patches = pictures * assumed.picture_tokens * shape.vision_per_token
        activations += cost.vision_activation_bytes(shape, patches, element, checkpointed=checkpointed)
    prompt = prompt_tokens(settings, shown_in_rapo(settings))
    scores = cost.attention_score_bytes(shape, micro_batch, trainer.max_new_tokens, prompt, checkpointed=checkpointed)
    rows = own_images(settings) * trainer.num_samples
    logits = 4 * min(
        max(256 * shape.vocabulary, CHUNK_LOGITS["cuda"]), rows * trainer.max_new_tokens * shape.vocabulary
    )
    live = cost.live_weight_bytes(
        whole_bytes(settings, shape, trained) // element,
        element,
        most=int(zero.get("stage3_max_live_parameters", 1e9)),
        ahead=int(zero.get("stage3_prefetch_bucket_size", 5e7)),
    )
    return {
        "activations": activations,
        "attention scores": scores if model.shared_prefix and not assumed.fused_attention else 0,
        "logits": _LOGIT_COPIES * logits,
        "live weights": live if _shards(settings, "weights") > 1 else 0,
    }


# Logits, the same in 32 bits at the temperature, and their exponentials, whose place the gradient takes.
_LOGIT_COPIES = 3


def _rollout_memory(settings: PlanSettings, shape: Shape, trained: int) -> dict[str, int]:
    """Count the bytes of a rollout: cache, gathered and copied weights, and the pass over the prompts.

    With rollout=vllm the weights are gathered to be sent to the servers, which hold all else. 4-bit weights are not
    copied, and are decoded with a cache in which every completion has its own prompt.
    """
    trainer, model, element = settings.trainer, settings.model, ELEMENT[settings.model.dtype]
    images, prompt = own_images(settings), prompt_tokens(settings, shown_in_rapo(settings))
    rows, weights, packed = images * trainer.num_samples, whole_bytes(settings, shape, trained), model.quantize == "nf4"
    copied = cost.copied_for_rollout_bytes(shape, element, adapted=model.lora.rank > 0)
    prompts, draws_here = rows if packed else images, settings.rollout.name == "local"
    return {
        "KV cache": draws_here * cost.cache_bytes(shape, prompts * prompt + rows * trainer.max_new_tokens, element),
        "weights gathered for the rollout": weights - weights // _shards(settings, "weights"),
        "weights copied for the rollout": 0 if packed or not draws_here else copied,
        "prompt pass": draws_here * cost.prompt_pass_bytes(shape, images * prompt, element),
    }


def _reference_bytes(settings: PlanSettings, shape: Shape) -> tuple[int, int]:
    """Return the bytes of the reference: (permanently, additionally during its pass)."""
    weights = shape.parameters * ELEMENT[settings.model.dtype]
    return cost.reference_bytes(weights, settings.plan.gpus, reference_place(settings))


def _optimizer_temporaries(settings: PlanSettings, trained: int) -> int:
    """Count the temporary bytes of an optimizer step over this GPU's share of the trained weights."""
    stepped = trained // _shards(settings, "optimizer")
    if zero_stage(settings) == 3:
        stepped = min(stepped, int(_zero(settings).get("sub_group_size", 1e9)))
    return cost.optimizer_step_bytes(stepped, gradient_copied=_gradient_element(settings) < 4)


def whole_bytes(settings: PlanSettings, shape: Shape, trained: int) -> int:
    """Count the bytes of all weights, an adapter's included; with model.quantize=nf4 language layers take 4 bits."""
    element = ELEMENT[settings.model.dtype]
    packed = shape.layer_matrix_parameters if settings.model.quantize == "nf4" else 0
    adapter = trained if settings.model.lora.rank else 0
    return (shape.parameters - packed + adapter) * element + round(packed * BITS / 8)


def _gradient_element(settings: PlanSettings) -> int:
    """Return the bytes of one number of the accumulated gradient: float32 alone, DeepSpeed's setting otherwise."""
    dtype = settings.engine.config.get("data_types", {}).get("grad_accum_dtype")
    return 4 if settings.engine.name == "single" or dtype == "fp32" else ELEMENT[settings.model.dtype]


def phase_memory(memory: dict[str, int]) -> dict[str, int]:
    """Count the bytes on one GPU in each phase of a step."""
    passing = {name for names in PHASES.values() for name in names}
    always = sum(size for name, size in memory.items() if name not in passing)
    return {phase: always + sum(memory[name] for name in names) for phase, names in PHASES.items()}


def peak(memory: dict[str, int]) -> int:
    """Return the bytes of the largest phase."""
    return max(phase_memory(memory).values())


def largest_micro_batch(settings: PlanSettings, shape: Shape, trained: int) -> int:
    """Return the most completions per GPU and forward pass, up to all of its own, whose peak fits the memory.

    It is 0 if not even one fits.
    """
    completions = own_images(settings) * settings.trainer.num_samples
    limit = settings.plan.memory_gb * 1e9
    sizes = range(1, completions + 1)
    fits = [size for size in sizes if peak(memory_per_gpu(settings, shape, trained, size)) <= limit]
    return max(fits, default=0)


def host_memory(settings: PlanSettings, shape: Shape, trained: int) -> dict[str, int]:
    """Count the bytes of host memory as if all GPUs were in one node: each process loads the whole model at first.

    RAPO copies its reference from the loaded policy, so each process briefly holds two models.
    """
    reference, gpus = reference_place(settings) if "rapo" in settings.models else "none", settings.plan.gpus
    model = shape.parameters * ELEMENT[settings.model.dtype]
    offloads = _zero(settings).get("offload_optimizer")
    return {
        "while models are loaded": gpus * model * (1 if reference == "none" else 2),
        "reference": gpus * model if reference == "host" else 0,
        "optimizer": 12 * trained if offloads else 0,
    }


def disk(settings: PlanSettings, shape: Shape, trained: int) -> dict[str, int]:
    """Count the bytes on disk by part while the run goes on; what a run does not have is 0."""
    model, cold_start, stage = settings.model, settings.cold_start, zero_stage(settings)
    element = ELEMENT[model.dtype]
    weights_again = stage < 3 and (settings.engine.name != "single" or element == 2)

    def checkpoint(trained: int) -> int:
        fixed = shape.parameters if model.lora.rank else shape.parameters - trained
        fixed -= shape.layer_matrix_parameters if model.quantize == "nf4" else 0  # made again from model.path
        return cost.checkpoint_bytes(trained, fixed, element, weights_again=weights_again)

    frozen = cold_start.freeze_vision and not model.lora.rank
    cold_start_checkpoint = checkpoint(shape.parameters - shape.vision_parameters if frozen else trained)
    started, reinforced = ("cold_start" in settings.models), ("rapo" in settings.models)
    # The size of a checkpoint's model/, and of the best model.
    exported = shape.parameters * ELEMENT["bfloat16"] if reinforced else 0
    one_checkpoint = checkpoint(trained) + exported if reinforced else 0
    return {
        "one checkpoint": one_checkpoint,
        # The kept ones, and one that is written before an old one is deleted.
        "RAPO's checkpoints": (settings.trainer.keep_checkpoints + 1) * one_checkpoint,
        "the cold start's checkpoints": 3 * cold_start_checkpoint if started else 0,  # deleted when it is done
        # The best model exists twice while it is replaced.
        "models (cold start, last, best)": (1 + started) * shape.parameters * element + 2 * exported,
    }


def most_disk(parts: dict[str, int]) -> int:
    """Count the bytes at the fullest moment: the cold start's checkpoints are gone before RAPO writes its own."""
    checkpoints = max(parts["RAPO's checkpoints"], parts["the cold start's checkpoints"])
    return checkpoints + parts["models (cold start, last, best)"]


def cures(settings: PlanSettings, shape: Shape) -> dict[str, int]:
    """Return {setting: peak in bytes with it} of settings that would lower the peak of a pass over one completion."""
    now = _needed(settings, shape)
    savings = {
        name: _needed(_with(settings, changes), shape) for name, applies, changes in _cures(settings, shape) if applies
    }
    return {name: size for name, size in sorted(savings.items(), key=itemgetter(1)) if size < now}


# What a setting is called, whether it may be given, and {group: {key: value}} that it changes.
Cure = tuple[str, bool, dict[str, dict[str, Any]]]


def _cures(settings: PlanSettings, shape: Shape) -> list[Cure]:
    model, engine, gpus = settings.model, settings.engine.name, settings.plan.gpus
    adapter, packed = model.lora.rank > 0, model.quantize != "none"  # 4-bit weights are trained by one process alone
    zero3 = {**settings.engine.config, "zero_optimization": {**_zero(settings), "stage": 3}}
    offload = {**zero3, "zero_optimization": {**zero3["zero_optimization"], "offload_optimizer": {"device": "cpu"}}}
    images, samples = max(2 * gpus, settings.trainer.edited_pairs), settings.reward.fewest_samples
    # With an adapter the policy without it is the reference, and another model.reference is refused.
    adapted = "" if model.reference == "device" else " model.reference=device"
    copied = reference_place(settings) == "device"
    return [
        ("model.gradient_checkpointing=true", True, {"model": {"gradient_checkpointing": True}}),
        (f"plan.gpus={2 * gpus}", engine != "single", {"plan": {"gpus": 2 * gpus}}),
        ("engine=zero3", not packed, {"engine": {"name": "zero3", "config": zero3}}),
        ("engine=zero3_offload", not packed, {"engine": {"name": "zero3_offload", "config": offload}}),
        (
            "model.freeze_vision=true",
            not adapter or model.lora.target == "language",
            {"model": {"freeze_vision": True}},
        ),
        # No fewer than a step can be rewarded for, or an answer needs.
        _halved(settings, shape, "images_per_step", images),
        _halved(settings, shape, "num_samples", samples),
        _halved(settings, shape, "max_new_tokens", 128),
        (
            f"model.lora.rank=64{adapted}",
            not adapter,
            {"model": {"lora": LoraSettings(rank=64), "reference": "device"}},
        ),
        (
            "model.quantize=nf4",
            adapter and engine == "single" and settings.rollout.name == "local" and not packed,
            {"model": {"quantize": "nf4"}},
        ),
        ("model.reference=sharded", copied and gpus > 1, {"model": {"reference": "sharded"}}),
        ("model.reference=host", copied, {"model": {"reference": "host"}}),
    ]


def _halved(settings: PlanSettings, shape: Shape, key: str, floor: int) -> Cure:
    """Return the cure that halves the trainer's `key` until one completion fits the memory, but not below `floor`."""
    size = getattr(settings.trainer, key) // 2
    while size // 2 >= floor:
        if _needed(_with(settings, {"trainer": {key: size}}), shape) <= settings.plan.memory_gb * 1e9:
            break
        size //= 2
    return f"trainer.{key}={size}", size >= floor, {"trainer": {key: size}}


def _with(settings: PlanSettings, changes: dict[str, dict[str, Any]]) -> PlanSettings:
    changed = {group: dataclasses.replace(getattr(settings, group), **values) for group, values in changes.items()}
    return dataclasses.replace(settings, **changed)


def _needed(settings: PlanSettings, shape: Shape) -> int:
    """Count the bytes of the largest phase with a pass over one completion."""
    return peak(memory_per_gpu(settings, shape, trained_parameters(settings, shape), 1))
