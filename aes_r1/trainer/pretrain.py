"""Pretrain the tiny model to see and to answer in the required format, before it learns to judge.

It describes scenes in plain facts (where the light is, where the subject stands, how many things, which hues, how
bright). Asked to judge, it learns to answer in the format, with plain facts and the picture's brightness for a number,
so that RAPO can start from it as it could from a pretrained model that follows instructions. A linear readout predicts
the same facts from the vision tower's mean feature, which trains the tower several times faster than words alone; it is
discarded at the end. The model sees no opinion of a whole picture and no aesthetic score, and the scenes are drawn from
seeds that no data set uses. Photographs may stand beside the scenes, with facts that were measured in them and people's
ratings of their single dimensions.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from aes_r1.model import families, tiny
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood, completion_table
from aes_r1.model.transfer import to_device
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.workers import in_workers
from aes_r1.settings import PretrainSettings
from aes_r1.trainer import checkpoint
from aes_r1.trainer.lessons import PictureFacts, lesson, scene_with_facts, spelling
from aes_r1.trainer.objective import learning_rate
from aes_r1.trainer.order import batch_indices
from aes_r1.trainer.single_engine import SingleEngine

SCENE_SEED = 1_000_003  # for the pictures of pretraining; data sets count their seeds from 0
SAVE_EVERY = 50  # optimizer steps between checkpoints
LOOKS = 2  # photographs per lesson that only tower and readout see, each at a fraction of a lesson's cost

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
    photographs: Sequence[tuple[Image.Image, PictureFacts]] = (),
) -> None:
    """Build the tiny model, pretrain it and save its Hugging Face form into `target`.

    `corpus` is text that the tokenizer should encode in few tokens; it has no pictures. `report(done, total, text)` is
    called at the beginning and after every step. If it raises an exception, the same call goes on from the last
    checkpoint in `target`, whose name is the checkpoint's identity. An epoch is one pass over the scenes and
    `photographs`.
    """
    # -- data ----------------------------------------------------------------------------------------------------------
    report(0, 1, "drawing scenes")
    draw = partial(scene_with_facts, seed=SCENE_SEED + pretrain.seed)
    scenes = list(in_workers(draw, range(pretrain.pictures)))
    pictures = [picture for picture, _ in chain(scenes, photographs)]
    facts_by_source = [[facts for _, facts in source] for source in (scenes, photographs) if source]
    all_facts = list(chain.from_iterable(facts_by_source))
    tokenizer = tiny.build_tokenizer([*corpus, *chain.from_iterable(map(spelling, facts_by_source))])
    backbone = tiny.build_tiny_model(tokenizer, max_pixels=max_pixels, seed=pretrain.seed)
    known_numbers = _side_by_side([[facts.numbers for facts in source] for source in facts_by_source])
    readout, features = _readout(backbone, known_numbers.shape[1], pretrain.seed)
    modules = torch.nn.ModuleList([backbone.model, readout])
    engine = SingleEngine(modules, weight_decay=0.05, max_grad_norm=1.0, device=torch.device("cpu"))
    total = len(pictures) * pretrain.epochs // pretrain.batch_size
    rng = np.random.default_rng([pretrain.seed, 1])
    checkpoints = RunFolder(target).checkpoints
    done_steps = (checkpoint.load_latest(checkpoints, engine, target.name) or {"step": 0})["step"]

    for step in range(total):
        indices = batch_indices(step, per_step=pretrain.batch_size, count=len(pictures), seed=pretrain.seed)
        lessons = [lesson(all_facts[index], rng) for index in indices]
        if step < done_steps:
            continue  # its lessons are drawn all the same, because all lessons share one random stream
        encoded = [
            backbone.encode(pictures[index], question) for index, (question, _) in zip(indices, lessons, strict=True)
        ]
        batch = backbone.collate(encoded)
        tokens, mask = completion_table([backbone.encode_answer(text) for _, text in lessons], backbone.pad_token)
        tokens = to_device(tokens, engine.device)

        # -- loss ------------------------------------------------------------------------------------------------------
        logps, _ = completion_likelihood(backbone, batch, tokens, mask, torch.arange(len(lessons)))
        answer_loss = -logps.sum() / mask.sum()
        pooled = _pooled(features.pop(), batch.image_grid_thw, backbone)
        if photographs:
            looks = batch_indices(step, per_step=LOOKS * len(indices), count=len(photographs), seed=pretrain.seed)
            pooled = torch.cat([pooled, mean_vision_features(backbone, [photographs[look][0] for look in looks])])
            features.clear()  # of these looks, which `pooled` holds already
            indices += [len(scenes) + look for look in looks]
        errors = (readout(pooled) - torch.from_numpy(known_numbers[indices])).nan_to_num()  # 0 for an unknown number
        readout_loss = errors.square().sum(dim=1).mean()
        engine.backward(answer_loss + readout_loss)

        # -- step ------------------------------------------------------------------------------------------------------
        engine.step(learning_rate(step, total, base=pretrain.lr, schedule="cosine", warmup=total // 20))
        if (step + 1) % SAVE_EVERY == 0:
            checkpoint.save_checkpoint(checkpoints, step + 1, engine, {"identity": target.name}, keep=1)
        report(step + 1, total, f"saying {answer_loss.item():.3f}  seeing {readout_loss.item():.3f}")

    # -- save ----------------------------------------------------------------------------------------------------------
    backbone.save(target)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _readout(backbone: Backbone, size: int, seed: int) -> tuple[torch.nn.Linear, list[torch.Tensor]]:
    """Return a linear layer for `size` numbers, and the list in which a forward pass leaves the vision features."""
    features: list[torch.Tensor] = []
    backbone.core.model.visual.register_forward_hook(lambda _, __, output: features.append(output.pooler_output))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Linear(backbone.model.config.get_text_config().hidden_size, size), features


def mean_vision_features(backbone: Backbone, pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Return the vision tower's mean feature of each picture, [n, D], without the language model."""
    core = backbone.core
    pixels, grids, _ = zip(
        *(families.prepare(core.config, backbone.image_processor, picture) for picture in pictures), strict=True
    )
    grid = torch.from_numpy(np.stack(grids)).long()
    return _pooled(families.vision_features(core, torch.from_numpy(np.concatenate(pixels)), grid)[0], grid, backbone)


def _pooled(features: torch.Tensor, grid: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Return the mean [n, D] over each picture's own rows of `features` [V, D]; `grid` [n, 3] tells how many it has."""
    per_picture = (grid.prod(dim=1) // backbone.image_processor.merge_size**2).tolist()
    return torch.stack([part.mean(dim=0) for part in features.split(per_picture)])


def _side_by_side(kinds: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Give each kind of pictures columns of its own: [all pictures, all columns] float32, NaN elsewhere."""
    widths = [len(rows[0]) for rows in kinds]
    edges = np.cumsum([0, *widths])
    table = [np.full((len(rows), edges[-1]), np.nan, dtype=np.float32) for rows in kinds]
    for index, rows in enumerate(kinds):
        table[index][:, edges[index] : edges[index + 1]] = rows
    return np.concatenate(table)
