"""Define the settings of AesCoT: the expert that writes critiques and the judge that reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from aes_r1.settings.data import DataSettings
from aes_r1.settings.defaults import IN_YAML, defaults
from aes_r1.settings.rules import address_rule, folder_rule, one_of, require, seed_rule
from aes_r1.settings.tracker import TrackerSettings
from aes_r1.wrong_input import InputError


@dataclass
@defaults("chat/api.yaml")
class ChatSettings:
    """A model behind an OpenAI-protocol or any other API that litellm reaches; keys come from the environment alone."""

    # name as litellm writes it: gpt-4.1, anthropic/claude-..., or with api_base any name. The name in YAML is not the
    # default here, because offline experts and judges ask no model
    model: str | None = None
    api_base: str | None = IN_YAML  # URL of an OpenAI-protocol server; null: the provider's own
    api_key_env: str | None = IN_YAML  # environment variable that holds the key; null: the provider's usual one
    max_concurrency: int = IN_YAML  # calls in flight
    requests_per_minute: float | None = IN_YAML  # null: no limit
    tokens_per_minute: float | None = IN_YAML  # null: no limit
    retries: int = IN_YAML  # after 429, 5xx, time-outs and cut connections, and after replies that cannot be read
    timeout_s: float = IN_YAML  # per try
    max_usd: float | None = IN_YAML  # calls stop before this sum is exceeded; null: no ceiling
    input_usd_per_million: float | None = IN_YAML  # price of a million tokens; null: litellm's price list
    output_usd_per_million: float | None = IN_YAML
    temperature: float = IN_YAML
    max_tokens: int = IN_YAML  # longest answer
    response_format: str = IN_YAML  # auto: requested where the model is known to support it; always; never

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
    """The expert or the judge of AesCoT: an offline one, or a model behind an API (name=openai)."""

    name: str = "none"  # the YAML of each role gives its own

    def __post_init__(self) -> None:
        super().__post_init__()
        is_named = self.name != "openai" or bool(self.model)
        require(is_named, f"{self.group}.model", self.model, f"{self.group}=openai needs a model's name")


@dataclass
@defaults("expert/scenes.yaml")
class ExpertSettings(RoleSettings):
    """The writer of critiques, the limits of a critique, and how often the scenes expert errs on purpose."""

    name: str = IN_YAML
    min_words: int = IN_YAML  # critiques of fewer words, or of more than max_words, are rejected
    max_words: int = IN_YAML
    near_copy: float | None = IN_YAML  # Jaccard similarity from which a near copy is rejected; null: not checked
    leak_rate: float = IN_YAML
    align_rate: float = IN_YAML
    fact_rate: float = IN_YAML

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
@defaults("judge/openai.yaml", "judge/scenes.yaml")
class JudgeSettings(RoleSettings):
    """The reader of critiques, and how far the score that it reads may be from the true one."""

    name: str = IN_YAML
    temperature: float = IN_YAML
    tolerance: float = IN_YAML

    group = "judge"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("judge.name", self.name, ("openai", "scenes", "none"))
        require(0 < self.tolerance <= 1, "judge.tolerance", self.tolerance, "must be in (0, 1]")


@dataclass
@defaults("distill.yaml")
class DistillSettings:
    """Settings of `python -m aes_r1.distill`."""

    seed: int = IN_YAML
    # In YAML these two are interpolated from the whole recipe or the environment.
    out: str = "runs/distill"
    store: str = "store"
    data: DataSettings = field(default_factory=DataSettings)
    expert: ExpertSettings = field(default_factory=ExpertSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    tracker: TrackerSettings = field(default_factory=lambda: TrackerSettings(name="none"))
    quotas: dict[str, Any] | None = IN_YAML  # {level: n} or {data set: {level: n}}; null: each picture once
    dry_run: bool = IN_YAML
    audit: str | None = IN_YAML
    audit_items: int = IN_YAML

    def __post_init__(self) -> None:
        seed_rule("seed", self.seed)
        folder_rule(out=self.out, store=self.store)
        require(self.audit_items >= 2, "audit_items", self.audit_items, "must be at least 2")
