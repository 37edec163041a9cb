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
    return np.array([scene_sets.opinions(name, values, rng)[0] for values in factors])


@pytest.mark.parametrize("name", scene_sets.SCENE_SETS)
def test_raters_see_the_quality(name, factors):
    quality = [scene_sets.quality(name, values) for values in factors]
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


def test_votes_make_the_opinion(factors):
    for values in factors[:20]:
        mos, spread = scene_sets.opinions("scenes", values, np.random.default_rng(2))
        assert mos * 9 * scene_sets.RATERS == pytest.approx(round(mos * 9 * scene_sets.RATERS))
        assert 0 < spread < 0.5


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
