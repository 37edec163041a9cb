"""Which of several takes is kept: groups, the order in them, and the probability beside it."""

import csv
import io
import json
import re
import sys

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from aes_r1 import score
from aes_r1.scoring.bursts import group_takes, kept_summary


def row(path, *scores, alike="0" * 16):
    answered = [one for one in scores if one is not None]
    mean = float(np.mean(answered)) if answered else None
    return {"path": path, "score": mean, "scores": list(scores), "hash": alike}


def test_the_best_of_a_group_comes_first_and_is_kept():
    far = "f" * 16
    rows = [row("a", 0.3, 0.4), row("b", 0.8, 0.9, alike=far), row("c", 0.6, 0.7), row("d", None, None)]
    chosen = group_takes(rows, within=12)
    assert [(one["group"], one["path"], one["keep"]) for one in chosen] == [
        (1, "c", True), (1, "a", False), (1, "d", None), (2, "b", True),
    ]  # fmt: skip
    # Two answers each: pooled s = .0707, 2 degrees of freedom, t = .3 / (s sqrt(1/2 + 1/2)) = 4.243, P(T < t) = .9743.
    assert chosen[0]["best"] == pytest.approx(0.9743, abs=0.005)
    assert chosen[0]["best"] + chosen[1]["best"] == pytest.approx(1.0, abs=1e-3)
    assert (chosen[2]["best"], chosen[3]["best"]) == (None, None)
    assert all("hash" not in one for one in chosen)
    assert list(kept_summary(chosen)) == ["best of: 1 group of alike pictures, 1 alone; 2 to keep"]


def test_a_close_choice_is_said_to_be_one():
    close = group_takes([row("a", 0.5, 0.7), row("b", 0.55, 0.7)], within=0)
    assert (close[0]["path"], close[0]["keep"]) == ("b", True)
    assert 0.5 < close[0]["best"] < 0.7
    assert "in 1 of them another may be better" in list(kept_summary(close))[1]
    same = group_takes([row("a", 0.5, 0.5), row("b", 0.5, 0.5)], within=0)
    assert [one["best"] for one in same] == pytest.approx([0.5, 0.5], abs=0.01)


def test_one_answer_each_has_no_probability():
    once = group_takes([row("a", 0.5), row("b", 0.7)], within=0)
    assert [(one["path"], one["keep"], one["best"]) for one in once] == [("b", True, None), ("a", False, None)]
    assert "asked about once" in list(kept_summary(once))[1]
    silent = group_takes([row("a", None), row("b", None)], within=0)
    assert [one["keep"] for one in silent] == [None, None]
    assert list(kept_summary(silent))[0].endswith("0 to keep")
    assert list(kept_summary([])) == []


@pytest.fixture
def burst(tmp_path):
    """Three takes of one scene, moved and brighter from one to the next, and another scene."""
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)) for _ in range(2)]
    scenes = [one.resize((120, 120), Image.Resampling.BICUBIC) for one in small]
    for take in range(3):
        moved = scenes[0].crop((take, take, 100 + take, 100 + take))
        ImageEnhance.Brightness(moved).enhance(0.6 + 0.2 * take).save(tmp_path / f"take_{take}.png")
    scenes[1].save(tmp_path / "other.png")
    return tmp_path


@pytest.mark.slow
def test_the_command_says_which_take_to_keep(burst, talking_run, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["score", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            score.main()
        said = capsys.readouterr()
        return leaving.value.code, said.out, said.err

    asked = (burst, "--model", talking_run, "--best-of", "--format")
    code, out, err = run(*asked, "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    groups = {number: [one for one in rows if one["group"] == number] for number in (1, 2)}
    assert code == 0
    assert [len(group) for group in groups.values()] == [1, 3]
    assert [one["keep"] for one in groups[2]] == [True, False, False]
    assert groups[2][0]["score"] == max(one["score"] for one in groups[2])
    assert sum(one["best"] for one in groups[2]) == pytest.approx(1, abs=1e-3)
    assert "best of: 1 group of alike pictures, 1 alone; 2 to keep" in err

    _, out, _ = run(*asked, "csv")
    read = list(csv.DictReader(io.StringIO(out)))
    assert list(read[0])[:5] == ["path", "score", "low", "high", "critique"]
    assert [(one["path"], one["group"], one["keep"]) for one in read] == [
        (one["path"], str(one["group"]), str(one["keep"])) for one in rows
    ]
    _, out, _ = run(*asked, "table")
    assert "says nothing of people's opinions" in out
    shown = re.findall(r"^ +([12]) +(yes|no|\?)", out, re.MULTILINE)
    assert shown == [("1", "yes"), ("2", "yes"), ("2", "no"), ("2", "no")]
    (burst / "..link.png").symlink_to(burst / "take_0.png")
    _, out, err = run(burst / "take_1.png", burst / "..link.png", *asked, "jsonl")
    named = [json.loads(line)["path"] for line in out.splitlines()]
    assert sorted(named) == sorted(
        str(burst / name) for name in ("take_1.png", "..link.png", "take_2.png", "other.png")
    )
    assert "2 to keep" in err
    code, _, err = run(burst, "--model", talking_run, "--best-of", "--sort", "score")
    assert (code, "--sort=score" in err) == (2, True)
