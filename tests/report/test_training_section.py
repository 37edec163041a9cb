"""Training curves: which charts a run's rows give, and that each names what it draws."""

from __future__ import annotations

from aes_r1.report.training_section import training_section


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
