"""Compute how close a step comes to the limits of its GPU: update MFU, and decode time over the bandwidth floor.

These are pure functions of a benchmark row, a model's shape and a card. Operations and bytes are those of aes_r1.plan
and aes_r1.model.cost.
"""

from __future__ import annotations

from typing import Any

from aes_r1.model import cost
from aes_r1.model.cards import Card
from aes_r1.model.cost import Shape
from aes_r1.plan_memory import ELEMENT
from benchmarks import arithmetic
from benchmarks.workload import Workload


def lengths_of(row: dict[str, Any]) -> list[list[int]]:
    """Return the tokens of each completion in each counted step of the row."""
    workload = Workload.of(row)
    return [workload.lengths_of(step) for step in row.get("steps", [0])]


def update_flops(row: dict[str, Any], *, recomputed: bool = False) -> float:
    """Return the operations of the row's updates (mean of its steps) by real lengths, as in aes_r1.model.cost.

    The prompt counts as often as the row's system computes it. `recomputed` adds the second forward pass of gradient
    checkpointing, which is work done but not part of the model's operations.
    """
    shape, workload, assumed = arithmetic.shape(row["model"]), Workload.of(row), arithmetic.settings_of(row).plan
    found = [
        cost.update_flops(
            shape,
            [assumed.picture_tokens + assumed.question_tokens] * workload.N,
            [[assumed.picture_tokens]] * workload.N,
            [lengths[image * workload.K : (image + 1) * workload.K] for image in range(workload.N)],
            shared_prefix=row["system"] == "ours",
            adapter=workload.lora > 0,
            vision=workload.trains_tower,
            recomputed=recomputed and workload.gradient_checkpointing,
        )
        for lengths in lengths_of(row)
    ]
    return sum(found) / len(found)


def decode_weight_bytes(shape: Shape, row: dict[str, Any]) -> float:
    """Return the bytes of weights that every token step reads once: the language layers' matrices and the head.

    An adapter does not count: it can be added to the weights before decoding.
    """
    return cost.decode_weight_bytes(shape, ELEMENT[row["dtype"]])


def decode_cache_bytes(shape: Shape, row: dict[str, Any]) -> float:
    """Return the bytes of keys and values that all token steps read: a prompt's once per image, each output's own past.

    The prompt gives the first token, so T tokens take T - 1 steps; step t reads t tokens of every output that has not
    ended. The result is the mean over the row's steps.
    """
    assumed = arithmetic.settings_of(row).plan
    prompts = row["N"] * (assumed.picture_tokens + assumed.question_tokens)
    found = [
        (max(lengths) - 1) * prompts + sum((length - 1) * length / 2 for length in lengths)
        for lengths in lengths_of(row)
    ]
    return cost.cache_bytes(shape, sum(found) / len(found), ELEMENT[row["dtype"]])


def decode_steps(row: dict[str, Any]) -> float:
    """Return the token steps until the longest completion ends, without the first token; mean over the row's steps."""
    longest = [max(lengths) - 1 for lengths in lengths_of(row)]
    return sum(longest) / len(longest)


def seconds_of(row: dict[str, Any], name: str) -> float:
    """Return the mean over the row's steps, or the row's own value if it does not keep them."""
    each = row.get("runs", {}).get(name)
    return sum(each) / len(each) if each else row[name]


def of_row(row: dict[str, Any], shape: Shape, card: Card) -> dict[str, float]:
    """Return how well a row of results uses the card.

    update_mfu: the model's operations over seconds and peak; update_hfu: the same with recomputed operations. The
    floors are seconds: weights alone, and with keys and values. decode_over_*: the decode loop over its floor, if the
    system's decode loop was timed; rollout_over_floor: the same with pictures and prompts, for every system. All are
    means over the row's steps, whose lengths differ.
    """
    peak = card.tflops * 1e12 * seconds_of(row, "update_s")
    weights = decode_steps(row) * decode_weight_bytes(shape, row) / (card.gb_s * 1e9)
    cache = decode_cache_bytes(shape, row) / (card.gb_s * 1e9)
    found = {
        "update_mfu": update_flops(row) / peak,
        "update_hfu": update_flops(row, recomputed=True) / peak,
        "decode_floor_s": weights,
        "decode_floor_with_cache_s": weights + cache,
        "rollout_over_floor": seconds_of(row, "rollout_s") / weights,
    }
    if "decode_s" in row:
        decoding = seconds_of(row, "decode_s")
        found["decode_over_floor"] = decoding / weights
        found["decode_over_floor_with_cache"] = decoding / (weights + cache)
        found["decode_ms_per_token"] = 1000 * decoding / decode_steps(row)
    return {name: round(value, 4) for name, value in found.items()}
