"""Every study of sweeps/: its header, and the settings of every one of its points."""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path

import pytest
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser

from aes_r1 import recipe
from aes_r1.runs.identity import run_fingerprint
from aes_r1.settings import Settings, as_dict
from aes_r1.tracking.wandb_run import group_of
from experiments.reward_ablation.analyse import STUDY
from experiments.study import analyse
from tests import processes
from tests.conftest import label_twelve

ROOT = Path(__file__).parents[1]
FILES = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml"))
STUDIES = [name for name in FILES if name != "tune"]  # tune is a search: its points are not known before
# What the points of a study differ in, besides the seed.
AXES = {
    "reward_ablation": {"reward"},
    "reward_weights": {"reward"},
    "sigma_gamma": {"reward"},
    "num_samples": {"trainer"},
    "group_size": {"trainer"},
    "sft_entropy": {"cold_start"},
    "data_scale": {"data"},
    "objective": {"reward"},
    "overconfidence": {"reward"},
    "ties_and_pool": {"reward"},
    "parse_policy": {"reward"},
    "splits": {"data"},
    "ai_generated": {"reward"},
    "grounding": {"trainer", "reward", "cold_start", "data", "model"},
    "reasoning": {"trainer", "data", "model"},
    "answer_from": {"model", "cold_start"},
}


pytestmark = pytest.mark.usefixtures("hydra")


def composed(*overrides: str, hydra: bool = False):
    return compose("config", overrides=list(overrides), return_hydra_config=hydra)


def points(study: str) -> list[list[str]]:
    """Overrides of points as Hydra's basic sweeper makes them from the file's params.

    Of the product of all axes, every value of every axis: all conditions with one seed, all seeds with one condition.
    """
    params = composed(f"+sweeps={study}", hydra=True).hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    axes = [[f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()] for one in parsed]
    every = [list(point) for point in product(*axes)]
    condition, *_ = map(_condition, every)
    return [point for point in every if "seed=0" in point or _condition(point) == condition]


def _condition(point: list[str]) -> list[str]:
    return [override for override in point if not override.startswith("seed=")]


def test_every_study_of_the_question_list_is_there():
    assert set(STUDIES) == set(AXES)


@pytest.mark.parametrize("study", FILES)
def test_the_header_says_question_command_time_and_cost(study):
    lines = (ROOT / "sweeps" / f"{study}.yaml").read_text().splitlines()
    head = " ".join(line for line in lines if line.startswith("#"))
    assert lines[0] == "# @package _global_"
    assert "?" in head
    assert f"make sweep NAME={study}" in head
    assert "minutes on 2 cores, no cost" in head


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_every_point_is_valid_and_differs_only_where_the_study_asks(study):
    config = composed(f"+sweeps={study}", hydra=True)
    assert str(config.hydra.mode) == "RunMode.MULTIRUN"
    found: dict[str, Settings] = {}
    for overrides in points(study):
        config = composed(f"+sweeps={study}", *overrides)
        settings = recipe.to_settings(config)
        assert settings.out == f"runs/{study}/{run_fingerprint(settings)}"
        found[settings.out] = settings
    every = list(found.values())
    assert len(every) == len(points(study))
    assert {one.seed for one in every} >= {0, 1, 2}
    first = every[0]
    differing = {
        name for one in every for name in vars(first) if getattr(one, name) != getattr(first, name) and name != "out"
    }
    assert differing == AXES[study] | {"seed"}
    assert all(one.run_name == group_of(as_dict(one)) == study and study in one.tracker.tags for one in every)
    assert all(one.trainer.max_steps or one.trainer.epochs < 1 for one in every), "a point of a study is short"


@pytest.mark.slow
def test_the_search_is_over_four_settings_and_never_sees_a_test_picture():
    config = composed("+sweeps=tune", hydra=True)
    assert config.hydra.sweeper._target_.endswith("OptunaSweeper")
    assert config.hydra.sweeper.storage == "runs/tune/study.db"
    space = config.hydra.sweeper.params
    assert set(space) == {"reward.error.sigma", "reward.rank.gamma", "reward.error.weight", "trainer.lr"}
    for end in (0, 1):
        parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in space.items()])
        ends = [f"{one.get_key_element()}={(one.value().start, one.value().end)[end]}" for one in parsed]
        settings = recipe.to_settings(composed("+sweeps=tune", *ends))
        assert settings.data.split == "validation"
        assert settings.evaluation.also == []
        assert settings.reward.rank.weight == 1
        assert settings.reward.format.weight == settings.reward.binary.weight == 0, "or the ratio would not be all"
        assert settings.trainer.scale_advantage
    usual = recipe.to_settings(composed("+experiment=study"))
    for key in ("reward.error.sigma", "reward.rank.gamma", "reward.error.weight", "trainer.lr"):
        group, *rest = key.split(".")
        value = getattr(usual, group)
        for name in rest:
            value = getattr(value, name)
        bounds = next(one.value() for one in parsed if one.get_key_element() == key)
        assert bounds.start <= value <= bounds.end, f"{key}: the usual value is in the space"


