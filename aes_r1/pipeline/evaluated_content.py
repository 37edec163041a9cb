"""Note in an evaluation's folder which weights and labels it is about, and refuse others under the same names.

The settings name a model by its path, where a training that goes on leaves other weights. RUN/stages/content.json holds
the digests of what lay there at the first start; label_digests does the same for labels.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

from aes_r1.inference.asking import AskingConfig, find_model
from aes_r1.pipeline.label_digests import Listed, claim_lists, hash_of, require_same_lists
from aes_r1.pipeline.origin import content_name
from aes_r1.runs.folder import RunFolder, is_model, model_in
from aes_r1.settings import DataSettings, EvaluateSettings, InputError, place

log = logging.getLogger("aes_r1")

_NOTE = "content"
_ANEW = "give another out="
Digests = Mapping[str, Mapping[str, str | None]]  # {what is compared: {name of a model: digest}}


def asked_models(settings: EvaluateSettings) -> dict[str, str]:
    """Return {name: path} of the models, the main one last; it may be missing beside baselines."""
    path = settings.model.path
    return {**settings.models, **({} if path is None else {settings.name: path})}


def asked_sets(settings: EvaluateSettings) -> list[DataSettings]:
    """Return the sets that models and baselines are asked about."""
    return [settings.data, *settings.evaluation.also]


def claim_content(run: RunFolder, settings: EvaluateSettings) -> None:
    """Note the digests of models and lists, or raise InputError for one that is not as it was noted.

    A folder that was begun before digests were noted goes on with a warning, and is compared from then on.
    """
    noted = run.stage_values(_NOTE)
    current = _require_same_models(run, settings)
    is_begun = run.all_parts.exists() or run.predictions_file.exists() or run.all_baselines.exists()
    if noted.keys().isdisjoint(current) and is_begun:
        log.warning(
            "%s holds answers from before digests of weights and labels were noted, so whether %s are still the same "
            "is not known; give another out= where they may have changed",
            *(run, ", ".join([*asked_models(settings).values(), *_lists(settings)])),
        )
    claim_lists(run, _lists(settings), seed=settings.seed, store=Path(settings.store), way_out=_ANEW)
    digests_to_keep = {
        kind: {name: noted.get(kind, {}).get(name) or digest for name, digest in digests.items()}
        for kind, digests in current.items()
    }
    if (values := {**noted, **digests_to_keep}) != noted:
        run.finish_stage(_NOTE, values)


def require_same_content(run: RunFolder, settings: EvaluateSettings) -> None:
    """Raise InputError for a model or a list that is not as it was noted.

    What cannot be read any more, because it was moved away after it had answered, is not compared.
    """
    _require_same_models(run, settings)
    require_same_lists(run, _lists(settings), seed=settings.seed, store=Path(settings.store), way_out=_ANEW)


def _require_same_models(run: RunFolder, settings: EvaluateSettings) -> Digests:
    """Return the digests of models as they are now; InputError for one that is not as it was noted."""
    noted, models = run.stage_values(_NOTE), asked_models(settings)
    by_model = {name: _model_digests(path, Path(settings.store)) for name, path in models.items()}
    current = {kind: {name: digests.get(kind) for name, digests in by_model.items()} for kind in ("weights", "asking")}
    for kind, digests in current.items():
        for name, digest in digests.items():
            if None not in (digest, before := noted.get(kind, {}).get(name)) and digest != before:
                raise InputError(f"{run}: {models[name]} is no longer the model that answered as {name}; {_ANEW}")
    return current


def _lists(settings: EvaluateSettings) -> dict[str, Listed]:
    """Return {name: a set and its split} of all lists of pictures, of which baselines are fitted on one."""
    lists = {f"{data.name}-{data.split}": Listed(data, data.split) for data in asked_sets(settings)}
    is_fitted = bool(set(settings.baselines) - {"people"})
    return {**lists, **({f"{settings.data.name}-train": Listed(settings.data, "train")} if is_fitted else {})}


def _model_digests(path: str, store: Path) -> dict[str, str | None]:
    """Return the content of the model at `path` and how it is asked; a hub name's commit names both.

    Half-widths and other facts that bear on no answer do not count.
    """
    folder = model_in(place(path, "model.path"))
    if not folder.is_dir():
        return {"weights": content_name(path, store)}
    weights = content_name(str(folder), store)
    if not is_model(folder):
        return {"weights": weights}
    _, profile = find_model(folder)
    asking = {field.name: getattr(profile, field.name) for field in dataclasses.fields(AskingConfig)}
    return {"weights": weights, "asking": hash_of([asking])}
