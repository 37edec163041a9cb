"""Both loops on a tiny random relative of every backbone family: losses are finite, and weights of all parts move."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.model import families
from aes_r1.settings import ErrorSettings, RewardSettings
from tests.model.siblings import save_sibling
from tests.trainer import test_loops
from tests.trainer.cold_starts import engine_of, train_cold_start
from tests.trainer.test_loops import rapo, weights
from tests.trainer.twelve import records

# Decay would move a weight that no gradient reaches.
without_decay = functools.partial(engine_of, weight_decay=0.0)


@pytest.fixture(params=families.FAMILIES)
def sibling(request, tmp_path):
    return backbones.load(save_sibling(request.param, tmp_path / "model"), dtype="float32", max_pixels=9216)


def parts_moved(backbone, before: dict[str, torch.Tensor]) -> dict[str, float]:
    """The share of the weights, by name, that differ from `before`, in the vision tower and in the rest."""
    moved: dict[str, list[bool]] = {"vision": [], "language": []}
    for name, value in weights(backbone).items():
        part = "vision" if families.is_vision(name) else "language"
        moved[part].append(not torch.equal(value, before[name]))
    return {part: sum(flags) / len(flags) for part, flags in moved.items()}


def assert_trained(backbone, before: dict[str, torch.Tensor]) -> None:
    """Nearly all weights of both parts move: a bias of keys has no gradient but that of rounding."""
    assert all(value.isfinite().all() for value in weights(backbone).values())
    moved = parts_moved(backbone, before)
    assert min(moved.values()) > 0.8, moved


@pytest.mark.slow
def test_two_steps_of_the_cold_start(sibling, picture_folder, tmp_path):
    before, losses = weights(sibling), []
    train_cold_start(
        sibling, without_decay(sibling), records(picture_folder), tmp_path / "out",
        log=lambda step, values: losses.append(values["sft/loss"]), batch_size=6, epochs=1,
    )  # fmt: skip
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    assert_trained(sibling, before)


@pytest.mark.slow
def test_two_steps_of_rapo(sibling, picture_folder, tmp_path, monkeypatch):
    """Answers of a random model cannot be read; guesses in their place make rewards, and so advantages, differ."""
    monkeypatch.setattr(test_loops, "engine_of", without_decay)
    before = weights(sibling)
    rows, completions = rapo(
        sibling, picture_folder, tmp_path / "out", steps=2, max_new_tokens=6, mask_truncated=False,
        reward=RewardSettings(error=ErrorSettings(sigma=0.3), failed_parse="random"),
    )  # fmt: skip
    assert len(rows) == 2
    for row in rows:
        assert math.isfinite(row["policy/loss"])
        assert row["policy/grad_norm"] > 0
        assert row["policy/skipped_steps"] == 0
        assert row["policy/kl_k3"] >= 0
    assert rows[1]["policy/kl_k3"] > rows[0]["policy/kl_k3"]  # the reference stayed where the policy began
    assert any(row["advantage"] for row in completions)
    assert_trained(sibling, before)
