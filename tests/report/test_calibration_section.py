"""Calibration and intervals on the page."""

import pytest

from aes_r1.evaluation.summary import summarise
from aes_r1.report.calibration_section import calibration_section, opinion_by_score
from aes_r1.report.html import fill
from aes_r1.report.tables import evaluation_tables


def cell(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def rows(stage="rapo"):
    return [
        {"stage": stage, "protocol": "mean", "dataset": "a", "split": "test", "score": i / 100, "mos": 0.2 + i / 200}
        for i in range(80)
    ]


EVALUATION = {
    "stages": {
        "rapo": {
            "a/test": {
                "mean": {
                    "calibration": {"bias": cell(-0.02, -0.05, 0.01), "slope": cell(0.5), "intercept": cell(0.2)},
                    "plcc_logistic": {**cell(0.91, 0.9, 0.92), "parameters": [1, 0, 0.5, 0.1]},
                    "conformal": {
                        "level": 0.9, "half_width": 0.212, "coverage": cell(0.903, 0.86, 0.94),
                        "n_calibration": 40, "n_test": 40,
                    },
                    "spread": {
                        "n_samples": 4, "mean_std": 0.06,
                        "curve": [{"nominal": n, "coverage": n / 2} for n in (0.5, 0.9)],
                    },
                }
            }
        }
    }
}  # fmt: skip


def test_groups_are_equal_and_in_order():
    points = opinion_by_score(rows())
    assert len(points) == 8
    assert points[0] == (pytest.approx(0.045), pytest.approx(0.2225))  # the ten lowest: scores 0 .. .09
    assert points == sorted(points)
    assert opinion_by_score(rows()[:4]) == []
    assert len(opinion_by_score([*rows(), {"score": None, "mos": 0.5}, {"score": 0.5, "mos": None}])) == 8


def test_the_whole_part():
    html = fill("calibration.html", calibration=calibration_section(EVALUATION, rows()))
    for expected in (
        "−0.020<small>−0.050 to +0.010", "0.500", "0.910<small>0.900 to 0.920", "±0.212", "90.3%", "86.0% to 94.0%",
        "40 + 40", "Opinion by score", "Intervals from the spread", "spread of 4 answers",
    ):  # fmt: skip
        assert expected in html, expected
    # Points with half of the nominal coverage are below the diagonal.
    assert 'cx="251.8" cy="139.1"' in html


def test_nothing_measured_is_no_part():
    assert calibration_section({"stages": {"rapo": {"a/test": {"mean": {}}}}}, rows()) == []
    assert calibration_section({}, []) == []


def test_the_range_of_a_coverage_is_said_to_be_over_splits():
    """On the page and in the terminal, where every other range is a 95% interval over pictures."""
    page = " ".join(fill("calibration.html", calibration=calibration_section(EVALUATION, rows())).split())
    assert "<th>Held (range over splits)</th>" in page
    assert "is over random splits into halves, of which it holds 95%, and no interval over pictures" in page
    many = [{**row, "id": str(place), "mos_std": None} for place, row in enumerate(rows())]
    table = next(one for one in evaluation_tables(summarise(many, n_bootstrap=20)) if "calibration" in str(one.title))
    assert "its range over random splits, which is no interval over pictures" in table.caption
