"""Ours, ours with the switches off, and TRL's GRPOTrainer, step by step in turn on the same workload.

    make bench                                   # what the machine can: CPU sizes, or the published sizes on a GPU
    python -m benchmarks cpu --rounds 5          # tiny and 50 M, float32, one thread
    python -m benchmarks gpu                     # Qwen2.5-VL-3B and 7B with random weights, bfloat16, LoRA
    python -m benchmarks gpu --models qwen2_5_vl_3b --samples 8 --tokens 200    # one workload: 64 sequences
    python -m benchmarks scaling                 # how ours grows with K, N and length (tiny)

Every system is a process of its own that takes one step when it is told to, so the systems alternate and share whatever
else the machine is doing. Warm-up steps do not count; results are medians over the rest, ratios are
medians of the ratios of neighbouring steps. On a GPU rows also say how near the card's peak they come
(benchmarks.efficiency). Writes benchmarks/results/NAME.json; rows of other workloads that the same commit measured on
the same device stay, so that a suite can be measured in several commands.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from aes_r1.pipeline.origin import code_version
from benchmarks import arithmetic, efficiency
from benchmarks.player import MARK
from benchmarks.workload import Workload

PICTURE = (588, 448)  # 21 x 16 = 336 picture tokens of 28 x 28 pixels, the whole rectangle nearest to 334
SUITES = {
    "cpu": [
        Workload("tiny", K=4, N=8, new_tokens=48, picture=(96, 96)),
        Workload("tiny", K=8, N=8, new_tokens=48, picture=(96, 96)),
        Workload("tiny", K=8, N=8, new_tokens=200, picture=(96, 96)),
        Workload("50m", K=4, N=2, new_tokens=64, picture=PICTURE),
        # Half of the step at a time: the plain paths would need 16 GB for all of it.
        Workload("50m", K=8, N=2, new_tokens=200, picture=PICTURE, micro_batch=8),
    ],
    "scaling": [
        *(Workload("tiny", K=K, N=8, new_tokens=64, picture=(96, 96)) for K in (2, 4, 8, 16)),
        *(Workload("tiny", K=8, N=N, new_tokens=64, picture=(96, 96)) for N in (2, 4, 16)),
        *(Workload("tiny", K=8, N=8, new_tokens=T, picture=(96, 96)) for T in (16, 32, 128, 256)),
    ],
}

def compare(
    workload: Workload, systems: list[str], rounds: int, warm_up: int, work: Path
) -> Iterator[list[dict[str, Any]]]:
    """After every counted round: one row per system, medians so far, ratios to ours of neighbouring steps."""
    players = [Player(system, workload, work) for system in systems]
    for player in players:
        player.build()
        player.ready()
    costs: dict[str, list[dict[str, float]]] = {system: [] for system in systems}
    try:
        for turn in range(warm_up + rounds):
            for player in players:
                cost = player.step()
                print(f"{workload.model} {player.system} step {turn}: {cost['step_s']:.2f} s", file=sys.stderr)
                if turn >= warm_up:
                    costs[player.system].append(cost)
            if turn >= warm_up:
                yield [row_of(workload, system, costs) for system in systems]
    finally:
        for player in players:
            player.end()


def measured_before(path: Path, about: dict[str, Any], chosen: list[Workload]) -> list[dict[str, Any]]:
    """Rows of `path` that stand beside new ones: the same code, device and versions, none of the chosen workloads."""
    if not path.exists():
        return []
    before = json.loads(path.read_text())
    rows = before.pop("rows")
    for header_of in (before, about := dict(about)):  # the results themselves make a tree dirty
        header_of["commit"] = header_of["commit"].removesuffix("-dirty")
    if before != about:
        return []
    again = {(one.model, one.K, one.N, one.new_tokens) for one in chosen}
    return [row for row in rows if (row["model"], row["K"], row["N"], row["new_tokens"]) not in again]


def line_of(row: dict[str, Any]) -> str:
    line = (
        f"{row['model']:>14} K {row['K']} N {row['N']} T {row['new_tokens']} {row['system']:>10}: "
        f"step {row['step_s']:.2f} s, rollout {row['rollout_s']:.2f}, reference {row['reference_s']:.2f}, "
        f"update {row['update_s']:.2f}, cpu {row['cpu_s']:.2f}, {row['peak_memory_gb']:.2f} GB, "
        f"update rise {row['update_rise_gb']:.2f} GB; x{row.get('step_s_over_ours', 1)} of ours"
    )
    if "update_mfu" in row:
        over = row.get("decode_over_floor")
        line += f"; update MFU {row['update_mfu']:.2f}"
        line += "" if over is None else f", decode {over:.2f} of the floor"
    return line


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="?", choices=[*SUITES, "auto"], default="auto")
    parser.add_argument("--rounds", type=int, default=5, help="counted steps of each system")
    parser.add_argument("--warm-up", type=int, default=1, help="steps of each system that do not count")
    parser.add_argument("--images", type=int, help="N in place of the suite's")
    parser.add_argument("--tokens", type=int, help="only workloads of this completion length")
    parser.add_argument("--samples", type=int, help="only workloads of this K")
    parser.add_argument("--models", nargs="*", help="only these models")
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--peak-tflops", type=float, help="dense 16-bit peak of a card that efficiency.CARDS lacks")
    parser.add_argument("--bandwidth-gb-s", type=float, help="its memory bandwidth")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "bench", help="random weights and pictures")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    suite = arguments.suite
    if suite == "auto":
        suite = "gpu" if torch.cuda.is_available() else "cpu"
    if suite == "gpu" and not torch.cuda.is_available():
        parser.error("gpu needs a CUDA device")
    arguments.work.mkdir(parents=True, exist_ok=True)
    systems = ["ours"] if suite == "scaling" else arguments.systems
    card = (
        efficiency.card_of(torch.cuda.get_device_name(), arguments.peak_tflops, arguments.bandwidth_gb_s)
        if torch.cuda.is_available()
        else None
    )
    if suite == "gpu" and card is None:
        parser.error(f"{torch.cuda.get_device_name()}: unknown card; give --peak-tflops and --bandwidth-gb-s")
    chosen = [
        replace(one, N=arguments.images or one.N)
        for one in SUITES[suite]
        if (not arguments.models or one.model in arguments.models)
        and (not arguments.tokens or one.new_tokens == arguments.tokens)
        and (not arguments.samples or arguments.samples == one.K)
    ]
    if not chosen:
        parser.error(f"{suite} has no such workload")
    about = header(suite)
    path = arguments.out / f"{suite}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {**about, "rows": measured_before(path, about, chosen)}
    for workload in chosen:
        rows: list[dict[str, Any]] = []
        for rows in compare(workload, systems, arguments.rounds, arguments.warm_up, arguments.work):
            if card is not None:
                for row in rows:
                    row |= efficiency.of_row(row, arithmetic.shape(workload.model), card)
            whole = {**result, "rows": result["rows"] + rows}  # a stop loses little
            path.write_text(json.dumps(whole, indent=1) + "\n")
        result["rows"] += rows
        for row in rows:
            print(line_of(row), flush=True)
    print(path)


if __name__ == "__main__":
    main()
