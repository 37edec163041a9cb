"""Make the base model of the package, and measure what it knows.

    python -m experiments.base_model.ship            # pretrain, write aes_r1/model/shipped, measure
    python -m experiments.base_model.ship measure    # measure the existing files

It writes the weights (16-bit), SHA256SUMS and README.md with two tables of measurements to aes_r1/model/shipped. Record
the golden outputs again after it: `python -m tests.test_golden`.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from aes_r1.aescot.scenes_expert import expert_corpus
from aes_r1.data.sample import Sample
from aes_r1.data.scene_sets import make_scenes
from aes_r1.data.scenes import SCENES_VERSION
from aes_r1.evaluation.metrics import correlations
from aes_r1.inference.asking import AskingConfig
from aes_r1.inference.predict import predict
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.model.backbone import Backbone
from aes_r1.prompts import DIMENSIONS, RATING_PROMPT, SCORE_ONLY_PROMPT
from aes_r1.runs.cells import format_cell
from aes_r1.runs.files import sha256_of
from aes_r1.settings import ModelSettings, PretrainSettings
from aes_r1.trainer.pretrain import BASE_MODEL_VERSION, pretrain_tiny
from experiments.main_job.eyes_limit import features, targets

STORE = Path(os.environ.get("AES_R1_STORE", "store"))
MAX_PIXELS = ModelSettings().max_pixels
READ_ON, ASKED = 1000, 300  # pictures that the readout of features is fitted on, and test pictures


def ship(folder: Path) -> None:
    """Pretrain with the default settings and write the 16-bit files with their hashes to `folder`."""
    with tempfile.TemporaryDirectory() as made:
        path, default = Path(made), PretrainSettings()
        pretrain_tiny(path, corpus=expert_corpus(), pretrain=default, max_pixels=MAX_PIXELS, report=_say)
        write_half(path, folder)


def write_half(made: Path, folder: Path) -> None:
    """Write the pretrained model in `made` as 16-bit files of `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    backbones.load(made, dtype="float32", max_pixels=MAX_PIXELS).save_half(folder)
    (folder / "model.safetensors").chmod(0o644)
    names = sorted(path.name for path in folder.iterdir())
    (folder / "SHA256SUMS").write_text("".join(f"{sha256_of(folder / name)}  {name}\n" for name in names))


def _say(done: int, total: int, text: str) -> None:
    if done % 50 == 0:
        print(f"{done} of {total}  {text}", flush=True)


def answers(backbone: Backbone, samples: list[Sample]) -> Iterator[str]:
    """Yield rows of the table of answers: by question and decoding, readable share and correlation with opinions."""
    for name, question in (("critique", RATING_PROMPT), ("score only", SCORE_ONLY_PROMPT)):
        for decoding, temperature in (("sample", 0.6), ("sample", 1.0), ("greedy", 1.0)):
            asking = AskingConfig(question=question, max_new_tokens=96, temperature=temperature, n_samples=1)
            rows = list(predict(backbone, samples, asking, protocols=[decoding], batch_size=64, seed=0))
            scores = np.array([np.nan if row["score"] is None else row["score"] for row in rows])
            srcc = correlations(scores, np.array([sample.mos for sample in samples]))["srcc"]
            how = f"one sample at {temperature}" if decoding == "sample" else "greedy"
            read, spread = float(np.isfinite(scores).mean()), float(np.nanstd(scores))
            yield f"| {name} | {how} | {read:.1%} | {format_cell(srcc, missing='-')} | {spread:.2f} |"


def eyes(backbone: Backbone, train: list[Sample], test: list[Sample]) -> Iterator[str]:
    """Yield rows of the table of features: how well a ridge regression on them predicts each factor."""
    known, unknown = features(backbone, train), features(backbone, test)
    mean, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
    ridge = RidgeCV(alphas=np.logspace(2, 5, 7), alpha_per_target=True).fit((known - mean) / spread, targets(train))
    read, true = ridge.predict((unknown - mean) / spread), targets(test)
    for column, name in enumerate((*DIMENSIONS, "mean opinion")):
        srcc = correlations(read[:, column], true[:, column])["srcc"]
        yield f"| {name.replace('_', ' ')} | {format_cell(srcc, missing='-')} |"


def measure(folder: Path) -> None:
    """Write README.md into `folder`: what the model is, its hash, and the two tables."""
    backbone = backbones.load(folder, dtype="float32", max_pixels=MAX_PIXELS)
    backbone.model.eval()
    samples = make_scenes("scenes", store=STORE)
    train = [sample for sample in samples if sample.split == "train"][:READ_ON]
    test = [sample for sample in samples if sample.split == "test"][:ASKED]
    torch.set_num_threads(1)
    text = README.format(
        version=BASE_MODEL_VERSION,
        scenes=SCENES_VERSION,
        parameters=f"{sum(parameter.numel() for parameter in backbone.model.parameters()):,}",
        bytes=f"{(folder / 'model.safetensors').stat().st_size:,}",
        sha256=sha256_of(folder / "model.safetensors"),
        made=f"torch {torch.__version__.split('+')[0]}, {platform.machine()}",
        pictures=len(test),
        read_on=len(train),
        answers="\n".join(answers(backbone, test)),
        eyes="\n".join(eyes(backbone, train, test)),
    )
    (folder / "README.md").write_text(text)
    print(text)


README = """# The base model in the package

The tiny Qwen2.5-VL ({parameters} parameters, bfloat16, {bytes} bytes) after pretraining on made pictures alone: what
`model.base=shipped`, the default of `model=tiny_qwen2_5_vl`, starts from. It has seen no photograph and no opinion. It
describes scenes in plain facts; asked to judge, it answers in the format with two or three of them and the picture's
brightness for a number.

    python -m experiments.base_model.ship       # makes and measures one like it: another processor rounds otherwise
    python -m aes_r1.train model.base=pretrain model.pretrain.seed=1            # a run from another base

Pretraining version {version} on scenes of version {scenes} with the default `model.pretrain` (seed 0), {made}.

    {sha256}  model.safetensors

SHA256SUMS has the other files; a run from files that differ is refused.

## What it answers

{pictures} test pictures of `scenes`. SRCC is that of its number with the mean opinion, [95%] over pictures; an answer
that cannot be read counts as the mean. The last column is the standard deviation of its numbers.

Brightness goes with no opinion, because pictures are spoilt by too much light as often as by too little. That the
number is read off the picture at all is what the cold start builds on ([the log](../../../experiments/LOG.md) has what
became of a base that drew it at random).

| question | decoding | can be read | SRCC with opinions | spread |
|---|---|---|---|---|
{answers}

## What its eyes hold

SRCC [95%] of a ridge regression on the vision tower's features, fitted on {read_on} training pictures:

| | SRCC |
|---|---|
{eyes}
"""

if __name__ == "__main__":
    if sys.argv[1:] != ["measure"]:
        ship(tiny.SHIPPED)
    measure(tiny.SHIPPED)
