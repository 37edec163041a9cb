"""Typed settings of every group; an unknown key, a wrong type or an impossible value raises an error that names it.

Below the commands only this file knows Hydra and OmegaConf; all other code takes plain values or these dataclasses.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_HERE = Path(__file__).resolve().parent
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"  # in an installed package, in a checkout

PAPER_PIXELS = 262144  # area of a picture, in pixels, at which the paper trains
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]")


class InputError(Exception):
    """The user's input is wrong: one line that names the file, key or value and the way out (exit code 2).

    The message may quote any file, so control characters are written as escapes, which a terminal does not obey.
    """

    def __str__(self) -> str:
        return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), super().__str__())


def require(condition: bool, key: str, value: Any, rule: str) -> None:
    """Raise InputError naming `key` unless `condition` holds."""
    if not condition:
        raise InputError(f"{key}={value}: {rule}")


def one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError naming `key` unless `value` is one of `choices`."""
    require(value in choices, key, value, f"must be one of {', '.join(choices)}")


_HUGE = 1e30  # larger opinions are refused, so that sums of opinions stay finite
_SPLIT_BY = "must be official, paper or a JSON file (.json) that lists the test pictures"


@dataclass
class DataSettings:
    """A data set: its name, its place on disk, its splits, and how it is read."""

    name: str = "scenes"
    root: str | None = None  # folder, or manifest file, of a set on disk; null for scenes
    split: str = "test"  # split that evaluation reads
    split_by: str = "official"  # official, paper (seeded 9:1) or a JSON file that lists the test pictures
    scale: list[float] | None = None  # ends of the opinions in your own labels (data=folder); null: 0 and 1
    limit: int | None = None  # pictures used per split; null: all
    split_seed: int | None = None  # re-splits the set with this seed, keeping the sizes; null: the set's own split
    max_pixels: int | None = None  # largest area of a picture as the model sees it; null: model.max_pixels
    strict: bool = False  # true: a picture that cannot be decoded ends the run; false: it is reported and skipped
    workers: int = 2  # processes that decode and check pictures
    # {dimension: column of people's ratings, or [column, low, high] with the ends of its scale}; a list of columns that
    # are named like their dimensions
    attributes: Any = None
    unseen: list[str] = field(default_factory=list)  # sets never trained on, evaluated beside this one
    mix: dict[str, float] = field(default_factory=dict)  # ratio of the sets of a mixed training set
    size: int = 15000  # training pictures of a mix
    # folders of the sets of a mix; null: data.root/NAME. A data.root that is a manifest takes precedence
    roots: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("data.split", self.split, ("train", "validation", "test"))
        listed = self.split_by.endswith(".json")
        require(listed or self.split_by in ("official", "paper"), "data.split_by", self.split_by, _SPLIT_BY)
        ends = self.scale
        rule = "give the lowest and the highest possible opinion, as data.scale=[1,10]"
        require(ends is None or (len(ends) == 2 and -_HUGE < ends[0] < ends[1] < _HUGE), "data.scale", ends, rule)
        rule = f"data={self.name} has a scale of its own; data.scale is for your own labels, data=folder"
        require(ends is None or self.name == "folder", "data.scale", ends, rule)
        require(all(part > 0 for part in self.mix.values()), "data.mix", self.mix, "every part must be positive")
        require(self.size > 0, "data.size", self.size, "must be positive")
        require(self.limit is None or self.limit > 0, "data.limit", self.limit, "must be positive or null")
        require(
            self.max_pixels is None or self.max_pixels >= 256,
            "data.max_pixels",
            self.max_pixels,
            "must be at least 256",
        )
        require(self.workers >= 0, "data.workers", self.workers, "must not be negative")
        if isinstance(self.attributes, list):
            self.attributes = {name: name for name in self.attributes}
        columns = {} if self.attributes is None else self.attributes
        rule = "must be {dimension: column}, a list or null"
        require(isinstance(columns, dict), "data.attributes", columns, rule)
        for name, column in columns.items():
            ends = column[1:] if isinstance(column, list) and len(column) == 3 else [0, 1]
            rule = "must be a column, or [column, low, high] with low below high"
            named = isinstance(column[0] if isinstance(column, list) and column else column, str)
            whole = not isinstance(column, list) or len(column) == 3
            numbers = all(isinstance(end, int | float) for end in ends)
            require(named and whole and numbers and ends[0] < ends[1], f"data.attributes.{name}", column, rule)


