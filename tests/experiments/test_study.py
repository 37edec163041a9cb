"""Every analysis on run folders whose answer is known; the power calculation against simulation."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError, Settings, TrackerSettings, as_dict
from experiments.claims import Claim, difference, judged, p_of, verdict
from experiments.demonstration import POINTS
from experiments.power import detectable, level_over_pictures, picture_variance, power, shown_by, spread, table
from experiments.reading import by_condition, over_seeds, read_runs, why_unfinished
from experiments.rewrite import page, rewritten
from experiments.study import analyse
from experiments.tables import error_bars, interval
from experiments.tables import table as table_of
from tests import processes
from tests.experiments.runs import MOS, near, write_run

ROOT = Path(__file__).parents[2]
STUDIES = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml") if path.stem != "tune")  # a search, no study
BASE = Settings(tracker=TrackerSettings(name="none"))


def study_of(name: str):
    return importlib.import_module(f"experiments.{name}.analyse")


def ablation(folder: Path, widths: dict[str, float], seeds=(0, 1, 2)) -> None:
    for name, width in widths.items():
        for seed in seeds:
            settings = replace(BASE, seed=seed, reward=replace(BASE.reward, name=name))
            write_run(folder / f"{name}{seed}", settings, noise={"rapo": width})


@pytest.mark.slow
def test_the_better_condition_is_found(tmp_path):
    ablation(tmp_path, {"rapo": 0.05, "error": 0.4, "rank": 0.4}, seeds=range(5))
    result, _ = analyse(study_of("reward_ablation").STUDY, tmp_path, n_bootstrap=200)
    verdicts = {claim["text"]: claim["verdict"] for claim in result["claims"]}
    assert verdicts["error + rank beats error alone in SRCC"] == "yes"
    assert verdicts["error + rank beats rank alone in PLCC"] == "yes"
    assert verdicts["a threshold alone is worse than the bell"] == "not run"
    assert "binary, seed 0" in result["missing"]
    row = next(one for one in result["differences"] if one["condition"] == "error")
    assert row["srcc"]["high"] < 0
    rows = {one["condition"]: one for one in result["rows"] if one["protocol"] == "sample"}
    gap = rows["error"]["srcc"]["mean"] - rows["error+rank"]["srcc"]["mean"]
    assert row["srcc"]["mean"] == pytest.approx(gap)  # paired and unpaired differences agree
    assert set(row["srcc"]["seeds"]) == set(range(5))


@pytest.mark.slow
def test_table_figure_and_result_are_written(tmp_path, capsys):
    ablation(tmp_path / "runs", {"rapo": 0.05, "error": 0.2}, seeds=(0,))
    from experiments.study import main

    main(study_of("reward_ablation").STUDY, [str(tmp_path / "runs"), str(tmp_path / "out")])
    text = (tmp_path / "out" / "table.md").read_text()
    assert "0.6102 / 0.6297" in text  # the paper's error+rank, SRCC / PLCC
    assert "another scale" in text
    assert "| one seed |" in text
    assert json.loads((tmp_path / "out" / "result.json").read_text())["seeds"] == [0]
    assert (tmp_path / "out" / "figure.png").stat().st_size > 1000
    assert "<svg" in (tmp_path / "out" / "figure.svg").read_text()
    assert capsys.readouterr().out.strip() == text.strip()


def test_a_run_of_another_recipe_is_refused(tmp_path):
    ablation(tmp_path, {"rapo": 0.1, "error": 0.1}, seeds=(0,))
    longer = replace(BASE, seed=1, trainer=replace(BASE.trainer, max_steps=7))
    write_run(tmp_path / "longer", longer, noise={"rapo": 0.1})
    with pytest.raises(InputError, match=r"trainer\.max_steps"):
        analyse(study_of("reward_ablation").STUDY, tmp_path)


@pytest.mark.parametrize("study", ["reward_ablation", "objective"])
def test_two_recipes_of_one_condition_are_refused(tmp_path, study):
    """The key is below one of the study's axes, and the label does not tell it. Replicates may have their own base."""
    error = replace(BASE.reward.error, sigma=0.5)
    first = replace(BASE, model=replace(BASE.model, base="pretrain"))
    own = replace(first.model, pretrain=replace(first.model.pretrain, seed=1))
    write_run(tmp_path / "one", first, noise={"rapo": 0.1})
    write_run(tmp_path / "own", replace(first, seed=1, model=own), noise={"rapo": 0.1})
    study, replicates = study_of(study).STUDY, ("model.pretrain.seed",)
    (by_seed,) = by_condition(read_runs(tmp_path)[0], study.label, study.axes + replicates).values()
    assert set(by_seed) == {0, 1}
    write_run(tmp_path / "two", replace(first, seed=2, reward=replace(BASE.reward, error=error)), noise={"rapo": 0.1})
    with pytest.raises(
        InputError, match=r"two and .*one are one condition .* differ in reward\.error\.sigma; keep one"
    ):
        by_condition(read_runs(tmp_path)[0], study.label, study.axes + replicates)


def test_twice_the_same_point_is_refused(tmp_path):
    ablation(tmp_path, {"rapo": 0.1}, seeds=(0,))
    write_run(tmp_path / "again", replace(BASE, seed=0), noise={"rapo": 0.1})
    with pytest.raises(InputError, match="same condition and seed"):
        by_condition(read_runs(tmp_path)[0], lambda settings: settings["reward"]["name"], ("reward",))


def test_unfinished_runs_are_named_with_their_reason(tmp_path):
    ablation(tmp_path, {"rapo": 0.1}, seeds=(0,))
    broken = write_run(tmp_path / "broken", replace(BASE, seed=1), noise={"rapo": 0.1})
    (broken / "stages" / "evaluation.json").unlink()
    (broken / "failure.txt").write_text("rank 0: MemoryError: no room\n")
    runs, unfinished = read_runs(tmp_path)
    assert len(runs) == 1
    assert why_unfinished(unfinished) == ["broken: rank 0: MemoryError: no room"]
    with pytest.raises(InputError, match="no such folder"):
        read_runs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no finished run"):
        read_runs(tmp_path / "empty")


