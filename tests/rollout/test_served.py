"""Completions from servers: equal to the local sampler's, and only those that were asked for, whatever servers do."""

from __future__ import annotations

import copy
import itertools
import math
import threading
import time

import pytest
import torch

from aes_r1.model.likelihood import completion_likelihood
from aes_r1.model.shown_picture import shown_picture
from aes_r1.rollout.failures import ServersGone
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from aes_r1.rollout.served import ServedPolicy, require_match
from aes_r1.settings import InputError, LoraSettings, RolloutSettings
from tests.conftest import picture
from tests.rollout.vllm_server import FakeServer

K, LONGEST = 3, 12


@pytest.fixture
def server(backbone):
    fake = FakeServer(copy.deepcopy(backbone))
    yield fake
    fake.kill()


@pytest.fixture
def second(backbone):
    fake = FakeServer(copy.deepcopy(backbone))
    yield fake
    fake.kill()


@pytest.fixture
def policy(server, tmp_path):
    made = policy_at(tmp_path, server.url)
    yield made
    made.close()


def policy_at(folder, *urls, patience=20.0, **more):
    settings = RolloutSettings(name="vllm", url=list(urls), weights=str(folder / "shm"), patience=patience, **more)
    return ServedPolicy(settings, name=str(folder / "run"))


def noise(*, start=0):
    return keyed_uniform_noise([("test", start, image, k) for image in range(3) for k in range(K)], LONGEST)


def drawn(policy, backbone, prompts, *, temperature=1.0, start=0):
    return policy.sample_completions(
        backbone, prompts, num_samples=K, max_new_tokens=LONGEST, temperature=temperature, noise=noise(start=start)
    )


