import asyncio

import pytest

from aes_r1.aescot.budget import Budget, CeilingReached, Price, TokenBucket

PRICE = Price(prompt=1e-3, completion=2e-3)


async def spend(budget, calls, *, prompt_tokens, completion_tokens, estimate):
    """Make calls at the same time; return how many were bought and how many were in flight at most."""
    flying = peak = bought = 0

    async def call():
        nonlocal flying, peak, bought
        held = await budget.hold("expert", estimate)
        flying += 1
        peak = max(peak, flying)
        await asyncio.sleep(0.001)
        flying -= 1
        bought += 1
        await budget.settle("expert", held, prompt_tokens=prompt_tokens, usd=PRICE.of(prompt_tokens, completion_tokens))

    results = await asyncio.gather(*(call() for _ in range(calls)), return_exceptions=True)
    assert all(result is None or isinstance(result, CeilingReached) for result in results)
    return bought, peak


@pytest.mark.parametrize("prompt_tokens", [50, 100, 400])
def test_the_ceiling_is_never_passed_even_when_prompts_cost_more_than_estimated(prompt_tokens):
    async def run():
        budget = Budget(10.0, PRICE, spent=0.0, max_tokens=100)
        bought, _ = await spend(budget, 200, prompt_tokens=prompt_tokens, completion_tokens=100, estimate=100)
        return budget.spent, bought

    spent, bought = asyncio.run(run())
    assert spent <= 10.0
    assert spent > 9.0
    assert bought == pytest.approx(spent / PRICE.of(prompt_tokens, 100))


def test_calls_run_side_by_side_once_a_first_answer_is_known():
    async def run():
        budget = Budget(1000.0, PRICE, spent=0.0, max_tokens=100)
        return await spend(budget, 20, prompt_tokens=100, completion_tokens=50, estimate=100)

    assert asyncio.run(run()) == (20, 19)


def test_money_spent_before_a_restart_counts():
    async def run():
        await Budget(1.0, PRICE, spent=0.95, max_tokens=100).hold("expert", 10)

    with pytest.raises(CeilingReached):
        asyncio.run(run())


def test_prompts_seen_before_a_restart_count():
    """After a restart at the ceiling the estimate, which was four times too low, must not be trusted again."""

    async def run():
        budget = Budget(1.0, PRICE, spent=0.4, max_tokens=100, longest={"expert": 400})
        await budget.hold("expert", 100)

    with pytest.raises(CeilingReached):
        asyncio.run(run())


def test_every_role_shows_its_own_price_before_its_calls_run_side_by_side():
    """The cost of cheap prompts without pictures does not predict that of prompts with one."""

    async def run():
        budget = Budget(10.0, PRICE, spent=0.0, max_tokens=100)
        await budget.settle("align", await budget.hold("align", 50), prompt_tokens=50, usd=0.1)
        await spend(budget, 60, prompt_tokens=1500, completion_tokens=100, estimate=100)
        return budget.spent

    assert 8.0 < asyncio.run(run()) <= 10.0


def test_failed_calls_cost_nothing_and_give_back_what_was_held():
    async def run():
        budget = Budget(0.5, PRICE, spent=0.0, max_tokens=100)
        for _ in range(5):
            await budget.settle("expert", await budget.hold("expert", 100))
        return budget.spent

    assert asyncio.run(run()) == 0.0


def test_a_ceiling_without_a_price_is_a_mistake():
    with pytest.raises(ValueError, match="price"):
        Budget(1.0, None, spent=0.0, max_tokens=10)


@pytest.mark.slow
def test_the_bucket_holds_its_rate():
    async def run():
        bucket = TokenBucket(6000)  # a hundred a second
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(*(bucket.take() for _ in range(150)))
        return loop.time() - started

    assert 0.45 < asyncio.run(run()) < 1.5  # a burst of a hundred, then fifty at a hundred a second


@pytest.mark.slow
def test_more_than_the_bucket_holds_is_paid_off_afterwards():
    async def run():
        bucket = TokenBucket(6000)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await bucket.take(130)
        await bucket.take(10)
        return loop.time() - started

    assert 0.35 < asyncio.run(run()) < 1.2


def test_no_limit_lets_everything_through():
    async def run():
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(1000):
            await TokenBucket(None).take(1e9)
        return loop.time() - started

    assert asyncio.run(run()) < 5  # any limit would make this wait for years
