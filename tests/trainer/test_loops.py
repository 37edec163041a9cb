"""Both loops on a model that can already answer: resume, accumulation, stopping."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import json
import math
from collections.abc import Callable

import pytest
import torch

from aes_r1.data.manifest import read_manifest, write_manifest
from aes_r1.model import backbone as backbones
from aes_r1.model.backbone import Backbone, freeze
from aes_r1.model.families import is_vision
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout.graph import CapturedDecoder
from aes_r1.rollout.sampler import sample_completions
from aes_r1.runs.stopping import Stopped, StopRequest
from aes_r1.settings import (
    ErrorSettings,
    InputError,
    LoraSettings,
    RankSettings,
    RewardSettings,
    TrainerSettings,
)
from aes_r1.trainer import checkpoint
from aes_r1.trainer import completions as completions_of_a_step
from aes_r1.trainer import passes as step_passes
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.rapo import train_rapo
from aes_r1.trainer.reference import Reference
from aes_r1.trainer.refill import Refill
from tests.trainer.cold_starts import engine_of, train_cold_start
from tests.trainer.twelve import records, samples


class Halt(StopRequest):
    """Requests a stop once `step` steps are logged."""

    def __init__(self, step: int | None) -> None:
        super().__init__()
        self.after, self.seen = step, 0

    def __bool__(self) -> bool:
        return self.after is not None and self.seen >= self.after


def into(rows: list[dict], halt: Halt) -> Callable[[int, dict], None]:
    """Return a log that keeps the values of each step in `rows`, except times, and tells `halt` of the step."""

    def log(step: int, values: dict) -> None:
        halt.seen = step
        rows.append({name: value for name, value in values.items() if not name.startswith(("time/", "perf/"))})

    return log


def sft(backbone, folder, out, *, stop_after=None, micro=4, epochs=4, lr=3e-3, blank=0.0):
    rows, halt = [], Halt(stop_after)

    def log(step, values):
        halt.seen = step
        rows.append((step, values["sft/loss"]))

    changes = {"epochs": epochs, "lr": lr, "micro_batch_size": micro, "save_every": 3, "blank_pictures": blank}
    train_cold_start(
        backbone, engine_of(backbone), records(folder), out, log=log, stop=halt, warmup_ratio=0.0, **changes
    )
    return rows


@pytest.fixture(scope="module")
def speaker(tokenizer, tmp_path_factory) -> Backbone:
    """A tiny model after two hundred steps on twelve answers: its outputs parse, and still differ."""
    from aes_r1.model import tiny
    from tests.conftest import picture_folder

    folder = tmp_path_factory.mktemp("pictures")
    picture_folder.__wrapped__(folder)
    backbone = tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0)
    sft(backbone, folder, tmp_path_factory.mktemp("speaker"), epochs=50)
    return backbone


def rapo(
    backbone,
    folder,
    out,
    *,
    steps=4,
    stop_after=None,
    reward=None,
    answer_from="image",
    question=RATING_PROMPT,
    trace_file=None,
    images=None,
    shared_prefix=True,
    judge=None,
    **changes,
):
    trainer = TrainerSettings(
        **{
            "num_samples": 4, "images_per_step": 4, "max_steps": steps, "warmup_steps": 0, "lr": 1e-3, "kl_coef": 0.05,
            "max_new_tokens": 32, "micro_batch_size": 16, "save_every": 100, "eval_every": 100,
            **changes,
        }
    )  # fmt: skip
    adapted = hasattr(backbone.model, "disable_adapter")
    frozen = trainer.needs_reference and not adapted
    reference = Reference(copy.deepcopy(backbone), backbone.device) if frozen else None
    rows, completions, halt = [], [], Halt(stop_after)

    train_rapo(
        Policy(backbone, reference, question, answer_from=answer_from, shared_prefix=shared_prefix),
        engine_of(backbone),
        images or samples(folder),
        trainer=trainer,
        reward=reward or RewardSettings(error=ErrorSettings(sigma=0.3)),
        context=TrainingContext(
            seed=0,
            folder=out,
            log=into(rows, halt),
            log_completions=lambda step, rows: completions.extend(rows),
            stop=halt,
            trace_file=trace_file,
            judge=judge,
        ),
    )
    return rows, completions


def weights(backbone) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.model.state_dict().items()}


def assert_same(first, second) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.slow
def test_sft_resumes_bit_for_bit(backbone, picture_folder, tmp_path):
    other = copy.deepcopy(backbone)
    start = copy.deepcopy(backbone)
    whole = sft(backbone, picture_folder, tmp_path / "whole")
    with pytest.raises(Stopped):
        sft(other, picture_folder, tmp_path / "parts", stop_after=5)
    assert checkpoint.steps(tmp_path / "parts") == [3, 5]
    rest = sft(start, picture_folder, tmp_path / "parts")
    assert rest == whole[5:]
    assert_same(weights(start), weights(backbone))
    assert whole[-1][1] < whole[0][1]


@pytest.mark.slow
def test_sft_accumulation_changes_nothing(backbone, picture_folder, tmp_path):
    other = copy.deepcopy(backbone)
    one = sft(backbone, picture_folder, tmp_path / "one", micro=1, lr=1e-3)
    four = sft(other, picture_folder, tmp_path / "four", micro=4, lr=1e-3)
    for (_, a), (_, b) in zip(one, four, strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    assert one[0][1] == pytest.approx(four[0][1], rel=1e-5)


def assert_resumes_bit_for_bit(start, folder, out):
    """Train copies of the policy that start() builds; return the one that was not stopped, and its rows."""
    straight, stopped, resumed = start(), start(), start()
    rows, _ = rapo(straight, folder, out / "straight")
    with pytest.raises(Stopped):
        rapo(stopped, folder, out / "parts", stop_after=2)
    resumed_rows, _ = rapo(resumed, folder, out / "parts")
    assert resumed_rows == rows[2:]
    assert_same(weights(straight), weights(resumed))
    return straight, rows


@pytest.mark.slow
def test_rapo_resumes_bit_for_bit(speaker, picture_folder, tmp_path):
    policy, rows = assert_resumes_bit_for_bit(lambda: copy.deepcopy(speaker), picture_folder, tmp_path)
    assert any(not torch.equal(value, weights(speaker)[name]) for name, value in weights(policy).items())
    assert rows[0]["reward/format"] > 0.5
    assert rows[0]["rollout/zero_spread_groups"] < 1
    assert rows[-1]["policy/kl_k3"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("target", ["language", "all"])
def test_an_adapter_is_trained_against_its_absence_and_resumes_bit_for_bit(speaker, picture_folder, tmp_path, target):
    """The reference is the policy without its adapter: no divergence at first, some later, and no second model.

    With target=all every matrix of the adapter in tower and projector moves; with language there is none.
    """

    def adapted():
        return backbones.add_adapter(copy.deepcopy(speaker), LoraSettings(rank=2, target=target), seed=1)

    policy, rows = assert_resumes_bit_for_bit(adapted, picture_folder, tmp_path)
    assert rows[0]["policy/kl_k3"] == pytest.approx(0, abs=1e-9)
    assert rows[-1]["policy/kl_k3"] > 0
    with policy.model.disable_adapter():  # the weights below have not moved
        frozen = {name.replace(".base_layer", ""): value for name, value in policy.core.named_parameters()}
        assert all(torch.equal(frozen[name], value) for name, value in speaker.model.named_parameters())
    before = weights(adapted())
    moved = {
        name: not torch.equal(value, before[name])
        for name, value in weights(policy).items()
        if "lora_" in name and is_vision(name)
    }
    linear = [
        name
        for name, module in speaker.model.named_modules()
        if isinstance(module, torch.nn.Linear) and is_vision(name)
    ]
    assert any("merger" in name for name in linear)
    assert len(moved) == (2 * len(linear) if target == "all" else 0)
    assert all(moved.values()), [name for name, has in moved.items() if not has]


@pytest.mark.slow
def test_rapo_accumulation_changes_nothing(speaker, picture_folder, tmp_path):
    rows = [
        rapo(copy.deepcopy(speaker), picture_folder, tmp_path / str(micro), steps=1, micro_batch_size=micro)[0][0]
        for micro in (1, 3, 16)
    ]
    for row in rows[1:]:
        assert row == pytest.approx(rows[0], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_token_budget_changes_nothing(speaker, picture_folder, tmp_path):
    whole, cut = copy.deepcopy(speaker), copy.deepcopy(speaker)
    rows, _ = rapo(whole, picture_folder, tmp_path / "whole", steps=1)
    cut_rows, _ = rapo(cut, picture_folder, tmp_path / "cut", steps=1, micro_batch_tokens=300)
    assert cut_rows[0] == pytest.approx(rows[0], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_frozen_vision_tower_is_run_once_and_changes_nothing(speaker, picture_folder, tmp_path, monkeypatch):
    seen, blind = copy.deepcopy(speaker), copy.deepcopy(speaker)
    calls = []
    for backbone in (seen, blind):
        freeze(backbone.model, vision=True)
        backbone.model.model.visual.register_forward_hook(lambda *_, owner=backbone: calls.append(owner))
    with monkeypatch.context() as patch:
        patch.setattr(blind, "with_vision_features", lambda prompts: prompts)
        without, _ = rapo(blind, picture_folder, tmp_path / "blind", steps=1, micro_batch_size=4)
    once, _ = rapo(seen, picture_folder, tmp_path / "seen", steps=1, micro_batch_size=4)
    assert sum(owner is seen for owner in calls) == 1
    assert sum(owner is blind for owner in calls) > 1
    assert once[0] == pytest.approx(without[0], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_rapo_on_policy(speaker, picture_folder, tmp_path):
    rows, completions = rapo(copy.deepcopy(speaker), picture_folder, tmp_path, steps=1)
    assert rows[0]["policy/ratio_max"] == 1.0
    assert rows[0]["policy/kl_k3"] == pytest.approx(0.0, abs=1e-6)
    assert len(completions) == 16
    by_image: dict[str, float] = {}
    for row in completions:
        assert (row["score"] is None) == (row["reward_format"] == 0.0)
        assert row["reward_total"] == pytest.approx(row["reward_rank"] + row["reward_error"], abs=1e-6)
        by_image[row["id"]] = by_image.get(row["id"], 0.0) + row["advantage"]
    assert all(abs(total) < 1e-4 for total in by_image.values())


@pytest.mark.slow
def test_rapo_without_reference_and_with_inner_epochs(speaker, picture_folder, tmp_path):
    rows, _ = rapo(
        copy.deepcopy(speaker), picture_folder, tmp_path, steps=2, kl_coef=0.0, inner_epochs=2, minibatches=2
    )
    assert "policy/kl_k3" not in rows[0]
    assert rows[0]["policy/ratio_max"] > 1.0  # the second pass is off policy


@pytest.mark.slow
def test_the_loss_is_that_of_one_optimizer_step_however_many_a_rollout_has(speaker, picture_folder, tmp_path):
    """With an entropy bonus alone and a learning rate of nearly nothing, every step has the same loss."""
    how = {"steps": 1, "kl_coef": 0.0, "entropy_coef": 1.0, "lr": 1e-12}
    losses = [
        rapo(copy.deepcopy(speaker), picture_folder, tmp_path / f"{minibatches}{epochs}", **how,
             minibatches=minibatches, inner_epochs=epochs)[0][0]["policy/loss"]
        for minibatches, epochs in ((1, 1), (1, 2), (2, 2))
    ]  # fmt: skip
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=0.2)  # a minibatch has other tokens than the whole


@pytest.mark.slow
def test_a_curriculum_shows_agreed_pictures_first(speaker, picture_folder, tmp_path):
    images = [dataclasses.replace(one, mos_std=n / 12) for n, one in enumerate(samples(picture_folder))]
    spread = {one.id: one.mos_std for one in images}
    shown = []
    for curriculum in (True, False):
        how = {"steps": 2, "images": images, "completions_every": 1, "curriculum": curriculum}
        _, rows = rapo(copy.deepcopy(speaker), picture_folder, tmp_path / str(curriculum), **how)
        shown.append([row["id"] for row in rows])
    assert sorted(shown[0]) == sorted(shown[1])
    assert max(spread[name] for name in shown[0][:16]) < min(spread[name] for name in shown[0][16:])


def of_sampler(change):
    """`sample_completions`, with `change(backbone, prompts, rollout)` in place of its log-probabilities."""

    def sampled(backbone, prompts, **named):
        rollout = sample_completions(backbone, prompts, **named)
        return dataclasses.replace(rollout, logps=change(backbone, prompts, rollout))

    return sampled


@pytest.mark.slow
def test_the_samplers_log_probabilities_serve_as_the_old_ones(speaker, picture_folder, tmp_path, monkeypatch):
    """Two passes over two minibatches equal those with the trainer's own log-probabilities, without an extra pass."""

    @torch.no_grad()
    def of_trainer(backbone, prompts, rollout):
        image_of = torch.arange(len(rollout.tokens)) // 4
        return completion_likelihood(backbone, prompts, rollout.tokens, rollout.mask, image_of, temperature=1.0)[0]

    passes, results = [], []
    score = step_passes.completion_likelihood
    monkeypatch.setattr(step_passes, "completion_likelihood", lambda *a, **n: (passes.append(1), score(*a, **n))[1])
    for name, plain in (("sampler", sample_completions), ("trainer", of_sampler(of_trainer))):
        monkeypatch.setattr(completions_of_a_step, "sample_completions", plain)
        policy = copy.deepcopy(speaker)
        changes = {"kl_coef": 0.0, "inner_epochs": 2, "minibatches": 2}
        rows, _ = rapo(policy, picture_folder, tmp_path / name, steps=1, **changes)
        results.append((rows[0], weights(policy)))
    assert len(passes) == 2 * 2 * 2
    (sampler_row, sampler_weights), (trainer_row, trainer_weights) = results
    assert sampler_row == pytest.approx(trainer_row, rel=1e-4, abs=1e-5)
    assert sampler_row["policy/ratio_max"] > 1.001
    for name, value in trainer_weights.items():
        torch.testing.assert_close(
            sampler_weights[name], value, atol=2e-4, rtol=0
        )  # Adam's first steps are of size lr = 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"micro_batch_size": 3}, {"micro_batch_tokens": 300}, {"minibatches": 2}])
