"""Compute the baselines of an evaluation: regressions fitted on the training pictures of its set, and people.

mean         the mean opinion of the training pictures
handmade     boosted trees on hand-made measures (inference/handmade.py)
eyes         ridge regression on the model's own vision tower (inference/eyes.py)
pretrained   ridge regression on a small ImageNet network (inference/pretrained.py)
people       how far people agree: another group of them, or one half of the raters against the other, from their votes
             or standard deviation and number (inference/people.py)
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aes_r1.data.loader import load_samples
from aes_r1.data.manifest import read_run_manifest
from aes_r1.data.sample import Sample
from aes_r1.data.scene_sets import SCENE_SETS
from aes_r1.inference.eyes import eyes_features
from aes_r1.inference.fitted import (
    Limits,
    Look,
    Scores,
    features_of,
    fit_mean,
    fit_ridge,
    fit_trees,
    number_rows,
    require_enough,
    to_fit_on,
)
from aes_r1.inference.handmade import handmade
from aes_r1.inference.people import FEWEST_RATERS, has_rater_agreement, rater_agreement
from aes_r1.inference.predictions import Sets
from aes_r1.inference.pretrained import pretrained_features, pretrained_network, require_pretrained
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline.data_stage import list_pictures
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.log import quiet
from aes_r1.runs.progress import progress_bars
from aes_r1.settings import BASELINES, DataSettings, InputError

log = logging.getLogger("aes_r1")

See = Callable[[Sequence[Sample], Callable[[int], object]], np.ndarray]  # samples, progress(done) to features [n, F]


class Fitted(NamedTuple):
    """Hold the pictures that the regressions are fitted on, and how many were left out as copies of tested ones."""

    pictures: Sequence[Sample]
    copies: int


def answer_baselines(
    run: RunFolder,
    names: Sequence[str],
    *,
    data: DataSettings,
    fitted: Fitted | None,
    sets: Sets,
    seed: int,
    backbone: Callable[[], Backbone],
) -> None:
    """Write the rows of each baseline about every set of `sets` to the run's folder; existing rows are kept.

    data, fitted: the set whose train split the regressions are fitted on, and what `training_pictures` returned.
    """
    for name in names:
        if run.stage_done(_mark(name)):
            if name != "people" and "mos_std" not in next(iter(run.baseline(name)), {"mos_std": None}):
                log.info("%s: its rows lack the spread of opinions, so no distance from them is measured", name)
            continue
        if name == "people":
            rows, facts = _people(sets, seed)
        else:
            assert fitted is not None
            rows, facts = _fitted(name, *fitted, sets, seed, backbone)
            datasets = {sample.dataset for sample in fitted.pictures}  # several in a mix
            fitted_on = f"{data.name if len(datasets) > 1 else datasets.pop()}/train"
            facts = {tested: {"fitted_on": fitted_on, **fact} for tested, fact in facts.items()}
        run.write_baseline(name, rows)
        run.finish_stage(_mark(name), {"sets": facts})


def training_pictures(
    run: RunFolder,
    names: Sequence[str],
    *,
    data: DataSettings,
    sets: Sets,
    pictures: int | None,
    seed: int,
    store: Path,
) -> Fitted | None:
    """Return the pictures on which regressions without rows are to be fitted; None if all have rows.

    It is the train split of `data`, at most `pictures` of it, without those that are in a test list. Raises InputError
    if too few can be read or, for people, if no set shows how far they agree. Call it before a model is asked, so that
    such an error comes early.
    """
    names = [name for name in names if not run.stage_done(_mark(name))]
    if "people" in names:
        _require_opinions(sets.values())
    if not set(names) - {"people"}:
        return None
    path = run.manifest(f"{data.name}-fitted")
    list_pictures(path, _limited(data, pictures), "train", seed=seed, store=store)
    return Fitted(*to_fit_on(read_run_manifest(path), list(sets.values()), _limits(data, pictures)))


def baseline_facts(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return {baseline: {DATASET/SPLIT: how it was made}} for the baselines with rows, in their order."""
    answered = sorted(run.baselines, key=BASELINES.index)
    return {name: run.stage_values(_mark(name)).get("sets", {}) for name in answered}


def check_baselines(
    run: RunFolder,
    names: Sequence[str],
    tested: Sequence[DataSettings],
    data: DataSettings,
    *,
    pictures: int | None,
    seed: int,
    store: Path,
) -> None:
    """Raise InputError for a baseline that cannot be computed for these sets, judging by their labels.

    No picture is opened, and no scene is drawn. A regression needs at least FEWEST pictures that it is not measured on;
    people need single opinions or their spread, which synthetic scenes have. Baselines with rows are not checked. The
    caller must make sure that the folder of `run` holds no other evaluation, because its lists are read.
    """
    train_split = (data.name, data.root, "train")
    is_tested = train_split in [(test_set.name, test_set.root, test_set.split) for test_set in tested]
    if is_tested and set(names) - {"people"}:
        raise InputError(
            f"baselines={list(names)}: they are fitted on the train split of data={data.name}, so they cannot be "
            "measured on it; give another split, or baselines=[people]"
        )
    names = [name for name in names if not run.stage_done(_mark(name))]
    if "pretrained" in names:
        require_pretrained()
    if "people" in names and not any(test_set.name in SCENE_SETS for test_set in tested):
        lists = ((run.manifest(f"{test_set.name}-{test_set.split}"), test_set) for test_set in tested)
        _require_opinions(_listed(path, test_set, test_set.split, seed, store) for path, test_set in lists)
    if set(names) - {"people"} and data.name not in SCENE_SETS:
        train = _listed(run.manifest(f"{data.name}-fitted"), _limited(data, pictures), "train", seed, store)
        rated = sum(sample.mos is not None for sample in train)
        require_enough(rated, "have an opinion", listed=len(train), limits=_limits(data, pictures))


