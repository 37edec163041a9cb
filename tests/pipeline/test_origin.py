"""The code's commit and the base model's content, on real trees, folders and a hub cache."""

import json
import subprocess
from pathlib import Path

import pytest

import aes_r1
from aes_r1.pipeline.origin import code_version, model_digest, record_origin
from aes_r1.runs.folder import RunFolder


def git(tree: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=tree, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path):
    """A package in a git tree with one commit."""
    folder = tmp_path / "tree" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-qm", "one")
    return folder


def test_the_commit_of_a_tree_and_whether_it_was_changed(package):
    commit = git(package, "rev-parse", "--short=12", "HEAD")
    assert code_version(package) == commit
    (package / "__init__.py").write_text("x = 1\n")
    assert code_version(package) == f"{commit}-dirty"


def test_an_installed_copy_is_named_by_its_version(package, tmp_path):
    """Outside of any tree, and inside of a tree that does not track it, as a virtual environment in a project is."""
    for folder in (tmp_path / "installed", package.parent / "venv" / "package"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        assert code_version(folder) == f"version {aes_r1.__version__}"


def test_the_digest_is_of_what_a_model_computes_with(tmp_path):
    def model(name: str, weights: bytes, **others: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
        for file, text in {"config": "{}", "tokenizer": "{}", **others}.items():
            (folder / f"{file}.json").write_text(text)
        return folder

    def digest(folder: Path) -> str | None:
        return model_digest(str(folder), tmp_path / "store")

    one = model("one", b"abc")
    assert digest(one) == digest(model("elsewhere", b"abc"))
    others = [
        model("weights", b"abd"),
        model("config", b"abc", config="[]"),
        model("tokenizer", b"abc", tokenizer="[]"),
        model("template", b"abc", chat_template="{}"),
        model("pictures", b"abc", preprocessor_config="{}"),
    ]
    assert len({digest(one), *map(digest, others)}) == 6
    (one / "README.md").write_text("words")
    (one / "generation_config.json").write_text("{}")
    assert digest(one) == digest(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    assert digest(tmp_path / "empty") is None
    assert model_digest("nobody/never-downloaded", tmp_path / "store") is None


def test_weights_are_read_once_and_again_when_they_were_written(tmp_path, monkeypatch):
    base = tmp_path / "base"
    base.mkdir()
    weights = base / "model.safetensors"
    weights.write_bytes(b"abc")
    first = model_digest(str(base), tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr("aes_r1.model.digest.sha256_of", lambda path: pytest.fail(f"{path} was read again"))
        assert model_digest(str(base), tmp_path / "store") == first
    weights.write_bytes(b"abd")  # in the same folder, of the same size
    assert model_digest(str(base), tmp_path / "store") != first


def test_a_run_that_goes_on_names_every_commit_and_keeps_its_base(tmp_path, monkeypatch):
    base, run = tmp_path / "base", tmp_path / "run"
    base.mkdir()
    run.mkdir()
    (base / "model.safetensors").write_bytes(b"abc")
    store = tmp_path / "store"
    digest = model_digest(str(base), store)
    origin = run / "stages" / "origin.json"
    record_origin(RunFolder(run), "nobody/never-downloaded", store)
    first = json.loads(origin.read_text())
    assert first["base"] is None
    record_origin(RunFolder(run), str(base), store)
    assert json.loads(origin.read_text()) == {"commits": first["commits"], "base": digest}
    monkeypatch.setattr("aes_r1.pipeline.origin.code_version", lambda package: "newer")
    (base / "model.safetensors").write_bytes(b"other")
    record_origin(RunFolder(run), str(base), store)
    assert json.loads(origin.read_text()) == {"commits": [*first["commits"], "newer"], "base": digest}
