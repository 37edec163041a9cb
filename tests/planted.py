"""Two trained policies that write the same critiques: the score of one follows them, that of the other the picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aes_r1.data.sample import Sample
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.model.backbone import Backbone
from aes_r1.prompts import RATING_PROMPT, answer
from tests.trainer.cold_starts import engine_of, train_cold_start

QUESTION = RATING_PROMPT  # what commands ask
# Each is the opposite of its neighbour in the pair, word by word.
CRITIQUES = {
    "a strong picture with deep shadow": 0.9,
    "a weak picture with shallow shadow": 0.1,
    "a rich picture with deep light": 0.7,
    "a flat picture with shallow light": 0.3,
}


@dataclass(frozen=True)
class Planted:
    """used: the score is the critique's own; hollow: it is the picture's, whatever the critique says."""

    used: Backbone
    hollow: Backbone
    samples: list[Sample]


def labelled(folder: Path) -> list[Sample]:
    """The pictures in `folder`, brighter ones with a higher opinion."""
    return [
        Sample(path.name, str(path), round(0.05 + 0.08 * index, 2), "made", "test")
        for index, path in enumerate(sorted(folder.glob("*.png")))
    ]


def planted_in(folder: Path) -> Planted:
    """What `plant` left in `folder`."""
    used, hollow = (backbones.load(str(folder / name), dtype="float32", max_pixels=9216) for name in ("used", "hollow"))
    used.model.eval()
    hollow.model.eval()
    return Planted(used, hollow, labelled(folder))


def plant(folder: Path) -> None:
    """Train both policies on the pictures in `folder`, with each critique under every picture; leaves them there."""
    samples = labelled(folder)
    for name in ("used", "hollow"):
        rows = [
            {"id": sample.id, "image": sample.image, "critique": words, "mos": value if name == "used" else sample.mos}
            for sample in samples
            for words, value in CRITIQUES.items()
        ]
        texts = [answer(words, sample.mos or 0) for words in CRITIQUES for sample in samples]
        backbone = tiny.build_tiny_model(tiny.build_tokenizer([QUESTION, *texts] * 5), max_pixels=9216, seed=0)
        backbones.freeze(backbone.model, vision=name == "used")  # that one needs no vision tower
        changes = {"epochs": 20, "lr": 5e-3, "warmup_ratio": 0.0, "batch_size": 6, "micro_batch_size": 6}
        engine = engine_of(backbone, weight_decay=0.0)
        train_cold_start(backbone, engine, rows, folder / f"{name}_training", save_every=10_000, **changes)
        backbone.save(folder / name)
