"""Points of a multirun as real processes: they stop with their sweep, and the same command resumes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser

from aes_r1 import overrides
from aes_r1.model import tiny
from aes_r1.points import Sweep, point_command, run_point
from aes_r1.settings import CONF, InputError, Settings
from tests import processes
from tests.conftest import label_twelve
from tests.processes import wait_for
from tests.test_announce import planned

ROOT = Path(__file__).parents[1]
STEPS = 24


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


@pytest.fixture
def job(tokenizer, picture_folder, tmp_path) -> list[str]:
    """RAPO of a random model on twelve pictures: STEPS short steps."""
    tiny.build(tokenizer, max_pixels=9216, seed=0).save(tmp_path / "base")
    label_twelve(picture_folder)
    return [
        *("data=folder", f"data.root={picture_folder}", f"model.path={tmp_path}/base", "expert=pixels", "judge=none"),
        *("trainer.init_from=base", "cold_start.epochs=0", "trainer.images_per_step=2", "trainer.num_samples=2"),
        *(
            "trainer.micro_batch_size=2",
            "trainer.max_new_tokens=8",
            "trainer.start_anyway=true",
            f"trainer.max_steps={STEPS}",
        ),
        *("trainer.save_every=10", "trainer.eval_every=1000", "evaluation.stages=[rapo]"),
        *("evaluation.protocols=[greedy]", "evaluation.n_bootstrap=20", "tracker=none", f"store={tmp_path}/store"),
    ]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    with (folder / "said").open("a") as log:
        return processes.Popen(
            [sys.executable, "-m", "aes_r1.train", *arguments],
            cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
        )  # fmt: skip


def sweep(folder: Path, job: list[str], *arguments: str) -> subprocess.Popen:
    return start(folder, "--multirun", *job, "out=runs/${seed}", *arguments)


def steps(run: Path) -> list[int]:
    """Optimizer steps in the log; its row 0 is what was measured before the first."""
    path = run / "metrics.jsonl"
    logged = [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []
    return [step for step in logged if step > 0]


def is_free(run: Path) -> bool:
    """Return whether no process works on the run."""
    try:
        with FileLock(run / ".lock", timeout=0):
            return True
    except Timeout:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_sweep_that_is_stopped_takes_its_point_along_and_goes_on(number, job, tmp_path):
    first, second = tmp_path / "runs" / "1", tmp_path / "runs" / "2"
    process = sweep(tmp_path, job, "seed=1,2")
    wait_for(process, lambda: len(steps(first)) >= 2, said=tmp_path / "said")
    assert not is_free(first)
    process.send_signal(number)
    assert process.wait(300) == 75, (tmp_path / "said").read_text()
    told = (tmp_path / "said").read_text().splitlines()[-1]
    assert "1 point(s) stopped" in told
    assert "failed" not in told
    assert is_free(first)
    done = steps(first)
    assert 2 <= len(done) < STEPS
    assert (first / "checkpoints" / f"step_{done[-1]}").is_dir()
    assert not second.exists() or not steps(second), "no further point starts"
    assert not list(tmp_path.glob("runs/sweeps/.*"))

    assert sweep(tmp_path, job, "seed=1,2").wait(300) == 0, (tmp_path / "said").read_text()
    assert steps(first) == steps(second) == list(range(1, STEPS + 1)), "no step twice"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=ray"],
        ["processes=2", "engine=zero2"],
    ],
    ids=["basic", "joblib", "ray", "torchrun"],
)
def test_no_point_outlives_its_sweep(number, arguments, job, tmp_path):
    if arguments and "/" in arguments[0]:
        name = arguments[0].split("=")[1]
        pytest.importorskip("ray" if name == "ray" else "hydra_plugins.hydra_joblib_launcher")
    process = sweep(tmp_path, job, "seed=1,2", f"trainer.max_steps={100 * STEPS}", *arguments)
    first = tmp_path / "runs" / "1"
    wait_for(process, lambda: len(steps(first)) >= 2, said=tmp_path / "said")
    process.send_signal(number)
    assert process.wait(300) == (75 if number == signal.SIGTERM else -signal.SIGKILL), (tmp_path / "said").read_text()
    runs = [run for run in (tmp_path / "runs").glob("[12]") if (run / ".lock").exists()]
    for _ in range(0 if number == signal.SIGTERM else 3000):
        if all(is_free(run) for run in runs):
            break
        time.sleep(0.1)
    assert all(is_free(run) for run in runs)
    killed = number == signal.SIGKILL and "hydra/launcher=ray" in arguments  # Ray kills what its workers started
    for run in runs:
        if steps(run) and not killed:
            assert (run / "checkpoints" / f"step_{steps(run)[-1]}").is_dir(), "left with a checkpoint"
        assert not (run / "failure.txt").exists()


@pytest.mark.slow
def test_a_run_has_one_process_that_works_on_it(job, tmp_path):
    run = tmp_path / "run"
    long = [*job, "out=run", f"trainer.max_steps={100 * STEPS}"]
    first = start(tmp_path, *long)
    try:
        wait_for(first, lambda: len(steps(run)) >= 2, said=tmp_path / "said")
        (tmp_path / "second").mkdir()
        second = start(tmp_path / "second", *long, f"out={run}", "trainer.resume=never")
        assert second.wait(300) == 2
        told = (tmp_path / "second" / "said").read_text()
        *notes, line = told.splitlines()
        assert [note.partition(" ")[0] for note in notes] == ["note:", "note:"], "of two keys that are given twice"
        assert line.startswith(f"aes_r1: {run}: another process works on this run; ")
        assert first.poll() is None
        assert len(steps(run)) >= 2, "nothing was taken away"
    finally:
        first.kill()
        first.wait()
    assert is_free(run)
    third = start(tmp_path, *long)
    wait_for(third, lambda: not is_free(run) and len(steps(run)) >= 2, said=tmp_path / "said")
    third.terminate()
    assert third.wait(300) == 75
    assert steps(run) == list(range(1, len(steps(run)) + 1))


@pytest.mark.slow
def test_a_multirun_that_is_started_twice_does_every_point_once(job, tmp_path):
    runs = [tmp_path / "runs" / seed for seed in "12"]
    first = sweep(tmp_path, job, "seed=1,2", "trainer.max_steps=20")
    wait_for(first, lambda: len(steps(runs[0])) >= 2, said=tmp_path / "said")
    (tmp_path / "other").mkdir()
    out = f"out={tmp_path}/runs/${{seed}}"
    second = start(tmp_path / "other", "--multirun", *job, "seed=1,2", "trainer.max_steps=20", out)
    codes = first.wait(500), second.wait(500)
    told = (tmp_path / "said").read_text() + (tmp_path / "other" / "said").read_text()
    assert "Traceback" not in told
    assert set(codes) <= {0, 1}, told
    assert ("another process works on this run" in told) == (1 in codes)
    for run in runs:
        assert steps(run) == list(range(1, 21)), "no step is missing, and none was taken twice"
        assert is_free(run)
        assert (run / "evaluation.json").exists()
        assert not (run / "failure.txt").exists(), "the start that was refused left no trace"
    assert sweep(tmp_path, job, "seed=1,2", "trainer.max_steps=20").wait(300) == 0, "both are done"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_second_ctrl_c_ends_a_multirun_at_once_and_it_goes_on(launcher, job, tmp_path):
    arguments = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    if arguments:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    first = tmp_path / "runs" / "1"
    process = sweep(tmp_path, job, "seed=1,2", *arguments)
    wait_for(process, lambda: len(steps(first)) >= 2, said=tmp_path / "said")
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 1, (tmp_path / "said").read_text()
    told = (tmp_path / "said").read_text()
    assert "Traceback" not in told, told
    assert told.splitlines()[-1].startswith("aes_r1: ")
    for _ in range(3000):
        if all(is_free(tmp_path / "runs" / seed) for seed in "12" if (tmp_path / "runs" / seed).is_dir()):
            break
        time.sleep(0.1)
    before = steps(first)
    process = sweep(tmp_path, job, "seed=1", f"trainer.max_steps={STEPS}")
    assert process.wait(500) == 0, (tmp_path / "said").read_text()
    assert steps(first) == list(range(1, STEPS + 1))
    assert before == list(range(1, len(before) + 1))
