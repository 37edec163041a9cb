"""What is found in the user's own folder is trusted, so nobody else may have made it or write to it."""

from __future__ import annotations

import os
import stat

import pytest

from aes_r1.runs.private import private_cache
from aes_r1.settings import InputError


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The temporary folder, and the path of this user's own in it, where the home cannot be written."""
    (tmp_path / "home").write_text("a file")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp" / f"aes_r1.{os.geteuid()}"


def test_the_cache_is_taken_first(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert private_cache() == tmp_path / "cache" / "aes_r1"
    assert stat.S_IMODE(private_cache().stat().st_mode) == 0o700
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert private_cache() == tmp_path / ".cache" / "aes_r1"


def test_without_a_home_it_lies_in_the_temporary_folder(temporary):
    assert private_cache() == temporary
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    assert private_cache() == temporary


@pytest.mark.parametrize("made", ["a link", "open to others", "another user's", "a file"])
def test_what_somebody_else_made_is_not_trusted(made, temporary, tmp_path, monkeypatch):
    if made == "a link":
        temporary.symlink_to(tmp_path)
    elif made == "a file":
        temporary.write_text("")
    else:
        temporary.mkdir(mode=0o700)
        if made == "open to others":
            temporary.chmod(0o777)
        else:
            user = os.geteuid()
            monkeypatch.setattr("tempfile.tempdir", str(temporary.parent))
            temporary.rename(temporary.with_name(f"aes_r1.{user + 1}"))
            monkeypatch.setattr("os.geteuid", lambda: user + 1)
    with pytest.raises(InputError, match="give XDG_CACHE_HOME a folder of your own"):
        private_cache()


@pytest.mark.parametrize("home", ["without a home", "cache", "~/cache"])
def test_a_path_that_is_not_absolute_is_passed_over(home, temporary, tmp_path, monkeypatch):
    """It would be a folder, `~` for example, wherever the command was started."""
    monkeypatch.chdir(tmp_path)
    if home == "without a home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as Python answers a user without a home
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", home)
    before = sorted(tmp_path.iterdir())
    assert private_cache() == temporary
    assert sorted(tmp_path.iterdir()) == before
