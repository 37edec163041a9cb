"""Interventions distinguish a critique that the score uses from one that it ignores."""

import pytest

from aes_r1.evaluation.interventions import summarise_interventions
from aes_r1.inference.asking import AskingConfig
from aes_r1.inference.exchange import INTERVENTION_KINDS, intervene, paired_rows
from aes_r1.inference.predict import predict
from tests.planted import QUESTION


def row(name, score, critique="a strong picture"):
    return {"id": name, "image": f"{name}.png", "mos": score, "score": score, "critique": critique}


@pytest.mark.parametrize("n", [3, 4, 17])
def test_every_critique_is_exchanged_with_two_others(n):
    pairs = paired_rows([row(str(i), 0.5) for i in range(n)] + [row("mute", None), row("wordless", 0.5, "")], seed=0)
    assert len(pairs) == n
    assert sorted(one["critique_row"]["id"] for one in pairs) == sorted(str(i) for i in range(n))
    for one in pairs:
        assert len({one["id"], one["critique_row"]["id"], one["picture_row"]["id"]}) == 3


def test_two_pictures_are_too_few():
    assert paired_rows([row("a", 0.1), row("b", 0.9)], seed=0) == []
    assert paired_rows([row("a", 0.1)], seed=0) == paired_rows([], seed=0) == []


def exchanged(name, own, other, third, **scores):
    return {
        "id": name,
        "mos": own,
        "critique_from": other,
        "picture_from": third,
        "changed": True,
        "own": own,
        **scores,
    }


def test_shares_by_hand():
    rows = [
        exchanged("a", 0.2, "b", "c", swapped_critique=0.4, swapped_picture=0.2, blanked=0.5, negated=0.8),
        exchanged("b", 0.6, "c", "a", swapped_critique=0.8, swapped_picture=0.6, blanked=0.5, negated=None),
        exchanged("c", 1.0, "a", "b", swapped_critique=0.6, swapped_picture=1.0, blanked=0.5, negated=0.5),
    ]
    result = summarise_interventions(rows, n_bootstrap=50)
    # ways .4, .4, -.8 and half of each gone: slope .5
    assert result["swapped_critique"]["follow"]["value"] == pytest.approx(0.5)
    assert result["swapped_picture"]["follow"]["value"] == 0.0
    assert result["swapped_critique"]["mean_shift"]["value"] == pytest.approx((0.2 + 0.2 + 0.4) / 3)
    # ways of the two that answered: .6 and -1, gone .6 and -.5
    assert result["negated"]["follow"]["value"] == pytest.approx((0.6 * 0.6 + 0.5 * 1.0) / (0.36 + 1.0))
    assert result["negated"]["n"] == 2
    assert result["negated"]["unanswered_rate"] == pytest.approx(1 / 3)
    assert result["negated"]["changed_rate"] == 1.0
    assert result["blanked"]["own_srcc"]["value"] == pytest.approx(1.0)
    assert result["blanked"]["srcc"]["value"] is None  # a constant has no rank correlation


@pytest.mark.slow
def test_a_hollow_critique_is_told_from_a_used_one(planted):
    measures = {}
    for name in ("used", "hollow"):
        backbone = getattr(planted, name)
        rows = list(
            predict(
                backbone,
                planted.samples,
                AskingConfig(QUESTION, temperature=1.0, max_new_tokens=40),
                protocols=["sample"],
                batch_size=12,
                seed=3,
            )
        )
        assert sum(prediction["score"] is not None for prediction in rows) >= 10
        pairs = paired_rows(rows, seed=1)
        result = list(intervene(backbone, pairs, question=QUESTION, batch_size=20))
        assert [prediction["id"] for prediction in result] == [prediction["id"] for prediction in pairs]
        assert set(INTERVENTION_KINDS) <= result[0].keys()
        measures[name] = summarise_interventions(result, n_bootstrap=200)
    used, hollow = measures["used"], measures["hollow"]
    assert used["swapped_critique"]["follow"]["low"] > 0.7
    assert hollow["swapped_critique"]["follow"]["high"] < 0.3
    assert used["swapped_picture"]["follow"]["high"] < 0.3
    assert hollow["swapped_picture"]["follow"]["low"] > 0.7
    assert used["negated"]["follow"]["low"] > 0.7
    assert hollow["negated"]["follow"]["high"] < 0.3
    assert used["negated"]["changed_rate"] == 1.0
