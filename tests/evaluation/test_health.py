"""Every sign shows on rows made to show it, and on no healthy run."""

from __future__ import annotations

import random

import pytest

from aes_r1.evaluation.health import (
    ONE_PLACE,
    SIGNS,
    UNREAD,
    WINDOW,
    HealthMonitor,
    evaluation_rows,
    health_rows,
    long_enough,
    raised_in,
)
from aes_r1.prompts import answer
from aes_r1.report.html import render
from aes_r1.report.training_section import health_section

WORDS = [f"word{letter}{other}" for letter in "abcdefghij" for other in "klmnopqrst"]


def metrics(count: int = 30, **changes) -> list[dict]:
    """A healthy run; `changes` are functions of the step, names with __ for /."""
    healthy = {
        "policy/entropy": 1.0, "rollout/zero_spread_groups": 0.02, "rollout/parse_failure_rate": 0.01,
        "rollout/truncated_rate": 0.0, "policy/kl_k3": 0.05, "policy/skipped_steps": 0, "rollout/mismatch_mean": 0.0015,
        "rollout/score_mean": None, "rollout/score_std": float("nan"),
    }  # fmt: skip
    rows = [{"stage": "rapo", "step": step, **healthy} for step in range(1, count + 1)]
    rows[-1] |= {"eval/scenes/srcc": 0.7, "eval/scenes/plcc": 0.69}
    for name, value in changes.items():
        for row in rows:
            row[name.replace("__", "/")] = value(row["step"])
    return rows


def completions(step: int, critique, order: str = "critique_first", *, score: float = 0.62) -> list[dict]:
    texts = [critique(index) for index in range(20)]
    return [
        {"stage": "rapo", "step": step, "id": str(index), "text": answer(text, score, order), "score": score}
        for index, text in enumerate(texts)
    ]


def varied(place: int) -> str:
    return " ".join(random.Random(place).choices(WORDS, k=30))


def shown(rows: list[dict], texts: list[dict]) -> dict[str, int]:
    return {row["sign"]: row["step"] for row in health_rows(rows, texts) if row["step"] is not None}


@pytest.mark.slow
def test_a_healthy_run_shows_nothing():
    texts = completions(1, varied) + completions(30, lambda place: varied(place + 100))
    assert shown(metrics(), texts) == {}


@pytest.mark.parametrize(
    ("sign", "changes", "step"),
    [
        # The mean of the last 10 steps passes .1 when 6 of them are at .2: (4 x .01 + 6 x .2) / 10 = .124; 5 give .105.
        ("parse failures", {"rollout__parse_failure_rate": lambda step: 0.2 if step > 20 else 0.01}, 25),
        ("truncation", {"rollout__truncated_rate": lambda step: 0.15}, WINDOW),
        ("zero-spread groups", {"rollout__zero_spread_groups": lambda step: 0.4 if step > 10 else 0.0}, 18),
        ("KL running away", {"policy__kl_k3": lambda step: 0.1 * step}, 10),
        # .5 from step 12 on and .0015 before: one of ten at .5 makes .051.
        ("sampler mismatch", {"rollout__mismatch_mean": lambda step: 0.5 if step > 11 else 0.0015}, 12),
        # One such step is enough, and so is a null in the file or a NaN or infinity in the live row.
        ("not finite", {"policy__skipped_steps": lambda step: int(step == 7)}, 7),
        ("not finite", {"policy__grad_norm": lambda step: None if step == 7 else 0.5}, 7),
        ("not finite", {"policy__loss": lambda step: float("nan") if step == 1 else 0.5}, 1),
        ("not finite", {"reward__total": lambda step: float("inf") if step == 30 else 0.5}, 30),
        ("not finite", {"rollout__mismatch_max": lambda step: float("-inf") if step == 3 else 0.5}, 3),
        # Below .3 of its start of 1: 8 x .2 + 2 x 1 over 10 = .36, 9 x .2 + 1 = .28.
        ("entropy collapse", {"policy__entropy": lambda step: 0.2 if step > 15 else 1.0}, 24),
    ],
)
def test_a_sign_shows_at_the_step_where_its_mean_passes(sign, changes, step):
    assert shown(metrics(**changes), []) == {sign: step}


def test_rank_dominates_only_where_something_is_ranked():
    rows = metrics()
    rows[-1] |= {"eval/scenes/srcc": 0.59, "eval/scenes/plcc": 0.45}
    assert shown(rows, []) == {"rank dominates": 30}
    rows[-1] |= {"eval/scenes/srcc": 0.25, "eval/scenes/plcc": 0.05}
    assert shown(rows, []) == {}


