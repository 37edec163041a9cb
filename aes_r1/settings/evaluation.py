"""Define the settings of evaluation, in a run and as a command."""

from __future__ import annotations

from dataclasses import dataclass, field

from aes_r1.settings.aescot import JudgeSettings
from aes_r1.settings.data import DataSettings, sets_rule
from aes_r1.settings.defaults import IN_YAML, defaults
from aes_r1.settings.edits import edits_rule
from aes_r1.settings.model import PROMPTS
from aes_r1.settings.rules import folder_rule, once_rule, one_of, require, seed_rule
from aes_r1.settings.tracker import TrackerSettings
from aes_r1.settings.trainer import RolloutSettings

BASELINES = ("mean", "handmade", "eyes", "pretrained", "people")
PROTOCOLS = ("sample", "greedy", "mean", "direct", "label_tokens", "read_back", "pair")


@dataclass
@defaults("evaluation/default.yaml")
class EvaluationSettings:
    """How models are asked about test pictures, and what is measured."""

    # further sets, after data; YAML lists their names, which a command replaces with their settings
    also: list[DataSettings] = field(default_factory=list)
    protocols: list[str] = IN_YAML
    n_samples: int | None = IN_YAML  # completions of the mean protocol; null: as in the model's run, or 4 without a run
    temperature: float | None = IN_YAML  # null: as in the model's run, or 0.6 without a run
    limit: int | None = IN_YAML  # pictures per set; null: all
    pairs: int = IN_YAML  # largest number of pairs per set in the protocol pair
    batch_size: int = IN_YAML  # pictures per device and rollout
    max_new_tokens: int | None = IN_YAML  # null: the trainer's, or 1024 for a model without a run
    batch_invariant: bool = IN_YAML  # ask about one picture at a time, so that others cannot change its last bits
    interventions: int = IN_YAML  # critiques per stage, set and protocol in the counterfactual tests; 0: none
    sensitivity: int = IN_YAML  # pictures per stage and set that are asked about again after edits; 0: none
    edits: list[str] = IN_YAML  # edits of `sensitivity`
    n_bootstrap: int = IN_YAML
    stages: list[str] = IN_YAML

    @property
    def of_pictures(self) -> list[str]:
        """Return the protocols that ask about single pictures."""
        return [protocol for protocol in self.protocols if protocol != "pair"]

    def __post_init__(self) -> None:
        for protocol in self.protocols:
            one_of("evaluation.protocols", protocol, PROTOCOLS)
        for stage in self.stages:
            one_of("evaluation.stages", stage, ("base", "cold_start", "rapo"))
        require(bool(self.protocols), "evaluation.protocols", self.protocols, "must name at least one")
        # A protocol or stage that is named twice would be asked and counted twice.
        once_rule("evaluation.protocols", self.protocols)
        once_rule("evaluation.stages", self.stages)
        rule = "pair compares its choices with those of single scores; name a protocol that gives them, too"
        require(self.protocols != ["pair"], "evaluation.protocols", self.protocols, rule)
        require(self.pairs >= 1, "evaluation.pairs", self.pairs, "must be at least 1; or leave pair out of protocols")
        require(self.interventions >= 0, "evaluation.interventions", self.interventions, "must not be negative")
        require(self.sensitivity >= 0, "evaluation.sensitivity", self.sensitivity, "must not be negative")
        edits_rule("evaluation.edits", self.edits)
        n_samples, temperature, longest = self.n_samples, self.temperature, self.max_new_tokens
        require(n_samples is None or n_samples >= 1, "evaluation.n_samples", n_samples, "must be at least 1 or null")
        positive = temperature is None or temperature > 0
        require(positive, "evaluation.temperature", temperature, "must be positive or null")
        require(longest is None or longest >= 1, "evaluation.max_new_tokens", longest, "must be at least 1 or null")
        require(self.n_bootstrap >= 2, "evaluation.n_bootstrap", self.n_bootstrap, "must be at least 2")
        require(self.batch_size >= 1, "evaluation.batch_size", self.batch_size, "must be at least 1")
        require(self.limit is None or self.limit > 0, "evaluation.limit", self.limit, "must be positive or null")


@dataclass
@defaults("evaluate.yaml", at="model")
class EvaluatedModel:
    """The model that `python -m aes_r1.evaluate` asks."""

    path: str | None = IN_YAML  # folder, run folder or hub name
    dtype: str | None = IN_YAML  # null: that of its run; without a run bfloat16 on a GPU that has it, else float32
    prompt: str | None = IN_YAML  # as in a run (model.PROMPTS); null: that of its run, or critique without a run

    def __post_init__(self) -> None:
        one_of("model.dtype", "float32" if self.dtype is None else self.dtype, ("float32", "bfloat16", "float16"))
        one_of("model.prompt", "critique" if self.prompt is None else self.prompt, PROMPTS)


@dataclass
@defaults("evaluate.yaml")
class EvaluateSettings:
    """Settings of `python -m aes_r1.evaluate`."""

    seed: int = IN_YAML
    # In YAML these two are interpolated from the whole recipe or the environment.
    out: str = "runs/evaluate"
    store: str = "store"
    name: str = IN_YAML  # name of the model at model.path in tables
    model: EvaluatedModel = field(default_factory=EvaluatedModel)
    models: dict[str, str] = field(default_factory=dict)  # further models by name, measured and compared beside it
    data: DataSettings = field(default_factory=DataSettings)
    seen: list[str] | None = IN_YAML  # sets that the model was trained on; null: from its run, or unknown without a run
    pyiqa: list[str] = IN_YAML  # metrics of the pyiqa package to compare with
    baselines: list[str] = IN_YAML  # of BASELINES: scores without a critique, and raters against each other
    baseline_pictures: int | None = IN_YAML  # training pictures on which baselines are fitted; null: all
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    tracker: TrackerSettings = field(default_factory=lambda: TrackerSettings(name="none"))
    judged: int = IN_YAML  # critiques per model and set that the judge reads
    runs: list[str] = IN_YAML  # finished runs to summarise over splits and seeds, instead of asking a model
    starts: list[str] = IN_YAML  # finished runs to show side by side, instead of asking a model
    pictures: int = IN_YAML  # pictures of the side-by-side page

    def __post_init__(self) -> None:
        seed_rule("seed", self.seed)
        folder_rule(out=self.out, store=self.store)
        sets_rule("also", [self.data, *self.evaluation.also])
        require(self.name not in self.models, "models", self.name, "is the name of model.path; choose another (name=)")
        for name in (self.name, *self.models):
            require(bool(name) and "/" not in name, "models", name, "a name must not be empty or hold a slash")
        for baseline in self.baselines:
            one_of("baselines", baseline, BASELINES)
        rule = "servers take one picture with a prompt, but pair shows two; leave it out, or give rollout=local"
        is_local = self.rollout.name == "local" or "pair" not in self.evaluation.protocols
        require(is_local, "evaluation.protocols", self.evaluation.protocols, rule)
        once_rule("baselines", self.baselines)
        once_rule("pyiqa", self.pyiqa)
        pictures = self.baseline_pictures
        require(pictures is None or pictures >= 1, "baseline_pictures", pictures, "must be positive or null")
        require(
            "eyes" not in self.baselines or self.model.path is not None,
            "baselines",
            self.baselines,
            "eyes are those of the model at model.path; give one, or leave eyes out",
        )
        require(self.judged >= 1, "judged", self.judged, "must be at least 1")
        require(self.pictures >= 1, "pictures", self.pictures, "must be at least 1")
