"""Tables that an evaluation may add: means over sets, origins, baselines, the paper's numbers, corrected p."""

import numpy as np
import pytest

from aes_r1.evaluation.summary import summarise
from aes_r1.report.html import render, templates
from aes_r1.report.results_section import changes_section, results_section


def cell(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def evaluation():
    generator = np.random.default_rng(0)
    rows = [
        {"stage": stage, "protocol": "sample", "id": str(i), "dataset": "para", "split": "test", "mos": i / 40}
        | {"score": float(np.clip(i / 40 + generator.normal(0, noise), 0, 1))}
        for stage, noise in (("cold_start", 0.3), ("rapo", 0.05))
        for i in range(40)
    ]
    return summarise(rows, n_bootstrap=50)


def test_an_old_evaluation_has_none_of_them(evaluation):
    html = render("results.html", results=results_section(evaluation, {}))
    for title in ("Means over sets", "AI-made", "made worse", "baselines", "theirs", "Sub-scores"):
        assert title not in html
    assert results_section({}, {}) is None


@pytest.mark.slow
def test_each_has_its_table(evaluation):
    three = {"srcc": cell(0.71, 0.6, 0.8), "plcc": cell(0.72), "mae": cell(0.11)}
    evaluation["means"] = {"rapo": {"sample": {"unseen": {"sets": ["para/test", "aadb/test"], **three}}}}
    one = evaluation["stages"]["rapo"]["para/test"]["sample"]
    one |= {"rmse": cell(0.123), "out_of_range_rate": 0.02}
    evaluation["stages"]["cold_start"]["para/test"]["sample"]["rmse"] = cell(0.223)
    one["origins"] = {"ai": {"n": 12, **three, "bias": cell(-0.05, -0.1, 0.0)}}
    one["sub_scores"] = {"light_and_shadow": {"n": 11, **three, "srcc": cell(0.777), "parse_failure_rate": 0.25}}
    difference = {"difference": 0.3, "low": 0.2, "high": 0.4, "p": 0.01, "p_holm": 0.03}
    ends = {
        "from": {"stage": "rapo", "protocol": "label_token"},
        "to": {"stage": "rapo", "protocol": "sample"},
    }
    evaluation["baselines"] = [{"set": "para/test", **ends, "n": 40, "srcc": difference, "plcc": difference}]
    evaluation["paper"] = {
        "source": "Table 1",
        "note": "On lists that were never released.",
        "systems": {"Aes-R1 <7B>": {"para": {"plcc": 0.66, "srcc": 0.65}}},
    }
    edited = {"dimension": "color", "n": 38, "higher": cell(0.625, 0.47, 0.76), "tied": 0.13}
    one["sensitivity"] = {"desaturate": {**edited, "mean_difference": cell(0.031, -0.01, 0.07)}}
    html = render("results.html", results=results_section(evaluation, {}))
    for expected in (
        "desaturate", "62.5%", "47.0% to 76.0%", "13.0%", "+0.031",
        "RMSE", "0.123", "2.0% of completions outside 0 to 1", "unseen", "para/test, aadb/test", "0.710", "AI-made",
        "RAPO, one sample against RAPO, label_token", "+0.300", "Holm 0.03", "(theirs, PLCC / SRCC)", "0.660 / 0.650",
        "never released", "Aes-R1 &lt;7B&gt;", "Sub-scores", "light and shadow", "0.777", "25.0%",
    ):  # fmt: skip
        assert expected in html, expected


@pytest.mark.slow
def test_changes_show_what_both_sides_have(evaluation):
    evaluation["comparisons"][0]["srcc"]["p_holm"] = 0.04
    for one in evaluation["comparisons"]:
        del one["rmse"]
    html = render("changes.html", changes=changes_section(evaluation))
    assert "Holm 0.04" in html
    assert "MAE" in html
    assert "RMSE" not in html


@pytest.mark.slow
def test_a_signed_value_has_its_sign():
    valued = templates().get_template("parts.html").module.valued
    assert valued(cell(-0.05, -0.1, 0.02), sign=True) == "−0.050<small>−0.100 to +0.020</small>"
    assert valued(cell(None), sign=True) == valued(None) == "–"
