"""Verdicts: how answers are combined, what they depend on, and where a model's profile is found."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from aes_r1.data.sample import PictureError, Sample, open_picture
from aes_r1.inference.asking import AskingConfig, ModelProfile
from aes_r1.inference.predict import predict
from aes_r1.model import backbone as backbones
from aes_r1.prompts import SCORE_ONLY_PROMPT
from aes_r1.scoring.critic import Critic, find_model, identity_of, verdict
from aes_r1.settings import InputError


def said(score, words="Colour: warm. Exposure: dark, but sound. A fair picture."):
    return f"<think>{words}</think><answer>{score}</answer>"


def test_a_verdict_is_the_mean_with_the_critique_of_the_nearest_answer():
    one = verdict([said("0.20", "far below"), said("0.90", "above"), "no answer", said("0.61")], half_width=None)
    assert one.score == pytest.approx(0.57)
    assert one.scores == [0.2, 0.9, None, 0.61]
    assert one.dimensions == {"color": "warm.", "exposure": "dark, but sound."}
    assert one.judgement == "A fair picture."


def test_a_verdict_of_answers_that_begin_with_the_score():
    scored = (("0.20", "below"), ("0.60", "near"), ("0.70", "above"))
    texts = [f"<answer>{score}</answer><think>{words}</think>" for score, words in scored]
    one = verdict([*texts, "<answer>0.70</answer><think>", said("0.70")], half_width=None, order="score_first")
    assert (one.scores, one.critique) == ([0.2, 0.6, 0.7, None, None], "near")
    assert verdict(texts, half_width=None).scores == [None] * 3


def test_the_interval_of_samples_by_hand():
    spread = [f"{score / 100:.2f}" for score in range(30, 49)]
    one = verdict([said(score) for score in spread], half_width=None)
    assert (one.low, one.high, one.interval) == (0.3, 0.48, "samples")


@pytest.mark.parametrize("answers", [["0.68"], ["0.68", "0.68"], ["0.20", "0.88"], ["0.68"] * 18, ["0.5"] * 18 + ["x"]])
def test_few_answers_do_not_say_where_further_ones_lie(answers):
    one = verdict([said(score) for score in answers], half_width=None)
    assert (one.low, one.high, one.interval) == (None, None, "too_few_answers")


def test_a_conformal_half_width_goes_before_the_spread_and_stays_on_the_scale():
    one = verdict([said("0.95"), said("0.90")], half_width=0.125)
    assert (one.low, one.high, one.interval) == (pytest.approx(0.8), 1.0, "conformal")


def test_scenes_say_nothing_of_the_error_on_a_photograph():
    for half_width in (0.125, None):
        one = verdict([said("0.95"), said("0.90")], half_width=half_width, calibrated=False)
        assert (one.score, one.low, one.high, one.interval) == (pytest.approx(0.925), None, None, "not_calibrated")
    for measured_on, made, known in (
        *(("scenes/test", True, False), ("scenes_shifted/test", False, False), (None, True, False)),
        *((None, False, True), ("folder/test", True, True), ("para/test", False, True)),
    ):
        assert ModelProfile(measured_on=measured_on, scenes_alone=made).knows_photographs is known


def test_no_readable_answer_is_no_score():
    one = verdict(["what a picture", said("1.70", "far too much")], half_width=0.1)
    assert (one.score, one.low, one.high, one.interval) == (None, None, None, None)
    assert one.critique == "far too much"


@pytest.mark.slow
def test_a_verdict_depends_on_the_picture_alone(talking_run, tmp_path):
    first, second = sorted((talking_run / "pictures").glob("*.png"))[:2]
    critic = Critic.load(talking_run)
    assert critic.samples == 4  # as the run was evaluated
    alone = critic.score(first)
    critic.score(second)
    moved = tmp_path / "other name.png"
    shutil.copy(first, moved)
    assert critic.score(moved) == alone == critic.score(Image.open(first)) == Critic.load(talking_run).score(first)
    hot = replace(critic.profile, temperature=1.5)
    picture = open_picture(first)
    draws = [Critic(critic.backbone, hot, seed=seed).answers([picture]) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.slow
def test_it_has_learned_something(talking_run):
    """Checks a fixture of other tests: brighter pictures get higher scores, and intervals are the run's."""
    critic = Critic.load(talking_run)
    verdicts = [critic.score(path) for path in sorted((talking_run / "pictures").glob("*.png"))]
    scores = [one.score for one in verdicts]
    assert None not in scores
    assert np.corrcoef(scores, np.arange(12))[0, 1] > 0.8
    assert verdicts[0].interval == "conformal"
    assert verdicts[5].high - verdicts[5].low == pytest.approx(0.25)
    assert set(verdicts[-1].dimensions) == {
        "light_and_shadow", "mood_and_narrative", "composition", "color", "exposure",
    }  # fmt: skip


def test_one_sample_is_the_greedy_answer_of_an_evaluation(talking_run):
    path = talking_run / "pictures" / "04.png"
    backbone = backbones.load(talking_run / "model", dtype="float32", max_pixels=9216)
    rows = predict(
        backbone, [Sample("04.png", str(path), 0.4, "folder", "test")], AskingConfig(max_new_tokens=64),
        protocols=["greedy"], batch_size=1, seed=0,
    )  # fmt: skip
    one = Critic.load(talking_run, samples=1).score(path)
    row = next(iter(rows))
    assert (one.score, one.critique) == (row["score"], row["critique"])
    assert one.low is None  # the evaluation left a half-width for mean scores only


