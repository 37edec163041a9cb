"""Means, spreads and numbers of raters that cannot be true together are refused, and all that can be are read."""

from __future__ import annotations

import os
import random
import statistics
from pathlib import Path

import pytest

from aes_r1.data.catalog import read_set
from aes_r1.data.contradictions import contradiction, vote_mean, vote_spread
from aes_r1.data.labels import folder_labels
from aes_r1.settings import InputError

SHARED = Path(os.environ.get("AES_R1_SHARED_DATA", "-"))
SCALES = [(0.0, 1.0), (1.0, 5.0), (1.0, 10.0), (0.0, 100.0)]


@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("decimals", [1, 2, 3, None])
@pytest.mark.slow
def test_all_opinions_that_can_be_given_are_read(scale, decimals):
    """With the spread of the sample or the population, and rounded: to 1 decimal where the scale is 4 or longer."""
    low, high = scale
    drawn = random.Random(f"{scale} {decimals}")
    for _ in range(500):
        levels = drawn.choice([2, 5, 10, 101])
        people = drawn.choice([1, 2, 3, 5, 20, 210])
        ends = drawn.random() < 0.5  # most rarely disagree with one end of the scale, at most with the other
        chosen = [(levels - 1) * (drawn.random() < 0.02) if ends else drawn.randrange(levels) for _ in range(people)]
        opinions = [low + (high - low) * level / (levels - 1) for level in chosen]
        votes = [chosen.count(level) for level in range(levels)]
        spreads = [statistics.pstdev(opinions), *([statistics.stdev(opinions)] if people > 1 else [])]
        for spread in spreads:
            mos = statistics.fmean(opinions)
            if decimals is not None and (decimals > 1 or high - low >= 4):
                mos, spread = round(mos, decimals), round(spread, decimals)
            for given in (votes, None):
                for raters in (people, None):
                    assert contradiction(mos, spread, raters, given, scale=scale, counts="x") is None


@pytest.mark.parametrize("name", ["avt_ai", "sophoappeal"])
@pytest.mark.slow
def test_what_was_published_does_not_contradict_itself(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"AES_R1_SHARED_DATA holds no {name}")
    for label in read_set(name, SHARED / name)[0]:
        votes = label.attributes.get("votes")
        assert contradiction(label.mos, label.mos_std, label.n_raters, votes, counts="x") is None


def test_mean_and_spread_of_votes_are_those_of_the_opinions():
    assert vote_mean([0, 1, 2, 1, 0], (1, 5)) == 3
    assert vote_spread([0, 1, 2, 1, 0], (1, 5)) == pytest.approx(statistics.stdev([2, 3, 3, 4]))
    assert vote_spread([0, 1, 0]) is None


def refusal(root: Path, columns: str, row: str, **options) -> str:
    (root / "labels.csv").write_text(f"image,mos,{columns}\na.jpg,{row}\n")
    with pytest.raises(InputError) as caught:
        folder_labels(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("columns", "row", "says"),
    [
        (
            "mos_std,n_raters",
            "1.0,0.9,20",
            "line 2: mos_std=0.9 is impossible: opinions from 0 to 1 by 20 raters whose mean is 1 spread by at most",
        ),
        ("mos_std", "0.02,0.4", "mos_std=0.4 is impossible: opinions from 0 to 1 whose mean is 0.02 spread by at most"),
        ("mos_std", "0.5,0.8", "mos_std=0.8 is impossible"),
        ("mos_std,n_raters", "0.5,0.55,200", "mos_std=0.55 is impossible"),
        ("mos_std,n_raters", "0.5,0.3,1", "mos_std=0.3 of n_raters=1: one opinion has no spread; leave one of the two"),
    ],
)
def test_a_spread_that_no_opinions_can_have_is_refused(columns, row, says, tmp_path):
    assert says in refusal(tmp_path, columns, row)


COUNTS = "count_1,count_2,count_3,count_4,count_5"


@pytest.mark.parametrize(
    ("columns", "row", "says"),
    [
        ("mos_std", "3,3.9,0,1,2,1,0", "mos_std=3.9, but that of its counts is 0.8165; mend the one that is wrong, or"),
        ("mos_std", "3,0.4,0,1,2,1,0", "mos_std=0.4, but that of its counts is 0.8165"),  # a standard error
        ("n_raters", "3,400,0,1,2,1,0", "n_raters=400, but its counts are of 4 raters; mend the one that is wrong, or"),
        ("n_raters", "4,,0,1,2,1,0", "mos=4, but the mean of its counts is 3; mend the one that is wrong, or take"),
    ],
)
def test_what_is_not_that_of_the_counts_is_refused(columns, row, says, tmp_path):
    assert says in refusal(tmp_path, f"{columns},{COUNTS}", row, scale=(1, 5))


@pytest.mark.parametrize("given", ["0.82,4", "0.71,4", "0.8,", ",4"])
def test_either_spread_of_the_counts_is_read(given, tmp_path):
    (tmp_path / "labels.csv").write_text(f"image,mos,mos_std,n_raters,{COUNTS}\na.jpg,3,{given},0,1,2,1,0\n")
    (label,) = folder_labels(tmp_path, (1, 5))
    assert label.attributes["votes"] == [0, 1, 2, 1, 0]
    assert label.n_raters == 4


@pytest.mark.parametrize("row", ["1.0,0,1", "0.3,0,1", "1.0,0.02,50", "0,0,", "0.5,0.5,", "0.5,0.7,2", "0.5,,1"])
def test_a_spread_at_its_end_is_read(row, tmp_path):
    (tmp_path / "labels.csv").write_text(f"image,mos,mos_std,n_raters\na.jpg,{row}\n")
    assert len(folder_labels(tmp_path)) == 1