@dataclass
class PretrainSettings:
    """Pretraining of the tiny model on plain facts; it stands in for the pretraining of a real backbone."""

    pictures: int = 8000
    epochs: int = 3
    batch_size: int = 32
    lr: float = 2e-3
    seed: int = 0


@dataclass
class LoraSettings:
    """The low-rank adapter (Hu et al., 2021) that is trained instead of all weights."""

    rank: int = 0  # 0: no adapter, all weights are trained
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )

    def __post_init__(self) -> None:
        require(self.rank >= 0, "model.lora.rank", self.rank, "must not be negative")
        require(0 <= self.dropout < 1, "model.lora.dropout", self.dropout, "must be in [0, 1)")


@dataclass
class ModelSettings:
    """The vision-language model that is trained."""

    name: str = "tiny_qwen2_5_vl"
    path: str | None = None  # folder or hub name; null: the tiny model of `base`
    # weights of the tiny model. shipped: those in the package; pretrain: trained here by `pretrain`; null: path is set
    base: str | None = "shipped"
    dtype: str = "float32"
    max_pixels: int = 9216  # largest area of a picture when data.max_pixels is null
    freeze_vision: bool = False  # in RAPO; the cold start always freezes vision tower and projector
    shared_prefix: bool = True  # prompt and picture computed once per image in the update
    gradient_checkpointing: bool = False
    kernels: str = "plain"  # liger: norms and gates as one CUDA kernel each, by liger-kernel
    prompt: str = "critique"  # critique: think, then score; score_only: the control without a critique
    answer_from: str = "image"  # words: the answer after a critique is sampled with the picture blanked
    reference: str = "device"  # where RAPO's reference model is kept between its uses: device, host or sharded
    lora: LoraSettings = field(default_factory=LoraSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)

    def __post_init__(self) -> None:
        one_of("model.dtype", self.dtype, ("float32", "bfloat16", "float16"))
        self._check_base()
        one_of("model.kernels", self.kernels, ("plain", "liger"))
        one_of("model.prompt", self.prompt, ("critique", "score_only"))
        one_of("model.answer_from", self.answer_from, ("image", "words"))
        require(
            self.answer_from == "image" or self.prompt == "critique",
            "model.answer_from",
            self.answer_from,
            "score_only writes no words that an answer could be read from; give model.prompt=critique",
        )
        one_of("model.reference", self.reference, ("device", "host", "sharded"))
        require(
            self.reference == "device" or self.lora.rank == 0,
            "model.reference",
            self.reference,
            "with model.lora.rank > 0 the reference is the policy without its adapter and takes no memory; give device",
        )

    def _check_base(self) -> None:
        if self.path is not None:
            self.base = None
            return
        require(self.base is not None, "model.path", "null", "give a folder or hub name, or model=tiny_qwen2_5_vl")
        one_of("model.base", str(self.base), ("shipped", "pretrain"))
        if self.base == "shipped":
            for key, value in dataclasses.asdict(self.pretrain).items():
                made = value == getattr(PretrainSettings(), key)
                require(made, f"model.pretrain.{key}", value, "the shipped base is made; give model.base=pretrain, too")


