"""Compare a step with the limits of its card: update MFU, decode time over the memory-bandwidth floor.

Pure functions of a benchmark row, a model's shape and a card; operations and bytes are those that aes_r1.plan and
aes_r1.model.cost count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aes_r1.model import cost
from aes_r1.model.cost import Shape
from aes_r1.plan_memory import ELEMENT
from benchmarks import arithmetic

ADAPTER_ELEMENT = 4  # peft keeps an adapter in float32


@dataclass(frozen=True)
class Card:
    """tflops: dense 16-bit matrix products, 10^12 operations a second; gb_s: memory bandwidth, 10^9 bytes a second."""

    tflops: float
    gb_s: float


# From NVIDIA's data sheets, without sparsity. The longest of these names in a device's name is used.
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
    """Return the card of that name; given numbers take precedence over the table's. None where a number is missing."""
    known = CARDS.get(max((name for name in CARDS if name in device), key=len, default=""))
    tflops = tflops or (known and known.tflops)
    gb_s = gb_s or (known and known.gb_s)
    return Card(tflops, gb_s) if tflops and gb_s else None


def update_flops(row: dict[str, Any], *, recomputed: bool = False) -> float:
    """Operations of the update as the plan counts them: forward, gradient of states and, unless adapted, of weights.

    The prompt counts as often as the row's system computes it. An adapter's own operations (a few percent) are left
    out. `recomputed` adds the forward pass that gradient checkpointing repeats: work that is done, but not the model's.
    """
    counted = row["gradient_checkpointing"] and recomputed
    return arithmetic.phase_flops({**row, "gradient_checkpointing": counted})["update_cpu_s"]


def decode_weight_bytes(shape: Shape, row: dict[str, Any]) -> float:
    """Weights that every token step reads once: the language layers' matrices, the head, an adapter."""
    adapter = cost.lora_parameters(shape, row["lora"]) if row["lora"] else 0
    return cost.decode_weight_bytes(shape, ELEMENT[row["dtype"]]) + adapter * ADAPTER_ELEMENT


def decode_cache_bytes(shape: Shape, row: dict[str, Any]) -> float:
    """Keys and values that all token steps read together: a prompt's once per image and step, each output's own past.

    The prompt pass gives the first token, so T tokens take T - 1 steps; step t reads t tokens of every output.
    """
    assumed, answer = arithmetic.settings_of(row).plan, row["new_tokens"]
    prompts = row["N"] * (assumed.picture_tokens + assumed.question_tokens)
    tokens = (answer - 1) * prompts + row["K"] * row["N"] * (answer - 1) * answer / 2
    return cost.cache_bytes(shape, tokens, ELEMENT[row["dtype"]])


def of_row(row: dict[str, Any], shape: Shape, card: Card) -> dict[str, float]:
    """Return how well a row of benchmarks.__main__ uses the card.

    update_mfu: the model's operations over seconds and peak; update_hfu: those done, recomputed ones included. Floors
    are seconds: weights alone, and with keys and values. decode_over_*: the decode loop over its floor, where the
    system's decode loop was timed; rollout_over_floor: pictures and prompts included, for every system.
    """
    peak = card.tflops * 1e12 * row["update_s"]
    weights = (row["new_tokens"] - 1) * decode_weight_bytes(shape, row) / (card.gb_s * 1e9)
    cache = decode_cache_bytes(shape, row) / (card.gb_s * 1e9)
    found = {
        "update_mfu": update_flops(row) / peak,
        "update_hfu": update_flops(row, recomputed=True) / peak,
        "decode_floor_s": weights,
        "decode_floor_with_cache_s": weights + cache,
        "rollout_over_floor": row["rollout_s"] / weights,
    }
    if "decode_s" in row:
        found["decode_over_floor"] = row["decode_s"] / weights
        found["decode_over_floor_with_cache"] = row["decode_s"] / (weights + cache)
    return {name: round(value, 4) for name, value in found.items()}
