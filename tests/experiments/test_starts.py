"""The rule that picks a starting checkpoint, on the paper's own numbers."""

from __future__ import annotations

import pytest

from experiments.sft_entropy.starts import pick_start, regret

PAPER = {"0": (0.921, 1.0), "1": (1.609, 1.0), "2": (1.417, 1.0), "10": (0.705, 1.0)}


def test_the_rule_picks_the_peak_above_the_floor():
    assert pick_start(PAPER) == "1"
    assert pick_start(PAPER | {"1": (1.609, 0.85)}) == "2"
    assert pick_start(PAPER | {"1": (1.609, 0.85)}, floor=0.8) == "1"
    assert pick_start({"0": (0.9, 0.0)}) is None


def test_regret_is_what_the_pick_costs():
    srcc = {"0": 0.6102, "1": 0.6186, "2": 0.5903}
    assert regret("1", srcc) == 0
    assert regret("2", srcc) == pytest.approx(0.0283)
