from __future__ import annotations

import json
import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aes_r1.data.labels import Label
from aes_r1.data.manifest import read_manifest, write_manifest
from aes_r1.data.sample import Sample
from aes_r1.data.splits import SPLIT_SEED, assign_splits, carve_validation, shares, stratified_draw, stratified_indices
from aes_r1.settings import InputError

SHARES = (0.8, 0.0, 0.2)


def labels(count=100, split=None):
    return [Label(f"imgs/session{i % 3}/{i}.jpg", 0.5, split=split) for i in range(count)]


def counts(divided):
    return {split: sum(label.split == split for label in divided) for split in ("train", "validation", "test")}


def test_published_lists_are_kept_and_the_rest_is_train():
    given = [*labels(3), *labels(2, "test")]
    assert counts(assign_splits(given, SHARES, "official")) == {"train": 3, "validation": 0, "test": 2}


def test_without_lists_the_sets_own_shares_are_seeded():
    assert counts(assign_splits(labels(), SHARES, "official")) == {"train": 80, "validation": 0, "test": 20}
    assert assign_splits(labels(), SHARES, "official") == assign_splits(labels(), SHARES, "official")


def test_the_papers_nine_to_one_ignores_published_lists():
    divided = assign_splits(labels(1000, "test"), SHARES, "paper")
    assert counts(divided) == {"train": 900, "validation": 0, "test": 100}
    assert [label.image for label in divided] == [label.image for label in labels(1000)]


@pytest.mark.parametrize("entry", [lambda name: {"image": name, "gt_score": 3.1}, lambda name: name])
def test_a_published_json_list(entry, tmp_path):
    names = ["session0/3.jpg", "4.jpg", "imgs/session2/5.jpg", "session9/6.jpg"]
    (tmp_path / "test.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([entry(name) for name in names]).encode())
    divided = assign_splits(labels(), SHARES, str(tmp_path / "test.json"))
    assert [label.image for label in divided if label.split == "test" and not label.fault] == [
        "imgs/session0/3.jpg",
        "imgs/session1/4.jpg",
        "imgs/session2/5.jpg",
    ]
    assert [(label.image, label.fault) for label in divided if label.fault] == [
        ("session9/6.jpg", "in test.json, without a label")
    ]


NEAR_NAMES = {  # {a name in a list: what is said of it}
    "imgs/session0/O.jpg": "",
    "session0/3.JPG": ": nearest imgs/session0/3.jpg",
    "imgs/session0/3.png": ": nearest imgs/session0/3.jpg",
    "harbuor.jpg": ": nearest imgs/harbour.jpg",
    "h\u0430rbour.jpg": ": nearest imgs/harbour.jpg (it only looks the same: U+0430 stands in one of the two names)",
    "harbour2.jpg": "",
}


@pytest.mark.parametrize(("name", "nearest"), NEAR_NAMES.items())
def test_misspelled_names_of_a_list_are_told_with_the_nearest(name, nearest, tmp_path):
    given = [*labels(10), Label("imgs/harbour.jpg", 0.5)]
    (tmp_path / "list.json").write_text(json.dumps(["1.jpg", name]))
    divided = assign_splits(given, SHARES, str(tmp_path / "list.json"))
    assert [label.fault for label in divided if label.fault] == [f"in list.json, without a label{nearest}"]
    (tmp_path / "list.json").write_text(json.dumps([name, "p.jpg", "q.jpg", "r.jpg"]))
    with pytest.raises(InputError) as caught:
        assign_splits(given, SHARES, str(tmp_path / "list.json"))
    assert f"(it names {name}{nearest}, p.jpg, q.jpg, .., 4 in all); give names" in str(caught.value)


def test_lists_by_split(tmp_path):
    (tmp_path / "lists.json").write_text(json.dumps({"test": ["1.jpg"], "validation": ["2.jpg", "3.jpg"]}))
    assert counts(assign_splits(labels(), SHARES, str(tmp_path / "lists.json"))) == {
        "train": 97,
        "validation": 2,
        "test": 1,
    }


@pytest.mark.parametrize(
    "name", ["./imgs/session0/3.jpg", "session0//3.jpg", "imgs/./session0/3.jpg", ".\\session0\\3.jpg"]
)
def test_a_picture_may_be_named_as_a_shell_or_a_script_writes_its_path(name, tmp_path):
    """A test picture whose name is not recognised would be trained on."""
    (tmp_path / "lists.json").write_text(json.dumps([name, "4.jpg"]))
    divided = assign_splits(labels(), SHARES, str(tmp_path / "lists.json"))
    assert [label.image for label in divided if label.split == "test"] == ["imgs/session0/3.jpg", "imgs/session1/4.jpg"]
    assert not any(label.fault for label in divided)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('["nowhere"]', r"it names nowhere\); give names as they stand in the labels, with the suffix"),
        ('["nowhere.jpg"]', "names no picture of the set"),
        ("[]", "names no picture of the set"),
        ("{", "not JSON"),
        ('{"dev": []}', "dev must be a list"),
        ('{"test": ["1.jpg"], "test": ["2.jpg"]}', "the key test stands twice"),
        ('[{"name": "a.jpg"}]', "neither a name nor"),
        (None, "No such file"),
    ],
)
def test_a_wrong_list_is_named(content, says, tmp_path):
    if content is not None:
        (tmp_path / "list.json").write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        assign_splits(labels(), SHARES, str(tmp_path / "list.json"))
    assert "data.split_by" in str(caught.value)


