"""Runs of studies read from their folders."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aes_r1.report.studies import SECTIONS, condition_names, read_studies, run_names, shown, value_text, varied
from aes_r1.settings import InputError, Settings, TrackerSettings, as_dict
from aes_r1.tracking.glossary import definition
from tests.experiments.runs import write_run

BASE = Settings(tracker=TrackerSettings(name="none"))


def differing(*settings: Settings) -> list[str]:
    return varied([{"settings": as_dict(one)} for one in settings])


def test_every_shown_name_is_defined():
    assert all(definition(name) for names in SECTIONS.values() for name in names)


def test_no_runs_is_said(tmp_path):
    with pytest.raises(InputError, match="no run folder"):
        read_studies(tmp_path)


def test_a_setting_that_follows_from_another_is_left_out():
    reward = BASE.reward
    rank = replace(reward, name="rank", error=replace(reward.error, weight=0.0))
    error = replace(reward, name="error", rank=replace(reward.rank, weight=0.0))
    assert differing(*(replace(BASE, reward=one) for one in (reward, rank, error))) == ["reward.name"]


def test_settings_of_a_search_are_all_kept():
    def point(lr: float, sigma: float) -> Settings:
        error = replace(BASE.reward.error, sigma=sigma)
        return replace(BASE, trainer=replace(BASE.trainer, lr=lr), reward=replace(BASE.reward, error=error))

    assert set(differing(point(1e-4, 0.1), point(2e-4, 0.2), point(3e-4, 0.3))) == {"trainer.lr", "reward.error.sigma"}
    assert differing(BASE) == differing(BASE, BASE) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "true"), (3, "3"), (0.12345, "0.123"), ("rapo", "rapo"), ([], "[]"), ({}, "{}"),
        ([1.0, 10.0], "[1, 10]"), (["scenes_shifted", None], "[scenes_shifted, null]"),
        ([{"attributes": None, "name": "para", "mix": {}}], "[para]"),
        ({"a": [None, {"b": 0.5}]}, "{a: [null, {b: 0.5}]}"),
    ],
)  # fmt: skip
def test_a_value_reads_as_on_the_command_line(value, text):
    assert value_text(value) == text


def test_conditions_have_the_names_of_runs_without_seeds():
    settings = [
        {
            "seed": seed, "data": {"name": name, "unseen": unseen},
            "trainer": {"lr": lr, "max_steps": steps, "credit": name},
        }
        for seed, name, unseen, lr, steps in (
            (0, "a", [{"name": "b", "limit": None}], 0.1, 1), (0, "c", [], 0.2, 2), (1, "c", [], 0.2, 2)
        )
    ]  # fmt: skip
    names = condition_names(settings)
    assert names[1:] == ["settings of most"] * 2
    assert run_names(settings) == [f"{name}, seed {one['seed']}" for name, one in zip(names, settings, strict=True)]
    assert "unseen=[b]" in names[0]
    assert condition_names(settings[1:]) == ["", ""]


@pytest.mark.slow
def test_every_run_says_how_far_it_is(tmp_path):
    for name in ("done", "failed", "going"):
        write_run(tmp_path / "study" / name, BASE, noise={"rapo": 0.1})
    for name in ("failed", "going"):
        (tmp_path / "study" / name / "stages" / "report.json").unlink()
    (tmp_path / "study" / "failed" / "failure.txt").write_text("no room\n")
    runs = read_studies(tmp_path)["study"]
    assert {run["name"]: run["state"] for run in runs} == {
        "done": "done",
        "failed": "failed: no room",
        "going": "not finished",
    }
    assert shown("Agreement", runs) == ["eval/scenes/srcc"]