def test_the_gap_between_sampler_and_trainer_is_measured(speaker, picture_folder, tmp_path, monkeypatch, changes):
    """Over completion tokens alone, each counting once; what on-policy training computes does not depend on it."""
    counted = []

    def shifted(backbone, prompts, rollout):
        """By .25 on the first half of the outputs, and 1 on one of their tokens; the other half's by .5."""
        half = len(rollout.tokens) // 2
        shift = torch.full(rollout.mask.shape, 0.25)
        shift[half:] = 0.5
        shift[1, 0] = -1.0
        seen = rollout.mask[:half] if "minibatches" in changes else rollout.mask
        counted.append(float((shift.abs()[: len(seen)] * seen).sum() / seen.sum()))
        return rollout.logps + shift * rollout.mask

    rows = []
    for name, plain in (("plain", sample_completions), ("shifted", of_sampler(shifted))):
        monkeypatch.setattr(completions_of_a_step, "sample_completions", plain)
        rows.append(rapo(copy.deepcopy(speaker), picture_folder, tmp_path / name, steps=1, **changes)[0][0])
    assert rows[0]["rollout/mismatch_mean"] <= rows[0]["rollout/mismatch_max"] < 1e-4
    assert rows[1]["rollout/mismatch_mean"] == pytest.approx(counted[0], abs=1e-4)
    assert rows[1]["rollout/mismatch_max"] == pytest.approx(1.0, abs=1e-4)
    if "minibatches" not in changes:
        measured = ("rollout/mismatch_mean", "rollout/mismatch_max")
        plain, other = ({key: value for key, value in row.items() if key not in measured} for row in rows)
        assert plain == other


