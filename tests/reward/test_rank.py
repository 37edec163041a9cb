"""The rank reward against three plain loops, hand-computed values and properties of the formula."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aes_r1.reward.rank import bradley_terry_reward, rank_reward

NAN = float("nan")


def phi(z):
    return 0.5 * math.erfc(-z / math.sqrt(2))


def by_loops(scores, mos, *, ties="geq", pool=None, gamma=1e-6, tau=None):
    """The paper's formula as three loops over lists, written independently of the tensor code."""
    means, variances = [], []
    for row in scores:
        valid = [x for x in row if not math.isnan(x)]
        mean = sum(valid) / len(valid) if valid else None
        means.append(mean)
        variances.append(sum((x - mean) ** 2 for x in valid) / (len(valid) - 1) if len(valid) > 1 else 0.0)
    rewards = []
    for i, row in enumerate(scores):
        rewards.append([])
        for x in row:
            terms = []
            for j in range(len(scores)):
                if j == i or means[j] is None or math.isnan(x) or (pool and pool[i] != pool[j]):
                    continue
                margin = x - means[j]
                p = (
                    1 / (1 + math.exp(-margin / tau))
                    if tau
                    else phi(margin / math.sqrt(variances[i] + variances[j] + gamma))
                )
                p_c = 1.0 if mos[i] >= mos[j] else 0.0
                if ties == "half" and mos[i] == mos[j]:
                    p_c = 0.5
                terms.append(math.sqrt(p_c * p) + math.sqrt((1 - p_c) * (1 - p)))
            rewards[-1].append(sum(terms) / len(terms) if terms else 0.0)
    return torch.tensor(rewards, dtype=torch.float64).reshape(len(scores), -1)


def random_batch(seed):
    """Batches as they come: two decimals (so that ties happen), failed parses, pictures without any answer, N = 1."""
    rng = random.Random(seed)
    n, k = rng.choice([1, 2, 3, 5, 9]), rng.choice([2, 3, 4, 8])
    failure = rng.choice([0.0, 0.2, 0.7])
    scores = [[NAN if rng.random() < failure else round(rng.random(), 2) for _ in range(k)] for _ in range(n)]
    if rng.random() < 0.3:
        scores[0] = [NAN] * k
    if rng.random() < 0.3:
        scores[-1] = [0.5] * k
    mos = [round(rng.random(), 1) for _ in range(n)]
    return scores, mos, [rng.randrange(2) for _ in range(n)]


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("ties", ["geq", "half"])
@pytest.mark.parametrize("pooled", [False, True])
def test_equals_the_triple_loop(seed, ties, pooled):
    scores, mos, pool = random_batch(seed)
    pool = pool if pooled else None
    given_scores, given_mos = torch.tensor(scores, dtype=torch.float64), torch.tensor(mos, dtype=torch.float64)
    given_pool = torch.tensor(pool) if pooled else None
    gaussian = rank_reward(given_scores, given_mos, ties=ties, pool=given_pool, gamma=1e-4)
    torch.testing.assert_close(gaussian, by_loops(scores, mos, ties=ties, pool=pool, gamma=1e-4), atol=1e-9, rtol=0)
    logistic = bradley_terry_reward(given_scores, given_mos, ties=ties, pool=given_pool, tau=0.2)
    torch.testing.assert_close(logistic, by_loops(scores, mos, ties=ties, pool=pool, tau=0.2), atol=1e-9, rtol=0)


def test_hand_worked_pair():
    # Picture 0: .6 and .8, mean .7, variance .02. Picture 1: .3 and .5, mean .4, variance .02.
    # sqrt(.02 + .02 + .0225) = .25.
    scores = torch.tensor([[0.6, 0.8], [0.3, 0.5]], dtype=torch.float64)
    mos = torch.tensor([0.9, 0.1], dtype=torch.float64)
    expected = torch.tensor(
        [[phi(0.2 / 0.25), phi(0.4 / 0.25)], [phi(0.4 / 0.25), phi(0.2 / 0.25)]], dtype=torch.float64
    ).sqrt()
    torch.testing.assert_close(rank_reward(scores, mos, gamma=0.0225), expected, atol=1e-12, rtol=0)
    # Phi(.8) = .788145 and Phi(1.6) = .945201 from a printed table.
    torch.testing.assert_close(
        expected[0], torch.tensor([0.788145, 0.945201], dtype=torch.float64).sqrt(), atol=1e-6, rtol=0
    )


