"""Define the settings of a whole run, and of the dashboard of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aes_r1.settings.aescot import ExpertSettings, JudgeSettings
from aes_r1.settings.data import MEASURE_APART, DataSettings, sets_rule
from aes_r1.settings.defaults import IN_YAML, defaults
from aes_r1.settings.edits import HARMED
from aes_r1.settings.evaluation import EvaluationSettings
from aes_r1.settings.model import WORDLESS, ModelSettings
from aes_r1.settings.reward import RewardSettings
from aes_r1.settings.rules import folder_rule, require, seed_rule
from aes_r1.settings.tracker import TrackerSettings
from aes_r1.settings.trainer import ColdStartSettings, EngineSettings, RolloutSettings, TrainerSettings


@dataclass
@defaults("dashboard.yaml")
class DashboardSettings:
    """Settings of `python -m aes_r1.dashboard`."""

    runs: str = IN_YAML
    out: str = IN_YAML
    analyses: str = IN_YAML  # folder of STUDY/results/table.md
    project: str = IN_YAML
    entity: str | None = IN_YAML  # W&B team or user; null: write a static page instead


def models_of(trainer: Mapping[str, Any], cold_start: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the models of a run with these settings, in order: base, then what its cold start and RAPO make.

    There is a cold start where RAPO starts from one, or where the run is a cold start alone.
    """
    is_wanted = trainer["init_from"] == "cold_start" or trainer["name"] == "sft"
    made = {"cold_start": is_wanted and cold_start["epochs"] > 0, "rapo": trainer["name"] == "rapo"}
    return ("base", *(name for name, is_made in made.items() if is_made))


