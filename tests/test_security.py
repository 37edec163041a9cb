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
    assert len(named) == len(re.findall(r"`[^`]*\btest_\w+`", text)) >= 15, "each with its file"
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
    for row in [line for line in text.splitlines() if line.startswith("| ") and "| promise |" not in line]:
        assert "::test_" in row, row


# Functions that run what they are given, or hand it to a shell, by their last names.
RUNS = {
    *("execfile", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "read_pickle", "Unpickler"),
    *("popen", "getoutput", "getstatusoutput"),
}
# The same, where another function has the last name, too: a model's eval(), platform.system().
RUNS_WHOLE = {"eval", "exec", "builtins.eval", "builtins.exec", "os.system", "yaml.load", "yaml.load_all"}
# Modules whose files are programs; an exception of theirs may be caught.
PROGRAMS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
SAFE = {"UnpicklingError", "PicklingError"}


def imports_what_runs(node: ast.Import | ast.ImportFrom) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in PROGRAMS for alias in node.names)
    module = node.module or ""
    names = {alias.name for alias in node.names} - SAFE
    from_programs = bool(names) and module.split(".")[0] in PROGRAMS
    return from_programs or any(name in RUNS or f"{module}.{name}" in RUNS_WHOLE for name in names)


def calls_what_runs(node: ast.Call) -> bool:
    """torch.load may take tensors alone."""
    name, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
    may_not = ("trust_remote_code", "allow_pickle", "shell")
    return (
        name in RUNS_WHOLE
        or name.rsplit(".", 1)[-1] in RUNS
        or (name == "torch.load" and given.get("weights_only") != "True")
        or any(given.get(word, "False") != "False" for word in may_not)
    )


def faults(source: str) -> list[str]:
    return [
        f"line {node.lineno}: {ast.unparse(node)[:80]}"
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Import | ast.ImportFrom) and imports_what_runs(node))
        or (isinstance(node, ast.Call) and calls_what_runs(node))
    ]


@pytest.mark.slow
def test_no_source_file_runs_what_it_reads():
    files = [*(ROOT / "aes_r1").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
    assert len(files) > 100
    assert [f"{path.name}, {fault}" for path in files for fault in faults(path.read_text())] == []


@pytest.mark.parametrize(
    "line",
    [
        *("torch.load('a')", "torch.load('a', weights_only=False)", "load(path, trust_remote_code=True)"),
        *("eval('1')", "builtins.exec(text)", "os.system(line)", "os.popen(line)", "from os import popen"),
        *("from os import system as run", "subprocess.getstatusoutput(line)", "subprocess.run(line, shell=True)"),
        *(
            "yaml.load(file)",
            "yaml.unsafe_load(file)",
            "from yaml import unsafe_load",
            "np.load(file, allow_pickle=True)",
        ),
        *("pd.read_pickle(file)", "import pickle", "import pickle as p", "from pickle import load", "import joblib"),
        *("pickle.Unpickler(file)", "import shelve", "import marshal", "from dill import loads"),
    ],
)
def test_a_line_that_runs_what_it_reads_is_found(line):
    assert len(faults(line)) == 1


@pytest.mark.parametrize(
    "line",
    ["model.eval()", "platform.system()", "torch.load('a', weights_only=True)", "from pickle import UnpicklingError"],
)
def test_a_line_that_runs_nothing_is_not(line):
    assert faults(line) == []


class Bomb:
    """What leaves a file when it is unpickled."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.mark.slow
def test_a_pickle_in_a_model_folder_runs_nothing(backbone, tmp_path):
    folder = tmp_path / "model"
    backbone.save(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Bomb(str(tmp_path / "went off"))}, folder / "pytorch_model.bin")
    with pytest.raises(InputError) as caught:
        backbones.check_model(folder, question=RATING_PROMPT, max_pixels=9216)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        backbones.load(folder, dtype="float32", max_pixels=9216)
    assert not (tmp_path / "went off").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "went off").exists(), "it would have"