@dataclass
class RankSettings:
    """The relative reward: the order of images."""

    weight: float = 1.0
    gamma: float = 1e-6
    ties: str = "geq"
    pool: str = "global"
    model: str = "gaussian"  # gaussian: the paper's; bradley_terry: ours
    tau: float = 0.1

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.rank.weight", self.weight, "must not be negative")
        require(self.gamma > 0, "reward.rank.gamma", self.gamma, "must be positive")
        require(self.tau > 0, "reward.rank.tau", self.tau, "must be positive")
        one_of("reward.rank.ties", self.ties, ("geq", "half"))
        one_of("reward.rank.pool", self.pool, ("global", "dataset"))
        one_of("reward.rank.model", self.model, ("gaussian", "bradley_terry"))


@dataclass
class ErrorSettings:
    """The absolute reward: the distance to the mean opinion score."""

    weight: float = 1.0
    sigma: float = 0.1
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.error.weight", self.weight, "must not be negative")
        require(self.sigma > 0, "reward.error.sigma", self.sigma, "must be positive")
        require(self.epsilon >= 0, "reward.error.epsilon", self.epsilon, "must not be negative")


@dataclass
class BinarySettings:
    """The reward of earlier work: 1 within a threshold."""

    weight: float = 0.0
    threshold: float = 0.1

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.binary.weight", self.weight, "must not be negative")
        require(self.threshold > 0, "reward.binary.threshold", self.threshold, "must be positive")


@dataclass
class FormatSettings:
    """The reward for a readable answer."""

    weight: float = 0.0

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.format.weight", self.weight, "must not be negative")


@dataclass
class FaithfulnessSettings:
    """The reward for agreement of a critique's statements with known ratings, by dimension."""

    weight: float = 0.0
    form: str = "rank"  # rank: order of the pictures in each dimension; squared: 1 - squared error

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.faithfulness.weight", self.weight, "must not be negative")
        one_of("reward.faithfulness.form", self.form, ("rank", "squared"))


@dataclass
class ReadBackSettings:
    """The reward for the score that a frozen reader infers from the words alone."""

    weight: float = 0.0

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.read_back.weight", self.weight, "must not be negative")


@dataclass
class InformationSettings:
    """The reward for words that are likelier under their own picture than under others."""

    weight: float = 0.0
    cap: float = 4.0  # nats

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.information.weight", self.weight, "must not be negative")
        require(self.cap > 0, "reward.information.cap", self.cap, "must be positive")


@dataclass
class RewardSettings:
    """The rewards of a completion and their weights."""

    name: str = "rapo"
    rank: RankSettings = field(default_factory=RankSettings)
    error: ErrorSettings = field(default_factory=ErrorSettings)
    binary: BinarySettings = field(default_factory=BinarySettings)
    format: FormatSettings = field(default_factory=FormatSettings)
    # Rewards of the critique, for trainer.credit=parts.
    faithfulness: FaithfulnessSettings = field(default_factory=FaithfulnessSettings)
    read_back: ReadBackSettings = field(default_factory=ReadBackSettings)
    information: InformationSettings = field(default_factory=InformationSettings)
    schedule: str = "joint"
    failed_parse: str = "none"  # none: no score; random: a uniform one takes its place, as in the authors' code

    def __post_init__(self) -> None:
        one_of("reward.failed_parse", self.failed_parse, ("none", "random"))
        one_of("reward.schedule", self.schedule, ("joint", "rank_first", "error_first"))
        weights = (self.rank.weight, self.error.weight, self.binary.weight, self.format.weight)
        require(
            sum(weights) > 0, "reward", self.name, "every weight is 0, so nothing would be learned; set one above 0"
        )
        sides = self.rank.weight > 0 and self.error.weight + self.binary.weight > 0
        require(
            self.schedule == "joint" or sides,
            "reward.schedule",
            self.schedule,
            "needs reward.rank.weight > 0 and error or binary weight > 0, one for each half; or use joint",
        )

    @property
    def critique_weights(self) -> dict[str, float]:
        """The positive weights of the critique's rewards; empty where only the score is rewarded."""
        weights = {name: getattr(self, name).weight for name in ("faithfulness", "read_back", "information")}
        return {name: weight for name, weight in weights.items() if weight > 0}

    @property
    def needs_reference(self) -> bool:
        """Whether a critique reward needs the reference model."""
        return not {"read_back", "information"}.isdisjoint(self.critique_weights)


