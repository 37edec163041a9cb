"""Run a system in its own process from the parent's side, and make a row of results from its steps."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aes_r1.pipeline.origin import code_version
from benchmarks.player import MARK
from benchmarks.workload import Workload

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SYSTEMS = {
    "ours": ("benchmarks.ours", "fast"),
    "ours_plain": ("benchmarks.ours", "plain"),
    "trl": ("benchmarks.trl_step",),
}
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
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "liger-kernel", "triton")


class Ended(RuntimeError):
    """Raised when a system's process ends before it answers."""


class Player:
    """Run one system in its own process, which imports at once and builds its model when it is told to."""

    def __init__(self, system: str, workload: Workload, work: Path, *options: str) -> None:
        module, *rest = SYSTEMS[system]
        self.system = system
        self.log = (work / f"{system}_{workload.name}.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, workload.dump(), str(work), *rest, *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "HF_HUB_OFFLINE": "1"},
        )

    def build(self) -> dict[str, str]:
        """Tell the system to build its model once everything is imported; return its settings besides the workload."""
        settings = json.loads(self._answer("imported").removeprefix("imported"))
        self._tell("build")
        return settings

    def ready(self) -> None:
        """Block until the model is built and the process waits for its turn."""
        self._answer("ready")

    def step(self, turn: str = "go") -> dict[str, Any]:
        """Take one step; `turn` is a command of benchmarks.player. Raises Ended if the process ends during the step."""
        self._tell(turn)
        cost = json.loads(self._answer("{"))
        self.ready()
        return cost

    def _tell(self, what: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{what}\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise Ended(self.reason()) from error

    def _answer(self, kind: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = line.removeprefix(MARK).strip()
            if line.startswith(MARK) and answer.startswith(kind):
                return answer
        raise Ended(self.reason())

    def reason(self) -> str:
        """Return the last line of the process's log."""
        self.log.flush()
        said = [line for line in Path(self.log.name).read_text(errors="replace").splitlines() if line.strip()]
        last = said[-1][:300] if said else "no word"
        return f"{self.system} ended early ({last}); see {Path(self.log.name).name} in the --work folder"

    def end_at(self, seconds: float) -> threading.Timer:
        """Start and return a timer that kills the process after so many seconds unless it is cancelled."""
        timer = threading.Timer(max(seconds, 0.1), self.process.kill)
        timer.daemon = True
        timer.start()
        return timer

    def end(self) -> None:
        """Close the pipe; kill the process if it does not end then."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def row_of(workload: Workload, system: str, costs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return medians of the steps, and of the ratios to ours if present, pairing steps of the same number."""
    mine = costs[system]
    row: dict[str, Any] = {"system": system, **asdict(workload), "n": len(mine)}
    row["steps"] = [cost["turn"] for cost in mine]
    for name in [name for name in mine[0] if name not in ("kernels", "turn")]:
        row[name] = round(statistics.median(cost[name] for cost in mine), 4)
    row["tokens_per_s"] = round(statistics.median(cost["tokens"] / cost["step_s"] for cost in mine), 1)
    if "ours" in costs:
        for name in COMPARED:
            pairs = zip(mine, costs["ours"], strict=True)
            row[f"{name}_over_ours"] = round(statistics.median(a[name] / max(b[name], 1e-9) for a, b in pairs), 3)
    kept = [name for name in (*COMPARED, "decode_s") if name in mine[0]]
    row["runs"] = {name: [round(cost[name], 4) for cost in mine] for name in kept}
    return row


def header(suite: str) -> dict[str, Any]:
    import torch

    device = f"cuda:{torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"cpu:{_processor()}"
    versions = {"python": platform.python_version()}
    installed = {one.metadata["Name"] for one in importlib.metadata.distributions()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}
    return {
        "suite": suite,
        "commit": code_measured(),
        "device": device,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "versions": versions,
    }


def code_measured() -> str:
    """Return the commit, "-dirty" where what is measured was changed: the result files themselves do not count."""
    version = code_version(ROOT / "aes_r1")
    if not version.endswith("-dirty"):
        return version
    measured = ["aes_r1", "benchmarks", ":(exclude)benchmarks/results"]
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", *measured], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return version if changed.stdout.strip() else version.removesuffix("-dirty")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name} x{os.cpu_count()}"