def moved(backbone, seed=0):
    """The backbone with other weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return backbone


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("tokens", "mask", "truncated"))


def gap(policy_rollout, backbone, prompts, temperature=1.0):
    rows = torch.arange(len(prompts)).repeat_interleave(K)
    with torch.no_grad():
        logps, _ = completion_likelihood(
            backbone, prompts, policy_rollout.tokens, policy_rollout.mask, rows, temperature=temperature
        )
    return float((logps - policy_rollout.logps)[policy_rollout.mask].abs().max())


@pytest.mark.parametrize("size", [(192, 192), (224, 160), (96, 200), (31, 57)])
def test_a_picture_is_told_from_its_patches(backbone, size):
    encoded = backbone.encode(picture(*size), "Rate it.")
    shown = shown_picture(backbone.image_processor, encoded.pixel_values, encoded.image_grid_thw[0])
    again = backbone.encode(shown, "Rate it.")
    assert (again.image_grid_thw == encoded.image_grid_thw).all()
    assert (again.pixel_values == encoded.pixel_values).all()


@pytest.mark.slow
def test_the_most_likely_tokens_are_the_local_ones(policy, backbone, prompts):
    policy.push(moved(backbone))
    how = {"num_samples": 1, "max_new_tokens": LONGEST, "temperature": 1.0, "noise": None}
    served, local = policy.sample_completions(backbone, prompts, **how), sample_completions(backbone, prompts, **how)
    assert same(served, local)
    torch.testing.assert_close(served.logps, local.logps, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_log_probabilities_are_those_of_the_weights_that_were_pushed(policy, backbone, prompts):
    for push in range(3):
        policy.push(moved(backbone, push))
        assert gap(drawn(policy, backbone, prompts, temperature=0.7), backbone, prompts, 0.7) < 1e-5


@pytest.mark.slow
def test_a_completion_depends_on_its_noise_alone(policy, backbone, prompts):
    policy.push(backbone)
    whole = drawn(policy, backbone, prompts)
    assert same(whole, drawn(policy, backbone, prompts))
    assert not same(whole, drawn(policy, backbone, prompts, start=1))
    alone = policy.sample_completions(
        backbone,
        prompts.select(torch.tensor([2])),
        num_samples=K,
        max_new_tokens=LONGEST,
        temperature=1.0,
        noise=noise()[2 * K :],
    )
    width = alone.tokens.shape[1]
    assert torch.equal(alone.tokens, whole.tokens[2 * K :, :width])


@pytest.mark.slow
def test_seeds_of_neighbours_lie_far_apart(policy, server, backbone, prompts):
    """Completion k draws with seed + k, so that neighbouring seeds would draw the same completion twice."""
    drawn(policy, backbone, prompts)
    seeds = sorted(body["sampling_params"]["seed"] for body in server.asked)
    assert min(b - a for a, b in itertools.pairwise(seeds)) > 1000


@pytest.mark.parametrize(
    "fault", ["500", "503", "slow", "cut", "too few", "aborted", "other version", "no log-probabilities"]
)
@pytest.mark.slow
def test_a_request_is_repeated_after_a_faulty_answer(server, backbone, prompts, tmp_path, fault):
    policy = policy_at(tmp_path, server.url)
    policy.servers._timeout = 1.0 if fault == "slow" else 10.0
    policy.push(moved(backbone))
    expected = drawn(policy, backbone, prompts)
    server.misbehave(fault, fault)
    asked = len(server.routes)
    assert same(drawn(policy, backbone, prompts), expected)
    assert server.routes[asked:].count("/inference/v1/generate") >= 4
    policy.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("grown prompt", r"the server's prompt differs: \d+ tokens, ours has \d+"),
        ("banned", "told not to"),
        ("own limit", "start it with `aes-r1 serve --max"),
    ],
)
@pytest.mark.slow
def test_an_answer_to_something_else_ends_the_run(policy, server, backbone, prompts, fault, said):
    policy.push(backbone)
    server.misbehave(fault)
    with pytest.raises(InputError, match=said):
        drawn(policy, backbone, prompts)


@pytest.mark.slow
def test_a_server_that_comes_back_with_old_weights_is_given_the_new_ones(policy, server, backbone, prompts):
    policy.push(moved(backbone))
    expected = drawn(policy, backbone, prompts)
    server.kill()
    later = threading.Timer(0.3, server.start)
    later.start()
    assert same(drawn(policy, backbone, prompts), expected)
    assert gap(expected, backbone, prompts) < 1e-5
    later.join()


@pytest.mark.slow
def test_an_update_that_was_cut_off_is_finished(policy, server, backbone, prompts):
    """A trainer that was killed within its update leaves one open, which vLLM answers with 500."""
    policy.push(moved(backbone))
    started = server.answer
    server.answer = lambda route, body: (500, None) if route == "/start_weight_update" else started(route, body)
    policy.push(moved(backbone, 1))
    assert gap(drawn(policy, backbone, prompts), backbone, prompts) < 1e-5


@pytest.mark.slow
def test_one_of_two_servers_dies_and_returns(server, second, backbone, prompts, tmp_path):
    policy = policy_at(tmp_path, server.url, second.url)
    policy.push(moved(backbone))
    expected = drawn(policy, backbone, prompts)
    assert [len(one.asked) for one in (server, second)] == [2, 1]
    server.kill()
    policy.push(moved(backbone, 1))
    alone = drawn(policy, backbone, prompts)
    assert not same(alone, expected)
    assert len(server.asked) == 2
    server.start()
    time.sleep(1.0)
    assert same(drawn(policy, backbone, prompts), alone)
    assert len(server.asked) > 2
    policy.close()


@pytest.mark.slow
def test_without_a_server_the_end_is_one_line(server, backbone, prompts, tmp_path):
    policy = policy_at(tmp_path, server.url, patience=0.5)
    server.kill()
    policy.push(backbone)
    with pytest.raises(ServersGone, match=r"within rollout.patience=0.5 seconds \(last: .*refused"):
        drawn(policy, backbone, prompts)
    server.start()
    policy.close()


@pytest.mark.slow
def test_weights_of_another_model_are_refused(policy, server, backbone, prompts):
    del server._first["lm_head.weight" if "lm_head.weight" in server._first else next(iter(server._first))]
    with pytest.raises(InputError, match="does not take the run's weights"):
        policy.push(backbone)


@pytest.mark.slow
def test_a_server_that_dies_while_it_takes_weights_and_is_back_at_once_gets_them_again(
    policy, server, backbone, prompts
):
    """By the time that somebody asks whether it is healthy, another one may have been started in its place."""
    policy.push(backbone)
    expected = drawn(policy, backbone, prompts)
    server.misbehave("hangs up")
    policy.push(backbone)
    assert same(drawn(policy, backbone, prompts), expected)
    assert server.routes.count("/update_weights") == 3


@pytest.mark.slow
def test_a_server_that_keeps_old_weights_is_found_out(policy, server, backbone, prompts):
    """It says the new version and draws with the old weights: no answer is wrong in form."""
    policy.push(backbone)
    assert policy.handshake(backbone, prompts, max_new_tokens=LONGEST) < 1e-5
    server.faults.append("deaf")
    policy.push(moved(backbone))
    with pytest.raises(InputError, match=r"rollout.max_mismatch=0.001: .* differ by .*likely causes"):
        policy.handshake(backbone, prompts, max_new_tokens=LONGEST)


@pytest.mark.slow
def test_weights_are_kept_in_one_folder_that_is_removed_at_the_end(policy, backbone, tmp_path):
    policy.push(backbone)
    policy.push(backbone)
    assert len(list(policy.folder.glob("*/model.safetensors"))) == 1
    policy.close()
    assert not policy.folder.exists()


@pytest.mark.parametrize("planted", ["link", "file"])
def test_weights_are_not_written_over_what_somebody_else_has_put_there(planted, policy, backbone, tmp_path):
    other = tmp_path / "other"
    (other / "precious").mkdir(parents=True)
    policy.folder.parent.mkdir(exist_ok=True)
    if planted == "link":
        policy.folder.symlink_to(other, target_is_directory=True)
        with pytest.raises(InputError, match=r"rollout.weights: .* is a link or another user's"):
            policy.push(backbone)
        assert [path.name for path in other.iterdir()] == ["precious"]
    else:
        policy.folder.write_text("")
        with pytest.raises(OSError, match="File exists"):
            policy.push(backbone)


@pytest.mark.slow
def test_weights_are_for_their_owner_alone(policy, backbone):
    policy.push(backbone)
    assert policy.folder.stat().st_mode & 0o077 == 0


def test_a_folder_of_weights_that_another_machine_does_not_see_is_named(server, backbone, tmp_path):
    second = ServedPolicy(
        RolloutSettings(name="vllm", url=[server.url], weights=str(tmp_path / "elsewhere")), name="run", rank=1, size=2
    )
    with pytest.raises(InputError, match=r"rollout.weights: .*held.json.*; every machine of the run"):
        second.push(backbone)
    second.close()


@pytest.mark.slow
def test_an_adapter_is_sent_without_the_base(policy, server, backbone, prompts):
    from aes_r1.model import backbone as backbones

    adapted = moved(backbones.add_adapter(backbone, LoraSettings(rank=4), seed=1))
    for _ in range(2):
        policy.push(moved(adapted))
        drawn(policy, adapted, prompts)
    assert server.routes.count("/update_weights") == 1
    assert list(server.adapters) == [policy.weights.adapter]
    assert {body["model"] for body in server.asked[-3:]} == {policy.weights.adapter}
    held = server.adapters[policy.weights.adapter]
    names = {name.replace(".default.", ".") for name, p in adapted.model.named_parameters() if "lora_" in name}
    assert held.keys() == names
    server.kill()
    server.start()
    drawn(policy, adapted, prompts)
    assert list(server.adapters) == [policy.weights.adapter]
    assert server.version == policy.weights.version


@pytest.mark.slow
def test_every_process_draws_with_what_rank_0_has_pushed(server, backbone, prompts, tmp_path):
    settings = RolloutSettings(name="vllm", url=[server.url], weights=str(tmp_path), patience=20.0)
    barrier = threading.Barrier(2)
    policies = [ServedPolicy(settings, name="run", rank=rank, size=2) for rank in range(2)]
    threads = [
        threading.Thread(target=policy.push, args=(backbone,), kwargs={"wait": barrier.wait}) for policy in policies
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert policies[0].weights.version == policies[1].weights.version == server.version
    assert same(*(drawn(policy, backbone, prompts) for policy in policies))
    for policy in policies[::-1]:
        policy.close()


def test_a_gap_that_is_no_number_is_no_match():
    require_match(0.1, 0.1, "step 1")
    for gap in (0.11, math.inf, math.nan):
        with pytest.raises(InputError, match=r"rollout\.max_mismatch=0\.1: log-probabilities of step 1 differ"):
            require_match(gap, 0.1, "step 1")
