"""Define the settings of every group; an unknown key, wrong type or impossible value raises an error that names it.

Only the commands handle Hydra's configuration: all other code takes plain values or these dataclasses.
"""

from aes_r1.settings.aescot import ChatSettings, DistillSettings, ExpertSettings, JudgeSettings, RoleSettings
from aes_r1.settings.build import CONF, as_dict, build_settings, values_of
from aes_r1.settings.data import SETS_WITHOUT_ENDS, DataSettings, PrepareSettings
from aes_r1.settings.edits import EDITS, HARMED
from aes_r1.settings.evaluation import BASELINES, PROTOCOLS, EvaluatedModel, EvaluateSettings, EvaluationSettings
from aes_r1.settings.model import PAPER_PIXELS, WORDLESS, LoraSettings, ModelSettings, PretrainSettings
from aes_r1.settings.places import expanded, place, user_cache
from aes_r1.settings.plan import CostSettings, PlanSettings
from aes_r1.settings.reward import (
    BinarySettings,
    DistributionSettings,
    ErrorSettings,
    FaithfulnessSettings,
    FormatSettings,
    InformationSettings,
    JudgeRewardSettings,
    PairSettings,
    RankSettings,
    ReadBackSettings,
    RewardSettings,
    SubScoreSettings,
    TwinSettings,
    reward_file,
)
from aes_r1.settings.rules import address_rule, one_of, require
from aes_r1.settings.run import DashboardSettings, Settings, models_of
from aes_r1.settings.tracker import TrackerSettings
from aes_r1.settings.trainer import ColdStartSettings, EngineSettings, RolloutSettings, TrainerSettings
from aes_r1.wrong_input import InputError, printable

__all__ = [
    "BASELINES",
    "CONF",
    "EDITS",
    "HARMED",
    "PAPER_PIXELS",
    "PROTOCOLS",
    "SETS_WITHOUT_ENDS",
    "WORDLESS",
    "BinarySettings",
    "ChatSettings",
    "ColdStartSettings",
    "CostSettings",
    "DashboardSettings",
    "DataSettings",
    "DistillSettings",
    "DistributionSettings",
    "EngineSettings",
    "ErrorSettings",
    "EvaluateSettings",
    "EvaluatedModel",
    "EvaluationSettings",
    "ExpertSettings",
    "FaithfulnessSettings",
    "FormatSettings",
    "InformationSettings",
    "InputError",
    "JudgeRewardSettings",
    "JudgeSettings",
    "LoraSettings",
    "ModelSettings",
    "PairSettings",
    "PlanSettings",
    "PrepareSettings",
    "PretrainSettings",
    "RankSettings",
    "ReadBackSettings",
    "RewardSettings",
    "RoleSettings",
    "RolloutSettings",
    "Settings",
    "SubScoreSettings",
    "TrackerSettings",
    "TrainerSettings",
    "TwinSettings",
    "address_rule",
    "as_dict",
    "build_settings",
    "expanded",
    "models_of",
    "one_of",
    "place",
    "printable",
    "require",
    "reward_file",
    "user_cache",
    "values_of",
]
