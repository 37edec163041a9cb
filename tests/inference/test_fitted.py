"""Regressions to opinions: they find what is there, stay on the scale, and never see a test picture."""

import numpy as np
import pytest
from scipy import stats

from aes_r1.data.sample import Sample
from aes_r1.inference.fitted import FEWEST, features_of, fit_mean, fit_ridge, fit_trees, require_enough, to_fit_on
from aes_r1.settings import InputError
from tests.conftest import picture


def made(count: int, seed: int, relation) -> tuple[np.ndarray, np.ndarray]:
    features = np.random.default_rng(seed).normal(size=(count, 6)) * [1, 100, 0.01, 1, 1, 0]  # the last is constant
    return features, relation(features)


@pytest.mark.slow
def test_ridge_finds_a_line_and_trees_find_a_bend():
    def line(x):
        return np.clip(0.5 + 0.1 * x[:, 0] + 0.001 * x[:, 1], 0, 1)

    def bend(x):
        return 0.2 + 0.6 * (np.abs(x[:, 0]) < 0.7)

    for relation, fit, other in ((line, fit_ridge, 0.99), (bend, fit_trees, 0.8)):
        scores = fit(*made(300, 0, relation))
        unknown, truth = made(200, 1, relation)
        found = scores(unknown)
        assert stats.spearmanr(found, truth).statistic > other
        assert found.min() >= 0
        assert found.max() <= 1
    assert abs(stats.spearmanr(fit_ridge(*made(300, 0, bend))(unknown), truth).statistic) < 0.3


def test_the_mean_is_one_number_and_needs_no_features():
    scores = fit_mean(np.zeros((3, 1)), np.array([0.2, 0.3, 0.7]))
    assert scores(np.zeros((2, 1))) == pytest.approx([0.4, 0.4])


@pytest.mark.slow
def test_few_pictures_are_fitted_without_a_fault():
    for fit in (fit_ridge, fit_trees):
        assert np.isfinite(fit(*made(FEWEST, 0, lambda x: 0.5 + 0.01 * x[:, 0]))(np.zeros((2, 6)))).all()


def test_features_keep_the_order_of_the_pictures(tmp_path):
    samples = []
    for index in range(37):  # more than two batches
        path = tmp_path / f"{index}.png"
        picture(20 + index, 20).save(path)
        samples.append(Sample(str(index), str(path), 0.5, "made", "train"))
    seen = []
    found = features_of(samples, lambda pictures: np.array([[one.width] for one in pictures]), seen.append)
    assert found[:, 0].tolist() == list(range(20, 57))
    assert seen == [16, 32, 37]
    (tmp_path / "4.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"4\.png"):
        features_of(samples, lambda pictures: np.zeros((len(pictures), 1)))


def test_a_picture_that_is_also_tested_is_never_fitted_on(tmp_path):
    def sample(name: str, seed: int, split: str, mos: float | None = 0.5) -> Sample:
        path = tmp_path / name
        picture(12, 12, seed=seed).save(path)
        return Sample(name, str(path), mos, "made", split)

    train = [sample(f"train{index}.png", index, "train") for index in range(FEWEST + 3)]
    unrated = sample("unrated.png", 99, "train", None)
    tests = [[sample("copy.png", 1, "test"), sample("own.png", 50, "test")], [sample("other.png", 2, "test")]]
    kept, copies = to_fit_on([*train, unrated], tests, {})
    assert [one.id for one in kept] == [one.id for one in train if one.id not in ("train1.png", "train2.png")]
    assert copies == 2
    with pytest.raises(InputError, match="9 pictures of the train split have an opinion and are not in a test list"):
        to_fit_on(train[:11], tests, {})
    with pytest.raises(InputError, match=r"; give baseline_pictures=12 or more, or null$"):
        to_fit_on(train[:11], tests, {"data.limit": None, "baseline_pictures": 11})


@pytest.mark.parametrize(
    ("count", "listed", "limits", "way_out"),
    [
        (9, 9, {}, "give a set with more of them"),
        (9, 9, {"data.limit": None, "baseline_pictures": 6000}, "give a set with more of them"),
        (4, 4, {"data.limit": 4, "baseline_pictures": 6000}, "give data.limit=10 or more, or null"),
        (4, 4, {"data.limit": 4, "baseline_pictures": None}, "give data.limit=10 or more, or null"),
        (4, 4, {"data.limit": 30, "baseline_pictures": 4}, "give baseline_pictures=10 or more, or null"),
        (
            4,
            4,
            {"data.limit": 6, "baseline_pictures": 4},
            "give data.limit=10 and baseline_pictures=10 or more, or null",
        ),
        (9, 12, {"data.limit": None, "baseline_pictures": 12}, "give baseline_pictures=13 or more, or null"),
        (3, 12, {"data.limit": 13, "baseline_pictures": 14}, "give a set with more of them"),
    ],
)
def test_the_way_out_of_too_few_pictures_is_what_left_them_out(count, listed, limits, way_out):
    with pytest.raises(InputError) as raised:
        require_enough(count, "have an opinion", listed=listed, limits=limits)
    start = f"{count} pictures of the train split have an opinion; a regression needs {FEWEST}; {way_out}"
    assert str(raised.value).startswith(start)
