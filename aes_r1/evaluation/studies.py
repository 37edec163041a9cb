"""Runs of studies, read from their folders, and what a view of a study shows of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aes_r1.settings import InputError, differences
from aes_r1.tracking import headline

# What the view shows, section by section, for W&B and page alike; each name has a line in the glossary, and <dataset>
# stands for every set that a study's runs validated on.
SECTIONS = {
    "Agreement": ("eval/<dataset>/srcc", "eval/<dataset>/plcc", "eval/<dataset>/parse_failure_rate"),
    "Reward": ("reward/total", "reward/rank", "reward/error", "rollout/zero_spread_groups"),
    "Policy": ("policy/entropy", "policy/kl_k3", "policy/clip_low_fraction", "policy/clip_high_fraction"),
    "Cold start": ("sft/loss",),
    "Speed": ("perf/tokens_per_s", "time/step_s"),
}


def axis_of(name: str) -> str:
    """The W&B metric that `name` is drawn over: each stage counts its own steps."""
    return "sft/step" if name.startswith("sft/") else "rapo/step"


def read_studies(runs: Path) -> dict[str, list[dict[str, Any]]]:
    """{study: [{"name", "state", "settings", "metrics", "headline"}]} of runs/STUDY/HASH. InputError without any.

    state: done, failed with its reason, or not finished.
    """
    studies: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(runs.glob("*/*/settings.json")):
        run = path.parent
        evaluation, metrics = run / "evaluation.json", run / "metrics.jsonl"
        lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
        studies.setdefault(run.parent.name, []).append(
            {
                "name": run.name,
                "state": _state(run),
                "settings": json.loads(path.read_text()),
                "metrics": [json.loads(line) for line in lines],
                "headline": headline(json.loads(evaluation.read_text())) if evaluation.exists() else {},
            }
        )
    if not studies:
        raise InputError(f"runs={runs}: no run folder in it (runs/STUDY/HASH/settings.json)")
    return studies


def _state(run: Path) -> str:
    if (run / "stages" / "report.json").exists():
        return "done"
    failure = run / "failure.txt"
    return f"failed: {failure.read_text().strip()}" if failure.exists() else "not finished"


def varied(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted settings in which the runs of a study differ: the columns of its table and coordinates.

    A setting that follows from another (the weights of reward=rank from its name) is left out.
    """
    keys: dict[str, None] = {}
    for run in runs[1:]:
        keys |= dict.fromkeys(differences(runs[0]["settings"], run["settings"]))
    columns = {key: [str(setting(run["settings"], key)) for run in runs] for key in keys}
    return [
        key
        for key, mine in columns.items()
        if not any(_decides(other, mine) and not _decides(mine, other) for other in columns.values())
    ]


def _decides(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether every value of the first column always stands beside the same value of the second."""
    return len(set(zip(first, second, strict=True))) == len(set(first))


def shown(section: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Metric names of a section, one for every set that the runs validated on."""
    logged = sorted({name for run in runs for one in run["metrics"] for name in one})
    names = []
    for name in SECTIONS[section]:
        start, marked, end = name.partition("<dataset>")
        names += [one for one in logged if one.startswith(start) and one.endswith(end)] if marked else [name]
    return names


def setting(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
