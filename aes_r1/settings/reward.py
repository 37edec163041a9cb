"""Define the settings of the rewards, one class each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from aes_r1.settings.aescot import ChatSettings
from aes_r1.settings.defaults import IN_YAML, defaults
from aes_r1.settings.places import place
from aes_r1.settings.rules import one_of, require


@dataclass
@defaults("reward/rapo.yaml", at="rank")
class RankSettings:
    """The relative reward: the order of images."""

    weight: float = IN_YAML
    gamma: float = IN_YAML
    ties: str = IN_YAML
    pool: str = IN_YAML
    model: str = IN_YAML  # gaussian: the paper's; bradley_terry: ours
    tau: float = IN_YAML

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.rank.weight", self.weight, "must not be negative")
        require(self.gamma > 0, "reward.rank.gamma", self.gamma, "must be positive")
        require(self.tau > 0, "reward.rank.tau", self.tau, "must be positive")
        one_of("reward.rank.ties", self.ties, ("geq", "half"))
        one_of("reward.rank.pool", self.pool, ("global", "dataset"))
        one_of("reward.rank.model", self.model, ("gaussian", "bradley_terry"))


@dataclass
@defaults("reward/rapo.yaml", at="error")
class ErrorSettings:
    """The absolute reward: the distance to the mean opinion score."""

    weight: float = IN_YAML
    sigma: float = IN_YAML
    epsilon: float = IN_YAML

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.error.weight", self.weight, "must not be negative")
        require(self.sigma > 0, "reward.error.sigma", self.sigma, "must be positive")
        require(self.epsilon >= 0, "reward.error.epsilon", self.epsilon, "must not be negative")


@dataclass
@defaults("reward/rapo.yaml", at="binary")
class BinarySettings:
    """The reward of earlier work: 1 within a threshold."""

    weight: float = IN_YAML
    threshold: float = IN_YAML

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.binary.weight", self.weight, "must not be negative")
        require(self.threshold > 0, "reward.binary.threshold", self.threshold, "must be positive")


@dataclass
@defaults("reward/rapo.yaml", at="distribution")
class DistributionSettings:
    """The reward for scores that are spread as the raters' opinions are."""

    weight: float = IN_YAML

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.distribution.weight", self.weight, "must not be negative")


@dataclass
@defaults("reward/rapo.yaml", at="pair")
class PairSettings:
    """The reward for naming the better one of two pictures; with it, RAPO asks about pairs instead of pictures."""

    weight: float = IN_YAML
    margin: float = IN_YAML  # least difference between the opinions of a training pair

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.pair.weight", self.weight, "must not be negative")
        require(0 < self.margin <= 1, "reward.pair.margin", self.margin, "must be in (0, 1]")


TWIN_SCORES = ("score", "sub_score")


@dataclass
@defaults("reward/rapo.yaml", at="twin")
class TwinSettings:
    """The reward for scoring a picture above its edited twin, where trainer.edited_pairs makes twins."""

    weight: float = IN_YAML
    of: str = IN_YAML  # of TWIN_SCORES: the score, or the sub-score of the dimension that the edit harms

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.twin.weight", self.weight, "must not be negative")
        one_of("reward.twin.of", self.of, TWIN_SCORES)


@dataclass
@defaults("reward/rapo.yaml", at="sub_scores")
class SubScoreSettings:
    """The rank and error rewards of every dimension of model.sub_scores."""

    weight: float = IN_YAML  # relative to those of the score

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.sub_scores.weight", self.weight, "must not be negative")


@dataclass
@defaults("reward/rapo.yaml", at="format")
class FormatSettings:
    """The reward for a readable answer."""

    weight: float = IN_YAML

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.format.weight", self.weight, "must not be negative")


@dataclass
@defaults("reward/rapo.yaml", at="faithfulness")
class FaithfulnessSettings:
    """The reward for agreement between a critique's statements and known ratings of each dimension."""

    weight: float = IN_YAML
    form: str = IN_YAML  # rank: order of the pictures in each dimension; squared: 1 - squared error

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.faithfulness.weight", self.weight, "must not be negative")
        one_of("reward.faithfulness.form", self.form, ("rank", "squared"))


@dataclass
@defaults("reward/rapo.yaml", at="read_back")
class ReadBackSettings:
    """The reward for the score that a frozen reader infers from the words alone."""

    weight: float = IN_YAML

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.read_back.weight", self.weight, "must not be negative")


@dataclass
@defaults("reward/rapo.yaml", at="information")
class InformationSettings:
    """The reward for a critique that is likelier given its own picture than given other pictures."""

    weight: float = IN_YAML
    cap: float = IN_YAML  # bound of each difference of log-probabilities, nats

    def __post_init__(self) -> None:
        require(self.weight >= 0, "reward.information.weight", self.weight, "must not be negative")
        require(self.cap > 0, "reward.information.cap", self.cap, "must be positive")


