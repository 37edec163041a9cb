"""A picture that vanishes or breaks after its list was made: one line, and once it is back the same command goes on."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

import aes_r1
from aes_r1 import train
from aes_r1.aescot.failures import ServerGone
from aes_r1.aescot.question import data_url
from aes_r1.aescot.reward_judge import RewardJudge
from aes_r1.data.edits import edited_sample
from aes_r1.data.pairs import Pair
from aes_r1.data.sample import PictureError, Sample, open_picture
from aes_r1.evaluation import critique
from aes_r1.inference import baselines, exchange, fitted, information, token_entropy
from aes_r1.inference.asking import AskingConfig
from aes_r1.inference.compare import compare
from aes_r1.inference.predict import predict
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline import base_stage
from aes_r1.pipeline.run import run
from aes_r1.prompts import RATING_PROMPT, answer
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.stopping import Stopped, StopRequest
from aes_r1.settings import InputError, JudgeRewardSettings, JudgeSettings, RewardSettings, TrainerSettings
from aes_r1.trainer import critique_rewards
from aes_r1.trainer.context import PhaseTimer
from aes_r1.trainer.sft import encode_example
from aes_r1.trainer.step_images import StepImages, encode_image
from aes_r1.trainer.step_rewards import reward_completions
from tests.pipeline.small_job import rows_of, settings
from tests.pipeline.test_lost_store import QUICK, in_rapo, record_of, stopped
from tests.trainer.cold_starts import engine_of

GONE = "http://127.0.0.1:9/v1"  # where nobody answers
BROKEN = {
    "gone": (lambda path: path.unlink(), "No such file or directory"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:90]), "damaged"),
}
WAY_OUT = "; bring the picture back as it was, and the same command goes on"


@pytest.fixture(params=BROKEN)
def broken(request, picture_folder: Path) -> tuple[Path, str]:
    """A picture of the twelve that can no longer be read, and why."""
    spoil, reason = BROKEN[request.param]
    path = picture_folder / "03.png"
    spoil(path)
    return path, reason


def row(path: Path, **more: object) -> dict:
    text = answer("Light and shadow: soft light.", 0.5)
    return {"id": path.name, "image": str(path), "mos": 0.5, "critique": "Soft light.", "text": text, **more}


class Looking:
    """A judge that shows the picture as ChatJudge does."""

    async def align(self, sample: Sample, reply: object) -> object:
        return reply

    async def fact(self, sample: Sample, reply: object) -> object:
        return data_url(sample.image, 9216), reply


def openings(path: Path, backbone: Backbone, journal: Path) -> dict[str, Callable[[], object]]:
    """Every way in which a listed picture is opened by training, evaluation and baselines."""
    one, other = (Sample(p.name, str(p), 0.5, "made", "train") for p in (path, path.with_name("04.png")))
    policy = SimpleNamespace(backbone=backbone, question=RATING_PROMPT)
    how = {"question": RATING_PROMPT}
    chat = {"model": "fake", "api_base": GONE}
    rows = [{**row(path), "score": 0.5}, {**row(path.with_name("04.png")), "score": 0.5}]
    pairs = [{**rows[0], "critique_row": rows[1], "picture_row": rows[1]}]

    def judged() -> object:
        reward = JudgeRewardSettings(weight=1.0, **chat)
        with RewardJudge(reward, journal, max_pixels=9216, question=RATING_PROMPT) as judge:
            return judge.rate([one], [[rows[0]["text"]]])

    def under_pictures() -> object:
        tokens, block = torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool)
        pictures = {0: backbone.encode(open_picture(other.image), RATING_PROMPT)}
        return critique_rewards.logps_under_pictures(
            backbone, ["a"], tokens, block, [other, one], pictures, batch_size=1, **how
        )

    def asked_judge() -> object:
        judge = JudgeSettings(name="openai", **chat)
        how = {"settings": judge, "journal": journal.with_name("verdicts"), "max_pixels": 9216}
        with mock.patch.object(critique, "ChatJudge", return_value=Looking()):
            return critique.judge_critiques(rows[:1], {one.id: one}, **how)

    return {
        "sft": lambda: encode_example((row(path), False), backbone=backbone, **how),
        "sft, comparison": lambda: encode_example(
            ({"images": [other.image, one.image], "answer": "1"}, False), backbone=backbone, **how
        ),
        "RAPO": lambda: encode_image(one, policy),
        "RAPO, twin": lambda: encode_image(edited_sample(one, "tilt", seed=0), policy),
        "RAPO, pair": lambda: encode_image(Pair(other, one), policy),
        "reward.information": under_pictures,
        "reward.judge": judged,
        "entropy": lambda: token_entropy.measure_entropy(backbone, [one], max_new_tokens=2, seed=0, **how),
        "base": lambda: base_stage._look(one, max_pixels=9216),
        "predict": lambda: list(
            predict(backbone, [one], AskingConfig(max_new_tokens=2), protocols=["greedy"], batch_size=1, seed=0)
        ),
        "compare": lambda: list(compare(backbone, [Pair(other, one)], AskingConfig(max_new_tokens=2), batch_size=1)),
        "interventions": lambda: list(exchange.intervene(backbone, pairs, **how)),
        "information": lambda: information.likelihoods(backbone, rows, **how),
        "judge": asked_judge,
        "fitted": lambda: fitted.features_of([one], lambda pictures: torch.zeros(len(pictures), 1).numpy()),
        "pyiqa": lambda: baselines._as_tensor(one),
    }


@pytest.mark.slow
def test_wherever_it_is_opened_one_line_names_it(broken, backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    path, reason = broken
    for name, opened in openings(path, backbone, tmp_path / "journal").items():
        with pytest.raises(InputError) as caught:
            pytest.fail(f"{name} gave {opened()}")
        said = str(caught.value)
        assert said.startswith(f"{path}: {reason}" if reason != "an empty file" else f"{path}: "), (name, said)
        assert said.endswith(WAY_OUT), (name, said)
        assert "\n" not in said
    with pytest.raises(PictureError):  # by which the writing of critiques counts pictures that cannot be read
        data_url(str(path), 9216)


@pytest.mark.slow
def test_listed_pictures_are_opened_in_no_other_way():
    """Whatever opens a picture in training or evaluation takes the function that ends in one line."""
    rooms = ("trainer", "inference", "pipeline", "evaluation", "rollout", "reward")
    for path in sorted(path for room in rooms for path in (Path(aes_r1.__file__).parent / room).rglob("*.py")):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert "open_picture" not in names, path


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "spoiled"), [("train", "cut"), ("train", "gone"), ("test", "gone")])
def test_a_run_ends_in_one_line_and_goes_on_once_it_is_back(
    base,
    root,
    tmp_path,
    monkeypatch,
    capsys,
    lost,
    spoiled,
):
    """As if nothing had been: the pictures are in the run's list, which is not made again."""
    whole = settings(base, root, tmp_path / "whole", **QUICK)
    run(whole)
    given = settings(base, root, tmp_path / "run", **QUICK)
    stopped(given, in_rapo, monkeypatch)
    listed = [Path(one["path"]) for one in rows_of(RunFolder(given.out).manifest(f"folder-{lost}"))]
    kept = shutil.copytree(root, tmp_path / "kept", ignore=lambda folder, names: [n for n in names if "." not in n])
    for path in listed:
        BROKEN[spoiled][0](path)
    monkeypatch.setattr("aes_r1.command.to_settings", lambda *_: given)
    monkeypatch.setattr("sys.argv", ["aes_r1.train"])
    with pytest.raises(SystemExit) as left:
        train.main()
    assert left.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("aes_r1: ")
    assert any(str(path) in line for path in listed)
    assert line.endswith(WAY_OUT)
    assert RunFolder(given.out).failure.endswith(WAY_OUT)
    for path in listed:
        shutil.copy(kept / path.name, path)
    run(given)
    assert record_of(tmp_path / "run") == record_of(tmp_path / "whole")
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "run")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_cold_start_ends_in_one_line_too(base, root, tmp_path, monkeypatch):
    """After a stop in it; the step-0 probe of validation pictures opens one as well."""
    given = settings(base, root, tmp_path / "run", **QUICK, cold_start={"save_every": 1, "probe_every": 1})
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__bool__", lambda _: RunFolder(given.out).metrics_file.exists())
        with pytest.raises(Stopped):
            run(given)
    for split in ("validation", "train"):
        (one, *_) = (Path(one["path"]) for one in rows_of(RunFolder(given.out).manifest(f"folder-{split}")))
        content = one.read_bytes()
        for path in [one] if split == "validation" else sorted(root.glob("*.png")):
            path.rename(path.with_suffix(".away"))
        with pytest.raises(InputError, match=f"{WAY_OUT[2:]}$"):
            run(given)
        for path in sorted(root.glob("*.away")):
            path.rename(path.with_suffix(".png"))
        assert one.read_bytes() == content
    run(given)
    assert RunFolder(given.out).state == "done"


