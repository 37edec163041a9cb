"""Rows become columns: of rows with one id the last counts, at the place of the first."""

import numpy as np

from aes_r1.evaluation.columns import columns_of, shared


def row(identity, score, **more):
    given = {"stage": "rapo", "protocol": "greedy", "dataset": "made", "split": "test", "mos": 0.5}
    return {**given, "id": identity, "score": score, **more}


def test_the_last_row_of_an_id_counts_where_the_first_stood():
    result = columns_of([row("a", 0.1), row("b", 0.2), row("a", 0.9), row("c", None), row("d", 0.4, mos=None)])
    column = result["rapo", "made/test", "greedy"]
    np.testing.assert_array_equal(column.scores, [0.9, 0.2, np.nan])
    np.testing.assert_array_equal(column.count, [1, 1, 0])
    assert (column.outputs, column.out_of_range) == (3, 0)


def test_what_else_is_known():
    rows = [
        row("a", 0.4, scores=[0.3, 0.5, None], out_of_range=1, mos_std=0.2, origin="ai"),
        row("b", None, scores=[None] * 3, out_of_range=2, origin="photograph"),
    ]
    column = columns_of(rows)["rapo", "made/test", "greedy"]
    np.testing.assert_allclose(column.std, [np.std([0.3, 0.5], ddof=1), np.nan])
    np.testing.assert_array_equal(column.mos_std, [0.2, np.nan])
    assert (column.outputs, column.out_of_range, column.origins.tolist()) == (6, 3, [1, 0])


def test_shared_pictures_in_the_order_of_the_later():
    before, after = (
        columns_of([row(one, 0.1) for one in ids])["rapo", "made/test", "greedy"] for ids in ("xabcy", "cqab")
    )
    in_before, in_after = shared(before, after)
    assert in_before.tolist() == [3, 1, 2]
    assert in_after.tolist() == [0, 2, 3]
    assert (before.ids[in_before] == after.ids[in_after]).all()


def test_sub_scores_stand_beside_their_ratings():
    rows = [
        row("a", 0.4, sub_scores={"color": 0.3, "exposure": None}, ratings={"color": 0.2, "exposure": 0.9}),
        row("b", 0.5, sub_scores={"color": 0.6, "exposure": 0.7}, ratings={"color": None, "exposure": 0.8}),
        row("a", 0.4, sub_scores={"color": 0.1, "exposure": None}, ratings={"color": 0.2, "exposure": 0.9}),
        row("c", 0.4),
    ]
    column = columns_of(rows)["rapo", "made/test", "greedy"]
    assert list(column.sub_scores) == ["color", "exposure"]
    np.testing.assert_array_equal(column.sub_scores["color"], [[0.1, 0.2], [0.6, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(column.sub_scores["exposure"], [[np.nan, 0.9], [0.7, 0.8], [np.nan, np.nan]])
    assert columns_of([row("a", 0.1)])["rapo", "made/test", "greedy"].sub_scores == {}
