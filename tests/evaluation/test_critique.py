"""Measures of critiques distinguish truthful, hollow, leaking and parroted ones."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from aes_r1.aescot.diversity import diversity
from aes_r1.aescot.phrases import BOOK, write_phrase
from aes_r1.aescot.record import Reply
from aes_r1.aescot.scenes_expert import scenes_critique
from aes_r1.data.sample import Sample
from aes_r1.evaluation import critique
from aes_r1.evaluation.critique import critique_measures, judge_critiques, share_of
from aes_r1.inference.predictions import Chosen, chosen_critiques
from aes_r1.prompts import DIMENSIONS
from aes_r1.settings import JudgeSettings

FACTS = {"light": "left", "subject": "boat", "place": "right", "hues": "red", "cues": ["moon"]}


def truthful(count, seed=0, *, shuffle=False):
    """(rows, factors) of critiques from true factors; shuffled, each speaks of another picture."""
    rng = np.random.default_rng(seed)
    factors = {str(i): dict(zip(DIMENSIONS, rng.random(5).tolist(), strict=True)) for i in range(count)}
    told = list(rng.permutation(count)) if shuffle else list(range(count))
    rows = []
    for index in range(count):
        mos = float(np.mean(list(factors[str(told[index])].values())))
        critique = scenes_critique(factors[str(told[index])], FACTS, mos, rng).critique
        rows.append(
            {
                "stage": "rapo", "protocol": "sample", "id": str(index), "dataset": "scenes", "split": "test",
                "mos": mos, "score": round(mos, 2), "critique": critique,
            }
        )  # fmt: skip
    return rows, factors


@pytest.mark.slow
def test_a_truthful_expert():
    rows, factors = truthful(120)
    result = critique_measures(rows, factors=factors, n_bootstrap=100)
    assert result["n"] == 120
    assert result["coverage"]["all_five"]["value"] == 1.0
    assert result["leak_rate"]["value"] == 0.0
    assert result["words_and_score"]["srcc"]["low"] > 0.8
    assert result["words_and_score"]["level_agreement"]["low"] > 0.8
    for name in DIMENSIONS:
        assert result["faithfulness"][name]["accuracy"]["value"] == 1.0
        assert result["faithfulness"][name]["srcc"]["low"] > 0.9
        assert result["faithfulness"][name]["chance"] < 0.35
    words = np.mean([len(row["critique"].split()) for row in rows])
    assert result["words"]["value"] == pytest.approx(words)
    assert result["words"]["low"] < words < result["words"]["high"]
    json.dumps(result, allow_nan=False)


@pytest.mark.slow
def test_a_critic_of_other_pictures_is_at_chance():
    rows, factors = truthful(300, shuffle=True)
    result = critique_measures(rows, factors=factors, n_bootstrap=50)
    for name in DIMENSIONS:
        assert result["faithfulness"][name]["accuracy"]["high"] < 0.35
        assert result["faithfulness"][name]["srcc"]["low"] < 0 < result["faithfulness"][name]["srcc"]["high"]


@pytest.mark.slow
def test_a_dimension_that_nobody_rated_is_left_out():
    """PARA and AADB rate four dimensions, while critiques speak of five; a single picture may lack one more."""
    rows, factors = truthful(40)
    rated = {
        key: {name: value for name, value in given.items() if name != "exposure"} for key, given in factors.items()
    }
    del rated["0"]["color"]
    result = critique_measures(rows, factors=rated, n_bootstrap=10)["faithfulness"]
    assert {name: result[name]["n"] for name in DIMENSIONS} == {
        "light_and_shadow": 40, "mood_and_narrative": 40, "composition": 40, "color": 39, "exposure": 0
    }  # fmt: skip
    assert result["color"]["accuracy"]["value"] == 1.0
    unknown = dict.fromkeys(("value", "low", "high"))
    assert result["exposure"] == {"n": 0, "accuracy": unknown, "within_one": unknown, "srcc": unknown, "chance": None}


@pytest.mark.slow
def test_a_parrot_has_no_diversity_and_words_that_follow_nothing():
    rows, _ = truthful(100)
    parrot = [{**row, "critique": rows[0]["critique"]} for row in rows]
    varied, same = critique_measures(rows, n_bootstrap=20), critique_measures(parrot, n_bootstrap=20)
    assert same["diversity"]["self_bleu"]["value"] == pytest.approx(1.0)
    assert same["diversity"]["distinct_2"]["high"] < varied["diversity"]["distinct_2"]["low"]
    assert same["words_and_score"]["srcc"]["value"] is None
    assert varied["diversity"]["distinct_2"]["value"] == diversity([row["critique"] for row in rows])["distinct_2"]


@pytest.mark.slow
def test_the_variety_is_not_that_of_the_head_of_the_list(monkeypatch):
    """Forty parrots, then forty that differ, as in a list sorted by theme."""
    monkeypatch.setattr(critique, "DIVERSITY_SAMPLE", 40)
    rows, _ = truthful(80)
    rows[:40] = [{**row, "critique": rows[0]["critique"]} for row in rows[:40]]
    head, drawn = (critique_measures(some, n_bootstrap=10)["diversity"] for some in (rows[:40], rows))
    assert drawn["distinct_2"]["value"] > 3 * head["distinct_2"]["value"]


@pytest.mark.slow
def test_leaks_are_counted():
    rows, _ = truthful(40)
    for row in rows[:10]:
        row["critique"] += f" The score is {row['score']:.2f}."
    result = critique_measures(rows, n_bootstrap=10)
    assert result["leak_rate"]["value"] == 0.25
    assert "faithfulness" not in result


def test_no_critique_at_all():
    result = critique_measures([], n_bootstrap=10)
    assert result["n"] == 0
    json.dumps(result, allow_nan=False)


def test_critiques_are_drawn_evenly_from_the_first_protocol_that_has_them():
    rows, _ = truthful(400)
    silent = [{**row, "protocol": "label_tokens", "critique": None} for row in rows]
    chosen = chosen_critiques([*silent, *rows, *[{**row, "protocol": "mean"} for row in rows]], most=100)
    (key, drawn), *others = chosen.items()
    assert (key, others) == (("rapo", "scenes/test"), [])
    assert len(drawn) == 100
    assert {row["protocol"] for row in drawn} == {"sample"}
    assert 150 < np.mean([int(row["id"]) for row in drawn]) < 250


def test_the_reservoir_gives_everyone_the_same_chance():
    drawn = np.zeros(20)
    for seed in range(2000):
        chosen = Chosen(5, seed)
        for index in range(20):
            chosen.add({"id": index})
        for row in chosen.rows():
            drawn[row["id"]] += 1
    assert drawn.sum() == 5 * 2000
    assert drawn.min() > 430
    assert drawn.max() < 570


def test_shares():
    assert share_of([True, False, False, True])["value"] == 0.5
    assert share_of([]) == {"value": None, "low": None, "high": None}


def test_an_offline_judge_finds_claims_that_do_not_hold(tmp_path):
    rng = np.random.default_rng(0)
    rows, samples = [], {}
    for index in range(12):
        factors = dict.fromkeys(DIMENSIONS, 0.9)
        honest = index < 8
        told = {name: write_phrase(name, len(BOOK[name]) - 1 if honest else 0, {}, rng) for name in DIMENSIONS}
        reply = Reply(told, "A superb picture.")
        rows.append({"id": str(index), "score": 0.9, "critique": reply.critique})
        samples[str(index)] = Sample(str(index), "x.jpg", 0.9, "scenes", "test", attributes={"factors": factors})
    result = judge_critiques(
        rows, samples, settings=JudgeSettings(name="scenes"), journal=tmp_path / "judge.jsonl", max_pixels=9216
    )
    assert result["n"] == 12
    assert result["unsupported_rate"]["value"] == pytest.approx(4 / 12)
    assert result["level_agreement"]["value"] == 1.0


@pytest.fixture
def server(tmp_path):
    """URL of a real judge behind the OpenAI protocol, and the file in which it logs what it was asked."""
    script = Path(__file__).parents[1] / "aescot" / "chat_server.py"
    folder = tmp_path / "server"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, str(script), str(folder)])
    deadline = time.monotonic() + 120
    while not (folder / "port").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield f"http://127.0.0.1:{(folder / 'port').read_text()}/v1", folder / "requests.jsonl"
    process.terminate()
    process.wait()


@pytest.mark.slow
def test_a_judge_behind_a_server_is_asked_once_for_all(server, picture_folder, tmp_path):
    url, log = server
    paths = sorted(picture_folder.glob("*.png"))[:6]
    samples = {path.name: Sample(path.name, str(path), 0.5, "folder", "test") for path in paths}
    rows = [
        {"id": name, "score": 0.5 if index < 4 else 0.9, "critique": f"A house, seen {index} times."}
        for index, name in enumerate(samples)
    ]
    settings = JudgeSettings(name="openai", model="fake", api_base=url, max_concurrency=2, timeout_s=60)
    how = {"settings": settings, "journal": tmp_path / "judge.jsonl", "max_pixels": 9216}
    result = judge_critiques(rows, samples, **how)
    assert result["n"] == 6
    assert result["level_agreement"]["value"] == pytest.approx(4 / 6)  # the server rates everything as fair
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(one["role"] for one in asked) == ["align"] * 6 + ["fact"] * 6
    assert all((one["picture"] is None) == (one["role"] == "align") for one in asked)
    assert judge_critiques(rows, samples, **how) == result
    assert len(log.read_text().splitlines()) == 12