@dataclass
class ColdStartSettings:
    """Supervised fine-tuning on AesCoT (paper, section 3.3)."""

    data: str | None = None  # AesCoT file; null: written by `expert` from the training split
    expert: str | None = None  # null: that of the group expert
    pictures: int | None = 3000  # training pictures that the expert is asked about when data is null
    epochs: int = 1  # 0 skips the cold start
    lr: float = 2e-3
    batch_size: int = 32  # global
    micro_batch_size: int = 32  # per device
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    freeze_vision: bool = True
    blank_pictures: float = 0.0  # share of records that are trained with the picture blanked, to score from words
    save_every: int = 100
    probe_every: int | None = None  # optimizer steps between measurements of token entropy; null: never
    probe_pictures: int = 64  # validation pictures per measurement

    def __post_init__(self) -> None:
        require(self.epochs >= 0, "cold_start.epochs", self.epochs, "must not be negative")
        require(self.lr > 0, "cold_start.lr", self.lr, "must be positive")
        require(self.batch_size >= 1, "cold_start.batch_size", self.batch_size, "must be at least 1")
        require(self.micro_batch_size >= 1, "cold_start.micro_batch_size", self.micro_batch_size, "must be at least 1")
        require(0 <= self.blank_pictures < 1, "cold_start.blank_pictures", self.blank_pictures, "must be in [0, 1)")
        require(self.save_every >= 1, "cold_start.save_every", self.save_every, "must be at least 1")
        require(self.pictures is None or self.pictures >= 1, "cold_start.pictures", self.pictures, "must be positive")
        probe = self.probe_every
        require(probe is None or probe >= 1, "cold_start.probe_every", probe, "must be positive or null")
        require(self.probe_pictures >= 1, "cold_start.probe_pictures", self.probe_pictures, "must be at least 1")


