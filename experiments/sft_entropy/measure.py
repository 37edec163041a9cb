"""Token entropy of the models that runs left behind, by kind of token and position, whatever their settings were.

    python -m experiments.sft_entropy.measure RUN [RUN ...]

One JSON line per run and model (base, cold_start, rapo) on standard output: what RUN/entropy.jsonl holds for steps of a
cold start that was measured while it trained (cold_start.probe_every).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from aes_r1.data.loader import read_manifest
from aes_r1.evaluation.entropy import measure_entropy
from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT, SCORE_ONLY_PROMPT


def models(run: Path) -> dict[str, str]:
    """Where the models of a run lie: RUN/stages names base and cold start, RUN/model is the final one."""
    found = {}
    for stage in ("base", "cold_start", "rapo"):
        marker = run / "stages" / f"{stage}.json"
        if marker.exists():
            found[stage] = json.loads(marker.read_text())["model"]
    return found


def measure(run: Path) -> list[dict]:
    settings = json.loads((run / "settings.json").read_text())
    pictures = read_manifest(run / "manifests" / f"{settings['data']['name']}-validation.jsonl")
    rows = []
    for stage, path in models(run).items():
        max_pixels = settings["data"]["max_pixels"] or settings["model"]["max_pixels"]
        backbone = backbones.load(
            path, dtype=settings["model"]["dtype"], max_pixels=max_pixels, gradient_checkpointing=False
        )
        backbone.model.eval()
        found = measure_entropy(
            backbone,
            pictures[: settings["cold_start"]["probe_pictures"]],
            question=RATING_PROMPT if settings["model"]["prompt"] == "critique" else SCORE_ONLY_PROMPT,
            max_new_tokens=settings["trainer"]["max_new_tokens"],
            seed=settings["seed"],
        )
        rows.append({"run": str(run), "stage": stage, "epochs": settings["cold_start"]["epochs"], **found})
    return rows


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        for row in measure(Path(argument)):
            print(json.dumps(row), flush=True)
