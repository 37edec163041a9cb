"""RAPO without a cold start learns from the base that the package ships."""

from __future__ import annotations

import sys

import pytest

from aes_r1.data.manifest import write_manifest
from aes_r1.data.scene_sets import make_scenes
from aes_r1.runs.folder import RunFolder
from tests import processes

STEPS = 24


@pytest.mark.slow
def test_a_short_rapo_zero_teaches_the_shipped_base_to_order_pictures(tmp_path):
    samples = make_scenes("scenes", store=tmp_path, counts={"train": 240, "validation": 2, "test": 100}, workers=1)
    write_manifest(samples, tmp_path / "manifest.jsonl")
    job = (
        *("+experiment=rapo_zero", "data=manifest", f"data.root={tmp_path}/manifest.jsonl", f"store={tmp_path}/store"),
        *(f"trainer.max_steps={STEPS}", f"trainer.eval_every={STEPS}", "trainer.save_every=100", "tracker=none"),
        *("evaluation.protocols=[greedy]", "evaluation.interventions=0", f"out={tmp_path}/run"),
    )
    ended = processes.run([sys.executable, "-m", "aes_r1.train", *job], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]

    stages = RunFolder(tmp_path / "run").evaluation["stages"]
    base, rapo = (stages[stage]["scenes/test"]["greedy"] for stage in ("base", "rapo"))
    # The base answers, and knows little of quality: .25 is 2.5 standard errors over 100 pictures.
    assert base["parse_failure_rate"] <= 0.1
    assert abs(base["srcc"]["value"]) < 0.25
    assert rapo["parse_failure_rate"] <= 0.01
    assert rapo["srcc"]["value"] > 0.25
