from __future__ import annotations

import json
import logging
import math
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from aes_r1.settings import InputError
from aes_r1.trainer import checkpoint
from aes_r1.trainer.single_engine import SingleEngine
from aes_r1.trainer.step_metrics import mean_validation_srcc


def engine(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Linear(3, 2)
    trained = SingleEngine(model, weight_decay=0.1, max_grad_norm=1.0, device=torch.device("cpu"))
    for _ in range(3):
        trained.backward(model(torch.randn(4, 3)).square().mean())
        trained.step(0.1)
    return trained


class Killed(BaseException):
    """Simulates kill -9: no code runs after it."""


def killed_at(number: int, operations: list[tuple[object, str]], save: Callable[[], object], monkeypatch) -> bool:
    """Run `save`, which is killed at its `number`-th file operation; return whether it has so many."""
    left = number

    def dying(plain):
        def operation(*arguments, **named):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return plain(*arguments, **named)

        return operation

    with monkeypatch.context() as patched:
        for owner, name in operations:
            patched.setattr(owner, name, dying(getattr(owner, name)))
        try:
            save()
        except Killed:
            return True
    return False


def test_weights_optimizer_generators_and_progress_come_back(tmp_path):
    first = engine()
    best = {"step": 2, "score": 0.5}
    checkpoint.save_checkpoint(tmp_path, 3, first, {"best": best}, keep=2)
    wanted = [random.random(), np.random.rand(), torch.rand(3)]
    second = engine(seed=1)
    progress = checkpoint.load_latest(tmp_path, second)
    assert (progress["step"], progress["best"], progress["processes"]) == (3, best, 1)
    assert [random.random(), np.random.rand()] == wanted[:2]
    assert torch.equal(torch.rand(3), wanted[2])
    assert torch.equal(first.model.weight, second.model.weight)
    moments = (trained.optimizer.state_dict()["state"].values() for trained in (first, second))
    for saved, loaded in zip(*moments, strict=True):
        assert all(torch.equal(torch.as_tensor(saved[name]), torch.as_tensor(loaded[name])) for name in saved)


@pytest.mark.gpu
def test_a_run_on_cuda_goes_on_with_its_own_noise(tmp_path):
    """Dropout draws from the device's generator, so the weights tell whether that came back."""

    def untrained(seed: int) -> SingleEngine:
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 2))
        return SingleEngine(model.train(), weight_decay=0.1, max_grad_norm=1.0, device=torch.device("cuda", 0))

    def trained(engine: SingleEngine, steps: int) -> torch.Tensor:
        for _ in range(steps):
            engine.backward(engine.model(torch.randn(4, 3, device="cuda")).square().mean())
            engine.step(0.1)
        return engine.model[0].weight.detach().clone()

    first = untrained(0)
    trained(first, 3)
    checkpoint.save_checkpoint(tmp_path, 3, first, {}, keep=2)
    wanted = trained(first, 3)
    second = untrained(1)
    trained(second, 1)
    assert checkpoint.load_latest(tmp_path, second)["step"] == 3
    assert torch.equal(trained(second, 3), wanted)


def test_only_the_last_are_kept(tmp_path):
    for step in (1, 2, 10):
        checkpoint.save_checkpoint(tmp_path, step, engine(), {}, keep=2)
    assert checkpoint.steps(tmp_path) == [2, 10]


def test_a_copy_under_another_name_is_no_checkpoint_and_stays(tmp_path):
    checkpoint.save_checkpoint(tmp_path, 1, engine(), {}, keep=1, backbone=Written(1))
    copies = [tmp_path / name for name in ("step_1.bak", "step_1 (copy)", "step_", "step_-2", "step_best")]
    for copy in copies:
        shutil.copytree(tmp_path / "step_1", copy)
    before = sorted(path for copy in copies for path in copy.rglob("*"))
    assert checkpoint.steps(tmp_path) == [1]
    assert checkpoint.progress_of(tmp_path)["step"] == 1
    checkpoint.save_checkpoint(tmp_path, 2, engine(), {}, keep=1, backbone=Written(2))
    assert checkpoint.steps(tmp_path) == [2]
    assert checkpoint.load_latest(tmp_path, engine())["step"] == 2
    checkpoint.keep_only_models(tmp_path, final=3)
    assert [path.name for path in (tmp_path / "step_2").iterdir()] == ["model"]
    assert sorted(path for copy in copies for path in copy.rglob("*")) == before