@pytest.mark.slow
def test_one_critique_for_every_picture_is_generic():
    texts = completions(1, varied) + completions(30, lambda place: varied(7))
    assert shown(metrics(), texts) == {"generic critiques": 30}


@pytest.mark.parametrize(
    ("sign", "name", "values", "step"),
    [
        ("critiques turn alike", "critique/distinct", [92, 80, 50, 30], 20),  # 80 is .87 of 92, 50 is .54
        ("words lose the picture", "critique/information_nats", [4.5, 3.0, 2.4, 1.5], 30),  # .67, .53, .33
    ],
)
def test_critiques_are_compared_with_those_before_the_first_step(sign, name, values, step):
    def rows(measured):
        start, *later = measured
        first = {"stage": "rapo", "step": 0, name: start}
        return [first] + [{**row, **({name: later.pop(0)} if row["step"] % 10 == 0 else {})} for row in metrics()]

    assert shown(rows(values), []) == {sign: step}
    assert shown(rows([values[0]] * 4), []) == {}
    assert shown(rows([0.0, 0.0, 0.0, 0.0]), []) == {}, "a base model that says nothing has nothing to lose"


@pytest.mark.parametrize("name", ["critique/distinct", "critique/information_nats"])
@pytest.mark.parametrize(("unread", "is_checked"), [(1.0, False), (0.5, False), (0.49, True), (None, True)])
def test_words_that_are_lost_with_the_format_are_not_judged(name, unread, is_checked):
    """Where most answers cannot be read, few critiques are left, and the remedies for their content are beside it."""
    sign = {"critique/distinct": "critiques turn alike", "critique/information_nats": "words lose the picture"}[name]
    rows = [{"stage": "rapo", "step": 0, name: 50.0}, *metrics()]
    rows[-1] |= {name: 1.0, "eval/scenes/parse_failure_rate": unread}
    judged = next(row for row in health_rows(rows, []) if row["sign"] == sign)
    assert (judged["shown"] is not None) == judged["checked"] == is_checked
    assert "answers of the last can be read" in judged["needs"]
    alerts = []
    watch = HealthMonitor(lambda title, _: alerts.append(title))
    for row in rows:
        watch.step(row["step"], row)
    assert (sign in alerts) == is_checked


@pytest.mark.parametrize("order", ["critique_first", "score_first"])
@pytest.mark.slow
def test_a_critique_that_names_its_score_leaks(order):
    texts = completions(1, varied, order) + completions(20, lambda n: f"{varied(n)} so I give it 0.62.", order)
    assert shown(metrics(), texts) == {"leaking critiques": 20}


def test_too_little_is_no_sign():
    early = metrics(count=WINDOW - 1, policy__kl_k3=lambda step: 9.0, rollout__parse_failure_rate=lambda step: 1.0)
    assert shown(early, completions(1, lambda place: "I was told 0.62")[:5]) == {}


def test_the_watch_raises_once_and_not_again_after_a_resume(caplog):
    alerts = []
    watch = HealthMonitor(lambda title, text: alerts.append((title, text)))
    rows = metrics(rollout__truncated_rate=lambda step: 0.5)
    for row in rows[:20]:
        watch.step(row["step"], {name: value for name, value in row.items() if name not in ("stage", "step")})
    assert [title for title, _ in alerts] == ["truncation"]
    assert "Step 10." in alerts[0][1]
    assert "max_new_tokens" in alerts[0][1]
    assert raised_in(caplog.text) == {"truncation": 10}

    resumed = HealthMonitor(lambda title, text: alerts.append((title, text)), metrics=rows[:15])
    for row in rows[15:]:
        resumed.step(row["step"], row)
    assert len(alerts) == 1


@pytest.mark.slow
def test_live_and_in_the_report_a_sign_shows_at_the_same_step():
    alerts: list[str] = []
    watch = HealthMonitor(lambda title, text: alerts.append(f"{title} {text.split('.')[0]}"))
    rows = metrics(policy__entropy=lambda step: 0.2 if step > 15 else 1.0)
    texts = completions(1, varied) + completions(28, lambda place: varied(7))
    for row in rows:
        watch.log_completions(row["step"], [one for one in texts if one["step"] == row["step"]])
        watch.step(row["step"], row)
    assert sorted(alerts) == sorted(f"{name} Step {step}" for name, step in shown(rows, texts).items())
    assert len(alerts) == 2


