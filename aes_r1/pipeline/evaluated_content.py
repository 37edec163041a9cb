"""Record the content of the weights and labels of an evaluation, and refuse other content under the same names.

The settings name models and sets by paths, but training may go on to change the weights there, and a user may edit the
labels. RUN/stages/content.json holds digests of the content at the first start.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from aes_r1.data.loader import load_samples
from aes_r1.data.sample import Sample
from aes_r1.data.scene_sets import SCENE_SETS
from aes_r1.inference.asking import Asking, find_model
from aes_r1.pipeline.origin import content_name
from aes_r1.runs.folder import RunFolder, is_model, model_in
from aes_r1.settings import DataSettings, EvaluateSettings, InputError, place

log = logging.getLogger("aes_r1")

_NOTE = "content"
Digests = Mapping[str, Mapping[str, str | None]]  # {what is compared: {name of a model or a list: digest}}


def asked_models(settings: EvaluateSettings) -> dict[str, str]:
    """Return {name: path} of the models, the main one last; with baselines it may be missing."""
    path = settings.model.path
    return {**settings.models, **({} if path is None else {settings.name: path})}


def asked_sets(settings: EvaluateSettings) -> list[DataSettings]:
    """Return the sets that models and baselines are asked about."""
    return [settings.data, *settings.evaluation.also]


def claim_content(run: RunFolder, settings: EvaluateSettings) -> None:
    """Record the digests of models and lists; InputError if one differs from the recorded digest.

    A folder without recorded digests continues with a warning, and is compared from then on.
    """
    noted = run.stage_values(_NOTE)
    found = require_same_content(run, settings)
    is_begun = run.all_parts.exists() or run.predictions_file.exists() or run.all_baselines.exists()
    if noted.keys().isdisjoint(found) and is_begun:
        log.warning(
            "%s holds answers from before digests of weights and labels were noted, so whether %s are still the same "
            "is not known; give another out= where they may have changed",
            *(run, ", ".join([*asked_models(settings).values(), *_lists(settings)])),
        )
    kept = {
        kind: {name: noted.get(kind, {}).get(name) or digest for name, digest in digests.items()}
        for kind, digests in found.items()
    }
    if kept != noted:
        run.finish_stage(_NOTE, kept)


def require_same_content(run: RunFolder, settings: EvaluateSettings) -> Digests:
    """Return the current digests of models and lists; InputError if one differs from the recorded digest.

    Content that can no longer be read, because it was moved away after its answers were written, is not compared.
    """
    noted, store = run.stage_values(_NOTE), Path(settings.store)
    models, lists = asked_models(settings), _lists(settings)
    by_model = {name: _model_digests(path, store) for name, path in models.items()}
    by_list = {name: _list_digests(data, split, settings.seed, store) for name, (data, split) in lists.items()}
    found = {
        **{kind: {name: digests.get(kind) for name, digests in by_model.items()} for kind in ("weights", "asking")},
        **{kind: {name: digests.get(kind) for name, digests in by_list.items()} for kind in ("opinions", "pictures")},
    }
    others = {
        name
        for kind, digests in found.items()
        for name, digest in digests.items()
        if None not in (digest, before := noted.get(kind, {}).get(name)) and digest != before
    }
    for name, path in models.items():
        if name in others:
            raise InputError(f"{run}: {path} is no longer the model that answered as {name}; give another out=")
    for name, (data, _) in lists.items():
        if name in others:
            differs = "now lists other pictures or opinions than those that were asked about"
            raise InputError(f"{run}: {name} (data.root={data.root}) {differs}; give another out=")
    return found


def _lists(settings: EvaluateSettings) -> dict[str, tuple[DataSettings, str]]:
    """Return {name: a set and its split} of all lists of pictures, of which baselines are fitted on one."""
    lists = {f"{data.name}-{data.split}": (data, data.split) for data in asked_sets(settings)}
    is_fitted = bool(set(settings.baselines) - {"people"})
    return {**lists, **({f"{settings.data.name}-train": (settings.data, "train")} if is_fitted else {})}


def _model_digests(path: str, store: Path) -> dict[str, str | None]:
    """Return digests of the model at `path` and of its settings for asking; a hub name's commit stands for both.

    Half-widths and other facts that affect no answer are left out.
    """
    folder = model_in(place(path, "model.path"))
    if not folder.is_dir():
        return {"weights": content_name(path, store)}
    weights = content_name(str(folder), store)
    if not is_model(folder):
        return {"weights": weights}
    _, facts = find_model(folder)
    asking = {field.name: getattr(facts, field.name) for field in dataclasses.fields(Asking)}
    return {"weights": weights, "asking": _hash([asking])}


def _list_digests(data: DataSettings, split: str, seed: int, store: Path) -> dict[str, str | None]:
    """Hash a split as its labels list it now; {} where it cannot be listed. Scenes are the same at every drawing."""
    if data.name in SCENE_SETS:
        return {}
    try:
        return _digests_of(load_samples(data, split, seed=seed, store=store))
    except InputError as error:
        log.info("%s; its list is not compared with an earlier one", error)
        return {}


def _digests_of(samples: Iterable[Sample]) -> dict[str, str | None]:
    """Hash the opinions of pictures, and the bytes of these where all digests are known.

    Folder and further columns are left out, because a list that is prepared again may have more columns.
    """
    opinions, pictures = [], []
    for one in samples:
        opinions.append([one.dataset, one.id, one.mos, one.mos_std, one.n_raters])
        pictures.append([one.dataset, one.id, one.sha256])
    are_known = all(sha256 is not None for *_, sha256 in pictures)
    return {"opinions": _hash(opinions), "pictures": _hash(pictures) if are_known else None}


def _hash(rows: Iterable[object]) -> str:
    """Hash rows independently of their order."""
    return hashlib.sha256("\n".join(sorted(json.dumps(row, sort_keys=True) for row in rows)).encode()).hexdigest()
