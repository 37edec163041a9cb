from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from aes_r1.data import scene_sets, scenes
from aes_r1.prompts import level_of

COUNTS = {"train": 6, "validation": 3, "test": 4}


@pytest.fixture(scope="module")
def factors():
    rng = np.random.default_rng(0)
    return [scenes._factors(rng) for _ in range(600)]


def opinions(name, factors):
    rng = np.random.default_rng(1)
    return np.array([scene_sets.opinions(name, one, subject_of(place), rng)[0] for place, one in enumerate(factors)])


def subject_of(place):
    return scenes.SUBJECTS[place % len(scenes.SUBJECTS)]


@pytest.mark.parametrize("name", scene_sets.SCENE_SETS)
def test_raters_see_the_quality(name, factors):
    quality = [scene_sets.quality(name, one, subject_of(place)) for place, one in enumerate(factors)]
    assert spearmanr(quality, opinions(name, factors)).statistic > 0.97


def test_all_levels_occur(factors):
    levels = [level_of(mos) for mos in opinions("scenes", factors)]
    assert all(levels.count(level) / len(levels) > 0.15 for level in ("bad", "fair", "good"))


def test_no_single_factor_gives_it_away(factors):
    mos = opinions("scenes", factors)
    for name in factors[0]:
        assert spearmanr(mos, [values[name] for values in factors]).statistic < 0.7


def test_harsh_raters_are_harsh(factors):
    assert opinions("scenes_harsh", factors).mean() < opinions("scenes", factors).mean() - 0.1


def test_gated_raters_look_for_other_things_in_every_subject(factors):
    weights = np.array(list(scene_sets.GATED_WEIGHTS.values()))
    assert tuple(scene_sets.GATED_WEIGHTS) == scenes.SUBJECTS
    assert np.sort(weights, axis=1) == pytest.approx(np.tile([0, 0.1, 0.15, 0.2, 0.55], (4, 1)))
    assert weights.mean(axis=0) == pytest.approx(np.full(5, 0.2))
    only_light = dict.fromkeys(factors[0], 0.0) | {"light_and_shadow": 1.0}
    seen = {subject: scene_sets.quality("scenes_gated", only_light, subject) for subject in scenes.SUBJECTS}
    by_hand = dict(zip(seen, 0.03 + 0.94 / (1 + np.exp(-9 * (weights[:, 0] - 0.455))), strict=True))
    assert seen == pytest.approx(by_hand)
    assert scene_sets.quality("scenes", only_light, "house") == scene_sets.quality("scenes", only_light, "boat")
    mos = opinions("scenes_gated", factors)
    blind = np.array([sum(one.values()) for one in factors])
    assert 0.7 < spearmanr(mos, blind).statistic < 0.9, "a judge who does not look at the subject"
    looking = [row @ list(one.values()) for row, one in zip(np.tile(weights, (150, 1)), factors, strict=True)]
    assert spearmanr(mos, looking).statistic > 0.97


def test_votes_make_the_opinion(factors):
    for values in factors[:20]:
        mos, spread = scene_sets.opinions("scenes", values, "house", np.random.default_rng(2))
        assert mos * 9 * scene_sets.RATERS == pytest.approx(round(mos * 9 * scene_sets.RATERS))
        assert 0 < spread < 0.5


@pytest.mark.slow
def test_made_once_and_read_back(tmp_path):
    first = scene_sets.make_scenes("scenes", store=tmp_path, counts=COUNTS, workers=1)
    written = [(tmp_path / sample.image).stat().st_mtime_ns for sample in first]
    again = scene_sets.make_scenes("scenes", store=tmp_path, counts=COUNTS, workers=1)
    assert again == first
    assert [(tmp_path / sample.image).stat().st_mtime_ns for sample in again] == written
    assert len({sample.id for sample in first}) == 13
    assert {split: sum(sample.split == split for sample in first) for split in COUNTS} == COUNTS
    more = scene_sets.make_scenes("scenes", store=tmp_path, counts=COUNTS | {"train": 8}, workers=1)
    kept = {sample.id: sample.mos for sample in more}
    assert all(kept[sample.id] == sample.mos for sample in first)