def test_the_report_names_step_and_remedy():
    result = health_section(metrics(rollout__truncated_rate=lambda step: 0.5), [], {}, "rapo")
    page = render("health.html", health=result)
    assert "1 of the 8 signs that could be checked showed" in page
    assert "5 could not be checked" in page
    assert page.count("not checked<small>needs ") == 5
    assert (
        page.count("<small>needs two validations with critiques, where most answers of the last can be read</small>")
        == 2
    )
    assert "step 10" in page
    assert "max_new_tokens" in page
    assert health_section([{"stage": "sft", "step": 1}], [], {}, "rapo") == []


def evaluated(share: float) -> dict:
    """An evaluation whose last stage left `share` of the pictures unanswered when asked greedily."""
    cells = {"greedy": {"parse_failure_rate": share}, "direct": {"parse_failure_rate": 1.0}}
    return {
        "stages": {"base": {"folder/test": {"greedy": {"parse_failure_rate": 1.0}}}, "rapo": {"folder/test": cells}}
    }


def test_an_evaluation_that_cannot_be_read_is_a_sign_of_its_own():
    """Three steps of RAPO and not one readable answer: no sign of the training could be checked, this one shows."""
    short = metrics(3, rollout__parse_failure_rate=lambda step: 1.0)
    result = health_section(short, [], evaluated(1.0), "rapo")
    assert [(row["sign"], row["shown"]) for row in result if row["shown"]] == [(UNREAD.name, "in the evaluation")]
    page = render("health.html", health=result)
    assert "1 of the 3 signs that could be checked showed" in page  # the others need a step or a validation
    assert "10 could not be checked" in page
    for share, shown_there in ((0.1, None), (0.11, "in the evaluation")):
        (row,) = evaluation_rows(evaluated(share), "rapo")
        assert row["shown"] == shown_there
    alone = health_section([{"stage": "sft", "step": 1}], [], evaluated(0.4), "rapo")  # without RAPO's rows, too
    assert [row["value"] for row in alone] == [0.4]
    (row,) = evaluation_rows({}, "rapo")
    assert not row["checked"]


@pytest.mark.parametrize("left_out", ["cold_start", None])
def test_an_evaluation_of_other_models_says_nothing_of_the_last(left_out):
    """Stages may be left out of the evaluation, and metrics of pyiqa stand behind the models in it."""
    metric = {"pyiqa-nima": {"folder/test": {"metric": {"parse_failure_rate": 1.0}}}}
    evaluation = {"stages": evaluated(0.4)["stages"] | metric}
    (row,) = evaluation_rows(evaluation, left_out)
    assert (row["value"], row["shown"], row["checked"]) == (None, None, False)
    (row,) = evaluation_rows(evaluation, "rapo")
    assert row["value"] == 0.4


def test_choices_that_name_one_place_are_a_sign():
    """The share of the first place is .06 on one set and .6 on the other: 94% of the first set's name the second."""

    def asked(*shares: float | None) -> dict:
        pairs = {f"set{at}/test": {"first_share": {"value": share}} for at, share in enumerate(shares)}
        return evaluated(0.0) | {"pairs": {"base": {"set0/test": {"first_share": {"value": 1.0}}}, "rapo": pairs}}

    for shares, value, shown in (
        ((0.06, 0.6), 0.94, "in the evaluation"),
        ((0.5, 0.75), 0.75, None),
        ((None,), None, None),
    ):
        _, row = evaluation_rows(asked(*shares), "rapo")
        assert (row["sign"], row["value"], row["shown"]) == (ONE_PLACE.name, value, shown)
        assert row["checked"] is (value is not None)


def test_signs_that_are_means_need_their_steps():
    assert not long_enough(metrics(WINDOW - 1))
    assert long_enough(metrics(WINDOW))
    assert not long_enough([{**row, "stage": "sft"} for row in metrics(WINDOW)])


def test_every_sign_has_threshold_meaning_and_remedy():
    assert len({sign.name for sign in SIGNS}) == len(SIGNS) == 12
    assert all(sign.threshold >= 0 and len(sign.meaning) > 30 and len(sign.remedy) > 10 for sign in SIGNS)


@pytest.mark.slow
def test_a_long_run_is_judged_in_a_time_that_grows_with_its_steps():
    """The signs are judged anew at every step, so no measure may go through all metrics of all steps before it."""
    asked = []

    class Row(dict):
        def items(self):
            asked.append(self["step"])
            return super().items()

    rows = [Row(row) for row in metrics(400)]
    assert shown(rows, []) == {}
    assert len(asked) == 400, "every row is gone through once"
