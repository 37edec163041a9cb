"""Runs of studies, read from their folders, and what a view of a study shows of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aes_r1.runs.files import read_rows
from aes_r1.settings import InputError, differences
from aes_r1.tracking import headline

# What the view shows, section by section, for W&B and page alike; each name has a line in the glossary, and <dataset>
# stands for every set that a study's runs validated on.
SECTIONS = {
    "Agreement": ("eval/<dataset>/srcc", "eval/<dataset>/plcc", "eval/<dataset>/parse_failure_rate"),
    "Reward": ("reward/total", "reward/rank", "reward/error", "reward/binary", "reward/format"),
    "Answers": (
        *("rollout/parse_failure_rate", "rollout/truncated_rate", "rollout/length_mean"),
        "rollout/zero_spread_groups",
    ),
    "Policy": ("policy/entropy", "policy/kl_k3", "policy/clip_low_fraction", "policy/clip_high_fraction"),
    "Cold start": ("sft/loss", "sft/entropy", "sft/answered"),
    "Speed": ("perf/tokens_per_s", "time/step_s", "time/rollout_s", "time/reference_s", "time/update_s"),
}


def stage_of(name: str) -> str:
    """The stage whose curve of `name` is drawn; some names are logged by both."""
    return "sft" if name.startswith("sft/") else "rapo"


def axis_of(name: str) -> str:
    """The W&B metric that `name` is drawn over: each stage counts its own steps."""
    return f"{stage_of(name)}/step"


def read_studies(runs: Path) -> dict[str, list[dict[str, Any]]]:
    """{study: [{"name", "folder", "state", "settings", "metrics", "headline"}]} of runs/STUDY/HASH.

    state: done, failed with its reason, or not finished. InputError without any run, or for a file that is not JSON.
    """
    studies: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(runs.glob("*/*/settings.json")):
        run = path.parent
        evaluation = run / "evaluation.json"
        studies.setdefault(run.parent.name, []).append(
            {
                "name": run.name,
                "folder": run,
                "state": state_of(run),
                "settings": read_json(path),
                "metrics": _lines(run / "metrics.jsonl"),
                "headline": headline(read_json(evaluation)) if evaluation.exists() else {},
            }
        )
    if not studies:
        raise InputError(f"runs={runs}: no run folder in it (runs/STUDY/HASH/settings.json)")
    return studies


def read_json(path: Path) -> Any:
    """The content of a JSON file; InputError that names it where it is cut."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise _broken(path, error) from error


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return read_rows(path)
    except json.JSONDecodeError as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: json.JSONDecodeError) -> InputError:
    return InputError(f"{path}: no JSON ({error.msg}); write it again, or move it elsewhere")


def state_of(run: Path) -> str:
    """Done, failed with its reason, or not finished."""
    if (run / "stages" / "report.json").exists():
        return "done"
    failure = run / "failure.txt"
    return f"failed: {failure.read_text().strip()}" if failure.exists() else "not finished"


def varied(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted settings, but the seed, in which the runs of a study differ: what sets its conditions apart.

    A setting that follows from the choice of another (the weights of reward=rank from its name) is left out.
    """
    keys: dict[str, None] = {}
    for run in runs[1:]:
        keys |= dict.fromkeys(differences(runs[0]["settings"], run["settings"]))
    columns = {key: [setting(run["settings"], key) for run in runs] for key in sorted(keys) if key != "seed"}
    choices = [column for column in columns.values() if all(isinstance(value, str) for value in column)]
    return [
        key
        for key, mine in columns.items()
        if not any(_decides(choice, mine) and not _decides(mine, choice) for choice in choices)
    ]


def _decides(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether every value of the first column always stands beside the same value of the second."""
    return len(set(zip(map(str, first), map(str, second), strict=True))) == len(set(map(str, first)))


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


def analysis(study: str, analyses: Path) -> str:
    """What a study's analyse.py wrote, the paper's values beside ours, as Markdown; or where it should be."""
    written = analyses / study / "results" / "table.md"
    if written.exists():
        return written.read_text(encoding="utf-8")
    return f"No analysis at {written}: run the study's analyse.py, or give analyses=DIR of another folder."