def test_half_a_checkpoint_is_not_listed_and_does_not_hinder_the_next(tmp_path):
    checkpoint.save_checkpoint(tmp_path, 1, engine(), {}, keep=2)
    (tmp_path / ".step_2.partial").mkdir()
    (tmp_path / ".step_2.partial" / "state.pt").write_bytes(b"half")
    assert checkpoint.steps(tmp_path) == [1]
    checkpoint.save_checkpoint(tmp_path, 2, engine(), {}, keep=2)
    assert checkpoint.steps(tmp_path) == [1, 2]


class Written:
    """A fake backbone whose file names its step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def save_half(self, folder: Path) -> None:
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text(str(self.step))


def test_only_the_last_are_kept_whatever_was_best(tmp_path):
    """Checkpoints are for resuming; the best model has its own folder, without optimizer."""
    trained = engine()
    for step, score in ((1, 0.1), (2, 0.7), (3, 0.5), (4, 0.6)):
        if score == 0.7:
            checkpoint.save_best(tmp_path / "checkpoints", step, score, trained, Written(step))
        checkpoint.save_checkpoint(tmp_path / "checkpoints", step, trained, {}, keep=2, backbone=Written(step))
    assert checkpoint.steps(tmp_path / "checkpoints") == [3, 4]
    assert (tmp_path / "best" / "model" / "model.safetensors").read_text() == "2"
    assert json.loads((tmp_path / "best" / "validation.json").read_text()) == {"step": 2, "srcc": 0.7}
    assert {path.name for path in (tmp_path / "best").iterdir()} == {"model", "validation.json"}


def test_a_finished_run_keeps_the_models_of_its_checkpoints_alone(tmp_path):
    trained = engine()
    for step in (1, 2, 3):
        checkpoint.save_checkpoint(tmp_path, step, trained, {}, keep=3, backbone=Written(step))
    checkpoint.save_checkpoint(tmp_path, 4, trained, {}, keep=4)  # without a model, as an older version wrote them
    (tmp_path / "damaged_step_9").mkdir()
    for _ in range(2):  # a second call changes nothing
        checkpoint.keep_only_models(tmp_path, final=3)
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        models = {f"step_{step}/model/{name}" for step in (1, 2) for name in ("config.json", "model.safetensors")}
        assert left == models | {f"step_4/{name}" for name in ("progress.json", "random_0.pt", "state.pt")}
    assert not (tmp_path / "step_3").exists()
    assert checkpoint.steps(tmp_path) == [4]


def test_nobody_goes_on_from_a_checkpoint_that_is_being_pruned(tmp_path, monkeypatch):
    trained = engine()
    checkpoint.save_checkpoint(tmp_path, 1, trained, {}, keep=2, backbone=Written(1))
    plain, calls = Path.unlink, []

    def dying(path: Path, **named) -> None:
        calls.append(path.name)
        if len(calls) == 2:
            raise Killed
        plain(path, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", dying)
        with pytest.raises(Killed):
            checkpoint.keep_only_models(tmp_path, final=9)
    assert calls[0] == "progress.json"
    assert checkpoint.load_latest(tmp_path, engine(seed=1)) is None
    assert (tmp_path / "step_1" / "model" / "model.safetensors").read_text() == "1"


def test_the_best_step_is_the_first_with_the_highest_score():
    best = None
    for step, score in ((1, 0.2), (2, None), (3, 0.2), (4, 0.5), (5, 0.4)):
        best = checkpoint.better(best, step, score)
    assert best == {"step": 4, "score": 0.5}


@pytest.mark.parametrize("name", ["state.pt", "random_0.pt", "progress.json"])
@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
@pytest.mark.slow
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, name, harm):
    checkpoint.save_checkpoint(tmp_path, 1, engine(), {}, keep=2)
    wanted = engine().model.weight
    checkpoint.save_checkpoint(tmp_path, 2, engine(seed=5), {}, keep=2)
    path = tmp_path / "step_2" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(content if harm == "flipped" else content[: len(content) // 2])
    logging.getLogger("aes_r1").propagate = True
    second = engine(seed=1)
    assert checkpoint.load_latest(tmp_path, second)["step"] == 1
    assert torch.equal(second.model.weight, wanted)
    if (name, harm) != ("progress.json", "gone"):  # a folder without this file does not count as a checkpoint
        assert len({record.getMessage() for record in caplog.records}) == 1
        assert "step_2 is damaged" in caplog.text
        assert (tmp_path / "damaged_step_2").is_dir()
    checkpoint.save_checkpoint(tmp_path, 2, engine(), {}, keep=2)
    assert checkpoint.steps(tmp_path) == [1, 2]


@pytest.mark.slow
def test_a_kill_at_any_file_operation_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    """The n-th file operation of a save is the last, for every n: what is found afterwards is whole, old or new."""
    operations = [(os, "replace"), (os, "rename"), (os, "rmdir"), (os, "unlink"), (os, "mkdir"), (torch, "save"),
                  (Path, "write_text"), (Path, "rename")]  # fmt: skip
    trained, steps = engine(), []
    for number in range(1, 40):
        root = tmp_path / str(number)
        for step in (1, 2):
            checkpoint.save_checkpoint(root, step, trained, {}, keep=1)
        killed = killed_at(
            number, operations, partial(checkpoint.save_checkpoint, root, 3, trained, {}, keep=1), monkeypatch
        )
        steps.append(checkpoint.load_latest(root, engine(seed=1))["step"])
        assert not list(root.glob("damaged_*"))
        checkpoint.save_checkpoint(root, 3, trained, {}, keep=1)
        assert checkpoint.steps(root) == [3]
        assert not list(root.glob(".step_*"))
        if not killed:
            break
    assert not killed
    assert number > 5
    assert set(steps) == {2, 3}
    assert steps == sorted(steps)


@pytest.mark.slow
def test_a_kill_at_any_file_operation_leaves_a_whole_best_model(tmp_path, monkeypatch):
    """For every n: after a kill at the n-th file operation the best model is whole, the old or the new one."""
    operations = [(os, "replace"), (os, "rename"), (os, "rmdir"), (os, "unlink"), (os, "mkdir"), (Path, "rename"),
                  (Path, "mkdir"), (Path, "write_text")]  # fmt: skip
    trained, steps = engine(), []
    for number in range(1, 40):
        run = tmp_path / str(number)
        best, checkpoints = run / "best", run / "checkpoints"
        checkpoint.save_checkpoint(checkpoints, 1, trained, {}, keep=1)
        checkpoint.save_best(checkpoints, 1, 0.1, trained, Written(1))
        save = partial(checkpoint.save_best, checkpoints, 2, 0.2, trained, Written(2))
        killed = killed_at(number, operations, save, monkeypatch)
        if best.exists():  # even before cleaning up there is no half model
            assert len({path.read_text() for path in (best / "model").iterdir()}) == 1
        checkpoint.load_latest(checkpoints, engine(seed=1))  # the run goes on
        step = json.loads((best / "validation.json").read_text())["step"]
        assert {path.read_text() for path in (best / "model").iterdir()} == {str(step)}
        steps.append(step)
        checkpoint.save_best(checkpoints, 3, 0.3, trained, Written(3))
        assert {path.name for path in run.iterdir()} == {"best", "checkpoints"}
        assert json.loads((best / "validation.json").read_text())["step"] == 3
        if not killed:
            break
    assert not killed
    assert number > 5
    assert set(steps) == {1, 2}
    assert steps == sorted(steps)


def test_a_best_model_that_cannot_be_written_is_one_line(tmp_path):
    class Full(Written):
        def save_half(self, folder: Path) -> None:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    checkpoint.save_best(tmp_path / "checkpoints", 1, 0.1, engine(), Written(1))
    with pytest.raises(InputError, match=r"No space left on device.*free some space") as raised:
        checkpoint.save_best(tmp_path / "checkpoints", 2, 0.2, engine(), Full(2))
    assert "\n" not in str(raised.value)
    assert (tmp_path / "best" / "model" / "config.json").read_text() == "1"


@pytest.mark.parametrize(
    ("validation", "score"),
    [
        ({"eval/a/srcc": 0.5, "eval/b/srcc": 0.1, "eval/a/plcc": 0.9}, 0.3),
        ({"eval/a/srcc": 0.5, "eval/b/srcc": math.nan}, 0.25),  # b's answers are all alike: half of .5, not .5
        ({"eval/a/srcc": math.nan}, 0.0),
        ({"eval/a/srcc": -0.4, "eval/b/srcc": math.nan}, -0.2),
        ({}, None),
    ],
)
def test_every_validation_has_a_score_of_the_same_sets(validation, score):
    assert mean_validation_srcc(validation) == (None if score is None else pytest.approx(score))


def test_the_id_of_the_tracked_run_is_read_from_the_newest_checkpoint(tmp_path):
    checkpoint.save_checkpoint(tmp_path, 1, engine(), {"wandb_run_id": "abc"}, keep=2)
    assert checkpoint.progress_of(tmp_path)["wandb_run_id"] == "abc"
    assert checkpoint.progress_of(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.slow
def test_half_precision_keeps_float32_for_the_optimizer(dtype, tmp_path):
    """Updates far below bf16's precision add up; without float32 weights they would all be lost."""
    model = torch.nn.Linear(3, 2, bias=False).to(dtype)
    torch.nn.init.ones_(model.weight)
    trained = SingleEngine(model, weight_decay=0.0, max_grad_norm=1e9, device=torch.device("cpu"))
    for step in range(64):
        for _ in range(2):  # two micro-batches
            trained.backward(model(torch.ones(1, 3, dtype=dtype)).sum() / 2)
        trained.step(1e-4)
        if step == 0:
            assert torch.equal(model.weight, torch.ones_like(model.weight))
    torch.testing.assert_close(trained.master_weights[0][1].detach(), torch.full((2, 3), 1 - 64e-4), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.weight.float(), torch.full((2, 3), 1 - 64e-4), atol=4e-3, rtol=0)
    assert (model.weight < 1).all()
    assert all(value.dtype == torch.float32 for value in trained.optimizer.state[trained.master_weights[0][1]].values())
    checkpoint.save_checkpoint(tmp_path, 64, trained, {}, keep=1)
    other = SingleEngine(
        torch.nn.Linear(3, 2, bias=False).to(dtype), weight_decay=0.0, max_grad_norm=1e9, device=torch.device("cpu")
    )
    checkpoint.load_latest(tmp_path, other)
    assert torch.equal(other.master_weights[0][1], trained.master_weights[0][1])


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_refused_and_named(tmp_path):
    for name, seed in (("rC", 0), ("rD", 5)):
        checkpoint.save_checkpoint(tmp_path / name, 2, engine(seed), {"identity": name}, keep=2)
    checkpoint.save_checkpoint(tmp_path / "rD", 3, engine(5), {"identity": "rD"}, keep=2)
    copied = tmp_path / "rC" / "step_3"
    shutil.copytree(tmp_path / "rD" / "step_3", copied)
    resumed = engine(1)
    untouched = resumed.model.weight.clone()
    says = f"{copied}: a checkpoint of rD, written as {tmp_path}/rD/step_3, but rC is trained here; move it out of"
    for read in (checkpoint.progress_of, lambda root, of: checkpoint.load_latest(root, resumed, of)):
        with pytest.raises(InputError) as raised:
            read(tmp_path / "rC", "rC")
        assert str(raised.value).startswith(says)
        assert "\n" not in str(raised.value)
    assert torch.equal(resumed.model.weight, untouched)
    shutil.rmtree(copied)  # the way out that the message names
    assert checkpoint.load_latest(tmp_path / "rC", resumed, "rC")["step"] == 2
    assert torch.equal(resumed.model.weight, engine(0).model.weight)


