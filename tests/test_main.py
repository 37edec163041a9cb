"""`aes-r1 NAME` is `python -m aes_r1.NAME`, and bash completes its words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aes_r1 import completion
from aes_r1.__main__ import COMMANDS
from tests import processes

ROOT = Path(__file__).parents[1]


def aes_r1(*arguments: str, module: str = "aes_r1") -> subprocess.CompletedProcess:
    return processes.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_it_lists_every_command_and_names_the_nearest():
    shown = aes_r1("--help")
    assert shown.returncode == 0
    assert all(f"  {name} " in shown.stdout for name in COMMANDS)
    assert aes_r1().returncode == 2
    wrong = aes_r1("trian")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "aes_r1: trian: no such command; nearest: train; aes-r1 --help lists them\n",
    )


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "completion"])
@pytest.mark.slow
def test_the_help_of_each_command_is_its_own_and_short(name):
    """It shows examples of this command, and says how to see every key."""
    shown = aes_r1(name, "--help")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    assert "powered by Hydra" not in shown.stdout
    assert sum(line.startswith(f"  aes-r1 {name}") for line in lines) >= 2, shown.stdout
    if name in completion.COMPOSED:
        assert f"aes-r1 {name} --cfg job" in " ".join(shown.stdout.split())


@pytest.mark.parametrize("name", ["train", "runs"])
@pytest.mark.slow
def test_the_module_is_the_same_command(name):
    assert aes_r1("--help", module=f"aes_r1.{name}").stdout == aes_r1(name, "--help").stdout


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "aes-r1"
    done = aes_r1("completion")
    assert done.returncode == 0, done.stderr
    path.write_text(done.stdout)
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("aes-r1 pl", {"plan"}),
        ("aes-r1 train trainer.max_s", {"trainer.max_steps="}),
        ("aes-r1 train reward=r", {"rank", "rapo"}),
        ("aes-r1 train +experiment=rapo_", {"rapo_zero"}),
        ("aes-r1 plan plan.usd", {"plan.usd_per_gpu_hour="}),
        ("aes-r1 score --form", {"--format"}),
        ("aes-r1 runs --cl", {"--clean"}),
    ],
)
def test_bash_completes(script, typed, offered):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    code = (
        'source "$1"; COMP_LINE="$2"; COMP_POINT=${#2}; read -ra COMP_WORDS <<< "$2"; '
        'COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); _aes_r1; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run([bash, "-c", code, "bash", str(script), typed], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered, done.stderr


def test_every_command_has_words():
    assert {*completion.COMPOSED, *completion.PARSED, "completion"} == set(COMMANDS)


@pytest.mark.parametrize(("given", "used"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
@pytest.mark.slow
def test_idle_threads_sleep_unless_the_user_says_otherwise(given, used):
    """libgomp prints what it has read when torch loads it, which comes after the package's own import."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | given
    shown = subprocess.run(
        [sys.executable, "-c", "import aes_r1, torch"],
        env=environment | {"OMP_DISPLAY_ENV": "true"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert f"OMP_WAIT_POLICY = '{used}'" in shown.stderr
