"""The images of a step: what identifies a completion, and with it its noise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from aes_r1.data.manifest import read_manifest, write_manifest
from aes_r1.data.pairs import Pair
from aes_r1.data.sample import Sample
from aes_r1.rollout.sampler import keyed_uniform_noise
from aes_r1.settings import TrainerSettings
from aes_r1.trainer.refill import Refill, stand_ins
from aes_r1.trainer.step_images import StepImages, UpcomingImages, is_mixed

ALONE = SimpleNamespace(rank=0, size=1)
TRAINER = TrainerSettings(images_per_step=4, num_samples=2, edited_pairs=4, edits=["tilt"], max_steps=9)


def pictures(*sets: str, ids: tuple[str, ...] = ("10", "20")) -> list[Sample]:
    return [
        Sample(one, f"/{name}/{one}.jpg", 0.25 + 0.5 * (one == "10"), name, "train") for name in sets for one in ids
    ]


def step_of(images, step: int = 3) -> StepImages:
    """The images of a step of a run over `images`, whose pictures are not opened."""
    upcoming = object.__new__(UpcomingImages)
    upcoming.images, upcoming.trainer, upcoming.engine, upcoming.seed = images, TRAINER, ALONE, 7
    upcoming.first_pass, upcoming.mixed = None, is_mixed(images)
    return upcoming._of(step)


def test_pictures_of_two_sets_that_share_an_id_have_their_own_noise_and_edits():
    step = step_of(pictures("ava", "koniq"))
    assert len(step.local) == 8
    keys = {(one.dataset, one.id): step.keys[2 * index :][:2] for index, one in enumerate(step.local)}
    for name in ("10", "20", "10+tilt", "20+tilt"):
        first, second = (keyed_uniform_noise(keys[dataset, name], 8) for dataset in ("ava", "koniq"))
        assert not torch.equal(first, second), name
    edits = {(one.dataset, one.id): one.edit_seed for one in step.local[4:]}
    for name in ("10+tilt", "20+tilt"):
        assert edits["ava", name] != edits["koniq", name]


def test_a_run_of_one_set_keeps_its_noise_and_edits():
    """An id alone names its pictures, whatever the set is called."""
    step = step_of(pictures("ava", ids=("10", "20", "30", "40")))
    assert step.keys == [(7, 3, one.id, k) for one in step.local for k in range(2)]
    assert {one.edit_seed for one in step.local[4:]} == {7}
    assert step.keys == step_of(pictures("koniq", ids=("10", "20", "30", "40"))).keys


@pytest.mark.parametrize(
    ("places", "further", "chosen", "drawn"),
    [
        # Places 0..3 of one process are its images 0..3; what it draws is numbered from 4.
        ([1, 3], [7, 9], [[0, 4, 2, 5]], [7, 9]),
        # Of two, places 1 and 3 are images 0 and 1 of the second; the first draws as many, which it does not use.
        ([1, 3], [7, 9], [[0, 1], [2, 3]], [7, 7, 7, 9]),
        ([0, 2, 3], [7, 8, 9], [[2, 3], [0, 2]], [7, 9, 8, 7]),
        # Of four, each has one place.
        ([2], [7], [[0], [0], [1], [0]], [7, 7, 7, 7]),
        # Where the images of the run are used up, the later places stay as they are.
        ([0, 1, 3], [7], [[2, 1], [0, 1]], [7, 7]),
    ],
)
def test_every_further_image_takes_the_place_of_one_of_the_step(places, further, chosen, drawn):
    processes = len(chosen)
    found = stand_ins(further, places, count=4 // processes, processes=processes)
    assert found == (chosen, drawn)
    # All processes together hold the images of one process, whatever their number.
    held = []
    for place in range(4):
        local, rank = divmod(place, processes)
        index = chosen[rank][local] - 4 // processes
        held.append(drawn[rank::processes][index] if index >= 0 else place)
    expected = list(range(4))
    for place, image in zip(places, further, strict=False):
        expected[place] = image
    assert held == expected


def test_whether_a_run_has_several_sets_is_asked_of_all_its_images(tmp_path):
    """Not of a step, which may hold one set by chance; in a list on disk and of pairs, too."""
    one, two = pictures("ava"), pictures("ava", "koniq")
    assert not is_mixed(one)
    assert is_mixed(two)
    write_manifest(two, tmp_path / "two.jsonl")
    assert is_mixed(read_manifest(tmp_path / "two.jsonl"))
    assert is_mixed([Pair(*two[:2]), Pair(*two[2:])])
    assert not is_mixed([Pair(*one)])
    for images in (one, two):
        refill = Refill(images, None, None, TRAINER, ALONE, seed=7)
        expected = [(7, 3, *(("ava",) if images is two else ()), "10", k) for k in range(2)]
        assert refill._step_images(3, images[:1]).keys == expected
