"""A default stands in conf/ alone, and an edit there reaches the classes of settings."""

from __future__ import annotations

import ast
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from aes_r1 import settings
from aes_r1.runs.identity import run_fingerprint
from aes_r1.settings import CONF, InputError, Settings, TrainerSettings, build_settings, values_of
from aes_r1.settings.defaults import IN_YAML, defaults

HERE = Path(settings.__file__).parent
# Fields whose key has a value in a file of their group that is not their default; beside each its class says why.
WITH_THEIR_OWN = {
    *("ChatSettings.model", "RoleSettings.name", "DataSettings.name", "DataSettings.mix"),
    *("EvaluationSettings.also", "Settings.run_name"),
}


def group_keys(decorator: ast.Call) -> set[str]:
    """Keys with a value in any file of the group from which the class below `decorator` reads its defaults."""
    files = [CONF / ast.literal_eval(argument) for argument in decorator.args]
    at = "".join(ast.literal_eval(argument.value) for argument in decorator.keywords)
    group = {other for file in files for other in ([file] if file.parent == CONF else file.parent.glob("*.yaml"))}
    keys = set()
    for file in group:
        inner = values_of(file).get(at, {}) if at else values_of(file)
        keys |= {key for key, value in inner.items() if value != "???" and "${" not in str(value)}
    return keys


