"""Kinds of values that the files of a run hold."""

from __future__ import annotations

import math

import pytest

from aes_r1.runs.kinds import is_number


@pytest.mark.parametrize("value", [10**400, True, math.inf, "1", None])
def test_what_is_no_finite_number_is_none(value):
    assert not is_number(value)
    assert is_number(10**300)
