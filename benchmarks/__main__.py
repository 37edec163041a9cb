"""Compare this project, the same without its optimisations, and TRL's GRPOTrainer, step by step on the same workload.

    make bench                                   # CPU sizes, or the published sizes on a GPU
    python -m benchmarks cpu --rounds 5          # tiny and 50 M, float32, one thread
    python -m benchmarks gpu                     # Qwen2.5-VL-3B and 7B with random weights, bfloat16, LoRA
    python -m benchmarks gpu --models qwen2_5_vl_3b --samples 8 --tokens 200    # one workload: 64 sequences
    python -m benchmarks scaling                 # how this project's time grows with K, N and length (tiny)

Every system is a process that takes one step when it is told to, so the systems alternate and other work on the machine
affects all of them. Warm-up steps do not count; results are medians over the rest, ratios are
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

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SYSTEMS = {
    "ours": ("benchmarks.ours", "fast"),
    "ours_plain": ("benchmarks.ours", "plain"),
    "trl": ("benchmarks.trl_step",),
}
PICTURE = (588, 448)  # 21 x 16 = 336 picture tokens of 28 x 28 pixels, the whole rectangle nearest to 334
SUITES = {
    "cpu": [
        Workload("tiny", K=4, N=8, new_tokens=48, picture=(96, 96)),
        Workload("tiny", K=8, N=8, new_tokens=48, picture=(96, 96)),
        Workload("tiny", K=8, N=8, new_tokens=200, picture=(96, 96)),
        Workload("50m", K=4, N=2, new_tokens=64, picture=PICTURE),
        # Half of the step per pass, because the plain systems would need 16 GB for all of it.
        Workload("50m", K=8, N=2, new_tokens=200, picture=PICTURE, micro_batch=8),
    ],
    "scaling": [
        *(Workload("tiny", K=K, N=8, new_tokens=64, picture=(96, 96)) for K in (2, 4, 8, 16)),
        *(Workload("tiny", K=8, N=N, new_tokens=64, picture=(96, 96)) for N in (2, 4, 16)),
        *(Workload("tiny", K=8, N=8, new_tokens=T, picture=(96, 96)) for T in (16, 32, 128, 256)),
    ],
    "gpu": [
        Workload(
            model, K=K, N=8, new_tokens=T, picture=PICTURE, dtype="bfloat16", lora=64,
            micro_batch=16, gradient_checkpointing=True,
        )
        for model in ("qwen2_5_vl_3b", "qwen2_5_vl_7b") for K in (4, 8) for T in (200, 512)
    ],
}  # fmt: skip
COMPARED = (
    "step_s",
    "cpu_s",
    "rollout_s",
    "rollout_cpu_s",
    "reference_s",
    "reference_cpu_s",
    "update_s",
    "update_cpu_s",
    "update_rise_gb",
    "update_peak_gb",
)
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")


class Player:
    """One system in its own process."""

    def __init__(self, system: str, workload: Workload, work: Path) -> None:
        module, *rest = SYSTEMS[system]
        self.system = system
        self.log = (work / f"{system}.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, workload.dump(), str(work), *rest],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "HF_HUB_OFFLINE": "1"},
        )

    def ready(self) -> None:
        """Blocks until the model is loaded and the process waits for its turn."""
        self._answer()

    def step(self) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        cost = json.loads(self._answer())
        self._answer()  # ready again
        return cost

    def _answer(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return line.removeprefix(MARK).strip()
        raise RuntimeError(f"{self.system} ended early; see {self.log.name}")

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.log.close()


def compare(
    workload: Workload, systems: list[str], rounds: int, warm_up: int, work: Path
) -> Iterator[list[dict[str, Any]]]:
    """Yield after every counted round one row per system: medians so far, and ratios of neighbouring steps to ours."""
    players = [Player(systems[0], workload, work)]
    players[0].ready()  # it writes the weights that the others then load at the same time
    players += [Player(system, workload, work) for system in systems[1:]]
    for player in players[1:]:
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


def row_of(workload: Workload, system: str, costs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    mine = costs[system]
    row: dict[str, Any] = {"system": system, **asdict(workload), "n": len(mine)}
    for name in mine[0]:
        row[name] = round(statistics.median(cost[name] for cost in mine), 4)
    row["tokens_per_s"] = round(workload.rows * workload.new_tokens / row["step_s"], 1)
    if "ours" in costs:
        for name in COMPARED:
            pairs = zip(mine, costs["ours"], strict=True)
            row[f"{name}_over_ours"] = round(statistics.median(a[name] / max(b[name], 1e-9) for a, b in pairs), 3)
    row["runs"] = {name: [round(cost[name], 4) for cost in mine] for name in COMPARED}
    return row


def header(suite: str) -> dict[str, Any]:
    import torch

    device = f"cuda:{torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"cpu:{_processor()}"
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "suite": suite,
        "commit": code_version(ROOT / "aes_r1"),
        "device": device,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "versions": versions,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name} x{os.cpu_count()}"


def measured_before(path: Path, about: dict[str, Any], chosen: list[Workload]) -> list[dict[str, Any]]:
    """Return rows of `path` with the same code, device and versions, and none of the chosen workloads."""
    if not path.exists():
        return []
    before = json.loads(path.read_text())
    rows = before.pop("rows")
    for header_of in (before, about := dict(about)):  # the result files themselves make the tree dirty
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
            whole = {**result, "rows": result["rows"] + rows}  # written after each round, so that a stop loses little
            path.write_text(json.dumps(whole, indent=1) + "\n")
        result["rows"] += rows
        for row in rows:
            print(line_of(row), flush=True)
    print(path)


if __name__ == "__main__":
    main()
