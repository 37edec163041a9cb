"""The loops on prompts of two pictures: what is learned, what is drawn, resume, shared prefix."""

from __future__ import annotations

import copy

import pytest
import torch

from aes_r1.data.pairs import draw_pairs
from aes_r1.model import tiny
from aes_r1.prompts import PAIR_PROMPT, parse_choice
from aes_r1.runs.stopping import Stopped
from aes_r1.settings import InputError
from aes_r1.trainer.sft import encode_example
from aes_r1.trainer.taught import comparisons
from tests.conftest import twelve_pictures
from tests.trainer.cold_starts import train_comparer
from tests.trainer.test_loops import rapo, weights
from tests.trainer.twelve import compared, of_pairs, records, samples


@pytest.fixture(scope="module")
def comparer(tokenizer, tmp_path_factory):
    folder = twelve_pictures(tmp_path_factory.mktemp("compared"))
    backbone = tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0)
    return train_comparer(backbone, folder, tmp_path_factory.mktemp("steps"))


def compare_in_rapo(backbone, folder, out, **changes):
    pairs = draw_pairs(samples(folder), margin=0.2, seed=0)
    settings = {"max_new_tokens": 48, "temperature": 1.3, **changes}  # at 1 nearly every answer is right
    return rapo(backbone, folder, out, images=pairs, question=PAIR_PROMPT, reward=of_pairs(), **settings)


def test_a_comparison_is_made_of_two_critiques_and_names_the_better(picture_folder, backbone):
    made = compared(picture_folder)
    by_image = {row["image"]: row for row in records(picture_folder)}
    assert {image for row in made for image in row["images"]} == by_image.keys()
    for row in made:
        first, second = (by_image[image] for image in row["images"])
        better = 1 if first["mos"] > second["mos"] else 2
        assert abs(first["mos"] - second["mos"]) >= 0.2
        said = f"<think>First: {first['critique']} Second: {second['critique']}</think>"
        assert row["answer"] == f"{said}<answer>{better}</answer>"
        assert parse_choice(row["answer"]) == better
    prompt, target = encode_example((made[0], True), backbone=backbone, question="not asked")
    assert len(prompt.image_grid_thw) == 2
    assert backbone.tokenizer.decode(prompt.input_ids).count(PAIR_PROMPT) == 1
    assert backbone.decode(torch.tensor(target[:-1])) == made[0]["answer"]


def test_as_many_comparisons_as_were_asked_for(picture_folder):
    rows = records(picture_folder)
    every, half = (comparisons(rows, share=share, margin=0.2, seed=0) for share in (1.0, 0.5))
    assert len(half) == round(len(every) / 2)
    assert {frozenset(row["images"]) for row in half} <= {frozenset(row["images"]) for row in every}
    firsts = [row["answer"].endswith("<answer>1</answer>") for row in half]
    assert abs(2 * sum(firsts) - len(half)) <= 1
    with pytest.raises(InputError, match=r"reward\.pair\.margin=0\.95: cold_start\.pairs=0\.5 leaves no two critiques"):
        comparisons(rows, share=0.5, margin=0.95, seed=0)


@pytest.mark.slow
def test_rapo_on_pairs_resumes_bit_for_bit_and_logs_both_pictures(comparer, picture_folder, tmp_path):
    whole = copy.deepcopy(comparer)
    rows, completions = compare_in_rapo(whole, picture_folder, tmp_path / "whole")
    parted = copy.deepcopy(comparer)
    with pytest.raises(Stopped):
        compare_in_rapo(parted, picture_folder, tmp_path / "parted", stop_after=2)
    again = copy.deepcopy(comparer)
    resumed, _ = compare_in_rapo(again, picture_folder, tmp_path / "parted")
    assert resumed == rows[2:]
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name
    assert 0 < rows[0]["reward/pair"] < 1
    assert rows[0]["policy/grad_norm"] > 0
    mos = {row["image"]: row["mos"] for row in records(picture_folder)}
    for row in completions:
        better = 1 if mos[row["image"]] > mos[row["second"]] else 2
        assert (row["mos"], row["score"]) == (better, parse_choice(row["text"]))
        assert row["reward_pair"] == (row["score"] == better)


@pytest.mark.slow
def test_two_pictures_computed_once_for_a_group_train_as_copies_do(comparer, picture_folder, tmp_path):
    found = []
    for shared in (True, False):
        backbone = copy.deepcopy(comparer)
        rows, _ = compare_in_rapo(backbone, picture_folder, tmp_path / str(shared), steps=1, shared_prefix=shared)
        found.append((rows[0], weights(backbone)))
    (grouped, grouped_weights), (plain, plain_weights) = found
    assert grouped == pytest.approx(plain, abs=1e-5, rel=1e-4)
    for name, value in plain_weights.items():
        # Adam's first step is as large for the smallest gradient, whose rounding is then that of the weight.
        torch.testing.assert_close(grouped_weights[name], value, atol=1e-4, rtol=1e-4)
