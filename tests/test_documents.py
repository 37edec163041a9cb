"""Every command in README.md and docs/ is run where it is cheap, else composed or parsed; the rest has its reason here.

A run takes minutes and needs data, GPUs or a server: tests/pipeline and the test of each command run small ones.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from aes_r1 import completion, overrides, recipe
from aes_r1.pipeline import preflight
from aes_r1.settings import CONF, InputError
from tests import processes

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/**/README.md")])
STARTS = re.compile(
    r"(?:\.venv/bin/)?(python|make|aes-r1|torchrun|deepspeed|pip|bash|srun|hf|pre-commit|pip-audit|docker)\b"
)
# Words that stand for something of the reader's, with what stands for them here.
STANDS_FOR = {
    "$set": "para", "data=NAME": "data=para", "reward.NAME": "reward.binary", "experiments.NAME": "experiments.splits",
    "sweeps=X": "sweeps=splits", "NAME=X": "NAME=splits", "NAME=NAME": "NAME=splits", "NAME=...": "NAME=splits",
    "seed=SEED": "seed=0", "--step N": "--step 5", "[RUN ...]": "", "seed=$seed": "seed=0",
    "distill ... ": "distill expert=openai ", "[..]": "[http://127.0.0.1:8100]",
}  # fmt: skip
# What no test starts, and why.
NOT_STARTED = {
    "hf": "downloads 16 GB from the hub",
    "srun": "needs Slurm; the command inside is composed",
    "pre-commit": "installs a hook into this repository",
    "pip-audit": "asks an index of vulnerabilities",
    "pip": "installs packages; the names of extras are checked, and tests/test_wheel.py builds the wheel",
    "bash": "needs a GPU; that the script exists is checked",
    "docker": "needs Docker; the command inside is checked, and tests/test_container.py checks the image's files",
}


def lines_of(page: Path) -> Iterator[str]:
    """The command lines of code blocks and of inline code, whole, without their comments."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(?:bash|sh)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = "\n".join(line[4:] for line in rest.splitlines() if line.startswith("    "))
    inline = [line.replace("\n", " ") for line in re.findall(r"`([^`]*)`", rest) if " " in line]
    for block in (*fenced, indented, *inline):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for words, here in STANDS_FOR.items():
                line = line.replace(words, here)
            for part in re.split(r"\s&&\s|;\s+(?:do\s)?|\s\|\s", re.sub(r"\s+#.*", "", line).strip()):
                part = re.sub(r"^(?:do\s+|[A-Z_]+=\S+\s+)*", "", part.strip())
                if STARTS.match(part):
                    yield part


COMMANDS = sorted({line for page in PAGES for line in lines_of(page)})


def words_of(line: str) -> list[str]:
    """The arguments of a command line: the launcher before, the file behind >, and what `..` leaves open are cut."""
    try:
        words = shlex.split(re.sub(r"\s>>?\s*\S+", "", line))
    except ValueError:  # srun bash -c '...' was cut at its `;`
        words = line.split()
    return [word for word in words if ".." not in word]


def module_of(words: list[str]) -> tuple[str, list[str]] | None:
    """(module, arguments) of a command of this repository, whichever program launches it."""
    if words[0] == "aes-r1":
        return (f"aes_r1.{words[1]}", words[2:]) if words[1:] and words[1] in completion.COMMANDS else None
    for flag in ("-m", "--module"):
        if flag in words[:-1]:
            place = words.index(flag)
            return words[place + 1], words[place + 2 :]
    return None


def check_composed(name: str, arguments: list[str]) -> Any:
    """Compose what the command would, and return its settings; of a multirun those of its first point."""
    overrides.check(arguments, completion.COMPOSED[name])
    places = ("out=", "data.root=", "cold_start.data=")  # differ in many lines, and change no check
    return composed_once(name, tuple(one for one in arguments if not one.startswith(places)))


@functools.cache
def composed_once(name: str, arguments: tuple[str, ...]) -> Any:
    given = [one for one in arguments if not one.startswith("-") and one not in ("job", "hydra", "hydra.launcher")]
    first = []
    for one in OverridesParser.create().parse_overrides(given):
        value = next(iter(one.sweep_string_iterator())) if one.is_discrete_sweep() else None
        first.append(one.input_line if value is None else f"{one.get_key_element()}={value}")
    config = compose({"train": "config"}.get(name, name), overrides=first)
    return recipe.to_settings(config, completion.COMPOSED[name])


