"""Measure everything that docs/performance.md reports for one GPU, most important first: bash benchmarks/gpu.sh

    python -m benchmarks.gpu                    # all of PLAN, 8 minutes at most
    python -m benchmarks.gpu --only 0 1         # rows of PLAN by number; --list shows them
    python -m benchmarks.gpu --minutes 20       # as many rows as fit
    python -m benchmarks.gpu --tiny --out DIR   # the same plan at the size of a test, for machines without a GPU

Each system has the GPU to itself and runs in its own process, which draws the same seeded random weights on the device.
All processes import while the first one measures. Results are written after every counted step, so a stop loses
nothing: benchmarks/results/gpu_CARD.json (rows), gpu_CARD_profile.json (kernels of one decoded token and of one
update). Rows that the same commit, without changes, measured before on the same card are kept unless they are measured
again. A system that fails, out of memory or otherwise, is tried again with half as many completions per pass, then
skipped with its reason in "failed". Ratios over ours are ratios of medians, because steps do not alternate here.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aes_r1.model import cards, cost
from aes_r1.model.cards import Card
from aes_r1.plan_memory import largest_micro_batch, memory_per_gpu, peak, trained_parameters
from aes_r1.settings import PlanSettings
from benchmarks import arithmetic, efficiency
from benchmarks.kernel_times import difference, longest_first, summary
from benchmarks.system import COMPARED, RESULTS, ROOT, Ended, Player, header, row_of
from benchmarks.workload import Workload

PICTURE = (588, 448)  # 21 x 16 = 336 picture tokens of 28 x 28 pixels
ROOM = 0.8  # share of the card's memory for what the plan counts; the rest is for temporary tensors
SHORT = 32  # tokens of each completion in a short warm-up
PROFILED = (16, 48)  # tokens of the two rollouts whose difference is profiled
OPTIONS = {"trl": ["plain"]}  # options for the second try of a system that failed


@dataclass(frozen=True)
class Run:
    """Describe one system on one workload: `warm_up` turns that do not count, then `steps` that do.

    needs: seconds that must be left to begin it (measured or guessed on an H100); profile: count kernels afterwards. If
    micro_batch is 0 in the workload, a pass has as many completions as fit.
    """

    system: str
    workload: Workload
    needs: int
    steps: int = 3
    warm_up: tuple[str, ...] = ("go",)
    profile: bool = False


def published(model: str, T: int, **how: Any) -> Workload:  # noqa: N803, the field's letter
    """Return a published model size in its usual setting: bfloat16, rank 64 by default, recomputation, 8 pictures."""
    how = {"K": 8, "N": 8, "lora": 64, "gradient_checkpointing": True, "dtype": "bfloat16", "picture": PICTURE, **how}
    return Workload(model, new_tokens=T, **how)


EQUAL = published("qwen2_5_vl_3b", 200, tower=False)
VARIED = published("qwen2_5_vl_3b", 512, tower=True, lengths="lognormal")
LARGE = published("qwen2_5_vl_7b", 200, tower=True, lengths="equal")
# Train all weights of the language model on a card of 80 GB. Float32 masters and moments fill it, so the tower is
# frozen and the reference is in host memory. TRL keeps neither for bfloat16 weights.
FULL = published("qwen2_5_vl_3b", 200, lora=0, tower=False, reference="host", micro_batch=32)
BRIEF = (f"go {SHORT}",)  # these systems are bound by Python, so a short step warms them up as well as a long one
PLAN = (
    Run("ours", EQUAL, 40, profile=True),
    Run("trl", EQUAL, 60, steps=2, warm_up=BRIEF),
    Run("ours", VARIED, 40, profile=True),
    Run("ours", LARGE, 40, profile=True),
    Run("trl", VARIED, 90, steps=1, warm_up=BRIEF),
    Run("trl", LARGE, 70, steps=1, warm_up=BRIEF),
    Run("ours_plain", EQUAL, 40),
    Run("ours", FULL, 50),
    Run("ours", replace(EQUAL, micro_batch=16), 35),  # the setting of the H200's row
    Run("ours", replace(LARGE, new_tokens=512, lengths="lognormal"), 50),
    Run("ours", replace(VARIED, K=4), 35),
    Run("ours", replace(VARIED, K=4, new_tokens=200), 30),
    Run("trl", FULL, 70, steps=1, warm_up=BRIEF),
    Run("ours_plain", VARIED, 40),
)


def settings_of(workload: Workload, system: str, memory_gb: float) -> PlanSettings:
    """Return the plan's settings of a run on a card with so much memory; every system here has fused attention."""
    settings = arithmetic.settings_of({**dataclasses.asdict(workload), "system": system})
    room = ROOM * memory_gb
    shape = arithmetic.shape(workload.model)
    if workload.lora and workload.trains_tower:  # the plan does not cover a trained tower with an adapter
        patches = workload.N * settings.plan.picture_tokens * shape.vision_per_token
        copies = 1 if system == "ours" else workload.K
        activations = cost.vision_activation_bytes(
            shape, copies * patches, 2, checkpointed=workload.gradient_checkpointing
        )
        room -= (16 * shape.vision_parameters + activations) / 1e9
    model = replace(settings.model, freeze_vision=not workload.trains_tower, reference=workload.reference)
    assumed = replace(settings.plan, memory_gb=room, fused_attention=True)
    return replace(settings, model=model, plan=assumed)


