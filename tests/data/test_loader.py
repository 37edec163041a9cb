from __future__ import annotations

import json
import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aes_r1.data.attributes import RESERVED
from aes_r1.data.check import check_pictures
from aes_r1.data.labels import folder_labels
from aes_r1.data.loader import load_samples
from aes_r1.data.prefetch import prefetch
from aes_r1.data.published import avt_ai_labels
from aes_r1.data.sample import Sample
from aes_r1.runs.files import sha256_of
from aes_r1.settings import DataSettings, InputError


def folder(root: Path, rows: str, name: str = "labels.csv") -> Path:
    (root / name).write_bytes(rows.encode())
    return root


def many(root: Path, count: int = 60) -> Path:
    rows = "image,mos\n" + "".join(f"{index}.png,{index / count:.3f}\n" for index in range(count))
    for index in range(count):
        Image.new("RGB", (6, 6), (index, 0, 0)).save(root / f"{index}.png")
    return folder(root, rows)


def load(root: Path, split: str, seed: int = 0, **changes) -> list:
    data = DataSettings(name=changes.pop("name", "folder"), root=str(root), **changes)
    return load_samples(data, split, seed=seed, store=root / "store")


def test_a_labels_file_as_spreadsheets_write_it(tmp_path):
    rows = "\ufeffimage,mos,mos_std,n_raters,split,camera\r\na.jpg,0.5,0.1,12,train,X\r\nb ü.jpg,1,,,test,Y"
    labels = folder_labels(folder(tmp_path, rows))
    assert [(sample.image, sample.mos, sample.mos_std, sample.n_raters, sample.split) for sample in labels] == [
        ("a.jpg", 0.5, 0.1, 12, "train"),
        ("b ü.jpg", 1.0, None, None, "test"),
    ]
    assert labels[0].attributes == {"camera": "X"}


def test_labels_as_json_lines(tmp_path):
    labels = folder_labels(folder(tmp_path, '{"image": "a.jpg", "mos": 0.25}\n\n', "labels.jsonl"))
    assert [(sample.image, sample.mos) for sample in labels] == [("a.jpg", 0.25)]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("picture,mos\na.jpg,0.5\n", "no column image"),
        ("image,mos\na.jpg,high\n", "line 2: mos='high'"),
        ("image,mos\na.jpg,0.5\nb.jpg,nan\n", "line 3"),
        ("image,mos\na.jpg,7.5\n", r"outside \[0, 1\]"),
        ("image,mos,split\na.jpg,0.5,held-out\n", "split=held-out"),
    ],
)
def test_wrong_labels_are_named(rows, says, tmp_path):
    with pytest.raises(InputError, match=says):
        folder_labels(folder(tmp_path, rows))


def test_a_scale_that_was_given_is_not_advised_again(tmp_path):
    with pytest.raises(InputError, match=r"mos=0\.13 is outside \[1, 10\]; .*leave it out for opinions in \[0, 1\]"):
        folder_labels(folder(tmp_path, "image,mos\na.jpg,0.13\n"), scale=(1, 10))


def test_no_labels_file(tmp_path):
    with pytest.raises(InputError, match=r"labels\.csv"):
        folder_labels(tmp_path)


@pytest.mark.slow
def test_shares_are_seeded_and_disjoint(tmp_path):
    many(tmp_path)
    splits = {split: {sample.id for sample in load(tmp_path, split)} for split in ("train", "validation", "test")}
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 42, "validation": 6, "test": 12}
    assert len(set.union(*splits.values())) == 60
    assert splits["test"] == {sample.id for sample in load(tmp_path, "test", seed=9)}


def test_published_splits_are_kept_and_validation_is_carved_by_seed(tmp_path):
    rows = "image,mos,split\n" + "".join(f"{i}.png,0.5,{'test' if i % 5 == 0 else 'train'}\n" for i in range(100))
    folder(tmp_path, rows)
    assert {sample.id for sample in load(tmp_path, "test")} == {f"{i}.png" for i in range(0, 100, 5)}
    validation, train = load(tmp_path, "validation"), load(tmp_path, "train")
    assert (len(validation), len(train)) == (4, 76)
    assert {sample.id for sample in load(tmp_path, "validation", seed=1)} != {sample.id for sample in validation}