@pytest.mark.slow
def test_in_half_precision_sampler_and_trainer_differ_by_rounding(speaker, picture_folder, tmp_path):
    """The number of docs/distributed.md (pytest -s prints it); a threshold of health.SIGNS stands well above it."""
    policy = copy.deepcopy(speaker)
    policy.model.to(torch.bfloat16)
    rows, _ = rapo(policy, picture_folder, tmp_path, steps=3, images_per_step=6, num_samples=8, temperature=1.3)
    means, largest = ([row[f"rollout/mismatch_{name}"] for row in rows] for name in ("mean", "max"))
    print(f"bfloat16: mean {sum(means) / 3:.1e}, max {max(largest):.3f} nats per token")
    assert 0 < max(means) < 0.01
    assert max(largest) < 0.3


@pytest.mark.slow
def test_truncated_outputs_stay_out_of_the_loss(speaker, picture_folder, tmp_path):
    rows, completions = rapo(copy.deepcopy(speaker), picture_folder, tmp_path, steps=1, max_new_tokens=3, kl_coef=0.0)
    assert rows[0]["rollout/truncated_rate"] == 1.0
    assert rows[0]["policy/grad_norm"] == 0.0
    assert all(row["truncated"] for row in completions)


@pytest.mark.slow
def test_rapo_raises_its_reward(speaker, picture_folder, tmp_path):
    policy = copy.deepcopy(speaker)
    # At temperature 1 the speaker earns 1.9 of 2 from the start; hotter, there is something to gain.
    sizes = {"images_per_step": 6, "num_samples": 6}
    rows, _ = rapo(policy, picture_folder, tmp_path, steps=25, lr=1e-3, temperature=1.6, **sizes)
    first = sum(row["reward/total"] for row in rows[:5]) / 5
    last = sum(row["reward/total"] for row in rows[-5:]) / 5
    assert last > first + 0.1


