"""Critique rewards: hand-computed values, missing values, and which kind of critique earns most."""

import pytest
import torch

from aes_r1.reward.critique import faithfulness_reward, information_reward

NAN = float("nan")
STEPS = (torch.arange(6, dtype=torch.float64) + 0.5) / 6


def test_squared_by_hand():
    stated = torch.tensor([[[0.5, 0.75], [NAN, 0.25]], [[0.25, NAN], [NAN, NAN]]])
    ratings = torch.tensor([[0.5, 0.25], [1.0, NAN]])
    found = faithfulness_reward(stated, ratings, form="squared")
    torch.testing.assert_close(found, torch.tensor([[(1 + 0.75) / 2, 0.5], [1 - 0.75**2, 0.0]]))


def test_rank_by_hand():
    """One dimension, two critiques each. The first picture was rated above the second and below the third."""
    stated = torch.tensor([[[0.75], [0.25]], [[0.25], [NAN]], [[0.75], [0.5]]])
    ratings = torch.tensor([[0.6], [0.1], [0.9]])
    # .75 is above the second's .25 (1), and equal to one and above the other of the third's (1/4 in order).
    # .25 equals the second's (1/2) and is below both of the third's (1).
    # The second's .25: below one and equal to the other of the first's (3/4), below both of the third's (1).
    # The third's .75: equal and above (3/4), above (1). Its .5: below and above (1/2), above (1).
    wanted = [[(1 + 0.25) / 2, (0.5 + 1) / 2], [(0.75 + 1) / 2, 0], [(0.75 + 1) / 2, (0.5 + 1) / 2]]
    torch.testing.assert_close(faithfulness_reward(stated, ratings), torch.tensor(wanted))


def test_equal_ratings_have_no_order():
    found = faithfulness_reward(torch.tensor([[[0.9]], [[0.1]]]), torch.tensor([[0.4], [0.4]]))
    assert found.flatten().tolist() == [0.5, 0.5]


def test_rank_against_loops():
    generator = torch.Generator().manual_seed(0)
    stated = STEPS[torch.randint(0, 6, (6, 4, 3), generator=generator)]
    stated[torch.rand(6, 4, 3, generator=generator) < 0.3] = NAN
    ratings = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    ratings[2, 1] = NAN
    found = faithfulness_reward(stated, ratings)
    for i in range(6):
        for k in range(4):
            earned = []
            for d in range(3):
                if ratings[i, d].isnan():
                    continue
                by_opponent = []
                for j in set(range(6)) - {i}:
                    said = [float(one) for one in stated[j, :, d] if not one.isnan()]
                    if not said or ratings[j, d].isnan():
                        continue
                    mine = float(stated[i, k, d])
                    above = sum((mine > other) + 0.5 * (mine == other) for other in said) / len(said)
                    by_opponent.append(above if ratings[i, d] > ratings[j, d] else 1 - above)
                earned.append(0.0 if stated[i, k, d].isnan() else sum(by_opponent) / len(by_opponent))
            assert float(found[i, k]) == pytest.approx(sum(earned) / len(earned), abs=1e-12)


@pytest.mark.parametrize("form", ["rank", "squared"])
def test_what_is_not_known_moves_nobody(form):
    """Dimensions without ratings, of one picture or of all, and pictures without ratings do not count."""
    generator = torch.Generator().manual_seed(0)
    stated, ratings = torch.rand(5, 3, 2, generator=generator), torch.rand(5, 2, generator=generator)
    stated[0, 1, 0] = NAN
    whole = faithfulness_reward(stated, ratings, form=form)
    longer = faithfulness_reward(
        torch.cat([stated, torch.rand(5, 3, 1)], dim=2), torch.cat([ratings, torch.full((5, 1), NAN)], dim=1), form=form
    )
    torch.testing.assert_close(longer, whole)
    more = faithfulness_reward(
        torch.cat([stated, torch.rand(1, 3, 2)]), torch.cat([ratings, torch.full((1, 2), NAN)]), form=form
    )
    torch.testing.assert_close(more[:5], whole)
    assert more[5].tolist() == [0, 0, 0]
    assert not more.isnan().any()