@dataclass
@defaults("config.yaml")
class Settings:
    """A whole run. `out` is its folder; in `store` runs share scenes, base models and cold starts."""

    seed: int = IN_YAML
    # In YAML out and store are interpolated from the whole recipe or the environment, and recipes set run_name.
    out: str = "runs/run"
    store: str = "store"
    run_name: str = "run"
    processes: int = IN_YAML  # processes of one multirun job; above 1 torchrun starts them
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
        seed_rule("seed", self.seed)
        folder_rule(out=self.out, store=self.store)
        is_name = self.run_name.strip() and not {"..", ""} & set(self.run_name.split("/"))
        require(bool(is_name), "run_name", self.run_name, "is a part of runs/NAME/..; give a name")
        require(self.processes >= 1, "processes", self.processes, "must be at least 1")
        self._check_sets()
        self._check_words()
        require(
            self.model.dtype != "float16",
            "model.dtype",
            self.model.dtype,
            "training has no loss scaling, so small gradients would vanish; give bfloat16 or float32",
        )
        require(
            self.model.quantize == "none" or (self.engine.name == "single" and self.rollout.name == "local"),
            "model.quantize",
            self.model.quantize,
            "4-bit weights are for one card that also draws its completions; give engine=single and rollout=local",
        )
        require(
            self.rollout.name == "local" or self.model.lora.rank == 0 or self.model.lora.target == "language",
            "model.lora.target",
            self.model.lora.target,
            "servers take adapters of the language model alone; give language, or rollout=local",
        )
        self._check_pairs()
        if self.trainer.name == "rapo" and self.reward.rank.weight > 0:
            require(
                self.trainer.images_per_step >= 2,
                "trainer.images_per_step",
                self.trainer.images_per_step,
                "the rank reward compares images, so at least 2; or set reward.rank.weight=0",
            )
        if self.trainer.name == "rapo":
            self._check_credit()
            rule = "further images of a step are drawn after its rewards; with rollout.ahead=1 give false"
            is_free = self.trainer.dynamic_sampling == 0 or self.rollout.ahead == 0
            require(is_free, "trainer.dynamic_sampling", self.trainer.dynamic_sampling, rule)
            rule = "reward.distribution needs at least 3 scores of a picture; give trainer.num_samples=8, say"
            is_enough = self.trainer.num_samples >= self.reward.fewest_samples
            require(is_enough, "trainer.num_samples", self.trainer.num_samples, rule)
            rule = "edited twins earn this reward alone; give a positive weight, or trainer.edited_pairs=0"
            earns = self.reward.twin.weight > 0 or self.trainer.edited_pairs == 0
            require(earns, "reward.twin.weight", self.reward.twin.weight, rule)
            if self.reward.twin.of == "sub_score":
                self._check_twins_of_sub_scores()
            weight = self.reward.sub_scores.weight if self.model.sub_scores else 0.0
            rule = "sub-scores earn by rank and error; give reward.rank.weight or reward.error.weight above 0, or 0"
            is_earned = weight == 0 or self.reward.rank.weight + self.reward.error.weight > 0
            require(is_earned, "reward.sub_scores.weight", weight, rule)
            rule = "RAPO's completions are drawn without dropout, and so are their probabilities; give 0"
            require(self.model.lora.dropout == 0, "model.lora.dropout", self.model.lora.dropout, rule)

    @property
    def models(self) -> tuple[str, ...]:
        """Return the names of the run's models, in order."""
        return models_of(vars(self.trainer), vars(self.cold_start))

    def _check_twins_of_sub_scores(self) -> None:
        """Refuse a comparison of sub-scores without twins, or where an edit harms a dimension without one."""
        key, of = "reward.twin.of", self.reward.twin.of
        no_twins = "compares edited twins, of which there are none; give trainer.edited_pairs above 0, or"
        require(self.trainer.edited_pairs > 0, key, of, f"{no_twins} reward.twin.of=score")
        lacking = {edit: HARMED[edit] for edit in self.trainer.edits if HARMED[edit] not in self.model.sub_scores}
        missing, edits = ", ".join(dict.fromkeys(lacking.values())), ", ".join(lacking)
        no_sub_score = f"compares sub-scores of {missing}; name them in model.sub_scores, or leave {edits} out of"
        require(not lacking, key, of, f"{no_sub_score} trainer.edits")

    def _check_sets(self) -> None:
        """Refuse sets of the evaluation whose lists of pictures would have the name of another list of the run."""
        data, also = self.data, self.evaluation.also
        sets_rule("evaluation.also", [data, *also])
        for one in also:
            # The replaced settings do not decide which pictures a list holds.
            like = replace(one, split=data.split, unseen=data.unseen, max_pixels=data.max_pixels, workers=data.workers)
            is_other = one.name == data.name and one.split in ("train", "validation") and like != data
            rule = f"the run's own {one.split} split of that name has other settings than this one; {MEASURE_APART}"
            require(not is_other, "evaluation.also", one.name, rule)

    def _check_words(self) -> None:
        """Refuse settings that read a score from the words before it where the prompt asks for no such words."""
        prompt, blank = self.model.prompt, self.cold_start.blank_pictures
        rule = f"model.prompt={prompt} has no words before the score to read it from; give"
        if prompt in WORDLESS:
            require(blank == 0, "cold_start.blank_pictures", blank, f"{rule} 0")
            protocols = self.evaluation.protocols
            require("read_back" not in protocols, "evaluation.protocols", protocols, f"{rule} others than read_back")

    def _check_pairs(self) -> None:
        """Refuse prompts of two pictures where a prompt can show only one."""
        is_local, weight, protocols = self.rollout.name == "local", self.reward.pair.weight, self.evaluation.protocols
        rule = "servers take one picture with a prompt, but a pair shows two; leave pairs out, or give rollout=local"
        require(is_local or weight == 0, "reward.pair.weight", weight, rule)
        require(is_local or "pair" not in protocols, "evaluation.protocols", protocols, rule)
        rule = "words alone are read beside one blank picture, but reward.pair shows two; give model.answer_from=image"
        is_seen = self.model.answer_from == "image" or weight == 0
        require(is_seen, "model.answer_from", self.model.answer_from, rule)
        rule = "are of single pictures, but reward.pair asks which of two is better; give []"
        sub_scores = self.model.sub_scores
        require(weight == 0 or not sub_scores, "model.sub_scores", sub_scores, rule)
        rule = "adds twins of single pictures, but reward.pair asks which of two is better; give 0"
        edited = self.trainer.edited_pairs
        require(weight == 0 or edited == 0, "trainer.edited_pairs", edited, rule)
        rule = "orders single pictures by their raters' spread, but reward.pair asks about two; give false"
        curriculum = self.trainer.curriculum
        require(weight == 0 or not curriculum, "trainer.curriculum", curriculum, rule)

    def _check_credit(self) -> None:
        credit, weights = self.trainer.credit, self.reward.critique_weights
        for name, weight in weights.items() if credit != "parts" else ():
            rule = f"pays the critique's own tokens, which trainer.credit={credit} does not; give trainer.credit=parts"
            whole = name == "judge"  # which can also rate a completion as a whole
            require(whole and credit == "all", f"reward.{name}.weight", weight, rule + " or all" * whole)
        rule = f"the judge is shown a critique, and model.prompt={self.model.prompt} asks for none; give critique, or 0"
        is_shown = self.model.prompt in ("critique", "score_first") or self.reward.judge.weight == 0
        require(is_shown, "reward.judge.weight", self.reward.judge.weight, rule)
        of_completions = {"kl_reward_coef": "give trainer.kl_coef,", "overlong_penalty": "give 0,"}
        for key, instead in of_completions.items():
            value = getattr(self.trainer, key)
            rule = f"is of whole completions, but trainer.credit={credit} would charge it to the answer's tokens"
            require(credit == "all" or value == 0, f"trainer.{key}", value, f"{rule}; {instead} or trainer.credit=all")
        if credit == "parts":
            rule = (
                "needs a reward of the critique above 0: reward.faithfulness.weight, .read_back, .information, .judge"
            )
            require(bool(weights), "trainer.credit", credit, rule)
            rule = f"{self.model.prompt} writes no critique before its score; give trainer.credit=all"
            require(self.model.prompt not in WORDLESS, "trainer.credit", credit, rule)
