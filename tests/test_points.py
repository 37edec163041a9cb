"""A point of a multirun: its command line, its options and its environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from aes_r1 import overrides
from aes_r1.points import Sweep, point_command, run_point
from aes_r1.settings import CONF, InputError, Settings
from tests import processes
from tests.test_announce import planned

ROOT = Path(__file__).parents[1]


def test_a_point_of_several_processes_goes_through_torchrun(tmp_path):
    sweep = Sweep("aes_r1.train", ["--config-dir", "."], Settings, tmp_path, 1)
    one = point_command(sweep, ["seed=1"], "runs/a", 1)
    given = ["--config-dir", ".", "seed=1", 'out="runs/a"', "hydra.mode=RUN"]
    assert one == [sys.executable, "-m", "aes_r1.train", *given]
    many = point_command(sweep, ["seed=1"], "runs/a", 8)
    assert many[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=8"]
    assert many[5:] == one[1:]


@pytest.mark.parametrize(
    "out",
    [
        *("runs/a", "runs/try (1)/x", "it's", 'a "b"', "a#b:c", "[x]", "{x}", "ä=1 é", "runs/a, b/x", "a,b", "007"),
        *("1e3", "true", "null", "a\\", "a\\'b", "~x", " x ", "$x", "runs/2026_07"),
    ],
)
def test_a_point_reads_the_folder_that_its_sweep_decided_on(out, tmp_path):
    *_, given, _ = point_command(Sweep("aes_r1.train", [], Settings, tmp_path, 1), ["seed=1"], out, 1)
    overrides.check([given], Settings)
    override = OverridesParser.create().parse_override(given)
    assert (override.is_sweep_override(), override.value()) == (False, out)


@pytest.mark.parametrize("given", ["out=runs/${seed}", "++out=runs/${run_hash:}", "+out=x"])
def test_a_point_has_no_key_twice(given, tmp_path):
    """The sweep's own out= is replaced by the folder that it was resolved to."""
    sweep = Sweep("aes_r1.train", ["hydra.verbose=true"], Settings, tmp_path, 1)
    command = point_command(sweep, ["seed=1", given, "+experiment=rapo"], "runs/1", 1)
    assert command[3:] == ["hydra.verbose=true", "seed=1", "+experiment=rapo", 'out="runs/1"', "hydra.mode=RUN"]
    assert overrides.repeated(command[3:]) == []


PRINTS = {"help", "hydra_help", "version", "cfg", "resolve", "package", "shell_completion", "info"}  # and starts no job


@pytest.mark.parametrize("name", sorted(overrides._options()))
def test_every_option_of_a_sweep_reaches_its_points_or_is_refused(name, tmp_path):
    option = overrides._options()[name]
    if option.dest in PRINTS | {"run", "multirun"}:  # the last two say which of both it is
        assert overrides.sources([name, "seed=0"]) == []
        return
    for arguments in ([name, "given"], [f"{name}=given"]):
        whole = ["seed=0", *arguments, "--multirun"]
        if option.dest == "experimental_rerun":
            with pytest.raises(InputError, match=f"{name}: Hydra would ignore every other argument; give it alone"):
                overrides.check(whole, Settings)
            overrides.check(arguments, Settings)
            continue
        overrides.check(whole, Settings)
        sweep = Sweep("aes_r1.train", overrides.sources(whole), Settings, tmp_path, 1)
        assert point_command(sweep, ["seed=0"], "x", 1)[3:6] == [name, "given", "seed=0"]


@pytest.mark.slow
def test_a_point_runs_the_recipe_of_its_sweep(tmp_path):
    """Its own process composes what the sweep composed, from the folder, the file and the search path given there."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(
        "defaults: [config, brisk, _self_]\nrun_name: mine\ntrainer: {lr: 0.123}\n"
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "brisk.yaml").write_text("# @package _global_\ntrainer: {max_steps: 77}\n")
    program = """
import subprocess, sys
from aes_r1 import command
from aes_r1.settings import Settings

def run_point(arguments, sweep, number):
    print(subprocess.run([*arguments, "--cfg", "job"], capture_output=True, text=True).stdout, flush=True)
    return 1, False

command.run_point = run_point
command.run("aes_r1.train", lambda settings: None)
"""
    sources = [f"--config-path={tmp_path}/recipes", "-cn", "mine", "-cd", str(tmp_path / "more")]
    given = ["--multirun", "seed=choice(3)", *sources, f"hydra.searchpath=[file://{CONF}]"]
    done = processes.run(
        [sys.executable, "-c", program, *given], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    for line in ("  lr: 0.123", "  max_steps: 77", "run_name: mine", "seed: 3"):
        assert line in done.stdout.splitlines(), done.stdout + done.stderr


@pytest.mark.slow
def test_every_point_is_a_tracked_run_of_its_own(tmp_path, monkeypatch, capfd):
    """A W&B id in the sweep's environment would be the id of every point."""
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    sweep = Sweep("aes_r1.train", [], Settings, tmp_path / "points", os.getpid())
    program = (
        "import sys; from pathlib import Path; from aes_r1.settings import Settings\n"
        "from aes_r1.tracking.tracker import Tracker\n"
        "with Tracker(Path(sys.argv[1]), Settings().tracker, {}, run_name=sys.argv[1]): pass"
    )
    runs = [tmp_path / name for name in "ab"]
    for number, run in enumerate(runs):
        assert run_point([sys.executable, "-c", program, str(run)], sweep, number) == (0, False)
    ids = [(run / "wandb" / "run_id").read_text() for run in runs]
    assert len({*ids, "abc123"}) == 3
    planned(sweep, "seed=0,1")
    line = "WANDB_RUN_ID=abc123: not passed on, because every point is a W&B run of its own\n"
    assert capfd.readouterr().err.endswith(line)