def fitting(workload: Workload, system: str, memory_gb: float) -> Workload:
    """Return the workload with the largest micro-batch that divides the step and fits the card by the plan."""
    if system != "ours":  # only ours can limit a pass by tokens
        workload = replace(workload, micro_batch_tokens=0)
    if workload.micro_batch or workload.micro_batch_tokens:
        return workload
    settings, shape = settings_of(workload, system, memory_gb), arithmetic.shape(workload.model)
    trained = trained_parameters(settings, shape)
    fits = largest_micro_batch(settings, shape, trained)
    sizes = [size for size in range(1, workload.rows + 1) if workload.rows % size == 0 and size <= max(fits, 1)]
    chosen = replace(workload, micro_batch=max(sizes))
    needed = peak(memory_per_gpu(settings, shape, trained, chosen.micro_batch)) / 1e9
    print(f"{system} {workload.name}: {chosen.micro_batch} completions a pass, {needed:.0f} GB by the plan", flush=True)
    return chosen


@dataclass
class Results:
    """Hold what has been measured so far, in two files that are rewritten after every step."""

    folder: Path
    name: str
    about: dict[str, Any]
    card: Card | None

    def __post_init__(self) -> None:
        self.rows = self._measured_before("", "rows")
        self.profiles = self._measured_before("_profile", "profiles")
        self.failed: list[dict[str, Any]] = []

    def _measured_before(self, kind: str, what: str) -> list[dict[str, Any]]:
        """Return the file's rows if they have the same code, device and versions."""
        path = self.folder / f"{self.name}{kind}.json"
        if not path.exists():
            return []
        before = json.loads(path.read_text())
        same = all(before[name] == value for name, value in self.about.items())
        if str(self.about.get("commit")).endswith("-dirty"):  # two changed copies of a commit need not be the same code
            return []
        return before[what] if same else []

    def take(self, run: Run, costs: list[dict[str, Any]], settings: dict[str, str]) -> None:
        """Store the run's row, replacing the one of its earlier steps."""
        row = row_of(run.workload, run.system, {run.system: costs})
        row["settings"] = settings
        if self.card is not None:
            row |= efficiency.of_row(row, arithmetic.shape(run.workload.model), self.card)
        self.rows = [one for one in self.rows if not of_run(one, run)] + [row]
        self.write()

    def profiled(self, run: Run, found: dict[str, Any]) -> None:
        """Store the run's profile, replacing an earlier one."""
        row = {"system": run.system, **dataclasses.asdict(run.workload), **found}
        self.profiles = [one for one in self.profiles if not of_run(one, run)] + [row]
        self.write()

    def write(self) -> None:
        """Write both files, with ratios over the rows of ours that there are now."""
        for row in self.rows:
            ours = next((one for one in self.rows if one["system"] == "ours" and same_work(one, row)), None)
            if ours is not None:
                row |= {f"{name}_over_ours": round(row[name] / max(ours[name], 1e-9), 3) for name in COMPARED}
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / f"{self.name}.json", {**self.about, "rows": self.rows, "failed": self.failed})
        write(self.folder / f"{self.name}_profile.json", {**self.about, "profiles": self.profiles})