def test_the_interval_over_seeds_is_students():
    found = over_seeds([0.70, 0.74, 0.72, None])
    # sd .02, t(2) 4.3027: .72 +- 4.3027 x .02 / sqrt(3) = .0497
    assert (found["mean"], found["n"], found["run"]) == (pytest.approx(0.72), 3, 4)
    assert found["high"] - found["mean"] == pytest.approx(0.0497, abs=1e-4)
    assert over_seeds([0.5])["low"] is None
    assert over_seeds([None]) == {"mean": None, "low": None, "high": None, "n": 0, "run": 1}
    whole = {"mean": 0.1, "low": -0.05, "high": 0.25, "n": 3, "run": 3}
    assert interval(whole, signed=True) == "+0.100 [-0.050, +0.250]"
    assert interval({**whole, "n": 2}) == "0.100 (2 of 3 seeds)"
    assert interval({**whole, "run": 4}) == "0.100 [-0.050, 0.250] (3 of 4 seeds)"
    assert error_bars([whole, {**whole, "n": 2}, over_seeds([0.5])]) == [pytest.approx(0.15), 0.0, 0.0]
    assert interval(over_seeds([None, None])) == "not defined (0 of 2 seeds)"
    assert interval(over_seeds([])) == "–"


def row_of(condition: str, *values: float | None) -> dict:
    """A study's row of one condition, one value per seed."""
    return {"condition": condition, "srcc": {"seeds": {seed: {"value": value} for seed, value in enumerate(values)}}}


def pair(*values: float | None) -> list[dict]:
    """The rows of two conditions whose difference a - b is given, one value per seed."""
    return [row_of("b", *(0.5 for _ in values)), row_of("a", *(None if one is None else 0.5 + one for one in values))]


A_THAN_B = Claim("a beats b", "a", "b", "srcc", +1)


def found(*values: float | None) -> dict:
    rows = {row["condition"]: row["srcc"]["seeds"] for row in pair(*values)}
    return difference(A_THAN_B, {one: {seed: cell["value"] for seed, cell in of.items()} for one, of in rows.items()})


def test_the_p_of_a_claim_about_two_conditions_is_students():
    # Two degrees of freedom: p = 1 - t / sqrt(2 + t^2). t = .04 / (.01 / sqrt 3), t^2 = 48.
    assert p_of(found(0.03, 0.04, 0.05), +1) == pytest.approx(1 - (48 / 50) ** 0.5)
    assert p_of(found(0.03, 0.04, 0.05), -1) == pytest.approx(1 - (48 / 50) ** 0.5)  # two-sided
    # -.02 is .03 above a margin of .05: t^2 = 27. Claimed the other way it is .07 above: t^2 = 147.
    assert p_of(found(-0.01, -0.02, -0.03), +1, 0.05) == pytest.approx(1 - (27 / 29) ** 0.5)
    assert p_of(found(-0.01, -0.02, -0.03), -1, 0.05) == pytest.approx(1 - (147 / 149) ** 0.5)
    assert p_of(found(0.01), +1) is None
    assert p_of(found(0.01, None, 0.02), +1) is None
    assert (p_of(found(0.5, 0.5), +1), p_of(found(0.0, 0.0), +1)) == (0.0, 1.0)


def test_a_claim_is_tested_by_the_error_of_all_conditions():
    """a - b is 1.2 with an SD of .28; a third condition adds two degrees and no residual of its own."""
    rows = [row_of("b", 0.0, 1.0), row_of("a", 1.0, 2.4), row_of("c", 3.0, 3.6)]
    (claim,) = judged([A_THAN_B], rows, {})
    # As in test_three_conditions_share_their_error: an error of .2828 / sqrt 2 on 2 degrees, .2828 for two of them.
    t = 1.2 / (0.16 / 2) ** 0.5
    assert (claim["difference"]["df"], claim["difference"]["run"]) == (2, 2)
    assert claim["p"] == pytest.approx(1 - t / (2 + t**2) ** 0.5)


def test_a_noisy_third_condition_hides_a_difference_that_its_two_conditions_show():
    """a - b is .1, .12, .14: t = .12 / (.02 / sqrt 3), t^2 = 108. c varies far more, and with it the pooled error."""
    rows = pair(0.1, 0.12, 0.14)
    (alone,), (beside,) = judged([A_THAN_B], rows, {}), judged([A_THAN_B], [*rows, row_of("c", 0.1, 0.9, 0.2)], {})
    for one in (alone["p"], alone["p_alone"], beside["p_alone"]):
        assert one == pytest.approx(1 - (108 / 110) ** 0.5)
    assert (alone["verdict"], beside["verdict"]) == ("yes", "not shown")
    assert beside["difference"]["mean"] == pytest.approx(0.12)


def test_a_main_effect_is_claimed_of_the_means_of_its_conditions():
    """Means are .11 and .13 apart in the two seeds, and each residual of the four conditions is .005."""
    claim = Claim("within beats across", ("within 1", "within 2"), ("across 1", "across 2"), "srcc", +1)
    rows = [row_of(f"across {one}", 0.5, 0.6) for one in (1, 2)]
    rows += [row_of("within 1", 0.6, 0.72), row_of("within 2", 0.62, 0.74)]
    (one,) = judged([claim], rows, {})
    assert one["difference"]["mean"] == pytest.approx(0.12)
    assert (one["difference"]["n"], one["difference"]["run"], one["difference"]["df"]) == (2, 2, 3)
    # The pooled error is sqrt(8 * .005^2 / 3) on 3 degrees of freedom, so t / sqrt 3 is 12; alone, t is 12 on one.
    assert one["p"] == pytest.approx(1 - 2 / math.pi * (12 / 145 + math.atan(12)))
    assert one["p_alone"] == pytest.approx(1 - 2 / math.pi * math.atan(12))
    assert judged([claim], rows[:3], {})[0]["verdict"] == "not run"
    (lost,) = judged([claim], [*rows[:3], row_of("within 2", 0.62, None)], {})
    assert lost["verdict"] == "not defined: 1 of 2 seeds failed, answered nothing or a constant"
    (later,) = judged([claim], [*rows[:3], row_of("within 2", 0.62)], {})  # the second seed is not whole yet
    assert (later["difference"]["run"], later["verdict"]) == (1, "one seed")