def _listed(path: Path, data: DataSettings, split: str, seed: int, store: Path) -> Sequence[Sample]:
    """Return the pictures of the list `path` or, if it is not written yet, those of the set's labels."""
    if path.exists():
        return read_run_manifest(path)
    with quiet():
        return load_samples(data, split, seed=seed, store=store)


def _limited(data: DataSettings, pictures: int | None) -> DataSettings:
    limits = [limit for limit in _limits(data, pictures).values() if limit is not None]
    return dataclasses.replace(data, limit=min(limits, default=None))


def _limits(data: DataSettings, pictures: int | None) -> Limits:
    return {"data.limit": data.limit, "baseline_pictures": pictures}


def _require_opinions(lists: Iterable[Sequence[Sample]]) -> None:
    """Raise InputError where none of the sets in `lists` publishes opinions that show how far people agree."""
    without = []
    for samples in lists:
        if has_rater_agreement(samples):
            return
        without.append(samples)
    raise InputError(
        f"baselines=[people]: {', '.join(_names(without))} publish no votes of single people, nor the standard "
        f"deviation of {FEWEST_RATERS} raters or more and their number; leave people out, or add a set that does: "
        "sophoappeal, para, ava, flickr_aes, or your own with count_1, .. or mos_std and n_raters in labels.csv"
    )


def _names(lists: Iterable[Sequence[Sample]]) -> list[str]:
    """Return DATASET/SPLIT of each set in `lists`; a list may hold several sets."""
    return list(dict.fromkeys(sample.dataset_split for sample in chain.from_iterable(lists)))


def _fitted(
    name: str, train: Sequence[Sample], copies: int, sets: Sets, seed: int, backbone: Callable[[], Backbone]
) -> tuple[list[dict], dict[str, Any]]:
    """Fit the baseline `name` on `train` and return its rows about `sets`, and how many pictures it was fitted on."""
    see, fit = _reader(name, seed, backbone)
    opinions = np.asarray([sample.mos for sample in train], dtype=np.float64)
    with progress_bars() as bar:
        update = partial(bar(f"{name}: training pictures"), total=len(train), text="")
        scores = fit(see(train, update), opinions)
        rows = []
        for set_name, samples in sets.items():
            update = partial(bar(f"{name}: {set_name}"), total=len(samples), text="")
            rows += number_rows(samples, scores(see(samples, update)).tolist())
    facts = {"fitted_n": len(train), "copies_left_out": copies}
    return rows, {sample.dataset_split: facts for samples in sets.values() for sample in samples}


def _reader(name: str, seed: int, backbone: Callable[[], Backbone]) -> tuple[See, Callable[..., Scores]]:
    """Return two functions of the baseline `name`: samples to features [n, F], and the fit of features to opinions."""
    if name == "mean":
        return lambda samples, _: np.zeros((len(samples), 1)), fit_mean  # no picture is opened
    look: Look
    if name == "eyes":
        look, fit = partial(eyes_features, backbone()), fit_ridge
    elif name == "pretrained":
        look, fit = partial(pretrained_features, pretrained_network()), fit_ridge
    else:
        look, fit = lambda pictures: np.stack([*map(handmade, pictures)]), partial(fit_trees, seed=seed)
    return lambda samples, progress: features_of(samples, look, progress), fit


def _people(sets: Sets, seed: int) -> tuple[list[dict], dict[str, Any]]:
    """Return the rows of the baseline people for the sets whose opinions show how far people agree."""
    agreements = rater_agreement(chain.from_iterable(sets.values()), seed=seed)
    for name in _names(sets.values()):
        if name not in agreements:
            log.warning(
                "people: %s publishes no votes of single people, nor the standard deviation and number of at least %d",
                name,
                FEWEST_RATERS,
            )
    rows = []
    for set_name, agreement in agreements.items():
        name, split = set_name.rsplit("/", 1)
        rows += [
            {"how": agreement.how, "id": picture, "dataset": name, "split": split, "mos": opinion, "score": score}
            for picture, score, opinion in agreement.pairs
        ]
    return rows, {set_name: agreement.facts for set_name, agreement in agreements.items()}


def _mark(name: str) -> str:
    return f"baseline_{name}"