@pytest.mark.slow
def test_the_shares_of_rank_and_error_make_one():
    shares = []
    for overrides in points("reward_weights"):
        reward = composed("+sweeps=reward_weights", *overrides).reward
        assert reward.rank.weight + reward.error.weight == 1
        shares.append(reward.rank.weight)
    assert sorted(set(shares)) == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.slow
def test_the_five_full_studies_fit_in_four_hours():
    """By the costs measured on 2 cores: 1.1 s per step of 128 outputs, 30 s per epoch of cold start and the like."""
    seconds, cold_starts = 0.0, set()
    for study in ("reward_ablation", "sigma_gamma", "num_samples", "sft_entropy", "objective"):
        for overrides in points(study):
            if overrides[-1] != "seed=0":
                continue
            config = composed(f"+sweeps={study}", *overrides)
            outputs = config.trainer.num_samples * config.trainer.images_per_step
            seconds += 20 + 1.1 * outputs / 128 * config.trainer.max_steps + 50 * len(config.evaluation.stages)
            start = (config.cold_start.epochs, config.cold_start.probe_every)
            if start not in cold_starts:
                cold_starts.add(start)
                seconds += 30 * config.cold_start.epochs
    assert 3 * seconds < 4 * 3600, "three seeds"


@pytest.mark.slow
def test_a_real_sweep_shares_its_cold_start_and_runs_only_what_is_missing(picture_folder, tmp_path):
    """Two points on twelve pictures, as `make sweep` runs them, then analysed."""
    label_twelve(picture_folder)
    runs = tmp_path / "runs"

    def sweep() -> str:
        done = processes.run(
            [
                sys.executable, "-m", "aes_r1.train", "+sweeps=reward_ablation",
                "reward=rank,rapo", "seed=0", "data=folder", f"data.root={picture_folder}", "expert=pixels",
                "judge=none",
                "cold_start.batch_size=4", "cold_start.min_steps=0", "trainer.start_anyway=true",
                "cold_start.probe_every=2", "cold_start.probe_pictures=2", "trainer.max_steps=1",
                "trainer.images_per_step=2", "trainer.num_samples=2", "trainer.max_new_tokens=24",
                "evaluation.n_bootstrap=20", f"out={runs}/${{run_hash:}}", f"hydra.sweep.dir={tmp_path}/sweep",
                f"store={tmp_path}/store",
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    sweep()
    folders = sorted(runs.iterdir())
    assert len(folders) == 2
    starts = {json.loads((one / "stages" / "cold_start.json").read_text())["model"] for one in folders}
    assert len(starts) == 1
    assert sum("cold start:" in (one / "run.log").read_text() for one in folders) == 1, "trained once"
    probes = [json.loads(line) for line in (folders[0] / "entropy.jsonl").read_text().splitlines()]
    assert probes[0]["step"] == 0
    assert all(probe["entropy"] > 0 for probe in probes)
    for folder in folders:  # the one that trained the start, and the one that found it in the store
        logged = {
            row["step"]: row for row in map(json.loads, (folder / "metrics.jsonl").open()) if row["stage"] == "sft"
        }
        for probe in probes[1:]:
            assert logged[probe["step"]]["sft/entropy"] == probe["entropy"]

    told = processes.run(
        [sys.executable, "-m", "experiments.sft_entropy.measure", str(folders[0])],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    measured = {row["stage"]: row for row in map(json.loads, told.stdout.splitlines())}
    assert list(measured) == ["base", "cold_start", "rapo"]
    assert measured["cold_start"]["entropy"] == pytest.approx(probes[-1]["entropy"], rel=1e-4), "as while it trained"
    for row in measured.values():
        kinds = [kind for kind in row["by_kind"].values() if kind["tokens"]]
        assert row["tokens"] == sum(kind["tokens"] for kind in kinds) > 0
        assert row["entropy"] == pytest.approx(sum(kind["tokens"] * kind["entropy"] for kind in kinds) / row["tokens"])

    (folders[0] / "stages" / "report.json").unlink()
    before = [(one / "stages" / "rapo.json").stat().st_mtime_ns for one in folders]
    said = sweep()
    assert said.count("done before") == 1
    assert str(folders[1]) in said
    assert (folders[0] / "stages" / "report.json").exists()
    assert [(one / "stages" / "rapo.json").stat().st_mtime_ns for one in folders] == before, "nothing trains twice"

    result, found = analyse(STUDY, runs, n_bootstrap=20)
    assert list(found) == ["rank", "error+rank"]
    assert {row["n"] for row in result["rows"]} == {4}