def check_module(module: str, arguments: list[str]) -> None:
    package, _, name = module.rpartition(".")
    if package == "aes_r1" and name in completion.COMPOSED:
        check_composed(name, arguments)
    elif package == "aes_r1" and name in completion.PARSED:
        parser = importlib.import_module(completion.PARSED[name]).arguments()
        if arguments and "--help" not in arguments:
            parser.parse_args(arguments)
    else:
        assert importlib.util.find_spec(module), f"{module}: no such module"


def check(line: str) -> None:
    """Its module, options, keys and values exist; the words of people's own files are placeholders."""
    words = words_of(line)
    program = Path(words[0]).name
    found = module_of(words)
    if found is not None:
        check_module(*found)
    elif program == "make":
        check_make(words[1:])
    elif program == "python":
        files = [word for word in words[1:] if word.endswith(".py")]
        assert all((ROOT / file).exists() for file in files)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [extra for word in words for extra in re.findall(r"\[(\w+)\]", word)]
        assert set(named) <= set(extras)
        assert not any(word.startswith("aes-r1") for word in words), "no index has a package of this name of ours"
    elif program == "bash":
        assert (ROOT / words[1]).exists()
    elif program == "docker" and words[1] == "run":
        check(" ".join(["aes-r1", *words[words.index("aes-r1") + 1 :]]))
    else:
        assert program in (*NOT_STARTED, "torchrun", "aes-r1", "deepspeed"), (
            f"say in NOT_STARTED why {program} is not started"
        )


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    given = dict(word.split("=", 1) for word in words if "=" in word)
    assert {word for word in words if "=" not in word} <= targets
    if "sweep" in words:
        assert (CONF / "sweeps" / f"{given['NAME']}.yaml").exists()
        arguments = words_of(given.get("ARGS", "")) if given.get("ARGS") else []
        if not arguments:
            return  # tests/test_sweeps.py composes every study
        overridden = {one.lstrip("+").partition("=")[0] for one in arguments}
        if not {"hydra/launcher", "hydra.sweeper.n_trials"} & overridden:
            check_composed("train", [f"+sweeps={given['NAME']}", *arguments])


@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.slow
def test_a_documented_command_is_one(line, hydra):
    check(line)


PROCESSES = re.compile(r"(?:--nproc-per-node=|\bprocesses=)(\d+)")
# What a reader starts who is told the number of processes alone.
RECIPES = (["+experiment=paper"], ["+experiment=rapo", "engine=zero2"])


def refused(line: str) -> str | None:
    """Why the training that the documented `line` starts in several processes would be refused."""
    size, words = int(PROCESSES.search(line)[1]), words_of(line)
    if words[0] == "make":
        given = dict(word.split("=", 1) for word in words if "=" in word)
        recipes = [[f"+sweeps={given['NAME']}", *words_of(given["ARGS"])]]
    else:
        found = module_of(words)
        module, arguments = found or ("aes_r1.train", [])
        if module != "aes_r1.train":
            return None
        recipes = [arguments] if found else RECIPES
    for arguments in recipes:
        settings = check_composed("train", arguments)
        if size > 1 and settings.engine.name == "single":
            return f"engine=single, {size} processes"
        try:
            preflight._divisible(settings, size)
        except InputError as error:
            return str(error)
    return None


@pytest.mark.parametrize("line", [line for line in COMMANDS if PROCESSES.search(line)])
@pytest.mark.slow
def test_a_documented_number_of_processes_can_share_the_work(line, hydra):
    assert refused(line) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("torchrun --nproc-per-node=6", "cold_start.batch_size=64: must be divisible by the 6 processes"),
        ("torchrun --nproc-per-node=6 -m aes_r1.train +experiment=rapo engine=zero2", "must be divisible by the 6"),
        ("torchrun --nproc-per-node=2 -m aes_r1.train +experiment=rapo", "engine=single, 2 processes"),
        ("make sweep NAME=reward_ablation ARGS='processes=7 engine=zero3'", "must be divisible by the 7 processes"),
    ],
)
@pytest.mark.slow
def test_a_number_of_processes_that_cannot_would_be_found(line, why, hydra):
    assert why in refused(line)


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 100
    assert sum(line.startswith("aes-r1 ") for line in COMMANDS) > 10


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("aes-r1 train trainer.max_step=3", Exception),
        ("aes-r1 train +experiment=rap", Exception),
        ("aes-r1 score a.jpg --modle RUN", SystemExit),
        ("python -m aes_r1.nosuch", AssertionError),
        ("make swep", AssertionError),
        ("make sweep NAME=nosuch", AssertionError),
        ("pip install 'aes-r1[app]'", AssertionError),
        ("pip install -e '.[nosuch]'", AssertionError),
        ("hg clone", AssertionError),
    ],
)
def test_a_wrong_command_would_be_found(line, fault, hydra):
    with pytest.raises(fault):
        check(line)


