"""A file of a recipe that cannot be read is named in one line, with the place in it and the way out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from aes_r1 import config_names
from aes_r1.__main__ import COMMANDS
from aes_r1.config_faults import fault_in_config_file
from aes_r1.settings import CONF, InputError, Settings
from tests import processes

ROOT = Path(__file__).parents[1]
GLOBAL = b"# @package _global_\n"
FAULTY = {
    "a bracket": (GLOBAL + b"trainer:\n  rates: [1\nseed: 2\n", ":4:5: not YAML (expected ',' or ']', but got"),
    "a tab": (GLOBAL + b"trainer:\n\tlr: 1\n", r":3:1: not YAML (found character '\t'"),
    "a key twice": (GLOBAL + b"seed: 1\nseed: 2\n", ":3:1: not YAML (found duplicate key seed)"),
    "a Python object": (GLOBAL + b"run_name: !!python/name:os.system\n", ":2:11: not YAML (could not determine"),
    "an alias": (GLOBAL + b"seed: *one\n", ":2:7: not YAML (found undefined alias 'one')"),
    "two documents": (GLOBAL + b"seed: 1\n---\nseed: 2\n", ":3:1: not YAML (but found another document)"),
    "a NUL": (b"seed: \0\n", ": not YAML (unacceptable character #x0000"),
    "Latin-1": (GLOBAL + "run_name: schön\n".encode("latin-1"), ": not UTF-8 (byte 33); save it as UTF-8"),
    "UTF-16": ("seed: 1\n".encode("utf-16"), ": not UTF-8 (byte 0); save it as UTF-8"),
    "half a header": (b"# @package\nseed: 1\n", ": Expected header format: KEY VALUE, got '@package'; mend its"),
    "a longer header": (b"# @package _global_ x\n", ": Too many components in '@package _global_ x'; mend its"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_the_file_and_the_line_are_named(name, tmp_path):
    content, said = FAULTY[name]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "config.yaml").write_text("defaults: [experiment: mine]\n")
    path = tmp_path / "experiment" / "mine.yaml"
    path.write_bytes(content)
    with initialize_config_dir(str(tmp_path), version_base="1.3"), pytest.raises(Exception) as raised:
        compose("config")
    line = fault_in_config_file(raised.value)
    assert line is not None
    assert line.startswith(f"{path}{said}")
    assert "\n" not in line


def test_a_defaults_list_that_is_no_list_is_named_with_its_config(tmp_path):
    (tmp_path / "config.yaml").write_text("defaults:\n  reward: rank\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"), pytest.raises(ValueError) as raised:
        compose("config")
    line = fault_in_config_file(raised.value)
    assert line == (
        "Invalid defaults list in 'config', defaults must be a list (got mapping); "
        "a defaults list has lines like `  - /reward: rank`"
    )


@pytest.mark.parametrize(
    "raise_error",
    [
        lambda: int("x"),
        lambda: b"\xff".decode(),
        lambda: yaml.safe_load("a: ["),
        lambda: yaml.safe_load("a: \0"),
    ],
)
def test_an_error_that_was_raised_elsewhere_is_not_explained(raise_error):
    with pytest.raises((ValueError, yaml.YAMLError)) as raised:
        raise_error()
    assert fault_in_config_file(raised.value) is None


@pytest.mark.parametrize("group", ["experiment", "sweeps", "debug"])
def test_a_recipe_without_its_package_says_which_line_it_needs(group):
    with pytest.raises(InputError, match=rf"config key {group}: a file of {group}/ needs the first line # @package _g"):
        config_names.check_keys({group: {"seed": 1}}, Settings, CONF)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            FAULTY["a tab"][0],
            "mine.yaml:3:1: not YAML (found character '\\t' that cannot start any token); mend that line",
        ),
        (FAULTY["Latin-1"][0], "experiment/mine.yaml: not UTF-8 (byte 33); save it as UTF-8"),
        (b"seed: 1\n", "config key experiment: a file of experiment/ needs the first line # @package _global_, and"),
        (GLOBAL + b"run_name: ${x\n", "aes_r1: no viable alternative at input '${x', full_key: run_name"),
    ],
    ids=["a tab", "Latin-1", "no package", "half an interpolation"],
)
def test_a_command_says_it_in_one_line(content, said, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(content)
    done = processes.run(
        [sys.executable, "-m", "aes_r1.train", "--config-dir", ".", "+experiment=mine", "trainer.init_from=/nowhere"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert said in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("data/folder.yaml", b"name: folder\nroot: [1\nsplit: x\n", ":3:6: not YAML ("),
        ("reward/rapo.yaml", b"rank:\n\tweight: 1\n", ":2:1: not YAML (found character"),
        ("config.yaml", b"seed: \xff\n", ": not UTF-8 (byte 6); save it as UTF-8"),
        ("trainer/rapo.yaml", b"- a\n", ": no keys with values; mend it"),
        ("engine/single.yaml", b"", " is missing, but EngineSettings has it"),
        ("tracker/offline.yaml", b"defaults: [gone]\n", "No such file or directory"),
        ("judge/none.yaml", b"a: ${\n", " no viable alternative at input '${'; mend it"),
    ],
)
def test_a_broken_file_of_defaults_ends_every_command_in_one_line(file, content, said, tmp_path):
    """The defaults of settings are read from conf/ when the program is imported, before Hydra reads anything."""
    shutil.copytree(ROOT / "aes_r1", tmp_path / "aes_r1", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / file).write_bytes(content)
    done = subprocess.run(  # a new process, which imports the copy

        [sys.executable, "-m", "aes_r1.runs"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert said in line
    assert line.startswith(f"aes_r1: {tmp_path / 'conf'}")


@pytest.mark.slow
def test_every_command_reads_conf_first_and_a_program_that_imports_the_package_goes_on(tmp_path):
    shutil.copytree(ROOT / "aes_r1", tmp_path / "aes_r1", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONF, tmp_path / "conf")
    file = tmp_path / "conf" / "tracker" / "offline.yaml"
    file.write_text("defaults: [gone]\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip

    for name in COMMANDS:
        for arguments in (("-m", f"aes_r1.{name.replace('-', '_')}"), ("-m", "aes_r1", name)):
            done = run(*arguments)
            assert done.returncode == 2, done.stderr
            (line,) = done.stderr.splitlines()
            assert line.startswith(
                f"aes_r1: {file.with_name('gone.yaml')}: No such file or directory, for which {file} a"
            )
    program = "try:\n    import aes_r1.settings\nexcept Exception as error:\n    print(type(error).__name__)"
    assert run("-c", program).stdout == "InputError\n"
