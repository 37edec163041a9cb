"""What does the tiny model's vision tower learn of photographs in given seconds, and how much do the measures hold?

    python -m experiments.photographs.looking PARA OUT [measures random shipped looking FOLDER]

Readers of the opinions of PARA, fitted on 6,000 training pictures and tested on 1,500 test pictures (seed 0):

    measures    ridge and boosted trees on the 34 hand-made measures, and ridge on their ranks
    random      ridge on the eyes of the tiny architecture with random weights
    shipped     the same of the shipped base, which has seen scenes alone
    looking     the same of the random tower after SECONDS CPU seconds of learning the ranks of the measures
    FOLDER      the same of the base model in a folder, as STORE/models/DIGEST

Writes results/looking.json, to which a later call adds its readers. OUT keeps the measured pictures.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from aes_r1.data.loader import load_samples
from aes_r1.data.sample import open_picture
from aes_r1.evaluation.metrics import correlations
from aes_r1.inference.eyes import eyes_features
from aes_r1.inference.fitted import fit_ridge, fit_trees
from aes_r1.inference.handmade import handmade
from aes_r1.inference.photograph_facts import ranks
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.model.backbone import Backbone
from aes_r1.runs.files import read_json, write_json
from aes_r1.settings import DataSettings
from aes_r1.trainer.objective import learning_rate
from aes_r1.trainer.pretrain import mean_vision_features
from aes_r1.trainer.single_engine import SingleEngine

RESULT = Path(__file__).parent / "results" / "looking.json"
SIDE, MAX_PIXELS = 96, 9216
SIZES = {"train": 6000, "test": 1500}
SECONDS, BATCH, LR = 75.0, 32, 2e-3
Pictures = Mapping[str, np.ndarray]  # pics [n, SIDE, SIDE, 3], feats [n, 34], mos [n]


def pictures_of(root: str, split: str, kept: Path) -> Pictures:
    """Return the pictures of a split, squeezed to what the tower sees, with their measures at full size."""
    if not kept.exists():
        data = DataSettings(name="para", root=root, limit=SIZES[split])
        samples = load_samples(data, split, seed=0, store=kept.parent)
        opened = [open_picture(sample.image) for sample in samples]
        small = [np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for picture in opened]
        feats = np.stack([handmade(picture) for picture in opened])
        np.savez(kept, pics=np.stack(small), feats=feats, mos=np.asarray([sample.mos for sample in samples]))
    with np.load(kept) as file:
        return {name: file[name] for name in ("pics", "feats", "mos")}


def eyes(backbone: Backbone, pictures: Pictures) -> np.ndarray:
    """Return the features of inference/eyes.py, [n, 256]."""
    shown = [Image.fromarray(pixels) for pixels in pictures["pics"]]
    return np.concatenate([eyes_features(backbone, shown[start : start + 32]) for start in range(0, len(shown), 32)])


def look(backbone: Backbone, pictures: Pictures) -> dict[str, float]:
    """Train the tower and a linear readout of its mean feature on the ranks of the measures; return what it took."""
    targets = torch.from_numpy(ranks(pictures["feats"]).astype(np.float32))
    readout = torch.nn.Linear(backbone.model.config.get_text_config().hidden_size, targets.shape[1])
    modules = torch.nn.ModuleList([backbone.core.model.visual, readout])
    engine = SingleEngine(modules, weight_decay=0.05, max_grad_norm=1.0, device=torch.device("cpu"))
    rng, started, errors = np.random.default_rng(0), time.process_time(), []
    while (share := (time.process_time() - started) / SECONDS) < 1:
        chosen = rng.integers(len(targets), size=BATCH)
        pooled = mean_vision_features(backbone, [Image.fromarray(pictures["pics"][index]) for index in chosen])
        loss = (readout(pooled) - targets[torch.from_numpy(chosen)]).square().sum(dim=1).mean()
        engine.backward(loss)
        engine.step(learning_rate(int(1000 * share), 1000, base=LR, schedule="cosine", warmup=50))
        errors.append(loss.item())
    unexplained = np.mean(errors[-50:]) / float(targets.var(dim=0, correction=0).sum())
    return {"seconds": SECONDS, "seen": float(BATCH * len(errors)), "r2": float(1 - unexplained)}


def tower(name: str) -> Backbone:
    """Return the shipped base, that of a folder, or the same architecture with random weights."""
    folder = Path(name) if Path(name).is_dir() else tiny.shipped()
    backbone = backbones.load(str(folder), dtype="float32", max_pixels=MAX_PIXELS)
    return (
        tiny.build_tiny_model(backbone.tokenizer, max_pixels=MAX_PIXELS, seed=0)
        if name in ("random", "looking")
        else backbone
    )


def row(fit: Callable[..., Any], known: np.ndarray, train: Pictures, unknown: np.ndarray, test: Pictures) -> dict:
    """Fit the features `known` to the opinions of `train` and measure the scores of `unknown` on `test`."""
    agreement = correlations(fit(known, train["mos"])(unknown), test["mos"])
    return {"fitted_n": len(known), "n": agreement["n"], "srcc": agreement["srcc"], "plcc": agreement["plcc"]}


def measured(name: str, train: Pictures, test: Pictures) -> dict[str, Any]:
    """Return {READER: row} of the readers that `name` stands for."""
    if name == "measures":
        known, unknown = train["feats"], test["feats"]
        shares = ranks(np.concatenate([known, unknown]))
        return {
            "ridge on measures": row(fit_ridge, known, train, unknown, test),
            "ridge on their ranks": row(fit_ridge, shares[: len(known)], train, shares[len(known) :], test),
            "trees on measures": row(fit_trees, known, train, unknown, test),
        }
    backbone = tower(name)
    took = look(backbone, train) if name == "looking" else {}
    return {Path(name).name: {**row(fit_ridge, eyes(backbone, train), train, eyes(backbone, test), test), **took}}


def main(root: str, out: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    train, test = (pictures_of(root, split, Path(out) / f"{split}.npz") for split in ("train", "test"))
    for name in names or ["measures", "random", "shipped", "looking"]:
        readers = read_json(RESULT)["readers"] if RESULT.exists() else {}
        write_json(RESULT, {"readers": {**readers, **measured(name, train, test)}})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
