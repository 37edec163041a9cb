"""The ceiling: another group of people, or halves of the raters, with the right means and the right correction."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aes_r1.data.sample import Sample
from aes_r1.inference.people import Agreement, agreement_of_people, mean_vote, whole_group


def voted(votes: list[int], **others: list[int]) -> Sample:
    more = {"other_votes": others} if others else {}
    return Sample(str(votes), "p.png", mean_vote(votes), "made", "test", attributes={"votes": votes, **more})


def agreement(samples: list[Sample], seed: int = 0) -> Agreement | None:
    return agreement_of_people(samples, seed=seed).get("made/test")


def spread(name: str, mos: float, std: float | None, raters: int | None, **attributes: Any) -> Sample:
    return Sample(name, "p.png", mos, "made", "test", std, raters, attributes)


def test_a_vote_is_where_its_value_lies_on_the_scale():
    assert mean_vote([2, 0, 0, 0, 2]) == 0.5
    assert mean_vote([0, 0, 0, 0, 3]) == 1
    assert mean_vote([0, 1, 0, 0, 0, 0, 0, 0, 0, 0]) == pytest.approx(1 / 9)  # a 2 on the scale 1..10


def test_the_group_that_rated_most_is_compared_with_the_opinions():
    samples = [
        voted([4, 0, 0, 0, 0], lab=[0, 0, 0, 0, 2]),
        voted([0, 0, 4, 0, 0], lab=[1, 0, 0, 0, 0], university=[0, 2, 0, 0, 0]),
        voted([0, 0, 0, 0, 4], university=[0, 0, 0, 2, 0], lab=[0, 0, 1, 0, 0]),
    ]
    found = agreement(samples)
    assert (found.how, found.facts) == ("other_group", {"group": "lab"})
    assert [(score, mos) for _, score, mos in found.pairs] == [(1, 0), (0, 0.5), (0.5, 1)]


def test_halves_hold_every_rater_once():
    votes = [[3, 1, 0, 2, 1], [0, 0, 0, 0, 2], [1, 0, 0, 0, 0], [0, 5, 0, 6, 0]]
    found = agreement([voted(one) for one in votes])
    assert found.how == "halves"
    assert [name for name, _, _ in found.pairs] == [str(votes[place]) for place in (0, 1, 3)]
    assert found.facts == {"raters": pytest.approx((7 + 2 + 11) / 3)}
    for name, one, other in found.pairs:
        asked = json.loads(name)
        count = sum(asked)
        assert (one * (count // 2) + other * (count - count // 2)) / count == pytest.approx(mean_vote(asked))


def test_halves_agree_as_the_raters_do():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.1, 0.9, 400)
    asked = [rng.multinomial(26, [1 - p, p]) for p in truth]  # a single yes or no of 26 people
    found = agreement([voted(one.tolist()) for one in asked], seed=1)
    one, other = np.asarray([pair[1:] for pair in found.pairs]).T
    noise = (truth * (1 - truth)).mean() / 13
    expected = truth.var() / (truth.var() + noise)
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(expected, abs=0.02)
    whole = truth.var() / (truth.var() + noise / 2)
    assert whole_group({"value": expected})["value"] == pytest.approx(whole)
    assert whole_group({"value": 0.8, "low": None, "high": 1.0}) == {"value": 1.6 / 1.8, "low": None, "high": 1.0}


def test_halves_that_contradict_each_other_have_no_whole_group():
    """As those of a few pictures do, of which each person of a pair likes one."""
    found = whole_group({"value": -0.5, "low": -1.0, "high": np.float64(-1)})
    assert found == {"value": -2.0, "low": None, "high": None}


def test_halves_are_drawn_where_only_the_spread_is_known():
    """Of 2 raters each half is one: m + e and m - e, of variance s^2 / 2. Of 3 they are m + e and m - e / 2."""
    samples = [spread(str(index), 0.5, 0.2, raters) for raters in (2, 3) for index in range(4000)]
    found = agreement(samples)
    assert (found.how, found.facts) == ("spread", {"raters": 2.5})
    one, other = np.asarray([pair[1:] for pair in found.pairs]).T - 0.5
    assert other[:4000] == pytest.approx(-one[:4000])
    assert other[4000:] == pytest.approx(-one[4000:] / 2)
    # s^2 / h (1 - h / n): .04 (1 - 1/2) = .02 and .04 (1 - 1/3) = .02667
    assert one[:4000].var() == pytest.approx(0.02, rel=0.07)
    assert one[4000:].var() == pytest.approx(0.02667, rel=0.07)


def test_the_spread_gives_the_ceiling_of_the_votes():
    """Of the same raters, seen as counts or as mean, standard deviation and number."""
    rng = np.random.default_rng(0)
    asked = [rng.multinomial(20, rng.dirichlet([2] * 5)).tolist() for _ in range(3000)]
    by_votes = [voted(one) for one in asked]
    by_spread = []
    for index, one in enumerate(asked):
        opinions = np.repeat(np.linspace(0, 1, 5), one)
        by_spread.append(spread(str(index), opinions.mean(), opinions.std(ddof=1), 20))
    agreed = {}
    for how, samples in {"halves": by_votes, "spread": by_spread}.items():
        found = agreement(samples)
        assert found.how == how
        one, other = np.asarray([pair[1:] for pair in found.pairs]).T
        agreed[how] = np.corrcoef(one, other)[0, 1]
    assert agreed["spread"] == pytest.approx(agreed["halves"], abs=0.02)


def test_raters_without_a_spread_agree_entirely():
    found = agreement([spread(str(index), index / 4, 0.0, 5) for index in range(5)])
    assert [pair[1:] for pair in found.pairs] == [(index / 4, index / 4) for index in range(5)]


def test_votes_come_before_a_spread_and_are_divided_alike_beside_it():
    votes = [[3, 1, 0, 2, 1], [0, 5, 0, 6, 0]]
    alone = agreement([voted(one) for one in votes])
    mixed = agreement([spread("a", 0.5, 0.2, 9), voted(votes[0]), spread("b", 0.5, 0.2, 9), voted(votes[1])])
    assert mixed == alone


def test_every_set_of_a_mix_has_its_own_agreement():
    votes = [[3, 1, 0, 2, 1], [0, 5, 0, 6, 0], [1, 1, 4, 0, 0]]
    first = [voted(one) for one in votes]
    second = [replace(spread(str(index), 0.5, 0.2, 9), dataset="other") for index in range(2)]
    unknown = [Sample("a", "a.png", 0.5, "third", "test")]
    found = agreement_of_people([first[0], *second, *unknown, *first[1:]], seed=3)
    assert list(found) == ["made/test", "other/test"]
    assert found["made/test"] == agreement(first, seed=3)
    assert found["other/test"].how == "spread"


@pytest.mark.parametrize(
    "sample",
    [
        Sample("a", "a.png", 0.5, "made", "test"),
        voted([1, 0]),  # one rater has no other half
        replace(voted([1, 0], lab=[0, 1]), mos=None),  # nor has another group an opinion to agree with
        spread("a", 0.5, 0.1, None),
        spread("a", 0.5, None, 9),
        spread("a", 0.5, 0.1, 1),
        replace(voted([1, 0]), mos_std=0.1, n_raters=9),  # one vote is known, so there is no second rater
    ],
)
def test_without_single_opinions_or_their_spread_there_is_no_ceiling(sample):
    assert agreement([sample]) is None
