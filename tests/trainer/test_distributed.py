"""Two real processes (gloo) take the steps of one under every ZeRO stage: numbers, checkpoints, exported weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from aes_r1.export import export
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.settings import Settings, as_dict
from aes_r1.trainer.order import batch_indices_without_repeats
from tests.conftest import picture_folder
from tests.processes import run_job
from tests.trainer import distributed_steps
from tests.trainer.cold_starts import train_comparer
from tests.trainer.test_loops import sft

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STAGES = ("zero1", "zero2", "zero3", "zero3_offload")
HALVES = ("zero2_bf16", "zero3_bf16")
BUDGETS = ("zero2_budget", "zero3_budget")
HARD = ("zero2_hard", "zero3_hard")
PAID = ("zero2_parts",)
HELD = ("zero2_held",)
TWINS = ("zero2_pairs",)
COMPARED = ("zero2_compared",)
REFILLED = ("zero2_refilled", "zero3_refilled")
ADAPTED = ("zero2_lora", "zero3_lora")


def launch(processes: int, mode: str, start: Path, out: Path, *stages: str) -> None:
    run_job("tests.trainer.distributed_steps", mode, str(start), str(out), *stages, count=processes)


def results(out: Path, stage: str, single: str = "single") -> tuple[dict, dict]:
    """Load the results of one process and of two."""
    return torch.load(out / f"{single}.pt"), torch.load(out / f"{stage}.pt")


def assert_same_metrics(one: list[dict], two: list[dict]) -> None:
    for wanted, metrics in zip(one, two, strict=True):
        assert metrics == pytest.approx(wanted, abs=1e-5, rel=1e-5)


def assert_close(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], *, atol: float, rtol: float) -> None:
    """Compare tensors by their names, which a failure names."""
    for name, wanted in one.items():
        torch.testing.assert_close(two[name], wanted, atol=atol, rtol=rtol, msg=lambda m, name=name: f"{name}: {m}")


@pytest.fixture(scope="module")
def start(tokenizer, tmp_path_factory) -> Path:
    """A model that answers half of the time, and its pictures."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "pictures").mkdir()
    picture_folder.__wrapped__(folder / "pictures")
    backbone = tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0)
    sft(backbone, folder / "pictures", folder / "sft", epochs=30)
    backbone.save(folder / "model")
    train_comparer(backbone, folder / "pictures", folder / "comparer_steps").save(folder / "comparer")
    (folder / "mine.py").write_text(
        "def high(scores, texts, samples): return [[k * (one.mos > 0.5) for k in range(4)] for one in samples]"
    )
    return folder


@pytest.fixture(scope="module")
def out(start, tmp_path_factory) -> Path:
    """The results of one process, and of two under every ZeRO stage."""
    folder = tmp_path_factory.mktemp("out")
    for name in (
        "single",
        "single_bf16",
        "single_lora",
        "single_hard",
        "single_parts",
        "single_held",
        "single_pairs",
        "single_compared",
        "single_refilled",
    ):
        torch.save(distributed_steps.take_steps(start, folder, name), folder / f"{name}.pt")
    both = (*STAGES, *HALVES, *BUDGETS, *ADAPTED, *HARD, *PAID, *HELD, *TWINS, *COMPARED, *REFILLED)
    launch(2, "steps", start, folder, *both)
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_one(out, stage):
    one, two = results(out, stage)
    for loop in ("rapo", "sft"):
        assert_same_metrics(one[loop], two[loop])
    for name in ("rapo_moments", "moments"):  # linear in the gradients, micro-batches and processes summed
        assert_close(one[name], two[name], atol=1e-6, rtol=1e-5)
    assert_close(one["weights"], two["weights"], atol=1e-5, rtol=1e-5)
    assert one["rapo"][0]["policy/grad_norm"] > 1e-3
    assert 0 < one["rapo"][0]["reward/rank"] < 1


