"""RAPO with a judge that rates completions: what it pays, whom, and the same again from the journal."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from aes_r1.aescot.failures import ServerGone
from aes_r1.aescot.provider import litellm_library
from aes_r1.aescot.reward_judge import RewardJudge
from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT, answer, parse_critique, parse_score, rating_prompt
from aes_r1.settings import JudgeRewardSettings, RewardSettings, TrainerSettings
from aes_r1.trainer.context import PhaseTimer
from aes_r1.trainer.credit import critique_advantage
from aes_r1.trainer.step_images import StepImages
from aes_r1.trainer.step_rewards import reward_completions
from tests.aescot.chat_server import never_rated, rating_of, running
from tests.trainer.test_critique_rewards import Together
from tests.trainer.test_loops import assert_same, rapo, weights
from tests.trainer.twelve import samples

GONE = "http://127.0.0.1:9/v1"  # where nobody answers


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    litellm = litellm_library()
    monkeypatch.setattr(litellm.utils, "INITIAL_RETRY_DELAY", 0.0)
    monkeypatch.setattr(litellm.utils, "JITTER", 0.0)


def judged(url: str, **changes) -> RewardSettings:
    return RewardSettings(judge=JudgeRewardSettings(weight=0.5, model="fake", api_base=url, retries=0, **changes))


def judge_of(reward: RewardSettings, journal: Path) -> RewardJudge:
    return RewardJudge(reward.judge, journal, max_pixels=9216, question=RATING_PROMPT)


def expected(row: dict) -> float:
    """The rating that the server gives for a completion: NaN where it gives none."""
    critique, score = parse_critique(row["text"]), parse_score(row["text"])
    question = rating_prompt(critique, score)
    return math.nan if never_rated(question) else rating_of(question) / 10


def train(talking_run, out, reward, journal, **changes):
    backbone = backbones.load(talking_run / "model", dtype="float32", max_pixels=9216)
    how = {"steps": 2, "max_new_tokens": 64, "temperature": 1.0, "completions_every": 1, "num_samples": 6}
    with judge_of(reward, journal) as judge:
        found = rapo(backbone, talking_run / "pictures", out, reward=reward, judge=judge, **{**how, **changes})
    return *found, weights(backbone)


@pytest.mark.slow
def test_the_critique_is_paid_for_its_rating_and_a_later_run_buys_nothing(talking_run, tmp_path):
    """Every third question is never answered. The second run is given the journal alone, and computes the same."""
    parts = {"credit": "parts"}
    with running(tmp_path / "server", faults=3) as (url, log):
        rows, completions, ends = train(talking_run, tmp_path / "a", judged(url), tmp_path / "journal", **parts)
        asked = len(log.read_text().splitlines())
        whole, summed, _ = train(talking_run, tmp_path / "b", judged(url), tmp_path / "journal")
    unread = 0
    for start in range(0, len(completions), 6):
        group = completions[start : start + 6]
        ratings = [expected(row) if row["score"] is not None else None for row in group]
        read = [rating for rating in ratings if rating is not None and not math.isnan(rating)]
        mean = sum(read) / len(read) if read else 0.0
        wanted = [0.0 if one is None else mean if math.isnan(one) else one for one in ratings]
        assert [row["reward_judge"] for row in group] == pytest.approx(wanted)
        unread += sum(rating is not None and math.isnan(rating) for rating in ratings)
        table, readable = torch.tensor([wanted]), torch.tensor([[one is not None for one in ratings]])
        advantage = critique_advantage({"judge": table}, {"judge": 0.5}, readable)[0]
        assert [row["critique_advantage"] for row in group] == pytest.approx(advantage.tolist(), abs=1e-4)
    assert 0 < unread < len(completions)
    shares = [row["reward/judge_unread"] for row in rows]
    assert sum(shares) / len(shares) == pytest.approx(unread / len(completions))
    for row in completions:
        assert row["reward_total"] == pytest.approx(row["reward_rank"] + row["reward_error"])
    for row in summed:
        parts_of_sum = row["reward_rank"] + row["reward_error"] + 0.5 * row["reward_judge"]
        assert row["reward_total"] == pytest.approx(parts_of_sum)
    assert whole[0]["reward/judge"] == rows[0]["reward/judge"]  # of the same completions
    again, told_again, ends_again = train(talking_run, tmp_path / "c", judged(GONE), tmp_path / "journal", **parts)
    assert asked > 0
    assert (again, told_again) == (rows, completions)
    assert_same(ends, ends_again)


@pytest.mark.parametrize("url", ["there", GONE])
@pytest.mark.slow
def test_one_process_asks_for_all_and_an_end_ends_all(url, picture_folder, tmp_path):
    """Two processes, with two pictures each: both get the table of one process, or both its error."""
    images = samples(picture_folder)[:4]
    texts = [[answer(f"{image.id} {k}", 0.5), answer(f"{image.id}", 0.25 * k)] for k, image in enumerate(images)]
    trainer = TrainerSettings(num_samples=2, images_per_step=4)

    def rewards(rank: int, size: int, shares: list, meeting: threading.Barrier, reward: RewardSettings, journal: Path):
        engine = Together(rank, size, shares, meeting)
        engine.device = torch.device("cpu")
        said = [text for image in range(rank, 4, size) for text in texts[image]]
        completions = SimpleNamespace(
            images=StepImages.of(images, 0, trainer=trainer, engine=engine, seed=0, mixed=False),
            texts=said,
            scores=[parse_score(text) for text in said],
            sub_scores=[{} for _ in said],
        )
        judge = judge_of(reward, journal) if rank == 0 else None
        how = {"trainer": trainer, "reward": reward, "pools": {"made": 0}, "progress": 0.0, "engine": engine}
        try:
            return reward_completions(completions, timer=PhaseTimer(engine.device), judge=judge, **how).parts["judge"]
        except ServerGone as error:
            return str(error)

    with running(tmp_path / "server") as (address, _):
        reward = judged(address if url == "there" else url)
        (alone,) = [rewards(0, 1, [None], threading.Barrier(1), reward, tmp_path / "one")]
        shares, meeting = [None, None], threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(rewards, r, 2, shares, meeting, reward, tmp_path / "two") for r in range(2)]
            first, second = (call.result(timeout=120) for call in calls)
    if url == GONE:
        assert first == second
        assert "none of the" in first
    else:
        torch.testing.assert_close(first, alone[[0, 2, 1, 3]])  # in the order of ranks
        assert torch.equal(first, second)
