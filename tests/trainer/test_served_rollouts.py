"""RAPO on completions that servers draw: what their errors weigh, when a run ends, what a resumed run draws."""

from __future__ import annotations

import copy
import math
import threading
import time

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout.served import ServedPolicy
from aes_r1.runs.stopping import Stopped
from aes_r1.settings import ErrorSettings, InputError, LoraSettings, RewardSettings, RolloutSettings, TrainerSettings
from aes_r1.trainer import checkpoint
from aes_r1.trainer import passes as step_passes
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.objective import importance_weights
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.rapo import train_rapo
from aes_r1.trainer.single_engine import SingleEngine
from tests.rollout.vllm_server import FakeServer
from tests.trainer.test_loops import Halt, into
from tests.trainer.twelve import samples


@pytest.fixture
def talker(talking_run):
    return backbones.load(talking_run / "model", dtype="float32", max_pixels=9216)


@pytest.fixture
def server(talker):
    fake = FakeServer(copy.deepcopy(talker))
    yield fake
    fake.kill()


def train(backbone, folder, out, server, *, stop_after=None, rollout=None, evaluate=None, **changes):
    """The rows that a run logs, timing left out."""
    trainer = TrainerSettings(
        **{
            "num_samples": 3, "images_per_step": 3, "max_steps": 3, "warmup_steps": 0, "lr": 1e-3, "kl_coef": 0.0,
            "max_new_tokens": 64, "micro_batch_size": 16, "save_every": 100, "eval_every": 100, "mask_truncated": False,
            "temperature": 1.2,
            **changes,
        }
    )  # fmt: skip
    settings = RolloutSettings(name="vllm", url=[server.url], weights=str(out), patience=20.0, **(rollout or {}))
    served = ServedPolicy(settings, name=str(out))
    rows, halt = [], Halt(stop_after)

    try:
        train_rapo(
            Policy(backbone, None, RATING_PROMPT, served=served),
            SingleEngine(backbone.model, weight_decay=0.01, max_grad_norm=1.0, device=backbone.device),
            samples(folder),
            trainer=trainer,
            reward=RewardSettings(error=ErrorSettings(sigma=0.3)),
            context=TrainingContext(
                folder=out / "checkpoints", seed=0, stop=halt, log=into(rows, halt), evaluate=evaluate or (lambda _: {})
            ),
        )
    finally:
        served.close()
    return rows


def misreport(server, shift):
    """Let the server say log-probabilities that are shift(place of the token) too high."""
    honest = server._completions

    def completions(body):
        content = honest(body)
        for choice in content["choices"]:
            for place, one in enumerate(choice["logprobs"]["content"]):
                one["logprob"] += shift(place)
        return content

    server._completions = completions


def test_weights_are_cut_above_and_nowhere_else():
    gap = torch.tensor([[-3.0, 0.0, 0.5], [0.6931, 0.6932, 40.0]])
    expected = torch.tensor([[math.exp(-3), 1.0, math.exp(0.5)], [2.0, 2.0, 2.0]])
    torch.testing.assert_close(importance_weights(gap, 2.0), expected, atol=2e-4, rtol=0)


@pytest.mark.slow
def test_an_honest_server_corrects_nothing(talker, server, picture_folder, tmp_path):
    rows = train(talker, picture_folder, tmp_path, server)
    assert len(rows) == 3
    for row in rows:
        assert row["rollout/mismatch_max"] < 5e-5
        assert row["rollout/mismatch_k3"] == pytest.approx(0.0, abs=1e-8)
        assert row["rollout/effective_sample_size"] == pytest.approx(1.0, abs=1e-6)
        assert row["rollout/capped_fraction"] == 0.0
    assert server.version.endswith("-3")


