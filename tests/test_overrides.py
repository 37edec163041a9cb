"""Errors in a command line are explained in the user's own words, with a cure that works when it is typed."""

from __future__ import annotations

import math
import os
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from aes_r1 import overrides
from aes_r1.recipe import to_settings
from aes_r1.settings import DistillSettings, EvaluateSettings, InputError, PlanSettings, PrepareSettings, Settings
from aes_r1.trainer.step_images import rapo_steps
from tests.recipes import composed, composed_plan
from tests.test_command import train


def refusal(*arguments: str) -> str:
    with pytest.raises(InputError) as caught:
        overrides.check(arguments, Settings)
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
    message = refusal(f"data.root={value}")
    assert message.startswith(f"data.root={value}: ")
    (argument,) = shlex.split(message.rpartition("as text it is ")[2])
    assert OverridesParser.create().parse_override(argument).value() == os.path.expanduser(value)
    overrides.check([argument], Settings)


@pytest.mark.parametrize("argument", ["hydra.run.dir=x", "+hydra.run.dir=x", "++hydra.run.dir=x y"])
def test_the_habit_of_hydra_is_answered_with_out(argument):
    assert "a run lives where out= says; give " in refusal(argument)
    (given,) = shlex.split(refusal(argument).rpartition("give ")[2])
    assert given == f"out={argument.partition('=')[2]}"


@pytest.mark.slow
def test_the_habit_of_hydra_for_multiruns_is_answered_with_out():
    message = refusal("--multirun", "hydra.sweep.dir=studies", "seed=1,2")
    (given,) = shlex.split(message.rpartition("give ")[2])
    assert given == "out=studies/${run_hash:}"
    assert composed(given).out.startswith("studies/")
    # Beside out= it names the place of the launcher's files.
    overrides.check(["--multirun", "hydra.sweep.dir=studies", given, "seed=1,2"])


@pytest.mark.parametrize(
    "key", ["run_name", "out", "data.root", "expert.model", "tracker.project", "+data.root", "++out"]
)
@pytest.mark.parametrize("value", ["2026_07_24", "1e3", "007", "true", "4.10", "False", "1_0", "inf", "-1e-3", "+5"])
def test_a_text_that_hydra_reads_as_a_number_comes_back_quoted(key, value):
    read = OverridesParser.create().parse_override(f"{key}={value}").value()
    if str(read) == value:
        overrides.check([f"{key}={value}"], Settings)
        return
    message = refusal(f"{key}={value}")
    (argument,) = shlex.split(message.rpartition("as text it is ")[2])
    assert OverridesParser.create().parse_override(argument).value() == value
    overrides.check([argument], Settings)
    if key == "run_name":
        assert f"as text it is {shlex.quote(argument)}" in refusal("--multirun", f"{key}=other,{value}")


def test_numbers_where_numbers_are_meant_and_plain_texts_pass():
    overrides.check(
        ["trainer.lr=1e-3", "seed=7", "run_name=7", "data.root=null", "out=-3", "trainer.epochs=1_0"], Settings
    )
    overrides.check(["--multirun", "run_name=1,2", "run_name=choice(a,b)", "trainer.lr=1e-3,2e-3"], Settings)


def test_settings_on_both_sides_of_an_option_are_one_command():
    given = ["seed=1", "--multirun", "trainer.lr=1,2", "--config-dir", "a b", "out=x", "--info", "searchpath", "-m"]
    assert overrides.options_first(given) == [
        *("--multirun", "--config-dir", "a b", "--info", "searchpath", "-m"),
        *("seed=1", "trainer.lr=1,2", "out=x"),
    ]
    assert overrides.options_first(["--info", "seed=1"]) == ["--info", "seed=1"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["seed=1", "seed=2"], "seed is given 2 times, seed=1, seed=2; the last one counts, seed=2"),
        (
            ["seed=2", "--multirun", "++seed=0,1"],
            "seed is given 2 times, seed=2, ++seed=0,1; the last one counts, ++seed=0,1",
        ),
        (["data=scenes", "data=ava"], "data is given 2 times, data=scenes, data=ava; the last one counts, data=ava"),
        (
            ["+experiment=rapo", "seed=3", "experiment=paper"],
            "experiment is given 2 times, +experiment=rapo, experiment=paper; the last one counts, experiment=paper",
        ),
        (["out=a", "out=b", "out=a"], "out is given 3 times, out=a, out=b, out=a; the last one counts, out=a"),
    ],
)
def test_a_key_that_is_given_twice_is_said_with_the_value_that_counts(arguments, line):
    overrides.check(arguments, Settings)
    assert overrides.repeated(arguments) == [line]


@pytest.mark.parametrize(
    "arguments",
    [
        ["seed=1", "seed=1"],
        ["seed=1", "++seed=1"],
        ["data=ava", "data.root=x", "evaluation.also=[ava]"],
        ["+experiment=rapo", "+debug=x"],
        ["--config-dir", "seed=1", "seed=2"],  # the first is the value of an option
        ["seed=1", "~seed"],
    ],
)
def test_what_is_one_value_is_not_said(arguments):
    assert overrides.repeated(arguments) == []


