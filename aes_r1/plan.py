"""What a run costs before it is run, without a GPU or weights: `python -m aes_r1.plan +experiment=paper`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from aes_r1 import command
from aes_r1.model import cost
from aes_r1.model.cost import Shape
from aes_r1.settings import PlanSettings
from aes_r1.trainer.rapo import rapo_steps

ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Plan:
    """memory: bytes per GPU by part; flops: operations of one optimizer step by phase, all GPUs; seconds: of one step.

    largest_micro_batch: outputs per GPU and forward that fit beside the rest; 0 when the rest alone does not fit.
    """

    shape: Shape
    trained: int
    memory: dict[str, int]
    flops: dict[str, float]
    seconds: dict[str, float]
    steps: int
    hours: float
    usd: float | None
    largest_micro_batch: int


def plan(settings: PlanSettings, shape: Shape) -> Plan:
    trainer, assumed = settings.trainer, settings.plan
    trained = trained_parameters(settings, shape)
    memory = memory_per_gpu(settings, shape, trained, trainer.micro_batch_size)
    flops = step_flops(settings, shape)
    seconds = step_seconds(settings, shape, flops)
    steps = rapo_steps(assumed.pictures, trainer)
    hours = steps * sum(seconds.values()) / 3600
    usd = None if assumed.usd_per_gpu_hour is None else hours * assumed.gpus * assumed.usd_per_gpu_hour
    return Plan(
        shape, trained, memory, flops, seconds, steps, hours, usd, largest_micro_batch(settings, shape, trained)
    )


def trained_parameters(settings: PlanSettings, shape: Shape) -> int:
    if settings.model.lora.rank > 0:
        return cost.lora_parameters(shape, settings.model.lora.rank)
    return shape.parameters - (shape.vision_parameters if settings.model.freeze_vision else 0)


def memory_per_gpu(settings: PlanSettings, shape: Shape, trained: int, micro_batch: int) -> dict[str, int]:
    """Bytes on one GPU by part. ZeRO divides optimizer (1), gradients (2) and weights (3) among the GPUs.

    What exists in turn stands side by side here: `activations` and `logits` in the update, `KV cache` and the weights
    that ZeRO-3 gathers in the rollout. The peak is that of the larger phase.
    """
    trainer, model, assumed = settings.trainer, settings.model, settings.plan
    zero = settings.engine.config.get("zero_optimization", {})
    stage = int(zero.get("stage", 0))
    share = {part: assumed.gpus if stage >= least else 1 for part, least in _SHARED_FROM.items()}
    element = ELEMENT[model.dtype]
    whole = shape.parameters * element + (trained * element if model.lora.rank else 0)
    mixed = settings.engine.name != "single" and element == 2
    optimizer = trained * (12 if mixed else 2 * element)  # mixed: float32 weights and two moments
    offloaded = {"optimizer"} if zero.get("offload_optimizer") else set()
    images = math.ceil(micro_batch / trainer.num_samples) if model.shared_prefix else micro_batch
    prompt = assumed.picture_tokens + assumed.question_tokens
    tokens = images * prompt + micro_batch * trainer.max_new_tokens
    patches = images * assumed.picture_tokens * shape.vision_per_token
    activations = cost.language_activation_bytes(shape, tokens, element, checkpointed=model.gradient_checkpointing)
    if not model.freeze_vision and not model.lora.rank:
        activations += cost.vision_activation_bytes(shape, patches, element, checkpointed=model.gradient_checkpointing)
    own_images = math.ceil(trainer.images_per_step / assumed.gpus)
    rows = own_images * trainer.num_samples
    cached = own_images * prompt + rows * trainer.max_new_tokens
    logits = 4 * min(max(256 * shape.vocabulary, _CHUNK), rows * trainer.max_new_tokens * shape.vocabulary)
    parts = {
        "weights": whole // share["weights"],
        "reference": whole if trainer.kl_coef > 0 and not model.lora.rank else 0,
        "gradients": trained * element // share["gradients"],
        "optimizer": optimizer // share["optimizer"],
        "activations": activations,
        "logits": _LOGIT_COPIES * logits,
        "KV cache": cost.cache_bytes(shape, cached, element),
        "weights gathered for the rollout": whole - whole // share["weights"],
    }
    return {name: 0 if name in offloaded else size for name, size in parts.items()}


_SHARED_FROM = {"optimizer": 1, "gradients": 2, "weights": 3}
_CHUNK = 2**25
_LOGIT_COPIES = 4  # logits, without banned tokens, log-probabilities, their gradient


def peak(memory: dict[str, int]) -> int:
    """Bytes of the larger phase."""
    rollout, update = ("KV cache", "weights gathered for the rollout"), ("activations", "logits")
    fixed = sum(size for name, size in memory.items() if name not in rollout + update)
    return fixed + max(sum(memory[name] for name in rollout), sum(memory[name] for name in update))


def largest_micro_batch(settings: PlanSettings, shape: Shape, trained: int) -> int:
    """Outputs per GPU and forward, at most all of its own, whose peak fits the memory; 0 when not even one fits."""
    trainer, assumed = settings.trainer, settings.plan
    own = math.ceil(trainer.images_per_step / assumed.gpus) * trainer.num_samples
    fits = [
        size
        for size in range(1, own + 1)
        if peak(memory_per_gpu(settings, shape, trained, size)) <= assumed.memory_gb * 1e9
    ]
    return max(fits, default=0)


def step_flops(settings: PlanSettings, shape: Shape) -> dict[str, float]:
    """Operations of one optimizer step on all GPUs. A backward pass costs two forwards, checkpointing one more."""
    trainer, model, assumed = settings.trainer, settings.model, settings.plan
    images, rows = trainer.images_per_step, trainer.images_per_step * trainer.num_samples
    prompt = assumed.picture_tokens + assumed.question_tokens
    answer = assumed.answer_tokens or trainer.max_new_tokens
    copies = images if model.shared_prefix else rows
    on_prompt, on_answer = prompt * (prompt + 1) / 2, answer * prompt + answer * (answer + 1) / 2
    prompts = cost.language_flops(shape, copies * prompt, copies * on_prompt, 0)
    answers = cost.language_flops(shape, rows * answer, rows * on_answer, rows * answer)
    pictures = copies * cost.vision_flops(shape, assumed.picture_tokens)
    frozen = model.freeze_vision or model.lora.rank > 0
    once = images * cost.vision_flops(shape, assumed.picture_tokens)
    passes = 3 + model.gradient_checkpointing - (model.lora.rank > 0)  # an adapter needs no gradient of the weights
    return {
        "rollout, prompts": cost.language_flops(shape, images * prompt, images * on_prompt, rows) + once,
        "rollout, decoding": answers,
        "reference": prompts + answers + (0 if frozen else pictures) if trainer.kl_coef > 0 else 0.0,
        "update": passes * (prompts + answers) + (0 if frozen else passes * pictures),
    }


def step_seconds(settings: PlanSettings, shape: Shape, flops: dict[str, float]) -> dict[str, float]:
    """Seconds of one step: passes at the given MFU, decoding by what it reads (weights and cache, every token)."""
    trainer, assumed = settings.trainer, settings.plan
    speed = assumed.gpus * assumed.peak_tflops * 1e12 * assumed.mfu
    seconds = {name: operations / speed for name, operations in flops.items()}
    answer = assumed.answer_tokens or trainer.max_new_tokens
    own_images = math.ceil(trainer.images_per_step / assumed.gpus)
    element = ELEMENT[settings.model.dtype]
    prompt = assumed.picture_tokens + assumed.question_tokens
    tokens = own_images * prompt + own_images * trainer.num_samples * answer / 2
    weights = (shape.parameters - shape.vision_parameters) * element
    read = answer * (weights + cost.cache_bytes(shape, tokens, element))
    floor = read / (assumed.bandwidth_gb_s * 1e9 * assumed.decode_efficiency)
    return {**seconds, "rollout, decoding": max(seconds["rollout, decoding"], floor)}


def show(found: Plan, settings: PlanSettings) -> None:
    assumed, trainer, console = settings.plan, settings.trainer, Console()
    console.print(
        f"{settings.model.name}: {found.shape.parameters / 1e9:.3f} B parameters, {found.trained / 1e9:.3f} B trained; "
        f"{settings.engine.name}, {assumed.gpus} GPUs, N {trainer.images_per_step}, K {trainer.num_samples}"
    )
    table = Table("memory per GPU", "10^9 bytes", title=f"micro-batch {trainer.micro_batch_size}")
    for name, size in found.memory.items():
        table.add_row(name, f"{size / 1e9:.2f}")
    table.add_row("peak", f"{peak(found.memory) / 1e9:.2f} of {assumed.memory_gb:g}")
    console.print(table)
    table = Table("phase of a step", "10^15 FLOP", "seconds")
    for name, operations in found.flops.items():
        table.add_row(name, f"{operations / 1e15:.2f}", f"{found.seconds[name]:.1f}")
    table.add_row("step", f"{sum(found.flops.values()) / 1e15:.2f}", f"{sum(found.seconds.values()):.1f}")
    console.print(table)
    fits = found.largest_micro_batch
    console.print(
        f"largest micro-batch that fits: {fits}"
        if fits
        else "no micro-batch fits; more GPUs, engine=zero3, a frozen vision tower or model.lora.rank > 0 would help"
    )
    price = "" if found.usd is None else f", {found.usd:,.0f} USD"
    console.print(
        f"{found.steps} steps: {found.hours:.1f} hours on {assumed.gpus} GPUs{price} "
        f"(MFU {assumed.mfu:g}, decoding at {assumed.decode_efficiency:g} of the bandwidth; "
        "without cold start and evaluation)"
    )


def run(settings: PlanSettings) -> None:
    config = cost.load_config(settings.model.path, settings.model.name, command.CONF / "shapes")
    show(plan(settings, cost.shape_of(config)), settings)


def main() -> None:
    command.run("aes_r1.plan", run, config_name="plan", schema=PlanSettings)


if __name__ == "__main__":
    main()