@pytest.mark.parametrize("progress", [{}, {"identity": None}])
def test_a_checkpoint_without_an_identity_is_read_as_before(tmp_path, progress):
    checkpoint.save_checkpoint(tmp_path, 1, engine(), progress, keep=2)
    assert checkpoint.progress_of(tmp_path, "rC")["step"] == 1
    assert checkpoint.load_latest(tmp_path, engine(), "rC")["step"] == 1


@pytest.mark.parametrize("other", [torch.nn.Linear(3, 4), torch.nn.Sequential(torch.nn.Linear(3, 2))])
def test_a_checkpoint_of_another_shape_is_one_line(tmp_path, other):
    checkpoint.save_checkpoint(tmp_path, 1, engine(), {}, keep=2)
    grown = SingleEngine(other, weight_decay=0.1, max_grad_norm=1.0, device=torch.device("cpu"))
    with pytest.raises(InputError, match=r"step_1: its weights do not fit this model.*move it out of") as raised:
        checkpoint.load_latest(tmp_path, grown)
    assert "\n" not in str(raised.value)


def test_without_a_checkpoint_nothing_is_loaded(tmp_path):
    assert checkpoint.load_latest(tmp_path, engine()) is None


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the checkpoint"):
        checkpoint.save_checkpoint(tmp_path / "file", 1, engine(), {}, keep=2)