@pytest.mark.slow
def test_what_a_server_misreports_is_measured_and_weighed(talker, server, picture_folder, tmp_path):
    """The first token's probability said e^-1.5 too low: a ratio of 4.5, cut to 2; the others' weights are 1."""
    plain = train(copy.deepcopy(talker), picture_folder, tmp_path / "plain", server, max_steps=1)[0]
    misreport(server, lambda place: -1.5 if place == 0 else 0.0)
    loose = {"max_mismatch": 9.0}
    row = train(copy.deepcopy(talker), picture_folder, tmp_path / "loose", server, max_steps=1, rollout=loose)[0]
    first = 1 / row["rollout/length_mean"]  # share of first tokens
    ratio = math.exp(1.5)
    assert row["rollout/mismatch_max"] == pytest.approx(1.5, abs=1e-4)
    assert row["rollout/mismatch_mean"] == pytest.approx(1.5 * first, rel=1e-3)
    assert row["rollout/mismatch_k3"] == pytest.approx((ratio - 1 - 1.5) * first, rel=1e-3)
    assert row["rollout/capped_fraction"] == pytest.approx(first, rel=1e-6)
    expected = (1 + (ratio - 1) * first) ** 2 / (1 + (ratio**2 - 1) * first)
    assert row["rollout/effective_sample_size"] == pytest.approx(expected, rel=1e-3)
    # With the cap at 1 no weight is above 1, and none is below it: the update is the honest one's.
    capped = {"max_mismatch": 9.0, "cap": 1.0}
    row = train(copy.deepcopy(talker), picture_folder, tmp_path / "capped", server, max_steps=1, rollout=capped)[0]
    assert row["policy/grad_norm"] == pytest.approx(plain["policy/grad_norm"], rel=1e-4)


@pytest.mark.slow
def test_a_weight_multiplies_the_gradient(talker, server, picture_folder, tmp_path):
    """All probabilities said twice too high: every weight is a half, and so is the gradient."""
    plain = train(copy.deepcopy(talker), picture_folder, tmp_path / "plain", server, max_steps=1)[0]
    misreport(server, lambda _: math.log(2))
    assert plain["policy/grad_norm"] > 1e-3
    loose = {"max_mismatch": 9.0}
    row = train(talker, picture_folder, tmp_path / "loose", server, max_steps=1, rollout=loose)[0]
    assert row["policy/grad_norm"] == pytest.approx(plain["policy/grad_norm"] / 2, rel=1e-4)


@pytest.mark.slow
def test_with_several_updates_the_ratio_is_between_the_trainers_own_policies(talker, server, picture_folder, tmp_path):
    misreport(server, lambda _: 1.0)
    rows = train(
        talker, picture_folder, tmp_path, server, max_steps=1, minibatches=3, lr=1e-9, rollout={"max_mismatch": 9.0}
    )
    assert rows[0]["policy/ratio_max"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.slow
def test_a_mismatch_ends_the_run_before_anything_is_saved(talker, server, picture_folder, tmp_path):
    honest = server._completions
    drawn = []

    def spoilt(body):
        drawn.append(body)
        if len(drawn) == 5:  # the handshake and the first step are well
            misreport(server, lambda _: 0.1)
            return server._completions(body)
        return honest(body)

    server._completions = spoilt
    with pytest.raises(InputError, match=r"rollout.max_mismatch=0.001: log-probabilities of step 2 differ by"):
        train(talker, picture_folder, tmp_path, server, save_every=1)
    assert checkpoint.steps(tmp_path / "checkpoints") == [1]


@pytest.mark.slow
def test_a_step_that_is_not_finite_in_the_trainer_is_skipped_and_no_fault_of_the_servers(
    talker, server, picture_folder, tmp_path, monkeypatch
):
    plain, passes = step_passes.completion_likelihood, []

    def second_is_spoilt(*given, **how):
        passes.append(given)
        logps, entropy = plain(*given, **how)
        return logps * (math.nan if len(passes) == 2 else 1.0), entropy

    monkeypatch.setattr(step_passes, "completion_likelihood", second_is_spoilt)
    rows = train(talker, picture_folder, tmp_path, server)
    assert [row["policy/skipped_steps"] for row in rows] == [0, 1, 0]
    assert [math.isnan(row["rollout/mismatch_mean"]) for row in rows] == [False, True, False]


@pytest.mark.slow
def test_further_images_are_drawn_with_the_weights_that_the_servers_have(
    talker, server, picture_folder, tmp_path, monkeypatch
):
    """So cold that a group's outputs are all the same, and each step draws two further times."""
    pushes, push = [], ServedPolicy.push
    monkeypatch.setattr(
        ServedPolicy, "push", lambda served, *given, **how: (pushes.append(1), push(served, *given, **how))
    )
    rows = train(talker, picture_folder, tmp_path, server, max_steps=2, dynamic_sampling=2, temperature=1e-3)
    assert [row["rollout/zero_spread_groups"] for row in rows] == [1, 1]
    assert len(server.asked) == 1 + 2 * 3 * 3  # the handshake; two steps of three drawings of three images
    assert len(pushes) == 2


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.slow
def test_three_deaths_of_the_server_lose_nothing(talker, server, picture_folder, tmp_path, ahead):
    """It dies at an answer of each step and returns with old weights; the run is the undisturbed one, to the bit."""
    other, how = copy.deepcopy(talker), {"rollout": {"ahead": ahead}, "max_new_tokens": 32}
    plain = train(talker, picture_folder, tmp_path / "plain", server, **how)
    honest, drawn, deaths = server._completions, [], []

    def dying(body):
        drawn.append(body)
        if len(drawn) in (3, 7, 11):
            deaths.append(threading.Thread(target=die))
            deaths[-1].start()
        return honest(body)

    def die():
        server.kill()
        time.sleep(0.1)
        server.start()

    server._completions = dying
    rows = train(other, picture_folder, tmp_path / "deaths", server, **how)
    for death in deaths:
        death.join()  # the run may be over before the server is back from its last
    assert len(deaths) == 3
    assert rows == plain
    for name, value in talker.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0, 1])
