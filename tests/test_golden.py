"""Recorded outputs guard the content of names in the store and a few steps of training.

A change that moves a number here makes another base model, other pictures or another algorithm under the same name.
If that is meant, raise SCENES_VERSION or BASE_MODEL_VERSION and record anew: `python -m tests.test_golden`.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from aes_r1.data import scenes
from aes_r1.data.scene_sets import SCENE_SETS, opinions
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.model.backbone import Backbone
from aes_r1.prompts import RATING_PROMPT, answer
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from aes_r1.settings import PretrainSettings
from aes_r1.trainer import pretrain
from tests.conftest import picture, twelve_pictures
from tests.trainer.test_loops import rapo, sft

FILE = Path(__file__).parent / "golden" / "outputs.json"
RECORDED = json.loads(FILE.read_text()) if FILE.exists() else {}
WORDS = "a dull picture with flat light . a strong picture with deep shadow . "


def drawn_scenes() -> dict[str, list]:
    """Of three scenes of each set: mean and spread of the pixels (0-255), the factors, the mean opinion."""
    found = {}
    for name in SCENE_SETS:
        found[name] = []
        for index in range(3):
            image, factors, facts = scenes.render_scene(name, index, 0)
            pixels = np.asarray(image, dtype=np.float64)
            mos, spread = opinions(name, factors, facts["subject"], np.random.default_rng(index))
            found[name].append(
                {
                    "pixels": [pixels.mean(), pixels.std()],
                    "factors": list(factors.values()),
                    "facts": scenes.fact_vector(facts).tolist(),
                    "opinions": [mos, spread],
                }
            )
    return found


def pretraining(folder: Path) -> list[list[float]]:
    """[saying, seeing] losses of eight steps of pretraining, as its progress bar prints them."""
    said: list[str] = []
    pretrain.pretrain_tiny(
        folder,
        corpus=[WORDS] * 50,
        pretrain=PretrainSettings(pictures=64, epochs=2, batch_size=16),
        max_pixels=9216,
        report=lambda done, total, text: said.append(text),
    )
    return [[float(text.split()[1]), float(text.split()[3])] for text in said if text.startswith("saying")]


def untrained() -> Backbone:
    corpus = [RATING_PROMPT, answer(WORDS, 0.25), answer(WORDS, 0.87)] * 20
    return tiny.build_tiny_model(tiny.build_tokenizer(corpus), max_pixels=9216, seed=0)


def drawn_tokens() -> dict[str, list]:
    """Eight tokens of two sampled completions of an untrained model, with their log-probabilities."""
    backbone = untrained()
    prompts = backbone.collate([backbone.encode(picture(192, 192), RATING_PROMPT)])
    noise = keyed_uniform_noise([(0, 0), (0, 1)], 8)
    drawn = sample_completions(backbone, prompts, num_samples=2, max_new_tokens=8, temperature=1.0, noise=noise)
    return {"tokens": drawn.tokens.tolist(), "logps": drawn.logps.tolist()}


def cold_start_losses(folder: Path) -> list[float]:
    """Losses of five steps of the cold start on twelve made pictures."""
    (folder / "pictures").mkdir()
    twelve_pictures(folder / "pictures")
    return [loss for _, loss in sft(untrained(), folder / "pictures", folder / "run", epochs=2)][:5]


def rapo_steps(folder: Path) -> dict[str, list[float]]:
    """Mean rewards, losses (near 0 on policy) and gradient norms of five steps of RAPO from the shipped base."""
    (folder / "pictures").mkdir()
    twelve_pictures(folder / "pictures")
    shipped = backbones.load(tiny.shipped(), dtype="float32", max_pixels=9216)
    rows, _ = rapo(shipped, folder / "pictures", folder / "run", steps=5, lr=2e-4, max_new_tokens=40)
    return {name: [row[name] for row in rows] for name in ("reward/total", "policy/loss", "policy/grad_norm")}


def test_the_version_of_the_scenes_stands_for_these_pictures():
    recorded = RECORDED["scenes"]
    assert recorded["version"] == scenes.SCENES_VERSION
    for name, drawn in drawn_scenes().items():
        for one, expected in zip(drawn, recorded[name], strict=True):
            assert one.keys() == expected.keys()
            for key, values in one.items():
                assert values == pytest.approx(expected[key], abs=1e-4 if key != "pixels" else 0.05), (name, key)


@pytest.mark.slow
def test_the_version_of_the_base_model_stands_for_these_losses(tmp_path):
    recorded = RECORDED["pretraining"]
    assert recorded["version"] == pretrain.BASE_MODEL_VERSION
    assert np.array(pretraining(tmp_path)) == pytest.approx(np.array(recorded["losses"]), abs=2e-3)


@pytest.mark.slow
def test_a_sampled_completion_is_the_recorded_one():
    drawn, recorded = drawn_tokens(), RECORDED["sampling"]
    assert drawn["tokens"] == recorded["tokens"]
    assert np.array(drawn["logps"]) == pytest.approx(np.array(recorded["logps"]), abs=1e-4)


@pytest.mark.slow
def test_five_steps_of_the_cold_start_have_the_recorded_losses(tmp_path):
    assert cold_start_losses(tmp_path) == pytest.approx(RECORDED["cold_start"], abs=1e-4)


@pytest.mark.slow
def test_five_steps_of_rapo_from_the_shipped_base_have_the_recorded_rewards_and_losses(tmp_path):
    found, recorded = rapo_steps(tmp_path), RECORDED["rapo"]
    assert found.keys() == recorded.keys()
    for name, values in found.items():
        assert values == pytest.approx(recorded[name], rel=1e-4, abs=1e-4), name


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        first, second, third = (stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(3))
        outputs = {
            "scenes": {"version": scenes.SCENES_VERSION, **drawn_scenes()},
            "pretraining": {"version": pretrain.BASE_MODEL_VERSION, "losses": pretraining(Path(first))},
            "sampling": drawn_tokens(),
            "cold_start": cold_start_losses(Path(second)),
            "rapo": rapo_steps(Path(third)),
        }
    FILE.write_text(json.dumps(outputs, indent=1) + "\n")
