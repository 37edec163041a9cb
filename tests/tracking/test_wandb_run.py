"""W&B's variables as agents and shells set them: precedence, and the error for unusable values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError, TrackerSettings
from aes_r1.tracking.wandb_run import start_wandb

# W&B reads its variables once in a process, so that each case is a fork of one that has imported it.
SCRIPT = """
import json, os, sys
from pathlib import Path
from aes_r1.settings import InputError, TrackerSettings
from aes_r1.tracking.tracker import Tracker
import wandb

clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
for name, folder, tracker, environment in json.loads(sys.stdin.read()):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    os.environ.clear()
    os.environ.update({**clean, **environment})
    settings = TrackerSettings(name=tracker, project="ours", group="study")
    said = {}
    try:
        with Tracker(Path(folder), settings, {"tracker": {"group": "study"}}, run_name="one") as run:
            run.log("sft", 1, {"lr": 0.1})
            if run._wandb is not None:
                seen = run._wandb.settings
                said = {"id": run._wandb.id, "project": seen.project, "mode": seen.mode, "group": seen.run_group}
                said |= {"sweep": seen.sweep_id, "url": seen.base_url, "entity": seen.entity}
        said["same environment"] = all(os.environ.get(key) == value for key, value in environment.items())
    except InputError as error:
        said = {"refused": str(error)}
    Path(folder).with_suffix(".json").write_text(json.dumps(said))
    os._exit(0)
