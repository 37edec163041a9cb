"""The command line as users see it: real processes, exit codes, one-line errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aes_r1.model import tiny
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import differences
from aes_r1.settings import EvaluateSettings, Settings, as_dict
from tests import processes
from tests.conftest import label_twelve
from tests.recipes import composed, composed_evaluate


@pytest.mark.slow
def test_grounded_is_rapo_with_credit_by_part():
    paper, grounded = composed("+experiment=rapo"), composed("+experiment=grounded")
    assert (paper.trainer.credit, grounded.trainer.credit) == ("all", "answer")
    assert (paper.trainer.critique_kl_coef, grounded.trainer.critique_kl_coef) == (None, 0.1)
    assert differences(as_dict(paper), as_dict(grounded)) == ["trainer.credit", "trainer.critique_kl_coef"]


@pytest.mark.slow
def test_same_settings_same_folder():
    assert composed("seed=3").out == composed("seed=3", "tracker=none").out
    assert composed("seed=3").out != composed("seed=4").out


@pytest.mark.slow
def test_unseen_sets_are_evaluated_beside():
    assert [one.name for one in composed("evaluation.also=[scenes_harsh]").evaluation.also] == [
        "scenes_shifted",
        "scenes_harsh",
    ]


def train(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    return processes.run(
        [sys.executable, "-m", "aes_r1.train", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("nosuch=1", "nosuch"),
        ("trainer.nosuch=1", "trainer.nosuch"),
        ("data=nosuch", "scenes_shifted"),
        ("+experiment=nosuch", "rapo_zero"),
        ("trainer.lr=fast", "trainer.lr"),
        ("trainer.num_samples=1", "trainer.num_samples=1"),
        ("reward.error.sigma=0", "reward.error.sigma"),
        ("evaluation.also=[nosuch]", "nosuch"),
        ("data=folder", "data.root"),
        ("out=/dev/null/run", "/dev/null/run"),
        ("trainer.epochs=10", "trainer.epochs=10: trainer.max_steps=140 decides; give trainer.max_steps=null, too"),
        ("seed=", "seed"),
        ("a b", "a b"),
    ],
)
@pytest.mark.slow
def test_wrong_input_is_one_line_and_exit_code_2(argument, says, tmp_path):
    arguments = [argument] if argument.startswith(("out=", "a b")) else [argument, f"out={tmp_path}/run"]
    done = train(*arguments, AES_R1_STORE=str(tmp_path / "store"))
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("file", "File exists; give another name, or move what is there"),
        ("file/below", "Not a directory; give a place whose parts are folders"),
        ("a" * 300, "File name too long; give a shorter one"),
        ("new/" + "a" * 300, "File name too long; give a shorter one"),
        ("loop/below", "Too many levels of symbolic links; give a place without links to itself"),
    ],
)
@pytest.mark.slow
def test_a_place_that_can_be_no_folder_is_one_line(out, says, picture_folder, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    label_twelve(picture_folder, ("train",))
    done = processes.run(
        [sys.executable, "-m", "aes_r1.prepare", "data=folder", f"data.root={picture_folder}", f"out={out}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"aes_r1: {out}: {says}\n"


# Every command that writes where the user says, as (module, arguments); the fixture below fills in the braces.
WRITERS = {
    "train": ("train", "data=folder data.root={pictures} expert=pixels judge=none model.path={run}/model out={out}"),
    "prepare": ("prepare", "data=folder data.root={pictures} out={out}"),
    "distill": ("distill", "data=folder data.root={pictures} expert=pixels judge=none tracker=none out={out}"),
    "evaluate": ("evaluate", "data=folder data.root={pictures} model.path={run}/model tracker=none out={out}"),
    "evaluate runs": ("evaluate", "runs=[{run},{copy}] out={out}"),
    "evaluate starts": ("evaluate", "starts=[{run},{copy}] out={out}"),
    "score": ("score", "{pictures} --model {run} --shards {out}"),
    "export": ("export", "{run} {out}"),
    "export scorer": ("export", "{run} {out} --scorer"),
    "report": ("report", "{run} {copy} --out {out}"),
    "report page": ("report", "{run} {copy} --out {out}/page.html"),
    "dashboard": ("dashboard", "runs={studies} out={out}"),
    "dashboard page": ("dashboard", "runs={studies} out={out}/page.html"),
}
NOWHERE = {
    "/proc/x": "nothing can be made there; give another place|No such file or directory; give a folder that can be ",
    "/proc": "nothing can be made there; give another place|No such file or directory; give a folder that can be ",
    "/sys/x": "Operation not permitted; give |Permission denied; give ",
    "{here}/file/below": "Not a directory; give |File exists; give ",
    "{here}/" + "a" * 300: "File name too long; give ",
}


@pytest.mark.parametrize("place", NOWHERE, ids=["proc", "in proc", "sys", "below a file", "long"])
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.slow
def test_every_command_refuses_a_place_where_nothing_can_be_made(name, place, talking_run, tmp_path):
    pictures = shutil.copytree(talking_run / "pictures", tmp_path / "pictures")
    label_twelve(pictures, ("train", "test"))
    copy = shutil.copytree(talking_run, tmp_path / "studies" / "study" / "copy")
    settings = json.loads((copy / "settings.json").read_text())
    (copy / "settings.json").write_text(json.dumps({**settings, "seed": 1}))
    (tmp_path / "file").touch()
    module, arguments = WRITERS[name]
    out = place.format(here=tmp_path)
    filled = {"pictures": pictures, "run": talking_run, "copy": copy, "studies": tmp_path / "studies", "out": out}
    done = processes.run(
        [sys.executable, "-m", f"aes_r1.{module}", *(part.format(**filled) for part in arguments.split())],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "AES_R1_STORE": str(tmp_path / "store")},
    )  # fmt: skip
    *_, said = done.stderr.splitlines() or [""]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert re.fullmatch(rf"aes_r1: (out=)?[^ ]+: ({NOWHERE[place]}).*|aes_r1: .*{re.escape(out)}.*; give .*", said)


ONE_POINT = "note: --multirun: no key has several values, so there is one point; seed=0,1,2 are three"


@pytest.mark.parametrize(
    "arguments", [["--multirun", "seed=1"], ["-m"], ["hydra.mode=MULTIRUN", "reward.rank.weight=2"]]
)
@pytest.mark.slow
def test_a_multirun_of_one_ordinary_run_is_said_and_runs(arguments, tmp_path):
    """Its point is refused for its group of completions, once it was started."""
    done = train(*arguments, "trainer.num_samples=1", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines().count(ONE_POINT) == 1
    assert "1 point(s) failed: " in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--multirun", "seed=choice(1)"],
        ["--multirun", "seed=1", "processes=2"],  # torchrun starts the processes of a point alone
        ["--multirun", "seed=1", "--config-dir", "own", "+experiment=axes"],
        ["+sweeps=study_of_one", "--config-dir", "own"],
        ["--multirun", "seed=1", "hydra/launcher=submitit_local"],
    ],
)
@pytest.mark.slow
def test_a_multirun_of_one_point_that_is_asked_for_starts_it(arguments, tmp_path):
    """Each of them is refused for its group of completions, by the point that was started."""
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "sweeps").mkdir()
    axes = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      reward: rank\n"
    (tmp_path / "own" / "experiment" / "axes.yaml").write_text(axes)
    (tmp_path / "own" / "sweeps" / "study_of_one.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    done = train(*arguments, "trainer.num_samples=1", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1 point(s) failed: " in done.stderr
    assert "trainer.num_samples=1" in done.stderr
    assert ONE_POINT not in done.stderr


@pytest.mark.slow
def test_a_key_given_twice_is_said_once_in_a_multirun(tmp_path):
    """The command line holds it twice; what the points are given does not."""
    given = [
        "--multirun",
        "seed=7",
        "seed=0,1",
        "trainer.num_samples=4",
        "trainer.num_samples=1",
        "out=a",
        "out=${seed}",
    ]
    done = train(*given, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert [line for line in done.stderr.splitlines() if "given" in line] == [
        "note: seed is given 2 times, seed=7, seed=0,1; the last one counts, seed=0,1",
        "note: trainer.num_samples is given 2 times, trainer.num_samples=4, trainer.num_samples=1; the last one "
        "counts, trainer.num_samples=1",
        "note: out is given 2 times, out=a, out=${seed}; the last one counts, out=${seed}",
    ]


@pytest.mark.slow
def test_a_point_whose_passes_would_be_ignored_is_not_started(tmp_path):
    done = train("--multirun", "trainer.epochs=2,10", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    for passes in (2, 10):
        assert f"(trainer.epochs={passes}: trainer.max_steps=140 decides; give " in done.stderr
    assert ": starts, " not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "ray"])
def test_an_invalid_point_and_failing_ones_are_reported_by_every_launcher(launcher, tmp_path):
    if launcher != "basic":
        pytest.importorskip("ray" if launcher == "ray" else f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    done = train(
        "--multirun",
        f"hydra/launcher={launcher}",
        "data=folder",
        f"data.root={tmp_path / 'nowhere'}",
        "trainer.num_samples=4,1,8",
        f"hydra.sweep.dir={tmp_path}/sweep",
        f"out={tmp_path}/runs/${{run_hash:}}",
        "tracker=none",
        folder=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if "aes_r1: 3 point(s) failed: " in line]
    for point in (4, 8):
        assert f"trainer.num_samples={point} (data.root={tmp_path / 'nowhere'}: no such file or folder" in told
    assert "(trainer.num_samples=1: must be at least 2" in told, "the point in the middle, by its reason"
    assert "Traceback" not in done.stderr
    for number, point in enumerate((4, 1, 8), 1):
        (end,) = [
            line for line in done.stderr.splitlines() if f"[{number}/3] trainer.num_samples={point}: failed" in line
        ]
        assert "no such file or folder" in end or "must be at least 2" in end
        assert re.search(rf"^{number} +trainer.num_samples={point} +failed *$", done.stdout, re.MULTILINE)
    starts = [line for line in done.stderr.splitlines() if ": starts, " in line]
    assert len(starts) == 2, "the third cannot be composed"
    if launcher == "submitit_local":
        jobs = re.findall(r"^submitted: job (\d+), log (\S+)$", done.stderr, re.MULTILINE)
        assert len(jobs) == 3
        assert all(any(f", job {job}, log {Path(log).resolve()}" in line for job, log in jobs) for line in starts)
    left = {path.name for path in (tmp_path / "runs").iterdir()}
    assert left <= {"sweeps"}, "a start that was refused leaves no folder"
    assert not list(tmp_path.glob("runs/sweeps/.points*"))


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [
        ("plan", ["+experiment=paper"], 0),
        ("prepare", [], 0),
        ("train", ["data=folder", "data.root=nowhere"], 2),
        ("train", ["data=folder", "data.root=own", "expert=pixels"], 2),
        ("evaluate", ["model.path=nowhere"], 2),
        ("evaluate", [f"model.path={tiny.SHIPPED}", "data=folder", "data.root=own", "out=new"], 2),
        ("distill", ["data=folder", "data.root=nowhere"], 2),
        ("prepare", ["data=folder", "data.root=nowhere"], 2),
    ],
)
@pytest.mark.slow
def test_what_computes_nothing_leaves_nothing(module, arguments, code, tmp_path):
    """Also where the labels can be read only after the folder was claimed: these opinions are not in [0, 1]."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "labels.csv").write_text("image,mos\na.jpg,6.5\n")
    done = processes.run(
        [sys.executable, "-m", f"aes_r1.{module}", *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["own"], done.stderr


@pytest.mark.parametrize("flag", [["--config-dir", "."], ["--config-dir=."], ["-cd", "."]], ids=" ".join)
@pytest.mark.slow
def test_a_folder_that_hides_a_key_is_named(tmp_path, flag):
    """A run leaves store/ beside it, and Hydra would take that folder for the choices of the key `store`."""
    (tmp_path / "store").mkdir()
    done = processes.run(
        [sys.executable, "-m", "aes_r1.train", *flag, "+sweeps=parse_policy", "store=elsewhere"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 2
    told = done.stderr.strip()
    assert told.startswith("aes_r1: --config-dir .: Hydra takes the folder store for the choices of store, so store=")
    assert "\n" not in told


@pytest.mark.slow
def test_a_study_needs_no_config_folder(tmp_path):
    (tmp_path / "store").mkdir()
    done = processes.run(
        [
            sys.executable, "-m", "aes_r1.train", "+sweeps=parse_policy", "seed=0", "reward.failed_parse=none",
            "store=elsewhere", "--cfg", "job", "--package", "store",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert "elsewhere" in done.stdout, done.stderr + done.stdout


def finished(run: RunFolder, settings: Settings | EvaluateSettings) -> None:
    run.path.mkdir(parents=True)
    run.settings_file.write_text(json.dumps(as_dict(settings)))
    run.evaluation_file.write_text("{}")
    if isinstance(settings, Settings):
        for stage in ("data", "cold_start", "rapo", "evaluation", "report"):
            run.finish_stage(stage, {})


@pytest.mark.slow
def test_a_finished_run_does_not_answer_for_a_changed_reward(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def high(scores, texts, samples): return scores.nan_to_num()")
    given = ["+experiment=study", "reward.custom=mine.py:high", "out=run", "store=store"]
    run = RunFolder(tmp_path / "run")
    finished(run, composed(*given))
    run.custom_reward_file.write_bytes((tmp_path / "mine.py").read_bytes())
    done = train("--multirun", *given, folder=tmp_path)
    assert (done.returncode, done.stderr.count("done before")) == (0, 1), done.stderr
    (tmp_path / "mine.py").write_text("def high(scores, texts, samples): return 1 - scores.nan_to_num()")
    done = train("--multirun", *given, folder=tmp_path)
    assert done.returncode == 1
    assert "done before" not in done.stderr
    assert ": starts, " not in done.stderr
    assert "reward.custom=mine.py:high: mine.py was changed after this run began" in done.stderr.splitlines()[-1]
    single = train(*given, folder=tmp_path)
    assert (single.returncode, single.stderr.count("\n")) == (2, 1)
    assert "mine.py was changed after this run began" in single.stderr


@pytest.mark.slow
def test_an_evaluation_that_is_done_is_not_started_again(tmp_path):
    """And the folder of a training run, or of other settings, is refused by the point itself in one line."""
    settings = composed_evaluate(f"model.path={tiny.SHIPPED}", f"out={tmp_path}/done")
    finished(RunFolder(tmp_path / "done"), settings)
    finished(RunFolder(tmp_path / "trained"), composed(f"out={tmp_path}/trained"))
    told = {}
    for name, *more in (["done"], ["done", "seed=7"], ["trained"]):
        arguments = ["--multirun", f"model.path={tiny.SHIPPED}", f"out={tmp_path}/{name}", *more]
        done = processes.run(
            [sys.executable, "-m", "aes_r1.evaluate", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        assert "Traceback" not in done.stderr + done.stdout
        told[(name, *more)] = done.returncode, done.stderr
    code, said = told["done",]
    assert (code, said.count("done before")) == (0, 1), said
    for name in ("done", "seed=7"), ("trained",):
        code, said = told[name]
        assert code == 1
        assert "was written by other settings (" in said.splitlines()[-1]


@pytest.mark.slow
def test_how_many_processes_is_no_part_of_a_run():
    assert composed("processes=8").out == composed().out


@pytest.mark.slow
def test_a_real_point_of_two_processes_leaves_its_evaluation(talking_run, tmp_path):
    """Through the basic launcher and torchrun, with gloo: RAPO under ZeRO-2, and every picture asked about once."""
    pictures = shutil.copytree(talking_run / "pictures", tmp_path / "pictures")
    label_twelve(pictures, ("train", "test"))
    done = train(
        *("--multirun", "+experiment=study", "processes=2", "engine=zero2", "seed=3"),
        *(f"model.path={talking_run}/model", "trainer.init_from=base", "cold_start.epochs=0"),
        *("data=folder", f"data.root={pictures}", "expert=pixels", "judge=none"),
        *("trainer.max_steps=1", "trainer.images_per_step=2", "trainer.num_samples=2", "trainer.micro_batch_size=2"),
        *("trainer.max_new_tokens=64", "evaluation.protocols=[greedy]", "evaluation.n_bootstrap=20"),
        *("tracker=none", f"store={tmp_path}/store", f"out={tmp_path}/runs/${{run_hash:}}"),
        f"hydra.sweep.dir={tmp_path}/sweep",
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    cell = json.loads((run / "evaluation.json").read_text())["stages"]["rapo"]["folder/test"]["greedy"]
    assert cell["n"] == cell["n_answered"] == 6
    assert cell["srcc"]["value"] > 0.5, "the model knows its twelve pictures"
    asked = [json.loads(line)["id"] for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert sorted(asked) == [f"{index:02d}.png" for index in range(1, 12, 2)]
    assert json.loads((run / "settings.json").read_text())["processes"] == 2
