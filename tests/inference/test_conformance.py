"""Every family passes the conformance test, and a model with a fault fails the check that is about it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from aes_r1 import check_model
from aes_r1.inference import conformance
from aes_r1.inference.conformance import FAIL, NOT_SUPPORTED, PASS, examine
from aes_r1.model import backbone as backbones
from aes_r1.model import families, tiny
from aes_r1.settings import InputError
from tests import processes
from tests.model.siblings import save_sibling

HONEST = conformance._gradients
# Families whose language layers are plain attention, so that completions share their prompt.
SHARING = {"qwen2_5_vl", "qwen3_vl", "qwen2_vl", "internvl", "smolvlm", "idefics3"}


def findings(folder, draft, dtype="float32"):
    found = examine(folder, dtype=dtype, max_pixels=9216, device=torch.device("cpu"), draft=draft)
    return {finding.check: finding for finding in found}


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.slow
def test_every_family_passes(family, tmp_path):
    found = findings(save_sibling(family, tmp_path / "model"), tmp_path / "draft")
    assert list(found) == ["loads", "one picture in a prompt", *conformance.CHECKS]
    shared = PASS if family in SHARING else NOT_SUPPORTED
    expected = {name: shared if name.startswith("shared") else PASS for name in found}
    assert {name: finding.result for name, finding in found.items()} == expected, found
    assert family in found["loads"].reason


@functools.cache
def shipped_gradients(dtype, shared):
    """What conformance._gradients finds for the shipped model, on the path that computes a prompt once or the plain."""
    backbone = backbones.load(tiny.shipped(), dtype=dtype, max_pixels=9216)
    backbone.model.eval()
    backbones.freeze(backbone.model, vision=False)
    model = conformance.Examined(backbone, conformance._prompts(backbone), dtype, 9216, Path("unused"))
    return HONEST(model, model.backbone if shared else model.plain)


def spoiled(spoil):
    """conformance._gradients, with `spoil` applied to the gradient of the path that computes a prompt once."""

    def gradients(model, backbone):
        logps, found = shipped_gradients(model.dtype, backbone.shares_prefix)
        if backbone.shares_prefix:
            found = {name: spoil(name, gradient) for name, gradient in found.items()}
        return logps, found

    return gradients


def doubled(name, gradient):
    return 2 * gradient


def halved_in_the_tower(name, gradient):
    return gradient / 2 if families.is_vision(name) else gradient


def as_much_noise(name, gradient):
    size = gradient.float().square().mean().sqrt()
    return gradient + size * torch.randn(gradient.shape, generator=torch.Generator().manual_seed(len(name)))


def turned_round(name, gradient):
    return -gradient


@pytest.mark.parametrize("dtype", conformance.TOLERANCE)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (doubled, "the gradient of the language layers is"),
        (halved_in_the_tower, "the gradient of the vision tower is"),
        (as_much_noise, "the gradient of the language layers points elsewhere"),
        (turned_round, "the gradient of the language layers points elsewhere"),
        (None, None),
    ],
)
@pytest.mark.slow
def test_another_gradient_where_prompts_are_shared_fails(dtype, spoil, said, tmp_path, monkeypatch):
    """In size or in direction; None: the gradient as it is passes in every dtype."""
    check = "shared prompt: training"
    monkeypatch.setattr(conformance, "CHECKS", {check: conformance.CHECKS[check]})
    if spoil is not None:
        monkeypatch.setattr(conformance, "_gradients", spoiled(spoil))
    found = findings(tiny.shipped(), tmp_path / "draft", dtype)[check]
    assert found.result == (FAIL if said else PASS), found
    assert said is None or found.reason.startswith(said)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return save_sibling("gemma3", tmp_path_factory.mktemp("gemma"))


@pytest.mark.slow
def test_a_mask_that_is_only_causal_fails_the_comparison_with_transformers(gemma, tmp_path, monkeypatch):
    """In Gemma 3 the tokens of a picture see each other; sampler and trainer would agree without it, both wrongly."""
    monkeypatch.setattr(families, "attention_mask", lambda core, embeddings, valid, *rest: valid)
    found = findings(gemma, tmp_path / "draft")
    assert found["log-probabilities"].result == FAIL
    assert "differ from those of transformers' own forward by" in found["log-probabilities"].reason
    assert found["chat template"].result == PASS


def test_a_processor_of_another_size_fails_at_the_picture(gemma, tmp_path):
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    shutil.copytree(gemma, tmp_path / "model")
    Gemma3ImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(tmp_path / "model")
    found = findings(tmp_path / "model", tmp_path / "draft")
    assert list(found) == ["loads", "one picture in a prompt"]
    picture = found["one picture in a prompt"]
    assert (picture.result, picture.reason.split(";")[0]) == (
        FAIL, "preprocessor_config.json: makes pictures of 28x28 pixels, the vision tower takes 56x56",
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_prints_a_table_and_its_exit_code_says_whether_the_model_can_be_used(gemma, tmp_path, capsys):
    given = check_model.arguments().parse_args([str(gemma), "--scratch", str(tmp_path)])
    assert check_model.run(given) == 0
    printed = capsys.readouterr().out
    assert printed.count("not supported") == 2
    assert list(tmp_path.iterdir()) == []  # the copy is gone
    assert check_model.run(check_model.arguments().parse_args([str(tmp_path)])) == 1
    assert "holds no config.json" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(InputError, match="--scratch nowhere: no such folder"):
        check_model.run(check_model.arguments().parse_args([str(gemma), "--scratch", "nowhere"]))


@pytest.mark.parametrize("given", ["runs/nothing", "/gone", "nothing", "a_file", "nobody/nothing"])
def test_the_command_prints_no_table_of_a_model_that_is_not_there(given, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "a_file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(sys, "argv", ["check-model", given])
    with pytest.raises(SystemExit) as leaving:
        check_model.main()
    output = capsys.readouterr()
    assert (leaving.value.code, output.out) == (2, "")
    (said,) = output.err.splitlines()
    assert said.startswith(f"aes_r1: {given}: "), "nobody typed a key"


@pytest.mark.slow
def test_the_command_takes_what_the_other_commands_take(tmp_path, monkeypatch, capsys):
    """A run, a model in it, and with the same refusal what holds none."""
    monkeypatch.setattr(conformance, "CHECKS", {})
    monkeypatch.chdir(tmp_path)
    for name in ("finished", "unfinished"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "settings.json").write_text(json.dumps({"trainer": {}}))
    shutil.copytree(tiny.shipped(), tmp_path / "runs" / "finished" / "model")
    shutil.copytree(tiny.shipped(), tmp_path / "runs" / "finished" / "checkpoints" / "step_3" / "model")
    for given in ("runs/finished", "runs/finished/model", f"{tmp_path}/runs/finished/checkpoints/step_3"):
        assert check_model.run(check_model.arguments().parse_args([given])) == 0, given
        assert "pass" in capsys.readouterr().out
    for given, says in (
        (
            "runs",
            "^runs: .* it is the folder of 2 runs; give one of them, the latest with a final model is runs/f",
        ),
        ("runs/unfinished", "^runs/unfinished: the run is not finished and has no final model yet"),
        ("runs/unfinished/model", "^runs/unfinished/model: the run is not finished and has no final model yet"),
    ):
        with pytest.raises(InputError, match=says):
            check_model.run(check_model.arguments().parse_args([given]))


@pytest.mark.slow
def test_the_command_prints_no_warnings_of_libraries(tmp_path):
    command = [sys.executable, "-m", "aes_r1.check_model", str(tiny.shipped()), "--scratch", str(tmp_path)]
    variables = {key: value for key, value in os.environ.items() if key not in ("DS_ACCELERATOR", "PYTHONWARNINGS")}
    done = processes.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "WARNING" not in done.stdout