@pytest.mark.parametrize("stage", HARD)
def test_two_processes_equal_one_with_clipping_in_force_and_several_steps_a_rollout(out, stage):
    """The reference is parted under ZeRO-2 and in host memory under ZeRO-3; the processes answer unlike often."""
    one, two = results(out, stage, "single_hard")
    assert min(values["policy/grad_norm"] for values in one["rapo"]) > 2 * distributed_steps.CLIPPED
    for side in ("low", "high"):  # in a step or the other: which ratios leave the interval is the machine's to say
        assert max(values[f"policy/clip_{side}_fraction"] for values in one["rapo"]) > 0, "no ratio was clipped"
    assert one["rapo"][1]["policy/kl_k3"] > 1e-6
    assert any(first != second for first, second in two["answered"])
    assert [sum(counts) for counts in two["answered"]] == [sum(counts) for counts in one["answered"]]
    assert_same_metrics(one["rapo"], two["rapo"])
    assert_close(one["rapo_moments"], two["rapo_moments"], atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("stage", COMPARED)
def test_two_processes_that_compare_pairs_equal_one(out, stage):
    one, two = results(out, stage, "single_compared")
    assert_same_metrics(one["rapo"], two["rapo"])
    assert_close(one["rapo_moments"], two["rapo_moments"], atol=1e-6, rtol=1e-5)
    assert 0 < one["rapo"][0]["reward/pair"] < 1
    assert one["rapo"][0]["policy/grad_norm"] > 1e-3


@pytest.mark.parametrize("stage", REFILLED)
def test_two_processes_replace_groups_without_spread_as_one_does_and_a_resumed_run_as_a_straight_one(out, stage):
    """Outputs differ in reward for pictures above .5 alone, of which the two shares of a step hold unlike many."""
    one, two = results(out, stage, "single_refilled")
    high = [f"{place:02d}.png" for place in range(6, 12)]
    drawn = [batch_indices_without_repeats(step, per_step=4, count=12, seed=0) for step in (0, 1)]
    assert any(sum(place < 6 for place in step[::2]) != sum(place < 6 for place in step[1::2]) for step in drawn)
    for step, alone, shares in zip(drawn, one["ids"], two["ids"], strict=True):
        assert [name for names in zip(shares[:2], shares[2:], strict=True) for name in names] == alone
        for place, name in zip(step, alone, strict=True):
            assert name in high
            assert name == f"{place:02d}.png" or place < 6, "a picture that teaches stays in its place"
    assert one["rapo"][0]["rollout/refilled"] == sum(place < 6 for place in drawn[0]) / 4
    assert_same_metrics(one["rapo"], two["rapo"])
    assert_close(one["rapo_moments"], two["rapo_moments"], atol=1e-6, rtol=1e-5)
    again = two["resumed"]
    assert (again["ids"], again["rapo"]) == (two["ids"][1:], two["rapo"][1:])
    assert_close(two["rapo_moments"], again["rapo_moments"], atol=0, rtol=0)


@pytest.mark.parametrize("stage", PAID)
def test_two_processes_that_judge_their_own_critiques_equal_one(out, stage):
    """Critiques are scored under other pictures of the step, which the other process draws for."""
    one, two = results(out, stage, "single_parts")
    plain = torch.load(out / "single.pt")["rapo"][0]
    assert one["rapo"][0]["policy/grad_norm"] != pytest.approx(plain["policy/grad_norm"], rel=0.01)
    assert abs(one["rapo"][0]["reward/information"]) > 1e-3
    assert_same_metrics(one["rapo"], two["rapo"])
    assert_close(one["rapo_moments"], two["rapo_moments"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("stage", HELD)
def test_two_processes_of_the_grounded_recipe_equal_one(out, stage):
    """The score pays the answer's tokens alone, and the divergence of the critique's tokens has its own weight."""
    one, two = results(out, stage, "single_held")
    plain = torch.load(out / "single.pt")["rapo"]
    for step in (0, 1):
        assert one["rapo"][step]["policy/grad_norm"] != pytest.approx(plain[step]["policy/grad_norm"], rel=0.001)
    assert one["rapo"][1]["policy/kl_k3"] > 1e-6
    assert_same_metrics(one["rapo"], two["rapo"])
    assert_close(one["rapo_moments"], two["rapo_moments"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("stage", TWINS)
def test_two_processes_with_edited_twins_equal_one(out, stage):
    one, two = results(out, stage, "single_pairs")
    assert 0 < one["rapo"][0]["reward/twin"] < 1
    assert_same_metrics(one["rapo"], two["rapo"])
    assert_close(one["rapo_moments"], two["rapo_moments"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("stage", "cosine", "tolerance"),
    [("zero2_bf16", 0.9995, 0.002), ("zero3_bf16", 0.99, 0.04)],  # ZeRO-3's linear layers round the bias separately
)
def test_the_bf16_gradient_of_two_processes_is_that_of_one_in_norm_and_direction(out, stage, cosine, tolerance):
    """A wrong factor (such as the number of processes) would change the norm; a lost share the direction."""
    one, two = (loaded["gradient"] for loaded in results(out, stage, "single_bf16"))
    assert two["adds_up_in"] == torch.float32
    flat = [torch.cat([side["moments"][key].flatten() for key in one["moments"]]).double() for side in (one, two)]
    assert torch.cosine_similarity(flat[0], flat[1], dim=0) > cosine
    assert float(flat[1].norm() / flat[0].norm()) == pytest.approx(1.0, abs=tolerance)
    assert two["norm"] / one["norm"] == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("stage", BUDGETS)
def test_processes_that_cut_their_outputs_into_unlike_many_passes_equal_one(out, stage):
    one, two = results(out, stage)
    assert any(first != second for first, second in two["passes"])
    assert_same_metrics(one["rapo"], two["rapo"])
    assert_close(one["rapo_moments"], two["rapo_moments"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("stage", ADAPTED)
def test_an_adapter_under_two_processes_equals_one_and_is_merged_when_saved(out, stage):
    """Its reference is the policy without it, also where ZeRO-3 parts the weights below."""
    one, two = results(out, stage, "single_lora")
    assert_same_metrics(one["rapo"], two["rapo"])
    assert two["rapo"][1]["policy/kl_k3"] > 1e-6
    assert one["rapo_moments"].keys() == two["rapo_moments"].keys()
    assert all("lora" in key for key in one["rapo_moments"])
    assert_close(one["rapo_moments"], two["rapo_moments"], atol=1e-6, rtol=1e-5)
    merged = [dict(backbones.load(out / f"{name}_model", dtype="float32", max_pixels=9216).model.named_parameters())
              for name in ("single_lora", stage)]  # fmt: skip
    assert_close(*merged, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stage", ["zero2", "zero3", *HALVES, *ADAPTED])
def test_the_best_model_and_each_checkpoint_of_two_processes_are_exported_whole(out, stage, tmp_path):
    """However the weights were sharded, transformers loads all of them, adapters merged, with the same values."""
    if stage in ADAPTED:
        model = backbones.load(out / f"{stage}_model", dtype="float32", max_pixels=9216).model
        wanted = dict(model.named_parameters())
    else:
        wanted = torch.load(out / f"{stage}.pt")["rapo_weights"]
    (out / stage / "settings.json").write_text(json.dumps(as_dict(Settings())))
    (kept,) = (out / stage / "checkpoints").glob("step_*/progress.json")
    assert kept.parent.name == "step_2"
    best = export(out / stage, tmp_path / "best", step="best")
    shutil.rmtree(out / stage / "best")  # of the same step: now its checkpoint is the only one
    for folder in (best, export(out / stage, tmp_path / "checkpoint", step="2")):
        loaded = AutoModelForImageTextToText.from_pretrained(folder)
        assert loaded.dtype == torch.bfloat16
        weights = dict(loaded.named_parameters())
        assert weights.keys() == wanted.keys()
        for key, value in wanted.items():
            assert torch.equal(weights[key], value.bfloat16()), key


@pytest.mark.parametrize("stage", HALVES)
def test_half_precision_under_deepspeed_keeps_a_float32_optimizer(out, stage):
    """bf16 rounds differently with another batch, and one flipped token changes a rollout; so against one process only
    roughly, where the tokens are given."""
    one, two = results(out, stage, "single_bf16")
    assert len(two["rapo"]) == len(two["sft"]) == 2
    assert {value.dtype for value in two["moments"].values()} == {torch.float32}
    assert {value.dtype for value in two["weights"].values()} == {torch.bfloat16}
    for wanted, metrics in zip(one["sft"], two["sft"], strict=True):
        # The loss is near .03, where processors differ by .006 in how they round; a wrong divisor would double it.
        assert metrics["sft/loss"] == pytest.approx(wanted["sft/loss"], abs=0.012)


@pytest.mark.parametrize("processes", [2, 1])
def test_a_checkpoint_goes_on_with_the_same_or_another_number_of_processes(start, out, processes):
    stages = (*STAGES, *HALVES) if processes == 2 else ("zero2", "zero3")
    launch(processes, "resume", start, out, *stages)
    for stage in stages:
        straight, resumed = torch.load(out / f"{stage}.pt"), torch.load(out / f"{stage}_resumed_{processes}.pt")
        assert (resumed["progress"]["step"], resumed["progress"]["processes"]) == (2, 2)
        for name, tolerance in (("weights", 1e-7), ("moments", 1e-7), ("one_more", 1e-6)):
            assert_close(straight[name], resumed[name], atol=tolerance, rtol=0)
        exported = out / f"{stage}_model_{processes}"
        assert (exported / "model.safetensors").exists()
        model = backbones.load(exported, dtype=distributed_steps.dtype_of(stage), max_pixels=9216).model
        for key, value in model.named_parameters():
            assert torch.equal(value, resumed["weights"][key])
        shutil.rmtree(exported)
