from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from aes_r1.settings import InputError
from aes_r1.trainer import checkpoint
from aes_r1.trainer.engine import SingleEngine


def engine(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Linear(3, 2)
    made = SingleEngine(model, weight_decay=0.1, max_grad_norm=1.0, device=torch.device("cpu"))
    for _ in range(3):
        made.backward(model(torch.randn(4, 3)).square().mean())
        made.step(0.1)
    return made


def test_everything_comes_back(tmp_path):
    first = engine()
    checkpoint.save(tmp_path, 3, first, {"best": 0.5}, keep=2)
    wanted = [random.random(), np.random.rand(), torch.rand(3)]
    second = engine(seed=1)
    assert checkpoint.load_latest(tmp_path, second) == {"step": 3, "best": 0.5}
    assert [random.random(), np.random.rand()] == wanted[:2]
    assert torch.equal(torch.rand(3), wanted[2])
    assert torch.equal(first.model.weight, second.model.weight)
    for one, other in zip(
        first.optimizer.state_dict()["state"].values(), second.optimizer.state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])) for name in one)


def test_only_the_last_are_kept(tmp_path):
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, engine(), {}, keep=2)
    assert checkpoint.steps(tmp_path) == [2, 10]


def test_half_a_checkpoint_is_none(tmp_path):
    checkpoint.save(tmp_path, 1, engine(), {}, keep=2)
    (tmp_path / ".step_2.partial").mkdir()
    (tmp_path / ".step_2.partial" / "state.pt").write_bytes(b"half")
    assert checkpoint.steps(tmp_path) == [1]
    checkpoint.save(tmp_path, 2, engine(), {}, keep=2)
    assert checkpoint.steps(tmp_path) == [1, 2]


def test_nothing_to_load(tmp_path):
    assert checkpoint.load_latest(tmp_path, engine()) is None


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the checkpoint"):
        checkpoint.save(tmp_path / "file", 1, engine(), {}, keep=2)
