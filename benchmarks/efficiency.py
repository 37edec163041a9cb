"""How near a step comes to what its card can do: update MFU, decode time over the memory-bandwidth floor.

Pure functions of a benchmark row, a model's shape and a card; operations and bytes are those that aes_r1.model.cost
counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aes_r1.model import cost
from aes_r1.model.cost import Shape
from benchmarks.workload import Workload, config_of

QUESTION_TOKENS = 141  # the rating prompt and its template in the benchmark's tokenizer
ELEMENT = {"float32": 4, "bfloat16": 2}
ADAPTER_ELEMENT = 4  # peft keeps an adapter in float32


@dataclass(frozen=True)
class Card:
    """tflops: dense 16-bit matrix products, 10^12 operations a second; gb_s: memory bandwidth, 10^9 bytes a second."""

    tflops: float
    gb_s: float


# As NVIDIA's data sheets give them, without sparsity. The longest name that a device's name contains counts.
CARDS = {
    "A100-SXM4-40GB": Card(312, 1555),
    "A100-PCIE-40GB": Card(312, 1555),
    "A100 80GB PCIe": Card(312, 1935),
    "A100-SXM4-80GB": Card(312, 2039),
    "L40S": Card(362, 864),
    "H100 PCIe": Card(756, 2000),
    "H100 NVL": Card(835, 3900),
    "H100 80GB HBM3": Card(989, 3350),
    "H200": Card(989, 4800),
    "B200": Card(2250, 8000),
}


def card_of(device: str, tflops: float | None = None, gb_s: float | None = None) -> Card | None:
    """The card of that name; given numbers go before the table's. None when either is in neither place."""
    known = CARDS.get(max((name for name in CARDS if name in device), key=len, default=""))
    tflops = tflops or (known and known.tflops)
    gb_s = gb_s or (known and known.gb_s)
    return Card(tflops, gb_s) if tflops and gb_s else None


def shape_of(model: str) -> Shape:
    from transformers import AutoConfig

    return cost.shape_of(AutoConfig.for_model(**config_of(model)))


def picture_tokens(workload: Workload) -> int:
    width, height = workload.picture
    side = 2 * config_of(workload.model)["vision_config"]["patch_size"]
    return (width // side) * (height // side)


def prompt_tokens(workload: Workload) -> int:
    return picture_tokens(workload) + QUESTION_TOKENS


def language_forward_flops(shape: Shape, workload: Workload, *, shared: bool) -> float:
    """Operations of one forward pass over the step's outputs; the prompt once per image (`shared`) or per output."""
    prompt, answer, rows = prompt_tokens(workload), workload.new_tokens, workload.rows
    copies = workload.N if shared else rows
    on_prompt, on_answer = prompt * (prompt + 1) / 2, answer * prompt + answer * (answer + 1) / 2
    prompts = cost.language_flops(shape, copies * prompt, copies * on_prompt, 0)
    return prompts + cost.language_flops(shape, rows * answer, rows * on_answer, rows * answer)


def update_flops(shape: Shape, workload: Workload, *, shared: bool, recomputed: bool = False) -> float:
    """Operations of the update: forward, gradient of the states and, without an adapter, gradient of the weights.

    An adapter's own operations (a few percent) are not counted, and its frozen vision tower has no part in the update.
    `recomputed` adds the forward pass that gradient checkpointing repeats: work that is done, but is not the model's.
    """
    forward = language_forward_flops(shape, workload, shared=shared)
    if not workload.lora:
        forward += (workload.N if shared else workload.rows) * cost.vision_flops(shape, picture_tokens(workload))
    passes = 2 if workload.lora else 3
    return (passes + (recomputed and workload.gradient_checkpointing)) * forward


def decode_weight_bytes(shape: Shape, workload: Workload) -> float:
    """Weights that every token step reads once: the language layers' matrices, the head, an adapter."""
    read = shape.layer_matrix_parameters + shape.width * shape.vocabulary
    adapter = cost.lora_parameters(shape, workload.lora) if workload.lora else 0
    return read * ELEMENT[workload.dtype] + adapter * ADAPTER_ELEMENT


def decode_cache_bytes(shape: Shape, workload: Workload) -> float:
    """Keys and values that all token steps read together: a prompt's once per image and step, each output's own past.

    The first token comes of the prompt, so T tokens take T - 1 steps; step t reads t tokens of every output.
    """
    answer = workload.new_tokens
    tokens = (answer - 1) * workload.N * prompt_tokens(workload) + workload.rows * (answer - 1) * answer / 2
    return cost.cache_bytes(shape, tokens, ELEMENT[workload.dtype])


def of_row(row: dict[str, Any], workload: Workload, shape: Shape, card: Card) -> dict[str, float]:
    """What a row of benchmarks.__main__ says about the card.

    update_mfu: the model's operations over seconds and peak; update_hfu: those done, recomputed ones included. Floors
    are seconds: weights alone, and with keys and values. decode_over_*: the decode loop over its floor, where the
    system's decode loop was timed; rollout_over_floor: pictures and prompts included, for every system.
    """
    shared = row["system"] == "ours"
    peak = card.tflops * 1e12 * row["update_s"]
    weights = (workload.new_tokens - 1) * decode_weight_bytes(shape, workload) / (card.gb_s * 1e9)
    cache = decode_cache_bytes(shape, workload) / (card.gb_s * 1e9)
    found = {
        "update_mfu": update_flops(shape, workload, shared=shared) / peak,
        "update_hfu": update_flops(shape, workload, shared=shared, recomputed=True) / peak,
        "decode_floor_s": weights,
        "decode_floor_with_cache_s": weights + cache,
        "rollout_over_floor": row["rollout_s"] / weights,
    }
    if "decode_s" in row:
        found["decode_over_floor"] = row["decode_s"] / weights
        found["decode_over_floor_with_cache"] = row["decode_s"] / (weights + cache)
    return {name: round(value, 4) for name, value in found.items()}
