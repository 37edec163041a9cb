from __future__ import annotations

import math

import numpy as np
import pytest

from aes_r1.data.catalog import CATALOG
from aes_r1.data.scale import too_wide
from aes_r1.data.scene_sets import SCENE_SETS

NARROW = np.linspace(0, 0.09, 30)  # 1..10 on a scale from 1 to 100, about


def test_the_warning_names_lowest_and_highest_opinion_and_the_scale():
    said = too_wide("folder", [(mos - 1) / 99 for mos in (1, 5, 10)] * 10, [1, 100])
    assert said is not None
    assert "folder: the opinions of 30 pictures lie between 1 and 10, " in said
    assert "the scale [1, 100]; " in said


@pytest.mark.parametrize("settable", [True, False])
def test_the_warning_names_data_scale_only_where_it_may_be_given(settable):
    said = too_wide("folder", NARROW, None, settable=settable)
    assert said is not None
    assert ("train again with its ends as data.scale" in said) is settable
    assert ("write (x - low) / (high - low) of its ends as mos, or make the file anew" in said) is not settable


@pytest.mark.parametrize(
    ("opinions", "warns"),
    [
        (NARROW, True),
        (NARROW[:19], False),  # too few to tell
        ([*NARROW[:19], None, math.nan], False),  # pictures without an opinion say nothing
        ([*NARROW, None, math.nan], True),
        (1 - NARROW, True),
        (0.3 + NARROW, True),
        (np.linspace(0.3, 0.56, 30), False),
        ([0.5] * 30, True),
        ([], False),
    ],
)
def test_only_many_opinions_in_a_small_part_of_the_scale_are_warned_of(opinions, warns):
    assert (too_wide("folder", opinions, None) is not None) is warns


def test_known_scales_are_not_doubted():
    """Those of made scenes and of published sets; the ends of three sets of the catalog are the user's."""
    doubted = {name for name in (*CATALOG, *SCENE_SETS) if too_wide(name, NARROW, None) is not None}
    assert doubted == {"folder", "artimuse10k", "pipal"}