@pytest.mark.parametrize(
    ("values", "sign", "margin", "p", "expected"),
    [
        ((0.1, 0.2, 0.3), +1, 0.0, 0.01, "yes"),
        ((0.1, 0.2, 0.3), -1, 0.0, 0.01, "no"),
        ((-0.1, -0.2, -0.3), -1, 0.0, 0.01, "yes"),
        ((0.1, 0.2, 0.3), +1, 0.0, 0.06, "not shown"),
        ((-0.01, -0.01, -0.012), +1, 0.02, 0.01, "yes"),  # worse, but not by the margin
        ((-0.03, -0.03, -0.032), +1, 0.02, 0.01, "no"),
        ((0.01, 0.01, 0.012), -1, 0.02, 0.01, "yes"),
        ((0.1,), +1, 0.0, None, "one seed"),
        ((), +1, 0.0, None, "not run"),
        ((0.1, None, 0.3), +1, 0.0, None, "not defined: 1 of 3 seeds failed, answered nothing or a constant"),
        ((None,), +1, 0.0, None, "not defined: 1 of 1 seeds failed, answered nothing or a constant"),
    ],
)
def test_verdicts(values, sign, margin, p, expected):
    assert verdict(found(*values), sign, p, margin) == expected


def test_claims_of_one_study_share_their_error():
    claims = [Claim(name, name, "b", "srcc", +1) for name in ("strong", "weak", "collapsed", "absent")]
    named = {"strong": (0.6, 0.601, 0.602), "weak": (0.52, 0.53, 0.545), "collapsed": (0.6, None, 0.6)}
    of = [row_of("b", 0.5, 0.5, 0.5), *(row_of(name, *values) for name, values in named.items())]
    rows = judged(claims, of, {})
    assert [row["verdict"] for row in rows] == [
        "yes", "yes", "not defined: 1 of 3 seeds failed, answered nothing or a constant", "not run",
    ]  # fmt: skip
    assert rows[0]["p_holm"] == pytest.approx(4 * rows[0]["p"])  # of four claims, though only two have a p
    twice = judged([A_THAN_B] * 2, pair(0.03, 0.04, 0.055), {})
    assert 0.025 < twice[0]["p"] < 0.05  # shown by itself
    assert [row["p_holm"] for row in twice] == [pytest.approx(2 * twice[0]["p"])] * 2
    assert [row["verdict"] for row in twice] == ["not shown"] * 2


@pytest.mark.slow
def test_a_seed_that_answers_a_constant_is_counted_not_dropped(tmp_path):
    ablation(tmp_path, {"rapo": 0.05, "rank": 0.2})
    ablation(tmp_path, {"error": 0.4}, seeds=(0, 1))
    settings = replace(BASE, seed=2, reward=replace(BASE.reward, name="error"))
    write_run(tmp_path / "error2", settings, noise={"rapo": 0.1}, constant=True)
    result, _ = analyse(study_of("reward_ablation").STUDY, tmp_path, n_bootstrap=50)
    row = next(one for one in result["rows"] if one["condition"] == "error")
    assert (row["srcc"]["n"], row["srcc"]["run"], row["mae"]["n"]) == (2, 3, 3)
    verdicts = {claim["text"]: claim["verdict"] for claim in result["claims"]}
    lost = "not defined: 1 of 3 seeds failed, answered nothing or a constant"
    assert verdicts["error + rank beats error alone in SRCC"] == lost
    assert verdicts["error + rank beats rank alone in SRCC"] != lost
    text = table_of(result)
    assert "(2 of 3 seeds)" in text
    assert lost in text


@pytest.mark.slow
def test_a_run_that_failed_voids_a_claim_as_one_without_answers_does(tmp_path):
    """A run that ends before its evaluation leaves a selection of seeds, as one that answers nothing does."""
    ablation(tmp_path, {"rapo": 0.05}, seeds=range(4))
    ablation(tmp_path, {"rank": 0.2}, seeds=range(3))
    broken = tmp_path / "rank3"
    broken.mkdir()
    settings = replace(BASE, seed=3, reward=replace(BASE.reward, name="rank"))
    (broken / "settings.json").write_text(json.dumps(as_dict(settings)))
    study = study_of("reward_ablation").STUDY

    def verdicts() -> dict[str, str]:
        result = analyse(study, tmp_path, n_bootstrap=20)[0]
        again = rewritten(study, json.loads(json.dumps(result)))["claims"]
        assert [one["verdict"] for one in again] == [one["verdict"] for one in result["claims"]]
        return {claim["text"]: claim["verdict"] for claim in result["claims"]}

    beats = "error + rank beats rank alone in SRCC"
    assert verdicts()[beats] == "yes", "a run that was only stopped can still be finished, and is named"
    RunFolder(broken).failure_file.write_text("InputError: 61% of the answers cannot be read\n")
    assert verdicts()[beats] == "not defined: 1 of 4 seeds failed, answered nothing or a constant"
    ablation(tmp_path / "again", {"rank": 0.2}, seeds=(3,))
    (tmp_path / "again" / "rank3").rename(tmp_path / "rank3_again")
    (tmp_path / "again").rmdir()
    assert verdicts()[beats] == "yes", "the same point was made again in another folder and finished"


