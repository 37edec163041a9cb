"""Fixtures of several test files: a random tiny model, small pictures, one thread."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from aes_r1.data.sample import Sample
from aes_r1.model import tiny
from aes_r1.model.backbone import Backbone
from aes_r1.prompts import RATING_PROMPT, answer
from tests.planted import Planted, plant, planted_in

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 would let its workers wait for all other tests


@pytest.fixture(autouse=True)
def whole_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions on CUDA round to 10 bits unless told otherwise, which would hide what a test compares."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(autouse=True)
def hear_interrupts() -> None:
    """Let each test, and the processes that it starts, hear Ctrl-C.

    A shell starts a job in the background with SIGINT ignored, and a command that a test runs in its own process
    ignores it once it has ended with an error.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def hydra() -> Iterator[None]:
    """Hydra is ready to compose, and reads every file of conf/ once for all tests of a file."""
    from hydra import initialize_config_dir

    from aes_r1 import recipe
    from aes_r1.settings import CONF

    recipe.register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Use one process more than there are cores, because many tests wait for a clock or for another process.

    At most eight, because each loads torch. Only one process may use a GPU at a time.
    """
    return 1 if torch.cuda.is_available() else min(len(os.sched_getaffinity(0)) + 1, 8)


SLOW_FIXTURES = {"talking_run", "speaker", "offline_run"}  # each trains a model or starts W&B, for seconds


@pytest.hookimpl(tryfirst=True)  # before pytest itself selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow fixtures as slow, and run files with slow tests first.

    Otherwise one process would be left with a long file while the others are idle.
    """
    for item in items:
        if isinstance(item, pytest.Function) and SLOW_FIXTURES.intersection(item.fixturenames):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from the million objects of the libraries: each full search takes half a second."""
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("vllm") and "vllm" not in item.config.getoption("markexpr"):
        pytest.skip('starts servers for minutes: make vllm && make test ARGS="-m vllm"')


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A noise picture with a gradient, different for every seed."""
    rng = np.random.default_rng([seed, width, height])
    pixels = rng.integers(0, 120, (height, width, 3)) + np.linspace(0, 130, width).astype(int)[None, :, None]
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(autouse=True)
def fresh_logger() -> None:
    """Restore the logger for each test: runs configure it, Hydra disables every logger and sets the root's level."""
    log = logging.getLogger("aes_r1")
    log.disabled, log.propagate = False, True
    log.handlers.clear()
    log.setLevel(logging.NOTSET)
    logging.root.setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def tokenizer():
    words = "a dull picture with flat light . a strong picture with deep shadow . "
    return tiny.build_tokenizer([RATING_PROMPT, answer(words, 0.25), answer(words, 0.87)] * 20)


@pytest.fixture
def backbone(tokenizer) -> Backbone:
    """The tiny architecture with random weights, float32."""
    return tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0)


@pytest.fixture
def prompts(backbone):
    """Three prompts with pictures of different sizes, so that padding and grids differ."""
    sizes = ((192, 192), (224, 160), (96, 200))
    return backbone.collate([backbone.encode(picture(*size, seed=i), RATING_PROMPT) for i, size in enumerate(sizes)])


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `name` that the test processes share; the first one fills it, and tests only read it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with FileLock(folder.with_suffix(".lock")):
        if not folder.with_suffix(".made").exists():
            folder.mkdir()
            make(folder)
            folder.with_suffix(".made").touch()
    return folder


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Planted:
    """Two policies with the same critiques, whose scores follow the critique or the picture."""
    return planted_in(made_once(tmp_path_factory, "planted", lambda folder: plant(twelve_pictures(folder))))


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Twelve 60 x 60 pictures, brighter from one to the next."""
    return twelve_pictures(tmp_path)


def twelve_pictures(folder: Path) -> Path:
    for index in range(12):
        pixels = np.full((60, 60, 3), 15 + 20 * index, dtype=np.uint8)
        pixels[20:40, 5 * (index % 8) : 5 * (index % 8) + 10] = 255 - 15 * index
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder


def label_twelve(folder: Path, splits: tuple[str, ...] = ("train", "train", "test")) -> None:
    """Write labels.csv for the twelve pictures in `folder`, whose MOS rises from one to the next."""
    rows = [f"{index:02d}.png,{index / 12:.2f},{splits[index % len(splits)]}" for index in range(12)]
    (folder / "labels.csv").write_text("\n".join(["image,mos,split", *rows]))


@pytest.fixture
def short_job(tokenizer, picture_folder, tmp_path) -> list[str]:
    """The overrides of a run of tests.short_multiruns.STEPS short steps, whose files lie in tmp_path."""
    from tests.short_multiruns import short_job_of

    return short_job_of(tokenizer, picture_folder, tmp_path)


LEVELS = ("dull", "plain", "good", "strong")


def spoken(index: int) -> str:
    """The critique of picture `place` of `picture_folder`."""
    word = LEVELS[index // 3]
    return (
        f"Light and shadow: {word} light. Mood and narrative: {word} mood. Composition: {word} frame. "
        f"Color: {word} hues. Exposure: {word} tones. A {word} picture."
    )


@pytest.fixture(scope="session")
def talking_run(tmp_path_factory) -> Path:
    """The folder of a run whose tiny model memorised twelve answers, which can be parsed and differ.

    RUN/pictures holds the twelve; evaluation.json says what was measured on them, with a conformal half-width of .125.
    """
    return made_once(tmp_path_factory, "talking_run", learn_by_heart)


def learn_by_heart(run: Path) -> None:
    from aes_r1.evaluation.summary import summarise
    from aes_r1.inference.asking import AskingConfig
    from aes_r1.inference.predict import predict
    from aes_r1.settings import Settings, as_dict
    from tests.trainer.cold_starts import engine_of, train_cold_start

    (run / "pictures").mkdir()
    twelve_pictures(run / "pictures")
    paths = sorted((run / "pictures").glob("*.png"))
    records = [
        {"id": path.name, "image": str(path), "critique": spoken(index), "mos": (index + 0.5) / 12}
        for index, path in enumerate(paths)
    ]
    corpus = [RATING_PROMPT, *(answer(spoken(index), index / 100) for index in range(12))] * 20
    backbone = tiny.build_tiny_model(tiny.build_tokenizer(corpus), max_pixels=9216, seed=0)
    training = run.with_name("talking_run_training")
    train_cold_start(backbone, engine_of(backbone), records, training, epochs=28, warmup_ratio=0.0, save_every=1000)
    backbone.model.eval()
    backbone.save(run / "model")
    settings = as_dict(Settings(run_name="talking"))
    settings["model"]["max_pixels"] = 9216
    settings["trainer"]["max_new_tokens"] = 64
    samples = [Sample(row["id"], row["image"], row["mos"], "folder", "test") for row in records]
    rows = predict(
        backbone,
        samples,
        AskingConfig(max_new_tokens=64),
        protocols=["sample", "greedy", "mean"],
        batch_size=12,
        seed=0,
    )
    rows = [{"stage": "rapo", **row} for row in rows]
    evaluation = summarise(rows, n_bootstrap=50, manifests={"folder/test": "ab" * 32})
    evaluation["stages"]["rapo"]["folder/test"]["mean"]["conformal"] = {"level": 0.9, "half_width": 0.125}
    (run / "settings.json").write_text(json.dumps(settings))
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
