"""Define the settings of the plan: a run, and assumptions about its hardware."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from aes_r1.settings.defaults import IN_YAML, defaults
from aes_r1.settings.rules import require
from aes_r1.settings.run import Settings


@dataclass
@defaults("plan.yaml", at="plan")
class CostSettings:
    """Assumptions of `python -m aes_r1.plan` about devices, prices and texts."""

    gpus: int = IN_YAML  # 0: one with engine=single, else eight
    card: str = IN_YAML  # name of the card that the next values describe
    memory_gb: float = IN_YAML  # memory of one GPU, 10^9 bytes
    peak_tflops: float = IN_YAML  # dense 16-bit, 10^12 operations per second
    bandwidth_gb_s: float = IN_YAML  # memory bandwidth of a GPU, 10^9 bytes per second
    interconnect_gb_s: float = IN_YAML  # what a GPU receives while weights are gathered, 10^9 bytes per second
    fused_attention: bool = IN_YAML  # flash kernels; false: the update stores the attention scores
    mfu: float = IN_YAML  # share of peak_tflops in prompt, reference and update passes, recomputed operations included
    decode_efficiency: float = IN_YAML  # share of the memory bandwidth that decoding reaches
    usd_per_gpu_hour: float | None = IN_YAML
    pictures: int = IN_YAML
    critiques: int = IN_YAML
    test_pictures: int = IN_YAML
    picture_tokens: int = IN_YAML
    question_tokens: int = IN_YAML
    answer_tokens: int | None = IN_YAML  # mean length of an answer; null: trainer.max_new_tokens
    longest_answer: float = IN_YAML  # ratio of the longest answer of a step to the mean one

    def __post_init__(self) -> None:
        require(self.gpus >= 0, "plan.gpus", self.gpus, "must be positive, or 0 for what the engine takes")
        for key in (
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan.gpus == 0:
            self.plan = replace(self.plan, gpus=1 if self.engine.name == "single" else 8)
