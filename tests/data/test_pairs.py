"""Pairs of pictures: drawn by seed, far enough apart, and neither place right more often."""

import numpy as np
import pytest

from aes_r1.data.pairs import Pair, draw_pairs, match_pairs, partners
from aes_r1.data.sample import Sample


def pictures(mos, dataset="own", split="train"):
    return [Sample(f"{i}", f"/{dataset}/{i}.png", one, dataset, split) for i, one in enumerate(mos)]


def drawn(count=60, seed=0):
    return draw_pairs(pictures(np.random.default_rng(3).random(count).tolist()), margin=0.2, seed=seed)


def test_a_pair_knows_its_better_picture_in_either_order():
    dull, fine = pictures([0.2, 0.7])
    pair = Pair(dull, fine)
    assert (pair.better, pair.turned().better) == (2, 1)
    assert pair.turned() == Pair(fine, dull)
    assert pair.id != pair.turned().id


def test_opinions_differ_by_the_margin_and_both_orders_come_equally_often():
    pairs = drawn()
    assert all(abs(pair.first.mos - pair.second.mos) >= 0.2 for pair in pairs)
    better = [pair.better for pair in pairs]
    assert abs(better.count(1) - better.count(2)) <= 1
    assert {one.id for pair in pairs for one in (pair.first, pair.second)} == {str(number) for number in range(60)}


def test_two_pictures_that_draw_each_other_are_one_pair():
    """Twice the same pair in a step would be asked with the same noise, and answered alike."""
    assert len(draw_pairs(pictures([0.1, 0.9]), margin=0.5, seed=0)) == 1
    pairs = drawn(count=9)
    assert len({frozenset((pair.first.id, pair.second.id)) for pair in pairs}) == len(pairs)


def test_pairs_are_drawn_by_the_seed():
    ids = [[pair.id for pair in drawn(seed=seed)] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_every_partner_that_is_far_enough_has_the_same_chance():
    """Of 0, .3, .5 and 1, the picture of .5 has partners at .2 or more below (2) and above (1)."""
    mos = np.array([0.0, 0.3, 0.5, 1.0])
    every = [int(partners(mos, 0.2, np.full(4, place))[2]) for place in (0.0, 0.4, 0.999)]
    assert every == [0, 1, 3]


@pytest.mark.parametrize(("mos", "margin"), [([0.5, 0.6], 0.1), ([0.29, 0.3], 0.01), ([0.7, 0.8], 0.1)])
def test_a_difference_of_exactly_the_margin_counts(mos, margin):
    """.6 - .5 is below .1 in floating point."""
    assert partners(np.array(mos), margin, np.zeros(2)).tolist() == [1, 0]


def test_no_partner_is_no_pair():
    assert partners(np.array([0.5, 0.5, 0.52]), 0.1, np.zeros(3)).tolist() == [-1, -1, -1]
    assert draw_pairs(pictures([0.5, 0.52, None]), margin=0.1, seed=0) == []


def test_pictures_of_two_sets_are_not_compared():
    """Two sets may mean other things by .5; a picture without an opinion is compared with none."""
    samples = [*pictures([0.1, 0.9, None]), *pictures([0.2, 0.8], "other")]
    for pairs in (draw_pairs(samples, margin=0.1, seed=0), match_pairs(samples, 1, 0)):
        assert {pair.dataset for pair in pairs} == {"own", "other"}
        for pair in pairs:
            assert pair.first.dataset == pair.second.dataset
            assert None not in (pair.first.mos, pair.second.mos)


def test_no_picture_stands_in_two_matched_pairs():
    samples = pictures(np.random.default_rng(3).random(41).tolist())
    pairs = match_pairs(samples, 100, seed=0)
    ids = [one.id for pair in pairs for one in (pair.first, pair.second)]
    assert len(pairs) == 20
    assert len(set(ids)) == len(ids)
    assert match_pairs(samples, 7, seed=0) == pairs[:7]
    assert match_pairs(pictures([0.5, 0.5]), 1, seed=0) == []  # neither is better
