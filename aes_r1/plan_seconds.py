"""Estimate the operations and the seconds of a run's stages; plan_memory.py estimates their memory."""

from __future__ import annotations

import math
from dataclasses import replace

from aes_r1.inference.asking import AskingConfig
from aes_r1.inference.compare import PER_PAIR
from aes_r1.inference.exchange import INTERVENTION_KINDS
from aes_r1.inference.information import OTHERS
from aes_r1.inference.predictions import GROUNDED
from aes_r1.model import cost
from aes_r1.model.cost import Shape
from aes_r1.model.quantize import BITS
from aes_r1.pipeline.cold_start_stage import recipe_for
from aes_r1.plan_memory import (
    ELEMENT,
    mean_answer,
    own_images,
    passes_over,
    prompt_tokens,
    reference_place,
    shown_in_rapo,
    trained_parameters,
    trains_vision,
    whole_bytes,
    zero_stage,
)
from aes_r1.rollout.forced_prefix import ANSWER_TOKENS
from aes_r1.settings import PlanSettings
from aes_r1.trainer.sft import sft_steps


def step_flops(settings: PlanSettings, shape: Shape) -> dict[str, float]:
    """Count the operations of one step of RAPO on all GPUs, by phase; "update" holds all its optimizer steps.

    A backward pass costs as much as two forward passes, and gradient checkpointing adds one.
    """
    trainer, model, assumed = settings.trainer, settings.model, settings.plan
    images, rows = trainer.groups_per_step, trainer.groups_per_step * trainer.num_samples
    shown = shown_in_rapo(settings)
    prompt, answer = prompt_tokens(settings, shown), mean_answer(settings, shown)
    copies = images if model.shared_prefix else rows
    on_prompt, on_answer = prompt * (prompt + 1) / 2, answer * prompt + answer * (answer + 1) / 2
    prompts = cost.language_flops(shape, copies * prompt, copies * on_prompt, 0)
    answers = cost.language_flops(shape, rows * answer, rows * on_answer, rows * answer)
    pictures = copies * shown * cost.vision_flops(shape, assumed.picture_tokens)
    frozen = not trains_vision(settings)
    once = images * shown * cost.vision_flops(shape, assumed.picture_tokens)
    passes = 3 + model.gradient_checkpointing - (model.lora.rank > 0)  # an adapter needs no gradients of the weights
    update = passes * (prompts + answers) + (0 if frozen else passes * pictures)
    once_more = prompts + answers + (0 if frozen else pictures)  # a pass without gradients
    return {
        "rollout, prompts": cost.language_flops(shape, images * prompt, images * on_prompt, rows) + once,
        "rollout, decoding": answers,
        "reference": once_more if trainer.needs_reference else 0.0,
        **({"old policy": once_more} if passes_old_policy(settings) else {}),
        "update": trainer.inner_epochs * update,
    }


def passes_old_policy(settings: PlanSettings) -> bool:
    """Return whether a step computes the old log-probabilities in a pass of its own (Passes.old_logps)."""
    trainer = settings.trainer
    is_off_policy = trainer.inner_epochs * trainer.minibatches > 1
    return is_off_policy and (settings.rollout.name == "vllm" or trainer.ratio == "sequence")


def step_seconds(settings: PlanSettings, shape: Shape, flops: dict[str, float]) -> dict[str, float]:
    """Estimate the seconds of one step: passes at plan.mfu, decoding by decoding_seconds, ZeRO by bytes."""
    seconds = {name: operations / speed(settings) for name, operations in flops.items()}
    limit = settings.trainer.max_new_tokens
    mean = mean_answer(settings, shown_in_rapo(settings))
    longest = cost.longest_answer(mean, settings.plan.longest_answer, limit)
    seconds["rollout, decoding"] = decoding_seconds(settings, shape, flops, longest)
    return {**seconds, "ZeRO traffic": step_traffic(settings, shape) / (settings.plan.interconnect_gb_s * 1e9)}


