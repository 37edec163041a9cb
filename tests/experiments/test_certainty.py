"""The study certainty: differences within replicates and the share that needs no training, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from experiments.certainty.analyse import DIFFERENCES, difference, without_training


def run(**values: float | None) -> SimpleNamespace:
    """A run whose SRCC is given by STAGE_PROTOCOL."""
    stages: dict = {"cold_start": {"s": {}}, "rapo": {"s": {}}}
    for key, value in values.items():
        stage, protocol = key.rsplit("_", 1)
        stages[stage]["s"][protocol] = {"srcc": {"value": value}}
    return SimpleNamespace(evaluation={"stages": stages})


RUNS = {
    0: run(cold_start_sample=0.6, cold_start_greedy=0.7, rapo_sample=0.8, rapo_greedy=0.82),
    1: run(cold_start_sample=0.5, cold_start_greedy=0.7, rapo_sample=0.9, rapo_greedy=0.88),
}


def test_differences_are_taken_within_replicates():
    by_name = {name: (after, before) for name, after, before in DIFFERENCES}
    gain = difference(RUNS, "s", *by_name["RAPO's gain in one sample"])
    assert gain["mean"] == pytest.approx((0.2 + 0.4) / 2)
    assert gain["high"] - gain["mean"] == pytest.approx(12.7062 * 0.1, rel=1e-4)  # t of one degree, SD .141 / sqrt 2
    under = difference(RUNS, "s", *by_name["RAPO's gain under greedy decoding"])
    assert under["mean"] == pytest.approx((0.12 + 0.18) / 2)


def test_the_share_without_training():
    assert without_training(RUNS, "s")["mean"] == pytest.approx((0.1 / 0.2 + 0.2 / 0.4) / 2)


def test_a_replicate_without_a_correlation_is_counted_and_left_out():
    runs = {**RUNS, 2: run(cold_start_sample=None, cold_start_greedy=0.7, rapo_sample=0.9)}
    share = without_training(runs, "s")
    assert (share["n"], share["run"]) == (2, 3)