def test_fewer_answers_than_were_evaluated_get_no_conformal_interval(talking_run):
    critic = Critic.load(talking_run, samples=3)
    path = talking_run / "pictures" / "04.png"
    assert critic.score(path).interval == "too_few_answers"
    assert Critic(critic.backbone, critic.profile, samples=5).score(path).interval == "conformal"


def test_a_pil_picture_is_read_as_its_file_is(talking_run, tmp_path):
    clear = Image.new("RGBA", (80, 60), (0, 0, 0, 0))
    clear.paste((250, 120, 30, 255), (10, 10, 40, 30))
    clear.save(tmp_path / "clear.png")
    critic = Critic.load(talking_run)
    assert critic.score(clear) == critic.score(tmp_path / "clear.png")


def test_a_pil_picture_has_the_rules_of_files(talking_run, tmp_path):
    critic = Critic.load(talking_run, samples=1)
    for size in ((1, 300), (3000, 10)):
        Image.new("RGB", size).save(tmp_path / "thin.png")
        for given in (Image.new("RGB", size), Image.open(tmp_path / "thin.png"), tmp_path / "thin.png"):
            with pytest.raises(PictureError, match=rf": {size[0]} x {size[1]}: one side is over 200 times the other"):
                critic.score(given)
    whole = (talking_run / "pictures" / "03.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for given in (Image.open(tmp_path / "cut.png"), tmp_path / "cut.png"):
        with pytest.raises(PictureError, match="damaged"):
            critic.score(given)
    with pytest.raises(PictureError, match="0 x 0: there is no pixel"):
        critic.score(Image.new("RGB", (0, 0)))


def test_an_unreadable_file_is_named(talking_run, tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(PictureError, match=r"text\.jpg"):
        Critic.load(talking_run).score(tmp_path / "text.jpg")


def test_the_profile_is_found_beside_the_model(talking_run, tmp_path):
    folder, profile = find_model(talking_run)
    assert folder == str(talking_run / "model")
    assert find_model(talking_run / "model") == (folder, profile)
    assert (profile.max_pixels, profile.max_new_tokens, profile.half_widths) == (9216, 64, {"mean": 0.125})
    assert profile.measured_on == "folder/test"
    shutil.copytree(talking_run, tmp_path / "run")
    settings = json.loads((talking_run / "settings.json").read_text())
    settings["model"]["prompt"] = "score_only"
    (tmp_path / "run" / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "run" / "evaluation.json").unlink()
    bare = find_model(tmp_path / "run")[1]
    assert (bare.question, bare.half_widths) == (SCORE_ONLY_PROMPT, {})
    # A model folder on its own: the processor's own picture size, as it was saved.
    shutil.copytree(talking_run / "model", tmp_path / "alone")
    critic = Critic.load(tmp_path / "alone", samples=1)
    assert critic.backbone.image_processor.size["longest_edge"] == 9216
    assert critic.profile.half_widths == {}
    assert critic.backbone.device == torch.device("cpu") or torch.cuda.is_available()


def test_no_model_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        Critic.load(tmp_path)
    (tmp_path / "aes_r1.json").write_text('{"unknown": 1}')
    with pytest.raises(InputError, match="unknown"):
        Critic.load(tmp_path)
    with pytest.raises(InputError, match="samples"):
        Critic(None, None, samples=0)


@pytest.mark.slow
def test_the_identity_is_of_the_model_s_files(backbone, tmp_path):
    """The same bytes in another folder are the same critic; two numbers that change places make it another."""
    one, copied, changed = (tmp_path / name for name in ("one", "copied", "changed"))
    backbone.save(one)
    shutil.copytree(one, copied)
    shutil.copytree(one, changed)
    (file,) = changed.glob("*.safetensors")
    weights = load_file(file)
    weights[max(weights, key=lambda name: weights[name].ndim)].view(-1)[:2] = torch.tensor([1.0, 0.0])
    save_file(weights, file, metadata={"format": "pt"})
    swapped = shutil.copytree(changed, tmp_path / "swapped")
    (file,) = swapped.glob("*.safetensors")
    weights[max(weights, key=lambda name: weights[name].ndim)].view(-1)[:2] = torch.tensor([0.0, 1.0])
    save_file(weights, file, metadata={"format": "pt"})
    found = [identity_of(folder) for folder in (one, changed, swapped)]
    assert identity_of(copied) == identity_of(one, samples=ModelProfile().n_samples) == found[0]
    found += [identity_of(one, samples=1), identity_of(one, seed=1)]
    assert len(set(found)) == 5
    with pytest.raises(InputError, match="samples=0"):
        identity_of(one, samples=0)
    with pytest.raises(InputError, match="neither a model's folder"):
        identity_of(tmp_path)


def test_sub_scores_are_means_of_what_can_be_read():
    texts = [said("0.40; color 0.20"), said("0.60; color 0.40; exposure 0.90"), said("0.60; colour 0.40"), "no answer"]
    one = verdict(texts, half_width=None, sub_scores=["color", "exposure", "composition"])
    assert one.scores == [0.4, 0.6, 0.6, None]
    assert one.sub_scores == {"color": pytest.approx(0.3), "exposure": 0.9, "composition": None}
    assert verdict(["no answer"], half_width=None, sub_scores=["color"]).sub_scores == {"color": None}
    assert verdict([said("0.40")], half_width=None).sub_scores == {}
