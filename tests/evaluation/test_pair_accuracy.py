"""What is measured of comparisons, against numbers worked by hand and scipy's Wilson interval."""

import numpy as np
import pytest
from scipy.stats import binomtest

from aes_r1.evaluation.pair_accuracy import choice_accuracy, score_accuracy, share_with_interval, summarise_pairs

NAN = float("nan")


def rows_of(name, mos, choices):
    first, second = (f"{name}a", f"{name}b")
    return [
        {"id": name, "first": first, "second": second, "mos": mos, "choice": choices[0]},
        {"id": name, "first": second, "second": first, "mos": mos[::-1], "choice": choices[1]},
    ]


def test_a_choice_is_judged_in_the_order_that_was_shown():
    mos = np.array([[0.2, 0.7]] * 4)
    choices = np.array([[2.0, 1.0], [1.0, 1.0], [1.0, 2.0], [NAN, 1.0]])
    assert choice_accuracy(choices, mos).tolist() == [1.0, 0.5, 0.0, 0.5]


def test_equal_scores_are_half_right_and_missing_ones_wrong():
    mos = np.array([[0.2, 0.7]] * 4)
    scores = np.array([[0.1, 0.3], [0.4, 0.4], [0.9, 0.3], [NAN, 0.9]])
    assert score_accuracy(scores, mos).tolist() == [1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (3, 5), (5, 5), (61, 100)])
def test_the_interval_is_wilsons(successes, n):
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    found = share_with_interval([1.0] * successes + [0.0] * (n - successes))
    assert found == {"value": successes / n, "low": pytest.approx(expected.low), "high": pytest.approx(expected.high)}


def test_nothing_to_share():
    assert share_with_interval([]) == {"value": None, "low": None, "high": None}


def test_one_that_always_says_first_is_half_right_and_never_consistent():
    rows = [row for i in range(10) for row in rows_of(f"{i}", [0.2, 0.2 + 0.05 * (i + 1)], (1, 1))]
    found = summarise_pairs(rows, {}, n_bootstrap=20)
    assert found["accuracy"]["value"] == 0.5
    assert found["first_share"]["value"] == 1.0
    assert found["consistent"]["value"] == 0.0


def test_a_share_of_answers_is_over_answers_also_where_pairs_are_half_read():
    """Five pairs of which the first alone is readable, and says first, and five that say second twice: 5 of 15."""
    half = [row for i in range(5) for row in rows_of(f"h{i}", [0.2, 0.7], (1, None))]
    whole = [row for i in range(5) for row in rows_of(f"w{i}", [0.2, 0.7], (2, 2))]
    found = summarise_pairs([*half, *whole], {}, n_bootstrap=20)["first_share"]
    assert found["value"] == pytest.approx(5 / 15)
    assert found == pytest.approx(share_with_interval([1 / 3] * 10))  # the pairs are what the interval counts
    unread = [row for i in range(3) for row in rows_of(f"u{i}", [0.2, 0.7], (None, None))]
    assert summarise_pairs(unread, {}, n_bootstrap=20)["first_share"]["value"] is None


def test_the_whole_summary_by_hand():
    """Right in both orders, consistently wrong, unreadable in one, unreadable in both."""
    rows = [
        *rows_of("p", [0.2, 0.25], (2, 1)),
        *rows_of("q", [0.9, 0.6], (2, 1)),
        *rows_of("r", [0.1, 0.9], (2, None)),
        *rows_of("s", [0.5, 0.4], (None, None)),
    ]
    scores = {"pa": 0.3, "pb": 0.3, "qa": 0.8, "qb": 0.2, "ra": 0.4, "rb": None, "sa": 0.5, "sb": 0.1}
    found = summarise_pairs(rows, scores, n_bootstrap=50)
    assert found["n"] == 4
    assert found["unread_rate"] == 3 / 8
    assert found["accuracy"]["value"] == (1 + 0 + 0.5 + 0) / 4
    assert found["first_share"]["value"] == pytest.approx(2 / 5)
    assert found["consistent"]["value"] == 1.0
    assert found["by_scores"]["value"] == (0.5 + 1 + 0 + 1) / 4
    assert found["gain"]["value"] == (1.5 - 2.5) / 4
    parts = [(part["n"], part["accuracy"]["value"], part["by_scores"]["value"]) for part in found["by_difference"]]
    assert parts == [(2, 0.5, 0.75), (0, None, None), (1, 0.0, 1.0), (1, 0.5, 0.0)]


def test_no_pair_at_all():
    found = summarise_pairs([], {})
    assert (found["n"], found["unread_rate"], found["accuracy"]["value"], found["gain"]["value"]) == (
        0,
        None,
        None,
        None,
    )
