"""Find out on which data sets a model was trained, from its run and from the runs that made its initial model."""

from __future__ import annotations

from pathlib import Path

from aes_r1.data.manifest import read_run_manifest
from aes_r1.inference.asking import PROFILE_FILE
from aes_r1.runs.files import read_rows
from aes_r1.runs.folder import RunFolder, model_in, run_of
from aes_r1.settings import place

_SEVERAL = (None, "manifest", "aescot", "folder")  # values of data.name that may stand for several sets


def sets_seen(model: str, later: frozenset[Path] = frozenset()) -> set[str] | None:
    """Return the sets on which the model in the folder `model` was trained; None if they cannot be known.

    They cannot be known for a model without its run, such as an exported one. `later`: the runs that started from this
    model. None of them can have made it; if its folder holds one of them, another run has taken the folder.
    """
    run = run_of(model_in(place(model, "model.path")))
    if run is None or run.path.resolve() in later:
        return None
    data, before = run.settings.get("data", {}), sets_seen_before(run, later)
    if before is None or (not data.get("mix") and data.get("name") in _SEVERAL):
        return None
    return before | set(data.get("mix") or [data["name"]])


def sets_seen_before(run: RunFolder, later: frozenset[Path] = frozenset()) -> set[str] | None:
    """Return the sets that `run` trained on besides its own pictures; None where they cannot be known.

    These are the sets of its initial model, and the sets whose pictures the critiques of its cold start describe. A
    base model that no run made has none, because its pretraining does not count.
    """
    settings, later = run.settings, later | {run.path.resolve()}
    trainer, cold_start = settings.get("trainer", {}), settings.get("cold_start", {})
    init_from = trainer.get("init_from", "cold_start")
    if trainer.get("name") != "sft" and init_from not in ("base", "cold_start"):
        return sets_seen(init_from, later)
    seen = _seen_by_base(settings.get("model", {}).get("path"), later)
    is_taught = cold_start.get("epochs") != 0 and (init_from == "cold_start" or trainer.get("name") == "sft")
    if is_taught and cold_start.get("data"):
        taught = _sets_of_critiques(run)
        return None if seen is None or taught is None else seen | taught
    return seen


def _seen_by_base(path: str | None, later: frozenset[Path]) -> set[str] | None:
    folder = model_in(place(path or "", "model.path"))
    if path is None or not folder.is_dir():
        return set()
    if run_of(folder) is not None:
        return sets_seen(path, later)
    return None if (folder / PROFILE_FILE).exists() else set()  # an exported model's run is not known


def _sets_of_critiques(run: RunFolder) -> set[str] | None:
    """Return the sets of the pictures that the given critiques of the cold start describe.

    A record without the name of a set gets the set of its picture in the training list. Returns None if a set stays
    unknown.
    """
    lists = sorted(run.manifests.glob("critiques-*.jsonl"))
    records = [row for path in lists for row in read_rows(path)]
    if not records:
        return None
    datasets = {row["dataset"] for row in records if row.get("dataset")}
    images_without_dataset = {row["image"] for row in records if not row.get("dataset")}
    of_image = _sets_of_training_pictures(run) if images_without_dataset else {}
    if not images_without_dataset <= of_image.keys():
        return None
    return datasets | {of_image[image] for image in images_without_dataset}


def _sets_of_training_pictures(run: RunFolder) -> dict[str, str]:
    path = run.manifest(f"{run.settings['data']['name']}-train")
    return {sample.image: sample.dataset for sample in read_run_manifest(path)} if path.exists() else {}