def test_no_claim_gains_when_another_has_no_answer():
    """Of three claims the first has the smallest p: it is multiplied by three whatever becomes of the others."""
    claims = [Claim(name, name, "b", "srcc", +1) for name in ("a", "c", "d")]
    base, first = row_of("b", 0.5, 0.5, 0.5), row_of("a", 0.6, 0.602, 0.604)
    others = [row_of("c", 0.5, 0.51, 0.5), row_of("d", 0.51, 0.5, 0.52)]
    constant = row_of("d", 0.51, None, 0.52)
    for rows, failed in (
        ([base, first, *others], {}),
        ([base, first, others[0], constant], {}),
        ([base, first, others[0]], {"d": {0: "no room", 1: "no room", 2: "no room"}}),
        ([base, first], {}),
    ):
        claim = judged(claims, rows, failed)[0]
        assert claim["p_holm"] == pytest.approx(3 * claim["p"]), (len(rows), failed)


# -- which pictures, which code ----------------------------------------------------------------------------------------
def test_runs_of_other_pictures_are_not_paired(tmp_path):
    rapo, error = BASE, replace(BASE, reward=replace(BASE.reward, name="error"))
    write_run(tmp_path / "a" / "whole", rapo, noise={"rapo": 0.1})
    write_run(tmp_path / "a" / "part", error, noise={"rapo": 0.1}, without=5)
    with pytest.raises(
        InputError, match=r"part \(rapo\) and .*whole \(rapo\) answered different pictures of scenes/test"
    ):
        analyse(study_of("reward_ablation").STUDY, tmp_path / "a", n_bootstrap=20)
    write_run(tmp_path / "b" / "one", rapo, noise={"rapo": 0.1}, list_hash="12")
    write_run(tmp_path / "b" / "two", error, noise={"rapo": 0.1}, list_hash="34")
    with pytest.raises(InputError, match=r"two and .*one answered different pictures of scenes/test"):
        analyse(study_of("reward_ablation").STUDY, tmp_path / "b", n_bootstrap=20)


def test_seeds_with_lists_of_their_own_are_said(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / str(seed), replace(BASE, seed=seed), noise={"rapo": 0.1}, list_hash=str(seed))
    result, _ = analyse(study_of("reward_ablation").STUDY, tmp_path, n_bootstrap=20)
    assert "each with pictures of its own" in table_of(result)


