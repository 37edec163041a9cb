"""conf/: every key stands in one annotated file, and every recipe composes to its pinned values."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aes_r1 import config_names
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import differences, run_fingerprint
from aes_r1.settings import CONF, Settings, as_dict, build_settings
from tests.recipes import composed, flat
from tests.test_command import train

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
GROUPS = ("data", "model", "reward", "cold_start", "trainer", "engine", "expert", "judge", "evaluation", "tracker")
EXTENDED = {(group, option) for group in GROUPS for option in config_names.ONLY_EXTENDED}
OPTIONS = [
    (group, path.stem)
    for group in GROUPS
    for path in sorted((CONF / group).glob("*.yaml"))
    if (group, path.stem) not in EXTENDED
]
ALL = [*(f"{group}={option}" for group, option in OPTIONS), *(f"+experiment={name}" for name in EXPERIMENTS)]
RECIPES = json.loads((Path(__file__).parent / "golden" / "recipes.json").read_text())
# Given on the command line, or derived from it.
OF_THE_RUN = ("out", "run_name", "evaluation.also")


def files(group: str) -> list[Path]:
    return sorted((CONF / group).glob("*.yaml"))


def own_keys(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text())
    values.pop("defaults", None)
    return dict(flat(values))


def inherited_keys(path: Path) -> set[str]:
    """Dotted keys of the files that `path` extends, of its own group or of another (/chat@_here_: api; /chat@judge)."""
    keys: set[str] = set()
    for parent in yaml.safe_load(path.read_text()).get("defaults", []):
        place = ""
        if isinstance(parent, dict):
            ((group, option),) = parent.items()
            if "@" not in group:
                continue  # a group of a recipe, which stands under its own name
            group, package = group.strip("/").split("@")
            extended = CONF / group / f"{option}.yaml"
            place = "" if package == "_here_" else f"{package}."
        elif parent != "_self_":
            extended = path.with_name(f"{parent}.yaml")
        else:
            continue
        keys |= {f"{place}{key}" for key in {*own_keys(extended), *inherited_keys(extended)}}
    return keys


HYDRA_S_OWN = ("hydra", "_target_")  # keys that Hydra's manual explains, with all that is in them


def unexplained(path: Path) -> list[str]:
    """Return keys that `path` adds without a comment above or behind them, but for Hydra's own."""
    values = yaml.compose(path.read_text())
    lines = path.read_text().splitlines()
    extended = inherited_keys(path)

    def walk(node: yaml.MappingNode, prefix: str) -> Iterator[str]:
        for key, value in node.value:
            name, line = f"{prefix}{key.value}", key.start_mark.line
            if name in HYDRA_S_OWN:
                continue
            if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
                yield from walk(value, f"{name}.")
                continue
            comes_in = name != "defaults" and not any(old == name or old.startswith(f"{name}.") for old in extended)
            if comes_in and not lines[line - 1].lstrip().startswith("#") and " # " not in lines[line]:
                yield name

    assert isinstance(values, yaml.MappingNode)
    return list(walk(values, ""))


@pytest.mark.parametrize("group", [*GROUPS, "chat"])
def test_every_key_is_explained_where_it_comes_in(group):
    for path in files(group):
        assert path.read_text().startswith("# "), f"{group}/{path.name} does not say what it is"
        names = [name for name in unexplained(path) if not (name == "name" and inherited_keys(path))]
        assert names == [], f"{group}/{path.name}"


OTHERS = [*CONF.glob("*.yaml"), *CONF.glob("hydra/*/*.yaml")]  # outside the groups


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(CONF)))
def test_every_key_outside_the_groups_is_explained(path):
    """Those of the commands' own files, of launcher and sweeper."""
    assert path.read_text().startswith("# "), "does not say what it is"
    assert unexplained(path) == []


