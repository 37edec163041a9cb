"""Compare this project, the same without its optimisations, and TRL's GRPOTrainer, step by step on the same workload.

    make bench                                   # what the machine can: CPU sizes, or benchmarks.gpu on a GPU
    python -m benchmarks cpu --rounds 5          # tiny and 50 M, float32, one thread
    python -m benchmarks scaling                 # how this project's time grows with K, N and length (tiny)
    python -m benchmarks gpu --list              # the rows of benchmarks.gpu, whose docstring explains them

Every system is a process that takes one step when it is told to, so the systems alternate and other work on the machine
affects all of them. Warm-up steps do not count; results are medians over the rest, ratios are medians of the ratios of
neighbouring steps. Writes benchmarks/results/NAME.json. Rows of other workloads that the same commit measured on the
same device are kept, so that a suite can be measured by several commands.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import gpu
from benchmarks.gpu import PICTURE
from benchmarks.system import RESULTS, ROOT, SYSTEMS, Player, header, row_of
from benchmarks.workload import Workload

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
}


def compare(
    workload: Workload, systems: list[str], rounds: int, warm_up: int, work: Path
) -> Iterator[list[dict[str, Any]]]:
    """Yield one row per system after every counted round: medians so far, and ratios of neighbouring steps to ours."""
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
    """Return rows of `path` with the same code, device and versions, and none of the chosen workloads."""
    if not path.exists():
        return []
    before = json.loads(path.read_text())
    rows = before.pop("rows")
    if str(about["commit"]).endswith("-dirty"):  # two changed copies of a commit need not be the same code
        return []
    if before != about:
        return []
    return [row for row in rows if Workload.of(row) not in chosen]


def line_of(row: dict[str, Any]) -> str:
    return (
        f"{row['model']:>14} K {row['K']} N {row['N']} T {row['new_tokens']} {row['system']:>10}: "
        f"step {row['step_s']:.2f} s, rollout {row['rollout_s']:.2f}, reference {row['reference_s']:.2f}, "
        f"update {row['update_s']:.2f}, cpu {row['cpu_s']:.2f}, {row['peak_memory_gb']:.2f} GB, "
        f"update rise {row['update_rise_gb']:.2f} GB; x{row.get('step_s_over_ours', 1)} of ours"
    )


def main() -> None:
    import torch

    if sys.argv[1:2] == ["gpu"] or (not sys.argv[1:] and torch.cuda.is_available()):
        gpu.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="?", choices=list(SUITES), default="cpu")
    parser.add_argument("--rounds", type=int, default=5, help="counted steps of each system")
    parser.add_argument("--warm-up", type=int, default=1, help="steps of each system that do not count")
    parser.add_argument("--images", type=int, help="N in place of the suite's")
    parser.add_argument("--tokens", type=int, help="only workloads of this completion length")
    parser.add_argument("--samples", type=int, help="only workloads of this K")
    parser.add_argument("--models", nargs="*", help="only these models")
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "bench", help="configurations and pictures")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    suite = arguments.suite
    arguments.work.mkdir(parents=True, exist_ok=True)
    systems = ["ours"] if suite == "scaling" else arguments.systems
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
            whole = {**result, "rows": result["rows"] + rows}  # written after each round, in case it is stopped
            path.write_text(json.dumps(whole, indent=1) + "\n")
        result["rows"] += rows
        for row in rows:
            print(line_of(row), flush=True)
    print(path)


if __name__ == "__main__":
    main()
