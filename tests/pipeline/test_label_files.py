"""Labels that are edited after a run began are not taken for those that it uses."""

from __future__ import annotations

import json

import pytest

from aes_r1.pipeline.label_files import note_labels, require_same_labels
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import DataSettings, InputError
from tests.recipes import composed

ROWS = "image,mos\na.jpg,0.1\nb.jpg,0.2\n"
NAMES = {"folder": "labels.csv", "manifest": "manifest.jsonl", "aescot": "aescot.jsonl", "aes_15k": "manifest.jsonl"}


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    return folder


@pytest.mark.parametrize("kind", NAMES)
def test_labels_that_were_changed_after_a_run_began_are_refused(kind, run, tmp_path):
    file = tmp_path / "set" / NAMES[kind]
    file.parent.mkdir()
    file.write_text(ROWS)
    settings = composed(f"data={kind}", f"data.root={file.parent if kind == 'folder' else file}", "expert=pixels")
    require_same_labels(run, settings)  # nothing was noted yet
    note_labels(run, settings)
    require_same_labels(run, settings)
    for changed in (ROWS.replace("0.1", "0.9"), f"{ROWS}c.jpg,0.3\n"):
        file.write_text(changed)
        note_labels(run, settings)  # what a run began with stays what it was
        with pytest.raises(InputError, match=rf"{file.name}: was changed after the run in .* began with it; put it"):
            require_same_labels(run, settings)
    file.write_text(ROWS)
    require_same_labels(run, settings)
    file.unlink()
    require_same_labels(run, settings)  # the set was moved away after it was listed


def test_a_second_file_of_labels_does_not_hide_the_first(run, tmp_path):
    (tmp_path / "labels.csv").write_text(ROWS)
    settings = composed("data=folder", f"data.root={tmp_path}", "expert=pixels")
    note_labels(run, settings)
    (tmp_path / "labels.tsv").write_text(ROWS)
    with pytest.raises(InputError, match="keep the one that is meant"):
        require_same_labels(run, settings)


@pytest.mark.parametrize("changed", ["one", "two", "three"])
def test_sets_of_one_name_are_told_apart(changed, run, tmp_path):
    files = {name: tmp_path / f"{name}.jsonl" for name in ("one", "two", "three")}
    for file in files.values():
        file.write_text(ROWS)
    settings = composed("data=manifest", f"data.root={files['one']}", "expert=pixels")
    settings.evaluation.also = [DataSettings("manifest", str(files[name])) for name in ("two", "three")]
    note_labels(run, settings)
    assert len(json.loads((run.stages / "labels.json").read_text())) == 3
    files[changed].write_text(ROWS.replace("0.1", "0.9"))
    with pytest.raises(InputError, match=rf"{changed}\.jsonl: was changed"):
        require_same_labels(run, settings)


def test_a_list_of_test_pictures_is_compared(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "labels.csv").write_text(ROWS)
    (tmp_path / "test.json").write_text('["a.jpg"]')
    settings = composed("data=folder", f"data.root={tmp_path}", "expert=pixels")
    settings.data.split_by = "~/test.json"
    note_labels(run, settings)
    (tmp_path / "test.json").write_text('["b.jpg"]')
    with pytest.raises(InputError, match=r"test\.json: was changed"):
        require_same_labels(run, settings)


def test_a_run_of_an_older_version_goes_on_and_notes_nothing(run, tmp_path):
    (tmp_path / "labels.csv").write_text(ROWS)
    settings = composed("data=folder", f"data.root={tmp_path}", "expert=pixels")
    run.finish_stage("data", {"folder/train": 2})
    note_labels(run, settings)
    (tmp_path / "labels.csv").write_text(ROWS.replace("0.1", "0.9"))
    require_same_labels(run, settings)


def test_scenes_and_published_sets_have_no_labels_to_compare(run, tmp_path):
    for given in (["data=scenes"], ["data=para", f"data.root={tmp_path}"]):
        note_labels(run, composed(*given, "expert=pixels"))
        assert run.stage_values("labels") == {}
