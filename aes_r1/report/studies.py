"""Read the runs of studies from their folders, and choose what a view of a study shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aes_r1.runs.folder import RunFolder, runs_below
from aes_r1.runs.identity import differences
from aes_r1.settings import InputError
from aes_r1.tracking.headline import headline, headline_set

# The curves of a view by section, for W&B and page alike; each name has a line in the glossary, and <dataset> stands
# for every set that a study's runs validated on.
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
    """Return the stage whose curve of `name` is drawn; some names are logged by both."""
    return "sft" if name.startswith("sft/") else "rapo"


def axis_of(name: str) -> str:
    """Return the W&B metric that `name` is drawn over: each stage counts its own steps."""
    return f"{stage_of(name)}/step"


def read_studies(runs: Path) -> dict[str, list[dict[str, Any]]]:
    """Read {study: [{"name", "folder", "state", "settings", "metrics", "headline", "set"}]} from runs/STUDY/HASH.

    state: done, failed with its reason, or not finished. set: what the headline was measured on (headline_set).
    InputError without any run, or for a file that is not JSON.
    """
    studies: dict[str, list[dict[str, Any]]] = {}
    for run in runs_below(runs, "*/*"):
        studies.setdefault(run.path.parent.name, []).append(
            {
                "name": run.path.name,
                "folder": run,
                "state": run.state,
                "settings": run.settings,
                "metrics": run.metrics(),
                "headline": headline(run.evaluation, run.last_stage),
                "set": headline_set(run.evaluation, run.last_stage),
            }
        )
    if not studies:
        expected = RunFolder("runs/STUDY/HASH").settings_file
        raise InputError(f"runs={runs}: no run folder in it ({expected})")
    return studies


def varied(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the dotted settings, except the seed, in which the runs of a study differ: they define its conditions.

    A setting that is implied by another (the weights of reward=rank by its name) is left out.
    """
    keys: dict[str, None] = {}
    for run in runs[1:]:
        keys |= dict.fromkeys(differences(runs[0]["settings"], run["settings"]))
    columns = {key: [setting(run["settings"], key) for run in runs] for key in sorted(keys) if key != "seed"}
    choices = [column for column in columns.values() if all(isinstance(value, str) for value in column)]
    return [
        key
        for key, column in columns.items()
        if not any(_decides(choice, column) and not _decides(column, choice) for choice in choices)
    ]


def label(settings: Mapping[str, Any], keys: Sequence[str], differing: Sequence[str] | None = None) -> str:
    """Return the value of the one setting that differs, or the settings `keys` by their names.

    differing: all settings in which the runs differ, among which a short name has to be clear; by default `keys`.
    """
    differing = keys if differing is None else differing
    values = [value_text(setting(settings, key)) for key in keys]
    if len(differing) < 2:
        return "".join(values) or "all"
    return ", ".join(f"{short_name(key, differing)}={value}" for key, value in zip(keys, values, strict=True))


def short_name(key: str, keys: Sequence[str]) -> str:
    """Return the last part of a dotted key where that is clear among `keys`; of group.name, the group."""
    last = key.rsplit(".", 1)[-1]
    if last == "name" and "." in key:
        return key.rsplit(".", 2)[-2]
    is_unique = [other.rsplit(".", 1)[-1] for other in keys].count(last) == 1
    return last if is_unique and last not in ("weight", "epochs", "limit", "root", "path", "lr") else key


_MEASURING = ("evaluation", "judge")  # groups of settings that change how a run is measured, not what it computes
_COUNTING = ("evaluation.limit",)  # those of them that decide on how many pictures, which are named all the same


_ALL_NAMED = 3  # settings that differ; where more do, a name leaves out what most runs have in common


