"""A ~ that the shell left in an argument (`--shards=~/out`, quotes) is the home folder, and never a folder's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from aes_r1 import check_model, export, score
from aes_r1.recipe import to_settings
from aes_r1.report import __main__ as report
from aes_r1.scoring import shards
from aes_r1.settings import DashboardSettings, DistillSettings, EvaluateSettings, InputError, Settings


class _Asked(Exception):
    """Raised in place of the work, with the places that it was asked for."""


def asked(*places: object, **_: object) -> None:
    raise _Asked(*places)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("one", "two"):
        (tmp_path / "home" / name).mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_export_takes_it_for_the_home_folder(home, monkeypatch):
    monkeypatch.setattr(export, "export", asked)
    with pytest.raises(_Asked) as caught:
        export.run(export.arguments().parse_args(["~/one", "~/OUT"]))
    assert caught.value.args == (home / "one", home / "OUT")


def test_a_comparison_takes_it_for_the_home_folder(home, monkeypatch):
    monkeypatch.setattr(report, "write_comparison", asked)
    with pytest.raises(_Asked) as caught:
        report.run(report.arguments().parse_args(["~/one", "~/two", "--out=~/page.html"]))
    assert caught.value.args == ([home / "one", home / "two"], home / "page.html")


def test_shards_are_written_to_the_home_folder(home, monkeypatch):
    monkeypatch.setattr(shards, "score_shards", asked)
    options = score.arguments().parse_args(["a.jpg", "--model", "RUN", "--shards=~/out"])
    with pytest.raises(_Asked) as caught:
        score._score_shards(options, [], None)
    assert caught.value.args == ([], home / "out")


def test_the_check_of_a_model_takes_it_for_the_home_folder(monkeypatch):
    monkeypatch.setattr(check_model, "_model", asked)
    with pytest.raises(_Asked):
        check_model.run(check_model.arguments().parse_args(["MODEL", "--scratch=~/one"]))


@pytest.mark.parametrize(
    ("schema", "key"),
    [
        *((Settings, key) for key in ("out", "store")),
        *((EvaluateSettings, key) for key in ("out", "store", "runs")),
        *((DashboardSettings, key) for key in ("out", "runs", "analyses")),
        *((DistillSettings, key) for key in ("out", "audit")),
    ],
)
def test_a_setting_that_would_make_such_a_folder_is_refused_with_the_whole_path(schema, key, home):
    value = ["~/x"] if (schema, key) == (EvaluateSettings, "runs") else "~/x"
    with pytest.raises(InputError) as caught:
        to_settings(OmegaConf.create({key: value}), schema)
    assert str(caught.value) == f"{key}=~/x: must be a whole path, {home}/x, or ./~/x where the name begins with ~"


def test_a_home_folder_that_nobody_has_is_said():
    with pytest.raises(InputError, match="out=~nobody-here/x: no user nobody-here is known"):
        to_settings(OmegaConf.create({"out": "~nobody-here/x"}))
