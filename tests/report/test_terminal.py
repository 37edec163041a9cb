import io

import numpy as np
import pytest
from rich.console import Console

from aes_r1.evaluation.summary import summarise
from aes_r1.report.terminal import critiques_line, print_headline


@pytest.mark.slow
def test_every_number_fits_eighty_columns():
    generator = np.random.default_rng(0)
    rows = []
    for stage, noise in (("base", 2.0), ("cold_start", 0.5), ("rapo", 0.2)):
        for i, mos in enumerate(generator.random(40)):
            score = None if stage == "base" and i > 3 else float(mos + generator.normal(0, noise))
            common = {"stage": stage, "id": str(i), "split": "test", "mos": float(mos), "score": score}
            common |= {"sub_scores": {"mood_and_narrative": score}, "ratings": {"mood_and_narrative": float(1 - mos)}}
            rows += [common | {"dataset": "scenes_shifted", "protocol": name} for name in ("mean", "sample")]
    evaluation = summarise(rows, n_bootstrap=40)
    critiques = {"n": 2400, "distinct": {"value": 2231, "low": None, "high": None}, "score_information_nats": None}
    critiques |= {"words_srcc": {"value": -0.512, "low": -0.7, "high": -0.3}}
    critiques |= {"information_nats": {"value": 4.47, "low": 4, "high": 5}}
    evaluation["stages"]["rapo"]["scenes_shifted/test"]["sample"]["critiques"] = critiques
    down = {"value": -0.123, "low": -0.167, "high": -0.108}
    edited = {"dimension": "composition", "n": 40, "higher": {"value": 0.834, "low": 0.751, "high": 0.894}}
    for cells in evaluation["stages"].values():
        cells["scenes_shifted/test"]["sample"]["sensitivity"] = {"underexpose": {**edited, "mean_difference": down}}
    out = io.StringIO()
    print_headline(evaluation, Console(file=out, width=80))
    text = out.getvalue()
    higher, lower = (line.split() for line in text.splitlines() if "[0.75" in line or "-0.12" in line)
    assert higher == ["higher", *["0.83", "[0.75,", "0.89]"] * 3]
    assert lower == ["drop", *["-0.12", "[-0.17,", "-0.11]"] * 3]
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.index("sample") < text.index("mean")
    for stage in ("base", "cold_start", "rapo"):
        cell = evaluation["stages"][stage]["scenes_shifted/test"]["sample"]
        for metric in ("srcc", "plcc", "mae"):
            assert f"{cell[metric]['value']:.3f}".replace("-", "−") in text
        rated = cell["sub_scores"]["mood_and_narrative"]["srcc"]["value"]
        assert f"{rated:.3f}".replace("-", "−") in text[text.index("sub-scores against ratings, sample") :]
    assert "mood and narrative" in text
    assert "90.0%" in text
    line = next(line for line in text.splitlines() if "2231 of 2400" in line)
    own = evaluation["stages"]["rapo"]["scenes_shifted/test"]["sample"]["srcc"]["value"]
    assert line.split() == ["RAPO", "−0.512", "[−0.70,", "−0.30]", f"{own:.3f}", "4.5", "–", "2231", "of", "2400"]
    assert text.index("in words") > text.index("PLCC")
    assert "Cold start" in text
    assert "scenes_shifted/test, 40 pictures, [95% intervals]" in text