@dataclass
class TrainerSettings:
    """Relative-absolute policy optimisation. Counts are global unless their comment says per device."""

    name: str = "rapo"  # rapo: cold start, then RAPO; sft: the cold start alone
    init_from: str = "cold_start"  # base | cold_start | a folder with a model
    num_samples: int = 8  # K outputs per image
    images_per_step: int = 16  # N
    max_steps: int | None = 140  # null: epochs decide
    epochs: float = 1.0
    lr: float = 2e-4
    lr_schedule: str = "linear"
    warmup_steps: int = 5
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl_coef: float = 0.01
    # all: one advantage for all tokens (the paper); answer: critique tokens get 0; parts: they get the critique's own
    credit: str = "all"
    critique_kl_coef: float | None = None  # weight of the divergence on critique tokens; null: kl_coef
    aggregation: str = "sequence_mean"
    scale_advantage: bool = True  # divide by the group's standard deviation
    drop_zero_spread: bool = False  # leave groups without spread out of the loss and its divisor
    mask_truncated: bool = True
    overlong_penalty: float = 0.0  # largest penalty for the length of an output; 0: none (the paper)
    overlong_from: float = 0.8  # share of max_new_tokens at which the penalty begins
    temperature: float = 1.0
    max_new_tokens: int = 96
    inner_epochs: int = 1
    minibatches: int = 1  # optimizer steps per inner epoch
    micro_batch_size: int = 128  # completions per device and forward
    micro_batch_tokens: int | None = None  # tokens per device and forward, prompts included, in place of the size
    save_every: int = 40
    keep_checkpoints: int = 2  # checkpoints that a run keeps to resume from
    keep_optimizer: bool = False  # keep all of them when the run is done; false: only their models stay
    eval_every: int = 40
    eval_pictures: int = 200
    completions_every: int = 10
    profile: int | None = None  # step that is traced into RUN/traces; null: none
    resume: str = "auto"

    def __post_init__(self) -> None:
        one_of("trainer.name", self.name, ("rapo", "sft"))
        require(
            self.num_samples >= 2, "trainer.num_samples", self.num_samples, "must be at least 2: a group needs spread"
        )
        require(self.images_per_step >= 1, "trainer.images_per_step", self.images_per_step, "must be at least 1")
        require(self.lr > 0, "trainer.lr", self.lr, "must be positive")
        require(0 < self.clip_low < 1, "trainer.clip_low", self.clip_low, "must be in (0, 1)")
        require(self.clip_high > 0, "trainer.clip_high", self.clip_high, "must be positive")
        require(self.kl_coef >= 0, "trainer.kl_coef", self.kl_coef, "must not be negative")
        one_of("trainer.credit", self.credit, ("all", "answer", "parts"))
        kept = self.critique_kl_coef
        require(kept is None or kept >= 0, "trainer.critique_kl_coef", kept, "must not be negative; or null")
        most, begin = self.overlong_penalty, self.overlong_from
        require(most >= 0, "trainer.overlong_penalty", most, "must not be negative")
        require(0 <= begin < 1, "trainer.overlong_from", begin, "must be in [0, 1)")
        traced, last = self.profile, self.max_steps
        require(traced is None or traced >= 1, "trainer.profile", traced, "must be positive or null")
        within = traced is None or last is None or traced <= last
        require(within, "trainer.profile", traced, f"must be one of trainer.max_steps={last} steps")
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

    @property
    def needs_reference(self) -> bool:
        """Whether the loss has a divergence from the reference model."""
        return self.kl_coef > 0 or bool(self.critique_kl_coef)


@dataclass
class RolloutSettings:
    """Who draws completions: this process, or vLLM servers (python -m aes_r1.serve)."""

    name: str = "local"
    url: list[str] = field(default_factory=list)  # of the servers, http://127.0.0.1:8100 say
    weights: str | None = None  # folder that trainer and servers share; null: /dev/shm, or the temporary folder
    cap: float = 2.0  # largest importance weight of a token between sampler and trainer
    max_mismatch: float | None = None  # mean difference of log-probabilities, nats; null: .001 in float32, else .05
    patience: float = 600.0  # seconds for which servers that do not answer are asked again
    ahead: int = 0  # 1: the next step's completions are drawn while this one updates

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
                address = urlsplit(url)
                named = address.scheme in ("http", "https") and bool(address.hostname) and not address.password
                require(named, "rollout.url", url, rule)
        require(self.cap >= 1, "rollout.cap", self.cap, "must be at least 1")
        bound = self.max_mismatch
        require(bound is None or bound > 0, "rollout.max_mismatch", bound, "must be positive or null")
        require(self.patience > 0, "rollout.patience", self.patience, "must be positive")
        require(self.ahead in (0, 1), "rollout.ahead", self.ahead, "must be 0 or 1")


@dataclass
class EngineSettings:
    """The engine that trains the weights: a plain optimizer in one process, or DeepSpeed in several."""

    name: str = "single"
    config: dict[str, Any] = field(default_factory=dict)  # passed to DeepSpeed unchanged

    def __post_init__(self) -> None:
        one_of("engine.name", self.name, ("single", "zero1", "zero2", "zero3", "zero3_offload"))