def step_traffic(settings: PlanSettings, shape: Shape) -> float:
    """Count the bytes that one GPU receives in one step: for the rollout, the passes without gradient, the update."""
    trainer, trained = settings.trainer, trained_parameters(settings, shape)
    rows = own_images(settings) * trainer.num_samples
    minibatch = math.ceil(rows / trainer.minibatches)
    return cost.traffic_bytes(
        whole_bytes(settings, shape, trained),
        trained * ELEMENT[settings.model.dtype],
        processes=settings.plan.gpus,
        stage=zero_stage(settings),
        passes=trainer.inner_epochs * trainer.minibatches * passes_over(settings, minibatch),
        gathers=2 + settings.model.gradient_checkpointing,
        steps=trainer.inner_epochs * trainer.minibatches,
        rollouts=1 + (passes_over(settings, rows) if passes_old_policy(settings) else 0),  # each gathers once
        reference_passes=passes_over(settings, rows) if reference_place(settings) == "sharded" else 0,
    )


def speed(settings: PlanSettings) -> float:
    """Return the operations per second of all GPUs together in forward and backward passes, at plan.mfu."""
    assumed = settings.plan
    return assumed.gpus * assumed.peak_tflops * 1e12 * assumed.mfu


def decoding_seconds(settings: PlanSettings, shape: Shape, flops: dict[str, float], longest: int) -> float:
    """Estimate the seconds in which the completions of one step are decoded when the longest has `longest` tokens.

    It is the longer of two times: that of the operations in `flops` at plan.mfu, and that in which a GPU reads weights
    and cache, at plan.decode_efficiency of the bandwidth, for every token of the longest answer. A GPU decodes until
    its last answer ends, and all wait for the slowest GPU, because rewards compare the pictures of all of them.
    """
    images, samples, shown = own_images(settings), settings.trainer.num_samples, shown_in_rapo(settings)
    reading_seconds = decode_seconds(settings, shape, images, samples, longest, shown=shown)
    return max(flops["rollout, decoding"] / speed(settings), reading_seconds)


def decode_seconds(
    settings: PlanSettings, shape: Shape, images: int, samples: int, longest: int, *, shown: int = 1
) -> float:
    """Estimate the seconds in which one GPU decodes `longest` tokens for `samples` completions of `images` prompts.

    A prompt shows `shown` pictures. Every token reads the weights and the cache once; on average the cache holds half
    of each completion. 4-bit weights are read, written unpacked and read again, and each completion has a prompt of its
    own in the cache.
    """
    assumed, element = settings.plan, ELEMENT[settings.model.dtype]
    prompt = prompt_tokens(settings, shown)
    packed = settings.model.quantize == "nf4"
    cached = images * (samples if packed else 1) * prompt + images * samples * longest / 2
    weights = cost.decode_weight_bytes(shape, element)
    weights += round(shape.layer_matrix_parameters * (BITS / 8 + element)) if packed else 0
    bytes_read = longest * (weights + cost.cache_bytes(shape, cached, element))
    return bytes_read / (assumed.bandwidth_gb_s * 1e9 * assumed.decode_efficiency)


def cold_start_seconds(settings: PlanSettings, shape: Shape) -> float:
    """Estimate the seconds of the cold start: forward and backward passes over prompts, critiques and comparisons.

    Returns 0 for a run without a cold start.
    """
    if "cold_start" not in settings.models:
        return 0.0
    assumed, model = settings.plan, settings.model
    of_shown = {1: assumed.critiques, 2: round(settings.cold_start.pairs * assumed.critiques)}
    records = sum(of_shown.values())
    cold_start = recipe_for(settings, records)
    language = picture = 0.0
    for shown, count in of_shown.items():
        prompt = prompt_tokens(settings, shown)
        tokens = prompt + mean_answer(settings, shown)
        language += count * cost.language_flops(shape, tokens, tokens * (tokens + 1) / 2, tokens - prompt)
        picture += count * shown * cost.vision_flops(shape, assumed.picture_tokens)
    adapted = model.lora.rank > 0
    frozen = cold_start.freeze_vision or adapted
    passes = 3 + model.gradient_checkpointing
    epoch = (passes - adapted) * language + (1 if frozen else passes) * picture
    trained = shape.parameters - (shape.vision_parameters if cold_start.freeze_vision else 0)
    if adapted:
        trained = trained_parameters(settings, shape)
    steps = sft_steps(records, cold_start)
    traffic = cost.traffic_bytes(
        whole_bytes(settings, shape, trained),
        trained * ELEMENT[model.dtype],
        processes=assumed.gpus,
        stage=zero_stage(settings),
        passes=steps * math.ceil(cold_start.batch_size / assumed.gpus / cold_start.micro_batch_size),
        gathers=2 + model.gradient_checkpointing,
        steps=steps,
    )
    passing = cold_start.epochs * epoch / speed(settings)
    return passing + traffic / (assumed.interconnect_gb_s * 1e9)


