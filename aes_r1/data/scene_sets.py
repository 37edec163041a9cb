"""Make sets of scenes with opinions: simulated raters vote on every scene."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from aes_r1.data import scenes
from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS
from aes_r1.runs.files import iter_rows, write_rows
from aes_r1.runs.identity import fingerprint
from aes_r1.runs.store import made_once
from aes_r1.runs.workers import in_workers

SCENE_SETS = {
    "scenes": {"train": 3000, "validation": 200, "test": 600},
    "scenes_shifted": {"train": 300, "validation": 100, "test": 300},
    "scenes_harsh": {"train": 3000, "validation": 200, "test": 600},
    "scenes_gated": {"train": 3000, "validation": 200, "test": 600},
}
# The first picture of every split; a split keeps its pictures when another one grows.
SPLIT_STARTS = {"train": 0, "validation": 1_000_000, "test": 2_000_000}
RATERS = 15
# The weights of a set's raters, in the order of DIMENSIONS.
WEIGHTS = {
    "scenes": (0.22, 0.20, 0.22, 0.20, 0.16),
    "scenes_shifted": (0.18, 0.25, 0.17, 0.25, 0.15),
    "scenes_harsh": (0.22, 0.20, 0.22, 0.20, 0.16),
}
# The weights of the raters of scenes_gated, who look for other things in every subject. Over the subjects each
# dimension has the mean weight .2, so none tells more than another to a judge who does not look at the subject.
GATED_WEIGHTS = {
    "house": (0.55, 0.15, 0.10, 0.00, 0.20),
    "tree": (0.00, 0.55, 0.15, 0.10, 0.20),
    "figure": (0.10, 0.00, 0.55, 0.15, 0.20),
    "boat": (0.15, 0.10, 0.00, 0.55, 0.20),
}


def quality(name: str, factors: dict[str, float], subject: str) -> float:
    """Return the true quality in [0.03, 0.97] of a scene with one of scenes.SUBJECTS.

    A weighted sum is pulled down by the weakest dimension and stretched over the scale. In scenes_gated the weights
    depend on the subject, and the weakest dimension, which may have no weight, does not count again.
    """
    values = np.array([factors[dimension] for dimension in DIMENSIONS])
    if name == "scenes_gated":
        merit = float(values @ np.array(GATED_WEIGHTS[subject]))
    else:
        merit = 0.85 * float(values @ np.array(WEIGHTS[name])) + 0.15 * float(values.min())
    return 0.03 + 0.94 / (1 + np.exp(-9.0 * (merit - 0.455)))


def opinions(name: str, factors: dict[str, float], subject: str, rng: np.random.Generator) -> tuple[float, float]:
    """Return (MOS, standard deviation) of RATERS votes 1..10 on the 0..1 scale.

    Raters differ in bias, scale and attention.
    """
    truth = quality(name, factors, subject)
    if name == "scenes_harsh":
        truth = 0.05 + 0.6 * truth
    bias, scale = rng.normal(0, 0.06, RATERS), rng.normal(1, 0.1, RATERS)
    votes = np.clip(np.rint(1 + 9 * (0.5 + (truth - 0.5) * scale + bias + rng.normal(0, 0.08, RATERS))), 1, 10)
    return float((votes.mean() - 1) / 9), float(votes.std(ddof=1) / 9)


def make_scenes(
    name: str,
    *,
    store: Path,
    counts: dict[str, int] | None = None,
    seed: int = 0,
    workers: int = 2,
    waiting: Callable[[], object] = lambda: None,
) -> list[Sample]:
    """Return the samples of the set `name`, drawn into `store` on first use. `counts`: pictures per split.

    `waiting` is called while another process draws them (see `store.made_once`).
    """
    counts = counts or SCENE_SETS[name]
    digest = fingerprint(name, counts, seed, scenes.SCENES_VERSION)

    def make(folder: Path) -> None:
        (folder / "pictures").mkdir(exist_ok=True)
        jobs = [
            (name, split, index, seed, str(folder / "pictures")) for split, n in counts.items() for index in range(n)
        ]
        write_rows(folder / "samples.jsonl", map(asdict, in_workers(_draw_scene, jobs, workers=workers)))

    folder = made_once(store, "scenes", digest, make, waiting=waiting).resolve()
    rows = iter_rows(folder / "samples.jsonl")
    return [Sample(**{**row, "image": str(folder / "pictures" / row["image"])}) for row in rows]


def _draw_scene(job: tuple[str, str, int, int, str]) -> Sample:
    name, split, index, seed, folder = job
    scene = SPLIT_STARTS[split] + index
    picture, factors, facts = scenes.render_scene(name, scene, seed)
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed, scene, 1])
    mos, spread = opinions(name, factors, facts["subject"], rng)
    identity = f"{split}-{index:05d}"
    picture.save(Path(folder) / f"{identity}.jpg", quality=92)
    return Sample(identity, f"{identity}.jpg", mos, name, split, spread, RATERS, {"factors": factors, "facts": facts})
