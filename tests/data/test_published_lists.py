"""Published test lists are found by their name below data.root and checked; what is refused names the address."""

from __future__ import annotations

import json

import pytest

from aes_r1.data.catalog import CATALOG, read_set
from aes_r1.data.loader import load_samples
from aes_r1.data.published_lists import LISTS, published_list
from aes_r1.settings import DataSettings, InputError
from aes_r1.settings.data import SPLITS_BY
from tests.data.layouts import LAYOUTS, SCALES, put

EVERY = [(split_by, name) for split_by, (_, files) in LISTS.items() for name in files]


def put_list(root, inside, names) -> None:
    put(root, inside, json.dumps([{"image": name, "gt_score": 3.1} for name in names]).encode())


def test_the_names_are_settings_of_known_sets():
    assert set(LISTS) == set(SPLITS_BY) - {"official", "paper"}
    for split_by, name in EVERY:
        assert name in CATALOG
        DataSettings(name=name, split_by=split_by)


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(("split_by", "name"), EVERY)
@pytest.mark.slow
def test_a_list_is_found_in_the_root_and_where_its_repository_has_it(split_by, name, beside, tmp_path):
    LAYOUTS[name](tmp_path)
    labels, _ = read_set(name, tmp_path, scale=SCALES.get(name))
    own = sorted(label.image.rsplit("/", 1)[-1] for label in labels)[0]
    inside, count = LISTS[split_by][1][name]
    names = [own, *(f"unknown{number}.jpg" for number in range(count - 1))]
    put_list(tmp_path, inside.rsplit("/", 1)[-1] if beside else inside, names)
    labels, dropped = read_set(name, tmp_path, split_by=split_by, scale=SCALES.get(name))
    assert {label.image.rsplit("/", 1)[-1] for label in labels if label.split == "test"} == {own}
    assert sum("without a label" in (one.fault or "") for one in dropped) == count - 1


@pytest.mark.parametrize("names", [["1.jpg"], [f"{number}.jpg" for number in range(3001)], ["1.jpg"] * 3000, []])
def test_a_list_of_another_length_is_refused_with_the_address(names, tmp_path):
    put_list(tmp_path, "test.json", names)
    with pytest.raises(InputError) as caught:
        published_list("artimuse", "para", tmp_path)
    assert str(caught.value) == (
        f"data.split_by=artimuse: {tmp_path}/test.json holds {len(set(names))} test pictures, the published list "
        "only 3000 test pictures; "
        "copy test_datasets/PARA/test.json of github.com/thunderbolt215/ArtiMuse again, or give "
        f"data.split_by={tmp_path}/test.json for a list of your own"
    )


def test_a_list_that_is_not_there_and_one_that_does_not_exist_are_refused_with_the_address(tmp_path):
    with pytest.raises(InputError) as caught:
        published_list("unipercept", "koniq", tmp_path)
    assert str(caught.value) == (
        f"data.split_by=unipercept: no KonIQ-10K.json in data.root={tmp_path}; copy "
        "benchmark/VR/IQA/KonIQ-10K/KonIQ-10K.json of github.com/thunderbolt215/UniPercept there"
    )
    with pytest.raises(InputError, match=r"github.com/thunderbolt215/ArtiMuse has no list of data=koniq; .*ava, "):
        published_list("artimuse", "koniq", tmp_path)


def test_further_splits_in_a_published_list_are_named(tmp_path):
    names = [f"{number}.jpg" for number in range(3000)]
    put(tmp_path, "test.json", json.dumps({"test": names, "train": ["x.jpg"]}).encode())
    with pytest.raises(InputError, match="holds 3000 test pictures and lists of train, the published list only 3000"):
        published_list("artimuse", "para", tmp_path)


def test_a_manifest_has_splits_of_its_own(tmp_path):
    """Its rows were divided when it was prepared; the name of a list would have no effect."""
    data = DataSettings("manifest", str(tmp_path / "manifest.jsonl"), split_by="artimuse")
    (tmp_path / "manifest.jsonl").touch()
    with pytest.raises(InputError, match=r"split_by=artimuse: .*manifest\.jsonl has splits of its own; give it to aes"):
        load_samples(data, "test", seed=0, store=tmp_path)