def test_tied_opinions():
    scores = torch.tensor([[0.4, 0.4], [0.4, 0.4]], dtype=torch.float64)
    mos = torch.tensor([0.5, 0.5], dtype=torch.float64)
    # p = 1/2: "geq" gives sqrt(1/2), "half" gives 2 sqrt(1/4) = 1.
    torch.testing.assert_close(rank_reward(scores, mos), torch.full((2, 2), math.sqrt(0.5), dtype=torch.float64))
    torch.testing.assert_close(rank_reward(scores, mos, ties="half"), torch.ones(2, 2, dtype=torch.float64))


def test_a_failed_parse_earns_nothing_and_touches_nobody():
    scores = torch.tensor([[0.7, NAN, 0.8], [0.2, 0.3, NAN], [NAN, NAN, NAN]])
    mos = torch.tensor([0.8, 0.3, 0.5])
    reward = rank_reward(scores, mos)
    assert (reward[scores.isnan()] == 0).all()
    without = rank_reward(torch.tensor([[0.7, 0.8], [0.2, 0.3]]), mos[:2])
    torch.testing.assert_close(reward[:2][~scores[:2].isnan()].reshape(2, 2), without)


def test_nobody_to_compare_with():
    assert (rank_reward(torch.rand(1, 4), torch.rand(1)) == 0).all()
    assert (rank_reward(torch.tensor([[0.5, 0.6], [NAN, NAN]]), torch.rand(2)) == 0).all()
    alone = rank_reward(torch.rand(3, 2), torch.rand(3), pool=torch.tensor([0, 1, 2]))
    assert (alone == 0).all()


def test_one_sample_has_no_variance():
    reward = rank_reward(torch.tensor([[0.6, NAN], [0.5, 0.5]]), torch.tensor([1.0, 0.0]), gamma=0.01)
    assert reward[0, 0].item() == pytest.approx(math.sqrt(phi(0.1 / 0.1)), abs=1e-6)


def test_float32_agrees_with_float64_at_the_papers_gamma():
    torch.manual_seed(0)
    scores = (torch.rand(32, 8, dtype=torch.float64) * 100).round() / 100
    scores[3] = 0.63  # a constant group: rounding the mean of equal float32 numbers must not create a difference
    mos = torch.rand(32, dtype=torch.float64)
    single = rank_reward(scores.float(), mos.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), rank_reward(scores, mos), atol=1e-4, rtol=0)


@pytest.mark.parametrize("gamma", [0.0, -1.0, NAN])
def test_gamma_must_be_positive(gamma):
    with pytest.raises(ValueError, match="gamma"):
        rank_reward(torch.rand(2, 2), torch.rand(2), gamma=gamma)


def test_bad_switches_are_named():
    with pytest.raises(ValueError, match="ties=leq"):
        rank_reward(torch.rand(2, 2), torch.rand(2), ties="leq")
    with pytest.raises(ValueError, match="tau"):
        bradley_terry_reward(torch.rand(2, 2), torch.rand(2), tau=0.0)


batches = st.integers(0, 10_000).map(random_batch)


@settings(max_examples=150, deadline=None)
@given(batches, st.sampled_from([rank_reward, bradley_terry_reward]), st.randoms())
@pytest.mark.slow
def test_bounds_and_order_of_pictures(batch, reward, rng):
    scores, mos, pool = (torch.tensor(part, dtype=torch.float64) for part in batch)
    result = reward(scores, mos, pool=pool)
    assert ((result >= 0) & (result <= 1 + 1e-12)).all()
    order = list(range(len(mos)))
    rng.shuffle(order)
    torch.testing.assert_close(reward(scores[order], mos[order], pool=pool[order]), result[order], atol=1e-12, rtol=0)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 10_000))
@pytest.mark.slow
def test_the_best_picture_earns_more_for_a_higher_score(n, k, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(n, k, generator=generator, dtype=torch.float64)
    mos = torch.linspace(1, 0, n, dtype=torch.float64)
    reward = rank_reward(scores, mos)
    order = scores[0].argsort()
    assert (reward[0][order].diff() >= 0).all()
    worst = scores[-1].argsort()
    assert (reward[-1][worst].diff() <= 0).all()
