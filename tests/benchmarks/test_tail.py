"""Shares of a step against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tail import drawn, redrawn, tail


def test_two_gpus_by_hand():
    """Ten answers each. The first GPU's take 10 tokens, one 30; the second's 10, one 50: mean 13, longest 50.

    Decoding the mean is half of a step, so the rest is worth 13 tokens and the step 63. The first GPU waits 20 of them;
    nine tenths have ended at 10, so the last answers run for 20 and 40.
    """
    lengths = np.array([[[10.0] * 9 + [30.0], [10.0] * 9 + [50.0]]])
    found = tail(lengths, 0.5)
    assert (found.mean, found.longest) == (13.0, 50.0)
    assert found.alone == pytest.approx((20 / 63 + 0) / 2)
    assert found.last_tenth == pytest.approx((20 / 63 + 40 / 63) / 2)
    assert found.step_without == pytest.approx(26 / 63)


def test_equal_lengths_cost_nothing():
    found = tail(np.full((3, 2, 8), 40.0), 0.3)
    assert (found.alone, found.last_tenth, found.step_without) == (0.0, 0.0, 1.0)


def test_less_decoding_has_less_to_wait_for():
    lengths = drawn(200, 0.5, 1024, 8, steps=50)
    assert tail(lengths, 0.2).alone < tail(lengths, 0.6).alone


def test_draws():
    lengths = drawn(200, 0.35, 1024, 2, steps=400)
    assert lengths.shape == (400, 2, 64)
    assert np.median(lengths) == pytest.approx(200, abs=2)
    assert lengths.max() <= 1024
    assert set(np.unique(redrawn([3, 5], 2, steps=9))) == {3.0, 5.0}
