"""Fit baselines to opinions: compute features of pictures, and a regression from them to the mean opinion score."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from aes_r1.data.contents import sha256_of_picture
from aes_r1.data.prefetch import prefetch
from aes_r1.data.sample import PictureError, Sample, open_listed
from aes_r1.settings import InputError

Array = np.ndarray
Look = Callable[[Sequence[Image.Image]], Array]  # pictures to features [n, F]
Scores = Callable[[Array], Array]  # features [n, F] to scores [n] in 0..1
Limits = Mapping[str, int | None]  # {key: its value} of the settings that limit how many pictures are drawn to fit on

FEWEST = 10  # least number of training pictures for a regression
_AT_ONCE = 16

log = logging.getLogger("aes_r1")


def features_of(samples: Sequence[Sample], look: Look, progress: Callable[[int], object] = lambda _: None) -> Array:
    """Return the features [n, F] of the samples' pictures; InputError names a picture that cannot be read."""

    def opened(sample: Sample) -> Image.Image:
        return open_listed(sample.image)

    features: list[Array] = []
    waiting: list[Image.Image] = []
    for picture in prefetch(samples, opened, workers=1, ahead=2 * _AT_ONCE):
        waiting.append(picture)
        if len(waiting) == _AT_ONCE:
            features.append(look(waiting))
            waiting = []
            progress(len(features) * _AT_ONCE)
    if waiting:
        features.append(look(waiting))
    progress(len(samples))
    return np.concatenate(features)


def fit_mean(_: Array, mos: Array) -> Scores:
    """Give every picture the mean opinion of the training pictures, whose error any model must beat."""
    mean = float(mos.mean())
    return lambda unknown: np.full(len(unknown), mean)


def fit_ridge(features: Array, mos: Array) -> Scores:
    """Fit a ridge regression on standardised features; its penalty is chosen by leaving out one picture at a time."""
    model = _ridge(features, mos)
    return lambda unknown: np.clip(model.predict(unknown), 0, 1)


def ridge_weights(features: Array, mos: Array) -> tuple[Array, float]:
    """Return the weights [F] and the constant of `fit_ridge`, for features that are not standardised."""
    scaler, regression = (step for _, step in _ridge(features, mos).steps)
    weights = regression.coef_ / scaler.scale_
    return weights, float(regression.intercept_ - weights @ scaler.mean_)


def _ridge(features: Array, mos: Array) -> Any:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-1, 6, 15))).fit(features, mos)


def fit_trees(features: Array, mos: Array, *, seed: int = 0) -> Scores:
    """Fit gradient-boosted trees; the number of trees is chosen on a held-out part of the training pictures."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        learning_rate=0.05,
        max_iter=600,
        max_leaf_nodes=15,
        min_samples_leaf=min(20, max(2, len(mos) // 10)),
        early_stopping=True,
        validation_fraction=0.15,
        n_iter_no_change=30,
        random_state=seed,
    ).fit(features, mos)
    return lambda unknown: np.clip(model.predict(unknown), 0, 1)


def to_fit_on(train: Sequence[Sample], tests: Sequence[Sequence[Sample]], limits: Limits) -> tuple[list[Sample], int]:
    """Return the pictures of `train` with an opinion that are not byte-identical to a test picture.

    Returns also how many were left out as such copies. Raises InputError where fewer than FEWEST remain. limits: the
    settings by which `train` was drawn.
    """
    rated = [sample for sample in train if sample.mos is not None]
    usable = without_copies(rated, tests)
    require_enough(len(usable), "have an opinion and are not in a test list", listed=len(train), limits=limits)
    return usable, len(rated) - len(usable)


def require_enough(count: int, what: str, *, listed: int, limits: Limits) -> None:
    """Raise InputError if `count`, the number of training pictures to fit on, is below FEWEST; `what` describes them.

    listed: how many were drawn, by the smallest of `limits`. If the limits leave out pictures, the error advises a
    larger one.
    """
    if count >= FEWEST:
        return
    way_out = "give a set with more of them, or baselines=[people], which needs none"
    set_limits = {key: limit for key, limit in limits.items() if limit is not None}
    smallest = min(set_limits.values(), default=None)
    if smallest is not None and (listed >= smallest or smallest < FEWEST):
        larger_limit = smallest + FEWEST - count
        larger = " and ".join(f"{key}={larger_limit}" for key, limit in set_limits.items() if limit < larger_limit)
        way_out = f"give {larger} or more, or null"
    raise InputError(f"{count} pictures of the train split {what}; a regression needs {FEWEST}; {way_out}")


def without_copies(train: Sequence[Sample], tests: Iterable[Sequence[Sample]]) -> list[Sample]:
    """Return the pictures of `train` without a byte-identical one in any list of `tests`."""
    test_contents = {listed_contents(sample) for samples in tests for sample in samples}
    return [sample for sample in train if listed_contents(sample) not in test_contents]


def listed_contents(sample: Sample) -> str:
    """Return the SHA-256 of the file of a picture in a list; InputError where it cannot be read."""
    try:
        return sha256_of_picture(sample.image)
    except PictureError as error:
        raise InputError(f"{error}; put the pictures where the list says they are") from error


def number_rows(samples: Sequence[Sample], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Return the rows of a fitted baseline about one set: how, id, dataset, split, opinions and score."""
    rows = []
    for sample, score in zip(samples, scores, strict=True):
        row = {"how": "fitted", "id": sample.id, "dataset": sample.dataset, "split": sample.split, "mos": sample.mos}
        votes = sample.attributes.get("votes")
        rows.append(
            {**row, "mos_std": sample.mos_std, **({} if votes is None else {"votes": votes}), "score": float(score)}
        )
    return rows