@pytest.mark.slow
def test_splits_differ_on_purpose(tmp_path, capsys):
    for split in (0, 1):
        for seed in (0, 1):
            settings = replace(BASE, seed=seed, data=replace(BASE.data, split_seed=split))
            name = f"{split}{seed}"
            write_run(tmp_path / "runs" / name, settings, noise={"rapo": 0.1}, without=split, list_hash=str(split))
    study_of("splits").main([str(tmp_path / "runs"), str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["differences"] == []
    assert result["spread"]["srcc"]["seeds"] is not None
    printed = capsys.readouterr().out
    assert "Standard deviation on scenes/test" in printed
    assert "each with pictures of its own" not in printed, "the seeds of a split share its pictures"


def test_the_code_and_the_base_model_of_the_runs_are_named(tmp_path):
    names = ("rapo", "error", "rank")
    origins = ({"commits": ["aaa"], "base": "77"}, {"commits": ["aaa", "bbb"], "base": "77"}, None)
    for name, origin in zip(names, origins, strict=True):
        settings = replace(BASE, reward=replace(BASE.reward, name=name))
        write_run(tmp_path / name, settings, noise={"rapo": 0.1}, origin=origin)
    result, _ = analyse(study_of("reward_ablation").STUDY, tmp_path, n_bootstrap=20)
    assert result["origins"] == {
        "commits": {"aaa+bbb": 1, "not recorded": 1, "aaa": 1},
        "base": {"77": 2, "not recorded": 1},
    }
    assert "aaa+bbb (1 runs)" in table_of(result)
    other = replace(BASE, reward=replace(BASE.reward, name="binary"))
    write_run(tmp_path / "binary", other, noise={"rapo": 0.1}, origin={"commits": ["aaa"], "base": "78"})
    with pytest.raises(InputError, match="different base models"):
        analyse(study_of("reward_ablation").STUDY, tmp_path, n_bootstrap=20)


def test_seeds_may_have_a_base_model_of_their_own(tmp_path):
    for seed in (0, 1):
        origin = {"commits": ["aaa"], "base": str(seed)}
        write_run(tmp_path / str(seed), replace(BASE, seed=seed), noise={"rapo": 0.1}, origin=origin)
    result, _ = analyse(study_of("reward_ablation").STUDY, tmp_path, n_bootstrap=20)
    assert result["origins"]["base"] == {"0": 1, "1": 1}
    assert "and a base model of each: not other pictures or recipes" in table_of(result)


def entropy_run(folder: Path, epochs: int, seed: int = 0, *, width: float, entropy: float, start=0.5, **how) -> Path:
    """A run of sft_entropy whose cold start erred by `start` and that RAPO ended at `width`."""
    settings = replace(BASE, seed=seed, cold_start=replace(BASE.cold_start, epochs=epochs))
    noise = {"cold_start": start, "rapo": width} if epochs else {"rapo": width}
    return write_run(folder / f"{epochs}-{seed}", settings, noise=noise, entropy=entropy, **how)


@pytest.mark.slow
def test_the_rule_and_its_regret(tmp_path, capsys):
    """Entropy peaks at 2 epochs, 1 epoch ends best, 3 epochs have the most entropy but too few readable answers."""
    starts = {1: (1.2, 0.0, 0.05), 2: (1.6, 0.02, 0.2), 3: (1.9, 0.5, 0.1), 10: (0.7, 0.0, 0.3)}
    for epochs, (entropy, failed, width) in starts.items():
        run = entropy_run(tmp_path / "runs", epochs, width=width, entropy=entropy, failed=failed)
        kinds = {kind: {"tokens": 5, "entropy": entropy} for kind in ("critique", "dimension", "score", "tags")}
        probes = [
            {"step": step, "entropy": entropy + (step == 40), "by_kind": kinds, "by_position": [entropy] * 10}
            for step in (0, 40, 80)
        ]
        (run / "entropy.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes))
        (run / "stages" / "cold_start.json").write_text(json.dumps({"steps": 8 * epochs}))
    study_of("sft_entropy").main([str(tmp_path / "runs"), str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    (rule,) = result["rule"]
    assert (rule["peak"], rule["picked"]["entropy"], rule["best"]) == ("3 epochs", "2 epochs", "1 epochs")
    assert rule["regret"]["entropy"] == pytest.approx(rule["ends"]["1 epochs"] - rule["ends"]["2 epochs"])
    assert rule["regret"]["entropy"] == rule["regret"]["2 epochs"] > 0
    assert rule["regret"]["1 epochs"] == 0
    assert rule["peak_during"] == {"step": 40, "epoch": 5.0, "entropy": 1.7, "last": 80}  # of the 10 epochs
    assert all(one["srcc"]["mean"] > 0 for one in result["gains"])
    assert [row["step"] for row in result["probes"]["10 epochs"]["0"]] == [0, 40, 80]
    text = capsys.readouterr().out
    assert "regret in final SRCC" in text
    assert "| always 1 epochs | 1 epochs: 0.000 | 0.000 |" in text
    assert "1.700 at step 40 of 80, epoch 5.0" in text


@pytest.mark.slow
def test_whether_the_outcome_follows_entropy(tmp_path):
    """More entropy, less noise at the end: final SRCC follows it in both seeds, the gain as well from equal starts."""
    from experiments.sft_entropy.starts import by_seed, gains, relations, spearman

    study = study_of("sft_entropy").STUDY
    for seed in (0, 1):
        for epochs, entropy, width in ((0, 0.2, 0.9), (1, 1.6, 0.02), (2, 1.2, 0.15), (5, 0.9, 0.35), (10, 0.6, 0.6)):
            failed = 1.0 if epochs == 0 and seed == 1 else 0.0
            entropy_run(tmp_path, epochs, seed, width=width, entropy=entropy, failed=failed, start=1 + width / 1e3)
    _, found = analyse(study, tmp_path, n_bootstrap=20)
    added = gains(found, "scenes/test", 20)
    assert (added[0]["condition"], added[0]["srcc"]) == ("0 epochs", None)
    rows = by_seed(found, "scenes/test", added)
    gain, final, readable = relations(rows)
    assert [cell["starts"] for cell in gain["seeds"].values()] == [4, 4]  # none of 0 epochs
    assert final["seeds"][0] == {"rho": pytest.approx(1.0), "starts": 5, "of": 5}
    assert final["seeds"][1] == {"rho": pytest.approx(1.0), "starts": 4, "of": 5}  # nothing was readable at the end
    assert readable["seeds"][1]["of"] == 4
    assert gain["mean"] > 0.5
    assert spearman([(1.0, 2.0), (2.0, 1.0), (3.0, 0.0)]) == pytest.approx(-1)
    assert spearman([(1.0, 2.0), (2.0, 1.0)]) is None
    assert spearman([(1.0, 2.0), (2.0, 2.0), (3.0, 2.0)]) is None


@pytest.mark.slow
def test_a_picked_start_that_collapses_has_no_regret_and_says_so(tmp_path, capsys):
    for seed in (0, 1):
        entropy_run(tmp_path / "runs", 1, seed, width=0.1, entropy=1.2)
        entropy_run(tmp_path / "runs", 2, seed, width=0.2, entropy=1.5, constant=seed == 1)
    study_of("sft_entropy").main([str(tmp_path / "runs"), str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out" / "result.json").read_text())["rule"]
    assert [row["regret"]["entropy"] is None for row in rows] == [False, True]
    assert rows[1]["best"] == "1 epochs"
    assert rows[1]["ends"] == {"1 epochs": rows[1]["ends"]["1 epochs"], "2 epochs": None}
    text = capsys.readouterr().out
    assert "2 epochs: not defined" in text
    assert f"{rows[0]['regret']['entropy']:.3f} (1 of 2 seeds)" in text
    assert "not defined: 1 of 2 seeds failed, answered nothing or a constant" in text


def test_the_papers_misprinted_row_is_not_beside_ours():
    paper = study_of("sft_entropy").STUDY.paper
    assert set(paper) == {"0 epochs", "1 epochs", "2 epochs"}


@pytest.mark.slow
def test_sources_of_ai_made_pictures(tmp_path, capsys):
    kinds = ["own", "midjourney", "glide", "own"]
    sources = [kinds[place % 4] for place in range(len(MOS))]
    settings = replace(BASE, reward=replace(BASE.reward, name="rapo"))
    write_run(
        tmp_path / "runs" / "a", settings, noise={"cold_start": 0.5, "rapo": 0.05}, dataset="avt_ai", sources=sources
    )
    study_of("ai_generated").main([str(tmp_path / "runs"), str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out" / "result.json").read_text())["sources"]
    counts = {row["source"]: row["n"] for row in rows if row["stage"] == "rapo"}
    assert counts == {"photographs": 40, "generated": 40, "midjourney": 20, "glide": 20}
    before, after = (next(row for row in rows if row["stage"] == stage) for stage in ("cold_start", "rapo"))
    assert after["srcc"]["mean"] > before["srcc"]["mean"]
    assert "midjourney" in capsys.readouterr().out


def rows_of_splits(values):
    """One row per split, a value per seed, whose interval over test pictures is .0392 wide."""
    return [
        {
            "srcc": {
                "seeds": {
                    s: {"value": v, "low": (v or 0) - 0.0196, "high": (v or 0) + 0.0196} for s, v in enumerate(line)
                }
            }
        }
        for line in values
    ]


def test_spread_over_splits_and_seeds_by_hand():
    spread, rows = study_of("splits").spread, rows_of_splits

    # Within variances .0002, .0002; means .71, .81, between 2 x .005 = .01; (.01 - .0002) / 2 = .0049 = .07^2.
    found = spread(rows([[0.70, 0.72], [0.80, 0.82]]), "srcc")
    assert found["seeds"]["value"] == pytest.approx(0.0002**0.5)
    assert found["splits"]["value"] == pytest.approx(0.07)
    assert found["one_run"] == pytest.approx(0.0051**0.5)
    assert found["pictures"] == pytest.approx(0.01)
    # F = .01 / .0002 = 50 with 1 and 2 degrees of freedom, whose tail is 1 - sqrt(F / (F + 2)).
    assert found["p"] == pytest.approx(1 - (50 / 52) ** 0.5)
    # Two degrees of freedom: chi-squared is 2 ln(1 / (1 - share)) at a share.
    assert found["seeds"]["low"] == pytest.approx((0.0004 / (-2 * math.log(0.025))) ** 0.5)
    assert found["seeds"]["high"] == pytest.approx((0.0004 / (-2 * math.log(0.975))) ** 0.5)
    assert spread(rows([[0.70, 0.80], [0.80, 0.70]]), "srcc")["splits"]["value"] == 0
    one_left = spread(rows([[0.70, None], [0.80, 0.82]]), "srcc")
    assert (one_left.pop("n_splits"), one_left.pop("n_seeds")) == (1, 2)
    assert set(one_left.values()) == {None}
    assert spread(rows([[0.70, 0.72], [0.3, None], [0.80, 0.82], [0.5]]), "srcc") == found, "splits that are whole"
    single = spread(rows([[0.70], [0.80]]), "srcc")
    assert single["splits"] == {"value": pytest.approx(0.005**0.5), "low": None, "high": None}


@pytest.mark.parametrize("of_splits", [0.0, 0.01, 0.05])
@pytest.mark.slow
def test_the_intervals_of_both_spreads_hold_on_simulated_studies(of_splits):
    """Five splits and three seeds, as in the study; standard deviation over seeds .02."""
    spread, rng = study_of("splits").spread, np.random.default_rng(0)
    held = {"seeds": 0, "splits": 0}
    small = 0
    for _ in range(400):
        values = rng.normal(0, of_splits, (5, 1)) + rng.normal(0, 0.02, (5, 3))
        found = spread(rows_of_splits(values.tolist()), "srcc")
        for name, true in (("seeds", 0.02), ("splits", of_splits)):
            held[name] += found[name]["low"] <= true <= found[name]["high"]
        small += found["p"] < 0.05
    assert held["seeds"] / 400 == pytest.approx(0.95, abs=0.04)
    assert held["splits"] / 400 > 0.91
    assert (small / 400 == pytest.approx(0.05, abs=0.04)) if of_splits == 0 else (small > 0.1)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_its_folder(name):
    folder = ROOT / "experiments" / name
    text = (folder / "README.md").read_text()
    for heading in (
        "**Answer.**",
        "**Question.**",
        "**Expectation.**",
        "**Command.**",
        "## What we found",
        "## What it does not show",
    ):
        assert heading in text
    study = study_of(name).STUDY
    assert study.name == name
    assert study.baseline in study.order
    ends = [end for claim in study.claims for end in (claim.condition, claim.than)]
    assert {name for end in ends for name in ([end] if isinstance(end, str) else end)} <= set(study.order)


ANSWERED = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/README.md"))
NUMBER = r"[+-]?\d*\.\d+"
CELL = re.compile(rf"(?<![\w.])({NUMBER})(?: [A-Z]+)? \[({NUMBER}), ({NUMBER})\]")  # .070 SRCC [.023, .116]
COMPARED = ("claims", "differences", "comparisons", "endpoints", "spread")  # keys of a result
Cell = tuple[float, ...]  # value, low, high


def inner(value: object) -> list:
    """Return what a list or a dict of a result holds."""
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def is_number(value: object) -> bool:
    return isinstance(value, float) and not math.isnan(value)


def cells(value: object) -> set[Cell]:
    """All values of a result that have an interval, to three places."""
    found = set().union(*map(cells, inner(value)))
    for key in ("value", "difference", "delta", "mean") if isinstance(value, dict) else ():
        cell = [value.get(name) for name in (key, "low", "high")]
        if all(map(is_number, cell)):
            found.add(tuple(round(number, 3) for number in cell))
    return found


def numbers(value: object) -> set[float]:
    """All numbers of a result, to three places."""
    return {round(value, 3)} if is_number(value) else set().union(*map(numbers, inner(value)))


def compared(result: object) -> set[float]:
    """The numbers of a result's comparisons, to three places."""
    if isinstance(result, dict):
        return set().union(*(numbers(held) if key in COMPARED else compared(held) for key, held in result.items()))
    return set().union(*map(compared, inner(result)))


def cells_of(text: str) -> set[Cell]:
    return {tuple(map(float, match.groups())) for match in CELL.finditer(text)}


def numbers_of(text: str) -> set[float]:
    """The numbers of `text` that have no interval."""
    return {float(number) for number in re.findall(rf"(?<![\w.]){NUMBER}", CELL.sub("", text))}


def answer_of(name: str) -> str:
    """Return the answer of an experiment without its settings, which are no results, and its rounded p values."""
    text = (ROOT / "experiments" / name / "README.md").read_text()
    answer = re.search(r"\*\*Answer\.\*\* (.*?)\n\n", text, re.DOTALL)
    assert answer is not None
    return re.sub(r"(sigma|gamma) \.?\d+(e-\d+)?|p \.\d+( and \.\d+)*", "", " ".join(answer[1].split()))


def known_of(name: str) -> tuple[set[Cell], set[float]]:
    """Return the cells of an experiment's results, and the numbers of its tables and comparisons.

    A difference may be told from either side, so each cell is also there with its signs turned round.
    """
    known: set[Cell] = set()
    single: set[float] = set()
    for path in (ROOT / "experiments" / name).glob("results*/*"):
        if path.suffix == ".json":
            result = json.loads(path.read_text())
            known |= cells(result)
            single |= compared(result)
        elif path.suffix == ".md":
            text = path.read_text()
            known |= cells_of(text)
            single |= numbers_of(text) | {value for value, _, _ in cells_of(text)}
    return known | {(-value, -high, -low) for value, low, high in known}, single


@pytest.mark.parametrize("name", ANSWERED)
def test_the_numbers_of_an_answer_stand_in_its_results(name):
    """An interval stands there whole, with the value that it is of; a number without one with its sign."""
    known, single = known_of(name)
    stated = cells_of(answer_of(name))
    assert stated <= known, f"{sorted(stated - known)} stand in no result"
    # Beside its interval a number may be repeated without it.
    unknown = numbers_of(answer_of(name)) - single - {value for value, _, _ in stated}
    assert not unknown, f"{sorted(unknown)} stand in no result"


@pytest.mark.parametrize("name", [name for name in ANSWERED if cells_of(answer_of(name))])
def test_a_wrong_digit_or_sign_in_an_answer_is_noticed(name):
    """Each number of each interval is changed in its last place, and each value loses its sign or gets another."""
    known, _ = known_of(name)
    for cell in cells_of(answer_of(name)):
        changed = [(*cell[:place], round(cell[place] + step, 3), *cell[place + 1 :])
                   for place in range(3) for step in (-0.001, 0.001)]  # fmt: skip
        turned = [(-cell[0], *cell[1:])] if cell[0] else []
        assert not known.intersection([*changed, *turned])


def sections_of(name: str) -> dict[str, str]:
    """The sections of a study's README by heading."""
    _, *sections = re.split(r"^## ", (ROOT / "experiments" / name / "README.md").read_text(), flags=re.MULTILINE)
    return {heading: " ".join(text.split()) for heading, _, text in (one.partition("\n") for one in sections)}


NAMED = [(name, heading, match[1]) for name in ANSWERED for heading, text in sections_of(name).items()
         if (match := re.search(r"all numbers in \[[^]]*\]\(([^)]*)\)", text))]  # fmt: skip


@pytest.mark.parametrize(("name", "heading", "file"), NAMED)
def test_where_all_numbers_are_said_to_be_they_are(name, heading, file):
    """Each decimal of the section is one of that file, rounded to as many places."""
    text = (ROOT / "experiments" / name / file).read_text()
    held = [abs(float(number)) for number in re.findall(r"(?<![\w.])[+-]?\d*\.\d+(?:e-?\d+)?", text)]
    known = {places: {round(number, places) for number in held} for places in (1, 2, 3)}
    stated = re.findall(r"(?<![\w.])\d*\.\d+(?!\w)", sections_of(name)[heading])
    unknown = [number for number in stated if float(number) not in known[len(number.split(".")[1])]]
    assert stated
    assert not unknown, f"{unknown} do not stand in {file}"


def test_the_studies_that_are_not_full_are_demonstrated():
    full = {"reward_ablation", "sigma_gamma", "num_samples", "sft_entropy", "objective", "data_scale", "splits"}
    full |= {"grounding", "reasoning", "parse_policy", "reward_weights", "answer_from", "group_size", "ties_and_pool"}
    full |= {"overconfidence"}
    assert set(POINTS) == set(STUDIES) - full


STUDIES_PAGE = (ROOT / "experiments" / "README.md").read_text()


def test_what_is_demonstrated_is_said_to_have_no_answer_yet():
    rows = re.findall(r"^\| \[(\w+)\]\(\S+\) \|[^|]*\| ([^|]*) \|", STUDIES_PAGE, re.MULTILINE)
    assert {name for name, answer in rows if answer.startswith("None yet")} == set(POINTS)
    assert len(POINTS) == 1
    assert 'of the study whose answer is "None yet"' in STUDIES_PAGE


def test_the_studies_without_a_multirun_are_named():
    other = [name for name in ANSWERED if name not in STUDIES]
    said = re.search(r"one group in W&B; (\w+), (\w+) and (\w+) are the\s+commands of their README", STUDIES_PAGE)
    assert said is not None
    assert sorted(said.groups()) == sorted(other)


def test_the_studies_that_started_from_the_main_jobs_cold_starts_are_named():
    """Their base model is not recorded, but the scores of its cold starts are."""

    def result(path: str) -> dict:
        return json.loads((ROOT / "experiments" / path / "result.json").read_text())

    def ends(found: dict, condition: str) -> dict[str, float]:
        rows = [row for row in found["rows"] if (row["condition"], row["set"]) == (condition, "scenes/test")]
        seeds = next(row for row in rows if row["protocol"] == "sample")["srcc"]["seeds"]
        return {seed: cell["value"] for seed, cell in seeds.items()}

    main = {
        str(row["seed"]): row["srcc"]["value"]
        for row in result("main_job/results")["rows"]
        if (row["condition"], row["set"], row["protocol"]) == ("critique", "scenes/test", "sample")
        and row["stage"] == "cold_start"
    }
    first = result("sft_entropy/results_first_base")
    gained = next(row for row in first["gains"] if row["condition"] == "1 epochs")["srcc"]["seeds"]
    ended = ends(first, "1 epochs")
    assert {seed: ended[seed] - gained[seed]["difference"] for seed in ended} == pytest.approx(main)
    assert ends(result("reward_ablation/results"), "error+rank") == ended
    said = "reward_ablation and the first runs of sft_entropy started from the main job's cold starts"
    assert said in " ".join(STUDIES_PAGE.split())


# -- power -------------------------------------------------------------------------------------------------------------
def test_power_agrees_with_simulation():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.06, 0.03, (20_000, 3))
    t = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / np.sqrt(3))
    assert power(0.06, 0.03, 3) == pytest.approx((abs(t) > 4.3027).mean(), abs=0.01)
    assert power(0.0, 0.03, 3) == pytest.approx(0.05, abs=1e-6)


def test_what_is_detectable_is_found_with_the_wanted_chance():
    for seeds in (3, 5, 10):
        assert power(detectable(0.03, seeds), 0.03, seeds) == pytest.approx(0.8, abs=1e-6)
    assert detectable(0.03, 10) < detectable(0.03, 5) < detectable(0.03, 3)


def test_a_strict_alpha_still_has_a_detectable_effect():
    """Two seeds and an alpha of .05 / 7: more than any few SDs, found all the same."""
    for seeds, alpha in ((2, 0.05), (2, 0.05 / 7), (3, 0.05 / 7)):
        assert power(detectable(0.01, seeds, alpha), 0.01, seeds, alpha) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.slow
def test_a_study_says_what_its_own_spread_can_show(tmp_path):
    def row(place, condition, *values):
        return {
            "set": place,
            "protocol": "sample",
            **row_of(condition, *values),
            "plcc": {"seeds": {0: {"value": 0.5}}},
        }

    result = {
        "seeds": [0, 1],
        "protocol": "sample",
        "rows": [
            row("a/test", "a", 0.0, 1.0), row("a/test", "b", 1.0, 2.4), row("a/test", "c", 3.0, 3.6),
            row("a/test", "collapsed", 0.5, None), row("a/test", "once", 9.0), row("b/test", "a", 5.0, 0.0),
        ],
        "claims": [],
    }  # fmt: skip
    # As in test_three_conditions_share_their_error: a sum of squares of .16 on 2 degrees, and twice that of a pair.
    sd = (2 * 0.16 / 2) ** 0.5
    assert spread(result, "srcc") == (pytest.approx(sd), 3)
    assert spread(result, "plcc") is None
    lines = shown_by(result, (2,))
    shown = detectable(sd, 2, conditions=3)
    assert lines[2:] == [f"| SRCC | {sd:.3f}, pooled over 3 conditions | 2 | {shown:.3f} |"]
    strict = shown_by({**result, "claims": [{}] * 4}, (2,))
    assert strict[2].endswith(f"| {shown:.3f} | {detectable(sd, 2, 0.0125, conditions=3):.3f} |")
    (tmp_path / "result.json").write_text(json.dumps(result))
    command = [sys.executable, "-m", "experiments.power", str(tmp_path / "result.json")]
    done = processes.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == shown_by(result, (3, 5, 10))


def test_the_level_over_pictures_agrees_with_simulation():
    """The same draw of pictures moves the difference of every seed alike."""
    rng = np.random.default_rng(2)
    for seeds in (3, 10):
        draws = rng.normal(0, 0.014, (20_000, seeds)) + rng.normal(0, 0.0126, (20_000, 1))
        t = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / np.sqrt(seeds))
        rejected = (abs(t) > {3: 4.3027, 10: 2.2622}[seeds]).mean()
        assert level_over_pictures(0.014, 0.0126, seeds) == pytest.approx(rejected, abs=0.012)


@pytest.mark.slow
def test_picture_variance_agrees_with_simulation():
    """Two readers with independent errors of the same 600 pictures, drawn anew: SD of the difference of their SRCC."""
    from scipy import stats

    rng = np.random.default_rng(1)
    differences, pairs = [], []
    for _ in range(400):
        truth = rng.normal(size=600)
        both = [stats.spearmanr(truth, truth + rng.normal(0, 0.7, 600)).statistic for _ in range(2)]
        pairs.append(both)
        differences.append(both[1] - both[0])
    agreement = np.corrcoef(np.array(pairs).T)[0, 1]
    expected = picture_variance(float(np.mean(pairs)), 600, float(agreement)) ** 0.5
    assert np.std(differences) == pytest.approx(expected, rel=0.15)


def test_the_readmes_numbers_are_computed():
    text = (ROOT / "experiments" / "README.md").read_text()
    assert "\n".join(table()) in text


# -- what is committed -------------------------------------------------------------------------------------------------
RESULTS = [path.parent for path in sorted((ROOT / "experiments").glob("*/results*/result.json"))]
OF_STUDIES = [folder for folder in RESULTS if "claims" in json.loads((folder / "result.json").read_text())]


@pytest.mark.parametrize("folder", OF_STUDIES, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_claims_and_tables_follow_from_the_committed_values(folder):
    """`python -m experiments.rewrite` would change nothing: no verdict and no cell is older than the code."""
    module = importlib.import_module(f"experiments.{folder.parent.name}.analyse")
    result = json.loads((folder / "result.json").read_text())
    assert json.loads(json.dumps(rewritten(module.STUDY, result)["claims"])) == near(result["claims"])
    assert page(module, result) == (folder / "table.md").read_text()


def test_the_table_of_certainty_follows_from_its_values_and_its_seeds_are_those_of_the_runs_it_reads():
    certainty = study_of("certainty")
    folder = ROOT / "experiments" / "certainty" / "results"
    result = json.loads((folder / "result.json").read_text())
    assert certainty.table(result) == (folder / "table.md").read_text()
    grounding = json.loads((ROOT / "experiments" / "grounding" / "results" / "result.json").read_text())
    arm = next(row for row in grounding["rows"] if row["condition"] == "all")
    assert [str(seed) for seed in result["seeds"]] == sorted(arm["srcc"]["seeds"])