@pytest.mark.slow
def test_the_cold_start_is_measured_at_intervals_and_trains_the_same(tokenizer, picture_folder, tmp_path):
    from aes_r1.model import tiny

    def trained(every: int | None) -> tuple[list[int], dict[int, float], dict[str, torch.Tensor]]:
        backbone, measured, logged = tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0), [], {}

        def log(step: int, values: dict[str, float]) -> None:
            logged.update({step: values["sft/entropy"]} if "sft/entropy" in values else {})

        train_cold_start(
            backbone,
            engine_of(backbone),
            records(picture_folder),
            tmp_path / str(every),
            log=log,
            evaluate=lambda step: measured.append(step) or {"sft/entropy": step / 10},
            epochs=2,
            warmup_ratio=0.0,
            probe_every=every,
        )
        return measured, logged, backbone.model.state_dict()

    measured, logged, weights_with = trained(4)
    never, nothing, weights_without = trained(None)
    assert (measured, never) == ([0, 4, 6], [])
    assert (logged, nothing) == ({4: 0.4, 6: 0.6}, {}), "with their step, so that no step has two rows"
    assert all(torch.equal(weights_with[name], weights_without[name]) for name in weights_with)


@pytest.mark.gpu
def test_rapo_on_cuda_in_half_precision(speaker, picture_folder, tmp_path, monkeypatch):
    policy, captured = copy.deepcopy(speaker), []
    policy.model.to("cuda", torch.bfloat16)
    before = weights(policy)
    capture = CapturedDecoder._capture
    monkeypatch.setattr(CapturedDecoder, "_capture", lambda self: (captured.append(len(self.tokens)), capture(self)))
    rows, completions = rapo(policy, picture_folder, tmp_path, steps=2, micro_batch_size=6)
    assert captured == [16, 16]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values()), row
        assert row["policy/ratio_max"] == 1.0
        assert row["policy/grad_norm"] > 0
    assert rows[0]["reward/format"] > 0.5
    assert rows[0]["policy/kl_k3"] == pytest.approx(0.0, abs=1e-6)
    assert rows[1]["policy/kl_k3"] > 0
    assert any(row["reward_total"] > 0 for row in completions)
    assert any(not torch.equal(value, before[name]) for name, value in weights(policy).items())


