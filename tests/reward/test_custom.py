"""A reward of one's own: what it is given, and every way in which it can be wrong."""

from __future__ import annotations

import pytest
import torch

from aes_r1.data.sample import Sample
from aes_r1.reward.custom import custom_reward, load_reward
from aes_r1.settings import InputError

SCORES = torch.tensor([[0.2, float("nan")], [0.6, 0.7]])
TEXTS = [["ab", "abc"], ["abcd", ""]]
SAMPLES = [Sample(name, f"{name}.jpg", mos, "folder", "train") for name, mos in (("one", 0.25), ("two", 0.5))]


def named(tmp_path, text: str, function: str = "reward") -> str:
    (tmp_path / "mine.py").write_text(text)
    return f"{tmp_path / 'mine.py'}:{function}"


def earned(name: str) -> torch.Tensor:
    return custom_reward(load_reward(name), name, SCORES, TEXTS, SAMPLES)


def test_it_sees_scores_texts_and_samples(tmp_path):
    text = """
import torch
def reward(scores, texts, samples):
    near = 1 - (scores - torch.tensor([one.mos for one in samples])[:, None]).abs()
    return [[len(said) + (0 if value != value else value) for said, value in zip(a, b)]
            for a, b in zip(texts, near.tolist())]
"""
    torch.testing.assert_close(earned(named(tmp_path, text)), torch.tensor([[2.95, 3.0], [4.9, 0.8]]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def reward(scores, texts, samples):\n    return scores[5]", r"line 2: IndexError: .*; mend the function"),
        ("class Mine(Exception): ...\ndef reward(a, b, c):\n    raise Mine('no\\nserver')", "line 3: Mine: no server;"),
        (
            "import sys\ndef reward(a, b, c):\n    sys.exit('no model')",
            "line 3: SystemExit: no model; mend the function",
        ),
        ("def reward(a, b, c): return 'high'", "mend the function"),
        ("def reward(a, b, c): return None", "mend the function"),
        ("def reward(a, b, c): return [[1, 2], [3]]", "mend the function"),
        ("def reward(a, b, c): return 1.0", r"returned one number; 2 x 2 was expected"),
        ("def reward(a, b, c): return [1.0, 2.0]", r"returned 2; 2 x 2 was expected"),
        ("def reward(a, b, c): return a.T[:1]", r"returned 1 x 2; 2 x 2 was expected"),
        ("def reward(a, b, c): return a", r"returned nan for completion 1 of one; every reward must be finite"),
        ("def reward(a, b, c): return [[0, 0], [0, 1e39]]", r"returned inf for completion 1 of two"),
    ],
)
def test_what_it_returns_is_checked(tmp_path, text, said):
    name = named(tmp_path, text)
    with pytest.raises(InputError, match=said) as raised:
        earned(name)
    assert str(raised.value).startswith(f"reward.custom={name}: ")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "function", "said"),
    [
        ("def other(a, b, c): ...", "reward", "has no function reward; it has other"),
        ("reward = 3", "reward", "has no function reward; it has none"),
        ("def reward(scores): ...", "reward", r"three arguments \(too many positional arguments\); give def reward\("),
        ("def reward(a, b, c, d): ...", "reward", r"three arguments \(missing a required argument: 'd'\)"),
        ("import no_such_package", "reward", "line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys\nsys.exit(1)", "reward", "line 2: SystemExit: 1; mend the file"),
        ("def reward(:", "reward", "SyntaxError"),
    ],
)
def test_what_cannot_be_called_is_refused(tmp_path, text, function, said):
    with pytest.raises(InputError, match=said):
        load_reward(named(tmp_path, text, function))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"reward.custom=no/such\.py:reward: no file no/such\.py"):
        load_reward("no/such.py:reward")
