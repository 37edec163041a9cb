"""Define the settings of the two training stages, of the rollouts and of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aes_r1.settings.defaults import IN_YAML, defaults
from aes_r1.settings.edits import edits_rule
from aes_r1.settings.rules import address_rule, one_of, require


@dataclass
@defaults("cold_start/tiny.yaml")
class ColdStartSettings:
    """Supervised fine-tuning on AesCoT (paper, section 3.3)."""

    data: str | None = IN_YAML  # AesCoT file; null: written by `expert` from the training split
    expert: str | None = IN_YAML  # null: that of the group expert
    pictures: int | None = IN_YAML  # training pictures that the expert is asked about when data is null
    epochs: int = IN_YAML  # 0 skips the cold start
    min_steps: int | None = IN_YAML  # a small set is repeated up to so many optimizer steps; null: by model and data
    lr: float = IN_YAML
    batch_size: int = IN_YAML  # global
    micro_batch_size: int = IN_YAML  # per device
    warmup_ratio: float = IN_YAML
    weight_decay: float = IN_YAML
    max_grad_norm: float = IN_YAML
    freeze_vision: bool = IN_YAML
    blank_pictures: float = IN_YAML  # share of records trained with a gray square as picture, to score from words
    pairs: float = IN_YAML  # comparisons of two pictures per record, taught in addition to the records
    save_every: int = IN_YAML
    probe_every: int | None = IN_YAML  # optimizer steps between measurements of token entropy; null: never
    probe_pictures: int = IN_YAML  # validation pictures per measurement

    def __post_init__(self) -> None:
        require(self.epochs >= 0, "cold_start.epochs", self.epochs, "must not be negative")
        min_steps = self.min_steps
        require(min_steps is None or min_steps >= 0, "cold_start.min_steps", min_steps, "must not be negative; or null")
        require(self.lr > 0, "cold_start.lr", self.lr, "must be positive")
        _check_optimizer("cold_start", self.weight_decay, self.max_grad_norm)
        require(0 <= self.warmup_ratio < 1, "cold_start.warmup_ratio", self.warmup_ratio, "must be in [0, 1)")
        require(self.batch_size >= 1, "cold_start.batch_size", self.batch_size, "must be at least 1")
        require(self.micro_batch_size >= 1, "cold_start.micro_batch_size", self.micro_batch_size, "must be at least 1")
        require(0 <= self.blank_pictures < 1, "cold_start.blank_pictures", self.blank_pictures, "must be in [0, 1)")
        require(0 <= self.pairs <= 1, "cold_start.pairs", self.pairs, "must be in [0, 1]: a record draws at most one")
        require(self.save_every >= 1, "cold_start.save_every", self.save_every, "must be at least 1")
        require(self.pictures is None or self.pictures >= 1, "cold_start.pictures", self.pictures, "must be positive")
        probe = self.probe_every
        require(probe is None or probe >= 1, "cold_start.probe_every", probe, "must be positive or null")
        require(self.probe_pictures >= 1, "cold_start.probe_pictures", self.probe_pictures, "must be at least 1")


@dataclass
@defaults("trainer/rapo.yaml")
class TrainerSettings:
    """Relative-absolute policy optimisation. Counts are global unless their comment says per device."""

    name: str = IN_YAML  # rapo: cold start, then RAPO; sft: the cold start alone
    init_from: str = IN_YAML  # base | cold_start | a folder with a model
    num_samples: int = IN_YAML  # K completions per image
    images_per_step: int = IN_YAML  # N
    edited_pairs: int = IN_YAML  # images of a step that also get an edited twin; 0: none
    edits: list[str] = IN_YAML  # edits of the twins
    max_steps: int | None = IN_YAML  # null: epochs decide
    epochs: float = IN_YAML
    lr: float = IN_YAML
    lr_schedule: str = IN_YAML
    warmup_steps: int = IN_YAML
    weight_decay: float = IN_YAML
    betas: list[float] = IN_YAML  # of AdamW
    eps: float = IN_YAML  # of AdamW
    max_grad_norm: float = IN_YAML
    clip: str = IN_YAML  # ppo (the paper), cispo or sapo
    ratio: str = IN_YAML  # token: the probability ratio of each token; sequence: of its sequence (GSPO)
    clip_low: float = IN_YAML
    clip_high: float = IN_YAML
    ratio_cap: float | None = IN_YAML  # dual clip: largest ratio where the advantage is negative; null: none
    sapo_temperatures: list[float] = IN_YAML  # for positive advantages, and for all others
    kl_coef: float = IN_YAML
    kl_reward_coef: float = IN_YAML  # weight of the KL divergence that is subtracted from the reward
    entropy_coef: float = IN_YAML  # weight of the entropy bonus
    # all: one advantage for all tokens (the paper); answer: critique tokens get 0; parts: they get the critique's own
    credit: str = IN_YAML
    critique_kl_coef: float | None = IN_YAML  # weight of the KL divergence on critique tokens; null: kl_coef
    aggregation: str = IN_YAML
    # joint: the advantage of the summed rewards (the paper); per_reward: of each reward (GDPO)
    advantage: str = IN_YAML
    scale_advantage: bool = IN_YAML  # divide by the group's standard deviation
    curriculum: bool = IN_YAML  # in the first pass over the images, show those on which raters agree first
    # how often at most a step replaces images whose completions all earn the same; false: never
    dynamic_sampling: bool | int = IN_YAML
    drop_zero_spread: bool = IN_YAML  # leave groups without spread out of the loss and its divisor
    mask_truncated: bool = IN_YAML
    overlong_penalty: float = IN_YAML  # largest penalty for the length of a completion; 0: none (the paper)
    overlong_from: float = IN_YAML  # share of max_new_tokens at which the penalty begins
    temperature: float = IN_YAML
    max_new_tokens: int = IN_YAML
    inner_epochs: int = IN_YAML
    minibatches: int = IN_YAML  # optimizer steps per inner epoch
    micro_batch_size: int = IN_YAML  # completions per device and forward
    micro_batch_tokens: int | None = IN_YAML  # tokens per device and forward, prompts included, in place of the size
    save_every: int = IN_YAML
    keep_checkpoints: int = IN_YAML  # checkpoints that a run keeps to resume from
    keep_optimizer: bool = IN_YAML  # keep whole checkpoints when the run is done; false: only their models stay
    eval_every: int = IN_YAML
    eval_pictures: int = IN_YAML
    completions_every: int = IN_YAML
    profile: int | None = IN_YAML  # step that is traced into RUN/traces; null: none
    start_anyway: bool = IN_YAML  # RAPO also starts from a model most of whose answers cannot be read
    resume: str = IN_YAML

    def __post_init__(self) -> None:
        one_of("trainer.name", self.name, ("rapo", "sft"))
        require(
            self.num_samples >= 2, "trainer.num_samples", self.num_samples, "must be at least 2: a group needs spread"
        )
        require(self.images_per_step >= 1, "trainer.images_per_step", self.images_per_step, "must be at least 1")
        self._check_pairs()
        require(self.lr > 0, "trainer.lr", self.lr, "must be positive")
        _check_optimizer("trainer", self.weight_decay, self.max_grad_norm)
        require(self.warmup_steps >= 0, "trainer.warmup_steps", self.warmup_steps, "must not be negative")
        require(0 < self.clip_low < 1, "trainer.clip_low", self.clip_low, "must be in (0, 1)")
        require(self.clip_high > 0, "trainer.clip_high", self.clip_high, "must be positive")
        self._check_objective()
        for key in ("kl_coef", "kl_reward_coef", "entropy_coef"):
            require(getattr(self, key) >= 0, f"trainer.{key}", getattr(self, key), "must not be negative")
        one_of("trainer.credit", self.credit, ("all", "answer", "parts"))
        critique_kl = self.critique_kl_coef
        require(
            critique_kl is None or critique_kl >= 0,
            "trainer.critique_kl_coef",
            critique_kl,
            "must not be negative; or null",
        )
        rule = "give false, or how often a step may draw further images, as trainer.dynamic_sampling=2"
        is_count = self.dynamic_sampling is not True and self.dynamic_sampling >= 0
        require(is_count, "trainer.dynamic_sampling", self.dynamic_sampling, rule)
        rule = "replaces images before their critiques are rewarded; give false, or trainer.credit=all or answer"
        is_by_score = self.dynamic_sampling == 0 or self.credit != "parts"
        require(is_by_score, "trainer.dynamic_sampling", self.dynamic_sampling, rule)
        penalty, begins_at = self.overlong_penalty, self.overlong_from
        require(penalty >= 0, "trainer.overlong_penalty", penalty, "must not be negative")
        require(0 <= begins_at < 1, "trainer.overlong_from", begins_at, "must be in [0, 1)")
        traced, last = self.profile, self.max_steps
        require(traced is None or traced >= 1, "trainer.profile", traced, "must be positive or null")
        is_within = traced is None or last is None or traced <= last
        require(is_within, "trainer.profile", traced, f"must be one of trainer.max_steps={last} steps")
        require(self.temperature > 0, "trainer.temperature", self.temperature, "must be positive")
        require(self.max_new_tokens >= 1, "trainer.max_new_tokens", self.max_new_tokens, "must be at least 1")
        require(self.inner_epochs >= 1, "trainer.inner_epochs", self.inner_epochs, "must be at least 1")
        require(self.minibatches >= 1, "trainer.minibatches", self.minibatches, "must be at least 1")
        require(self.micro_batch_size >= 1, "trainer.micro_batch_size", self.micro_batch_size, "must be at least 1")
        budget = self.micro_batch_tokens
        require(budget is None or budget >= 1, "trainer.micro_batch_tokens", budget, "must be positive or null")
        for key in ("save_every", "keep_checkpoints", "eval_every", "eval_pictures", "completions_every"):
            require(getattr(self, key) >= 1, f"trainer.{key}", getattr(self, key), "must be at least 1")
        require(self.epochs > 0, "trainer.epochs", self.epochs, "must be positive")
        require(self.max_steps is None or self.max_steps >= 1, "trainer.max_steps", self.max_steps, "must be positive")
        one_of("trainer.lr_schedule", self.lr_schedule, ("linear", "constant", "cosine"))
        one_of("trainer.aggregation", self.aggregation, ("sequence_mean", "token_mean", "constant"))
        one_of("trainer.resume", self.resume, ("auto", "never"))

    def _check_pairs(self) -> None:
        pairs, most = self.edited_pairs, self.images_per_step
        rule = f"must be from 0 to trainer.images_per_step={most}, the images that can have a twin"
        require(0 <= pairs <= most, "trainer.edited_pairs", pairs, rule)
        edits_rule("trainer.edits", self.edits)
        rule = "twins have no opinion that a reward of critiques could use; give 0, or trainer.credit=all or answer"
        require(pairs == 0 or self.credit != "parts", "trainer.edited_pairs", pairs, rule)
        rule = "trainer.dynamic_sampling replaces images, which would part them from their twins; use one of the two"
        require(pairs == 0 or self.dynamic_sampling == 0, "trainer.edited_pairs", pairs, rule)

    def _check_objective(self) -> None:
        one_of("trainer.clip", self.clip, ("ppo", "cispo", "sapo"))
        one_of("trainer.ratio", self.ratio, ("token", "sequence"))
        cap, lowest = self.ratio_cap, 1 + self.clip_high
        rule = f"must be above 1 + trainer.clip_high = {lowest:g}, or null"
        require(cap is None or cap > lowest, "trainer.ratio_cap", cap, rule)
        rule = f"bounds the ratio of trainer.clip=ppo; {self.clip} has bounds of its own, so give null"
        require(cap is None or self.clip == "ppo", "trainer.ratio_cap", cap, rule)
        gates = self.sapo_temperatures
        rule = "give two positive numbers: for positive advantages, and for all others"
        require(len(gates) == 2 and min(gates) > 0, "trainer.sapo_temperatures", gates, rule)
        rule = "give two numbers in [0, 1), as trainer.betas=[0.9,0.999]"
        require(len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "trainer.betas", self.betas, rule)
        require(self.eps > 0, "trainer.eps", self.eps, "must be positive")
        one_of("trainer.advantage", self.advantage, ("joint", "per_reward"))
        rule = "divides each reward by its standard deviation; give trainer.scale_advantage=true"
        is_scaled = self.scale_advantage or self.advantage == "joint"
        require(is_scaled, "trainer.advantage", self.advantage, rule)
        rule = "trainer.advantage=per_reward would divide it by its own spread; give trainer.kl_coef, or 0"
        keeps_size = self.kl_reward_coef == 0 or self.advantage == "joint"
        require(keeps_size, "trainer.kl_reward_coef", self.kl_reward_coef, rule)

    @property
    def groups_per_step(self) -> int:
        """Return how many images, edited twins included, a step draws num_samples completions for."""
        return self.images_per_step + self.edited_pairs

    @property
    def needs_reference(self) -> bool:
        """Return whether the loss or the reward has a KL divergence from the reference model."""
        return self.kl_coef > 0 or bool(self.critique_kl_coef) or self.kl_reward_coef > 0


def _check_optimizer(group: str, weight_decay: float, max_grad_norm: float) -> None:
    require(weight_decay >= 0, f"{group}.weight_decay", weight_decay, "must not be negative")
    rule = "must be positive, because gradients are scaled down to it; give 1e9 to leave them as they are"
    require(max_grad_norm > 0, f"{group}.max_grad_norm", max_grad_norm, rule)


@dataclass
@defaults("rollout/local.yaml")
class RolloutSettings:
    """Who draws completions: this process, or vLLM servers (python -m aes_r1.serve)."""

    name: str = IN_YAML
    url: list[str] = IN_YAML  # addresses of the servers, such as http://127.0.0.1:8100
    weights: str | None = IN_YAML  # folder that trainer and servers share; null: /dev/shm, or the temporary folder
    cap: float = IN_YAML  # largest importance weight of a token between sampler and trainer
    max_mismatch: float | None = IN_YAML  # mean difference of log-probabilities, nats; null: .001 in float32, else .05
    patience: float = IN_YAML  # seconds for which servers that do not answer are asked again
    ahead: int = IN_YAML  # 1: the next step's completions are drawn while this one updates

    def __post_init__(self) -> None:
        one_of("rollout.name", self.name, ("local", "vllm"))
        if self.name == "local":
            rule = "local rollouts ask no server; give rollout=vllm"
            require(not self.url, "rollout.url", self.url, rule)
            require(self.ahead == 0, "rollout.ahead", self.ahead, rule)
        else:
            rule = "give the servers' addresses, as rollout.url=[http://127.0.0.1:8100]"
            require(bool(self.url), "rollout.url", self.url, rule)
            for url in self.url:
                address_rule("rollout.url", url, rule)
        require(self.cap >= 1, "rollout.cap", self.cap, "must be at least 1")
        bound = self.max_mismatch
        require(bound is None or bound > 0, "rollout.max_mismatch", bound, "must be positive or null")
        require(self.patience > 0, "rollout.patience", self.patience, "must be positive")
        require(self.ahead in (0, 1), "rollout.ahead", self.ahead, "must be 0 or 1")


@dataclass
@defaults("engine/single.yaml")
class EngineSettings:
    """The engine that trains the weights: a plain optimizer in one process, or DeepSpeed in several."""

    name: str = IN_YAML
    config: dict[str, Any] = IN_YAML  # passed to DeepSpeed unchanged

    def __post_init__(self) -> None:
        one_of("engine.name", self.name, ("single", "zero1", "zero2", "zero3", "zero3_offload"))
