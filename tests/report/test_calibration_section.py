"""Calibration and intervals on the page."""

import pytest

from aes_r1.evaluation.summary import summarise
from aes_r1.report.calibration_section import _answered, calibration_section, opinion_by_score
from aes_r1.report.html import render
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
    points = opinion_by_score(_answered(rows()))
    assert len(points) == 8
    assert points[0] == (pytest.approx(0.045), pytest.approx(0.2225))  # the ten lowest: scores 0 .. .09
    assert points == sorted(points)
    assert opinion_by_score(_answered(rows()[:4])) == []
    unanswered = [{"score": None, "mos": 0.5}, {"score": 0.5, "mos": None}]
    assert _answered([*rows(), *unanswered]) == _answered(rows())


@pytest.mark.parametrize(
    ("pictures", "groups", "said"),
    [
        (80, 8, "score of 8 equal groups of pictures. Vertical axis: their mean opinion."),
        (23, 4, "score of 4 equal groups of pictures. Vertical axis: their mean opinion."),
        (15, 3, "score of 3 equal groups of pictures. Vertical axis: their mean opinion."),
        (12, 0, "Too few answered pictures for 3 groups of 5: RAPO 12."),
        (1, 0, "Too few answered pictures for 3 groups of 5: RAPO 1."),
    ],
)
def test_as_many_groups_are_named_as_are_drawn(pictures, groups, said):
    (section,) = calibration_section(EVALUATION, rows()[:pictures])
    figure = section["charts"][0]
    assert (figure.title, figure.chart.count("<circle")) == ("Opinion by score", groups)
    assert figure.caption.endswith(said)
    html = render("calibration.html", calibration=[section])
    assert said in html
    assert '<p class="note"></p>' not in html


def test_models_with_other_numbers_of_answers_are_told_apart():
    cells = EVALUATION["stages"]["rapo"]
    stages = {"stages": {"base": cells, "cold_start": cells, "rapo": cells}}
    given = [*rows("base")[:7], *rows("cold_start")[:20], *rows()]
    (section,) = calibration_section(stages, given)
    assert section["charts"][0].caption == (
        "Horizontal axis: score of 4 to 8 equal groups of pictures. Vertical axis: their mean opinion. "
        "Too few answered pictures for 3 groups of 5: Base model 7."
    )
    (silent,) = calibration_section(EVALUATION, [{**row, "score": None} for row in rows()])
    assert [figure.title for figure in silent["charts"]] == ["Intervals from the spread"], "no answer is no figure"


def test_the_whole_part():
    html = render("calibration.html", calibration=calibration_section(EVALUATION, rows()))
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
    page = " ".join(render("calibration.html", calibration=calibration_section(EVALUATION, rows())).split())
    assert "<th>Held (range over splits)</th>" in page
    assert "is over random splits into halves, of which it holds 95%, and no interval over pictures" in page
    many = [{**row, "id": str(place), "mos_std": None} for place, row in enumerate(rows())]
    table = next(one for one in evaluation_tables(summarise(many, n_bootstrap=20)) if "calibration" in str(one.title))
    assert "its range over random splits, which is no interval over pictures" in table.caption
