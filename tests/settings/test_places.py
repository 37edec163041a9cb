"""A name that begins with ~, for users without a home folder and with names of users that nobody knows."""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path

import pytest

from aes_r1 import evaluate
from aes_r1.data.loader import root_of
from aes_r1.data.splits import assign_splits
from aes_r1.inference.asking import find_model
from aes_r1.pipeline import preflight
from aes_r1.reward.custom import load_reward
from aes_r1.rollout.served import _weights_folder
from aes_r1.runs.private import private_cache
from aes_r1.settings import DataSettings, InputError, Settings, place
from aes_r1.tracking.tracker import Tracker
from aes_r1.trainer.compiled_ops import own_folder
from tests.recipes import composed, composed_evaluate

NOBODY = "~nobody_of_that_name/x"
ASKS = {
    f"data.root={NOBODY}": lambda: root_of(DataSettings(name="folder", root=NOBODY)),
    f"data.split_by={NOBODY}": lambda: assign_splits([], (1, 0, 0), NOBODY),
    f"reward.custom={NOBODY}.py": lambda: load_reward(f"{NOBODY}.py:f"),
    f"rollout.weights={NOBODY}": lambda: _weights_folder(NOBODY),
    f"model.path={NOBODY}": lambda: evaluate._seen(composed_evaluate(f"model.path='{NOBODY}'")),
    NOBODY: lambda: find_model(NOBODY),
}


@pytest.mark.parametrize("named", ASKS)
def test_a_user_that_nobody_knows_is_one_line(named):
    with pytest.raises(InputError) as caught:
        ASKS[named]()
    name = named.rpartition("=")[2]
    assert str(caught.value) == (
        f"{named}: no user nobody_of_that_name is known; give the whole path, or ./{name} where the name itself "
        "begins with ~"
    )


@pytest.mark.slow
def test_a_run_asks_in_seconds(tmp_path):
    quoted = shlex.quote(NOBODY)
    with pytest.raises(InputError, match=r"data\.root=~nobody_of_that_name/x: no user "):
        preflight.check_run(
            composed("data=folder", f"data.root={quoted}", f"out={tmp_path}/run", f"store={tmp_path}/store")
        )


@pytest.fixture
def homeless(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_names_are_asked_about_and_caches_lie_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^data\.root=~/x: no home folder is known; give the whole path"):
        place("~/x", "data.root")
    assert place("./~/x") == Path("~/x")
    assert str(place("x~", "data.root")) == "x~"
    assert own_folder().is_relative_to(private_cache())
    assert private_cache().is_absolute()
    assert not list(tmp_path.iterdir()), "no folder of the name ~"


@pytest.mark.usefixtures("homeless")
@pytest.mark.slow
def test_without_a_home_folder_the_default_tracker_works(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    settings = Settings().tracker
    assert settings.name == "offline"
    with Tracker(tmp_path / "run", settings, {}) as tracker:
        tracker.finish()
    assert (tmp_path / "run" / "wandb" / "run_id").exists()