def test_the_last_line_says_what_became_of_the_critiques():
    def told(words, different, nats, stage="rapo"):
        critiques = {
            "n": 600,
            "words_srcc": None if words is None else {"value": words, "low": None, "high": None},
            "distinct": {"value": different, "low": None, "high": None},
            "information_nats": None if nats is None else {"value": nats, "low": None, "high": None},
        }
        return {stage: {"scenes/test": {"greedy": {"critiques": critiques}}}}

    start = told(0.69, 500, 4.0, "cold_start")
    wordless = told(None, 0, None, "base")
    cases = (
        (told(0.7, 300, 2.0), True),  # the very thresholds, .6 and .5 of the start
        (told(0.7, 299, 2.0), False),
        (told(0.7, 300, 1.99), False),
        (told(0.7, 300, None), True),
    )
    for end, stays in cases:
        line = critiques_line({"stages": wordless | start | end})
        different = end["rapo"]["scenes/test"]["greedy"]["critiques"]["distinct"]["value"]
        assert "Cold start to RAPO: agreement of the words with the opinions 0.690 to 0.700" in line
        assert f"different ones 500 to {different} of 600" in line
        assert line.endswith("They still tell pictures apart.") == stays
        assert ("+experiment=grounded" in line) != stays
    assert critiques_line({"stages": wordless | start}) is None
    assert critiques_line({"stages": {}}) is None


def test_words_that_contradict_the_opinions_are_not_praised():
    """A base model writes facts, however different, so the comparison starts where words first judge."""

    def told(stage, words, low):
        critiques = {
            "n": 40,
            "words_srcc": None if words is None else {"value": words, "low": low, "high": 0.9},
            "distinct": {"value": 40 if stage == "base" else 36, "low": None, "high": None},
            "information_nats": None,
        }
        return {stage: {"scenes/test": {"greedy": {"n": 40, "critiques": critiques}}}}

    for words, low, shown in ((-0.27, -0.54, False), (0.2, -0.1, False), (0.2, 0.0, False), (0.5, 0.2, True)):
        stages = told("base", None, None) | told("cold_start", 0.65, 0.5) | told("rapo", words, low)
        line = critiques_line({"stages": stages})
        assert "Cold start to RAPO" in line
        assert line.endswith("They still tell pictures apart.") == shown
        assert line.endswith("apart, but that they agree with the opinions is not shown.") != shown


def test_words_that_are_lost_with_the_format_are_not_told_as_alike():
    """The remedy against critiques that turn alike is none against answers that cannot be read."""
    start = {
        "n": 40,
        "words_srcc": None,
        "distinct": {"value": 36, "low": None, "high": None},
        "information_nats": None,
    }
    for unread, is_checked in ((1.0, False), (0.5, False), (0.49, True)):
        for end in ({}, {"critiques": {**start, "distinct": {"value": 1, "low": None, "high": None}}}):
            stages = {
                "cold_start": {"scenes/test": {"greedy": {"n": 40, "parse_failure_rate": 0.0, "critiques": start}}},
                "rapo": {"scenes/test": {"greedy": {"n": 40, "parse_failure_rate": unread, **end}}},
            }
            line = critiques_line({"stages": stages})
            assert ("+experiment=grounded" in line) == is_checked
            assert ("not checked, because most answers cannot be read" in line) != is_checked


def test_a_stage_that_says_the_same_of_every_picture_is_told_as_lost():
    def told(stage, different):
        critiques = {
            "n": 60,
            "words_srcc": None if different < 2 else {"value": 0.7, "low": 0.6, "high": 0.8},
            "distinct": {"value": different, "low": None, "high": None},
            "information_nats": None,
        }
        return {stage: {"scenes/test": {"greedy": {"n": 60, **({"critiques": critiques} if different else {})}}}}

    for base, start, end, told_start in ((59, 59, 1, "Base model"), (1, 59, 1, "Cold start"), (0, 59, 0, "Cold start")):
        stages = told("base", base) | told("cold_start", start) | told("rapo", end)
        assert critiques_line({"stages": stages}) == (
            f"Critiques of scenes/test, {told_start} to RAPO: agreement of the words with the opinions 0.700 to –, "
            f"different ones 59 to {end} of 60. "
            "They no longer tell pictures apart: +experiment=grounded keeps them."
        )
    line = critiques_line({"stages": told("base", 1) | told("cold_start", 1) | told("rapo", 1)})
    assert "1 to 1 of 60. They no longer" in line
