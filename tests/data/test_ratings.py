"""People's ratings of single dimensions: published files, own columns, scales, and what is refused."""

from __future__ import annotations

import json

import pytest

from aes_r1.data.loader import load_samples
from aes_r1.data.manifest import read_manifest, write_manifest
from aes_r1.data.ratings import known_ratings
from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS
from aes_r1.settings import DataSettings, InputError
from tests.data.layouts import put
from tests.data.test_published import rows_of

FACTORS = dict(zip(DIMENSIONS, (0.25, 0.5, 0.75, 0.5, 1.0), strict=True))
OWN = b"image,mos,harmony,frame\na.png,0.5,0.25,7\nb.png,0.6,,10\n"


def test_para_and_aadb_on_their_own_scales(tmp_path):
    expected = {"light_and_shadow": "lightScore_mean", "composition": "compositionScore_mean"}
    labels, _ = rows_of("para", tmp_path / "para", attributes=expected)
    assert labels["iaa_Train.jpg"].attributes["ratings"] == pytest.approx({"light_and_shadow": 1, "composition": 0.75})
    assert labels["iaa_Test.jpg"].attributes["ratings"] == {"light_and_shadow": 1, "composition": 0}
    labels, _ = rows_of("aadb", tmp_path / "aadb", attributes={"color": "ColorHarmony"})
    result = {name: sample.attributes["ratings"]["color"] for name, sample in labels.items()}
    assert result == {
        "farm1_a_b.jpg": 0.25, "farm1_c d.jpg": 1, "farm1_v.jpg": 0.5, "farm1_t.jpg": 0.75, "farm1_u.jpg": 0,
    }  # fmt: skip


def samples(root, attributes):
    return load_samples(DataSettings("folder", str(root), attributes=attributes), "test", seed=0, store=root)


def test_own_columns_with_their_scale_and_empty_cells(tmp_path):
    put(tmp_path, "labels.csv", b"image,mos,split,harmony,frame\na.png,0.5,test,0.25,7\nb.png,0.6,test,,10\n")
    first, second = samples(tmp_path, {"color": "harmony", "composition": ["frame", 1, 10]})
    assert known_ratings(first) == pytest.approx({"color": 0.25, "composition": 6 / 9})
    assert known_ratings(second) == {"composition": 1}


def test_a_list_names_columns_called_as_their_dimension(tmp_path):
    rows = [{"image": f"{k}.png", "mos": 0.5, "color": k / 4, "split": "test"} for k in range(2)]
    put(tmp_path, "labels.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert [known_ratings(sample) for sample in samples(tmp_path, ["color"])] == [{"color": 0}, {"color": 0.25}]


def test_a_manifest_keeps_ratings_and_scenes_know_their_factors(tmp_path):
    sample = Sample("a", str(tmp_path / "a.png"), 0.5, "para", "train", attributes={"ratings": {"color": 0.25}})
    write_manifest([sample], tmp_path / "manifest.jsonl")
    assert known_ratings(read_manifest(tmp_path / "manifest.jsonl")[0]) == {"color": 0.25}
    scene = Sample("a", "a.png", 0.5, "scenes", "train", attributes={"factors": FACTORS})
    assert known_ratings(scene) == FACTORS


def test_factors_are_known_of_scenes_alone():
    both = {"factors": FACTORS, "ratings": {"color": 0.75}}
    assert known_ratings(Sample("a", "a.png", 0.5, "mine", "train", attributes=both)) == {"color": 0.75}
    assert known_ratings(Sample("a", "a.png", 0.5, "scenes", "train", attributes=both)) == FACTORS


def test_a_row_of_json_that_lacks_a_rated_key_is_named(tmp_path):
    rows = [{"image": "a.png", "mos": 0.5, "frame": 0.3}, {"image": "b.png", "mos": 0.6}]
    put(tmp_path, "labels.jsonl", "\n".join(map(json.dumps, rows)).encode())
    with pytest.raises(InputError, match=r"labels\.jsonl, line 2: no such key; it has image, mos; write null where"):
        samples(tmp_path, {"composition": "frame"})


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"lighting": "harmony"}, "data.attributes.lighting: no such dimension; there are light_and_shadow"),
        ({"color": "hue"}, "has no such column; it has image, mos, harmony, frame"),
        ({"composition": "frame"}, "a.png has 7, outside 0..1; give the ends of its scale: composition: [frame, LOW"),
        ({"color": "image"}, "image='a.png' is not a number"),
        ({"color": ["harmony", 1]}, "data.attributes.color=['harmony', 1]: must be a column, or [column, low, high]"),
        ({"color": ["harmony", 5, 1]}, "must be a column, or [column, low, high] with low below high"),
        ("harmony", "data.attributes=harmony: must be {dimension: column}, a list or null"),
    ],
)
def test_what_is_wrong_is_named(attributes, says, tmp_path):
    put(tmp_path, "labels.csv", OWN)
    with pytest.raises(InputError) as caught:
        samples(tmp_path, attributes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("again", ["a.png", "./a.png"])
@pytest.mark.parametrize("harmony", ["0.75", ""])
def test_two_rows_may_not_rate_a_picture_differently(harmony, again, tmp_path):
    put(tmp_path, "labels.csv", OWN + f"{again},0.5,{harmony},7\n".encode())
    with pytest.raises(InputError) as caught:
        samples(tmp_path, {"color": "harmony"})
    name = tmp_path / "labels.csv"
    assert str(caught.value) == f"{name}, line 4: {again} has other ratings in an earlier row; keep one"


def test_a_row_that_stands_twice_is_used_once(tmp_path):
    put(tmp_path, "labels.csv", b"image,mos,split,harmony\n" + 2 * b"a.png,0.5,test,0.25\n")
    assert [known_ratings(sample) for sample in samples(tmp_path, {"color": "harmony"})] == [{"color": 0.25}]


def test_a_missing_list_of_aadb_and_a_set_without_ratings(tmp_path):
    with pytest.raises(InputError, match=r"Regression_Light\.txt; of that split there are ColorHarmony, score"):
        rows_of("aadb", tmp_path / "aadb", attributes={"light_and_shadow": "Light"})
    with pytest.raises(InputError, match="data=ava holds no ratings of dimensions; folder, para, aadb, eva may"):
        rows_of("ava", tmp_path / "ava", attributes={"color": "x"})
    with pytest.raises(InputError, match="data=scenes has no columns"):
        load_samples(DataSettings("scenes", attributes={"color": "x"}), "train", seed=0, store=tmp_path)
