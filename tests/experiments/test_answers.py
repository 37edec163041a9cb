"""answers.csv.gz: what a study's runs answered, from which the numbers of its result.json come out again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aes_r1.evaluation.metrics import correlations
from experiments.answers import read_answers, write_answers
from experiments.reading import by_condition, read_runs
from experiments.reward_ablation.analyse import STUDY
from experiments.study import HERE, main
from tests.experiments.runs import BASE, write_run


@pytest.fixture
def runs(tmp_path) -> Path:
    for name, width in (("rapo", 0.05), ("error", 0.3)):
        for seed in (0, 1):
            settings = replace(BASE, seed=seed, reward=replace(BASE.reward, name=name))
            noise = {"cold_start": 2 * width, "rapo": width}
            write_run(tmp_path / "runs" / f"{name}{seed}", settings, noise=noise, failed=0.2)
    return tmp_path / "runs"


def again(answers: Path, result: dict, stage: str) -> int:
    """Compute every SRCC, PLCC and MAE of `result`'s rows from the file; return how many were compared."""
    cells, compared = read_answers(answers), 0
    for row in result["rows"]:
        for seed, found in row["srcc"]["seeds"].items():
            answered = cells[row["condition"], str(seed), stage, row["set"], row["protocol"]].values()
            metrics = correlations([score for score, _ in answered], [mos for _, mos in answered], n_bootstrap=2)
            for name in ("srcc", "plcc", "mae"):
                value = row[name]["seeds"][seed]["value"]
                assert metrics[name]["value"] == pytest.approx(value, abs=1e-9), (row["condition"], seed, name)
                compared += 1
            assert found["value"] is not None
    return compared


@pytest.mark.slow
def test_the_numbers_of_a_study_come_out_of_its_answers_again(runs, tmp_path):
    main(STUDY, [str(runs), str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (
        again(tmp_path / "out" / "answers.csv.gz", result, "rapo") == 2 * 2 * 2 * 3
    )  # protocols, arms, seeds, metrics
    result["rows"][0]["srcc"]["seeds"]["1"]["value"] += 1e-6
    with pytest.raises(AssertionError):
        again(tmp_path / "out" / "answers.csv.gz", result, "rapo")


@pytest.mark.slow
def test_answers_are_written_whole_and_the_same_each_time(runs, tmp_path):
    found = by_condition(read_runs(runs)[0], STUDY.label, STUDY.axes)
    for name in ("a", "b"):
        write_answers(tmp_path / name, found)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = read_answers(tmp_path / "a")
    assert len(read) == 2 * 2 * 2 * 2  # arms, seeds, stages, protocols
    for condition, by_seed in found.items():
        for seed, run in by_seed.items():
            for stage in ("cold_start", "rapo"):
                written = read[condition, str(seed), stage, "scenes/test", "greedy"]
                assert written == run.answers(stage, "scenes/test", "greedy")
                assert None in [score for score, _ in written.values()], "an unreadable answer stays one"


COMMITTED = sorted(HERE.glob("*/results/answers.csv.gz"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parts[-3])
@pytest.mark.slow
def test_the_committed_results_come_out_of_the_committed_answers(path):
    assert again(path, json.loads(path.with_name("result.json").read_text()), "rapo") > 0