def test_a_list_that_is_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "list.json")
    with pytest.raises(InputError, match=r"list\.json: a pipe or device, not a file"):
        assign_splits(labels(), SHARES, str(tmp_path / "list.json"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"test": ["x/1.jpg"], "train": ["x/1.jpg"]}, "x/1.jpg stands in test and in train; take it out of one"),
        ({"train": ["x/1.jpg"], "test": ["x\\1.jpg"]}, "x/1.jpg stands in train and in test; take it out of one"),
        ({"test": ["x/2.jpg"], "train": ["2.jpg"]}, "2.jpg stands in test and in train; take it out of one"),
        (["1.jpg"], "1.jpg names two pictures, x/1.jpg and y/1.jpg; give more of the path"),
        (["x/1.jpg", "1.jpg"], "1.jpg names two pictures, x/1.jpg and y/1.jpg; give more of the path"),
    ],
)
def test_a_list_that_contradicts_itself_or_fits_two_pictures_is_refused(content, says, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(content))
    given = [Label(name, 0.5) for name in ("x/1.jpg", "y/1.jpg", "x/2.jpg")]
    with pytest.raises(InputError) as caught:
        assign_splits(given, SHARES, str(tmp_path / "list.json"))
    assert str(caught.value) == f"data.split_by={tmp_path / 'list.json'}: {says}"


@pytest.mark.parametrize("content", [["1.jpg"], ["1.jpg", "1.jpg"]])
def test_a_whole_path_names_that_picture_alone(content, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(content))
    divided = assign_splits([Label("x/1.jpg", 0.5), Label("1.jpg", 0.5)], SHARES, str(tmp_path / "list.json"))
    assert [(label.image, label.split) for label in divided] == [("x/1.jpg", "train"), ("1.jpg", "test")]


def test_validation_is_carved_out_of_train():
    train = [f"{i}.jpg" for i in range(1000)]
    assert len(carve_validation(train, 0)) == 50
    assert carve_validation(train, 0) != carve_validation(train, 1)
    assert len(carve_validation([f"{i}" for i in range(100_000)], 0)) == 500
    assert len(carve_validation(train[:3], 0)) == 1


@settings(deadline=None)  # no time limit, because the machine may be busy
@given(st.integers(1, 100_000), st.lists(st.floats(0.1, 100), min_size=1, max_size=5))
@pytest.mark.slow
def test_shares_add_up_and_are_near(size, ratio):
    named = {str(i): part for i, part in enumerate(ratio)}
    counts = shares(size, named)
    assert sum(counts.values()) == size
    assert all(abs(counts[name] - size * part / sum(ratio)) < 1 for name, part in named.items())


def blocks(**sizes):
    """Samples set after set, each sorted by score, as a manifest may hold them."""
    return [
        Sample(f"{name}{index}", f"/p/{name}{index}.jpg", index / size, name, "validation")
        for name, size in sizes.items()
        for index in range(size)
    ]


@settings(deadline=None)  # no time limit, because the machine may be busy
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(1, 250), st.integers(0, 3))
@pytest.mark.slow
def test_a_draw_keeps_the_sets_shares_and_the_lists_order(sizes, count, seed):
    names = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    places = stratified_indices(names, count, seed)
    assert len(places) == min(count, len(names))
    assert np.all(np.diff(places) > 0)
    drawn = Counter(names[place] for place in places)
    for number, size in enumerate(sizes):
        assert abs(drawn[str(number)] - min(1, count / len(names)) * size) < 1
    assert places.tolist() == stratified_indices(names, count, seed).tolist()


@pytest.mark.slow
def test_a_draw_of_a_list_that_stands_set_after_set(tmp_path):
    samples = blocks(ava=500, tad66k=300, flickr_aes=200)
    drawn = stratified_draw(samples, 100, 0)
    assert Counter(label.dataset for label in drawn) == {"ava": 50, "tad66k": 30, "flickr_aes": 20}
    assert stratified_draw(samples, None, 0) == stratified_draw(samples, 1000, 0) == samples
    assert stratified_draw(samples, 100, 1) != drawn
    write_manifest(samples, tmp_path / "manifest.jsonl")
    assert list(stratified_draw(read_manifest(tmp_path / "manifest.jsonl"), 100, 0)) == drawn


@pytest.mark.slow
def test_a_draw_of_a_list_sorted_by_score_reaches_its_end():
    """Within one set, too, the lowest and the highest scores have the same chance."""
    drawn = Counter(label.id for seed in range(400) for label in stratified_draw(blocks(ava=20), 5, seed))
    assert len(drawn) == 20
    assert all(60 < count < 140 for count in drawn.values()), "100 expected, standard deviation 9"
    expected = sorted(np.random.default_rng([SPLIT_SEED, 7]).permutation(20)[:5])
    assert [label.id for label in stratified_draw(blocks(ava=20), 5, 7)] == [f"ava{place}" for place in expected]
