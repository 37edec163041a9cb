"""Promises of docs/security.md that no other file tests, and a check that every test it names exists."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT
from aes_r1.settings import InputError

ROOT = Path(__file__).parents[1]


def test_every_promise_names_a_test_that_is_there():
    text = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    assert len(named) >= 15
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
    for row in [line for line in text.splitlines() if line.startswith("| ") and "| promise |" not in line]:
        assert "::test_" in row, row


# Calls that run what they read, by their last names; torch.load may take tensors alone.
FORBIDDEN = {
    *("eval", "exec", "execfile", "unsafe_load", "full_load", "read_pickle", "Unpickler", "popen", "getstatusoutput"),
    *("os.system", "pickle.load", "pickle.loads", "yaml.load", "marshal.loads", "shelve.open", "joblib.load"),
}


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def faults(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name, given = called(node), {word.arg: ast.unparse(word.value) for word in node.keywords}
        wrong = name in FORBIDDEN
        wrong |= name == "torch.load" and given.get("weights_only") != "True"
        wrong |= given.get("trust_remote_code", "False") != "False" or given.get("allow_pickle", "False") != "False"
        wrong |= given.get("shell", "False") != "False"
        if wrong:
            found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)[:80]}")
    return found


@pytest.mark.slow
def test_no_source_file_runs_what_it_reads(tmp_path):
    files = [*(ROOT / "aes_r1").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
    assert len(files) > 100
    assert [fault for path in files for fault in faults(path)] == []
    (tmp_path / "bad.py").write_text("import torch\ntorch.load('a')\nload(path, trust_remote_code=True)\neval('1')\n")
    assert len(faults(tmp_path / "bad.py")) == 3


class Bomb:
    """What leaves a file when it is unpickled."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


def test_a_pickle_in_a_model_folder_runs_nothing(backbone, tmp_path):
    folder = tmp_path / "model"
    backbone.save(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Bomb(str(tmp_path / "went off"))}, folder / "pytorch_model.bin")
    with pytest.raises(InputError) as caught:
        backbones.check(folder, question=RATING_PROMPT, max_pixels=9216)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        backbones.load(folder, dtype="float32", max_pixels=9216)
    assert not (tmp_path / "went off").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "went off").exists(), "it would have"