@dataclass
@defaults("reward/rapo.yaml", at="judge")
class JudgeRewardSettings(ChatSettings):
    """The reward that a model gives: it is shown a picture, its critique and its score, and rates them."""

    weight: float = IN_YAML
    model: str | None = IN_YAML
    temperature: float = IN_YAML
    rubric: str | None = IN_YAML  # what earns a high rating; null: conf/prompts/rubric.txt

    group = "reward.judge"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.weight >= 0, "reward.judge.weight", self.weight, "must not be negative")
        rule = "needs a model to ask; give reward.judge.model, and reward.judge.api_base for a server of your own"
        require(self.weight == 0 or bool(self.model), "reward.judge.weight", self.weight, rule)
        is_said = self.rubric is None or bool(self.rubric.strip())
        require(is_said, "reward.judge.rubric", self.rubric, "say what earns a high rating; or null")


@dataclass
@defaults("reward/rapo.yaml")
class RewardSettings:
    """The rewards of a completion and their weights."""

    name: str = IN_YAML
    rank: RankSettings = field(default_factory=RankSettings)
    error: ErrorSettings = field(default_factory=ErrorSettings)
    binary: BinarySettings = field(default_factory=BinarySettings)
    distribution: DistributionSettings = field(default_factory=DistributionSettings)
    pair: PairSettings = field(default_factory=PairSettings)
    twin: TwinSettings = field(default_factory=TwinSettings)
    format: FormatSettings = field(default_factory=FormatSettings)
    sub_scores: SubScoreSettings = field(default_factory=SubScoreSettings)
    custom: str | None = IN_YAML  # FILE.py:FUNCTION, a reward of your own; null: none
    custom_weight: float = IN_YAML
    # Rewards of the critique, for trainer.credit=parts.
    faithfulness: FaithfulnessSettings = field(default_factory=FaithfulnessSettings)
    read_back: ReadBackSettings = field(default_factory=ReadBackSettings)
    information: InformationSettings = field(default_factory=InformationSettings)
    # A reward of the critique with trainer.credit=parts, of the whole completion with trainer.credit=all.
    judge: JudgeRewardSettings = field(default_factory=JudgeRewardSettings)
    schedule: str = IN_YAML
    failed_parse: str = IN_YAML  # none: no score; random: a uniform one takes its place, as in the authors' code

    def __post_init__(self) -> None:
        one_of("reward.failed_parse", self.failed_parse, ("none", "random"))
        one_of("reward.schedule", self.schedule, ("joint", "rank_first", "error_first"))
        custom = self.custom
        rule = "give FILE.py:FUNCTION, as reward.custom=rewards.py:brevity"
        require(
            custom is None or re.fullmatch(r".+\.py:[A-Za-z_]\w*", custom) is not None, "reward.custom", custom, rule
        )
        require(self.custom_weight > 0, "reward.custom_weight", self.custom_weight, "must be positive")
        absolute = self.error.weight + self.binary.weight + self.distribution.weight
        custom_weight = 0.0 if custom is None else self.custom_weight
        weights = (self.rank.weight, absolute, self.pair.weight, self.format.weight, custom_weight, self.judge.weight)
        require(
            sum(weights) > 0, "reward", self.name, "every weight is 0, so nothing would be learned; set one above 0"
        )
        has_both = self.rank.weight > 0 and absolute > 0
        require(
            self.schedule == "joint" or has_both,
            "reward.schedule",
            self.schedule,
            "needs reward.rank.weight > 0 and error, binary or distribution weight > 0, one for each half; or joint",
        )

        self._check_pair()

    def _check_pair(self) -> None:
        """Refuse rewards of single pictures beside reward.pair, with which prompts show two."""
        if self.pair.weight == 0:
            return
        of_scores = ("rank", "error", "binary", "distribution", "faithfulness", "read_back", "information")
        for name in of_scores:
            weight = getattr(self, name).weight
            rule = "pays a score of one picture, but reward.pair asks which of two is better; give 0, or reward=pair"
            require(weight == 0, f"reward.{name}.weight", weight, rule)
        rule = "rates the critique of one picture, but reward.pair asks which of two is better; give 0, or reward=pair"
        require(self.judge.weight == 0, "reward.judge.weight", self.judge.weight, rule)
        rule = "gets the scores of single pictures, which reward.pair does not ask for; give null"
        require(self.custom is None, "reward.custom", self.custom, rule)
        rule = "guesses a score, but reward.pair asks which of two pictures is better; give none"
        require(self.failed_parse == "none", "reward.failed_parse", self.failed_parse, rule)

    @property
    def critique_weights(self) -> dict[str, float]:
        """Return the positive weights of the rewards that trainer.credit=parts pays to the critique."""
        weights = {name: getattr(self, name).weight for name in ("faithfulness", "read_back", "information", "judge")}
        return {name: weight for name, weight in weights.items() if weight > 0}

    @property
    def fewest_samples(self) -> int:
        """Return the least number of completions per image: the distribution reward is undefined below three."""
        return 3 if self.distribution.weight > 0 else 2

    @property
    def needs_reference(self) -> bool:
        """Return whether a reward of the critique needs the reference model."""
        return not {"read_back", "information"}.isdisjoint(self.critique_weights)


def reward_file(named: str) -> Path:
    """Return the file that reward.custom=FILE.py:FUNCTION names. InputError for the ~ of an unknown user."""
    return place(named.rpartition(":")[0], "reward.custom")
