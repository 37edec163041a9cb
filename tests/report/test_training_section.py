"""Training curves: which charts a run's rows give, and that each names what it draws."""

from __future__ import annotations

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