def test_a_resumed_run_draws_and_learns_the_same(talker, server, picture_folder, tmp_path, ahead):
    other = copy.deepcopy(talker)
    how = {"max_steps": 4, "save_every": 2, "rollout": {"ahead": ahead}}
    whole = train(talker, picture_folder, tmp_path / "whole", server, **how)
    with pytest.raises(Stopped):
        train(other, picture_folder, tmp_path / "parts", server, stop_after=2, **how)
    server.kill()
    server.start()  # with the weights of its own start
    rest = train(other, picture_folder, tmp_path / "parts", server, **how)
    assert rest == whole[2:]
    for name, value in talker.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


@pytest.mark.slow
def test_drawn_ahead_completions_are_one_step_old(talker, server, picture_folder, tmp_path):
    """Every second step follows a checkpoint here, so it is drawn with the weights that it updates."""
    evaluated = []

    def evaluate(step):
        evaluated.append(len(server.asked))
        return {}

    rows = train(
        talker, picture_folder, tmp_path, server,
        max_steps=4, save_every=2, eval_every=1, lr=5e-3, rollout={"ahead": 1}, evaluate=evaluate,
    )  # fmt: skip
    gaps = [row["rollout/mismatch_mean"] for row in rows]
    assert max(gaps[0], gaps[2]) < 1e-5
    assert min(gaps[1], gaps[3]) > 1e-3
    assert all(row["rollout/effective_sample_size"] < 1 - 1e-6 for row in (rows[1], rows[3]))
    # A validation waits for what is being drawn, because the servers are given other weights for it.
    assert evaluated == [7, 7, 13, 13]


@pytest.mark.slow
def test_an_adapter_is_trained_on_what_servers_draw(talker, server, picture_folder, tmp_path):
    """The stand-in holds no adapter, so its answers are the base's: equal as long as the adapter adds nothing."""
    adapted = backbones.add_adapter(talker, LoraSettings(rank=4))
    rows = train(adapted, picture_folder, tmp_path, server, max_steps=2, rollout={"max_mismatch": 9.0})
    assert rows[0]["rollout/mismatch_max"] < 5e-5
    assert rows[1]["rollout/mismatch_max"] > 1e-4
    assert server.routes.count("/update_weights") == 1
    assert server.routes.count("/v1/load_lora_adapter") == 2
