"""Measure the vision tower alone: ridge regression on its features, against factors and opinions.

    python experiments/main_job/eyes_limit.py RUN

RUN is a run folder of the main job. The regression on its base model's features is fitted on train pictures and
measured on test pictures. Writes results/eyes_limit.json: SRCC with a 95% bootstrap interval for each factor and for
the MOS.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from aes_r1.data.manifest import read_run_manifest
from aes_r1.data.sample import Sample, open_picture
from aes_r1.evaluation.metrics import correlations
from aes_r1.model import backbone as backbones
from aes_r1.prompts import DIMENSIONS
from aes_r1.runs.files import write_json
from aes_r1.runs.folder import RunFolder

HERE = Path(__file__).parent


@torch.no_grad()
def features(backbone: backbones.Backbone, samples: list[Sample]) -> np.ndarray:
    """Return [n, merged patches * width]: the vision tower's output, one row per picture."""
    rows = []
    for sample in samples:
        pixels = backbone.image_processor(images=[open_picture(sample.image)], return_tensors="pt")
        output = backbone.core.model.visual(pixels["pixel_values"], grid_thw=pixels["image_grid_thw"])
        rows.append(output.pooler_output.flatten().numpy())
    return np.stack(rows)


def targets(samples: list[Sample]) -> np.ndarray:
    """Return [n, 6]: the five factors, then the MOS."""
    return np.array([[sample.attributes["factors"][name] for name in DIMENSIONS] + [sample.mos] for sample in samples])


def main(folder: Path) -> None:
    run = RunFolder(folder)
    model, settings = run.stage_values("base")["model"], run.settings
    pixels = settings["data"]["max_pixels"] or settings["model"]["max_pixels"]
    backbone = backbones.load(model, dtype="float32", max_pixels=pixels)
    train, test = (read_run_manifest(run.manifest(f"scenes-{split}")) for split in ("train", "test"))
    known, unknown = features(backbone, train), features(backbone, test)
    mean, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
    result = {}
    for index, name in enumerate((*DIMENSIONS, "mos")):
        ridge = RidgeCV(alphas=np.logspace(1, 5, 9)).fit((known - mean) / spread, targets(train)[:, index])
        predicted = ridge.predict((unknown - mean) / spread)
        result[name] = correlations(predicted, targets(test)[:, index])["srcc"]
        print(name, result[name])
    write_json(HERE / "results" / "eyes_limit.json", {"train": len(train), "test": len(test), "srcc": result})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
