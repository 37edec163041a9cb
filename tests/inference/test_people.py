"""How far people agree: another group of people, or halves of the raters, with the right means and correction."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from aes_r1.data.sample import Sample
from aes_r1.inference.people import RaterAgreement, has_rater_agreement, mean_vote, rater_agreement, whole_group


def voted(votes: list[int], **others: list[int]) -> Sample:
    more = {"other_votes": others} if others else {}
    return Sample(str(votes), "p.png", mean_vote(votes), "made", "test", attributes={"votes": votes, **more})


def agreement(samples: list[Sample], seed: int = 0) -> RaterAgreement | None:
    return rater_agreement(samples, seed=seed).get("made/test")


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
    found = agreement([replace(voted(one.tolist()), id=str(index)) for index, one in enumerate(asked)], seed=1)
    one, other = np.asarray([pair[1:] for pair in found.pairs]).T
    noise = (truth * (1 - truth)).mean() / 13
    expected = truth.var() / (truth.var() + noise)
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(expected, abs=0.02)
    whole = truth.var() / (truth.var() + noise / 2)
    assert whole_group({"value": expected})["value"] == pytest.approx(whole)
    assert whole_group({"value": 0.8, "low": None, "high": 1.0}) == {"value": 1.6 / 1.8, "low": None, "high": 1.0}


def test_the_whole_groups_of_halves_that_contradict_each_other_agree_in_nothing():
    """As those of a few pictures do, of which each person of a pair likes one."""
    found = whole_group({"value": -0.5, "low": -1.0, "high": np.float64(0.5)})
    assert found == {"value": 0, "low": 0, "high": pytest.approx(2 / 3)}
    for r in (-1.0, -0.96, -1e-9, 0.0, 0.3, 1.0):
        assert 0 <= whole_group({"value": r})["value"] <= 1


@pytest.mark.slow
def test_halves_are_drawn_where_only_the_spread_is_known():
    """Of 10 raters each half is 5: m + e and m - e. Of 11 they are 5 and 6: m + e and m - e 5 / 6."""
    samples = [spread(f"{index} of {raters}", 0.5, 0.2, raters) for raters in (10, 11) for index in range(4000)]
    found = agreement(samples)
    assert (found.how, found.facts) == ("spread", {"raters": 10.5})
    one, other = np.asarray([pair[1:] for pair in found.pairs]).T - 0.5
    assert other[:4000] == pytest.approx(-one[:4000])
    assert other[4000:] == pytest.approx(-one[4000:] * 5 / 6)
    # s^2 / h (1 - h / n): .04 / 5 (1 - 5/10) = .004 and .04 / 5 (1 - 5/11) = .004364
    assert one[:4000].var() == pytest.approx(0.004, rel=0.07)
    assert one[4000:].var() == pytest.approx(0.004364, rel=0.07)


def asked_of(raters: int, pictures: int = 6000) -> tuple[list[Sample], list[Sample]]:
    """Return pictures that many people like, with votes 1..5 and without, which know mean, deviation and number."""
    rng = np.random.default_rng(0)
    values = np.linspace(0, 1, 5)
    near = np.exp(-0.5 * ((values - rng.beta(6, 2, pictures)[:, None]) / 0.25) ** 2)
    asked = [rng.multinomial(raters, one / one.sum()) for one in near]
    opinions = [np.repeat(values, one) for one in asked]
    by_votes = [replace(voted(one.tolist()), id=str(index)) for index, one in enumerate(asked)]
    by_spread = [spread(str(index), one.mean(), one.std(ddof=1), raters) for index, one in enumerate(opinions)]
    return by_votes, by_spread


@pytest.mark.slow
def test_the_spread_ranks_as_the_votes_do():
    """Of the fewest raters whose halves are drawn, in a set whose pictures lie near one end of the scale."""
    ranked = {}
    for how, samples in zip(("halves", "spread"), asked_of(10), strict=True):
        found = agreement(samples)
        assert found.how == how
        ranked[how] = whole_group({"value": stats.spearmanr(*zip(*(pair[1:] for pair in found.pairs), strict=True))[0]})
    assert ranked["spread"]["value"] == pytest.approx(ranked["halves"]["value"], abs=0.02)


@pytest.mark.parametrize("raters", [2, 3, 9])
def test_the_halves_of_few_raters_are_not_drawn(raters):
    """Normal opinions rank pictures better than so few do."""
    by_votes, by_spread = asked_of(raters, 30)
    assert agreement(by_votes).how == "halves"
    assert agreement(by_spread) is None
    mixed = agreement([*by_spread, spread("more", 0.5, 0.1, 10)])
    assert [pair[0] for pair in mixed.pairs] == ["more"]


@pytest.mark.slow
def test_the_spread_gives_the_agreement_of_the_votes():
    """Of the same raters, seen as counts or as mean, standard deviation and number."""
    rng = np.random.default_rng(0)
    asked = [rng.multinomial(20, rng.dirichlet([2] * 5)).tolist() for _ in range(3000)]
    by_votes = [replace(voted(one), id=str(index)) for index, one in enumerate(asked)]
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


def test_raters_who_never_differ_tell_nothing():
    """Where every standard deviation is 0, it was not measured. One that is not shows the others to be."""
    same = [spread(str(index), index / 30, 0.0, 15) for index in range(29)]
    assert agreement(same) is None
    assert not has_rater_agreement(same)
    found = agreement([*same, spread("29", 29 / 30, 0.1, 15)])
    assert [pair[1:] for pair in found.pairs[:29]] == [(index / 30, index / 30) for index in range(29)]


def test_a_set_gets_the_way_that_covers_most_of_its_pictures():
    rng = np.random.default_rng(2)
    votes = [replace(voted(rng.multinomial(9, [1 / 3] * 3).tolist()), id=f"v{index}") for index in range(4)]
    known = [spread(f"s{index}", 0.5, 0.2, 15) for index in range(5)]
    lab = [replace(voted([0, 2, 1], lab=[1, 0, 1]), id=f"g{index}") for index in range(3)]
    unvoted = [replace(one, attributes={"other_votes": {"lab": [1, 0, 1]}}) for one in lab]
    assert [agreement(some).how for some in (votes + known, votes + known[:4], known[:4] + votes)] == [
        "spread", "halves", "halves",
    ]  # fmt: skip
    # Pictures that a further group rated have votes, too: the group covers all of them, but not all of the set.
    assert (agreement(lab).how, agreement(lab + votes[:1]).how) == ("other_group", "halves")
    assert [agreement(unvoted + votes[:count]).how for count in (3, 4)] == ["other_group", "halves"]


def test_a_picture_that_is_listed_again_counts_once_as_it_was_listed_last():
    votes = [replace(voted(one), id=str(index)) for index, one in enumerate([[3, 1, 2], [0, 5, 6], [1, 4, 1]])]
    again = agreement([*votes, *votes])
    assert sorted(pair[0] for pair in again.pairs) == ["0", "1", "2"]
    assert again.facts == agreement(votes).facts
    found = agreement([replace(votes[0], attributes={"votes": [9, 9, 9]}), *votes, replace(votes[1], mos=None)])
    assert (len(found.pairs), found.facts) == (3, {"raters": pytest.approx(23 / 3)})
    assert agreement([replace(one, mos=None) for one in votes]) is None


def test_the_samples_are_read_until_one_tells():
    left = iter([spread("a", 0.5, None, None), voted([1, 1]), voted([1, 2])])
    assert has_rater_agreement(left)
    assert len(list(left)) == 1


def test_votes_come_before_a_spread_and_are_divided_alike_beside_it():
    votes = [[3, 1, 0, 2, 1], [0, 5, 0, 6, 0]]
    alone = agreement([voted(one) for one in votes])
    mixed = agreement([spread("a", 0.5, 0.2, 15), voted(votes[0]), spread("b", 0.5, 0.2, 15), voted(votes[1])])
    assert mixed == alone


def test_every_set_of_a_mix_has_its_own_agreement():
    votes = [[3, 1, 0, 2, 1], [0, 5, 0, 6, 0], [1, 1, 4, 0, 0]]
    first = [voted(one) for one in votes]
    second = [replace(spread(str(index), 0.5, 0.2, 15), dataset="other") for index in range(2)]
    unknown = [Sample("a", "a.png", 0.5, "third", "test")]
    found = rater_agreement([first[0], *second, *unknown, *first[1:]], seed=3)
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
        spread("a", 0.5, None, 15),
        spread("a", 0.5, 0.1, 1),
        replace(voted([1, 0]), mos_std=0.1, n_raters=15),  # one vote is known, so there is no second rater
    ],
)
def test_without_single_opinions_or_their_spread_nothing_is_told(sample):
    assert agreement([sample]) is None
    assert not has_rater_agreement([sample])
