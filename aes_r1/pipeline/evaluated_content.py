"""Note in an evaluation's folder which weights and labels it is about, and refuse others under the same names.

The settings name a model and a set by their paths, where a training that goes on leaves other weights, and an edit
other labels. RUN/stages/content.json holds the digests of what lay there at the first start.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from aes_r1.data.loader import load_samples
from aes_r1.data.sample import Sample
from aes_r1.data.scene_sets import SCENE_SETS
from aes_r1.inference.asking import FACTS_FILE
from aes_r1.pipeline.origin import content_name
from aes_r1.runs.files import sha256_of
from aes_r1.runs.folder import RunFolder, model_in
from aes_r1.settings import DataSettings, InputError, place

log = logging.getLogger("aes_r1")

_NOTE = "content"
Lists = Mapping[str, tuple[DataSettings, str]]  # {name: a set and the split of it that is listed}


def claim_content(run: RunFolder, models: Mapping[str, str], lists: Lists, *, seed: int, store: Path) -> None:
    """Note the digests of `models` {name: path} and `lists`, or raise InputError for one that is not as it was noted.

    What cannot be read any more, because it was moved away after it had answered, is not compared. A folder that was
    begun before digests were noted goes on with a warning, and is compared from then on.
    """
    noted = run.stage_values(_NOTE)
    is_begun = run.all_parts.exists() or run.predictions_file.exists() or run.all_baselines.exists()
    if not noted and is_begun:
        log.warning(
            "%s holds answers from before digests of weights and labels were noted, so whether %s are still the same "
            "is not known; give another out= where they may have changed",
            *(run, ", ".join([*models.values(), *lists])),
        )
    found = {
        "models": {name: _model_digest(path, store) for name, path in models.items()},
        "lists": {name: _labels_digest(data, split, seed, store) for name, (data, split) in lists.items()},
    }
    before = {kind: {**dict.fromkeys(digests), **noted.get(kind, {})} for kind, digests in found.items()}
    for name, path in models.items():
        if _is_other(before["models"][name], found["models"][name]):
            raise InputError(f"{run}: {path} is no longer the model that answered as {name}; give another out=")
    for name, (data, _) in lists.items():
        if _is_other(before["lists"][name], found["lists"][name]):
            differs = "now lists other pictures or opinions than those that were asked about"
            raise InputError(f"{run}: {name} (data.root={data.root}) {differs}; give another out=")
    kept = {kind: {name: before[kind][name] or digest for name, digest in found[kind].items()} for kind in found}
    if kept != noted:
        run.finish_stage(_NOTE, kept)


def _is_other(before: str | None, now: str | None) -> bool:
    return None not in (before, now) and before != now


def _model_digest(path: str, store: Path) -> str | None:
    """Name the content of the model at `path`, and of the file that says how it is asked; None where there is none."""
    folder = model_in(place(path, "model.path"))
    content = content_name(str(folder) if folder.is_dir() else path, store)
    facts = folder / FACTS_FILE
    return f"{content} {sha256_of(facts)}" if content and facts.exists() else content


def _labels_digest(data: DataSettings, split: str, seed: int, store: Path) -> str | None:
    """Hash a split as its labels list it now; None where it cannot be listed. Scenes are the same at every drawing."""
    if data.name in SCENE_SETS:
        return None
    try:
        return _list_digest(load_samples(data, split, seed=seed, store=store))
    except InputError as error:
        log.info("%s; its list is not compared with an earlier one", error)
        return None


def _list_digest(samples: Iterable[Sample]) -> str:
    """Hash names, opinions and further columns of the pictures; the folder that they lie in does not count."""
    facts = ([one.dataset, one.id, one.mos, one.mos_std, one.n_raters, one.sha256, one.attributes] for one in samples)
    return hashlib.sha256("\n".join(sorted(json.dumps(row, sort_keys=True) for row in facts)).encode()).hexdigest()
