"""The entropy command on folders that are no run; test_sweeps.py tests it on a trained run."""

from __future__ import annotations

import json

import pytest

from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError
from experiments.sft_entropy.measure import measure, models


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"settings\.json is missing"):
        list(measure(tmp_path))
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(InputError, match="holds no model yet"):
        list(measure(tmp_path))


def test_models_are_found_where_the_run_is_now_and_in_its_store(tmp_path):
    run = tmp_path / "moved"
    (run / "stages").mkdir(parents=True)
    (run / "model").mkdir()
    (tmp_path / "store" / "base").mkdir(parents=True)
    (run / "stages" / "base.json").write_text(json.dumps({"model": str(tmp_path / "store" / "base")}))
    (run / "stages" / "rapo.json").write_text(json.dumps({"model": "runs/once/here/model"}))
    assert models(RunFolder(run)) == {"base": str(tmp_path / "store" / "base"), "rapo": str(run / "model")}
    (run / "stages" / "cold_start.json").write_text(json.dumps({"model": "store/cold_starts/gone/model"}))
    with pytest.raises(InputError, match="no cold_start model at store/cold_starts/gone/model"):
        models(RunFolder(run))
    (run / "stages" / "cold_start.json").unlink()
    (run / "stages" / "base.json").write_text(json.dumps({"model": "Qwen/Qwen2.5-VL-7B-Instruct"}))
    assert models(RunFolder(run))["base"] == "Qwen/Qwen2.5-VL-7B-Instruct", "a name on the hub"
