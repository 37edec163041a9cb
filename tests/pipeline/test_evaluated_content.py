"""An evaluation's folder answers for the weights, the way of asking and the lists that it was begun with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from aes_r1.data.manifest import write_manifest
from aes_r1.data.sample import Sample
from aes_r1.inference.asking import PROFILE_FILE, ModelProfile
from aes_r1.model import tiny
from aes_r1.pipeline.evaluated_content import claim_content
from aes_r1.points import is_done
from aes_r1.runs.files import write_json
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import EvaluateSettings, InputError, as_dict, build_settings

SAMPLES = [
    Sample(id=f"{place}", image=f"/pictures/{place}.png", mos=place / 5, dataset="para", split="test",
           mos_std=0.1, n_raters=9, attributes={"light": 0.5})
    for place in range(4)
]  # fmt: skip
HASHED = [replace(one, sha256=one.id * 64) for one in SAMPLES]


def asked_in(folder: Path) -> tuple[RunFolder, EvaluateSettings]:
    """The folder of an evaluation that is done, of the exported model and the manifest in `folder`."""
    values = {"name": "manifest", "root": str(folder / "manifest.jsonl"), "split": "test", "workers": 0}
    settings = build_settings(
        EvaluateSettings,
        {"model": {"path": str(folder / "m")}, "data": values, "out": str(folder / "out"),
         "store": str(folder / "store")},
    )  # fmt: skip
    run = RunFolder(settings.out)
    run.path.mkdir(exist_ok=True)
    write_json(run.settings_file, as_dict(settings))
    write_json(run.evaluation_file, {})
    return run, settings


@pytest.fixture
def place(tmp_path) -> Path:
    shutil.copytree(tiny.shipped(), tmp_path / "m")
    write_json(tmp_path / "m" / PROFILE_FILE, asdict(ModelProfile()))
    write_manifest(SAMPLES, tmp_path / "manifest.jsonl")
    return tmp_path


def with_facts(**values: object) -> Callable[[Path], None]:
    return lambda folder: write_json(folder / "m" / PROFILE_FILE, {**asdict(ModelProfile()), **values})


def with_list(samples: Iterable[Sample]) -> Callable[[Path], None]:
    return lambda folder: write_manifest(samples, folder / "manifest.jsonl")


def with_weights(folder: Path) -> None:
    weights = folder / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_weights, "no longer the model that answered as model"),
        (with_facts(max_new_tokens=9), "no longer the model that answered as model"),
        (with_facts(temperature=0.1), "no longer the model that answered as model"),
        (with_list([replace(one, mos=0.5) for one in SAMPLES]), "now lists other pictures or opinions"),
        (with_list([replace(one, n_raters=3) for one in SAMPLES]), "now lists other pictures or opinions"),
        (with_list(SAMPLES[1:]), "now lists other pictures or opinions"),
    ],
)
@pytest.mark.slow
def test_a_start_and_a_point_thatis_done_are_refused_for_other_content(change, says, place):
    run, settings = asked_in(place)
    claim_content(run, settings)
    assert is_done(run.path, settings)
    change(place)
    with pytest.raises(InputError, match=says):
        is_done(run.path, settings)
    with pytest.raises(InputError, match=says):
        claim_content(run, settings)


@pytest.mark.parametrize(
    "change",
    [
        with_facts(half_widths={"mean": 0.2}, measured_on="ava/test", scenes_alone=True),
        with_list([replace(one, attributes={"light": 0.5, "color": 0.5}) for one in SAMPLES]),
        with_list([replace(one, image=f"/moved/{one.id}.png") for one in SAMPLES[::-1]]),
        with_list(HASHED),
        with_list([*HASHED[:2], *SAMPLES[2:]]),
        lambda folder: shutil.rmtree(folder / "m"),
        lambda folder: (folder / "manifest.jsonl").unlink(),
    ],
)
@pytest.mark.slow
def test_what_bears_on_no_answer_is_not_compared(change, place):
    run, settings = asked_in(place)
    claim_content(run, settings)
    change(place)
    claim_content(run, settings)
    assert is_done(run.path, settings)


@pytest.mark.slow
def test_the_bytes_of_pictures_are_compared_where_both_lists_have_their_digests(place):
    """They are noted by the first start that knows them."""
    run, settings = asked_in(place)
    claim_content(run, settings)
    with_list(HASHED)(place)
    claim_content(run, settings)
    with_list([replace(HASHED[0], sha256="f" * 64), *HASHED[1:]])(place)
    with pytest.raises(InputError, match="now lists other pictures under the same names"):
        is_done(run.path, settings)


@pytest.mark.slow
def test_a_folder_of_an_older_version_is_compared_with_what_it_noted(place):
    """Its content.json holds the digests of lists, of which the next start notes more."""
    run, settings = asked_in(place)
    claim_content(run, settings)
    (run.stages / "content.json").write_text(
        json.dumps(
            {
                **run.stage_values("content"),
                "opinions": {"manifest-test": run.stage_values("labels")["lists"]["manifest-test"]["opinions"]},
                "pictures": {"manifest-test": None},
            }
        )
    )
    (run.stages / "labels.json").unlink()
    older = run.stage_values("content")
    assert is_done(run.path, settings)
    with_list([replace(one, mos=0.5) for one in SAMPLES])(place)
    with pytest.raises(InputError, match="now lists other pictures or opinions"):
        is_done(run.path, settings)
    with_list(SAMPLES)(place)
    claim_content(run, settings)
    assert run.stage_values("content") == older
    with_list([replace(one, attributes={"votes": [1, 2]}) for one in SAMPLES])(place)
    with pytest.raises(InputError, match="now lists other votes"):
        is_done(run.path, settings)