@pytest.mark.slow
def test_long_outputs_lose_reward(speaker, picture_folder, tmp_path):
    """The rows say by how much: one token of 24 costs a 24th of the penalty when it begins at once."""
    plain, before = rapo(copy.deepcopy(speaker), picture_folder, tmp_path / "a", steps=1, max_new_tokens=24)
    how = {"steps": 1, "max_new_tokens": 24, "overlong_penalty": 2.0, "overlong_from": 0.0}
    changed, after = rapo(copy.deepcopy(speaker), picture_folder, tmp_path / "b", **how)
    assert "reward/overlong" not in plain[0]
    lengths = plain[0]["rollout/length_mean"]
    assert changed[0]["reward/overlong"] == pytest.approx(-lengths / 24)
    assert changed[0]["reward/total"] == pytest.approx(plain[0]["reward/total"] - 2 * lengths / 24)
    assert [row["text"] for row in after] == [row["text"] for row in before]
    for old, new in zip(before, after, strict=True):
        assert new["reward_total"] == pytest.approx(old["reward_total"] + 2 * new["reward_overlong"])


@pytest.mark.slow
def test_the_traced_step_alone_is_written(speaker, picture_folder, tmp_path):
    """The trace is JSON that holds the step's operations, and tracing changes no number."""
    file = tmp_path / "traces" / "step_2.json.gz"
    plain, _ = rapo(copy.deepcopy(speaker), picture_folder, tmp_path / "a", steps=2)
    traced, _ = rapo(copy.deepcopy(speaker), picture_folder, tmp_path / "b", steps=2, profile=2, trace_file=file)
    assert traced == plain
    with gzip.open(file, "rt") as opened:
        names = {event.get("name") for event in json.load(opened)["traceEvents"]}
    assert {"aten::mm", "Optimizer.step#AdamW.step"} <= names
    assert [path.name for path in file.parent.iterdir()] == ["step_2.json.gz"]