def test_a_key_without_a_comment_is_found(tmp_path):
    (tmp_path / "base.yaml").write_text("# A base.\n# Explained.\none: 1\ninner:\n  # Explained.\n  two: 2\n")
    (tmp_path / "more.yaml").write_text("# More.\ndefaults: [base, _self_]\none: 2\ninner: {two: 3}\nthree: 3\n")
    assert unexplained(tmp_path / "more.yaml") == ["three"]
    (tmp_path / "own.yaml").write_text("# Of Hydra.\n_target_: a.b\nhydra: {run: {dir: .}}\ninit:\n  level: error\n")
    assert unexplained(tmp_path / "own.yaml") == ["init.level"]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.slow
def test_every_setting_stands_in_a_file_of_its_group(group):
    written = {key for path in files(group) for key in own_keys(path)}
    written |= {key for path in files(group) for key in inherited_keys(path)}
    schema = {key for key, _ in flat(as_dict(getattr(Settings(), group)))}
    missing = {key for key in schema if not any(name == key or name.startswith(f"{key}.") for name in written)}
    assert missing == set()


@pytest.mark.slow
def test_the_settings_have_the_values_of_the_default_recipe():
    """Each class reads its defaults from the file that conf/config.yaml chooses, so that there is no second recipe."""
    recipe, schema = dict(flat(as_dict(composed()))), dict(flat(as_dict(Settings())))
    differing = {key for key in recipe if recipe[key] != schema[key]}
    assert differing - set(OF_THE_RUN) == {"data.unseen"}  # of data=scenes; other sets have none


@pytest.mark.parametrize("name", ALL)
@pytest.mark.slow
def test_a_recipe_keeps_its_values(name, monkeypatch):
    for variable in [variable for variable in os.environ if variable.startswith("AES_R1_")]:
        monkeypatch.delenv(variable)  # where data sets lie on this machine
    group, option = name.split("=")
    settings = as_dict(composed(name))
    if group == "+experiment":
        assert settings["run_name"] == option
        assert settings["out"].startswith(f"runs/{option}/")
    values = dict(flat(settings if group.startswith("+") else settings[group]))
    assert {key: values[key] for key in RECIPES[name]} == RECIPES[name]


@pytest.mark.parametrize("recorded", ["e7631f47300e", "9d8f9d524e7f"])
def test_a_recorded_run_keeps_its_hash(recorded):
    """A key that is added must stand in runs.identity._SINCE_ADDED with the value that changes nothing.

    The file holds the settings of +experiment=paper, and of +experiment=rapo with a model.path. An edit of a default
    makes another run of a recipe and changes nothing here.
    """
    values = json.loads((Path(__file__).parent / "golden" / "recorded_runs.json").read_text())[recorded]
    settings = build_settings(Settings, values)
    assert run_fingerprint(settings) == recorded
    assert differences(values, as_dict(settings)) == []


@pytest.mark.parametrize(
    ("earlier", "now"),
    [
        ({"surrogate": "clip", "advantage": "sum_then_normalize", "refill_rounds": 0}, ("ppo", "joint", False)),
        ({"surrogate": "sapo", "advantage": "normalize_then_sum", "refill_rounds": 3}, ("sapo", "per_reward", 3)),
    ],
)
def test_a_run_recorded_under_earlier_names_is_read_by_those_of_now(earlier, now, tmp_path):
    now = dict(zip(("clip", "advantage", "dynamic_sampling"), now, strict=True))
    settings = as_dict(Settings())
    trainer = {key: value for key, value in settings["trainer"].items() if key not in now}
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "trainer": {**trainer, **earlier}}))
    read = json.loads(json.dumps(RunFolder(tmp_path).settings))
    assert read == json.loads(json.dumps({**settings, "trainer": {**trainer, **now}}))
    assert build_settings(Settings, read).trainer.dynamic_sampling is now["dynamic_sampling"]


@pytest.mark.slow
@pytest.mark.parametrize(("given", "drawings"), [("2", 2), ("0", 0), ("false", False)])
def test_further_drawings_are_a_number_or_false(given, drawings):
    assert composed(f"trainer.dynamic_sampling={given}").trainer.dynamic_sampling == drawings
    assert run_fingerprint(composed("trainer.dynamic_sampling=0")) == run_fingerprint(composed())


