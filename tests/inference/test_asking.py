"""A training run, evaluate, score and an exported folder ask a model with the same settings."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from aes_r1 import evaluate
from aes_r1.inference.asking import Asking, Facts, find_model
from aes_r1.model import tiny
from aes_r1.pipeline.job import Job
from aes_r1.prompts import RATING_PROMPT, SCORE_ONLY_PROMPT
from aes_r1.runs.processes import Processes
from aes_r1.settings import InputError, Settings, as_dict, build
from aes_r1.tracking.tracker import Tracker
from tests.recipes import composed_evaluate

CPU = torch.device("cpu")


def test_the_shipped_base_has_seen_no_photograph():
    assert find_model(tiny.SHIPPED)[1].scenes_alone


# No value is a default anywhere.
OTHER = {
    "model": {"prompt": "score_only", "max_pixels": 50176, "dtype": "bfloat16"},
    "trainer": {"max_new_tokens": 77},
    "evaluation": {"temperature": 0.8, "n_samples": 3},
}


def run_of(settings: Settings, folder: Path, *models: str) -> Path:
    (folder / "settings.json").write_text(json.dumps(as_dict(settings)))
    for name in ("model", *models):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    return folder


def of_evaluate(path: object, *overrides: str) -> Asking:
    return evaluate.asking_for(find_model(str(path))[1], composed_evaluate(f"model.path={path}", *overrides))


@pytest.mark.parametrize("values", [{}, OTHER], ids=["defaults", "other values"])
def test_the_training_run_evaluate_and_score_ask_alike(values, tmp_path):
    settings = build(Settings, values)
    run = run_of(settings, tmp_path)
    job = Job(settings, run, CPU, Processes(), Tracker(None, settings.tracker, {}))
    in_training = job.asking.noted(CPU)
    assert of_evaluate(run).noted(CPU) == in_training  # python -m aes_r1.evaluate model.path=RUN
    assert of_evaluate(run / "model").noted(CPU) == in_training
    assert find_model(run)[1].noted(CPU) == in_training  # python -m aes_r1.score --model RUN, and what export writes
    assert (job.question, job.max_pixels) == (in_training["question"], in_training["max_pixels"])
    if values:
        assert in_training == {
            "question": SCORE_ONLY_PROMPT, "max_pixels": 50176, "max_new_tokens": 77, "temperature": 0.8,
            "n_samples": 3, "answer_from": "image", "dtype": "bfloat16",
        }  # fmt: skip


def test_a_model_of_which_nothing_is_known_is_asked_alike_too(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for path in ("org/hub-name", tmp_path):
        facts = find_model(path)[1]
        assert facts == Facts()
        assert of_evaluate(path) == facts
    assert Facts().noted(CPU) == {
        "question": RATING_PROMPT, "max_pixels": 262144, "max_new_tokens": 1024, "temperature": 0.6, "n_samples": 4,
        "answer_from": "image", "dtype": "float32",
    }  # fmt: skip
    assert asdict(Facts())["half_widths"] == {}


@pytest.mark.parametrize("size", [{"size": {"longest_edge": 9216}}, {"max_pixels": 9216}])
def test_a_bare_folder_sees_pictures_as_its_processor_says_within_the_paper(size, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(size))
    assert find_model(tmp_path)[1] == Facts(max_pixels=9216)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"longest_edge": 12845056}}')
    assert find_model(tmp_path)[1] == Facts()


def test_the_command_line_of_evaluate_goes_before_what_is_known(tmp_path):
    run = run_of(build(Settings, OTHER), tmp_path)
    given = ("model.prompt=critique", "model.dtype=float32", "data.max_pixels=3136", "evaluation.max_new_tokens=9",
             "evaluation.temperature=0.3", "evaluation.n_samples=2")  # fmt: skip
    assert of_evaluate(run, *given).noted(CPU) == {
        "question": RATING_PROMPT, "max_pixels": 3136, "max_new_tokens": 9, "temperature": 0.3, "n_samples": 2,
        "answer_from": "image", "dtype": "float32",
    }  # fmt: skip


def test_the_models_of_a_run_are_asked_as_it_asks(tmp_path):
    run = run_of(build(Settings, OTHER), tmp_path, "best/model", "checkpoints/step_40/model")
    measured = {"rapo": {"para/test": {"mean": {"conformal": {"half_width": 0.1}}}}}
    (run / "evaluation.json").write_text(json.dumps({"stages": measured}))
    last = find_model(run)
    assert last == find_model(run / "model")
    assert (last[0], last[1].half_widths, last[1].measured_on) == (str(run / "model"), {"mean": 0.1}, "para/test")
    for name in ("best", "checkpoints/step_40"):
        for path in (run / name, run / name / "model"):
            folder, facts = find_model(path)
            assert folder == str(run / name / "model")
            assert (facts.max_new_tokens, facts.dtype, facts.half_widths) == (77, "bfloat16", {})
    assert find_model(run / "best")[1].dtype == "bfloat16"


@pytest.mark.parametrize(
    ("trainer", "stages", "half_widths"),
    [
        ("rapo", ["base", "cold_start"], {}),
        ("rapo", ["base", "cold_start", "rapo"], {"mean": 2.0}),
        ("rapo", ["rapo"], {"mean": 0.0}),
        ("sft", ["base"], {}),
        ("sft", ["base", "cold_start"], {"mean": 1.0}),
    ],
)
def test_intervals_are_those_of_the_model_itself(trainer, stages, half_widths, tmp_path):
    """evaluation.stages may leave the last model out; then those of another model are not its own."""
    run = run_of(build(Settings, {"trainer": {"name": trainer}, "evaluation": {"stages": stages}}), tmp_path)
    measured = {
        stage: {"para/test": {"mean": {"conformal": {"half_width": float(number)}}}}
        for number, stage in enumerate(stages)
    }
    (run / "evaluation.json").write_text(json.dumps({"stages": measured}))
    facts = find_model(run)[1]
    assert (facts.half_widths, facts.measured_on) == (half_widths, "para/test" if half_widths else None)


def test_a_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing"):
        find_model(tmp_path)


def test_bfloat16_where_the_device_computes_in_it(monkeypatch):
    gpu = torch.device("cuda", 0)
    for native, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, native=native: native)
        assert Asking().dtype_on(gpu) == dtype
        assert Asking(dtype="float16").dtype_on(gpu) == "float16"
        assert Asking().dtype_on(CPU) == "float32"
