"""Define the settings of the vision-language model."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from aes_r1.settings.defaults import IN_YAML, defaults
from aes_r1.settings.rules import one_of, require, seed_rule

WORDLESS = ("score_only", "score_first", "filler")  # prompts without words before the score from which it could be read
PROMPTS = ("critique", *WORDLESS)
SUB_SCORES = ("light_and_shadow", "mood_and_narrative", "composition", "color", "exposure")  # as prompts.DIMENSIONS
PAPER_PIXELS = 262144  # area of a picture, in pixels, at which the paper trains


@dataclass
@defaults("model/tiny_qwen2_5_vl.yaml", at="pretrain")
class PretrainSettings:
    """Pretraining of the tiny model on plain facts; it stands in for the pretraining of a real backbone."""

    data: str = IN_YAML  # scenes; photographs: training photographs of the data set as well
    pictures: int = IN_YAML
    epochs: int = IN_YAML
    batch_size: int = IN_YAML
    lr: float = IN_YAML
    seed: int = IN_YAML

    def __post_init__(self) -> None:
        one_of("model.pretrain.data", self.data, ("scenes", "photographs"))
        for name in ("pictures", "epochs", "batch_size"):
            require(getattr(self, name) > 0, f"model.pretrain.{name}", getattr(self, name), "must be positive")
        require(self.lr > 0, "model.pretrain.lr", self.lr, "must be positive")
        rule = f"must be at least model.pretrain.batch_size={self.batch_size}, or no step is taken"
        require(self.pictures * self.epochs >= self.batch_size, "model.pretrain.pictures", self.pictures, rule)
        seed_rule("model.pretrain.seed", self.seed)


@dataclass
@defaults("model/tiny_qwen2_5_vl.yaml", at="lora")
class LoraSettings:
    """The low-rank adapter (Hu et al., 2021) that is trained instead of all weights."""

    rank: int = IN_YAML  # 0: no adapter, all weights are trained
    alpha: float = IN_YAML
    dropout: float = IN_YAML
    target: str = IN_YAML  # language: in the language model; all: also in vision tower and projector
    target_modules: list[str] = IN_YAML

    def __post_init__(self) -> None:
        require(self.rank >= 0, "model.lora.rank", self.rank, "must not be negative")
        require(0 < self.alpha < math.inf, "model.lora.alpha", self.alpha, "must be positive")
        require(0 <= self.dropout < 1, "model.lora.dropout", self.dropout, "must be in [0, 1)")
        one_of("model.lora.target", self.target, ("language", "all"))


@dataclass
@defaults("model/tiny_qwen2_5_vl.yaml")
class ModelSettings:
    """The vision-language model that is trained."""

    name: str = IN_YAML
    path: str | None = IN_YAML  # folder or hub name; null: the tiny model of `base`
    # weights of the tiny model. shipped: those in the package; pretrain: trained here by `pretrain`; null: path is set
    base: str | None = IN_YAML
    dtype: str = IN_YAML
    quantize: str = IN_YAML  # nf4: frozen weights of the language layers in 4 bits, by bitsandbytes
    max_pixels: int = IN_YAML  # largest area of a picture when data.max_pixels is null
    freeze_vision: bool = IN_YAML  # vision tower and projector, in RAPO; cold_start.freeze_vision is for the cold start
    shared_prefix: bool = IN_YAML  # prompt and picture computed once per image in the update
    gradient_checkpointing: bool = IN_YAML
    kernels: str = IN_YAML  # liger: norms and gates as one CUDA kernel each, by liger-kernel
    # critique: think, then score; score_only: the control without a critique; score_first: score, then the critique, on
    # which the score cannot depend; filler: as many tokens of a neutral word as a critique has, then the score
    prompt: str = IN_YAML
    sub_scores: list[str] = IN_YAML  # dimensions that the answer also scores, after the score
    answer_from: str = IN_YAML  # words: the answer after a critique is sampled with the picture blanked
    reference: str = IN_YAML  # where RAPO's reference model is kept between its uses: device, host or sharded
    lora: LoraSettings = field(default_factory=LoraSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)

    def __post_init__(self) -> None:
        one_of("model.dtype", self.dtype, ("float32", "bfloat16", "float16"))
        require(self.max_pixels >= 256, "model.max_pixels", self.max_pixels, "must be at least 256")
        self._check_base()
        one_of("model.kernels", self.kernels, ("plain", "liger"))
        one_of("model.prompt", self.prompt, PROMPTS)
        self._check_sub_scores()
        one_of("model.answer_from", self.answer_from, ("image", "words"))
        require(
            self.answer_from == "image" or self.prompt not in WORDLESS,
            "model.answer_from",
            self.answer_from,
            f"{self.prompt} writes no words before its score, from which it could be read; give model.prompt=critique",
        )
        one_of("model.quantize", self.quantize, ("none", "nf4"))
        require(
            self.quantize == "none" or self.lora.rank > 0,
            "model.quantize",
            self.quantize,
            "4-bit weights are frozen, so an adapter is trained; give model.lora.rank=64, or none",
        )
        require(
            not (self.freeze_vision and self.lora.rank > 0 and self.lora.target == "all"),
            "model.lora.target",
            self.lora.target,
            "trains the vision tower, which model.freeze_vision=true freezes; give language, or freeze_vision=false",
        )
        one_of("model.reference", self.reference, ("device", "host", "sharded"))
        require(
            self.reference == "device" or self.lora.rank == 0,
            "model.reference",
            self.reference,
            "with model.lora.rank > 0 the reference is the policy without its adapter and takes no memory; give device",
        )

    def _check_sub_scores(self) -> None:
        for name in self.sub_scores:
            one_of("model.sub_scores", name, SUB_SCORES)
        are_unique = len(set(self.sub_scores)) == len(self.sub_scores)
        require(are_unique, "model.sub_scores", self.sub_scores, "name each dimension once")
        rule = "are scored from the picture; give model.answer_from=image, or no sub_scores"
        require(not self.sub_scores or self.answer_from == "image", "model.sub_scores", self.sub_scores, rule)

    def _check_base(self) -> None:
        if self.path is not None:
            self.base = None
            return
        require(self.base is not None, "model.path", "null", "give a folder or hub name, or model=tiny_qwen2_5_vl")
        one_of("model.base", str(self.base), ("shipped", "pretrain"))
        if self.base == "shipped":
            for key, value in dataclasses.asdict(self.pretrain).items():
                is_default = value == getattr(PretrainSettings(), key)
                require(
                    is_default,
                    f"model.pretrain.{key}",
                    value,
                    "the shipped base is made; give model.base=pretrain, too",
                )