# Documented commands that are cheap enough to run as they stand; RUN, DIR and the pictures are made first.
RUN_HERE = {
    "aes-r1 prepare": "avt_ai",
    "aes-r1 plan +experiment=paper plan.usd_per_gpu_hour=2.5": "USD",
    "aes-r1 runs": "runs: seed 0",
    "aes-r1 score photo.jpg folder/ --model RUN": "photo.jpg",
    "aes-r1 export RUN OUT": "OUT",
    "aes-r1 report RUN": "report.html",
    "aes-r1 train --cfg job +experiment=rapo": "max_steps:",
    "aes-r1 distill data=folder data.root=DIR expert=pixels judge=none": "kept",
}


@pytest.fixture(scope="module")
def desk(talking_run, tmp_path_factory) -> Path:
    """A folder with what the examples name: a run, a photograph, a folder of some, and scored pictures of one's own."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "runs").mkdir()
    shutil.copytree(talking_run, desk / "runs" / "RUN")
    rows = [{"stage": "rapo", "step": step, "reward/total": step / 3, "eval/folder/srcc": 0.5} for step in (1, 2, 3)]
    (desk / "runs" / "RUN" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (desk / "RUN").symlink_to(desk / "runs" / "RUN")
    (desk / "folder").mkdir()
    for name in ("photo.jpg", "folder/one.jpg"):
        Image.open(talking_run / "pictures" / "03.png").save(desk / name)
    shutil.copytree(talking_run / "pictures", desk / "DIR")
    rows = [f"{place:02d}.png,{(place + 0.5) / 12:.2f}" for place in range(12)]
    (desk / "DIR" / "labels.csv").write_text("\n".join(["image,mos", *rows]))
    return desk


@pytest.mark.parametrize("line", RUN_HERE)
@pytest.mark.slow
def test_a_cheap_command_runs_as_printed(line, desk):
    assert line in COMMANDS
    words = shlex.split(line)
    arguments = ["-m", "aes_r1", *words[1:]] if words[0] == "aes-r1" else words[1:]
    done = processes.run(
        [sys.executable, *arguments], cwd=desk, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AES_R1_STORE": str(desk / "store")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert RUN_HERE[line] in done.stdout


@pytest.mark.slow
def test_the_lines_of_python_in_the_guide_to_scoring_run(desk):
    text = (ROOT / "docs" / "scoring.md").read_text()
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    start = lines.index("from aes_r1.score import Critic")
    code = "\n".join(lines[start : start + 5])
    done = processes.run([sys.executable, "-c", code], cwd=desk, capture_output=True, text=True, timeout=300,
                         env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout.split()[0]) <= 1


@pytest.mark.slow
def test_the_tour_runs_cell_by_cell(desk):
    """docs/tour.ipynb, from a run folder to scores, curves and a critique, as plain Python in one process."""
    book = json.loads((ROOT / "docs" / "tour.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    assert {5: "Five", 6: "Six", 7: "Seven", 8: "Eight", 9: "Nine", 10: "Ten"}[len(cells)] + " cells" in "".join(
        book["cells"][0]["source"]
    )
    assert all(cell["outputs"] for cell in book["cells"] if cell["cell_type"] == "code"), "shown on the web as it ran"
    shown = "".join("".join(part.get("text", [])) for cell in book["cells"] for part in cell.get("outputs", []))
    assert "data scenes" in shown
    assert "score 0.26 (interval: not_calibrated)" in shown, "a model of scenes has no interval for a picture"
    show = "import builtins\nbuiltins.display = print\n"
    done = processes.run(
        [sys.executable, "-c", "\n".join([show, *cells])],
        cwd=desk, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RUN": "RUN", "MPLBACKEND": "agg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "composition: " in done.stdout
    assert re.search(r"SRCC \S*0\.\d+", done.stdout)
    assert re.search(r"^score 0\.\d\d (\(interval: \w+\)|from \S+ to \S+)$", done.stdout, re.MULTILINE)
