"""Limit the calls of a server: by a price ceiling that is never exceeded, and by a token bucket for rates."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass


class CeilingReached(Exception):
    """Report that a call was not made because it could exceed the price ceiling."""


@dataclass(frozen=True)
class Price:
    """Hold the price of a model, in US dollars per token."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of one call in US dollars."""
        return prompt_tokens * self.prompt + completion_tokens * self.completion


class Budget:
    """Count the money that is spent and the money that is held back for calls in flight, in US dollars.

    A call is made only if its highest possible price still fits under the ceiling, added to everything spent and held
    back. Until a first answer has shown what the prompts of a role really cost, its calls are made one at a time.
    `spent`, and `longest` (the most tokens of a prompt, by role), come from an earlier start of the same distillation.
    Without a ceiling no call waits.
    """

    SAFETY = 1.25  # factor for prompts longer than any before: they differ in length and picture size

    def __init__(
        self,
        ceiling: float | None,
        price: Price | None,
        *,
        spent: float,
        max_tokens: int,
        longest: Mapping[str, int] | None = None,
    ) -> None:
        if ceiling is not None and price is None:
            raise ValueError("a ceiling needs a price")
        self.ceiling, self.price, self.spent = ceiling, price, spent
        self._max_tokens = max_tokens
        self._held = 0.0
        self._in_flight = Counter[str]()
        self._longest = dict(longest or {})
        self._changed = asyncio.Condition()

    async def hold(self, role: str, estimated_tokens: int) -> float:
        """Hold back the highest price of a call; raises CeilingReached when it can no longer fit."""
        if self.ceiling is None or self.price is None:
            return 0.0
        async with self._changed:
            while True:
                highest = self._highest(role, estimated_tokens)
                if self.spent + highest > self.ceiling:
                    raise CeilingReached(
                        f"{self.spent:.4f} of {self.ceiling:.4f} USD spent, the next call may cost {highest:.4f}"
                    )
                unmeasured = role not in self._longest and self._in_flight[role] > 0
                if not unmeasured and self.spent + self._held + highest <= self.ceiling:
                    self._held += highest
                    self._in_flight[role] += 1
                    return highest
                await self._changed.wait()

    async def settle(self, role: str, held: float, *, prompt_tokens: int = 0, usd: float = 0.0) -> None:
        """Release what was held for a call and add what it cost to `spent` (nothing when it failed)."""
        if self.ceiling is None:
            self.spent += usd
            return
        async with self._changed:
            self._held -= held
            self._in_flight[role] -= 1
            self.spent += usd
            if prompt_tokens:
                self._longest[role] = max(self._longest.get(role, 0), prompt_tokens)
            self._changed.notify_all()

    def _highest(self, role: str, estimated_tokens: int) -> float:
        assert self.price is not None
        prompt = max(estimated_tokens, self._longest.get(role, 0))
        return self.price.of(round(prompt * self.SAFETY), self._max_tokens)


class TokenBucket:
    """Limit a rate to `per_minute` units; at most one second's units, or one, are given at once. None: no limit."""

    def __init__(self, per_minute: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = None if per_minute is None else per_minute / 60
        self._clock = clock
        self._capacity = max(1.0, self._rate or 1.0)
        self._level = self._capacity
        self._updated = clock()
        self._lock = asyncio.Lock()

    async def take(self, amount: float = 1.0) -> None:
        """Wait for `amount` units. More than the capacity is given when the bucket is full, and leaves a debt."""
        if self._rate is None:
            return
        async with self._lock:
            while True:
                now = self._clock()
                self._level = min(self._capacity, self._level + (now - self._updated) * self._rate)
                self._updated = now
                needed = min(amount, self._capacity)
                if self._level >= needed:
                    self._level -= amount
                    return
                await asyncio.sleep((needed - self._level) / self._rate)
