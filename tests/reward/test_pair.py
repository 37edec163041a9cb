import dataclasses
import re
from pathlib import Path

import pytest
import torch

from aes_r1.reward.pair import pair_reward
from aes_r1.reward.total import total_reward
from aes_r1.settings import (
    BinarySettings,
    ErrorSettings,
    FormatSettings,
    InputError,
    PairSettings,
    RankSettings,
    RewardSettings,
)
from aes_r1.trainer.objective import group_advantage

NAN = float("nan")


def test_right_wrong_and_unreadable():
    choices = torch.tensor([[1.0, 2.0, NAN], [1.0, 2.0, 2.0]])
    assert pair_reward(choices, torch.tensor([1.0, 2.0])).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]


def test_a_single_pair_needs_no_other():
    choices = torch.tensor([[2.0, 2.0, 1.0, 2.0]])
    reward = pair_reward(choices, torch.tensor([2.0]))
    assert reward.tolist() == [[1.0, 1.0, 0.0, 1.0]]
    assert group_advantage(reward)[0, 2] == pytest.approx(-0.75 / (0.5 + 1e-4))  # mean .75, unbiased deviation .5


def test_the_total_is_the_pair_and_the_format_alone():
    """A choice is no score: the rewards of scores would take 2 for an error of more than 1."""
    nothing = {"rank": RankSettings(weight=0), "error": ErrorSettings(weight=0), "binary": BinarySettings(weight=0)}
    reward = RewardSettings(**nothing, pair=PairSettings(weight=2.0), format=FormatSettings(weight=0.5))
    choices = torch.tensor([[1.0, 2.0, NAN]])
    total, parts = total_reward(choices, torch.tensor([2.0]), reward)
    assert total.tolist() == [[0.5, 2.5, 0.0]]
    assert {name: part.tolist() for name, part in parts.items()} == {
        "pair": [[0.0, 1.0, 0.0]],
        "format": [[1.0, 1.0, 0.0]],
    }


def test_every_reward_that_is_refused_beside_pairs_is_named_where_pairs_are_explained():
    alone = {"rank": RankSettings(weight=0), "error": ErrorSettings(weight=0), "pair": PairSettings(weight=1)}
    refused = {"custom"}  # it is a file
    for field in dataclasses.fields(RewardSettings):
        settings = getattr(RewardSettings(), field.name)
        if hasattr(settings, "weight"):
            given = {"model": "m"} if field.name == "judge" else {}
            try:
                RewardSettings(**alone | {field.name: dataclasses.replace(settings, weight=1.0, **given)})
            except InputError:
                refused.add(field.name)
    assert {"rank", "information", "judge"} < refused
    root = Path(__file__).parents[2]
    guide = (root / "docs" / "pairs.md").read_text().split("are refused with pairs")[1].split("\n- ")[0]
    assert refused <= set(re.findall(r"`(?:reward)?\.(\w+)`", guide))
    comment = (root / "conf" / "reward" / "rapo.yaml").read_text().split("\npair:\n")[1].split("weight:")[0]
    assert refused <= set(re.findall(r"\w+", comment))
