"""Estimate the cost and the duration of calls to models behind an API, before any call is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aes_r1.aescot.provider import affordable_price, key_of
from aes_r1.aescot.question import SIDE_FACTOR, picture_tokens, tokens_in
from aes_r1.aescot.quotas import QuotaSampler, read_quotas
from aes_r1.data.sample import Sample
from aes_r1.prompts import expert_prompt, judge_prompt, rating_prompt
from aes_r1.settings import ChatSettings, ExpertSettings, JudgeRewardSettings, JudgeSettings

CRITIQUE_TOKENS = 350  # tokens of a critique of 100 to 250 words in JSON
VERDICT_TOKENS = 60
CALL_SECONDS = 8.0  # for one call of a hosted model, as a rule of thumb


def estimate_calls(
    samples: Sequence[Sample],
    *,
    expert: ExpertSettings,
    judge: JudgeSettings,
    quotas: Mapping[str, Any] | None,
    max_pixels: int,
    buying: bool = True,
) -> dict[str, Any]:
    """Estimate the pictures to ask about and, per paid role, calls, tokens, USD (null: price unknown) and minutes.

    With quotas every picture is counted as kept, so the numbers are lower bounds. Without quotas a judge is counted for
    every picture, so they are upper bounds. Raises InputError where a price is missing, or, when buying, a key.
    """
    pictures = len(QuotaSampler(samples, read_quotas(quotas or {}), seed=0).next_round())
    picture_cost = _picture_cost(max_pixels)
    critique = "x" * (3 * CRITIQUE_TOKENS)
    roles: dict[str, Any] = {}
    for settings in (expert, judge) if buying else ():
        if settings.name == "openai":
            key_of(settings)  # a missing key is reported now, not after an hour
    if expert.name == "openai":
        roles["expert"] = _role(expert, pictures, tokens_in(expert_prompt(0.5)) + picture_cost, CRITIQUE_TOKENS)
    if judge.name == "openai":
        roles["align"] = _role(judge, pictures, tokens_in(judge_prompt("align", critique)), VERDICT_TOKENS)
        roles["fact"] = _role(judge, pictures, tokens_in(judge_prompt("fact", critique)) + picture_cost, VERDICT_TOKENS)
    return {"pictures": pictures, "roles": roles}


def estimate_ratings(
    judge: JudgeRewardSettings, *, questions: int, critique_tokens: int, max_pixels: int
) -> dict[str, Any]:
    """Estimate calls, tokens, USD (null: price unknown) and minutes of `questions` of reward.judge."""
    prompt = tokens_in(rating_prompt("x" * (3 * critique_tokens), 0.5, judge.rubric))
    return _role(judge, questions, prompt + _picture_cost(max_pixels), VERDICT_TOKENS)


def _picture_cost(max_pixels: int) -> int:
    side = int((max_pixels // SIDE_FACTOR**2) ** 0.5) * SIDE_FACTOR
    return picture_tokens(side, side)


def _role(settings: ChatSettings, calls: int, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    price = affordable_price(settings)
    per_minute = settings.max_concurrency * 60 / CALL_SECONDS
    if settings.requests_per_minute is not None:
        per_minute = min(per_minute, settings.requests_per_minute)
    if settings.tokens_per_minute is not None:
        per_minute = min(per_minute, settings.tokens_per_minute / (prompt_tokens + completion_tokens))
    return {
        "model": settings.model,
        "calls": calls,
        "prompt_tokens": calls * prompt_tokens,
        "completion_tokens": calls * completion_tokens,
        "usd": None if price is None else price.of(calls * prompt_tokens, calls * completion_tokens),
        "max_usd": settings.max_usd,
        "minutes": calls / per_minute,
    }
