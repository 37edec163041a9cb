"""The first line of a report whose run has nothing to show: what happened, and what to try."""

import pytest

from aes_r1.report.trouble import trouble

PLACE = {"protocol": "greedy", "dataset": "own", "split": "test", "score": None}


def evaluation(answered: int, n: int = 10, srcc: float | None = None, stage: str = "rapo") -> dict:
    cell = {"n": n, "n_answered": answered, "parse_failure_rate": 1 - answered / n, "srcc": {"value": srcc}}
    return {"stages": {stage: {"own/test": {"greedy": cell}}}}


def rows(*texts: str | None, stage: str = "rapo") -> list[dict]:
    return [{**PLACE, "stage": stage, "text": text} for text in texts]


@pytest.mark.parametrize(
    ("state", "found", "outputs", "said"),
    [
        ("failed: rank 0: ValueError: <no>", {}, [], ["This run failed: rank 0: ValueError: <no>."]),
        ("not finished", {}, [], ["has not been evaluated"]),
        (
            "done",
            evaluation(0),
            rows(*["<think>on and on"] * 7, "", "<think>a</think><answer>12</answer>", "x<answer>1</answer>"),
            ["No picture of own/test", "the model after RAPO", "7 ended without an answer", "1 said nothing",
             "1 gave a number outside 0 to 1", "1 broke the format", "cold_start.min_steps"],
        ),
        ("done", evaluation(0, stage="base"), rows("?", stage="base"), ["the base model", "a cold start, which"]),
        ("done", evaluation(4, srcc=0.9), rows("?"), ["Only 4 of 10 pictures", "1 ended without an answer"]),
        ("done", evaluation(4, srcc=0.9), [], ["Only 4 of 10 pictures of own/test got an answer"]),
        ("done", evaluation(9), [], ["scores or opinions are the same"]),
        ("done", evaluation(2, n=2), [], ["fewer than three pictures"]),
    ],
)  # fmt: skip
def test_why_there_is_nothing_to_show(state, found, outputs, said):
    line = trouble(state, found, outputs)
    assert all(part in line for part in said), line


def test_the_trouble_is_that_of_the_model_of_which_the_headline_is():
    """Not of a model that was evaluated after it, as stages of an evaluation beside others are."""
    other = evaluation(9, srcc=0.9, stage="other")["stages"]
    silent = {"stages": {**evaluation(0, stage="mine")["stages"], **other}}
    assert "No picture of own/test got an answer that can be read from mine" in trouble("done", silent, [], "mine")
    assert trouble("done", silent, [], "other") == ""
    assert trouble("done", silent, [], "rapo") == "", "the last that was evaluated stands for it"


def test_a_run_that_answered_has_no_trouble():
    assert trouble("done", evaluation(6, srcc=0.5), rows("x")) == ""
