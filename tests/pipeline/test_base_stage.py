"""The base model that sees photographs: training ones alone, and a name that moves with their content."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from aes_r1.data.sample import Sample
from aes_r1.data.scenes import SCENES_VERSION
from aes_r1.pipeline.base_stage import _seen, pretrained_digest, training_photographs
from aes_r1.pipeline.preflight import check_run
from aes_r1.runs.identity import fingerprint
from aes_r1.settings import InputError, PretrainSettings, Settings, build_settings
from aes_r1.trainer.pretrain import BASE_MODEL_VERSION

PHOTOGRAPHS = PretrainSettings(data="photographs", pictures=4, batch_size=4)


def samples(folder: Path, split: str = "train") -> list[Sample]:
    return [Sample(one.stem, str(one), 0.5, "folder", split) for one in sorted(folder.glob("*.png"))]


def test_held_out_pictures_are_never_seen_even_under_another_name(picture_folder, tmp_path):
    pictures = samples(picture_folder)
    shutil.copy(pictures[0].image, tmp_path / "copy.jpg")
    validation = [Sample("copy", str(tmp_path / "copy.jpg"), 0.5, "folder", "validation")]
    for seed in range(5):
        twelve = dataclasses.replace(PHOTOGRAPHS, pictures=12, seed=seed)
        drawn = training_photographs(pictures, [validation, pictures[1:9]], twelve)
        assert {one.id for one in drawn} == {"09", "10", "11"}
    assert len(training_photographs(pictures, [], PHOTOGRAPHS)) == 4
    with pytest.raises(
        InputError, match=r"^model\.pretrain\.data=photographs: each of 4 training pictures .* give data"
    ):
        training_photographs(pictures, [pictures], PHOTOGRAPHS)


@pytest.mark.slow
def test_the_first_photographs_are_of_every_set_in_its_share(picture_folder):
    """The tokenizer learns the facts of the first ones alone, and a mix lists one data set after another."""
    pictures = samples(picture_folder)[:6] * 100
    mix = [dataclasses.replace(one, id=f"{k}", dataset="a" if k < 400 else "b") for k, one in enumerate(pictures)]
    all_of_them = dataclasses.replace(PHOTOGRAPHS, pictures=600)
    drawn = training_photographs(mix, [], all_of_them)
    assert {one.id for one in drawn} == {one.id for one in mix}
    assert 50 < sum(one.dataset == "b" for one in drawn[:200]) < 83, "a third of them, within three deviations"
    assert drawn == training_photographs(mix, [], all_of_them)
    assert drawn != training_photographs(mix, [], dataclasses.replace(all_of_them, seed=1))


def test_the_name_moves_with_content_ratings_and_draw_and_not_with_the_folder(picture_folder, tmp_path):
    pictures = samples(picture_folder)
    digest = pretrained_digest(PHOTOGRAPHS, 9216, pictures)
    moved = shutil.copytree(picture_folder, tmp_path / "moved")
    assert pretrained_digest(PHOTOGRAPHS, 9216, samples(moved)) == digest
    rated = [dataclasses.replace(pictures[0], attributes={"ratings": {"color": 0.5}}), *pictures[1:]]
    shutil.copy(moved / "01.png", moved / "00.png")
    others = [
        pretrained_digest(PHOTOGRAPHS, 9216, samples(moved)),
        pretrained_digest(PHOTOGRAPHS, 9216, rated),
        pretrained_digest(PHOTOGRAPHS, 9216, pictures[1:]),
        pretrained_digest(PHOTOGRAPHS, 4096, pictures),
        pretrained_digest(PretrainSettings(pictures=4, batch_size=4), 9216),
    ]
    assert len({digest, *others}) == 6


def test_the_name_of_a_base_of_scenes_is_the_one_that_it_had_before_there_were_photographs():
    values = {"pictures": 32, "epochs": 1, "batch_size": 32, "lr": 2e-3, "seed": 0}
    before = fingerprint(values, 9216, BASE_MODEL_VERSION, SCENES_VERSION)
    assert pretrained_digest(PretrainSettings(pictures=32, epochs=1), 9216) == before


@pytest.mark.slow
def test_a_photograph_is_measured_whole_and_kept_small(picture_folder):
    seen = _seen(samples(picture_folder)[:3], 256, 0, lambda *_: None)
    assert [picture.size for picture, _ in seen] == [(32, 32)] * 3
    assert len({facts.description for _, facts in seen}) > 1
    assert all(np.isfinite(facts.numbers).any() for _, facts in seen)
    broken = Sample("gone", str(picture_folder / "gone.png"), 0.5, "folder", "train")
    with pytest.raises(InputError, match=r"gone\.png: .*the same command goes on"):
        _seen([broken], 256, 0, lambda *_: None)


def test_made_scenes_are_no_photographs(tmp_path):
    values = {"model": {"base": "pretrain", "pretrain": {"data": "photographs"}}, "out": str(tmp_path / "run")}
    with pytest.raises(InputError, match=r"^model\.pretrain\.data=photographs: data=scenes holds made scenes; give"):
        check_run(build_settings(Settings, values))
