"""critique/* of a validation: of every set, whatever the order of the list."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from aes_r1.data.sample import Sample
from aes_r1.model import backbone as backbones
from aes_r1.pipeline import critique_validation
from aes_r1.pipeline.job import Job
from aes_r1.rollout.sampler import sample_completions
from aes_r1.runs.processes import Processes
from aes_r1.settings import Settings, build_settings
from aes_r1.tracking.tracker import Tracker

# In blocks, as the lists of a mix may be.
BLOCKS = ["ava"] * 6 + ["tad66k"] * 4 + ["flickr_aes"] * 2


def measured_of(talking_run: Path, out: Path, pictures: list[Sample], **model: str) -> dict[str, float]:
    given = {"model": {"max_pixels": 9216, **model}, "trainer": {"max_new_tokens": 64}}
    settings = build_settings(Settings, {"out": str(out), **given})
    job = Job(settings, out, torch.device("cpu"), Processes(), Tracker(None, settings.tracker, {}))
    backbone = backbones.load(talking_run / "model", dtype="float32", max_pixels=9216)
    return critique_validation.critique_metrics(job, backbone, pictures, sample_completions)


@pytest.mark.parametrize("answer_from", ["image", "words"])
def test_what_pictures_tell_of_a_score_is_defined_where_it_was_given_beside_them(talking_run, tmp_path, answer_from):
    paths = sorted((talking_run / "pictures").glob("*.png"))
    pictures = [Sample(path.name, str(path), place / 12, "folder", "validation") for place, path in enumerate(paths)]
    values = measured_of(talking_run, tmp_path, pictures, answer_from=answer_from)
    assert values["critique/information_nats"] > 1
    assert math.isnan(values["critique/score_information_nats"]) == (answer_from == "words")


@pytest.mark.parametrize(
    ("sets", "asked", "informed"),
    [
        (BLOCKS, {"ava": 3, "tad66k": 2, "flickr_aes": 1}, {"ava": 2, "tad66k": 1}),
        (["folder"] * 12, {"folder": 6}, {"folder": 3}),
    ],
)
def test_critiques_of_every_set_are_measured(talking_run, tmp_path, monkeypatch, sets, asked, informed):
    paths = sorted((talking_run / "pictures").glob("*.png"))
    pictures = [
        Sample(path.name, str(path), (place + 0.5) / 12, name, "validation")
        for place, (path, name) in enumerate(zip(paths, sets, strict=True))
    ]
    monkeypatch.setattr(critique_validation, "PICTURES", 6)
    monkeypatch.setattr(critique_validation, "INFORMED", 3)
    measured = {}

    def watched(name, real):
        def kept(*given, **how):
            measured[name] = given[-1]
            return real(*given, **how)

        return kept

    for name in ("distinct", "likelihoods"):
        monkeypatch.setattr(critique_validation, name, watched(name, getattr(critique_validation, name)))
    values = measured_of(talking_run, tmp_path, pictures)
    assert Counter(row["dataset"] for row in measured["distinct"]) == asked
    assert Counter(row["dataset"] for row in measured["likelihoods"]) == informed
    assert values["critique/distinct"] > 1
    if len(set(sets)) == 1:  # of a single set these are the first pictures, as metrics of earlier runs are
        assert [row["id"] for row in measured["distinct"]] == [path.name for path in paths[:6]]