@pytest.mark.slow
def test_where_servers_stand_is_no_part_of_a_run():
    """A server that has moved draws for the same run; who draws, and how it is weighed, is part of it."""
    at = [composed("rollout=vllm", f"rollout.url=[http://{host}:8100]", "rollout.patience=9") for host in ("a", "b")]
    assert run_fingerprint(at[0]) == run_fingerprint(at[1])
    assert differences(as_dict(at[0]), as_dict(at[1])) == []
    others = [composed(), *(composed("rollout=vllm", "rollout.url=[http://a:8100]", more) for more in OF_A_RUN)]
    assert len({run_fingerprint(one) for one in (at[0], *others)}) == 4
    recorded = as_dict(composed())
    del recorded["rollout"]
    assert differences(recorded, as_dict(composed())) == []
    assert differences(recorded, as_dict(at[0])) == ["rollout.name"]


@pytest.mark.slow
def test_where_the_judge_stands_and_what_it_costs_is_no_part_of_a_run():
    """A higher price ceiling goes on with the same run; another model or rubric is another run."""
    judged = ("reward.judge.weight=1", "reward.judge.model=m")
    there = [f"reward.judge.{key}" for key in ("api_base=http://a/v1", "max_usd=9", "max_concurrency=2", "retries=1")]
    prices = ["reward.judge.input_usd_per_million=1", "reward.judge.output_usd_per_million=1"]
    here, moved = composed(*judged), composed(*judged, *there, *prices)
    assert run_fingerprint(here) == run_fingerprint(moved)
    assert differences(as_dict(here), as_dict(moved)) == []
    others = [composed(*judged, f"reward.judge.{more}") for more in ("model=n", "rubric=Be kind")]
    assert len({run_fingerprint(one) for one in (here, *others)}) == 3


OF_A_RUN = ("rollout.cap=3", "rollout.ahead=1")


@pytest.mark.slow
def test_a_run_recorded_with_another_base_is_not_taken_for_one_of_this_code():
    """Run 4107c3a18371 has a base model that can no longer be made, so neither current base may share its hash."""
    recorded = as_dict(composed("+experiment=rapo"))
    del recorded["model"]["base"]
    for base in ("shipped", "pretrain"):
        settings = composed("+experiment=rapo", f"model.base={base}")
        assert run_fingerprint(settings) != "4107c3a18371"
        assert differences(recorded, as_dict(settings)) == ["model.base"]


@pytest.mark.slow
def test_a_key_that_was_added_decides_where_it_changes_something(monkeypatch):
    settings = composed()
    with_it = run_fingerprint(settings)
    monkeypatch.setattr("aes_r1.runs.identity._SINCE_ADDED", {"trainer.scale_advantage": True})
    without_it = run_fingerprint(settings)
    assert without_it != with_it
    recorded = as_dict(settings)
    del recorded["trainer"]["scale_advantage"]
    assert differences(recorded, as_dict(settings)) == []
    changed = composed("trainer.scale_advantage=false")
    assert run_fingerprint(changed) not in (with_it, without_it)
    assert differences(recorded, as_dict(changed)) == ["trainer.scale_advantage"]


def test_every_recipe_is_pinned():
    assert set(RECIPES) == set(ALL)


@pytest.mark.slow
def test_the_debug_recipe_runs_every_stage(tmp_path):
    done = train("+debug=default", "out=run", "store=store", folder=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    stages = json.loads((tmp_path / "run" / "evaluation.json").read_text())["stages"]
    assert list(stages) == ["base", "cold_start", "rapo"]


if __name__ == "__main__":  # python -m tests.test_conf: pin what is composed; the diff shows which recipe changed
    pinned = {}
    for recipe in ALL:
        whole = as_dict(composed(recipe))
        group = recipe.split("=")[0]
        values = dict(flat(whole if group.startswith("+") else whole[group]))
        pinned[recipe] = {key: value for key, value in values.items() if key not in (*OF_THE_RUN, "store")}
    (Path(__file__).parent / "golden" / "recipes.json").write_text(json.dumps(pinned, indent=1, sort_keys=True) + "\n")
