"""Fixtures of several files of this folder: a finished run in small."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from aes_r1.evaluation.summary import summarise
from aes_r1.settings import Settings, as_dict
from tests.conftest import made_once
from tests.report.outline import CRITIQUE


@pytest.fixture(scope="session")
def made_run(tmp_path_factory):
    return made_once(tmp_path_factory, "run_of_reports", make_run)


@pytest.fixture
def run(made_run, tmp_path):
    """A finished run in small: three stages, two sets, two protocols, pictures, an injected tag, a planted secret."""
    for file in made_run.iterdir():
        shutil.copy(file, tmp_path)
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text(predictions.read_text().replace(str(made_run), str(tmp_path)))
    return tmp_path


def make_run(folder):
    generator = np.random.default_rng(0)
    Image.new("RGB", (84, 84), (200, 120, 40)).save(folder / "picture.png")
    rows = []
    for dataset, n in (("scenes", 60), ("scenes_shifted", 30)):
        mos = generator.random(n)
        for stage, noise in (("base", None), ("cold_start", 0.4), ("rapo", 0.1)):
            for protocol in ("sample", "greedy"):
                for i in range(n):
                    score = (
                        None if noise is None or i == 7 else float(np.clip(mos[i] + generator.normal(0, noise), 0, 1))
                    )
                    rows.append(
                        {"stage": stage, "protocol": protocol, "id": f"{i:03d}", "dataset": dataset, "split": "test"}
                        | {
                            "mos": float(mos[i]),
                            "score": score,
                            "scores": [score],
                            "image": str(folder / "picture.png"),
                        }
                        | {"critique": f"{CRITIQUE} <script>alert({i})</script>", "text": "no <answer> here"}
                    )
    settings = as_dict(Settings(run_name="seed <0>"))
    settings["expert"]["api_key"] = "sk-planted"
    metrics = [{"stage": "sft", "step": i, "sft/loss": 3 / i, "lr": 1e-3} for i in range(1, 80)]
    for i in range(1, 41):
        values = {
            "reward/total": i / 40,
            "reward/rank": 0.5,
            "reward/error": i / 80,
            "policy/entropy": None if i == 3 else 0.7,
        }
        values |= {"eval/scenes/srcc": 0.7, "eval/scenes/plcc": 0.6} if i % 20 == 0 else {}
        metrics.append({"stage": "rapo", "step": i, "policy/kl_k3": 0.01, **values})
    evaluation = summarise(rows, n_bootstrap=50, manifests={"scenes/test": "ab" * 32})
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    for name, lines in (("metrics.jsonl", metrics), ("predictions.jsonl", rows)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
