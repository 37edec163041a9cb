from collections import Counter

import pytest

from aes_r1.aescot.quotas import ANY, QuotaSampler, read_quotas
from aes_r1.data.sample import Sample
from aes_r1.prompts import level_of
from aes_r1.settings import InputError


def samples(dataset, count):
    return [Sample(f"{dataset}{i}", f"{i}.png", (i % 100) / 100, dataset, "train") for i in range(count)]


def test_quotas_are_read_per_level_or_per_data_set():
    assert read_quotas({"bad": 3, "good": 2}) == {(ANY, "bad"): 3, (ANY, "good"): 2}
    assert read_quotas({"ava": {"fair": 1}}) == {("ava", "fair"): 1}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"great": 1}, "quotas.great"),
        ({"bad": -1}, "quotas.bad=-1"),
        ({"bad": 1.5}, "quotas.bad=1.5"),
        ({"ava": {"superb": 1}}, "quotas.ava.superb"),
        ({"bad": 1, "ava": {"bad": 1}}, "not both"),
    ],
)
def test_wrong_quotas_are_named(given, said):
    with pytest.raises(InputError, match=said):
        read_quotas(given)


def test_without_quotas_every_picture_comes_once_in_order():
    pictures = samples("ava", 7)
    draw = QuotaSampler(pictures, {}, seed=0)
    assert draw.next_round() == pictures
    assert draw.next_round() == []


def test_a_picture_that_is_left_out_moves_no_other_one():
    pictures, quotas = samples("ava", 200), read_quotas({"bad": 10, "good": 10})
    whole = QuotaSampler(pictures, quotas, seed=0).next_round()
    rest = [sample for sample in pictures if sample != whole[3]]
    drawn = QuotaSampler(rest, quotas, seed=0, listed=pictures).next_round()
    assert len(drawn) == len(whole)
    assert [sample for sample in whole if sample not in drawn] == [whole[3]]


def run(draw, keeps):
    asked = []
    while drawn := draw.next_round():
        for sample in drawn:
            asked.append(sample)
            if keeps(sample):
                draw.keep(sample)
    return asked


def test_rounds_fill_every_cell_exactly_and_ask_no_more_than_needed():
    pictures = [*samples("ava", 300), *samples("tad66k", 300)]
    quotas = read_quotas({"ava": {"bad": 30, "good": 20}, "tad66k": {"fair": 25}})
    draw = QuotaSampler(pictures, quotas, seed=1)

    def keeps(sample: Sample) -> bool:
        return int(sample.image.removesuffix(".png")) % 3 > 0

    asked = run(draw, keeps)
    kept = Counter((sample.dataset, level_of(sample.mos)) for sample in asked if keeps(sample))
    assert kept == {("ava", "bad"): 30, ("ava", "good"): 20, ("tad66k", "fair"): 25}
    assert len({(sample.dataset, sample.id) for sample in asked}) == len(asked) < 130
    assert draw.shortfalls() == {}


def test_an_empty_pool_is_said_with_numbers():
    draw = QuotaSampler(samples("ava", 100), read_quotas({"bad": 10, "good": 1000}), seed=0)
    run(draw, lambda sample: True)
    assert draw.shortfalls() == {"good": {"wanted": 1000, "kept": 30}}


def test_the_draw_follows_the_seed():
    quotas = read_quotas({"bad": 5})
    first, again, other = (QuotaSampler(samples("ava", 200), quotas, seed=seed).next_round() for seed in (0, 0, 1))
    assert first == again != other
