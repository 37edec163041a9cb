"""The reward between a picture and its edited twin, by hand and by its symmetries."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aes_r1.reward.rank import bradley_terry_reward, rank_reward
from aes_r1.reward.total import total_reward
from aes_r1.reward.twin import Twins, twin_reward
from aes_r1.settings import FormatSettings, RankSettings, RewardSettings, TwinSettings

NAN = math.nan
PAIR, EDITED = torch.tensor([0, 0]), torch.tensor([False, True])


def phi(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def test_one_pair_by_hand():
    """Means .6 and .5, variances .02 and .02, so that the scores of a comparison differ with standard deviation .2."""
    scores = torch.tensor([[0.5, 0.7], [0.4, 0.6]], dtype=torch.float64)
    reward = twin_reward(scores, PAIR, EDITED)
    wanted = [[phi(0.0), phi(0.2 / 0.2)], [phi((0.6 - 0.4) / 0.2), phi(0.0)]]
    torch.testing.assert_close(reward, torch.tensor(wanted, dtype=torch.float64).sqrt(), atol=2e-5, rtol=0)
    assert reward[0, 1].item() == pytest.approx(math.sqrt(0.8413), abs=1e-4)


SCORES = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@given(SCORES, SCORES)
@settings(max_examples=100, deadline=None)
@pytest.mark.slow
def test_turning_the_scale_and_the_roles_changes_nothing(original, edited):
    """Where high scores are bad, the edited picture is the one that should score higher."""
    scores = torch.tensor([original, edited], dtype=torch.float64)
    turned = twin_reward(1 - scores.flip(0), PAIR, EDITED).flip(0)
    torch.testing.assert_close(twin_reward(scores, PAIR, EDITED), turned, atol=1e-6, rtol=0)


@given(SCORES, st.integers(0, 2), st.floats(0.01, 0.5), st.booleans())
@settings(max_examples=100, deadline=None)
@pytest.mark.slow
def test_it_grows_with_the_difference_in_the_right_direction(other, place, further, of_twin):
    """A higher score of the original pays, and a lower one of the twin, where the spreads stay as they are."""
    own = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64)
    row = 1 if of_twin else 0
    table = torch.stack([own, torch.tensor(other, dtype=torch.float64)])
    table = table.flip(0) if of_twin else table
    moved = table.clone()
    moved[row] += -further if of_twin else further
    before, after = (twin_reward(one, PAIR, EDITED, compare=partial(rank_reward, gamma=1e-2)) for one in (table, moved))
    assert after[row, place] >= before[row, place]
    assert after[row].sum() > before[row].sum() or after[row].min() > 0.999
    assert (before[row].diff() * (-1 if of_twin else 1) >= 0).all()


def test_pictures_are_compared_with_their_own_twin_alone():
    scores = torch.tensor([[0.5, 0.7], [0.9, 0.1], [0.4, 0.6], [NAN, NAN], [0.3, NAN], [0.2, 0.2]])
    pair = torch.tensor([0, 1, 0, 3, 3, 4])
    edited = torch.tensor([False, False, True, False, True, False])
    reward = twin_reward(scores, pair, edited)
    torch.testing.assert_close(reward[[0, 2]], twin_reward(scores[[0, 2]], PAIR, EDITED))
    assert reward[[1, 3, 4, 5]].tolist() == [[0.0, 0.0]] * 4  # no twin, unreadable, a twin of nothing readable, no twin


def test_twins_change_no_other_reward():
    """They have no opinion: they earn pair and format, and are nobody's opponent in the ranking."""
    scores = torch.tensor([[0.5, 0.7, NAN], [0.2, 0.9, 0.4], [0.4, 0.6, NAN]])
    mos = torch.tensor([0.6, 0.3, NAN])
    twins = Twins(torch.tensor([0, 1, 0]), torch.tensor([False, False, True]))
    reward = RewardSettings(twin=TwinSettings(weight=2.0), format=FormatSettings(weight=0.5))
    total, parts = total_reward(scores, mos, reward, twins=twins)
    plain, without = total_reward(scores[:2], mos[:2], reward)
    for name, table in without.items():
        assert torch.equal(parts[name][:2], table), name
    assert "twin" not in without
    torch.testing.assert_close(total[:2], plain + 2 * parts["twin"][:2])
    for name in ("rank", "error", "binary"):
        assert parts[name][2].tolist() == [0.0, 0.0, 0.0], name
    torch.testing.assert_close(total[2], 2 * parts["twin"][2] + 0.5 * torch.tensor([1.0, 1.0, 0.0]))
    assert parts["twin"][1].tolist() == [0.0, 0.0, 0.0]


def test_sub_scores_are_compared_in_place_of_the_scores_where_they_are_given():
    """As test_one_pair_by_hand, with these numbers as sub-scores: all other parts are those of the scores."""
    scores, mos = torch.tensor([[0.9, 0.1], [0.3, NAN]]), torch.tensor([0.6, NAN])
    reward = RewardSettings()
    own = torch.tensor([[0.5, 0.7], [0.4, 0.6]])
    _, by_scores = total_reward(scores, mos, reward, twins=Twins(PAIR, EDITED))
    _, by_own = total_reward(scores, mos, reward, twins=Twins(PAIR, EDITED, own))
    wanted = torch.tensor([[phi(0.0), phi(1.0)], [phi(1.0), phi(0.0)]]).sqrt()
    torch.testing.assert_close(by_own["twin"], wanted, atol=1e-5, rtol=0)
    for name in by_own.keys() - {"twin"}:
        assert torch.equal(by_own[name], by_scores[name]), name
    _, unread = total_reward(scores, mos, reward, twins=Twins(PAIR, EDITED, torch.tensor([[0.5, NAN], [0.4, 0.6]])))
    assert unread["twin"][0, 1] == 0
    # Against the one sub-score .5 that is left the variance is that of the twin, .02: (.5 - .4) / sqrt(.02) = .7071.
    torch.testing.assert_close(unread["twin"][1], torch.tensor([phi(0.7071), phi(-0.7071)]).sqrt(), atol=1e-4, rtol=0)


def test_the_pairwise_model_is_that_of_the_ranking():
    scores, mos = torch.tensor([[0.5, 0.7], [0.4, 0.6]]), torch.tensor([0.6, NAN])
    reward = RewardSettings(rank=RankSettings(model="bradley_terry", tau=0.3))
    _, parts = total_reward(scores, mos, reward, twins=Twins(PAIR, EDITED))
    wanted = twin_reward(scores, PAIR, EDITED, compare=partial(bradley_terry_reward, tau=0.3))
    assert torch.equal(parts["twin"], wanted)
    assert parts["twin"][0, 1].item() == pytest.approx(math.sqrt(1 / (1 + math.exp(-0.2 / 0.3))), rel=1e-5)
