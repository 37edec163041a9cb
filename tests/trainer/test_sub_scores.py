"""Sub-scores from the cold start to prediction rows: a tiny model learns to write them, and RAPO pays for them."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from aes_r1.inference.asking import AskingConfig
from aes_r1.inference.predict import predict
from aes_r1.model import tiny
from aes_r1.prompts import RATING_PROMPT, answer, parse_sub_scores, question_of
from aes_r1.reward.twin import twin_reward
from aes_r1.runs.stopping import Stopped
from aes_r1.settings import ErrorSettings, RewardSettings, SubScoreSettings, TwinSettings
from aes_r1.trainer.taught import rated_records
from tests.conftest import twelve_pictures
from tests.trainer.cold_starts import engine_of, train_cold_start
from tests.trainer.test_loops import assert_same, rapo, weights
from tests.trainer.twelve import WORDS, records, samples

NAMES = ("color", "composition")  # of which the twelve pictures have ratings of color alone
QUESTION = question_of("critique", NAMES)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """Return (folder of the twelve pictures, a model that answers them by heart with a sub-score of color)."""
    folder = twelve_pictures(tmp_path_factory.mktemp("pictures"))
    corpus = [RATING_PROMPT, QUESTION, *(answer(words, 0.25, sub_scores={"color": 0.87}) for words in WORDS)]
    backbone = tiny.build_tiny_model(tiny.build_tokenizer(corpus * 20), max_pixels=9216, seed=0)
    taught = rated_records(records(folder), samples(folder), NAMES)
    out = tmp_path_factory.mktemp("scorer")
    train_cold_start(backbone, engine_of(backbone), taught, out, question=QUESTION, epochs=28, warmup_ratio=0.0)
    return folder, backbone


@pytest.mark.slow
def test_what_was_taught_is_written_paid_for_and_predicted(scorer, tmp_path):
    folder, start = scorer
    options = {"question": QUESTION, "max_new_tokens": 48}
    reward = RewardSettings(sub_scores=SubScoreSettings(weight=0.5))
    straight, stopped, resumed = (copy.deepcopy(start) for _ in range(3))
    rows, completions = rapo(straight, folder, tmp_path / "straight", reward=reward, **options)
    assert rows[0]["reward/format"] > 0.5
    for row in rows:
        assert row["reward/sub_color"] > 0
        assert row["reward/sub_composition"] == 0, "nobody rated it"
        whole = row["reward/rank"] + row["reward/error"] + 0.5 * row["reward/sub_color"]
        assert row["reward/total"] == pytest.approx(whole, abs=1e-5)
    for row in completions:
        assert row["sub_scores"] == parse_sub_scores(row["text"], sub_scores=NAMES)
        assert row["reward_sub_color"] > 0 or row["sub_scores"]["color"] is None
    assert sum(row["sub_scores"]["color"] is not None for row in completions) > len(completions) / 2

    with pytest.raises(Stopped):
        rapo(stopped, folder, tmp_path / "parts", reward=reward, stop_after=2, **options)
    resumed_rows, _ = rapo(resumed, folder, tmp_path / "parts", reward=reward, **options)
    assert resumed_rows == rows[2:]
    assert_same(weights(straight), weights(resumed))

    protocols = ["greedy", "mean", "direct", "read_back"]
    asking = AskingConfig(QUESTION, max_new_tokens=48, n_samples=2)
    start.model.eval()
    predicted = list(predict(start, samples(folder), asking, protocols=protocols, batch_size=12, seed=0))
    for row in predicted:
        assert list(row["sub_scores"]) == list(NAMES)
        assert row["ratings"] == {"color": row["mos"], "composition": None}
    greedy = [row for row in predicted if row["protocol"] == "greedy"]
    assert sum(row["score"] is not None for row in greedy) > 6
    assert all(row["sub_scores"] == parse_sub_scores(row["text"], sub_scores=NAMES) for row in greedy)
    assert sum(row["sub_scores"]["color"] is not None for row in greedy) > 6
    # The forced answers have room for sub-scores, too.
    assert any(row["sub_scores"]["color"] is not None for row in predicted if row["protocol"] == "read_back")


@pytest.mark.slow
def test_each_sub_score_is_a_reward_of_its_own(scorer, tmp_path):
    folder, start = scorer
    options = {"question": QUESTION, "max_new_tokens": 48, "steps": 1, "advantage": "per_reward"}
    options["dynamic_sampling"] = 1
    (paid,), by_completion = rapo(copy.deepcopy(start), folder, tmp_path / "paid", **options)
    free = RewardSettings(error=ErrorSettings(sigma=0.3), sub_scores=SubScoreSettings(weight=0.0))
    (unpaid,), others = rapo(copy.deepcopy(start), folder, tmp_path / "free", reward=free, **options)
    assert paid["reward/sub_color"] == unpaid["reward/sub_color"] > 0
    differ = [one["advantage"] != other["advantage"] for one, other in zip(by_completion, others, strict=True)]
    assert any(differ)
    assert all(row["sub_scores"] == parse_sub_scores(row["text"], sub_scores=NAMES) for row in by_completion)


@pytest.mark.slow
def test_twins_are_compared_by_the_sub_score_that_their_edit_harms(scorer, tmp_path):
    """What the rows of a step say: twin_reward of the sub-scores of color, by hand in tests/reward/test_twin.py."""
    folder, start = scorer
    options = {"question": QUESTION, "max_new_tokens": 48, "steps": 1, "edited_pairs": 4, "edits": ["desaturate"]}
    options["completions_every"] = 1
    drawn = {}
    for of in ("score", "sub_score"):
        reward = RewardSettings(error=ErrorSettings(sigma=0.3), twin=TwinSettings(of=of))
        _, drawn[of] = rapo(copy.deepcopy(start), folder, tmp_path / of, reward=reward, **options)
    rows = drawn["sub_score"]
    assert [row["text"] for row in rows] == [row["text"] for row in drawn["score"]]
    groups = [rows[first : first + 4] for first in range(0, len(rows), 4)]
    assert [len({row["id"] for row in group}) for group in groups] == [1] * 8
    by_id = {group[0]["id"]: group for group in groups}
    paid = 0
    for name, twin in by_id.items():
        if name.endswith("+desaturate"):
            pair = [by_id[name.removesuffix("+desaturate")], twin]
            colors = [[math.nan if (one := row["sub_scores"]["color"]) is None else one for row in of] for of in pair]
            earned = twin_reward(torch.tensor(colors), torch.tensor([0, 0]), torch.tensor([False, True]))
            assert [[row["reward_twin"] for row in of] for of in pair] == pytest.approx(earned.numpy(), abs=1e-6)
            paid += int((earned > 0).sum())
    assert paid > 0
    assert [row["reward_twin"] for row in rows] != [row["reward_twin"] for row in drawn["score"]]


def test_ratings_are_found_by_the_file_of_the_picture(tmp_path):
    (tmp_path / "pictures").mkdir()
    folder = twelve_pictures(tmp_path / "pictures")
    (tmp_path / "link.png").symlink_to(folder / "01.png")
    rows = [{"id": "a", "image": str(tmp_path / "link.png")}, {"id": "b", "image": str(tmp_path / "none.png")}]
    rated = rated_records(rows, samples(folder), ["exposure", "color", "light_and_shadow"])
    mos = 1.5 / 12
    assert [row["sub_scores"] for row in rated] == [{"color": mos, "light_and_shadow": mos}, {}]
    assert list(rated[0]["sub_scores"]) == ["color", "light_and_shadow"], "the order of the question"
    assert "sub_scores" not in rows[0]
