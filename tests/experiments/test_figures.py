"""A study's figure shows the values, means, intervals, cold starts and differences of its result, and nothing else."""

from __future__ import annotations

import csv
import gzip

import matplotlib.pyplot as plt
import pytest

from experiments.answers import COLUMNS
from experiments.blocks import contrasts
from experiments.figures import WIDTH, draw, save, starts_of
from experiments.reading import over_seeds


def row_of(condition: str, *values: float | None) -> dict:
    return {
        "condition": condition,
        "set": "scenes/test",
        "n": 600,
        "srcc": {**over_seeds(values), "seeds": {str(seed): {"value": one} for seed, one in enumerate(values)}},
    }


def drawn(rows: list[dict], baseline: str | None = "a", **given):
    return draw(rows, **{"form": "one sample", "starts": {}, "people": {}, "baseline": baseline, **given})


def points(axis, color: str) -> list[list[tuple[float, float]]]:
    """The points of each line of an axis in a colour, without the caps of intervals."""
    lines = [line for line in axis.get_lines() if line.get_color() == color and line.get_marker() == "o"]
    return [[*zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True)] for line in lines]


def ends(axis) -> list[list[float]]:
    """The ends of the horizontal intervals of an axis."""
    bars = [bar for bar in axis.collections for bar in bar.get_segments() if bar[0][1] == bar[1][1]]
    return [sorted(float(x) for x, _ in bar) for bar in bars]


@pytest.mark.slow
def test_replicates_means_and_intervals_are_those_of_the_rows():
    rows = [row_of("a", 0.7, 0.72, 0.74), row_of("b", 0.75, 0.8, None)]
    left, right = drawn(rows).axes
    assert points(left, "#999999") == [[(0.7, 0), (0.75, 1)], [(0.72, 0), (0.8, 1)], [(0.74, 0)]]
    assert points(left, "#0072b2") == [[(pytest.approx(0.72), 0)], [(pytest.approx(0.775), 1)]]
    # Two replicates have one degree of freedom, and so no interval.
    assert ends(left) == [[pytest.approx(rows[0]["srcc"]["low"]), pytest.approx(rows[0]["srcc"]["high"])]]
    assert [text.get_text() for text in left.get_yticklabels()] == ["a", "b\n2 of 3 defined"]
    assert points(right, "#0072b2")[0] == [(0, 0)], "the baseline itself"
    assert right.get_xlabel() == "difference in SRCC to\na"
    plt.close("all")


@pytest.mark.slow
def test_differences_have_the_pooled_intervals_of_the_claims():
    rows = [row_of("a", 0.7, 0.72, 0.74), row_of("b", 0.75, 0.8, 0.78), row_of("c", 0.6, 0.61, 0.66)]
    found = contrasts({row["condition"]: {s: c["value"] for s, c in row["srcc"]["seeds"].items()} for row in rows}, "a")
    right = drawn(rows).axes[1]
    assert [one[0][0] for one in points(right, "#0072b2")[1:]] == [
        pytest.approx(found[name]["mean"]) for name in ("b", "c")
    ]
    assert ends(right) == [[pytest.approx(found[name]["low"]), pytest.approx(found[name]["high"])] for name in "bc"]
    plt.close("all")


def test_without_a_baseline_replicates_are_not_joined_and_nothing_is_subtracted():
    (axis,) = drawn([row_of("a", 0.7, 0.72), row_of("b", 0.75, 0.8)], baseline=None).axes
    assert {line.get_linestyle() for line in axis.get_lines() if line.get_color() == "#999999"} == {"None"}
    plt.close("all")


@pytest.mark.slow
def test_cold_starts_and_people_are_dashed_where_they_are_known(tmp_path):
    rows = [row_of("a", 0.7, 0.72), row_of("b", 0.75, 0.8)]
    figure = drawn(rows, starts={("b", "scenes/test"): 0.6}, people={"scenes/test": 0.97})
    left = figure.axes[0]
    upright = [bar for bars in left.collections for bar in bars.get_segments() if bar[0][0] == bar[1][0]]
    assert [[float(x) for x, _ in bar] for bar in upright] == [[0.6, 0.6]]
    assert [float(y) for _, y in upright[0]] == [0.55, 1.45]
    assert [line.get_xdata()[0] for line in left.get_lines() if line.get_color() == "#009e73"] == [0.97]
    assert float(figure.get_figwidth()) == pytest.approx(WIDTH)
    save(figure, tmp_path)
    text = (tmp_path / "figure.svg").read_text()
    assert all(f"<!-- {word} -->" in text for word in ("cold start", "a seed", "half of the people with the other"))
    assert plt.get_fignums() == []


def test_cold_starts_come_from_the_answers_and_count_the_unreadable_as_the_mean(tmp_path):
    mos = {"p": 0.1, "q": 0.5, "r": 0.9}
    answers = {
        ("a", "0", "cold_start", "mean"): (0.2, 0.4, 0.6),  # SRCC 1
        ("a", "1", "cold_start", "mean"): (0.6, None, 0.2),  # the mean of the others stands in the middle: SRCC -1
        ("a", "2", "cold_start", "mean"): (0.3, 0.3, 0.3),  # a constant has none
        ("a", "0", "cold_start", "greedy"): (0.6, 0.4, 0.2),
        ("a", "0", "rapo", "mean"): (0.6, 0.4, 0.2),
        ("b", "0", "cold_start", "mean"): (0.4, 0.2, 0.6),  # 1 - 6 * (1 + 1) / (3 * 8) = .5
    }
    with gzip.open(tmp_path / "answers.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (condition, seed, stage, protocol), scores in answers.items():
            for (name, opinion), score in zip(mos.items(), scores, strict=True):
                row = [condition, seed, stage, "scenes/test", protocol, name, opinion, "" if score is None else score]
                writer.writerow(row)
    found = starts_of(tmp_path / "answers.csv.gz", "mean")
    assert found == {("a", "scenes/test"): pytest.approx(0.0), ("b", "scenes/test"): pytest.approx(0.5)}
    assert starts_of(tmp_path / "none.csv.gz", "mean") == {}