def test_a_step_that_the_run_does_not_have_cannot_be_traced(speaker, picture_folder, tmp_path):
    with pytest.raises(InputError, match=r"trainer\.profile=9: must be one of trainer\.max_steps=4"):
        TrainerSettings(max_steps=4, profile=9)
    with pytest.raises(InputError, match=r"trainer\.profile=99: the run has \d+ steps"):
        rapo(copy.deepcopy(speaker), picture_folder, tmp_path, steps=None, profile=99)


VARIANTS = [
    {"clip": "cispo"},
    {"clip": "sapo"},
    {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    {"ratio_cap": 1.0001, "clip_high": 1e-5},
    {"advantage": "per_reward"},
    {"entropy_coef": 0.5},
]


@pytest.mark.slow
def test_every_objective_trains_and_none_is_the_default(speaker, picture_folder, tmp_path):
    """Off policy, for on policy all surrogates are the same; one step each, from the same completions."""
    how = {"steps": 1, "minibatches": 2, "inner_epochs": 2}
    found = []
    for number, changes in enumerate([{}, *VARIANTS]):
        policy = copy.deepcopy(speaker)
        rows, _ = rapo(policy, picture_folder, tmp_path / str(number), **how, **changes)
        assert all(math.isfinite(value) for value in rows[0].values()), changes
        assert rows[0]["policy/grad_norm"] > 0
        found.append(weights(policy))
    for changes, moved in zip(VARIANTS, found[1:], strict=True):
        assert any(not torch.equal(value, found[0][name]) for name, value in moved.items()), changes


@pytest.mark.slow
def test_an_entropy_bonus_keeps_the_entropy_up(speaker, picture_folder, tmp_path):
    entropies = []
    for coef in (0.0, 1.0):
        rows, _ = rapo(copy.deepcopy(speaker), picture_folder, tmp_path / str(coef), entropy_coef=coef, kl_coef=0.0)
        entropies.append([row["policy/entropy"] for row in rows])
    assert entropies[0][0] == entropies[1][0]
    assert entropies[1][-1] > entropies[0][-1] + 0.02


@pytest.mark.slow
def test_the_divergence_in_the_reward_is_subtracted_before_the_advantage(speaker, picture_folder, tmp_path):
    how = {"steps": 2, "kl_coef": 0.0, "completions_every": 1}
    rows, completions = rapo(copy.deepcopy(speaker), picture_folder, tmp_path, kl_reward_coef=0.5, **how)
    assert rows[0]["reward/kl"] == pytest.approx(0, abs=1e-5)  # the policy is still the reference
    assert rows[1]["reward/kl"] != pytest.approx(0, abs=1e-3)
    for row in completions:
        plain = row["reward_rank"] + row["reward_error"]
        assert row["reward_total"] == pytest.approx(plain - 0.5 * row["reward_kl"], abs=1e-5)


@pytest.mark.slow
def test_a_reward_of_ones_own_is_in_the_sum_and_its_errors_end_the_run(speaker, picture_folder, tmp_path):
    (tmp_path / "mine.py").write_text("def length(scores, texts, samples): return [[len(t) for t in g] for g in texts]")
    named = f"{tmp_path / 'mine.py'}:length"
    reward = RewardSettings(custom=named, custom_weight=0.25)
    _, completions = rapo(copy.deepcopy(speaker), picture_folder, tmp_path / "a", steps=1, reward=reward)
    for row in completions:
        assert row["reward_custom"] == len(row["text"])
        plain = row["reward_rank"] + row["reward_error"]
        assert row["reward_total"] == pytest.approx(plain + 0.25 * len(row["text"]), rel=1e-5)
    (tmp_path / "mine.py").write_text("def length(scores, texts, samples): return scores.T[:1]")
    with pytest.raises(InputError, match=r"reward\.custom=.*mine\.py:length: returned 1 x 4; 4 x 4 was expected"):
        rapo(copy.deepcopy(speaker), picture_folder, tmp_path / "b", steps=1, reward=reward)


@pytest.mark.slow
def test_edited_twins_join_the_step_and_a_resumed_run_draws_the_same(speaker, picture_folder, tmp_path):
    """They have K outputs each, earn the pair reward alone, and leave the order of the images as it is."""
    how = {"edited_pairs": 2, "edits": ["tilt", "overexpose"], "completions_every": 1, "steps": 3}
    (tmp_path / "mine.py").write_text("def one(scores, texts, samples): return [[one.mos] * 4 for one in samples]")
    reward = RewardSettings(error=ErrorSettings(sigma=0.3), custom=f"{tmp_path / 'mine.py'}:one")
    straight, stopped, resumed = (copy.deepcopy(speaker) for _ in range(3))
    whole, drawn = rapo(straight, picture_folder, tmp_path / "whole", reward=reward, **how)
    plain, without = rapo(copy.deepcopy(speaker), picture_folder, tmp_path / "plain", steps=1, completions_every=1)
    assert [row["id"] for row in drawn[:16]] == [row["id"] for row in without]
    assert "reward/twin" not in plain[0]
    for step in range(3):
        rated, twins = drawn[24 * step :][:16], drawn[24 * step :][16:24]
        originals, edits = zip(*(row["id"].split("+") for row in twins), strict=True)
        assert list(originals) == [row["id"] for row in rated[:8]]
        assert set(edits) <= {"tilt", "overexpose"}
        assert all(row["mos"] is None and row["reward_error"] == row["reward_custom"] == 0 for row in twins)
        assert all(row["reward_total"] == pytest.approx(row["reward_twin"], abs=1e-6) for row in twins)
        assert {row["reward_twin"] for row in rated[8:]} == {0.0}
        for row in rated:
            parts = (row[f"reward_{name}"] for name in ("rank", "error", "twin", "custom"))
            assert row["reward_total"] == pytest.approx(sum(parts), abs=1e-5)
    assert {row["id"].split("+")[-1] for row in drawn if row["mos"] is None} == {"tilt", "overexpose"}
    assert whole[0]["reward/error"] == pytest.approx(plain[0]["reward/error"], abs=1e-5)
    with pytest.raises(Stopped):
        rapo(stopped, picture_folder, tmp_path / "parts", reward=reward, stop_after=2, **how)
    rest, _ = rapo(resumed, picture_folder, tmp_path / "parts", reward=reward, **how)
    assert rest == whole[2:]
    assert_same(weights(straight), weights(resumed))


@pytest.mark.slow
def test_groups_that_teach_nothing_are_replaced_and_a_resumed_run_replaces_the_same(
    speaker, picture_folder, tmp_path, monkeypatch
):
    """A reward that tells outputs apart only for pictures above .5, of which there are enough for every step."""
    (tmp_path / "mine.py").write_text(
        f"calls = open({str(tmp_path / 'calls')!r}, 'a', buffering=1)\n"
        "def high(scores, texts, samples):\n"
        "    calls.write('called\\n')\n"
        "    return [[k * (one.mos > 0.5) for k in range(4)] for one in samples]\n"
    )

    def calls() -> int:
        """Return how often the reward was called since the last question."""
        asked = (tmp_path / "calls").read_text().count("called")
        (tmp_path / "calls").write_text("")
        return asked

    drawings: list[int] = []
    draw = Refill._draw
    monkeypatch.setattr(Refill, "_draw", lambda self, step, *more: drawings.append(step) or draw(self, step, *more))
    reward = RewardSettings(
        rank=RankSettings(weight=0), error=ErrorSettings(weight=0), custom=f"{tmp_path / 'mine.py'}:high"
    )
    high = sum(one.mos > 0.5 for one in samples(picture_folder))
    assert 4 <= high <= 8
    write_manifest(samples(picture_folder), tmp_path / "manifest.jsonl")
    images = read_manifest(tmp_path / "manifest.jsonl")  # as in a run: each look makes a new object
    plain, _ = rapo(copy.deepcopy(speaker), picture_folder, tmp_path / "plain", reward=reward, steps=3)
    assert (calls(), drawings) == (3, [])  # once per step
    how = {"reward": reward, "dynamic_sampling": 6, "completions_every": 1, "steps": 3, "images": images}
    straight, stopped, resumed = (copy.deepcopy(speaker) for _ in range(3))
    whole, drawn = rapo(straight, picture_folder, tmp_path / "whole", **how)
    assert drawings
    assert calls() == 3 + len(drawings)  # and once more per drawing
    for before, after in zip(plain, whole, strict=True):
        assert after["rollout/zero_spread_groups"] == 0
        assert after["rollout/refilled"] == before["rollout/zero_spread_groups"]
        assert "rollout/refilled" not in before
    assert whole[0]["rollout/refilled"] > 0
    for start in range(0, len(drawn), 16):
        assert len({row["id"] for row in drawn[start : start + 16]}) == 4
    assert all(row["mos"] > 0.5 for row in drawn)
    with pytest.raises(Stopped):
        rapo(stopped, picture_folder, tmp_path / "parts", stop_after=2, **how)
    rest, _ = rapo(resumed, picture_folder, tmp_path / "parts", **how)
    assert rest == whole[2:]
    assert_same(weights(straight), weights(resumed))


@pytest.mark.slow
def test_two_sets_that_share_their_ids_draw_their_own_outputs_and_resume_bit_for_bit(speaker, picture_folder, tmp_path):
    """The very same pictures under two sets' names: what differs between their outputs is the noise alone."""
    own = samples(picture_folder)[:4]
    images = [dataclasses.replace(one, dataset=name) for one in own for name in ("one", "other")]
    how = {"images": images, "images_per_step": 8, "completions_every": 1, "steps": 3, "edited_pairs": 2}
    how["temperature"] = 2.0  # so that the outputs about a picture differ
    straight, stopped, resumed = (copy.deepcopy(speaker) for _ in range(3))
    whole, drawn = rapo(straight, picture_folder, tmp_path / "whole", **how)
    first = [row for row in drawn[: 10 * 4] if row["mos"] is not None]
    texts = {name: [row["text"] for row in first if row["id"] == name] for name in {row["id"] for row in first}}
    assert all(len(eight) == 8 for eight in texts.values())
    assert any(eight[:4] != eight[4:] for eight in texts.values())
    with pytest.raises(Stopped):
        rapo(stopped, picture_folder, tmp_path / "parts", stop_after=2, **how)
    rest, _ = rapo(resumed, picture_folder, tmp_path / "parts", **how)
    assert rest == whole[2:]
    assert_same(weights(straight), weights(resumed))