@pytest.mark.parametrize("form", ["rank", "squared"])
def test_to_say_nothing_earns_least(form):
    """It earns no more than the worst statement, and less than the average."""
    ratings = torch.tensor([[0.95], [0.05]])
    wrong = faithfulness_reward(torch.tensor([[[0.05], [NAN]], [[0.95], [NAN]]]), ratings, form=form)
    average = faithfulness_reward(torch.tensor([[[0.5], [NAN]], [[0.5], [NAN]]]), ratings, form=form)
    assert (wrong[:, 0] >= wrong[:, 1]).all()
    assert (average[:, 0] > average[:, 1] + 0.4).all()
    assert (average[:, 1] == 0).all()


def blind_and_bold(form):
    """Return the mean rewards of one average statement for ten pictures, and of ordered steps that are one too high."""
    ratings = torch.linspace(0.02, 0.98, 10, dtype=torch.float64)[:, None]
    average = torch.full((10, 1, 1), 0.5, dtype=torch.float64)
    steps = STEPS[(ratings * 6).long() + 1 - (ratings > 5 / 6).long()][:, :, None]
    return [float(faithfulness_reward(one, ratings, form=form).mean()) for one in (average, steps)]


def test_rank_pays_for_telling_pictures_apart():
    same, apart = blind_and_bold("rank")
    assert apart > same + 0.2


def test_where_nothing_can_be_seen_squared_pays_for_the_average_and_rank_does_not():
    """Statements that do not depend on the picture: one step for all, and steps drawn at random."""
    generator = torch.Generator().manual_seed(1)
    ratings = torch.rand(400, 1, generator=generator, dtype=torch.float64)
    drawn = STEPS[torch.randint(0, 6, (400, 1, 1), generator=generator)]
    earned = {
        form: [
            float(faithfulness_reward(one, ratings, form=form).mean()) for one in (torch.full_like(drawn, 0.5), drawn)
        ]
        for form in ("squared", "rank")
    }
    assert earned["squared"][0] > earned["squared"][1] + 0.05
    assert earned["rank"][0] == 0.5
    assert earned["rank"][1] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("form", ["rank", "squared"])
def test_the_true_step_earns_most_when_the_others_tell_the_truth(form):
    ratings = STEPS[[0, 1, 3, 4, 5, 2]][:, None]
    truth = ratings[:, :, None].repeat(1, 6, 1)
    for picture in range(6):
        stated = truth.clone()
        stated[picture, :, 0] = STEPS
        alone = [faithfulness_reward(
            torch.where(torch.arange(6)[:, None, None] == picture, step, truth[:, :1]), ratings, form=form
        )[picture, 0] for step in STEPS]  # fmt: skip
        assert int(torch.tensor(alone).argmax()) == int((ratings[picture] == STEPS).nonzero())


def test_only_pictures_of_one_pool_are_compared():
    stated = torch.tensor([[[0.9]], [[0.1]], [[0.5]]])
    ratings = torch.tensor([[0.9], [0.1], [0.0]])
    found = faithfulness_reward(stated, ratings, pool=torch.tensor([0, 0, 1]))
    torch.testing.assert_close(found[:2], faithfulness_reward(stated[:2], ratings[:2]))
    assert found[2] == 0


def test_another_form_is_refused():
    with pytest.raises(ValueError, match="form=cubic"):
        faithfulness_reward(torch.rand(2, 2, 2), torch.rand(2, 2), form="cubic")


def test_information_by_hand():
    own = torch.tensor([[-40.0, -50.0, NAN]])
    others = torch.tensor([[[-43.0, -41.0], [-48.0, -140.0], [NAN, NAN]]])
    found = information_reward(own, others, cap=5.0)
    torch.testing.assert_close(found, torch.tensor([[(3 + 1) / 2, (-2 + 5) / 2, 0.0]]))


def test_information_needs_another_picture_and_a_cap():
    assert information_reward(torch.rand(1, 3), torch.rand(1, 3, 0), cap=1.0).tolist() == [[0, 0, 0]]
    with pytest.raises(ValueError, match="cap=0"):
        information_reward(torch.rand(1, 3), torch.rand(1, 3, 1), cap=0.0)


def test_information_stays_within_its_bounds():
    generator = torch.Generator().manual_seed(0)
    own, others = 100 * torch.randn(4, 5, generator=generator), 100 * torch.randn(4, 5, 3, generator=generator)
    assert (information_reward(own, others, cap=2.0).abs() <= 2).all()
    assert (information_reward(own, others, cap=2.0) > 1.99).any()
