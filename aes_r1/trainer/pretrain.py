"""Pretrain the tiny model to see and to answer in the format, before it learns to judge.

It describes scenes in plain facts (where the light is, where the subject stands, how many things, which hues, how
bright). Asked to judge, it learns to answer in the format, with plain facts and the picture's brightness for a number,
so that RAPO can start from it as from a pretrained model that follows instructions. A linear readout predicts the same
facts from the vision tower's mean feature, which trains the tower several times faster than words alone; it is
discarded at the end. The model sees no opinion and no aesthetic score, and its pictures are drawn from seeds that no
data set uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from aes_r1 import prompts
from aes_r1.data import scenes
from aes_r1.model import tiny
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood, completion_table
from aes_r1.model.transfer import to_device
from aes_r1.runs.stopping import leave_to_parent
from aes_r1.settings import PretrainSettings
from aes_r1.trainer.objective import learning_rate
from aes_r1.trainer.order import batch_indices
from aes_r1.trainer.single_engine import SingleEngine

DESCRIBE = "Describe this picture in plain facts."
SCENE_SEED = 1_000_003  # for the pictures of pretraining; data sets count their seeds from 0
MEASURED_SHARE = 0.2  # share of lessons that ask for one measurement instead of a description
RATED_SHARE = 0.15  # share of lessons that ask to judge; the answer states facts and a number that is no judgement
SCORED_SHARE = 0.05  # share of the same without words

# Part of the pretrained model's name in the store. Raise it with every change that trains a different model from the
# same settings; tests/test_golden.py fails until then.
BASE_MODEL_VERSION = 3


def pretrain_tiny(
    target: Path,
    *,
    corpus: Iterable[str],
    pretrain: PretrainSettings,
    max_pixels: int,
    report: Callable[[int, int, str], None],
) -> None:
    """Build the tiny model, pretrain it and save its Hugging Face form into `target`.

    `corpus` is text that the tokenizer should encode in few tokens; it has no pictures. `report(done, total, text)` is
    called after every step.
    """
    # -- data ----------------------------------------------------------------------------------------------------------
    report(0, 1, "drawing scenes")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=leave_to_parent) as pool:
        draw = partial(_draw, seed=SCENE_SEED + pretrain.seed)
        pictures, facts = zip(*pool.map(draw, range(pretrain.pictures), chunksize=100), strict=True)
    tokenizer = tiny.build_tokenizer([*corpus, *_spelling(facts)])
    backbone = tiny.build(tokenizer, max_pixels=max_pixels, seed=pretrain.seed)
    readout, features = _readout(backbone, len(scenes.fact_vector(facts[0])), pretrain.seed)
    modules = torch.nn.ModuleList([backbone.model, readout])
    engine = SingleEngine(modules, weight_decay=0.05, max_grad_norm=1.0, device=torch.device("cpu"))
    total = pretrain.pictures * pretrain.epochs // pretrain.batch_size
    rng = np.random.default_rng([pretrain.seed, 1])

    for step in range(total):
        chosen = batch_indices(step, per_step=pretrain.batch_size, count=len(pictures), seed=pretrain.seed)
        lessons = [_lesson(facts[index], rng) for index in chosen]
        encoded = [
            backbone.encode(pictures[index], question) for index, (question, _) in zip(chosen, lessons, strict=True)
        ]
        batch = backbone.collate(encoded)
        tokens, mask = completion_table([backbone.encode_answer(text) for _, text in lessons], backbone.pad_token)
        tokens = to_device(tokens, engine.device)

        # -- loss ------------------------------------------------------------------------------------------------------
        logps, _ = completion_likelihood(backbone, batch, tokens, mask, torch.arange(len(lessons)))
        answer_loss = -logps.sum() / mask.sum()
        targets = torch.from_numpy(np.stack([scenes.fact_vector(facts[index]) for index in chosen]))
        per_picture = (batch.image_grid_thw.prod(dim=1) // backbone.image_processor.merge_size**2).tolist()
        pooled = torch.stack([part.mean(dim=0) for part in features.pop().split(per_picture)])
        readout_loss = (readout(pooled) - targets).square().sum(dim=1).mean()
        engine.backward(answer_loss + readout_loss)

        # -- step ------------------------------------------------------------------------------------------------------
        engine.step(learning_rate(step, total, base=pretrain.lr, schedule="cosine", warmup=total // 20))
        report(step + 1, total, f"saying {answer_loss.item():.3f}  seeing {readout_loss.item():.3f}")

    # -- save ----------------------------------------------------------------------------------------------------------
    backbone.save(target)


def _readout(backbone: Backbone, facts: int, seed: int) -> tuple[torch.nn.Linear, list[torch.Tensor]]:
    """Return a linear layer for `facts` numbers, and the list in which a forward pass leaves the vision features."""
    features: list[torch.Tensor] = []
    backbone.core.model.visual.register_forward_hook(lambda _, __, output: features.append(output.pooler_output))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Linear(backbone.model.config.get_text_config().hidden_size, facts), features


def _draw(index: int, seed: int) -> tuple:
    picture, _, facts = scenes.render_scene("scenes", index, seed)
    return picture, facts


def _lesson(facts: dict, rng: np.random.Generator) -> tuple[str, str]:
    """Draw a question about a picture and its true answer."""
    drawn = rng.random()
    if drawn < RATED_SHARE:
        return prompts.RATING_PROMPT, _unjudged(facts, rng, count=int(rng.integers(2, 4)))
    if drawn < RATED_SHARE + SCORED_SHARE:
        return prompts.SCORE_ONLY_PROMPT, _unjudged(facts, rng, count=0)
    if drawn < RATED_SHARE + SCORED_SHARE + MEASURED_SHARE:
        questions = scenes.measure_questions(facts)
        question, value = questions[rng.integers(len(questions))]
        return question, prompts.answer("", value)
    return DESCRIBE, scenes.describe(facts)


def _unjudged(facts: dict, rng: np.random.Generator, *, count: int) -> str:
    """Write an answer in the format that judges nothing: `count` random facts, and the picture's brightness as number.

    Brightness is not correlated with aesthetic scores, because pictures are spoilt by too much light as often as by too
    little. It is not among the facts in the words, so the model has to read the number off the picture, as it has to
    later when the number is a judgement. A number that is random, or copied from the words, would teach nothing that
    the cold start can use. Brightness gives the tenths; the hundredths are random.
    """
    *others, _ = scenes.describe(facts).removesuffix(".").split(". ")
    taken = sorted(rng.choice(len(others), size=count, replace=False).tolist())
    words = " ".join(f"{others[index]}." for index in taken)
    return prompts.answer(words, facts["bright"] / 10 + int(rng.integers(10)) / 100)


def _spelling(facts: tuple[dict, ...]) -> list[str]:
    questions = [pair for scene_facts in facts[:300] for pair in scenes.measure_questions(scene_facts)]
    rng = np.random.default_rng(0)
    return [
        *(scenes.describe(scene_facts) for scene_facts in facts[:3000]),
        *(question for question, _ in questions),
        *(prompts.answer("", value) for _, value in questions),
        *(_unjudged(scene_facts, rng, count=3) for scene_facts in facts[:1000]),
        *[DESCRIBE, prompts.RATING_PROMPT, prompts.SCORE_ONLY_PROMPT] * 100,
    ]