def of_run(row: dict[str, Any], run: Run) -> bool:
    """Return whether the row belongs to that run."""
    return row["system"] == run.system and Workload.of(row) == run.workload


def write(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(value, indent=1) + "\n")
    beside.rename(path)


def same_work(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two rows have the same workload; each system chooses its own micro-batch."""
    first, second = (replace(Workload.of(row), micro_batch=0, micro_batch_tokens=0) for row in (one, other))
    return first == second


def measure(run: Run, player: Player, results: Results, settings: dict[str, str]) -> None:
    """Take all turns of the run; raises Ended if the process ends before."""
    player.ready()
    costs: list[dict[str, Any]] = []
    for number, turn in enumerate([*run.warm_up, *["go"] * run.steps]):
        took = player.step(turn)
        print(f"{run.system} {run.workload.name} {turn}: {took['step_s']:.2f} s", file=sys.stderr, flush=True)
        if number >= len(run.warm_up):
            costs.append(took)
            results.take(run, costs, settings)
    if run.profile:
        results.profiled(run, profile_of(player))


def profile_of(player: Player) -> dict[str, Any]:
    """Return the kernels of one decoded token and of one whole update.

    Two rollouts of PROFILED tokens differ only in the tokens between them: prompts, warm-up and capture cancel.
    """
    few, many = PROFILED
    short, long = (player.step(f"profile rollout {tokens}")["kernels"] for tokens in PROFILED)
    update = player.step("profile update")["kernels"]
    return {
        "decoded_token": summary(difference(long, short, many - few)),
        "update": summary(longest_first(update)),
    }


def attempt(run: Run, player: Player, results: Results, ends: float) -> bool:
    """Measure `run` with `player`, end the player, and return whether the run was completed."""
    timer = player.end_at(ends - time.monotonic())
    try:
        measure(run, player, results, player.build())
        return True
    except Ended as error:
        results.failed.append({"system": run.system, **dataclasses.asdict(run.workload), "reason": str(error)})
        results.write()
        print(error, file=sys.stderr, flush=True)
        return False
    finally:
        timer.cancel()
        player.end()


def attempts(run: Run, player: Player, results: Results, ends: float, work: Path) -> None:
    """Measure `run`; if it fails before a step counted, try once more with smaller passes, if there is time."""
    if attempt(run, player, results, ends) or any(of_run(row, run) for row in results.rows):
        return
    if ends - time.monotonic() > run.needs:
        sizes = {name: getattr(run.workload, name) for name in ("micro_batch", "micro_batch_tokens")}
        half = {name: -(-size // 2) for name, size in sizes.items()}
        again = replace(run, workload=replace(run.workload, **half))
        attempt(again, Player(run.system, again.workload, work, *OPTIONS.get(run.system, [])), results, ends)


def tiny(run: Run) -> Run:
    """Return the run at the size of a test."""
    cut = {"micro_batch": 2, "micro_batch_tokens": 500, "lora": 4}
    sizes = {name: small for name, small in cut.items() if getattr(run.workload, name)}
    sizes |= {"N": 2, "K": 2, "new_tokens": PROFILED[1] + 8}
    small = replace(run.workload, model="tiny", picture=(96, 96), dtype="float32", **sizes)
    return replace(run, workload=small, steps=1)


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table of the rows."""
    lines = [
        "| workload | system | n | step s | over ours | rollout | reference | update | decode ms / token | "
        "over floor | update MFU | a pass | GB that the update adds | peak GB |",
        "|" + "---|" * 14,
    ]
    for row in rows:
        numbers = [row[name] for name in ("step_s", "rollout_s", "reference_s", "update_s")]
        step, *phases = [f"{number:.2f}" for number in numbers]
        cells = [Workload.of(row).name, row["system"], str(row["n"]), step, _shown(row, "step_s_over_ours", 2), *phases]
        cells += [_shown(row, "decode_ms_per_token", 2), _shown(row, "decode_over_floor", 2)]
        cells += [_shown(row, "update_mfu", 3), _pass(row)]
        cells += [_shown(row, "update_rise_gb", 2), _shown(row, "peak_memory_gb", 1)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _pass(row: dict[str, Any]) -> str:
    """Return the size of one forward and backward pass in words."""
    return f"{row['micro_batch_tokens']} tokens" if row["micro_batch_tokens"] else f"{row['micro_batch']} outputs"


def _shown(row: dict[str, Any], name: str, digits: int) -> str:
    return f"{row[name]:.{digits}f}" if name in row else ""


def profile_table(profiles: list[dict[str, Any]]) -> str:
    """Return a Markdown table of the profiles."""
    lines = ["| workload | of | launches | ms | kernel | share | ms | launches |", "|" + "---|" * 8]
    for one in profiles:
        for part in ("decoded_token", "update"):
            whole = one[part]
            for kernel in whole["top"]:
                cells = [Workload.of(one).name, part.replace("_", " "), str(whole["launches"]), f"{whole['ms']:.2f}"]
                cells += [f"`{kernel['kernel'][:60]}`", f"{kernel['share']:.2f}", f"{kernel['ms']:.3f}"]
                lines.append(f"| {' | '.join([*cells, str(kernel['launches'])])} |")
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="at most so long, imports and weights included")
    parser.add_argument("--only", type=int, nargs="*", help="rows of the plan, by number")
    parser.add_argument("--list", action="store_true", help="show the plan")
    parser.add_argument("--tiny", action="store_true", help="at the size of a test")
    parser.add_argument("--peak-tflops", type=float, help="dense 16-bit peak of a card that model/cards.py lacks")
    parser.add_argument("--bandwidth-gb-s", type=float, help="its memory bandwidth")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "bench", help="configurations and pictures")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def device_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> tuple[str, float, Card | None]:
    """Return name, memory in GB and peaks of the GPU; "no card" and 16 GB without one, which only --tiny may have."""
    import torch

    cuda = torch.cuda.is_available()
    if not cuda and not arguments.tiny:
        parser.error("needs a CUDA device; --tiny tries the plan without one")
    name = torch.cuda.get_device_name() if cuda else "no card"
    memory_gb = torch.cuda.get_device_properties(0).total_memory / 1e9 if cuda else 16.0
    card = cards.card_of(name, arguments.peak_tflops, arguments.bandwidth_gb_s)
    if card is None and cuda:
        parser.error(f"{name}: unknown card; give --peak-tflops and --bandwidth-gb-s")
    return name, memory_gb, card


