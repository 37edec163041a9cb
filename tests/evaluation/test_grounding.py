"""Measures of grounding for truthful critiques, for one critique of every picture, and without critiques."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aes_r1.evaluation.grounding import distinct, grounding, words_srcc
from aes_r1.prompts import DIMENSIONS
from tests.evaluation.test_critique import truthful


def measured(rows, factors=None, **others):
    given = {"factors": factors, "informed": [], "exchanged": None, "n_bootstrap": 50, **others}
    result = grounding(rows, **given)
    json.dumps(result, allow_nan=False)
    return result


@pytest.mark.slow
def test_truthful_critiques():
    rows, factors = truthful(60)
    result = measured(rows, factors)
    assert result["n"] == 60
    assert result["distinct"]["value"] == len({row["critique"] for row in rows}) > 50
    assert result["words_srcc"]["low"] > 0.85
    assert result["faithfulness"]["low"] > 0.9
    assert set(result["faithfulness"]["dimensions"]) == set(DIMENSIONS)
    assert result["information_nats"] is None
    assert result["follow_critique"] is None


def test_one_critique_for_every_picture():
    rows, factors = truthful(60)
    alike = [{**row, "critique": rows[0]["critique"]} for row in rows]
    result = measured(alike, factors)
    assert result["distinct"]["value"] == 1
    assert result["words_srcc"] is None
    assert result["faithfulness"]["value"] == 0.0


@pytest.mark.slow
def test_a_dimension_that_is_said_alike_counts_as_nothing():
    rows, factors = truthful(60)
    first = rows[0]["critique"].split(". ")  # sentences in the order of the dimensions
    part = next(index for index, text in enumerate(first) if text.startswith("Color"))
    stiff = []
    for row in rows:
        sentences = row["critique"].split(". ")
        sentences[part] = first[part]
        stiff.append({**row, "critique": ". ".join(sentences)})
    whole, result = measured(rows, factors)["faithfulness"], measured(stiff, factors)["faithfulness"]
    assert result["dimensions"]["color"]["value"] == 0.0
    assert result["value"] == pytest.approx(whole["value"] - whole["dimensions"]["color"]["value"] / 5)


def test_words_that_speak_of_another_picture():
    rows, _ = truthful(200, shuffle=True)
    opinions = np.random.default_rng(1).permutation([row["mos"] for row in rows])
    strange = [{**row, "mos": float(mos)} for row, mos in zip(rows, opinions, strict=True)]
    result = words_srcc(strange, n_bootstrap=100)
    assert result["low"] < 0 < result["high"]


def test_what_cannot_be_told_is_null():
    rows, _ = truthful(6)
    assert words_srcc([{**row, "mos": None} for row in rows], n_bootstrap=5) is None
    assert words_srcc(rows[:2], n_bootstrap=5) is None
    mute = [{**row, "critique": None, "score": None} for row in rows]
    assert distinct(mute) == 0
    result = measured(mute, {row["id"]: dict.fromkeys(DIMENSIONS, 0.5) for row in mute})
    assert result["words_srcc"] is None
    assert result["faithfulness"]["value"] == 0.0


def test_means_and_follow_by_hand():
    rows, _ = truthful(4)
    follow = {"value": 0.25, "low": 0.1, "high": 0.4}
    result = measured(
        rows,
        informed=[{"words_nats": 1.0, "score_nats": 4.0}, {"words_nats": 3.0, "score_nats": 2.0}],
        exchanged={"swapped_critique": {"follow": follow}, "swapped_picture": {"follow": follow}},
    )
    assert (result["information_nats"]["value"], result["score_information_nats"]["value"]) == (2.0, 3.0)
    assert 1.0 <= result["information_nats"]["low"] <= result["information_nats"]["high"] <= 3.0
    assert result["follow_critique"] == result["follow_picture"] == follow


@pytest.mark.slow
def test_only_what_is_known_of_a_picture_is_compared():
    """People rated the colors of every picture and the light of two: faithfulness is that of the colors."""
    rows, factors = truthful(60)
    rated = {row["id"]: {"color": factors[row["id"]]["color"]} for row in rows}
    rated[rows[0]["id"]]["light_and_shadow"] = rated[rows[1]["id"]]["light_and_shadow"] = 0.5
    whole, result = measured(rows, factors)["faithfulness"], measured(rows, rated)["faithfulness"]
    assert list(result["dimensions"]) == ["color"]
    assert result["value"] == whole["dimensions"]["color"]["value"]
    assert measured(rows, {row["id"]: {} for row in rows})["faithfulness"] is None