def literals(tree: ast.Module) -> Iterator[tuple[str, ast.Call | None]]:
    """(CLASS.FIELD, its @defaults) of every field whose default is neither IN_YAML nor settings of their own."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or "dataclass" not in map(ast.unparse, node.decorator_list):
            continue
        calls = [
            one for one in node.decorator_list if isinstance(one, ast.Call) and ast.unparse(one.func) == "defaults"
        ]
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and ast.unparse(field.value or field) != "IN_YAML":
                inner = getattr(settings, ast.unparse(field.annotation), None)
                if not dataclasses.is_dataclass(inner):
                    yield f"{node.name}.{ast.unparse(field.target)}", calls[0] if calls else None


def second_places(text: str) -> set[str]:
    """Fields of `text` with a default of their own although their key has a value in conf/, or their class no file."""
    found = literals(ast.parse(text))
    return {field for field, call in found if call is None or field.split(".")[1] in group_keys(call)}


@pytest.mark.slow
def test_a_default_that_stands_in_yaml_stands_in_no_class():
    assert {field for path in HERE.glob("*.py") for field in second_places(path.read_text())} == WITH_THEIR_OWN


@pytest.mark.parametrize("default", ["0.1", "0.2", "None", "field(default_factory=list)", "SIGMA"])
def test_a_second_place_is_found(default):
    text = (
        f'@dataclass\n@defaults("reward/rapo.yaml", at="error")\nclass ErrorSettings:\n    sigma: float = {default}\n'
    )
    assert second_places(text) == {"ErrorSettings.sigma"}
    assert second_places(text.replace(default, "IN_YAML")) == set()
    assert second_places(text.replace("sigma", "of_no_yaml")) == set()
    assert second_places(text.replace('@defaults("reward/rapo.yaml", at="error")\n', "")) == {"ErrorSettings.sigma"}


def printed(folder: Path, edits: dict[str, dict[str, Any]], code: str) -> Any:
    """What `code` prints as JSON with a copy of the settings and of conf/ in `folder`; edits: {file: {key: value}}."""
    for room in ("settings", "runs"):
        shutil.copytree(HERE.parent / room, folder / "aes_r1" / room)
    for name in ("__init__.py", "config_faults.py", "wrong_input.py"):
        shutil.copy(HERE.parent / name, folder / "aes_r1")
    shutil.copytree(CONF, folder / "conf")
    for name, values in edits.items():
        config = OmegaConf.load(folder / "conf" / name)
        for key, value in values.items():
            OmegaConf.update(config, key, value)
        OmegaConf.save(config, folder / "conf" / name)
    imports = "import json, sys; from aes_r1.settings import *; from aes_r1.runs.identity import run_fingerprint"
    code = f"{imports}; run = Settings(); print(json.dumps({code}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env={}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_an_edit_of_yaml_alone_changes_the_default(tmp_path):
    edits = {
        "reward/rapo.yaml": {"error.sigma": 7e-2},
        "chat/api.yaml": {"retries": 11},
        "trainer/base.yaml": {"max_new_tokens": 77},
        "trainer/rapo.yaml": {"betas": [0.7, 0.5]},
    }
    code = (
        "[ErrorSettings.sigma, ErrorSettings().sigma, run.reward.error.sigma, run.reward.judge.retries, "
        "run.judge.retries, run.trainer.max_new_tokens, run.trainer.betas]"
    )
    assert printed(tmp_path, edits, code) == [0.07, 0.07, 0.07, 11, 11, 77, [0.7, 0.5]]


@pytest.mark.slow
def test_settings_load_nothing_that_takes_long(tmp_path):
    assert printed(tmp_path, {}, "sorted({'hydra', 'torch', 'numpy', 'transformers'} & set(sys.modules))") == []


@pytest.mark.slow
def test_a_judge_that_pays_by_default_is_part_of_a_run(tmp_path):
    """A key that the first runs did not have is left out of the hash where it changes nothing, not at its default."""
    edits = {"reward/rapo.yaml": {"judge.weight": 1.0, "judge.model": "m"}}
    code = (
        "[run_fingerprint(build_settings(Settings, {'reward': {'judge': judge}})) for judge in ({}, {'weight': 0.0})]"
    )
    pays, pays_nothing = printed(tmp_path, edits, code)
    assert pays_nothing == run_fingerprint(Settings()) != pays


@pytest.fixture
def files(tmp_path) -> Path:
    (tmp_path / "base.yaml").write_text("name: ???\nsmall: 1e-6\nwhole: 3\nmany: [1, 2e-1]\nout: runs/${name}\n")
    (tmp_path / "one.yaml").write_text("defaults: [base, _self_]\nname: one\ninner: {share: {a: 1}, words: null}\n")
    (tmp_path / "two.yaml").write_text("defaults: [one, {/chat@inner: api}, _self_]\ninner: {share: {b: 2}}\n")
    return tmp_path


def test_values_are_read_as_a_command_reads_them(files):
    @dataclass
    @defaults(f"{files}/one.yaml")
    class Outer:
        name: str = IN_YAML
        small: float | None = IN_YAML
        whole: float = IN_YAML
        many: list[float] = IN_YAML
        given: int = 5

    @dataclass
    @defaults(f"{files}/two.yaml", at="inner")
    class Inner:
        share: dict[str, float] = IN_YAML
        words: str | None = IN_YAML
        retries: int = IN_YAML

    expected = {"name": "one", "small": 1e-6, "whole": 3.0, "many": [1.0, 0.2], "given": 5}
    assert repr(dataclasses.asdict(Outer())) == repr(expected)  # 3.0, not 3
    assert repr(Outer.whole) == "3.0"
    assert repr(Inner()).endswith(
        f"Inner(share={{'a': 1.0, 'b': 2.0}}, words=None, retries={settings.ChatSettings.retries})"
    )
    assert Outer(whole=4.0).whole == 4.0


def test_of_two_files_the_last_one_counts(files):
    (files / "three.yaml").write_text("whole: 4\n")

    @dataclass
    @defaults(f"{files}/one.yaml", f"{files}/three.yaml")
    class Both:
        small: float = IN_YAML
        whole: int = IN_YAML

    assert (Both.small, Both.whole) == (1e-6, 4)


def test_no_two_settings_share_a_list():
    one, other = TrainerSettings(), TrainerSettings()
    one.betas.append(0.5)
    one.edits.clear()
    assert (other.betas, other.edits) == (TrainerSettings().betas, TrainerSettings().edits)
    assert len(other.betas) == 2
    assert other.edits
    built = build_settings(Settings, {})
    built.evaluation.stages.clear()
    built.engine.config["more"] = {}
    assert Settings().evaluation.stages
    assert Settings().engine.config == {}


@pytest.mark.parametrize(
    ("file", "at", "name", "says"),
    [
        ("one.yaml", "", "sigma", "sigma is missing"),
        ("one.yaml", "inner", "sigma", "inner.sigma is missing"),
        ("one.yaml", "error", "sigma", "error.sigma is missing"),
        ("one.yaml", "whole", "sigma", "whole.sigma is missing"),
        ("base.yaml", "", "name", "name=??? is no default"),
        ("one.yaml", "", "out", "out=runs/${name} is no default"),
    ],
)
def test_a_key_without_a_default_is_an_error_that_names_class_key_and_file(files, file, at, name, says):
    schema = type("OwnSettings", (), {name: IN_YAML, "__annotations__": {name: "float"}})
    with pytest.raises(InputError) as caught:
        defaults(f"{files}/{file}", at=at)(schema)
    said = str(caught.value)
    assert said.startswith(f"{files}/{file}: {says}")
    assert "OwnSettings" in said
    assert "; give" in said


def test_a_class_inherits_the_defaults_of_the_one_that_it_extends(files):
    @dataclass
    @defaults(f"{files}/one.yaml")
    class Base:
        name: str = IN_YAML
        whole: int = IN_YAML

    (files / "more.yaml").write_text("name: more\n")

    @dataclass
    @defaults(f"{files}/more.yaml")
    class More(Base):
        name: str = IN_YAML

    assert (Base(), More()) == (Base("one", 3), More("more", 3))
