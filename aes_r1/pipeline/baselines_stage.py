"""Let the baselines of an evaluation answer: fitted on the training pictures of its set, or read from people's votes.

mean         the mean opinion of the training pictures
handmade     boosted trees on hand-made measures (inference/handmade.py)
eyes         ridge regression on the model's own vision tower (inference/eyes.py)
pretrained   ridge regression on a small ImageNet network (inference/pretrained.py)
people       another group of people, or one half of the raters against the other (inference/people.py)
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.data.manifest import read_run_manifest
from aes_r1.data.sample import Sample
from aes_r1.inference.eyes import eyes_features
from aes_r1.inference.fitted import (
    Look,
    Scores,
    features_of,
    fit_mean,
    fit_ridge,
    fit_trees,
    number_rows,
    to_fit_on,
)
from aes_r1.inference.handmade import handmade
from aes_r1.inference.people import agreement_of_people
from aes_r1.inference.predictions import Sets
from aes_r1.inference.pretrained import pretrained_features, pretrained_network
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline.data_stage import list_pictures
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.progress import progress_bars
from aes_r1.settings import BASELINES, DataSettings, InputError

log = logging.getLogger("aes_r1")

See = Callable[[Sequence[Sample], Callable[[int], object]], np.ndarray]  # samples, progress(done) to features [n, F]


def answer_baselines(
    run: RunFolder,
    names: Sequence[str],
    *,
    data: DataSettings,
    sets: Sets,
    pictures: int | None,
    seed: int,
    store: Path,
    backbone: Callable[[], Backbone],
) -> None:
    """Write the rows of each baseline about every set of `sets` to the run's folder; those that are there are kept.

    Regressions are fitted on the train split of `data`, at most `pictures` of it; pictures that are in a test list are
    left out. Raises InputError where too few training pictures remain, or, for people, where no set publishes votes.
    """
    fitted: tuple[list[Sample], int] | None = None
    for name in names:
        if run.stage_done(_mark(name)):
            continue
        if name == "people":
            rows, facts = _people(sets, seed)
        else:
            if fitted is None:
                fitted = to_fit_on(_train(run, data, pictures, seed, store), list(sets.values()))
            rows, facts = _fitted(name, *fitted, sets, seed, backbone)
            of = {one.dataset for one in fitted[0]}
            place = f"{data.name if len(of) > 1 else of.pop()}/train"  # a mix has pictures of several sets
            facts = {tested: {"fitted_on": place, **fact} for tested, fact in facts.items()}
        run.write_baseline(name, rows)
        run.finish_stage(_mark(name), {"sets": facts})


def baseline_facts(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return {baseline: {DATASET/SPLIT: what it was made from}} of the baselines that have answered, in their order."""
    answered = sorted(run.baselines, key=BASELINES.index)
    return {name: run.stage_values(_mark(name)).get("sets", {}) for name in answered}


def check_baselines(names: Sequence[str], tested: Sequence[DataSettings], data: DataSettings) -> None:
    """Raise InputError where a regression would be fitted on the pictures on which it is measured."""
    same = any((one.name, one.root, one.split) == (data.name, data.root, "train") for one in tested)
    if same and set(names) - {"people"}:
        raise InputError(
            f"baselines={list(names)}: they are fitted on the train split of data={data.name}, so they cannot be "
            "measured on it; give another split, or baselines=[people]"
        )


def _train(run: RunFolder, data: DataSettings, pictures: int | None, seed: int, store: Path) -> Sequence[Sample]:
    """List the training pictures of `data`, at most `pictures`; each is opened once."""
    limits = [limit for limit in (data.limit, pictures) if limit is not None]
    path = run.manifest(f"{data.name}-fitted")
    list_pictures(path, dataclasses.replace(data, limit=min(limits, default=None)), "train", seed=seed, store=store)
    return read_run_manifest(path)


def _fitted(
    name: str, train: Sequence[Sample], copies: int, sets: Sets, seed: int, backbone: Callable[[], Backbone]
) -> tuple[list[dict], dict[str, Any]]:
    """Fit the baseline `name` on `train` and return its rows about `sets`, and how many pictures it was fitted on."""
    see, fit = _reader(name, seed, backbone)
    opinions = np.asarray([one.mos for one in train], dtype=np.float64)
    with progress_bars() as bar:
        update = partial(bar(f"{name}: training pictures"), total=len(train), text="")
        scores = fit(see(train, update), opinions)
        rows = []
        for place, samples in sets.items():
            update = partial(bar(f"{name}: {place}"), total=len(samples), text="")
            known = [one.mos for one in samples]
            rows += number_rows(samples, scores(see(samples, update)).tolist(), "fitted", mos=known)
    on = {"fitted_n": len(train), "copies_left_out": copies}
    return rows, {one.dataset_split: on for samples in sets.values() for one in samples}


def _reader(name: str, seed: int, backbone: Callable[[], Backbone]) -> tuple[See, Callable[..., Scores]]:
    """Return how the baseline `name` sees a list of samples, as features [n, F], and how it is fitted to opinions."""
    if name == "mean":
        return lambda samples, _: np.zeros((len(samples), 1)), fit_mean  # no picture is opened
    look: Look
    if name == "eyes":
        look, fit = partial(eyes_features, backbone()), fit_ridge
    elif name == "pretrained":
        look, fit = partial(pretrained_features, pretrained_network()), fit_ridge
    else:
        look, fit = lambda pictures: np.stack([handmade(one) for one in pictures]), partial(fit_trees, seed=seed)
    return lambda samples, progress: features_of(samples, look, progress), fit


def _people(sets: Sets, seed: int) -> tuple[list[dict], dict[str, Any]]:
    """Return the rows of people about those of `sets` that publish votes."""
    rows, facts = [], {}
    by_set: dict[str, list[Sample]] = {}
    for samples in sets.values():
        for one in samples:
            by_set.setdefault(one.dataset_split, []).append(one)
    for name, samples in by_set.items():
        found = agreement_of_people(samples, seed=seed)
        if found is None:
            log.warning("people: %s publishes no votes of single people; it has no ceiling", name)
            continue
        pictures, scores, opinions = zip(*found.pairs, strict=True)
        rows += number_rows(pictures, scores, found.how, mos=opinions)
        facts[name] = found.facts
    if not rows:
        raise InputError(
            f"baselines=[people]: {', '.join(by_set)} publish no votes of single people; leave people out, or add a "
            "set that does: sophoappeal, para, ava, flickr_aes, or your own with count_1, count_2, .. in labels.csv"
        )
    return rows, facts


def _mark(name: str) -> str:
    return f"baseline_{name}"
