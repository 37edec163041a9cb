"""Settings of AesCoT: the expert that writes critiques and the judge that reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from aes_r1.settings.data import DataSettings
from aes_r1.settings.rules import InputError, address_rule, folder_rule, one_of, require, seed_rule
from aes_r1.settings.tracker import TrackerSettings


@dataclass
class ChatSettings:
    """A model behind an OpenAI-protocol or any other API that litellm reaches; keys come from the environment alone."""

    model: str | None = None  # as litellm names it: gpt-4.1, anthropic/claude-..., or any name with api_base
    api_base: str | None = None  # URL of an OpenAI-protocol server; null: the provider's own
    api_key_env: str | None = None  # environment variable that holds the key; null: the provider's usual one
    max_concurrency: int = 16  # calls in flight
    requests_per_minute: float | None = None  # null: no limit
    tokens_per_minute: float | None = None  # null: no limit
    retries: int = 6  # after 429, 5xx, time-outs and cut connections, and after replies that cannot be read
    timeout_s: float = 120.0  # per try
    max_usd: float | None = None  # calls stop before this sum is exceeded; null: no ceiling
    input_usd_per_million: float | None = None  # price of a million tokens; null: litellm's price list
    output_usd_per_million: float | None = None
    temperature: float = 1.0
    max_tokens: int = 1024  # longest answer
    response_format: str = "auto"  # auto: requested where the model is known to support it; always; never

    group = "chat"  # name of the config group, for messages

    def __post_init__(self) -> None:
        group = self.group
        require(self.max_concurrency >= 1, f"{group}.max_concurrency", self.max_concurrency, "must be at least 1")
        require(self.retries >= 0, f"{group}.retries", self.retries, "must not be negative")
        require(self.timeout_s > 0, f"{group}.timeout_s", self.timeout_s, "must be positive")
        require(self.temperature >= 0, f"{group}.temperature", self.temperature, "must not be negative")
        require(self.max_tokens >= 16, f"{group}.max_tokens", self.max_tokens, "must be at least 16")
        one_of(f"{group}.response_format", self.response_format, ("auto", "always", "never"))
        for key in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, key)
            require(value is None or value > 0, f"{group}.{key}", value, "must be positive or null")
        for key in ("max_usd", "input_usd_per_million", "output_usd_per_million"):
            value = getattr(self, key)
            require(value is None or value >= 0, f"{group}.{key}", value, "must not be negative")
        priced = self.input_usd_per_million, self.output_usd_per_million
        require(
            (priced[0] is None) == (priced[1] is None), f"{group}.input_usd_per_million", priced[0], "give both prices"
        )
        if self.api_base is not None:
            rule, key_setting = "must be a URL, http://HOST:PORT/v1 say", f"{group}.api_key_env"
            address_rule(f"{group}.api_base", self.api_base, rule, key_setting=key_setting)
        if not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env or "none"):
            raise InputError(f"{group}.api_key_env must be the name of an environment variable, not the key itself")


@dataclass
class RoleSettings(ChatSettings):
    """A role of AesCoT: which expert or judge plays it, an offline one or a model (openai)."""

    name: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        is_named = self.name != "openai" or bool(self.model)
        require(is_named, f"{self.group}.model", self.model, f"{self.group}=openai needs a model's name")


@dataclass
class ExpertSettings(RoleSettings):
    """The writer of critiques, the limits of a critique, and how often the scenes expert errs on purpose."""

    name: str = "scenes"
    min_words: int = 20  # shorter and longer critiques are rejected
    max_words: int = 80
    near_copy: float | None = None  # a Jaccard similarity to an earlier critique that rejects; null: not checked
    leak_rate: float = 0.03
    align_rate: float = 0.03
    fact_rate: float = 0.03

    group = "expert"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("expert.name", self.name, ("openai", "scenes", "pixels", "attributes"))
        require(self.min_words > 0, "expert.min_words", self.min_words, "must be positive")
        rule = f"must be above expert.min_words={self.min_words}"
        require(self.max_words > self.min_words, "expert.max_words", self.max_words, rule)
        near_copy = self.near_copy
        require(near_copy is None or 0 < near_copy <= 1, "expert.near_copy", near_copy, "must be in (0, 1] or null")
        names, total = ("leak_rate", "align_rate", "fact_rate"), 0.0
        for name in names:
            rate = getattr(self, name)
            require(0 <= rate < 1, f"expert.{name}", rate, "must be in [0, 1)")
            total += rate
        require(total < 1, "expert.leak_rate", self.leak_rate, f"{', '.join(names)} must add up to less than 1")


@dataclass
class JudgeSettings(RoleSettings):
    """The reader of critiques, and how far its score may be from the true one."""

    name: str = "scenes"
    temperature: float = 0.0
    tolerance: float = 0.2

    group = "judge"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("judge.name", self.name, ("openai", "scenes", "none"))
        require(0 < self.tolerance <= 1, "judge.tolerance", self.tolerance, "must be in (0, 1]")


@dataclass
class DistillSettings:
    """Settings of `python -m aes_r1.distill`."""

    seed: int = 0
    out: str = "runs/distill"
    store: str = "store"
    data: DataSettings = field(default_factory=DataSettings)
    expert: ExpertSettings = field(default_factory=ExpertSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    tracker: TrackerSettings = field(default_factory=lambda: TrackerSettings(name="none"))
    quotas: dict[str, Any] | None = None  # {level: n} or {data set: {level: n}}; null: each picture once
    dry_run: bool = False
    audit: str | None = None
    audit_items: int = 120

    def __post_init__(self) -> None:
        seed_rule("seed", self.seed)
        folder_rule(out=self.out, store=self.store)
        require(self.audit_items >= 2, "audit_items", self.audit_items, "must be at least 2")
