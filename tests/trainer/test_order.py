import itertools
import math

from aes_r1.trainer.order import batch_indices, batch_indices_without_repeats, further_indices, least_first


def test_every_sample_once_per_epoch_and_every_step_full():
    taken = [index for step in range(30) for index in batch_indices(step, per_step=4, count=12, seed=3)]
    epochs = [taken[start : start + 12] for start in range(0, 120, 12)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 10


def test_steps_run_on_across_epochs():
    taken = [batch_indices(step, per_step=5, count=7, seed=0) for step in range(7)]
    assert all(len(step) == 5 for step in taken)
    flat = [index for step in taken for index in step]
    assert all(sorted(flat[start : start + 7]) == list(range(7)) for start in range(0, 35, 7))


def test_a_step_larger_than_the_set_wraps():
    assert sorted(batch_indices(0, per_step=6, count=3, seed=0)) == [0, 0, 1, 1, 2, 2]


def test_seed_decides():
    first = batch_indices(2, per_step=4, count=50, seed=0)
    assert first == batch_indices(2, per_step=4, count=50, seed=0)
    assert first != batch_indices(2, per_step=4, count=50, seed=1)


def test_no_sample_twice_in_a_step_and_each_epoch_leaves_out_others():
    steps = [batch_indices_without_repeats(step, per_step=5, count=13, seed=0) for step in range(40)]
    assert all(len(set(step)) == 5 for step in steps)
    epochs = [set(steps[start] + steps[start + 1]) for start in range(0, 40, 2)]
    assert all(len(epoch) == 10 for epoch in epochs)
    assert set().union(*epochs) == set(range(13))
    assert len({frozenset(epoch) for epoch in epochs}) > 10


def test_further_indices_are_new_and_the_same_again():
    used = {1, 5, 7}
    drawn = further_indices(3, 0, wanted=4, used=used, count=12, seed=9)
    assert drawn == further_indices(3, 0, wanted=4, used=used, count=12, seed=9)
    assert len(set(drawn)) == 4
    assert not used & set(drawn)
    assert drawn != further_indices(3, 1, wanted=4, used=used, count=12, seed=9)
    assert sorted(further_indices(0, 0, wanted=99, used=used, count=9, seed=0)) == [0, 2, 3, 4, 6, 8]


def test_the_least_difficult_quarter_comes_first_and_the_indices_stay_the_same():
    difficulty = [(7 * index) % 40 for index in range(40)]
    plain = [index for step in range(4) for index in batch_indices_without_repeats(step, per_step=5, count=40, seed=3)]
    first = least_first(difficulty, pool=["one"] * 40, shown=20, seed=3)
    assert sorted(first) == sorted(plain)
    quarters = [first[start : start + 5] for start in range(0, 20, 5)]
    for easier, harder in itertools.pairwise(quarters):
        assert max(difficulty[index] for index in easier) < min(difficulty[index] for index in harder)
    for quarter in quarters:
        assert quarter == [index for index in plain if index in quarter], "as they were drawn"


def test_every_quarter_keeps_the_shares_of_the_pools():
    """Two sets with spreads of other sizes and one without any: none of them comes first or last."""
    pool = ["narrow"] * 40 + ["wide"] * 40 + ["unknown"] * 80
    difficulty = [index / 1000 for index in range(40)] + [index / 10 for index in range(40)] + [math.inf] * 80
    first = least_first(difficulty, pool=pool, shown=160, seed=7)
    assert sorted(first) == list(range(160))
    quarters = [first[start : start + 40] for start in range(0, 160, 40)]
    for number, quarter in enumerate(quarters):
        assert [sum(pool[index] == name for index in quarter) for name in ("narrow", "wide", "unknown")] == [10, 10, 20]
        known = [index % 40 for index in quarter if pool[index] != "unknown"]
        assert set(known) == set(range(10 * number, 10 * number + 10))


def test_equal_difficulty_keeps_the_drawn_order():
    plain = [index for step in range(3) for index in batch_indices_without_repeats(step, per_step=4, count=12, seed=1)]
    assert least_first([0.5] * 12, pool=["one"] * 12, shown=12, seed=1) == plain


def test_a_given_first_pass_is_followed_by_drawn_ones():
    given = list(range(11, -1, -1))
    how = {"per_step": 4, "count": 12, "seed": 1}
    assert batch_indices_without_repeats(1, **how, first_pass=given) == [7, 6, 5, 4]
    assert batch_indices_without_repeats(3, **how, first_pass=given) == batch_indices_without_repeats(3, **how)
