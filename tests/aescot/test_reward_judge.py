"""The judge that rewards completions, against a real HTTP server in another process."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
from chat_server import never_rated, rating_of, running

from aes_r1.aescot.failures import AccessRefused, ServerGone
from aes_r1.aescot.provider import litellm_library
from aes_r1.aescot.reward_judge import RewardJudge
from aes_r1.data.sample import Sample
from aes_r1.prompts import RATING_PROMPT, answer, question_of, rating_prompt
from aes_r1.settings import JudgeRewardSettings

KEY = "sk-loopback-0123456789abcdef"
GONE = "http://127.0.0.1:9/v1"  # where nobody answers
TEXTS = [
    [answer("Soft light.", 0.5), answer("Soft light.", 0.5), "Soft light."],  # two are equal, one has no score
    [answer("Hard light, deep shadow.", 0.25), answer("A tilted frame.", 0.75), answer("A muddy hue.", 0.1)],
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    litellm = litellm_library()
    monkeypatch.setattr(litellm.utils, "INITIAL_RETRY_DELAY", 0.0)
    monkeypatch.setattr(litellm.utils, "JITTER", 0.0)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def images(picture_folder) -> list[Sample]:
    return [Sample(name, str(picture_folder / f"{name}.png"), 0.5, "made", "train") for name in ("03", "07")]


def rated(
    journal: Path, images: list[Sample], url: str, texts=TEXTS, times: int = 1, question=RATING_PROMPT, **changes
) -> list[list[float]]:
    """Rate `texts` so many times, each time as a further step would."""
    settings = JudgeRewardSettings(weight=1.0, model="fake", api_base=url, **{"timeout_s": 2.0, **changes})
    with RewardJudge(settings, journal, max_pixels=9216, question=question) as judge:
        return [judge.rate(images, texts) for _ in range(times)][-1]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def words(count: int) -> str:
    """So many different words."""
    return " ".join("x" * length for length in range(1, count + 1))


def expected(question: str) -> float:
    return rating_of(question) / 10


@pytest.mark.slow
def test_a_completion_is_rated_with_its_picture_once(images, tmp_path):
    journal = tmp_path / "judge.jsonl"
    with running(tmp_path / "server") as (url, log):
        table = rated(journal, images, url, times=2)
        asked = rows(log)
    soft = expected(rating_prompt("Soft light.", 0.5))
    assert table[0][:2] == [soft, soft]
    assert math.isnan(table[0][2])
    said = [("Hard light, deep shadow.", 0.25), ("A tilted frame.", 0.75), ("A muddy hue.", 0.1)]
    assert table[1] == [expected(rating_prompt(*one)) for one in said]
    assert len({*table[1], soft}) > 2
    assert len(asked) == 4
    assert [len({row["picture"] for row in asked if row["picture"]}), len({row["subject"] for row in asked})] == [2, 4]
    assert {row["key"] for row in asked} == {f"Bearer {KEY}"}
    assert KEY not in journal.read_text()
    for address in (url, GONE):  # the server is gone
        assert str(rated(journal, images, address)) == str(table)


def test_a_completion_with_sub_scores_is_rated_too(images, tmp_path):
    text = answer("Soft light.", 0.5, sub_scores={"composition": 0.25})
    question = question_of("critique", ("composition",))
    with running(tmp_path / "server") as (url, _):
        table = rated(tmp_path / "judge.jsonl", images[:1], url, [[text]], question=question)
    assert table == [[expected(rating_prompt("Soft light.", 0.5))]]


def test_a_single_reply_that_cannot_be_read_ends_nothing(images, tmp_path):
    unread = next(count for count in range(50) if never_rated(rating_prompt(words(count), 0.5)))
    with running(tmp_path / "server", faults=3) as (url, _):
        table = rated(tmp_path / "judge.jsonl", images[:1], url, [[answer(words(unread), 0.5)]], retries=1)
    assert math.isnan(table[0][0])


@pytest.mark.slow
def test_a_rubric_of_ones_own_is_what_the_judge_reads(images, tmp_path):
    mine = "Praise $5 critiques that name the light."
    with running(tmp_path / "server") as (url, _):
        table = rated(tmp_path / "judge.jsonl", images, url, rubric=mine)
    question = rating_prompt("A tilted frame.", 0.75, mine)
    assert mine in question
    assert rating_prompt("A tilted frame.", 0.75) != question
    assert table[1][1] == expected(question)


@pytest.mark.slow
def test_what_is_never_read_is_left_out_and_stays_left_out(images, tmp_path):
    """Asked again as often as `retries` says; a later start asks for nothing and leaves the same out."""
    journal = tmp_path / "judge.jsonl"
    texts = [[answer(words(count), 0.5) for count in range(7)] for _ in images]
    with running(tmp_path / "server", faults=3) as (url, log):
        table = rated(journal, images, url, texts, retries=2)
        asked = rows(log)
    questions = [rating_prompt(words(count), 0.5) for count in range(7)]
    wanted = [math.nan if never_rated(one) else expected(one) for one in questions]
    assert str(table) == str([wanted, wanted])
    unread = 2 * sum(map(never_rated, questions))
    assert 4 <= unread <= 6
    assert len(asked) == 14 - unread + 3 * unread
    noted = [row["rating"] for row in rows(journal) if row["role"] == "rating"]
    assert (len(noted), noted.count(None)) == (14, unread)
    assert str(rated(journal, images, url, texts, retries=6)) == str(table)


@pytest.mark.slow
def test_faults_that_pass_are_waited_out(images, tmp_path):
    """Seven faults befall a tenth of the calls each: too many calls, 500, too slow, cut, broken, empty, refused."""
    texts = [[answer(words(count), 0.5) for count in range(30)] for _ in images]
    with running(tmp_path / "server", faults=1) as (url, log):
        table = rated(tmp_path / "judge.jsonl", images, url, texts, retries=12)
        assert len({row["fault"] for row in rows(log)}) == 8
    assert table == [[expected(rating_prompt(words(count), 0.5)) for count in range(30)]] * 2


@pytest.mark.slow
def test_a_step_without_any_rating_ends_in_one_line(images, tmp_path):
    journal = tmp_path / "judge.jsonl"
    with (
        running(tmp_path / "server", faults=4) as (url, _),
        pytest.raises(ServerGone, match="none of the 4 critiques") as raised,
    ):
        rated(journal, images, url, retries=1)
    assert str(journal) in str(raised.value)
    assert "\n" not in str(raised.value)
    nothing = [["no answer"] * 3] * 2
    assert all(math.isnan(value) for row in rated(journal, images, GONE, nothing) for value in row)


@pytest.mark.slow
def test_a_server_that_is_gone_leaves_no_note_so_that_it_is_asked_later(images, tmp_path):
    journal = tmp_path / "judge.jsonl"
    with pytest.raises(ServerGone, match="none of the 4 critiques"):
        rated(journal, images, GONE, retries=0)
    assert rows(journal) == []
    with running(tmp_path / "server") as (url, _):
        assert rated(journal, images, url)[1][0] >= 0


def test_a_wrong_key_ends_the_run_at_once(images, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-0123456789abcdef")
    started = time.monotonic()
    with running(tmp_path / "server") as (url, _), pytest.raises(AccessRefused, match="right key") as raised:
        rated(tmp_path / "judge.jsonl", images, url)
    assert time.monotonic() - started < 20
    assert str(raised.value).startswith("reward.judge.model=fake: ")
    assert "sk-wrong-0123456789abcdef" not in str(raised.value)


@pytest.mark.slow
def test_the_price_ceiling_holds_over_steps_and_starts(images, tmp_path):
    """A call costs 1000 tokens at 1 USD and 200 at 2 USD per million: .0014 USD, so that three fit into .005."""
    journal = tmp_path / "judge.jsonl"
    price = {"input_usd_per_million": 1.0, "output_usd_per_million": 2.0, "max_tokens": 200, "retries": 0}
    with running(tmp_path / "server", prompt_tokens=1000) as (url, log):
        for _ in range(2):
            with pytest.raises(ServerGone, match=r"reward\.judge\.max_usd=0\.005: .*give a higher one"):
                rated(journal, images, url, max_usd=0.005, **price)
        paid = rows(journal)
        assert 1 <= len(rows(log)) <= 3
        assert 0 < sum(row["usd"] for row in paid) <= 0.005
        rated(journal, images, url, max_usd=1.0, **price)
        assert len(rows(log)) == 4