@pytest.mark.parametrize("failure", [InputError("a.png: gone"), ServerGone("the server is gone")])
def test_what_ends_the_judge_ends_every_process(failure, picture_folder, backbone):
    """Rank 0 alone asks it; the others would wait for its ratings for ever."""
    images = [Sample(str(n), str(picture_folder / f"{n:02d}.png"), 0.5, "made", "train") for n in range(2)]
    reward = RewardSettings(judge=JudgeRewardSettings(weight=1.0, model="fake", api_base=GONE))
    engine, gathered = engine_of(backbone), []

    class Failing:
        def rate(self, *_: object) -> None:
            raise failure

    trainer = TrainerSettings(num_samples=2, images_per_step=2)
    completions = SimpleNamespace(
        images=StepImages.of(images, 0, trainer=trainer, engine=engine, seed=0, mixed=False),
        texts=[answer("Soft light.", 0.5)] * 4,
        scores=[0.5] * 4,
        sub_scores=[{}] * 4,
    )
    gather = engine.all_gather_objects
    engine.all_gather_objects = lambda objects: gathered.append(objects) or gather(objects)
    with pytest.raises(type(failure), match=str(failure)):
        reward_completions(
            completions,
            trainer=trainer,
            reward=reward,
            pools={"made": 0},
            progress=0.0,
            engine=engine,
            timer=PhaseTimer(engine.device),
            judge=Failing(),
        )
    assert gathered[-1] == [failure], "the others learn of it"