@pytest.mark.parametrize("schema", [Settings, EvaluateSettings, PrepareSettings, DistillSettings, PlanSettings])
@pytest.mark.parametrize("group", ["experiment", "sweeps", "data"])
def test_a_group_that_is_added_twice_is_refused(group, schema):
    with pytest.raises(InputError) as caught:
        overrides.check([f"+{group}=a", "seed=1", f"+{group}=b"], schema)
    assert str(caught.value) == f"+{group}=a +{group}=b: +{group}= is given 2 times, and adds one file; keep one"


@pytest.mark.parametrize("modes", [("--multirun", "--cfg"), ("-m", "--info"), ("--run", "--multirun"), ("-c", "-m")])
def test_options_that_hydra_cannot_combine_are_refused(modes):
    values = {"--cfg": ["job"], "-c": ["job"], "--info": ["all"]}
    given = [word for mode in modes for word in (mode, *values.get(mode, []))]
    said = refusal(*given, "seed=1,2")
    assert said.endswith(": one of them at a time; leave the others out")
    assert all(mode in said for mode in modes)
    assert refusal("--resolve", "seed=1") == "--resolve: it belongs to --cfg; give --cfg job --resolve"
    overrides.check(["--cfg", "job", "--resolve"], Settings)
    overrides.check(["--multirun", "-m", "seed=1,2"], Settings)


@pytest.mark.parametrize("key", ["data.root", "model.path", "out", "cold_start.data"])
def test_a_comma_in_a_place_is_asked_about(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal("--multirun", f"{key}=photos,2024")
    assert "or several?" in message
    for cure in (
        shlex.split(message.partition("One: ")[2].partition(";")[0]),
        shlex.split(message.rpartition(": ")[2]),
    ):
        overrides.check(cure, Settings)
    for name in ("a", "b"):
        (tmp_path / name).touch()
    overrides.check(["--multirun", f"{key}=a,b"], Settings)  # two places that are there
    overrides.check(["--multirun", f"{key}=/one,/other"], Settings)
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
    options = ["--config-dir", ".", "-cd", "x y", "--config-dir=a b"]
    for mode in (["--multirun", "-m"], ["--cfg", "job"], ["--info", "searchpath"]):
        overrides.check([*mode, *options, argument], Settings)
    overrides.check(["--info", argument], Settings)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--multirn", "nearest: --multirun"),
        ("--confg=job", "nearest: --c"),
        (
            "--max-completion-length=64",
            "no such option; its name here: trainer.max_new_tokens; a setting has no dashes",
        ),
        ("-z", "no such option"),
        ("a b", "not KEY=VALUE"),
        ("--seed=1", "a setting has no dashes; give seed=1"),
        ("--seed", "a setting has no dashes; give seed=VALUE"),
        ("--trainer.max_steps", "a setting has no dashes; give trainer.max_steps=VALUE"),
        ("--experiment=rapo", "a setting has no dashes; give +experiment=rapo"),
        ("--experiment", "a setting has no dashes; give +experiment=VALUE"),
        ("--sweeps=a b", "a setting has no dashes; give '+sweeps=a b'"),
        ("trainer.max_steps", "a setting without a value; give trainer.max_steps=VALUE, without blanks"),
        ("experiment", "a setting without a value; give +experiment=VALUE, without blanks"),
        ("-data.root=x y", "give 'data.root=x y'"),
        (" seed=1", "white space around a key; give seed=1"),
        ("seed =1", "give seed=1"),
        ("--config-dir", "--config-dir: it needs a value"),
        ("-cn", "-cn: it needs a value"),
        ("--cfg", "--cfg: it needs a value"),
        ("--cfg=jobs", "must be one of job, hydra, all"),
        ("data={name: folder, root: x}", "single keys are given as data.name=folder data.root=x"),
        ("data=[folder,ava]", "give data=folder, or --multirun data=folder,ava for a run of each"),
        ("reward={}", "names one file of its group; there are binary, "),
        ("data=[]", "names one file of its group; there are aadb, "),
        ("data=[[a]]", "names one file of its group; there are aadb, "),
        ("data=[null]", "names one file of its group; there are aadb, "),
        ("reward=null", "reward=null: no such option; there are binary, "),
        ("reward=null,rapo", "no such option; there are binary, "),
        ("reward@reward=null", "no such option; there are binary, "),
        ("+experiment=[]", "names one file of its group; there are cold_start"),
        ("+experiment=[1]", "names one file of its group; there are cold_start"),
        ("+experiment=[a,{b: c}]", "names one file of its group; there are cold_start"),
        ("hydra/launcher=null", "leave hydra/launcher= out, or give a name"),
        ("hydra/launcher=true", "leave hydra/launcher= out, or give a name"),
        ("hydra/launcher=[[a]]", "leave hydra/launcher= out, or give a name"),
        ("out=", "out=: must name a folder"),
        ("store=''", "must name a folder"),
        ("out=null", "out=null: must name a folder"),
        ("trainer=7", "trainer=7: no such option; there are paper, rapo, sft"),
        ("trainer=base", "trainer=base: no such option; there are paper, rapo, sft"),
        ("data=on_disk", "data=on_disk: no such option; there are aadb, "),
        ("+=1", "+=1: a value without a key"),
        ("++=[a]", "a value without a key"),
        ("~=1", "a value without a key"),
        ("hydra.sweeper.params.seed=1,2", "no sweep of the recipe has axes; give --multirun seed=1,2"),
        ("+hydra.sweeper.params.seed=range(3)", "give --multirun 'seed=range(3)'"),
        ("+experiment=true", "no such option; there are cold_start"),
    ],
)
def test_other_arguments(argument, says):
    assert says in refusal(argument)