@dataclass
class ChatSettings:
    """A model behind an OpenAI-protocol or any other API that litellm reaches; keys come from the environment alone."""

    name: str = "none"
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
        require(
            self.name != "openai" or bool(self.model),
            f"{group}.model",
            self.model,
            f"{group}=openai needs a model's name",
        )
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
        address = urlsplit(self.api_base or "")
        require(
            self.api_base is None or (address.scheme in ("http", "https") and bool(address.hostname)),
            f"{group}.api_base",
            re.sub(r"[^/\s]+@", "", self.api_base or ""),
            "must be a URL, http://HOST:PORT/v1 say",
        )
        # The address would be written to distill.json; the message does not repeat it either.
        if address.password or re.search("key|token|secret", address.query, re.IGNORECASE):
            raise InputError(f"{group}.api_base holds a key; give the bare URL and the key by {group}.api_key_env")
        if not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env or "none"):
            raise InputError(f"{group}.api_key_env must be the name of an environment variable, not the key itself")


@dataclass
class ExpertSettings(ChatSettings):
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
        one_of("expert.name", self.name, ("openai", "scenes", "pixels"))
        require(
            0 < self.min_words < self.max_words, "expert.min_words", self.min_words, "must be above 0, below max_words"
        )
        copied = self.near_copy
        require(copied is None or 0 < copied <= 1, "expert.near_copy", copied, "must be in (0, 1] or null")
        rates = (self.leak_rate, self.align_rate, self.fact_rate)
        require(
            min(rates) >= 0 and sum(rates) < 1, "expert.leak_rate", rates, "the error rates must add up to less than 1"
        )


@dataclass
class JudgeSettings(ChatSettings):
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
    quotas: dict[str, Any] | None = None  # {level: n} or {data set: {level: n}}; null: each picture once
    dry_run: bool = False
    audit: str | None = None
    audit_items: int = 120

    def __post_init__(self) -> None:
        require(self.audit_items >= 2, "audit_items", self.audit_items, "must be at least 2")


PROTOCOLS = ("sample", "greedy", "mean", "direct", "label_tokens", "read_back")


@dataclass
class PrepareSettings:
    """Settings of `python -m aes_r1.prepare`."""

    data: DataSettings | None = None  # null: the table of the sets is printed
    also: list[DataSettings] = field(default_factory=list)  # further sets, searched for the same pictures
    out: str = "prepared"
    copies: str = "keep"

    def __post_init__(self) -> None:
        one_of("copies", self.copies, ("keep", "drop"))


@dataclass
class EvaluationSettings:
    """The questions to models about test pictures, and the measurements."""

    also: list[DataSettings] = field(default_factory=list)  # further sets, after data
    protocols: list[str] = field(default_factory=lambda: ["sample", "greedy", "mean"])
    n_samples: int | None = 4  # outputs of the mean protocol; null: as in the model's run, or 4 without a run
    temperature: float | None = 0.6  # null: as in the model's run, or 0.6 without a run
    limit: int | None = None  # pictures per set; null: all
    batch_size: int = 64  # pictures per device and rollout
    max_new_tokens: int | None = None  # null: the trainer's, or 1024 for a model without a run
    batch_invariant: bool = False  # ask about one picture at a time, so that no other picture can change a bit
    interventions: int = 100  # critiques per stage, set and protocol in counterfactual tests; 0: none
    n_bootstrap: int = 1000
    stages: list[str] = field(default_factory=lambda: ["base", "cold_start", "rapo"])

    def __post_init__(self) -> None:
        for protocol in self.protocols:
            one_of("evaluation.protocols", protocol, PROTOCOLS)
        for stage in self.stages:
            one_of("evaluation.stages", stage, ("base", "cold_start", "rapo"))
        require(bool(self.protocols), "evaluation.protocols", self.protocols, "must name at least one")
        require(self.interventions >= 0, "evaluation.interventions", self.interventions, "must not be negative")
        drawn, temperature, longest = self.n_samples, self.temperature, self.max_new_tokens
        require(drawn is None or drawn >= 1, "evaluation.n_samples", drawn, "must be at least 1 or null")
        positive = temperature is None or temperature > 0
        require(positive, "evaluation.temperature", temperature, "must be positive or null")
        require(longest is None or longest >= 1, "evaluation.max_new_tokens", longest, "must be at least 1 or null")
        require(self.batch_size >= 1, "evaluation.batch_size", self.batch_size, "must be at least 1")
        require(self.limit is None or self.limit > 0, "evaluation.limit", self.limit, "must be positive or null")


