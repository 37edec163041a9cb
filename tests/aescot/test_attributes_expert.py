"""Critiques from people's ratings: they say what people said, and measure what nobody rated."""

import json
from dataclasses import replace

import numpy as np
import pytest

from aes_r1.aescot.attributes_expert import attributes_critique, rated_factors, usual_ranges
from aes_r1.aescot.build import build_aescot
from aes_r1.aescot.phrases import grade_of, read_grade, step_of
from aes_r1.aescot.pixels_expert import measure_pixels, measured_factors
from aes_r1.aescot.start import check_roles
from aes_r1.aescot.wording import stated_steps
from aes_r1.data.loader import load_samples
from aes_r1.data.sample import Sample
from aes_r1.evaluation.grounding import grounding
from aes_r1.prompts import DIMENSIONS
from aes_r1.settings import DataSettings, ExpertSettings, InputError, JudgeSettings
from tests.conftest import picture

RATED = ("light_and_shadow", "mood_and_narrative", "composition", "color")


def rated(count: int) -> list[Sample]:
    """Samples whose ratings use a part of the scale, as means of people do."""
    ratings = np.random.default_rng(0).uniform(0.4, 0.6, (count, len(RATED)))
    named = [dict(zip(RATED, row, strict=True)) for row in ratings.tolist()]
    return [
        Sample(str(i), f"{i}.png", float(ratings[i].mean()), "para", "train", attributes={"ratings": row})
        for i, row in enumerate(named)
    ]


def test_the_words_order_pictures_as_the_ratings_do():
    samples, rng = rated(60), np.random.default_rng(0)
    usual = usual_ranges(samples)
    assert set(usual) == set(RATED)
    assert all(0.4 < low < 0.43 and 0.57 < high < 0.6 for low, high in usual.values())
    seen = measure_pixels(picture(60, 40))
    rows = []
    for one in samples:
        reply = attributes_critique(one.attributes["ratings"], usual, seen, one.mos, rng)
        steps = stated_steps(reply.critique)
        assert set(steps) == set(DIMENSIONS)
        assert steps["exposure"] == step_of(measured_factors(seen)["exposure"])  # nobody rated it
        assert read_grade(reply.judgement) == grade_of(one.mos)
        rows.append({"id": one.id, "critique": reply.critique, "mos": one.mos})
    factors = {one.id: one.attributes["ratings"] for one in samples}
    result = grounding(rows, factors=factors, informed=[], exchanged=None, n_bootstrap=20)["faithfulness"]
    assert set(result["dimensions"]) == set(RATED)  # an unrated dimension is neither true nor false
    assert result["value"] > 0.95
    wrong = {one.id: samples[index - 1].attributes["ratings"] for index, one in enumerate(samples)}
    lied = grounding(rows, factors=wrong, informed=[], exchanged=None, n_bootstrap=20)["faithfulness"]
    assert abs(lied["value"]) < 0.3


def test_ratings_beyond_the_usual_range_are_its_ends_and_equal_ratings_its_middle():
    seen = measure_pixels(picture(60, 40))
    usual = {"color": (0.4, 0.6), "composition": (0.5, 0.5)}
    result = [rated_factors({"color": value, "composition": 0.5}, usual, seen) for value in (0.1, 0.5, 0.9)]
    assert [one["color"] for one in result] == pytest.approx([0.05, 0.5, 0.95])
    assert [one["composition"] for one in result] == [0.5] * 3
    assert result[0]["exposure"] == measured_factors(seen)["exposure"]


def test_a_set_without_ratings_is_refused_and_an_unrated_picture_rejected(tmp_path):
    rows = ["image,mos,split,framing,tones"]
    for index in range(6):
        picture(60, 60, seed=index).save(tmp_path / f"{index}.png")
        ratings = "," if index == 5 else f"{1 + index},{9 - index}"
        rows.append(f"{index}.png,{0.1 + 0.15 * index:.2f},train,{ratings}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    plain = DataSettings(name="folder", root=str(tmp_path))
    settings = {"expert": ExpertSettings(name="attributes"), "judge": JudgeSettings(name="none")}
    samples = load_samples(plain, "train", seed=0, store=tmp_path)
    with pytest.raises(InputError, match=r"expert=attributes: data=folder has no ratings.*data\.attributes"):
        check_roles(samples, **settings)
    columns = {"composition": ["framing", 1, 10], "color": ["tones", 1, 10]}
    samples = load_samples(replace(plain, attributes=columns), "train", seed=0, store=tmp_path)
    path = build_aescot(samples, **settings, seed=0, out=tmp_path / "out")
    kept, rejected = (
        [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("aescot", "rejected")
    )
    assert path == tmp_path / "out" / "aescot.jsonl"
    known = {sample.id: sample.attributes.get("ratings") for sample in samples}
    assert {row["id"] for row in rejected} == {name for name, ratings in known.items() if not ratings}
    assert all(row["reasons"] == ["unrated"] for row in rejected)
    steps = {row["id"]: stated_steps(row["critique"]) for row in kept}
    order = sorted(steps, key=lambda name: known[name]["composition"])
    assert [steps[name]["composition"] for name in order] == sorted(steps[name]["composition"] for name in order)
    assert [steps[name]["color"] for name in order] == sorted((steps[name]["color"] for name in order), reverse=True)
    assert all(row["expert"] == "attributes" for row in kept)
    other = load_samples(replace(plain, attributes={"color": ["framing", 1, 10]}), "train", seed=0, store=tmp_path)
    with pytest.raises(InputError, match="other ratings"):  # the same pictures and opinions, other columns
        build_aescot(other, **settings, seed=0, out=tmp_path / "out")
