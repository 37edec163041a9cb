"""A whole run on pairs: what is learned, drawn, asked and measured, and what is refused."""

from __future__ import annotations

import pytest

from aes_r1.model import tiny
from aes_r1.pipeline.run import run
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError
from tests.conftest import twelve_pictures
from tests.pipeline.small_job import rows_of, settings
from tests.trainer.cold_starts import train_comparer

REWARD = {"rank": {"weight": 0}, "error": {"weight": 0}, "pair": {"weight": 1, "margin": 0.2}}


def of_pairs(base, root, out, **changes):
    asked = {"reward": REWARD, "cold_start": {"pairs": 1.0}, "evaluation": {"protocols": ["greedy", "pair"]}}
    return settings(base, root, out, **asked | changes)


@pytest.mark.slow
def test_a_run_on_pairs(base, root, tmp_path, capsys):
    run(of_pairs(base, root, tmp_path / "run"))
    done = RunFolder(tmp_path / "run")
    assert done.stage_values("cold_start")["records"] > len(rows_of(done.manifest("folder-train")))
    completions = rows_of(done.completions_file)
    assert {"second", "reward_pair"} <= completions[0].keys()
    assert {row["mos"] for row in completions} <= {1, 2}
    rows = rows_of(done.pairs_file)
    asked = {(row["stage"], row["id"]) for row in rows}
    assert len(asked) == 3 * 3  # stages, pairs of the six test pictures
    assert len(rows) == 2 * len(asked)
    assert {protocol for cells in done.evaluation["stages"]["rapo"].values() for protocol in cells} == {"greedy"}
    measures = done.evaluation["pairs"]["rapo"]["folder/test"]
    assert (measures["n"], measures["unread_rate"], measures["scores_by"]) == (3, 1.0, "greedy")
    assert "which of two is better" in capsys.readouterr().out
    assert "Which of two is better?" in done.report_file.read_text()


@pytest.mark.slow
def test_choices_of_a_model_that_answers_are_measured(tokenizer, root, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    comparer = tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0)
    train_comparer(comparer, twelve_pictures(pictures), tmp_path / "steps").save(tmp_path / "comparer")
    asked = of_pairs(
        tmp_path / "comparer",
        root,
        tmp_path / "run",
        cold_start={"epochs": 0, "pairs": 1.0},
        trainer={"init_from": "base", "max_new_tokens": 48, "max_steps": 2, "lr": 1e-5},  # asked about pairs alone
        evaluation={"protocols": ["greedy", "pair"], "max_new_tokens": 60},
    )
    run(asked)
    done = RunFolder(tmp_path / "run")
    rows = [row for row in rows_of(done.pairs_file) if row["stage"] == "rapo"]
    right = [row["choice"] == (1 if row["mos"][0] > row["mos"][1] else 2) for row in rows]
    measures = done.evaluation["pairs"]["rapo"]["folder/test"]
    assert measures["unread_rate"] == sum(row["choice"] is None for row in rows) / len(rows) < 0.5
    assert measures["accuracy"]["value"] == pytest.approx(sum(right) / len(right))
    assert sum(right) / len(right) > 0.6, "it has seen these pictures"
    assert measures["first_share"]["value"] is not None


@pytest.mark.slow
def test_opinions_that_are_all_too_near_are_refused_before_any_work(base, root, tmp_path):
    reward = {**REWARD, "pair": {"weight": 1, "margin": 0.9}}
    with pytest.raises(InputError) as refused:
        run(of_pairs(base, root, tmp_path / "run", reward=reward))
    said = str(refused.value)
    assert said.startswith("reward.pair.margin=0.9: 0 pairs of ")
    assert "give a smaller margin" in said
    assert "\n" not in said
    assert not (tmp_path / "store" / "cold_starts").exists()


@pytest.mark.slow
def test_rapo_does_not_start_where_no_comparison_can_be_read(base, root, tmp_path, monkeypatch):
    from aes_r1.pipeline import readable_start

    monkeypatch.setattr(readable_start, "share_unread", lambda rows: 0.0)  # as if single pictures were answered
    asked = of_pairs(base, root, tmp_path / "run", trainer={"start_anyway": False}, cold_start={"pairs": 0.0})
    with pytest.raises(InputError, match=r"answers about pairs cannot be read.*give cold_start\.pairs=1"):
        run(asked)
