from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aes_r1.trainer.objective import (
    Surrogate,
    advantage_by_reward,
    cispo_objective,
    clipped_objective,
    clipped_tokens,
    group_advantage,
    learning_rate,
    loss_divisor,
    policy_loss,
    probability_ratio,
    sapo_objective,
    sequence_kl_k1,
    zero_spread,
)

RECIPE = {"clip_low": 0.2, "clip_high": 0.28, "kl_coef": 0.05}


def batch(rows=6, length=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logps = -torch.rand(rows, length, generator=generator) * 3
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)
    return {
        "logps": logps,
        "old_logps": logps + 0.5 * torch.randn(rows, length, generator=generator),
        "ref_logps": logps + 0.5 * torch.randn(rows, length, generator=generator),
        "advantages": torch.randn(rows, generator=generator),
        "mask": mask,
    }


def test_group_advantage_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    wanted = torch.tensor([[-1 / 1.0001, 0.0, 1 / 1.0001], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(group_advantage(rewards), wanted)
    torch.testing.assert_close(group_advantage(rewards, scale=False), torch.tensor([[-1.0, 0, 1], [0, 0, 0]]))


@given(st.lists(st.lists(st.floats(-10, 10), min_size=4, max_size=4), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
@pytest.mark.slow
def test_advantages_of_an_image_sum_to_zero(rewards):
    advantages = group_advantage(torch.tensor(rewards, dtype=torch.float64))
    assert advantages.sum(dim=1).abs().max() < 1e-6
    assert advantages.std(dim=1).max() <= 1 + 1e-9


@pytest.mark.parametrize("samples", [3, 6, 7])
def test_equal_rewards_have_no_advantage_whatever_their_digits(samples):
    """In float32 the mean of six times 1.7320508 is another number, and its error would be divided by eps."""
    rewards = torch.tensor([[1.7320508] * samples, [0.1] * samples, [-3.3333333] * samples])
    assert group_advantage(rewards).abs().max() < 1e-10
    assert group_advantage(rewards).dtype == torch.float32


def test_zero_spread():
    assert zero_spread(torch.tensor([[1.0, 1.0], [1.0, 1.1]])).tolist() == [True, False]


def test_loss_against_a_plain_loop():
    values = batch()
    loss, metrics = policy_loss(**values, **RECIPE, aggregation="sequence_mean", normalizer=6)
    total, kls, tokens = 0.0, 0.0, 0
    for row in range(6):
        terms = []
        for t in range(5):
            if not values["mask"][row, t]:
                continue
            logp, old, ref = (float(values[name][row, t]) for name in ("logps", "old_logps", "ref_logps"))
            advantage = float(values["advantages"][row])
            ratio = math.exp(logp - old)
            surrogate = min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage)
            kl = math.exp(ref - logp) - (ref - logp) - 1
            kls, tokens = kls + kl, tokens + 1
            terms.append(surrogate - 0.05 * kl)
        total -= sum(terms) / len(terms)
    assert float(loss) == pytest.approx(total / 6, rel=1e-5)
    assert float(metrics["kl_k3"]) == pytest.approx(kls / tokens, rel=1e-5)
    assert int(metrics["tokens"]) == tokens


OTHERS = [
    Surrogate(),
    Surrogate(ratio="sequence"),
    Surrogate(ratio_cap=1.4),
    Surrogate(kind="cispo"),
    Surrogate(kind="sapo", ratio="sequence"),
    Surrogate(entropy_coef=0.1),
]


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean", "constant"])
def test_any_split_gives_the_same_gradient(aggregation, form):
    values = batch(rows=8) | {"entropy": torch.rand(8, 5, generator=torch.Generator().manual_seed(1))}
    divisor = loss_divisor(values["mask"], aggregation, 5)
    gradients, losses = [], []
    for sizes in ([8], [1] * 8, [3, 5]):
        logps = values["logps"].clone().requires_grad_()
        loss = torch.zeros(())
        for rows in torch.arange(8).split(sizes):
            part = {name: value[rows] for name, value in (values | {"logps": logps}).items()}
            piece, _ = policy_loss(**part, **RECIPE, surrogate=form, aggregation=aggregation, normalizer=divisor)
            piece.backward(retain_graph=True)
            loss = loss + piece.detach()
        gradients.append(logps.grad)
        losses.append(loss)
    for gradient, loss in zip(gradients[1:], losses[1:], strict=True):
        torch.testing.assert_close(gradient, gradients[0])
        torch.testing.assert_close(loss, losses[0])


def test_divisors():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    assert int(loss_divisor(mask, "sequence_mean", 3)) == 2
    assert int(loss_divisor(mask, "token_mean", 3)) == 3
    assert int(loss_divisor(mask, "constant", 3)) == 6
    for aggregation in ("sequence_mean", "token_mean", "constant"):  # processes add theirs up; one may have no token
        parts = [loss_divisor(part, aggregation, 3) for part in (mask[:2], mask[2:])]
        assert int(parts[1]) == 0
        assert int(sum(parts)) == int(loss_divisor(mask, aggregation, 3))


def test_on_policy_gradient_is_the_policy_gradient():
    values = batch()
    logps = values["logps"].clone().requires_grad_()
    loss, metrics = policy_loss(
        logps,
        logps.detach(),
        None,
        values["advantages"],
        values["mask"],
        clip_low=0.2,
        clip_high=0.28,
        kl_coef=0.0,
        aggregation="token_mean",
        normalizer=int(values["mask"].sum()),
    )
    loss.backward()
    wanted = -values["advantages"][:, None] * values["mask"] / values["mask"].sum()
    torch.testing.assert_close(logps.grad, wanted)
    assert float(metrics["ratio_max"]) == 1.0


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.27, 1, True), (1.29, 1, False), (1.29, -1, True), (0.81, -1, True), (0.79, -1, False), (0.79, 1, True)],
)
def test_clip_higher(ratio, advantage, moves):
    logps = torch.tensor([[math.log(ratio)]], requires_grad=True)
    loss, metrics = policy_loss(
        logps,
        torch.zeros(1, 1),
        None,
        torch.tensor([float(advantage)]),
        torch.ones(1, 1, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.28,
        kl_coef=0.0,
        aggregation="token_mean",
        normalizer=1,
    )
    loss.backward()
    assert (logps.grad.abs().item() > 0) == moves
    assert float(metrics["clip_low_fraction"] + metrics["clip_high_fraction"]) == float(not moves)


def test_k3_is_never_negative_and_pulls_home():
    values = batch()
    logps = values["logps"].clone().requires_grad_()
    loss, metrics = policy_loss(
        **(values | {"logps": logps, "old_logps": logps.detach(), "advantages": torch.zeros(6)}),
        **RECIPE,
        aggregation="token_mean",
        normalizer=1,
    )
    loss.backward()
    assert loss.item() >= 0
    inside = values["mask"]
    difference = values["ref_logps"] - values["logps"]
    torch.testing.assert_close(logps.grad[inside], 0.05 * (1 - difference.exp())[inside], atol=1e-6, rtol=1e-5)
    assert float(metrics["kl_k1"]) == pytest.approx(float(-difference[inside].mean()), rel=1e-5)


def test_what_stands_outside_the_mask_is_not_seen():
    values = batch()
    loss, _ = policy_loss(**values, **RECIPE, aggregation="token_mean", normalizer=3)
    noisy = {
        name: torch.where(values["mask"], value, torch.full_like(value, 50.0)) if name.endswith("logps") else value
        for name, value in values.items()
    }
    noisy["old_logps"] = torch.where(values["mask"], values["old_logps"], torch.full_like(values["old_logps"], -900.0))
    again, _ = policy_loss(**noisy, **RECIPE, aggregation="token_mean", normalizer=3)
    torch.testing.assert_close(loss, again)


def test_errors():
    values = batch()
    with pytest.raises(ValueError, match="ref_logps"):
        policy_loss(**(values | {"ref_logps": None}), **RECIPE, aggregation="token_mean", normalizer=1)
    with pytest.raises(ValueError, match="aggregation=mean"):
        policy_loss(**values, **RECIPE, aggregation="mean", normalizer=1)
    with pytest.raises(ValueError, match="surrogate=trpo: must be one of ppo, cispo, sapo"):
        policy_loss(**values, **RECIPE, surrogate=Surrogate(kind="trpo"), aggregation="token_mean", normalizer=1)
    with pytest.raises(ValueError, match="ratio=word: must be one of token, sequence"):
        policy_loss(**values, **RECIPE, surrogate=Surrogate(ratio="word"), aggregation="token_mean", normalizer=1)
    with pytest.raises(ValueError, match=r"entropy_coef=0\.1 needs entropy"):
        policy_loss(**values, **RECIPE, surrogate=Surrogate(entropy_coef=0.1), aggregation="token_mean", normalizer=1)
    with pytest.raises(ValueError, match="none of rank has a weight"):
        advantage_by_reward({"rank": torch.zeros(2, 2)}, {"error": 1.0})


def test_learning_rate():
    linear = [learning_rate(step, 10, base=1.0, schedule="linear") for step in range(10)]
    assert linear == pytest.approx([1 - step / 10 for step in range(10)])
    assert learning_rate(5, 10, base=2.0, schedule="cosine") == pytest.approx(1.0)
    assert learning_rate(9, 10, base=2.0, schedule="constant") == 2.0
    assert [learning_rate(step, 10, base=1.0, schedule="linear", warmup=2) for step in range(3)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("name", ["logps", "old_logps", "ref_logps", "advantages", "entropy"])
@pytest.mark.parametrize("value", [float("-inf"), float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("aggregation", "form"),
    [
        *((name, OTHERS[0]) for name in ("sequence_mean", "token_mean", "constant")),
        *(("token_mean", form) for form in OTHERS[1:]),
    ],
)
def test_no_gradient_comes_from_outside_the_mask(name, value, aggregation, form):
    """-inf: a token that may not be drawn; NaN: what is computed of it. The rest keeps its gradient to the bit."""
    clean = batch()
    clean["mask"][0], clean["mask"][1, 2:] = False, False  # a whole row, and the end of one
    clean["advantages"] = clean["advantages"][:, None].expand(6, 5).clone()
    clean["entropy"] = torch.rand(6, 5, generator=torch.Generator().manual_seed(1))
    harmed = {key: tensor.clone() for key, tensor in clean.items()}
    harmed[name][~clean["mask"]] = value
    found = []
    for values in (clean, harmed):
        logps = values["logps"].requires_grad_()
        loss, metrics = policy_loss(**values, **RECIPE, surrogate=form, aggregation=aggregation, normalizer=3)
        loss.backward()
        found.append((loss.detach(), logps.grad, metrics["clip_low_fraction"], metrics["ratio_max"]))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert found[1][1].isfinite().all()


@pytest.mark.parametrize("difference", [19.0, 39.0, 100.0, 1e30])
def test_a_token_far_from_home_has_a_finite_loss(difference):
    """exp(100) is infinite in float32; up to a difference of 20 k3 and the ratio are what the formula says."""
    logps = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    far = torch.tensor([[difference, 0.0]])
    loss, metrics = policy_loss(
        logps,
        logps.detach() - far,  # the ratio is exp(difference)
        logps.detach() + far,  # and so is k3, nearly
        torch.tensor([-1.0]),
        torch.ones(1, 2, dtype=torch.bool),
        **(RECIPE | {"kl_coef": 1.0}),
        aggregation="token_mean",
        normalizer=2,
    )
    loss.backward()
    bounded = min(difference, 20.0)
    k3 = math.exp(bounded) - bounded - 1
    assert float(metrics["kl_k3"]) == pytest.approx(k3 / 2, rel=1e-5)
    assert float(metrics["ratio_max"]) == pytest.approx(math.exp(bounded), rel=1e-5)
    assert loss.item() == pytest.approx((math.exp(bounded) + 1 + k3) / 2, rel=1e-5)
    assert logps.grad.isfinite().all()


def test_home_far_below_still_pulls():
    """A token that the reference thinks nearly impossible: k3 is linear there and its gradient 1, without a bound."""
    logps = torch.tensor([[-1.0]], requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss, _ = policy_loss(
        logps, logps.detach(), logps.detach() - 50, torch.zeros(1), mask,
        **RECIPE, aggregation="token_mean", normalizer=1,
    )  # fmt: skip
    loss.backward()
    assert loss.item() == pytest.approx(0.05 * 49)
    assert logps.grad.item() == pytest.approx(0.05)


# Two completions of two and one tokens, by hand: ratios 2 and .5, and 1.5.
RATIOS = torch.tensor([[2.0, 0.5], [1.5, 9.0]])
MASK = torch.tensor([[True, True], [True, False]])


def test_the_ratio_of_a_sequence_is_the_geometric_mean_of_its_tokens():
    ratio = probability_ratio(RATIOS.log(), torch.zeros(2, 2), MASK, "sequence")
    torch.testing.assert_close(ratio, torch.tensor([[1.0, 1.0], [1.5, 1.0]]))
    torch.testing.assert_close(
        probability_ratio(RATIOS.log(), torch.zeros(2, 2), MASK, "token"), torch.tensor([[2.0, 0.5], [1.5, 1.0]])
    )


def test_each_token_has_the_gradient_of_its_own_advantage_under_a_sequence_ratio():
    """The words' advantage 0 must not be moved by the answer's 1, though both share a ratio."""
    logps = RATIOS.log().requires_grad_()
    ratio = probability_ratio(logps, torch.zeros(2, 2), MASK, "sequence")
    (ratio * torch.tensor([[0.0, 1.0], [2.0, 7.0]])).sum().backward()
    torch.testing.assert_close(logps.grad, torch.tensor([[0.0, 1.0], [3.0, 0.0]]))


def test_the_two_sided_clip_by_hand():
    how = {"clip_low": 0.2, "clip_high": 0.28}
    ratio = torch.tensor([0.5, 1.1, 5.0])
    for advantage, cap, wanted in (
        (1.0, None, [0.5, 1.1, 1.28]),
        (-1.0, None, [-0.8, -1.1, -5.0]),
        (-1.0, 3.0, [-0.8, -1.1, -3.0]),
        (1.0, 3.0, [0.5, 1.1, 1.28]),
    ):
        found = clipped_objective(ratio, torch.tensor(advantage), **how, ratio_cap=cap)
        torch.testing.assert_close(found, torch.tensor(wanted))


def test_cispo_by_hand():
    """The weight is cut and every token keeps the gradient of its log-probability."""
    logps = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    ratio = torch.tensor([0.1, 1.2, 5.0])
    objective = cispo_objective(ratio, logps, torch.tensor([1.0, 2.0, -1.0]), clip_high=0.28)
    torch.testing.assert_close(objective, torch.tensor([-0.1, -4.8, 3.84]))
    objective.sum().backward()
    torch.testing.assert_close(logps.grad, torch.tensor([0.1, 2.4, -1.28]))


def test_sapo_by_hand():
    """4 / tau sigmoid(tau (r - 1)): the gradient is 1 at r = 1, and falls off sooner with a higher temperature."""
    ratio = torch.tensor([1.0, 2.0, 1.0, 2.0], requires_grad=True)
    objective = sapo_objective(ratio, torch.tensor([1.0, 1.0, -1.0, -1.0]), temperatures=(1.0, 2.0))
    wanted = [2.0, 4 * 0.7310586, -1.0, -2 * 0.8807971]
    torch.testing.assert_close(objective, torch.tensor(wanted))
    objective.sum().backward()
    torch.testing.assert_close(ratio.grad, torch.tensor([1.0, 4 * 0.1966119, -1.0, -4 * 0.1049936]))


@pytest.mark.parametrize("form", OTHERS[1:5])
def test_on_policy_all_surrogates_have_the_same_gradient(form):
    values = batch()
    found = []
    for how in (Surrogate(), form):
        logps = values["logps"].clone().requires_grad_()
        loss, _ = policy_loss(
            **(values | {"logps": logps, "old_logps": logps.detach()}),
            **RECIPE, surrogate=how, aggregation="sequence_mean", normalizer=6,
        )  # fmt: skip
        loss.backward()
        found.append(logps.grad)
    torch.testing.assert_close(found[1], found[0])


def test_the_entropy_bonus_is_aggregated_like_the_loss():
    values = batch()
    entropy = torch.rand(6, 5, requires_grad=True)
    how = {**RECIPE, "aggregation": "token_mean", "normalizer": int(values["mask"].sum())}
    plain, _ = policy_loss(**values, **how)
    with_bonus, _ = policy_loss(**values, **how, entropy=entropy, surrogate=Surrogate(entropy_coef=0.1))
    assert float((plain - with_bonus).detach()) == pytest.approx(
        0.1 * float(entropy.detach()[values["mask"]].mean()), abs=1e-6
    )
    with_bonus.backward()
    torch.testing.assert_close(entropy.grad, -0.1 * values["mask"] / values["mask"].sum())


def test_the_divergence_of_a_completion_by_hand():
    logps, ref = torch.tensor([[-1.0, -2.0], [-3.0, torch.nan]]), torch.tensor([[-1.5, -1.0], [-4.0, -torch.inf]])
    torch.testing.assert_close(sequence_kl_k1(logps, ref, MASK), torch.tensor([-0.5, 1.0]))


def test_the_advantage_by_reward_by_hand():
    """Two outputs: rank says +-.7071 of the second, error -+.7071 of it, so the weights decide, whatever the scales."""
    rank, error = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 1.0]])
    for scale in (1.0, 1000.0):
        rewards = {"rank": rank, "error": scale * error, "format": torch.ones(1, 2)}
        for weights, sign in (({"rank": 2.0, "error": 1.0}, 1), ({"rank": 1.0, "error": 2.0, "format": 9.0}, -1)):
            found = advantage_by_reward(rewards, weights)
            assert found[0].tolist() == pytest.approx([-sign * 0.7071, sign * 0.7071], abs=1e-3)
    summed = group_advantage(2 * rank + 1000.0 * error)  # the paper's sum follows the larger reward
    assert summed[0].tolist() == pytest.approx([0.7071, -0.7071], abs=1e-3)


def test_the_advantage_by_reward_is_normalised_over_the_step():
    """Two groups of opposite luck; a group that earns the same throughout has none, and shifts nobody."""
    rewards = {"rank": torch.tensor([[0.0, 1.0], [0.7, 0.7]])}
    found = advantage_by_reward(rewards, {"rank": 1.0})
    assert found[1].tolist() == [0.0, 0.0]
    assert found.mean() == pytest.approx(0, abs=1e-6)
    assert found.std() == pytest.approx(1, abs=1e-3)
    assert not advantage_by_reward({"rank": torch.full((2, 3), 0.1)}, {"rank": 1.0}).any()


def test_bounded_tokens_of_every_surrogate_by_hand():
    """Ratios .5, 1, 2 and 9 with both signs of the advantage; clips .2 and .28, cap 4."""
    ratio, signs = torch.tensor([[0.5, 1.0, 2.0, 9.0]] * 2), torch.tensor([[1.0], [-1.0]])

    def bounded(kind, cap=None):
        surrogate = Surrogate(kind=kind, ratio_cap=cap)
        low, high = clipped_tokens(ratio, signs, surrogate, clip_low=0.2, clip_high=0.28)
        return low.int().tolist(), high.int().tolist()

    assert bounded("ppo") == ([[0, 0, 0, 0], [1, 0, 0, 0]], [[0, 0, 1, 1], [0, 0, 0, 0]])
    assert bounded("ppo", 4.0) == ([[0, 0, 0, 0], [1, 0, 0, 0]], [[0, 0, 1, 1], [0, 0, 0, 1]])
    assert bounded("cispo") == ([[0, 0, 0, 0]] * 2, [[0, 0, 1, 1]] * 2)
    assert bounded("sapo") == ([[0, 0, 0, 0]] * 2, [[0, 0, 0, 0]] * 2)
