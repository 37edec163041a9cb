"""The study of overconfidence on runs whose coverage is known."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from experiments.overconfidence import analyse as overconfidence
from tests.experiments.runs import BASE, write_run


def run_of(folder, seed, name, covered):
    """A finished run whose completions' nominal 90% interval holds `covered` of the opinions, of the cold start .9."""
    settings = replace(BASE, seed=seed, reward=replace(BASE.reward, name=name))
    noise = {"cold_start": 0.3, "rapo": 0.1 + 0.001 * seed}
    path = write_run(folder / f"{name}{seed}", settings, noise=noise, protocols=("sample", "mean"))
    evaluation = json.loads((path / "evaluation.json").read_text())
    for stage, sets in evaluation["stages"].items():
        level = {"low": None, "high": None, "raters": None}
        curve = [
            {"nominal": 0.5, "coverage": 0.1, **level},
            {"nominal": 0.9, "coverage": 0.9 if stage == "cold_start" else covered, **level},
        ]
        sets["scenes/test"]["mean"]["spread"] = {"curve": curve, "mean_std": 0.1}
        sets["scenes/test"]["mean"]["opinions"] = {"crps": {"value": 0.12}}
    (path / "evaluation.json").write_text(json.dumps(evaluation))


@pytest.mark.slow
def test_coverage_is_that_of_the_ninety_percent_interval_and_compared_within_seeds(tmp_path, capsys):
    for seed, (rapo, distribution) in enumerate(((0.70, 0.84), (0.72, 0.88), (0.68, 0.86))):
        run_of(tmp_path / "runs", seed, "rapo", rapo)
        run_of(tmp_path / "runs", seed, "distribution", distribution)
    overconfidence.main([str(tmp_path / "runs"), str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    rows = {row["condition"]: row for row in result["endpoints"] if row["endpoint"] == overconfidence.COVERAGE}
    assert [rows[name]["mean"] for name in ("cold start", "rapo", "distribution")] == pytest.approx([0.9, 0.70, 0.86])
    assert rows["rapo"]["difference"] is None
    # Differences .14, .16 and .18: mean .16, standard deviation .02, t(2) 4.3027.
    found = rows["distribution"]["difference"]
    assert (found["mean"], found["n"]) == (pytest.approx(0.16), 3)
    assert found["high"] - found["mean"] == pytest.approx(4.302653 * 0.02 / 3**0.5, rel=1e-5)
    said = capsys.readouterr().out
    assert "| MOS within the nominal 90% interval | distribution | 0.860 [" in said
    assert "SRCC is not lower than under RAPO by .02" in said
    assert (tmp_path / "out" / "figure.png").stat().st_size > 1000
