"""Chat templates that begin the answer themselves, and pictures that a template does not show once."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from aes_r1.data.sample import Sample
from aes_r1.inference.asking import AskingConfig, ModelProfile
from aes_r1.inference.exchange import INTERVENTION_KINDS, intervene, paired_rows
from aes_r1.inference.predict import predict
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.model.template import prompt_text
from aes_r1.prompts import RATING_PROMPT, SCORE_FIRST_PROMPT, answer, parse_critique, parse_score
from aes_r1.rollout.forced_prefix import complete_prefix
from aes_r1.runs.stopping import StopRequest
from aes_r1.scoring.critic import Critic
from aes_r1.settings import ErrorSettings, InputError, RewardSettings, TrainerSettings
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.rapo import train_rapo
from aes_r1.trainer.single_engine import SingleEngine
from tests.conftest import picture, twelve_pictures
from tests.model.folders import TEXT_ONLY, TWICE, generation_prompt
from tests.trainer.cold_starts import engine_of, train_cold_start

SAID = answer("a dull picture", 0.25)


def asked_by(tokenizer, template: str):
    """The tiny model with random weights and another chat template."""
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    return tiny.build_tiny_model(own, max_pixels=9216, seed=0)


@pytest.mark.parametrize("ending", ["<think>\n", "<think>", "<think>\n\n"])
def test_what_the_prompt_opened_is_part_of_the_answer(tokenizer, ending):
    backbone = asked_by(tokenizer, generation_prompt(ending))
    prompt = backbone.encode(picture(100, 60), RATING_PROMPT)
    assert backbone.tokenizer.decode(prompt.input_ids).endswith(f"<|im_start|>assistant\n{ending}")
    assert backbone.answer_prefix == ending

    target = torch.tensor(backbone.encode_answer(SAID))
    assert backbone.words(target[:-1]) == SAID.removeprefix("<think>")  # the tag is not part of the target twice
    assert backbone.decode(target[:-1]) == ending + SAID.removeprefix("<think>")
    assert parse_score(backbone.decode(target[:-1])) == 0.25
    assert parse_critique(backbone.decode(target[:-1])) == "a dull picture"


@pytest.mark.slow
def test_where_the_prompt_opens_the_critique_the_score_cannot_come_first(tokenizer, tmp_path):
    asked_by(tokenizer, generation_prompt("<think>\n")).save(tmp_path)
    backbones.check_model(tmp_path, question=RATING_PROMPT, max_pixels=9216)
    with pytest.raises(InputError, match=f"^model.path={tmp_path}: its chat template opens <think>") as caught:
        backbones.check_model(tmp_path, question=SCORE_FIRST_PROMPT, max_pixels=9216)
    assert "\n" not in str(caught.value)


def test_a_template_that_opens_nothing_leaves_the_answer_whole(backbone):
    target = torch.tensor(backbone.encode_answer(SAID))
    assert (backbone.answer_prefix, backbone.decode(target[:-1])) == ("", SAID)


@pytest.mark.parametrize("pair", ["<think>\n\n</think>\n\n", "<think></think>"])
@pytest.mark.slow
def test_an_empty_think_block_does_not_stand_before_the_critique(tokenizer, pair, tmp_path):
    """It is taken out of the template, so that a saved copy is asked alike, by transformers alone too."""
    asked_by(tokenizer, generation_prompt(pair)).save(tmp_path)
    backbone = backbones.load(tmp_path, dtype="float32", max_pixels=9216)
    wanted = prompt_text(tokenizer, RATING_PROMPT)
    assert wanted.endswith("assistant\n")
    assert prompt_text(backbone.tokenizer, RATING_PROMPT) == wanted
    assert (backbone.answer_prefix, backbone.decode(torch.tensor(backbone.encode_words(SAID)))) == ("", SAID)
    backbone.save(tmp_path / "again")
    again = backbones.load(tmp_path / "again", dtype="float32", max_pixels=9216).tokenizer
    assert again.chat_template == backbone.tokenizer.chat_template
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": f"{pair}kept"}]
    assert again.apply_chat_template(turns, tokenize=False).endswith(f"{pair}kept<|im_end|>\n")


@pytest.mark.parametrize(("template", "count"), [(TEXT_ONLY, 0), (TWICE, 2)])
def test_a_prompt_shows_the_picture_once_or_is_refused(tokenizer, template, count):
    backbone = asked_by(tokenizer, template)
    with pytest.raises(InputError, match=rf"puts {count} placeholders <\|image_pad\|> for one picture"):
        backbone.encode(picture(100, 60), RATING_PROMPT)
    with pytest.raises(InputError, match=rf"puts {2 * count} placeholders <\|image_pad\|> for 2 pictures"):
        backbone.encode_pictures([picture(100, 60)] * 2, RATING_PROMPT)


def test_a_template_that_drops_the_second_picture_is_refused(tokenizer):
    """Some templates write the first picture of a turn alone; the model would compare it with nothing."""
    first_alone = "{% if loop.first %}<|image_pad|>{% endif %}"
    backbone = asked_by(tokenizer, tiny.CHAT_TEMPLATE.replace("<|image_pad|>", first_alone))
    assert len(backbone.encode(picture(100, 60), RATING_PROMPT).image_grid_thw) == 1
    with pytest.raises(InputError, match=r"1 placeholders .* for 2 pictures: it shows fewer pictures than it is given"):
        backbone.encode_pictures([picture(100, 60), picture(60, 60)], RATING_PROMPT)


def test_several_pictures_stand_in_the_prompt_in_their_order(backbone):
    shown = [picture(100, 60), picture(60, 100, seed=1)]
    prompt = backbone.encode_pictures(shown, RATING_PROMPT)
    alone = [backbone.encode(one, RATING_PROMPT) for one in shown]
    assert (prompt.image_grid_thw == np.concatenate([one.image_grid_thw for one in alone])).all()
    assert (prompt.pixel_values == np.concatenate([one.pixel_values for one in alone])).all()
    runs = np.split(prompt.input_ids, np.flatnonzero(np.diff(prompt.input_ids == backbone.image_token)) + 1)
    counts = [len(run) for run in runs if run[0] == backbone.image_token]
    assert counts == [np.prod(one.image_grid_thw) // 4 for one in alone]


def test_a_prompt_holds_as_many_tokens_as_its_picture_needs(backbone):
    for size in ((60, 60), (192, 96)):
        prompt = backbone.encode(picture(*size), RATING_PROMPT)
        assert (prompt.input_ids == backbone.image_token).sum() == np.prod(prompt.image_grid_thw) // 4
    backbone.image_token = backbone.tokenizer.convert_tokens_to_ids("<|video_pad|>")  # another than the template's
    with pytest.raises(InputError, match="a prompt holds 0 of the 9 tokens of its pictures"):
        backbone.encode(picture(60, 60), RATING_PROMPT)


@pytest.mark.slow
def test_a_thinking_template_from_the_cold_start_to_the_score(tokenizer, tmp_path):
    """Answers under a prompt that opens the think block are read correctly by every command."""
    backbone = asked_by(tokenizer, generation_prompt("<think>\n"))
    (tmp_path / "pictures").mkdir()
    twelve_pictures(tmp_path / "pictures")
    samples = [
        Sample(path.name, str(path), (place + 0.5) / 12, "made", "test")
        for place, path in enumerate(sorted((tmp_path / "pictures").glob("*.png")))
    ]
    words = ("a dull picture with flat light", "a strong picture with deep shadow")
    records = [
        {"id": sample.id, "image": sample.image, "critique": words[index // 6], "mos": sample.mos}
        for index, sample in enumerate(samples)
    ]
    train_cold_start(backbone, engine_of(backbone), records, tmp_path / "sft", epochs=28, save_every=1000)
    backbone.model.eval()

    rows = list(
        predict(
            backbone, samples, AskingConfig(max_new_tokens=40), protocols=["greedy", "direct", "label_tokens"],
            batch_size=12, seed=0,
        )
    )  # fmt: skip
    greedy = [row for row in rows if row["protocol"] == "greedy"]
    assert all(row["score"] is not None and row["critique"] in words for row in greedy)
    assert all(row["text"].startswith("<think>\n") and row["text"].count("<think>") == 1 for row in greedy)
    assert all(row["text"].startswith("<think></think><answer>") for row in rows if row["protocol"] == "direct")

    critic = Critic(backbone, ModelProfile(max_new_tokens=40), samples=1)
    assert critic.score(samples[0].image).score == greedy[0]["score"]

    prompt = backbone.encode(picture(60, 60), RATING_PROMPT)
    [forced] = complete_prefix(backbone, [prompt], [f"<think>{words[0]}</think><answer>"])
    assert parse_score(forced) is not None
    assert parse_critique(forced) == words[0]
    for row in intervene(backbone, paired_rows(greedy, seed=0), question=RATING_PROMPT):
        assert all(row[kind] is not None for kind in INTERVENTION_KINDS[:3]), row

    completions = []
    train_rapo(
        Policy(backbone, None, RATING_PROMPT),
        SingleEngine(backbone.model, weight_decay=0.0, max_grad_norm=1.0, device=torch.device("cpu")),
        samples,
        trainer=TrainerSettings(
            num_samples=2,
            images_per_step=4,
            max_steps=1,
            kl_coef=0,
            max_new_tokens=40,
            temperature=0.3,
            completions_every=1,
        ),
        reward=RewardSettings(error=ErrorSettings(sigma=0.3)),
        context=TrainingContext(
            seed=0,
            folder=tmp_path / "rapo",
            log=lambda step, values: None,
            log_completions=lambda step, found: completions.extend(found),
            stop=StopRequest(),
        ),
    )
    assert len(completions) == 8
    assert sum(row["score"] is not None and row["reward_total"] > 0 for row in completions) >= 6