def _is_common(settings: Mapping[str, Any], key: str, runs: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether more than half of the runs have this one's value of `key`."""
    value = setting(settings, key)
    return 2 * sum(setting(other, key) == value for other in runs) > len(runs)


def run_names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name runs by the settings in which they differ, and by their seed. `runs` are the settings of each.

    The settings of the measurement are named if they change the number of pictures, or if nothing else tells two runs
    apart. Two runs of the same settings, say the same run in two folders, are numbered.
    """
    seeds = {settings.get("seed") for settings in runs}
    names_of_runs: list[list[str]] = []
    for settings, condition in zip(runs, condition_names(runs), strict=True):
        seed = [f"seed {settings['seed']}"] if "seed" in settings and (len(seeds) > 1 or not condition) else []
        names_of_runs.append([*filter(None, [condition]), *seed])
    return numbered([name or "run" for name in with_measuring(runs, [", ".join(parts) for parts in names_of_runs])])


def with_measuring(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Append the settings of the measurement to the names of `runs` that need them.

    They are needed if they change the number of pictures, or if runs of the same name differ in nothing else.
    """
    differing, keys = _differing(runs)
    also = [key for key in _COUNTING if key not in keys and len({str(setting(run, key)) for run in runs}) > 1]
    complete = []
    for settings, name in zip(runs, names, strict=True):
        twins = [{"settings": other} for other, other_name in zip(runs, names, strict=True) if other_name == name]
        keys_to_name = [*also, *(key for key in varied(twins) if key not in (*keys, *also))]
        measured = [f"{short_name(key, differing)}={value_text(setting(settings, key))}" for key in keys_to_name]
        complete.append(", ".join([*filter(None, [name]), *measured]))
    return complete


def condition_names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the condition of each run by the settings, other than the seed, in which `runs` differ; "" without any.

    Where runs differ in more than _ALL_NAMED settings, as unlike runs in one folder do, a name has those of the run's
    own that most others do not share.
    """
    _, keys = _differing(runs)
    if len(keys) == 1:
        return [f"{short_name(keys[0], keys)}={label(settings, keys)}" for settings in runs]
    names = []
    for settings in runs:
        own_keys = keys
        if len(keys) > _ALL_NAMED:
            own_keys = [key for key in keys if not _is_common(settings, key, runs)]
        without_own = "settings of most" if keys else ""
        names.append(label(settings, own_keys, keys) if own_keys else without_own)
    return names


def _differing(runs: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the keys, other than the seed, in which `runs` differ, and those of them that name a condition."""
    differing = varied([{"settings": settings} for settings in runs])
    return differing, [key for key in differing if key.partition(".")[0] not in _MEASURING] or differing


def numbered(names: Sequence[str]) -> list[str]:
    """Return the names, each that occurs again with its number: "a (1)", "a (2)"."""
    counts = {name: names.count(name) for name in names}
    return [
        f"{name} ({names[: index + 1].count(name)})" if counts[name] > 1 else name for index, name in enumerate(names)
    ]


def value_text(value: Any) -> str:
    """Return a setting's value in short, as the command line writes it; settings that have a name are named by it."""
    if isinstance(value, Mapping):
        pairs = [f"{key}: {value_text(part)}" for key, part in value.items()]
        return str(value["name"]) if value.get("name") else f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _decides(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Return whether every value of the first column always stands beside the same value of the second."""
    return len(set(zip(map(str, first), map(str, second), strict=True))) == len(set(map(str, first)))


def shown(section: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metric names of a section, one for every set that the runs validated on."""
    logged = sorted({name for run in runs for row in run["metrics"] for name in row})
    names = []
    for name in SECTIONS[section]:
        start, placeholder, end = name.partition("<dataset>")
        names += (
            [metric for metric in logged if metric.startswith(start) and metric.endswith(end)]
            if placeholder
            else [name]
        )
    return names


def setting(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value of the dotted `key`; None where the settings have no such key."""
    value: Any = settings
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def analysis(study: str, analyses: Path) -> str:
    """Return what a study's analyse.py wrote, with the paper's values, as Markdown; or where it should be."""
    table = analyses / study / "results" / "table.md"
    if table.exists():
        return table.read_text(encoding="utf-8")
    if not (analyses / study).is_dir():
        return f"No analysis: there is no study at {analyses / study}; give analyses=DIR of another folder."
    return f"No analysis at {table}: run the study's analyse.py, or give analyses=DIR of another folder."
