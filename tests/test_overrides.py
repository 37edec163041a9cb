"""Errors in a command line are explained in the user's own words, with a cure that works when it is typed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from aes_r1 import command, overrides
from aes_r1.settings import EvaluateSettings, InputError, Settings
from tests.test_command import composed, train


def refusal(*arguments: str) -> str:
    with pytest.raises(InputError) as caught:
        overrides.check(arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


VALUES = [
    *("/照片", "/照片 (2024)", "Bäume", "~/x", "x (2024)", "a=b", "a#b", "it's", 'a "quoted" name', "both ' and \""),
    *("a&b", "a;b", "a!b", "50%", "C:\\x y\\", "[2024] Rom", "{a", "(a", "a)b", "back\\'slash", "tab\there", "naïve,é"),
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_that_hydra_cannot_read_comes_back_quoted(value):
    """What a shell makes of the printed cure is read by Hydra as the very value."""
    try:
        if OverridesParser.create().parse_override(f"data.root={value}").value() == value:
            return  # left unchanged
    except HydraException:
        pass
    said = refusal(f"data.root={value}")
    assert said.startswith(f"data.root={value}: ")
    (argument,) = shlex.split(said.rpartition("as text it is ")[2])
    assert OverridesParser.create().parse_override(argument).value() == os.path.expanduser(value)
    overrides.check([argument])


@pytest.mark.parametrize("argument", ["hydra.run.dir=x", "+hydra.run.dir=x", "++hydra.run.dir=x y"])
def test_the_habit_of_hydra_is_answered_with_out(argument):
    assert "a run lives where out= says; give " in refusal(argument)
    (given,) = shlex.split(refusal(argument).rpartition("give ")[2])
    assert given == f"out={argument.partition('=')[2]}"


@pytest.mark.parametrize("key", ["data.root", "model.path", "out", "cold_start.data"])
def test_a_comma_in_a_place_is_asked_about(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refusal("--multirun", f"{key}=photos,2024")
    assert "or several?" in said
    for cure in (shlex.split(said.partition("One: ")[2].partition(";")[0]), shlex.split(said.rpartition(": ")[2])):
        overrides.check(cure)
    for name in ("a", "b"):
        (tmp_path / name).touch()
    overrides.check(["--multirun", f"{key}=a,b"])  # two places that are there
    overrides.check(["--multirun", f"{key}=/one,/other"])
    (tmp_path / "a,b").touch()
    assert "or several?" in refusal(f"{key}=a,b")


@pytest.mark.parametrize(
    "argument",
    [
        "trainer.lr=1e-3,1e-4",
        "reward=rapo,rank",
        "data.root=x",
        "+experiment=rapo",
        "~judge",
        "also=[a,b]",
        "seed=range(3)",
    ],
)
def test_what_hydra_reads_as_it_is_meant_passes(argument):
    options = ["--config-dir", ".", "-cd", "x y", "--cfg", "job", "--config-dir=a b", "--info", "searchpath", "-m"]
    overrides.check(["--multirun", *options, argument, "--info"])
    overrides.check(["--info", argument])


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--multirn", "nearest: --multirun"),
        ("--confg=job", "nearest: --c"),
        ("-z", "no such option"),
        ("a b", "not KEY=VALUE"),
    ],
)
def test_other_arguments(argument, says):
    assert says in refusal(argument)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("trainer.num_sample=4", "nearest: trainer.num_samples"),
        ("trainr.lr=1", "nearest: trainer.lr"),
        ("num_samples=4", "nearest: trainer.num_samples"),
        ("rewards=rank", "nearest: reward"),
        ("reward.rank.wieght=2", "nearest: reward.rank.weight"),
        ("data.rot=x", "nearest: data.root"),
        ("reward=rnak", "nearest: rank; there are binary"),
        ("data=flickr", "nearest: flickr_aes"),
        ("+experiment=rappo", "nearest: rapo; there are cold_start"),
        ("experiment=rapo", "give +experiment="),
        ("+trainer.num_sample=4", "config key trainer.num_sample: no such key; nearest: trainer.num_samples"),
        ("+trainer={num_samplez: 4}", "nearest: trainer.num_samples"),
        ("+experimnt=rapo", "config key experimnt: no such key; nearest: +experiment"),
        ("evaluation.also=[{name: scenes, rot: x}]", "nearest: "),
        ("reward=rapo,rank", "a run for each: add --multirun"),
        ("run_name=a,b", "One: 'run_name=\"a,b\"'; a list: 'run_name=[a,b]'"),
    ],
)
def test_the_nearest_thing_is_named(argument, says):
    with pytest.raises((InputError, HydraException, OmegaConfBaseException)) as caught:
        composed(argument)
    said = command._one_line(caught.value, Settings)
    assert says in said
    assert "\n" not in said


def test_every_key_of_a_schema_is_known():
    found = overrides.keys(EvaluateSettings)
    assert {"data", "data.root", "evaluation.protocols", "judge.api_base", "model.path"} <= set(found)
    assert "group" not in {key.rpartition(".")[2] for key in found}, "no attribute of a class is a key"
    assert set(overrides.groups(command.CONF)) >= {"data", "+experiment", "+sweeps", "reward"}


@pytest.mark.parametrize("argument", ["hydra.run.dir=elsewhere", "data.root=x (2024)", "--multirn"])
def test_a_real_command_says_it_in_one_line(argument, tmp_path):
    done = train(argument, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"aes_r1: {argument}: ")
    assert list(Path(tmp_path).iterdir()) == [], "and leaves nothing"
