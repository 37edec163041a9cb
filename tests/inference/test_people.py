"""The ceiling: another group of people, or halves of the raters, with the right means and the right correction."""

from dataclasses import replace

import numpy as np
import pytest

from aes_r1.data.sample import Sample
from aes_r1.inference.people import agreement_of_people, mean_vote, whole_group


def voted(votes: list[int], **others: list[int]) -> Sample:
    more = {"other_votes": others} if others else {}
    return Sample(str(votes), "p.png", mean_vote(votes), "made", "test", attributes={"votes": votes, **more})


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
    found = agreement_of_people(samples)
    assert (found.how, found.facts) == ("other_group", {"group": "lab"})
    assert [(score, mos) for _, score, mos in found.pairs] == [(1, 0), (0, 0.5), (0.5, 1)]


def test_halves_hold_every_rater_once():
    votes = [[3, 1, 0, 2, 1], [0, 0, 0, 0, 2], [1, 0, 0, 0, 0], [0, 5, 0, 6, 0]]
    found = agreement_of_people([voted(one) for one in votes])
    assert found.how == "halves"
    assert [sample.attributes["votes"] for sample, _, _ in found.pairs] == [votes[0], votes[1], votes[3]]
    assert found.facts == {"raters": pytest.approx((7 + 2 + 11) / 3)}
    for sample, one, other in found.pairs:
        count = sum(sample.attributes["votes"])
        assert (one * (count // 2) + other * (count - count // 2)) / count == pytest.approx(sample.mos)


def test_halves_agree_as_the_raters_do():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.1, 0.9, 400)
    asked = [rng.multinomial(26, [1 - p, p]) for p in truth]  # a single yes or no of 26 people
    found = agreement_of_people([voted(one.tolist()) for one in asked], seed=1)
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


def test_without_votes_there_is_no_ceiling():
    assert agreement_of_people([Sample("a", "a.png", 0.5, "made", "test")]) is None
    assert agreement_of_people([voted([1, 0])]) is None  # one rater has no other half
    unrated = replace(voted([1, 0], lab=[0, 1]), mos=None)
    assert agreement_of_people([unrated]) is None  # nor has another group an opinion to agree with