def measure_in_turn(runs: Sequence[Run], results: Results, ends: float, arguments: argparse.Namespace) -> None:
    """Measure the runs one after another; those that there is no time for are left out, but none with --tiny.

    While one measures, the processes of the next import: of three with a GPU, of one without.
    """
    import torch

    ahead = 3 if torch.cuda.is_available() else 1
    players: dict[int, Player] = {}
    for number, run in enumerate(runs):
        if ends - time.monotonic() < run.needs and not arguments.tiny:
            print(f"{run.system} {run.workload.name}: left out, time is over", file=sys.stderr, flush=True)
            if number in players:
                players.pop(number).end()
            continue
        for later, other in enumerate(runs[number : number + ahead + 1], number):
            if later not in players:
                players[later] = Player(other.system, other.workload, arguments.work)
        attempts(run, players.pop(number), results, ends, arguments.work)
    for player in players.values():
        player.end()


def main(given: Sequence[str] | None = None) -> None:
    began = time.monotonic()
    parser = make_parser()
    arguments = parser.parse_args(given)
    chosen = [PLAN[number] for number in arguments.only] if arguments.only else list(PLAN)
    if arguments.list:
        for number, run in enumerate(PLAN):
            print(f"{number:2} {run.system:>10} {run.workload.name}, {run.steps} steps")
        return
    name, memory_gb, card = device_of(parser, arguments)
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.tiny:
        chosen = [tiny(run) for run in chosen]
    chosen = [replace(run, workload=fitting(run.workload, run.system, memory_gb)) for run in chosen]
    known = cards.name_of(name) or name
    results = Results(arguments.out, "gpu_" + re.sub(r"\W+", "_", known.lower()), header("gpu"), card)
    measure_in_turn(chosen, results, began + 60 * arguments.minutes, arguments)
    print(table(results.rows), "", profile_table(results.profiles), sep="\n")
    for failure in results.failed:
        print(f"failed: {failure['reason']}")
    print(f"{arguments.out / results.name}.json, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