def test_limit_takes_a_seeded_part(tmp_path):
    many(tmp_path)
    assert len(load(tmp_path, "train", limit=5)) == 5
    assert load(tmp_path, "train", limit=5) == load(tmp_path, "train", limit=5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "nosuch"}, "no such set"),
        ({"root": None}, "data.root=DIR"),
        ({"root": "/nowhere/at/all"}, "no such file"),
    ],
)
def test_wrong_settings_are_named(changes, says, tmp_path):
    data = DataSettings(**{"name": "folder", "root": str(tmp_path), **changes})
    with pytest.raises(InputError, match=says):
        load_samples(data, "train", seed=0, store=tmp_path)


def test_an_empty_split_is_named(tmp_path):
    folder(tmp_path, "image,mos,split\na.png,0.5,train\nb.png,0.5,train\nc.png,0.1,train\n")
    with pytest.raises(InputError, match="test split is empty; write test in the column split of some rows"):
        load(tmp_path, "test")


def test_an_empty_cell_of_split_is_train(tmp_path):
    """The error of an empty split says so."""
    folder(tmp_path, "image,mos,split\na.png,0.5,train\nb.png,0.5,\nc.png,0.1,validation\n")
    assert [sample.id for sample in load(tmp_path, "train")] == ["a.png", "b.png"]
    with pytest.raises(InputError, match="an empty cell is train"):
        load(tmp_path, "test")


def test_labels_stay_below_their_root(tmp_path):
    (tmp_path / "in").mkdir()
    folder(tmp_path / "in", "image,mos,split\n../secret.png,0.5,test\n")
    with pytest.raises(InputError, match="leaves data"):
        load(tmp_path / "in", "test")


def test_a_linked_picture_folder_is_no_way_out(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "photos").symlink_to(tmp_path / "disk")
    Image.new("RGB", (6, 6)).save(tmp_path / "disk" / "a.png")
    folder(tmp_path / "set", "image,mos,split\nphotos/a.png,0.5,test\nphotos/b/../../../x.png,0.5,train\n")
    assert check_pictures(load(tmp_path / "set", "test"), workers=0, strict=True)[1] == []
    with pytest.raises(InputError, match="leaves data"):
        load(tmp_path / "set", "train")


def test_what_prepare_has_read_is_only_looked_at(tmp_path):
    many(tmp_path, 2)
    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(b"x" * 10)
    samples = [Sample(f"{i}.png", str(tmp_path / f"{i}.png"), 0.5, "x", "test", bytes=10 + i) for i in range(3)]
    kept, dropped = check_pictures(samples, workers=0, strict=False)
    assert [sample.id for sample in kept] == ["0.png"]
    assert [row["id"] for row in dropped] == ["1.png", "2.png"]
    assert "when prepare read it" in dropped[0]["reason"]


@pytest.mark.parametrize("name", ["a.bmp", "a.ppm", "a.tif", "b.bmp.jpg"])
def test_another_picture_of_the_same_size_in_bytes_is_seen(name, tmp_path):
    path = tmp_path / name
    kind = Image.registered_extensions()[f".{name.split('.')[1]}"]
    Image.new("RGB", (6, 6), "red").save(path, kind)
    sample = Sample(name, str(path), 0.5, "x", "test", sha256=sha256_of(path), bytes=path.stat().st_size)
    assert check_pictures([sample], workers=0, strict=False) == ([sample], [])
    Image.new("RGB", (6, 6), "blue").save(path, kind)
    assert path.stat().st_size == sample.bytes
    with pytest.raises(InputError, match=f"{name}: other content of the same size when prepare read it; mend it"):
        check_pictures([sample], workers=0, strict=True)


def test_unreadable_pictures_are_named_counted_and_skipped(tmp_path):
    many(tmp_path)
    (tmp_path / "3.png").write_bytes(b"broken")
    (tmp_path / "4.png").unlink()
    samples = [sample for split in ("train", "validation", "test") for sample in load(tmp_path, split)]
    kept, dropped = check_pictures(samples, workers=0, strict=False)
    assert len(kept) == 58
    assert {row["id"] for row in dropped} == {"3.png", "4.png"}
    assert all(row["reason"] and row["path"].endswith(row["id"]) for row in dropped)
    with pytest.raises(InputError, match=r"data\.strict=false"):
        check_pictures(samples, workers=0, strict=True)


def test_prefetch_is_ordered_and_lazy():
    seen: list[int] = []

    def encode(item: int) -> int:
        seen.append(item)
        return item * item

    results = prefetch(range(100), encode, workers=2, ahead=5)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(seen) <= 3 + 5 + 1
    results.close()
    assert list(prefetch(range(40), encode, workers=3, ahead=4)) == [item * item for item in range(40)]