"""
AGENT = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "agents", "WANDB_PROJECT": "theirs", "WANDB_ENTITY": "team"}
CASES = {
    "plain": ("offline", {}),
    "disabled": ("offline", {"WANDB_MODE": "disabled"}),
    "disabled_too": ("wandb", {"WANDB_DISABLED": "true"}),
    "kept_offline": ("wandb", {"WANDB_MODE": "offline", "WANDB_API_KEY": "0" * 40}),
    "never_online": ("offline", {"WANDB_MODE": "online"}),
    "unknown_mode": ("wandb", {"WANDB_MODE": "ofline"}),
    "agent": ("offline", AGENT),
    "agent/resumed": ("offline", {**AGENT, "WANDB_RUN_ID": "another"}),
    "plain/resumed": ("offline", AGENT),
    "named": ("offline", {"WANDB_RUN_ID": "mine"}),
    "shell": ("offline", {"WANDB_PROJECT": "a/b", "WANDB_NAME": "x", "WANDB_RUN_GROUP": "y", "WANDB_DIR": "/nowhere"}),
    "silent": ("offline", {"WANDB_SILENT": "maybe"}),
    "team": ("offline", {"WANDB_ENTITY": "team"}),
    "bad_url": ("offline", {"WANDB_BASE_URL": "notaurl"}),
    "bad_timeout": ("offline", {"WANDB_INIT_TIMEOUT": "soon"}),
    "no_socket": ("offline", {"WANDB_SERVICE": "3-1-unix-/nowhere/socket"}),
    "no_port": ("offline", {"WANDB_SERVICE": "3-1-tcp-localhost-9"}),
    "no_token": ("offline", {"WANDB_SERVICE": "stale"}),
    "no_home": ("offline", {"HOME": "/dev/null/nobody", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}),
    "bad_id": ("offline", {"WANDB_RUN_ID": "a/b"}),
    "bad_key": ("offline", {"WANDB_API_KEY": "0" * 40 + "\n"}),
    "bad_project": ("offline", {**AGENT, "WANDB_PROJECT": "a/b"}),
    "no_utf8": ("offline", {"LC_ALL": "C", "LANG": "C"}),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, dict]:
    """Return the outcome of each case, with the folder that it wrote."""
    root = tmp_path_factory.mktemp("runs")
    rows = [(name, str(root / name.split("/")[0]), *case) for name, case in CASES.items()]
    reports = {}
    for part in ([row for row in rows if "/" not in row[0]], [row for row in rows if "/" in row[0]]):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], input=json.dumps(part), text=True, capture_output=True, timeout=600,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, cwd=root,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for name, folder, *_ in part:
            path = Path(folder).with_suffix(".json")
            assert path.exists(), f"{name}: {done.stderr[-2000:]}"
            reports[name] = {**json.loads(path.read_text()), "folder": Path(folder)}
            path.unlink()
    return reports


@pytest.mark.slow
def test_the_environment_can_switch_w_and_b_off_but_not_on(said):
    for name in ("disabled", "disabled_too"):
        assert "id" not in said[name]
        assert not (said[name]["folder"] / "wandb").exists()
        assert json.loads((said[name]["folder"] / "metrics.jsonl").read_text())["lr"] == 0.1
    assert said["kept_offline"]["mode"] == said["never_online"]["mode"] == "offline"
    assert said["unknown_mode"]["refused"].startswith("WANDB_MODE=ofline: ")


@pytest.mark.slow
def test_the_settings_win_over_the_shell_and_leave_it_as_it_was(said):
    for name in ("plain", "shell", "silent", "no_utf8"):
        assert (said[name]["project"], said[name]["group"]) == ("ours", "study"), name
        assert said[name]["same environment"]
    assert said["team"]["entity"] == "team"
    assert next(said["shell"]["folder"].glob("wandb/offline-run-*"))


def test_a_new_folder_takes_the_id_it_is_given_and_keeps_it(said):
    assert said["named"]["id"] == "mine"
    agent = said["agent"]
    assert (agent["id"], agent["sweep"], agent["project"]) == ("agents", "s1", "theirs")
    for name, ident in (("agent/resumed", "agents"), ("plain/resumed", said["plain"]["id"])):
        resumed = said[name]
        assert (resumed["id"], resumed["sweep"], resumed["project"]) == (ident, None, "ours"), name
        assert (resumed["folder"] / "wandb" / "run_id").read_text() == ident


@pytest.mark.parametrize(("name", "variable"), [("bad_url", "WANDB_BASE_URL"), ("bad_timeout", "WANDB_INIT_TIMEOUT")])
def test_a_variable_that_cannot_be_used_is_named_in_a_line(said, name, variable):
    assert said[name]["refused"].startswith(f"{variable}={CASES[name][1][variable]}: ")
    assert "\n" not in said[name]["refused"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bad_id", "WANDB_RUN_ID=a/b: Run ID cannot contain"),
        ("bad_key", "WANDB_API_KEY: API key cannot start or end with whitespace"),
        ("bad_project", "WANDB_PROJECT=a/b: Invalid project name 'a/b'"),
    ],
)
def test_a_value_that_w_and_b_refuses_is_named_where_it_stands(said, name, says):
    assert said[name]["refused"].startswith(says)
    assert said[name]["refused"].endswith("; mend or remove it")
    assert "\n" not in said[name]["refused"]


def test_a_refused_project_and_a_refused_id_of_the_folder_are_named(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"^tracker\.project=a/b: Invalid project name 'a/b'.*; mend or remove it$"):
        start_wandb(run, TrackerSettings(name="offline", project="a/b"), {}, "one", None)
    (run.wandb / "run_id").write_text("a/b")
    with pytest.raises(InputError, match=rf"^{run.wandb}/run_id: a/b: Run ID cannot contain.*; mend or remove it$"):
        start_wandb(run, TrackerSettings(name="offline", project="ours"), {}, "one", None)


@pytest.mark.parametrize("name", ["no_socket", "no_port", "no_token"])
def test_a_service_that_another_process_left_does_not_matter(said, name):
    assert said[name].get("id"), said[name]
    assert said[name]["same environment"]
    assert next(said[name]["folder"].glob("wandb/offline-run-*/run-*.wandb")).stat().st_size > 100


def test_a_home_that_cannot_be_written_does_not_matter(said):
    assert said["no_home"]["id"]
    assert next(said["no_home"]["folder"].glob("wandb/offline-run-*/run-*.wandb")).stat().st_size > 100