@dataclass
class EvaluatedModel:
    """The model that `python -m aes_r1.evaluate` asks."""

    path: str | None = None  # folder, run folder or hub name
    dtype: str | None = None  # null: that of its run; without a run bfloat16 on a GPU that has it, else float32
    prompt: str | None = None  # critique or score_only; null: that of its run, or critique without a run

    def __post_init__(self) -> None:
        one_of("model.dtype", self.dtype or "float32", ("float32", "bfloat16", "float16"))
        one_of("model.prompt", self.prompt or "critique", ("critique", "score_only"))


@dataclass
class EvaluateSettings:
    """Settings of `python -m aes_r1.evaluate`."""

    seed: int = 0
    out: str = "runs/evaluate"
    store: str = "store"
    name: str = "model"  # name of the model at model.path in tables
    model: EvaluatedModel = field(default_factory=EvaluatedModel)
    models: dict[str, str] = field(default_factory=dict)  # further models by name, measured and compared beside it
    data: DataSettings = field(default_factory=DataSettings)
    seen: list[str] | None = None  # sets that the model was trained on; null: from its run, or unknown without a run
    pyiqa: list[str] = field(default_factory=list)  # metrics of the pyiqa package to compare with
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    judged: int = 50  # critiques per model and set that the judge reads
    runs: list[str] = field(default_factory=list)  # instead of asking: finished runs to summarise over splits and seeds
    starts: list[str] = field(default_factory=list)  # instead of asking: finished runs to show side by side
    pictures: int = 50  # pictures of the side-by-side page

    def __post_init__(self) -> None:
        require(self.name not in self.models, "models", self.name, "is the name of model.path; choose another (name=)")
        for name in (self.name, *self.models):
            require(bool(name) and "/" not in name, "models", name, "a name must not be empty or hold a slash")
        require(self.judged >= 1, "judged", self.judged, "must be at least 1")
        require(self.pictures >= 1, "pictures", self.pictures, "must be at least 1")


@dataclass
class TrackerSettings:
    """Logging to W&B, beside the run's own files."""

    name: str = "offline"
    project: str = "aes-r1"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    completions: int = 8  # completions, with pictures, per logged table

    def __post_init__(self) -> None:
        one_of("tracker.name", self.name, ("offline", "wandb", "none"))


@dataclass
class DashboardSettings:
    """Settings of `python -m aes_r1.dashboard`."""

    runs: str = "runs"
    out: str = "runs/dashboard.html"
    analyses: str = "experiments"  # folder of STUDY/results/table.md
    project: str = "aes-r1"
    entity: str | None = None  # W&B team or user; null: write a static page instead


