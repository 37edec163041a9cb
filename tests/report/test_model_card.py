"""The card of an exported model says what its run did and what was measured of this model, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from aes_r1.evaluation.summary import summarise
from aes_r1.inference.asking import Facts, asking_of, conformal_half_widths, saw_scenes_alone
from aes_r1.report.model_card import model_card
from aes_r1.settings import Settings, as_dict, build


def settings_of(**values: Any) -> dict[str, Any]:
    return as_dict(build(Settings, {"run_name": "made", **values}))


def facts_of(settings: dict[str, Any]) -> Facts:
    return Facts(**vars(asking_of(settings)), scenes_alone=saw_scenes_alone(settings))


def card_of(settings: dict[str, Any], evaluation: Any = None, **changes: Any) -> str:
    return model_card(settings, evaluation or {}, {"train": 12}, facts_of(settings), "OUT", **changes)


def evaluated(*stages: str) -> Any:
    """An evaluation of `stages`, each of which is more often wrong than the next."""
    rows = [
        {
            **{"stage": stage, "protocol": "mean", "id": str(place), "dataset": "folder", "split": "test"},
            **{"image": f"{place}.png", "mos": place / 12, "score": (place * (7 - 2 * number) % 12) / 12},
            **{"scores": [0.5], "critique": "dull light", "out_of_range": 0, "origin": None, "mos_std": None},
        }
        for number, stage in enumerate(stages)
        for place in range(12)
    ]
    evaluation = summarise(rows, n_bootstrap=20)
    for number, stage in enumerate(stages):
        evaluation["stages"][stage]["folder/test"]["mean"]["conformal"] = {"level": 0.9, "half_width": 0.1 + number}
    follow = {"swapped_critique": {"follow": {"value": 0.21, "low": 0.1, "high": 0.3}}}
    evaluation["critiques"] = {stage: {"folder/test": {"interventions": follow}} for stage in stages}
    return evaluation


TRAINED = {
    "rapo": {"trainer": {"name": "rapo"}},
    "cold_start": {"trainer": {"name": "sft"}},
}


@pytest.mark.parametrize("stage", TRAINED)
def test_what_was_measured_of_other_models_is_not_told_of_this_one(stage):
    settings = settings_of(**TRAINED[stage])
    earlier = ("base", "cold_start")[: 1 + (stage == "rapo")]
    others, own = evaluated(*earlier), evaluated(*earlier, stage)
    assert conformal_half_widths(others, stage) == ({}, None)
    assert conformal_half_widths(own, stage) == ({"mean": 0.1 + len(earlier)}, "folder/test")
    card = card_of(settings, others)
    assert "model-index" not in card
    assert "This model was not evaluated; the run evaluated earlier models alone." in card
    for told in ("bootstrap", "off by", "of the way", "half-width", "Different critiques"):
        assert told not in card
    card = card_of(settings, own)
    srcc = own["stages"][stage]["folder/test"]["mean"]["srcc"]["value"]
    assert f"value: {round(srcc, 4)}\n" in card
    assert "bootstrap" in card
    assert "0.21 of the way" in card
    assert "This model was not evaluated.\n" in card_of(settings)
