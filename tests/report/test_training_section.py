"""Training curves: which charts a run's rows give, and that each names what it draws."""

from __future__ import annotations

import pytest

from aes_r1.report.html import render
from aes_r1.report.training_section import training_section
from aes_r1.settings.model import SUB_SCORES
from aes_r1.tracking.glossary import GLOSSARY


def rows(**rewards: float) -> list[dict]:
    return [
        {"stage": "rapo", "step": step, "reward/total": 1.0 + step, "rollout/mismatch_mean": 1e-6, **rewards}
        for step in (1, 2, 3)
    ]


def titles(metrics: list[dict]) -> list[str]:
    section = training_section(metrics)
    assert section is not None
    return [chart.title for chart in section["charts"]]


def test_rewards_of_the_critique_have_a_chart_where_there_are_some():
    """The chart names those that were rewarded, and no others; a run that pays the score alone has none."""
    assert "Rewards of the critique" not in titles(rows())
    section = training_section(rows(**{"reward/faithfulness": 0.25, "reward/information": 0.5}))
    assert section is not None
    chart = next(chart for chart in section["charts"] if chart.title == "Rewards of the critique")
    assert [name for name, _ in chart.names] == ["faithfulness", "information"]


def test_the_gap_between_sampler_and_trainer_has_a_chart():
    assert "Sampler against trainer, nats" in titles(rows())


@pytest.mark.parametrize(
    ("checked", "shown", "unchecked", "said"),
    [
        (8, 0, 0, "None of the 8 signs that could be checked showed."),
        (8, 1, 0, "1 of the 8 signs that could be checked showed."),
        (8, 2, 3, "2 of the 8 signs that could be checked showed. 3 could not be checked: the last column says what "
         "each needs."),
        (1, 0, 0, "The one sign that could be checked did not show."),
        (1, 1, 1, "The one sign that could be checked showed. 1 could not be checked: the last column says what it "
         "needs."),
        (0, 0, 2, "No sign could be checked. 2 could not be checked: the last column says what each needs."),
    ],
)  # fmt: skip
def test_one_sign_and_many_read_well(checked, shown, unchecked, said):
    row = {"sign": "s", "meaning": "m", "value": 0.1, "sense": "above", "threshold": 1, "remedy": "r", "needs": "n"}
    states = [(True, "step 1" if index < shown else None) for index in range(checked)] + [(False, None)] * unchecked
    html = render("health.html", health=[{**row, "checked": known, "shown": step} for known, step in states])
    words = " ".join(html.split("</p>")[0].split()).partition(">")[2]
    assert words == said


def test_nothing_measured_is_no_section():
    assert training_section([]) is None


def test_every_reward_that_training_earns_is_drawn():
    """Each reward of the glossary has a curve, so that no run's own objective is missing from its page."""
    penalties = ("reward/kl", "reward/overlong", "reward/judge_unread")  # not rewards, or a share
    named = [name for name in GLOSSARY if name.startswith("reward/") and name not in penalties]
    names = [name.replace("<dimension>", dimension) for name in named for dimension in SUB_SCORES]
    section = training_section(rows(**dict.fromkeys(names, 0.5)))
    drawn = [name for chart in section["charts"] if "eward" in chart.title for name, _ in chart.names]
    assert sorted(drawn) == sorted({name.removeprefix("reward/").replace("_", " ") for name in names})
