from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from aes_r1.data.loader import load_samples
from aes_r1.data.manifest import write_manifest
from aes_r1.data.mix import mixed_sets
from aes_r1.data.splits import shares
from aes_r1.settings import DataSettings, InputError
from tests.data.layouts import put

RATIO = {"ava": 6000.0, "tad66k": 6000.0, "flickr_aes": 3000.0}


def sets(root):
    """The three sets in their layouts, label files alone."""
    ava = "".join(f"{i} {i} 0 0 0 0 {i} 9 0 0 0 0 0 0 1\n" for i in range(1, 201))
    put(root, "ava/AVA.txt", ava.encode())
    put(root, "ava/aesthetics_image_lists/generic_test.jpgl", "\n".join(map(str, range(1, 21))).encode())
    for split, count in (("train", 200), ("test", 30)):
        rows = "".join(f"{split}{i}.jpg,{i / 100}\n" for i in range(count))
        put(root, f"tad66k/merge/{split}.csv", f"image,score\n{rows}".encode())
    rows = "".join(f"{i}.jpg {0.2 + i / 250}\n" for i in range(200))
    put(root, "flickr_aes/FLICKR-AES_image_score.txt", rows.encode())
    put(root, "flickr_aes/FLICKR-AES_image_labeled_by_each_worker.csv", b" worker, imagePair, score\nA,0.jpg,1\n")
    return root


def mixed(root, **changes):
    return DataSettings("aes_15k", str(root), **{"mix": RATIO, "size": 75, **changes})


def load(data, split, tmp_path, seed=0):
    return list(load_samples(data, split, seed=seed, store=tmp_path))


@pytest.mark.parametrize(
    ("size", "counts"),
    [(15000, (6000, 6000, 3000)), (1000, (400, 400, 200)), (5000, (2000, 2000, 1000)), (50000, (20000, 20000, 10000))],
)
def test_every_size_keeps_the_ratio(size, counts):
    assert shares(size, RATIO) == dict(zip(RATIO, counts, strict=True))


def test_a_set_without_published_ends_joins_a_mix_as_rows_of_a_manifest(tmp_path):
    with pytest.raises(InputError, match=r"data\.mix\.pipal: .*name: pipal, .*scale: .*data\.root=OUT/manifest\.jsonl"):
        mixed_sets(mixed(tmp_path, mix={"ava": 1, "pipal": 1}))
    manifest = str(tmp_path / "manifest.jsonl")
    assert mixed_sets(mixed(manifest, mix={"ava": 1, "pipal": 1}))["pipal"].root == manifest


@pytest.mark.slow
def test_training_pictures_come_in_the_ratio_and_in_no_order(tmp_path):
    samples = load(mixed(sets(tmp_path)), "train", tmp_path)
    assert Counter(sample.dataset for sample in samples) == {"ava": 30, "tad66k": 30, "flickr_aes": 15}
    assert len({sample.dataset for sample in samples[:10]}) > 1
    assert samples == load(mixed(tmp_path), "train", tmp_path)
    assert samples != load(mixed(tmp_path), "train", tmp_path, seed=1)


@pytest.mark.slow
def test_a_small_mix_is_a_part_of_a_large_one(tmp_path):
    small, large = (load(mixed(sets(tmp_path), size=size), "train", tmp_path) for size in (20, 150))
    assert {sample.image for sample in small} < {sample.image for sample in large}


@pytest.mark.slow
def test_splits_share_no_picture(tmp_path):
    result = [
        {sample.image for sample in load(mixed(sets(tmp_path)), split, tmp_path)}
        for split in ("train", "validation", "test")
    ]
    assert [len(part) for part in result] == [75, 9 + 10 + 9, 20 + 30 + 20]
    assert len(set.union(*result)) == sum(map(len, result))


@pytest.mark.slow
def test_a_mix_of_a_manifest(tmp_path):
    whole = DataSettings("x")
    rows = [
        sample
        for name in RATIO
        for split in ("train", "validation", "test")
        for sample in load(DataSettings(name, str(sets(tmp_path) / name), workers=whole.workers), split, tmp_path)
    ]
    write_manifest(rows, tmp_path / "out" / "manifest.jsonl")
    samples = load(mixed(tmp_path / "out" / "manifest.jsonl"), "train", tmp_path)
    assert Counter(sample.dataset for sample in samples) == {"ava": 30, "tad66k": 30, "flickr_aes": 15}
    assert {sample.image for sample in samples} == {sample.image for sample in load(mixed(tmp_path), "train", tmp_path)}


def test_a_set_that_is_too_small_or_nowhere_is_named(tmp_path):
    with pytest.raises(InputError, match=r"data\.size=2000: 400 of flickr_aes are wanted, its train split has 171"):
        load(mixed(sets(tmp_path), size=2000, mix={"flickr_aes": 1, "tad66k": 4}), "train", tmp_path)
    with pytest.raises(InputError, match=r"where is ava\? give data\.roots\.ava=DIR"):
        mixed_sets(DataSettings("aes_15k", mix=RATIO))
    assert mixed_sets(mixed("/sets", roots={"ava": "/a", "tad66k": None}))["ava"].root == "/a"
    assert mixed_sets(mixed("/sets", roots={"ava": "/a", "tad66k": None}))["tad66k"].root == "/sets/tad66k"


def test_a_manifest_comes_before_roots_of_the_environment():
    result = mixed_sets(mixed("/out/manifest.jsonl", roots={"ava": "/a", "tad66k": None, "flickr_aes": "/f"}))
    assert {sample.root for sample in result.values()} == {"/out/manifest.jsonl"}


@pytest.mark.slow
def test_a_limit_keeps_the_ratio(tmp_path):
    samples = load(mixed(sets(tmp_path), limit=25), "train", tmp_path)
    assert Counter(sample.dataset for sample in samples) == {"ava": 10, "tad66k": 10, "flickr_aes": 5}
    whole = load(mixed(tmp_path), "validation", tmp_path)
    part = load(mixed(tmp_path, limit=14), "validation", tmp_path)
    assert Counter(sample.dataset for sample in whole) == {"ava": 9, "tad66k": 10, "flickr_aes": 9}
    assert sorted(Counter(sample.dataset for sample in part).values()) == [4, 5, 5]


@pytest.mark.slow
def test_a_split_seed_deals_alike_wherever_the_sets_lie(tmp_path):
    """The order of the sets' folders must not decide which pictures are tested."""

    def tested(data):
        return {(sample.dataset, sample.id) for sample in load(replace(data, split_seed=1), "test", tmp_path)}

    here = tested(mixed(sets(tmp_path)))
    moved = {}
    for number, name in enumerate(RATIO):
        moved[name] = str((tmp_path / name).rename(tmp_path / f"{len(RATIO) - number}{name}"))
    assert tested(mixed(tmp_path, roots=moved)) == here
