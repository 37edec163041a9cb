"""Pretraining of a smaller tiny model: reproducible, learns facts, and never an opinion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import PretrainSettings
from aes_r1.trainer import pretrain
from aes_r1.trainer.lessons import PictureFacts
from tests.conftest import picture


def pretrained(folder, messages=None):
    pretrain.pretrain_tiny(
        folder,
        corpus=["a dull picture with flat light . "] * 50,
        pretrain=PretrainSettings(pictures=64, epochs=2, batch_size=16),
        max_pixels=9216,
        report=lambda done, total, text: messages.append(text) if messages is not None else None,
    )
    return backbones.load(str(folder), dtype="float32", max_pixels=9216)


@pytest.mark.slow
def test_pretraining_is_reproducible_and_learns(tmp_path):
    messages: list[str] = []
    first, second = pretrained(tmp_path / "one", messages), pretrained(tmp_path / "two")
    weights = second.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.model.state_dict().items())
    losses = [float(text.split()[1]) for text in messages if text.startswith("saying")]
    assert len(losses) == 8
    assert losses[-1] < losses[0]


def test_each_kind_of_pictures_has_numbers_of_its_own():
    made = [np.array([0.1, 0.2], np.float32)] * 2
    taken = [np.array([0.3, np.nan, 0.5], np.float32)]
    expected = [[0.1, 0.2, *[np.nan] * 3], [0.1, 0.2, *[np.nan] * 3], [np.nan, np.nan, 0.3, np.nan, 0.5]]
    assert pretrain._side_by_side([made, taken]) == pytest.approx(np.array(expected, np.float32), nan_ok=True)
    assert pretrain._side_by_side([made]) == pytest.approx(np.array(made))


@pytest.mark.slow
def test_what_was_stopped_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "SAVE_EVERY", 2)
    few = {"corpus": ["a dull picture . "], "pretrain": PretrainSettings(pictures=24, epochs=1, batch_size=4)}

    def stop(done: int, total: int, text: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain_tiny(tmp_path / "stopped", **few, max_pixels=4096, report=stop)
    said: list[int] = []
    for name in ("stopped", "whole"):
        pretrain.pretrain_tiny(
            tmp_path / name, **few, max_pixels=4096, report=lambda done, total, text: said.append(done)
        )
    assert said == [0, 5, 6, 0, 1, 2, 3, 4, 5, 6]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("stopped", "whole")]
    assert weights[0] == weights[1]
    assert not RunFolder(tmp_path / "stopped").checkpoints.exists()


@pytest.mark.slow
def test_photographs_stand_beside_the_scenes_and_an_unknown_number_is_no_error(tmp_path):
    """Half of the pictures are photographs, so an epoch has twice the steps, and every loss is finite."""
    numbers = np.array([0.5, np.nan], np.float32)
    facts = PictureFacts("sharp 5. edges 1. hues gray 2. warm 3. bright 4.", [("How bright?", 0.4)], 4, numbers)
    photographs = [(picture(96, 96, seed), facts) for seed in range(16)]
    said: list[str] = []
    pretrain.pretrain_tiny(
        tmp_path,
        corpus=["a dull picture . "],
        pretrain=PretrainSettings(data="photographs", pictures=16, epochs=1, batch_size=8),
        max_pixels=9216,
        report=lambda done, total, text: said.append(text),
        photographs=photographs,
    )
    losses = [[float(text.split()[1]), float(text.split()[3])] for text in said if text.startswith("saying")]
    assert len(losses) == 4
    assert np.isfinite(losses).all()
    assert all(np.array(losses)[:, 1] > 0)