def test_prefetch_passes_errors_on():
    def encode(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    results = prefetch(range(5), encode, workers=1, ahead=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


@pytest.mark.skipif("AES_R1_SHARED_DATA" not in os.environ, reason="AES_R1_SHARED_DATA is not set")
@pytest.mark.slow
def test_avt_ai_for_real():
    root = Path(os.environ["AES_R1_SHARED_DATA"]) / "avt_ai"
    labels = avt_ai_labels(root)
    assert len(labels) == 145
    assert all(0 <= sample.mos <= 1 for sample in labels)
    sizes = {split: load(root, split, name="avt_ai") for split in ("train", "validation", "test")}
    assert {split: len(samples) for split, samples in sizes.items()} == {"train": 102, "validation": 14, "test": 29}
    kept, dropped = check_pictures(sizes["test"], workers=0, strict=True)
    assert (len(kept), dropped) == (29, [])
    assert np.std([sample.mos for sample in kept]) > 0.05


@pytest.mark.skipif("AES_R1_SHARED_DATA" not in os.environ, reason="AES_R1_SHARED_DATA is not set")
@pytest.mark.slow
def test_sophoappeal_for_real():
    root = Path(os.environ["AES_R1_SHARED_DATA"]) / "sophoappeal"
    sizes = {split: load(root, split, name="sophoappeal") for split in ("train", "validation", "test")}
    assert {split: len(samples) for split, samples in sizes.items()} == {"train": 528, "validation": 106, "test": 423}
    kept, dropped = check_pictures(sizes["validation"], workers=0, strict=True)
    assert (len(kept), dropped) == (106, [])
    everything = [sample for samples in sizes.values() for sample in samples]
    assert all(sum(sample.attributes["votes"]) == sample.n_raters for sample in everything)
    sources = {"500px_cc0", "aadb", "ava", "koniq10k", "own", "pixabay_first50k"}
    assert {sample.attributes["source"] for sample in everything} == sources


@pytest.mark.parametrize("name", RESERVED)
def test_a_column_by_a_name_of_the_programs_own_is_refused(name, tmp_path):
    """It would be taken for counts per level, for ratings or for a made scene, long after it was read."""
    csv = folder(tmp_path, f"image,mos,{name}\na.jpg,0.5,210\n")
    with pytest.raises(
        InputError, match=rf"labels\.csv, line 2: column {name} .*; rename the column; .* count_1"
    ) as caught:
        folder_labels(csv)
    assert "\n" not in str(caught.value)
    (tmp_path / "labels.csv").unlink()
    for value in (12, [-5, 10], [3, 1, 2], {"color": 7}, "light", None):
        rows = [{"image": "a.jpg", "mos": 0.5}, {"image": "b.jpg", "mos": 0.5, name: value}]
        with pytest.raises(InputError, match=rf"labels\.jsonl, line 2: column {name} "):
            folder_labels(folder(tmp_path, "\n".join(map(json.dumps, rows)), "labels.jsonl"))


@pytest.mark.slow
def test_a_split_seed_deals_the_same_pictures_anew(tmp_path):
    from PIL import Image

    rows = ["image,mos,split"]
    for index in range(40):
        Image.new("RGB", (60, 60), (index, 0, 0)).save(tmp_path / f"{index:02d}.png")
        rows.append(f"{index:02d}.png,0.5,{'test' if index < 8 else 'validation' if index < 12 else 'train'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))

    def ids(split_seed: int | None, split: str, **changes) -> list[str]:
        data = DataSettings(name="folder", root=str(tmp_path), split_seed=split_seed, **changes)
        samples = load_samples(data, split, seed=0, store=tmp_path)
        assert {sample.split for sample in samples} == {split}
        return [sample.id for sample in samples]

    published = {split: ids(None, split) for split in ("train", "validation", "test")}
    dealt = {split: ids(1, split) for split in ("train", "validation", "test")}
    assert [len(part) for part in dealt.values()] == [len(part) for part in published.values()] == [28, 4, 8]
    assert sorted(chain(*dealt.values())) == sorted(chain(*published.values()))
    assert dealt == {split: ids(1, split) for split in dealt}
    assert dealt["test"] != published["test"]
    assert ids(2, "test") != dealt["test"]
    assert len(ids(1, "train", limit=5)) == 5
