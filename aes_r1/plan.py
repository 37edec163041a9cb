"""What a run costs before it is run, without a GPU or weights: `python -m aes_r1.plan +experiment=paper`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from aes_r1 import command
from aes_r1.model import cost
from aes_r1.model.cost import Shape
from aes_r1.settings import InputError, PlanSettings
from aes_r1.trainer.rapo import rapo_steps

ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Plan:
    """memory: bytes per GPU by part; flops: operations of one optimizer step by phase, all GPUs; seconds: of one step;
    stage_hours: of each stage of the run, RAPO without its validations.

    largest_micro_batch: outputs per GPU and forward that fit beside the rest; 0 when the rest alone does not fit.
    """

    shape: Shape
    trained: int
    memory: dict[str, int]
    flops: dict[str, float]
    seconds: dict[str, float]
    steps: int
    stage_hours: dict[str, float]
    usd: float | None
    largest_micro_batch: int


def plan(settings: PlanSettings, shape: Shape) -> Plan:
    trainer, assumed = settings.trainer, settings.plan
    trained = trained_parameters(settings, shape)
    memory = memory_per_gpu(settings, shape, trained, trainer.micro_batch_size)
    flops = step_flops(settings, shape)
    seconds = step_seconds(settings, shape, flops)
    steps = rapo_steps(assumed.pictures, trainer)
    hours = {
        "cold start": cold_start_seconds(settings, shape) / 3600,
        "RAPO": steps * sum(seconds.values()) / 3600,
        "evaluation": evaluation_seconds(settings, shape) / 3600,
    }
    price = assumed.usd_per_gpu_hour
    usd = None if price is None else sum(hours.values()) * assumed.gpus * price
    largest = largest_micro_batch(settings, shape, trained)
    return Plan(shape, trained, memory, flops, seconds, steps, hours, usd, largest)


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
    optimizer = trained * (12 if element == 2 else 8)  # two float32 moments, of 16-bit weights a float32 copy too
    gradient = 4 if settings.engine.name == "single" else element  # one process adds them up in float32
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
        "reference": whole if trainer.needs_reference and not model.lora.rank else 0,
        "gradients": trained * gradient // share["gradients"],
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
        "reference": prompts + answers + (0 if frozen else pictures) if trainer.needs_reference else 0.0,
        "update": passes * (prompts + answers) + (0 if frozen else passes * pictures),
    }


def step_seconds(settings: PlanSettings, shape: Shape, flops: dict[str, float]) -> dict[str, float]:
    """Seconds of one step: passes at the given MFU, decoding by what it reads (weights and cache, every token)."""
    trainer, assumed = settings.trainer, settings.plan
    seconds = {name: operations / _speed(settings) for name, operations in flops.items()}
    floor = decode_floor(settings, shape, math.ceil(trainer.images_per_step / assumed.gpus), trainer.num_samples)
    return {**seconds, "rollout, decoding": max(seconds["rollout, decoding"], floor)}


def _speed(settings: PlanSettings) -> float:
    """Operations per second of all GPUs in the passes."""
    assumed = settings.plan
    return assumed.gpus * assumed.peak_tflops * 1e12 * assumed.mfu


def decode_floor(settings: PlanSettings, shape: Shape, images: int, samples: int) -> float:
    """Seconds that one GPU needs to read weights and cache for the answers to `images` with `samples` each."""
    assumed, element = settings.plan, ELEMENT[settings.model.dtype]
    answer = assumed.answer_tokens or settings.trainer.max_new_tokens
    prompt = assumed.picture_tokens + assumed.question_tokens
    tokens = images * prompt + images * samples * answer / 2
    weights = (shape.parameters - shape.vision_parameters) * element
    read = answer * (weights + cost.cache_bytes(shape, tokens, element))
    return read / (assumed.bandwidth_gb_s * 1e9 * assumed.decode_efficiency)


def cold_start_seconds(settings: PlanSettings, shape: Shape) -> float:
    """Every critique read `cold_start.epochs` times: forward and backward over prompt and answer, a picture each."""
    assumed, model = settings.plan, settings.model
    prompt, answer = assumed.picture_tokens + assumed.question_tokens, assumed.answer_tokens
    tokens = prompt + (answer or settings.trainer.max_new_tokens)
    language = cost.language_flops(shape, tokens, tokens * (tokens + 1) / 2, tokens - prompt)
    picture = cost.vision_flops(shape, assumed.picture_tokens)
    frozen = settings.cold_start.freeze_vision or model.lora.rank > 0
    passes = 3 + model.gradient_checkpointing
    once = (passes - (model.lora.rank > 0)) * language + (1 if frozen else passes) * picture
    return settings.cold_start.epochs * assumed.critiques * once / _speed(settings)


def evaluation_seconds(settings: PlanSettings, shape: Shape) -> float:
    """Every stage answers all test pictures under every protocol, in batches, prompts once per picture and protocol."""
    assumed, evaluation = settings.plan, settings.evaluation
    outputs = {"mean": evaluation.n_samples, "direct": 0, "label_tokens": 0}  # the last two answer without decoding
    prompt = assumed.picture_tokens + assumed.question_tokens
    one = cost.language_flops(shape, prompt, prompt * (prompt + 1) / 2, 1)
    one += cost.vision_flops(shape, assumed.picture_tokens)
    batches = math.ceil(assumed.test_pictures / (assumed.gpus * evaluation.batch_size))
    seconds = 0.0
    for protocol in evaluation.protocols:
        seconds += assumed.test_pictures * one / _speed(settings)
        if samples := outputs.get(protocol, 1):
            seconds += batches * decode_floor(settings, shape, evaluation.batch_size, samples)
    return len(evaluation.stages) * seconds


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
    stages = ", ".join(f"{stage} {hours:.1f}" for stage, hours in found.stage_hours.items())
    console.print(
        f"{found.steps} steps of RAPO; hours on {assumed.gpus} GPUs: {stages}, "
        f"together {sum(found.stage_hours.values()):.1f}{price} "
        f"(MFU {assumed.mfu:g}, decoding at {assumed.decode_efficiency:g} of the bandwidth; "
        f"{assumed.critiques} critiques, {assumed.test_pictures} test pictures)"
    )


def run(settings: PlanSettings) -> None:
    if settings.engine.name == "single" and settings.plan.gpus > 1:
        raise InputError(
            f"plan.gpus={settings.plan.gpus}: engine=single is one process; give plan.gpus=1 or engine=zero2"
        )
    config = cost.load_config(settings.model.path, settings.model.name, command.CONF / "shapes")
    show(plan(settings, cost.shape_of(config)), settings)


def main() -> None:
    command.run("aes_r1.plan", run, config_name="plan", schema=PlanSettings)


if __name__ == "__main__":
    main()
