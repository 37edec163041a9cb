"""The code's commit and the base model's content, on real trees, folders and a hub cache."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import aes_r1
from aes_r1.pipeline import cold_start_stage
from aes_r1.pipeline.job import Job
from aes_r1.pipeline.origin import code_version, content_name, record_origin, require_same_files
from aes_r1.runs.files import write_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.processes import Processes
from aes_r1.settings import InputError
from aes_r1.tracking.tracker import Tracker
from tests.recipes import composed


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
        return content_name(str(folder), tmp_path / "store")

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
    assert content_name("nobody/never-downloaded", tmp_path / "store") is None


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """Return a function that puts a file of a commit of owner/name into the hub's cache, as a download does."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def download(file: str, commit: str = "abc") -> None:
        folder = tmp_path / "cache" / "models--owner--name"
        (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "snapshots" / commit / file).write_text("{}")
        (folder / "refs" / "main").write_text(commit)

    return download


@pytest.mark.slow
def test_a_hub_model_has_one_name_whatever_of_it_was_downloaded(downloaded, tmp_path):
    """A check fetches no weights, a run does, and other programs fetch files that it does not read."""
    store, run = tmp_path / "store", RunFolder(tmp_path / "run")
    run.path.mkdir()
    names = []
    later = ("tokenizer.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "merges.txt")
    for file in ("config.json", *later):
        downloaded(file)
        names.append(content_name("owner/name", store))
        record_origin(run, "owner/name", store)
        names.append(run.origin["base"])
    assert set(names) == {"owner/name@abc"}
    downloaded("config.json", commit="def")
    assert content_name("owner/name", store) == "owner/name@def"


@pytest.mark.slow
def test_a_cold_start_from_a_hub_model_is_found_again_after_its_weights_were_downloaded(
    downloaded, tmp_path, monkeypatch
):
    """By a resumed run, and by the next point of a sweep."""
    asked = composed("model.path=owner/name", f"out={tmp_path}/run", f"store={tmp_path}/store")
    found: list[str] = []

    class Made(Processes):
        def build_collectively(self, store, kind, digest, make) -> bool:
            found.append(digest)
            downloaded("model.safetensors")
            return False

    job = Job(asked, tmp_path / "run", torch.device("cpu"), Made(), Tracker(None, asked.tracker, {}))
    job.run.path.mkdir()
    record = {"id": "1", "image": "1.png", "mos": 0.5, "critique": "Plain."}
    (tmp_path / "1.png").touch()
    write_rows(tmp_path / "records.jsonl", [record])
    monkeypatch.setattr(cold_start_stage, "critiques_of", lambda job: tmp_path / "records.jsonl")
    for _ in range(2):
        downloaded("config.json")
        cold_start_stage.cold_start(job, "owner/name")
    assert len(set(found)) == 1
    assert len(found) == 2


def test_weights_are_read_once_and_again_when_they_were_written(tmp_path, monkeypatch):
    base = tmp_path / "base"
    base.mkdir()
    weights = base / "model.safetensors"
    weights.write_bytes(b"abc")
    first = content_name(str(base), tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr("aes_r1.model.digest.sha256_of", lambda path: pytest.fail(f"{path} was read again"))
        assert content_name(str(base), tmp_path / "store") == first
    weights.write_bytes(b"abd")  # in the same folder, of the same size
    assert content_name(str(base), tmp_path / "store") != first


def test_a_run_that_goes_on_names_every_commit_and_keeps_its_base(tmp_path, monkeypatch):
    base, run = tmp_path / "base", tmp_path / "run"
    base.mkdir()
    run.mkdir()
    (base / "model.safetensors").write_bytes(b"abc")
    store = tmp_path / "store"
    digest = content_name(str(base), store)
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


@pytest.mark.slow
def test_another_model_in_the_same_folder_is_noticed(tmp_path):
    base, run = tmp_path / "base", RunFolder(tmp_path / "run")
    base.mkdir()
    run.path.mkdir()
    (base / "model.safetensors").write_bytes(b"abc")
    settings = composed(f"model.path={base}", f"out={run}", f"store={tmp_path}/store")
    require_same_files(run, settings)  # nothing was recorded yet
    record_origin(run, str(base), tmp_path / "store")
    require_same_files(run, settings)
    (base / "README.md").write_text("computes nothing")
    require_same_files(run, settings)
    (base / "model.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match=r"^model\.path=.*/base: it holds another model than when this"):
        require_same_files(run, settings)
    shutil.rmtree(base)
    require_same_files(run, settings)  # a later stage says that it is gone


def test_a_finished_run_is_looked_at_where_the_store_cannot_be_written(tmp_path):
    """Its base is named without the store; a link into a cache that was emptied is no model that could be compared."""
    model, store = tmp_path / "model", tmp_path / "store"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    name = content_name(str(model), store)
    (tmp_path / "file").write_text("a file where the store would be")
    assert content_name(str(model), tmp_path / "file") == name is not None
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to(tmp_path / "gone")
    assert content_name(str(model), store) is None