@dataclass
class Settings:
    """A whole run. `out` is its folder, `store` the folder in which runs share base models and cold starts."""

    seed: int = 0
    out: str = "runs/run"
    store: str = "store"
    run_name: str = "run"
    processes: int = 1  # processes of one multirun job; above 1 torchrun starts them
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    cold_start: ColdStartSettings = field(default_factory=ColdStartSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    expert: ExpertSettings = field(default_factory=ExpertSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)

    def __post_init__(self) -> None:
        require(self.processes >= 1, "processes", self.processes, "must be at least 1")
        require(
            self.model.dtype != "float16",
            "model.dtype",
            self.model.dtype,
            "training has no loss scaling, so small gradients would vanish; give bfloat16 or float32",
        )
        if self.trainer.name == "rapo" and self.reward.rank.weight > 0:
            require(
                self.trainer.images_per_step >= 2,
                "trainer.images_per_step",
                self.trainer.images_per_step,
                "the rank reward compares images, so at least 2; or set reward.rank.weight=0",
            )
        if self.trainer.name == "rapo":
            self._check_credit()
            require(
                self.rollout.name == "local" or self.model.lora.dropout == 0,
                "model.lora.dropout",
                self.model.lora.dropout,
                "with rollout=vllm the trainer's probabilities must be the servers', which drop nothing; give 0",
            )

    def _check_credit(self) -> None:
        credit, weights = self.trainer.credit, self.reward.critique_weights
        for name, weight in weights.items() if credit != "parts" else ():
            rule = f"pays the critique's own tokens, which trainer.credit={credit} does not; give trainer.credit=parts"
            require(False, f"reward.{name}.weight", weight, rule)
        if credit == "parts":
            rule = "needs a reward of the critique: reward.faithfulness.weight, .read_back or .information above 0"
            require(bool(weights), "trainer.credit", credit, rule)
            rule = "score_only writes no critique that could be paid; give trainer.credit=all"
            require(self.model.prompt == "critique", "trainer.credit", credit, rule)


@dataclass
class CostSettings:
    """Assumptions of `python -m aes_r1.plan` about devices, prices and texts."""

    gpus: int = 8
    memory_gb: float = 80.0  # memory of one GPU, 10^9 bytes
    peak_tflops: float = 989.0  # dense 16-bit, 10^12 operations per second
    bandwidth_gb_s: float = 3350.0  # memory bandwidth of a GPU, 10^9 bytes per second
    interconnect_gb_s: float = 300.0  # received by a GPU while weights are gathered, 10^9 bytes per second
    fused_attention: bool = True  # flash kernels; false: the update's scores are written to memory
    mfu: float = 0.15  # share of peak_tflops in prompt, reference and update passes, recomputed operations included
    decode_efficiency: float = 0.4  # share of the memory bandwidth that decoding reaches
    usd_per_gpu_hour: float | None = None
    pictures: int = 15000
    critiques: int = 9900
    test_pictures: int = 38000
    picture_tokens: int = 334
    question_tokens: int = 120
    answer_tokens: int | None = 200  # mean length of an answer; null: trainer.max_new_tokens
    longest_answer: float = 1.8  # ratio of the longest answer of a step to the mean one

    def __post_init__(self) -> None:
        for key in (
            "gpus",
            "memory_gb",
            "peak_tflops",
            "bandwidth_gb_s",
            "interconnect_gb_s",
            "pictures",
            "critiques",
            "test_pictures",
            "picture_tokens",
            "question_tokens",
        ):
            require(getattr(self, key) > 0, f"plan.{key}", getattr(self, key), "must be positive")
        require(0 < self.mfu <= 1, "plan.mfu", self.mfu, "must be in (0, 1]")
        require(0 < self.decode_efficiency <= 1, "plan.decode_efficiency", self.decode_efficiency, "must be in (0, 1]")
        price, answer = self.usd_per_gpu_hour, self.answer_tokens
        require(price is None or price >= 0, "plan.usd_per_gpu_hour", price, "must not be negative")
        require(answer is None or answer > 0, "plan.answer_tokens", answer, "must be positive or null")
        require(self.longest_answer >= 1, "plan.longest_answer", self.longest_answer, "must be at least 1")


@dataclass
class PlanSettings(Settings):
    """Settings of `python -m aes_r1.plan`: those of a run, and assumptions about its hardware."""

    plan: CostSettings = field(default_factory=CostSettings)


def build(schema: type, config: Any) -> Any:
    """Build an instance of the dataclass `schema` from `config` (an OmegaConf node or mapping); InputError by key."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), config))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        reason = str(error).splitlines()[0]
        raise InputError(f"config key {key}: {reason}") from error


def as_dict(settings: Any) -> dict[str, Any]:
    """Return the settings as plain values."""
    return dataclasses.asdict(settings)
