"""The mixed set of the ties_and_pool study, as its sweep reads it."""

from __future__ import annotations

import pytest

from aes_r1.data.loader import load_samples
from aes_r1.data.manifest import write_manifest
from aes_r1.settings import DataSettings
from experiments.ties_and_pool.mix import mixed


@pytest.mark.slow
def test_half_of_every_split_comes_of_each_set(tmp_path):
    counts = {"train": 6, "validation": 4, "test": 2}
    samples = mixed(tmp_path, counts=counts)
    write_manifest(samples, tmp_path / "manifest.jsonl")
    data = DataSettings(name="manifest", root=str(tmp_path / "manifest.jsonl"))
    for split, count in counts.items():
        read = load_samples(data, split, seed=0, store=tmp_path)
        sets = [one.id.split("/")[0] for one in read]
        assert sorted(sets) == ["scenes"] * (count // 2) + ["scenes_harsh"] * (count // 2)
        assert {one.dataset for one in read} == {"scenes", "scenes_harsh"}, "the pools that rank.pool=dataset compares"
