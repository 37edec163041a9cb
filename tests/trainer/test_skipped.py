"""A step with a non-finite loss or gradient is skipped on all processes, and ten in a row end the run."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path

import pytest
import torch

from aes_r1.command import run
from aes_r1.model.backbone import Backbone
from aes_r1.runs.stopping import Stopped, StopRequest
from aes_r1.trainer import checkpoint, sft, update
from aes_r1.trainer.single_engine import SingleEngine
from aes_r1.trainer.skipped import LIMIT, NeverFinite, SkippedSteps
from tests.processes import run_job
from tests.trainer import skipped_steps
from tests.trainer.cold_starts import engine_of, train_cold_start
from tests.trainer.test_loops import Halt
from tests.trainer.twelve import records

ENGINES = ("zero1", "zero2", "zero3", "zero3_offload", "zero1_bf16", "zero2_bf16", "zero3_bf16")


def test_a_count_starts_anew_after_a_step_that_was_taken(tmp_path):
    skips = SkippedSteps(in_a_row=LIMIT - 2, remedy="lower trainer.lr")
    assert [skips.count(norm) for norm in (math.nan, 0.5, math.inf)] == [1, 0, 1]
    assert skips.in_a_row == 1
    skips.end_if_too_many(3, tmp_path)
    for _ in range(LIMIT - 1):
        skips.count(math.inf)
    with pytest.raises(NeverFinite, match=r"last 10 optimizer steps .*step_12 keeps .*; lower trainer.lr") as raised:
        skips.end_if_too_many(12, tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_run_that_never_is_finite_ends_with_one_line_and_exit_code_1(monkeypatch, capsys):
    def task(settings):
        SkippedSteps(in_a_row=LIMIT, remedy="lower trainer.lr").end_if_too_many(12, Path("checkpoints"))

    monkeypatch.setattr(sys, "argv", ["aes_r1.train"])
    with pytest.raises(SystemExit) as left:
        run("aes_r1.train", task)
    assert left.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("aes_r1: step 12: the last 10 optimizer steps")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", skipped_steps.KINDS)
def test_one_process_goes_on_as_if_the_step_had_not_been(dtype, kind):
    with_it, without = (
        skipped_steps.toy_steps(
            SingleEngine(skipped_steps.toy(dtype), weight_decay=0.1, max_grad_norm=1.0, device=torch.device("cpu")),
            one,
        )
        for one in (kind, None)
    )
    assert [math.isfinite(norm) for norm in with_it["norms"]] == [True, False, True]
    skipped_steps.assert_equal(with_it, without)


@pytest.fixture(scope="module")
def two_processes(tokenizer, tmp_path_factory) -> Path:
    from aes_r1.model import tiny
    from tests.conftest import twelve_pictures

    folder = tmp_path_factory.mktemp("skipped")
    tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0).save(folder / "model")
    (folder / "pictures").mkdir()
    twelve_pictures(folder / "pictures")
    run_job("tests.trainer.skipped_steps", str(folder), *ENGINES)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ENGINES)
def test_two_processes_agree_and_go_on_as_if_the_step_had_not_been(two_processes, name):
    """A non-finite value on rank 1 alone skips the step on both; a state saved before the first step is complete."""
    ranks = [torch.load(two_processes / f"{name}_{rank}.pt") for rank in (0, 1)]
    for found in ranks:
        for kind in skipped_steps.TOGETHER:
            assert [math.isfinite(norm) for norm in found[kind]["norms"]] == [True, False, True], kind
            skipped_steps.assert_equal(found[kind], found["without"])
        assert [math.isfinite(norm) for norm in found["first"]["norms"]] == [False, True]
        skipped_steps.assert_equal(found["first"], found["one"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ENGINES)
def test_both_loops_count_the_step_and_leave_the_weights_alone(two_processes, name):
    for loop in ("sft", "rapo"):
        first, second = (torch.load(two_processes / f"{name}_{rank}.pt")[loop] for rank in (0, 1))
        for found in (first, second):
            assert found["skipped"] == [0, 1, 0]
            before, after, end = found["weights"]
            assert all(torch.equal(before[key], after[key]) for key in before)
            assert any(not torch.equal(after[key], end[key]) for key in after)
            assert all(value.isfinite().all() for value in end.values())
        assert all(torch.equal(value, second["weights"][-1][key]) for key, value in first["weights"][-1].items())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ENGINES)
def test_the_gap_between_sampler_and_trainer_is_that_of_all_processes_tokens(two_processes, name):
    found = torch.load(two_processes / f"{name}_0.pt")["mismatch"]
    first, second = found["tokens"]
    assert found["max"] == pytest.approx([2.0] * 3, abs=0.05)
    wanted = [(one + 2 * two) / (one + two) for one, two in zip(first, second, strict=True)]
    assert found["mean"] == pytest.approx(wanted, abs=0.05 if name.endswith("bf16") else 1e-4)


class Faulty:
    """Log-probabilities of NaN from call `first` to call `last`, from 1 on."""

    def __init__(self, plain, first: int, last: int = 10**9) -> None:
        self.plain, self.first, self.last, self.calls = plain, first, last, 0

    def __call__(self, *arguments, **named):
        self.calls += 1
        logps, entropy = self.plain(*arguments, **named)
        return (logps * math.nan if self.first <= self.calls <= self.last else logps), entropy


def train(backbone: Backbone, pictures: Path, out: Path, *, epochs: int, stop: StopRequest, rows: list) -> None:
    def log(step, values):
        rows.append((step, values["sft/skipped_steps"], values["sft/loss"]))
        stop.seen = step

    train_cold_start(
        backbone, engine_of(backbone), records(pictures), out, log=log, stop=stop, epochs=epochs, save_every=100
    )


@pytest.mark.slow
def test_skipped_steps_are_counted_across_a_resume_and_end_the_run(backbone, picture_folder, tmp_path, monkeypatch):
    """Step 1 is taken, 2 to 5 are skipped, the run is stopped; it goes on and ends with step 11, the tenth in a row."""
    start, rows = copy.deepcopy(backbone), []
    monkeypatch.setattr(sft, "completion_likelihood", Faulty(sft.completion_likelihood, first=2))
    with pytest.raises(Stopped):
        train(backbone, picture_folder, tmp_path, epochs=6, stop=Halt(5), rows=rows)
    good = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    assert any(not torch.equal(value, start.model.state_dict()[name]) for name, value in good.items())

    resumed = copy.deepcopy(start)
    with pytest.raises(NeverFinite, match="step 11: the last 10 optimizer steps"):
        train(resumed, picture_folder, tmp_path, epochs=6, stop=Halt(None), rows=rows)
    assert [(step, skipped) for step, skipped, _ in rows] == [(1, 0)] + [(step, 1) for step in range(2, 12)]

    assert checkpoint.steps(tmp_path) == [5, 11]
    assert checkpoint.load_latest(tmp_path, engine_of(start))["skipped_in_a_row"] == LIMIT
    assert all(torch.equal(value, good[name]) for name, value in start.model.state_dict().items())

    monkeypatch.undo()  # without the fault one step succeeds, and the run continues to its end
    again = copy.deepcopy(start)
    train(again, picture_folder, tmp_path, epochs=6, stop=Halt(None), rows=rows)
    assert [skipped for step, skipped, _ in rows if step > 11] == [0] * 7
    assert checkpoint.progress_of(tmp_path)["skipped_in_a_row"] == 0


@pytest.mark.slow
def test_a_run_whose_last_steps_were_all_skipped_does_not_pass_for_done(
    backbone, picture_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(sft, "completion_likelihood", Faulty(sft.completion_likelihood, first=3))
    for _ in range(2):  # nor when it is resumed
        with pytest.raises(NeverFinite, match="step 12: the last 10 optimizer steps"):
            train(backbone, picture_folder, tmp_path, epochs=4, stop=Halt(None), rows=[])


@pytest.mark.slow
def test_a_skipped_step_keeps_its_place_in_schedule_and_data(backbone, picture_folder, tmp_path, monkeypatch):
    """Stopped right after it and resumed, the run is the same to the bit; its lr is that of the step's number."""
    whole, parts = copy.deepcopy(backbone), copy.deepcopy(backbone)
    plain, rows, others = sft.completion_likelihood, [], []
    monkeypatch.setattr(sft, "completion_likelihood", Faulty(plain, 2, 2))
    train(whole, picture_folder, tmp_path / "whole", epochs=2, stop=Halt(None), rows=rows)
    monkeypatch.setattr(sft, "completion_likelihood", Faulty(plain, 2, 2))
    with pytest.raises(Stopped):
        train(parts, picture_folder, tmp_path / "parts", epochs=2, stop=Halt(2), rows=others)
    train(backbone, picture_folder, tmp_path / "parts", epochs=2, stop=Halt(None), rows=others)
    assert [skipped for _, skipped, _ in rows] == [0, 1, 0, 0, 0, 0]
    assert str(others) == str(rows)  # NaN is not equal to itself
    for name, value in whole.model.state_dict().items():
        assert value.isfinite().all()
        assert torch.equal(value, backbone.model.state_dict()[name])


@pytest.mark.slow
def test_minibatches_are_skipped_singly(backbone, picture_folder, tmp_path, monkeypatch):
    """Three of the four optimizer steps of a rollout are taken when one of them is not finite."""
    monkeypatch.setattr(update, "policy_loss", skipped_steps.nan_at(update.policy_loss, 2))
    rows = skipped_steps.rapo_rows(
        backbone,
        SingleEngine(backbone.model, weight_decay=0.01, max_grad_norm=1.0, device=backbone.device),
        picture_folder,
        tmp_path,
        max_steps=1,
        inner_epochs=2,
        minibatches=2,
        micro_batch_size=8,
    )
    assert rows[0]["policy/skipped_steps"] == 1
    assert all(value.isfinite().all() for value in backbone.model.state_dict().values())
