from __future__ import annotations

import json

import pytest

from aes_r1.data.labels import Label
from aes_r1.data.splits import carve, divide
from aes_r1.settings import InputError

SHARES = (0.8, 0.0, 0.2)


def labels(count=100, split=None):
    return [Label(f"imgs/session{i % 3}/{i}.jpg", 0.5, split=split) for i in range(count)]


def counts(divided):
    return {split: sum(one.split == split for one in divided) for split in ("train", "validation", "test")}


def test_published_lists_are_kept_and_the_rest_is_train():
    given = [*labels(3), *labels(2, "test")]
    assert counts(divide(given, SHARES, "official")) == {"train": 3, "validation": 0, "test": 2}


def test_without_lists_the_sets_own_shares_are_seeded():
    assert counts(divide(labels(), SHARES, "official")) == {"train": 80, "validation": 0, "test": 20}
    assert divide(labels(), SHARES, "official") == divide(labels(), SHARES, "official")


def test_the_papers_nine_to_one_ignores_published_lists():
    divided = divide(labels(1000, "test"), SHARES, "paper")
    assert counts(divided) == {"train": 900, "validation": 0, "test": 100}
    assert [one.image for one in divided] == [one.image for one in labels(1000)]


@pytest.mark.parametrize("entry", [lambda name: {"image": name, "gt_score": 3.1}, lambda name: name])
def test_a_published_json_list(entry, tmp_path):
    names = ["session0/3.jpg", "4.jpg", "imgs/session2/5.jpg", "session9/6.jpg"]
    (tmp_path / "test.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([entry(name) for name in names]).encode())
    divided = divide(labels(), SHARES, str(tmp_path / "test.json"))
    assert [one.image for one in divided if one.split == "test" and not one.fault] == [
        "imgs/session0/3.jpg",
        "imgs/session1/4.jpg",
        "imgs/session2/5.jpg",
    ]
    assert [(one.image, one.fault) for one in divided if one.fault] == [
        ("session9/6.jpg", "in test.json, without a label")
    ]


def test_lists_by_split(tmp_path):
    (tmp_path / "lists.json").write_text(json.dumps({"test": ["1.jpg"], "validation": ["2.jpg", "3.jpg"]}))
    assert counts(divide(labels(), SHARES, str(tmp_path / "lists.json"))) == {"train": 97, "validation": 2, "test": 1}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('["nowhere.jpg"]', "names no picture of the set"),
        ("[]", "names no picture of the set"),
        ("{", "not JSON"),
        ('{"dev": []}', "dev must be a list"),
        ('[{"name": "a.jpg"}]', "neither a name nor"),
        (None, "No such file"),
    ],
)
def test_a_wrong_list_is_named(content, says, tmp_path):
    if content is not None:
        (tmp_path / "list.json").write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        divide(labels(), SHARES, str(tmp_path / "list.json"))
    assert "data.split_by" in str(caught.value)


def test_validation_is_carved_out_of_train():
    train = [f"{i}.jpg" for i in range(1000)]
    assert len(carve(train, 0)) == 50
    assert carve(train, 0) != carve(train, 1)
    assert len(carve([f"{i}" for i in range(100_000)], 0)) == 500
    assert len(carve(train[:3], 0)) == 1