def evaluation_seconds(settings: PlanSettings, shape: Shape) -> float:
    """Estimate the seconds of the evaluation: every model answers all test pictures in batches under every protocol.

    Its critiques are then exchanged (exchange_seconds).
    """
    assumed, evaluation = settings.plan, settings.evaluation
    protocols, pictures = set(evaluation.of_pictures), assumed.test_pictures
    samples = (evaluation.n_samples or AskingConfig.n_samples) if "mean" in protocols else int("sample" in protocols)
    once = (
        asking_seconds(settings, shape, pictures, samples) if samples else 0.0
    )  # protocol sample takes the first of them
    if protocols & {"greedy", "read_back"}:
        once += asking_seconds(settings, shape, pictures, 1)
    if "read_back" in protocols:
        once += asking_seconds(
            settings, shape, pictures, 1, begun=mean_answer(settings), longest=_score_tokens(settings)
        )
    if "direct" in protocols:
        once += asking_seconds(settings, shape, pictures, 1, longest=_score_tokens(settings))
    if "label_tokens" in protocols:
        once += asking_seconds(settings, shape, pictures, 0)
    if "pair" in evaluation.protocols:
        pairs = min(evaluation.pairs * (1 + len(evaluation.also)), pictures // 2)
        once += asking_seconds(settings, shape, PER_PAIR * pairs, 1, shown=2)
    return len(set(evaluation.stages) & set(settings.models)) * (once + exchange_seconds(settings, shape))


def exchange_seconds(settings: PlanSettings, shape: Shape) -> float:
    """Estimate the seconds of the tests of a model's critiques, which one GPU does (inference.exchange).

    Of evaluation.interventions critiques per set and protocol, it computes the likelihood beside other pictures, and
    the scores after critiques and pictures are exchanged.
    """
    evaluation, model = settings.evaluation, settings.model
    if model.prompt not in ("critique", "score_first"):
        return 0.0
    verbal = [name for name in evaluation.of_pictures if name not in ("direct", "label_tokens")]
    followed = {*verbal[:1], *(name for name in verbal if name in GROUNDED)}
    critiques = len(followed) * min(evaluation.interventions * (1 + len(evaluation.also)), settings.plan.test_pictures)
    if not critiques:
        return 0.0
    alone = replace(settings, plan=replace(settings.plan, gpus=1))  # rank 0 does it
    answer, per_critique = mean_answer(settings), len(INTERVENTION_KINDS)
    seconds = asking_seconds(alone, shape, critiques * (1 + OTHERS), 0, begun=answer)
    if model.prompt == "critique" and model.answer_from == "image":
        longest = _score_tokens(settings)
        seconds += asking_seconds(alone, shape, critiques * per_critique, 1, begun=answer, longest=longest)
    return seconds


def _score_tokens(settings: PlanSettings) -> int:
    """Return the tokens of an answer of which all but the scores is given (rollout.forced_prefix.answer_tokens)."""
    return ANSWER_TOKENS * (1 + len(settings.model.sub_scores))


def asking_seconds(
    settings: PlanSettings,
    shape: Shape,
    prompts: int,
    samples: int,
    *,
    shown: int = 1,
    begun: int = 0,
    longest: int | None = None,
) -> float:
    """Estimate the seconds in which all GPUs answer `samples` times for each of `prompts`, which show `shown` pictures.

    A batch takes as long as its longest answer, of `longest` tokens (None: as plan.longest_answer has it). `begun`:
    tokens of the answer that are given.
    """
    assumed, evaluation = settings.plan, settings.evaluation
    prompt = prompt_tokens(settings, shown) + begun
    flops = cost.language_flops(shape, prompt, prompt * (prompt + 1) / 2, 1)
    flops += shown * cost.vision_flops(shape, assumed.picture_tokens)
    seconds = prompts * flops / speed(settings)
    if samples > 0:
        batch = min(evaluation.batch_size, math.ceil(prompts / assumed.gpus))
        if longest is None:
            limit = evaluation.max_new_tokens or settings.trainer.max_new_tokens
            longest = cost.longest_answer(mean_answer(settings, shown), assumed.longest_answer, limit)
        batches = math.ceil(prompts / (assumed.gpus * batch))
        seconds += batches * decode_seconds(settings, shape, batch, samples, longest, shown=shown)
    return seconds