@pytest.mark.parametrize(
    "given",
    [
        ("--config-path", "/x", "--config-name", "c"),
        ("--config-path=/x", "--config-name=c"),
        ("-cp", "/x", "-cn", "c"),
        ("--config-dir", "/x"),
        ("-cd", "/x"),
        ("hydra.searchpath=[/x]",),
        ("+hydra.searchpath=[/x]",),
        ("sweeps=reward",),
        ("hydra/sweeper=basic",),
    ],
    ids=" ".join,
)
def test_an_axis_may_belong_to_a_sweep_that_is_chosen_or_to_the_users_own_recipe(given):
    overrides.check([*given, "--multirun", "hydra.sweeper.params.seed=0,1"], Settings)


@pytest.mark.parametrize("given", ["hydra.verbose=true", "+experiment=paper", "--info"])
def test_an_axis_belongs_to_no_recipe_of_ours(given):
    assert "no sweep of the recipe has axes" in refusal(given, "--multirun", "hydra.sweeper.params.seed=0,1")


@pytest.mark.parametrize("also", [7, "para", {"name": "para"}, [7], [["para"]], [None]])
def test_further_sets_are_a_list_of_names_or_settings(also):
    with pytest.raises(InputError, match=r"^also=.*: must be (a list of data sets|the name of a data set)"):
        to_settings(OmegaConf.create({"also": also}), PrepareSettings)


@pytest.mark.parametrize("key", ["trainer.epochs", "++trainer.epochs"])
@pytest.mark.parametrize(
    ("others", "steps"),
    [([], 140), (["trainer=paper", "trainer.max_steps=30"], 30), (["+debug=default"], 1)],
)
@pytest.mark.slow
def test_passes_are_refused_where_steps_decide(key, others, steps):
    """Also the default number of them, which says as little about the length of the run."""
    for given in (1, 10):
        argument = f"{key}={given}"
        with pytest.raises(InputError) as caught:
            overrides.check_used([*others, argument], composed(*others, argument))
        assert str(caught.value) == f"{argument}: trainer.max_steps={steps} decides; give trainer.max_steps=null, too"
    whole = [*others, argument, "trainer.max_steps=null"]
    settings = composed(*whole)
    overrides.check_used(whole, settings)
    assert rapo_steps(1600, settings.trainer) == math.ceil(1600 * 10 / settings.trainer.images_per_step)


def of_a_card(name: str, given: list[str]) -> PlanSettings:
    return composed_plan(f"plan.card={name}", *given)


@pytest.mark.slow
def test_the_name_of_a_card_is_refused_without_its_speed():
    """Else the numbers of the recipe's own card would stand under the name of another."""
    speed = ["plan.peak_tflops=121", "plan.bandwidth_gb_s=300"]
    for given, absent in (
        ([], "plan.peak_tflops and plan.bandwidth_gb_s"),
        (speed[:1], "plan.bandwidth_gb_s"),
        (speed[1:], "plan.peak_tflops"),
    ):
        with pytest.raises(InputError) as caught:
            overrides.check_used(["plan.card=L4", *given], of_a_card("L4", given))
        assert str(caught.value) == f"plan.card=L4: only names the card in the output; give {absent} of that card, too"
    overrides.check_used(["plan.card=L4", *speed], of_a_card("L4", speed))
    overrides.check_used(["plan.card=H100"], PlanSettings())  # the card of the recipe itself
    assert PlanSettings().plan.card == "H100"
    overrides.check_used(["plan.memory_gb=22"], PlanSettings())


@pytest.mark.slow
def test_passes_that_a_recipe_names_are_no_request():
    for arguments in ([], ["trainer=paper"], ["trainer=paper", "trainer.max_steps=30"], ["cold_start.epochs=3"]):
        overrides.check_used(arguments, composed(*arguments))
    overrides.check_used([], EvaluateSettings())


@pytest.mark.parametrize("argument", ["hydra.run.dir=elsewhere", "data.root=x (2024)", "--cfg"])
def test_a_real_command_says_it_in_one_line(argument, tmp_path):
    done = train(argument, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"aes_r1: {argument}: ")
    assert list(Path(tmp_path).iterdir()) == [], "and leaves nothing"