@pytest.mark.parametrize(
    "message",
    [
        "[enforce fail at inline_container.cc:672] . unexpected pos 6220864 vs 6220816",
        "PytorchStreamWriter failed writing file data/3: file write failed",
    ],
)
def test_torchs_messages_of_a_full_disk_become_one_line(tmp_path, monkeypatch, message):
    def full(*_: object) -> None:
        raise RuntimeError(message)

    trained = engine()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="free some space") as raised:
        checkpoint.save_checkpoint(tmp_path, 1, trained, {}, keep=2)
    assert "\n" not in str(raised.value)


def test_a_collective_that_fails_is_no_full_disk(tmp_path, monkeypatch):
    message = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] writev [127.0.0.1]:4711: Broken pipe"

    def broken() -> None:
        raise RuntimeError(message)

    trained = engine()
    monkeypatch.setattr(trained, "barrier", broken)
    with pytest.raises(RuntimeError, match="Broken pipe"):
        checkpoint.save_checkpoint(tmp_path, 1, trained, {}, keep=2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("size", [1, 1000])
def test_a_file_that_cannot_grow_is_a_full_disk(tmp_path, size):
    """torch's real messages when its file cannot grow: for a small file, and for one larger than its buffer."""

    class Full(SingleEngine):
        def save(self, folder: Path) -> None:
            (folder / "state.pt").symlink_to("/dev/full")
            super().save(folder)

    trained = Full(torch.nn.Linear(size, size), weight_decay=0.0, max_grad_norm=1.0, device=torch.device("cpu"))
    with pytest.raises(InputError, match="free some space"):
        checkpoint.save_checkpoint(tmp_path, 1, trained, {}, keep=2)
