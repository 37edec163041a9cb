"""Check launch, data, critiques and models within seconds, before a run does any work.

Drawing pictures, pretraining the tiny model and writing critiques take minutes or hours. None of this begins if a later
stage of the command cannot start.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch

from aes_r1.aescot.provider import affordable_price, key_of
from aes_r1.aescot.start import require_ratings
from aes_r1.data import mix, scene_sets
from aes_r1.data.loader import load_samples, require_opinions, root_of
from aes_r1.data.manifest import read_run_manifest
from aes_r1.data.names import way_to_file
from aes_r1.data.opinions import rater_shares
from aes_r1.data.ratings import known_ratings, ratings_hint
from aes_r1.data.records import read_records
from aes_r1.data.sample import Sample
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.model.quantize import require_nf4
from aes_r1.pipeline.job import Job
from aes_r1.pipeline.label_digests import require_same_labels
from aes_r1.pipeline.origin import require_same_files
from aes_r1.prompts import question_of
from aes_r1.reward.custom import load_reward
from aes_r1.rollout.vllm_client import is_healthy
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.log import quiet
from aes_r1.settings import DataSettings, InputError, Settings
from aes_r1.trainer.launch import launched, require_deepspeed, world
from aes_r1.trainer.step_images import require_a_step
from aes_r1.trainer.taught import require_words

log = logging.getLogger("aes_r1")

TrainingSamples = Callable[[], Sequence[Sample]]  # lists them on its first call


def check_run(settings: Settings) -> None:
    """Raise InputError unless the run of `settings` can start, as far as this can be checked in seconds.

    Every process checks its own launch; rank 0 checks the files that all of them share.
    """
    check_launch(settings)
    rank, size = world()
    _divisible(settings, size)
    if rank == 0:
        train = cache(partial(_train_samples, settings))  # several checks ask for them, if any does
        if _to_come(settings, "data"):
            for data in (settings.data, *settings.evaluation.also):
                _check_data(data, settings, train)
        if _cold_start_to_come(settings):
            _check_critiques(settings, train)
        if _rapo_to_come(settings):
            _check_score_rewards(settings, train)
        if _cold_start_to_come(settings) or _rapo_to_come(settings):
            _check_sub_scores(settings, train)
            _check_rewards(settings, train)
        _check_models(settings)
        if settings.trainer.resume != "never":
            require_same_files(RunFolder(settings.out), settings)
            require_same_labels(RunFolder(settings.out), settings)
        _wait_for_server(settings)


def check_launch(settings: Settings) -> None:
    """Raise InputError where a launcher's variables are incomplete or the engine cannot serve so many processes."""
    # In the shell or batch script of a SLURM allocation, where one process starts, there is a job id but no step id.
    alone = "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ
    tasks = launched("SLURM_STEP_NUM_TASKS", 0) or (0 if alone else launched("SLURM_NTASKS", 0)) or 1
    if tasks > 1 and "WORLD_SIZE" not in os.environ:
        raise InputError(
            f"SLURM_NTASKS={tasks}: srun starts {tasks} processes that do not know of each other; give srun "
            "--ntasks-per-node=1 torchrun --nnodes=$SLURM_NNODES --nproc-per-node=GPUS --rdzv-backend=c10d "
            "--rdzv-endpoint=$MASTER_ADDR:29500 -m aes_r1.train .., or set WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR "
            "and MASTER_PORT in every task (docs/distributed.md)"
        )
    _, size = world()
    engine = settings.engine.name
    if size > 1:
        lacking = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if lacking:
            raise InputError(f"WORLD_SIZE={size}: {', '.join(lacking)} is not set; launch by torchrun, which sets them")
        launched("MASTER_PORT", 0)
        if engine == "single":
            raise InputError(f"engine=single: {size} processes were launched; give engine=zero2 or launch one")
    local, devices = launched("LOCAL_RANK", 0), torch.cuda.device_count()
    if devices and local >= devices:
        raise InputError(f"LOCAL_RANK={local}: this machine has {devices} GPUs; launch one process for each")
    if engine != "single":
        require_deepspeed(engine)


def _to_come(settings: Settings, stage: str) -> bool:
    return settings.trainer.resume == "never" or not RunFolder(settings.out).stage_done(stage)


def _cold_start_to_come(settings: Settings) -> bool:
    """Return whether a cold start is still to be made, or to be made again because the store lost it."""
    is_lost = RunFolder(settings.out).cold_start_model is None and _to_come(settings, "evaluation")
    return "cold_start" in settings.models and (_to_come(settings, "cold_start") or is_lost)


def _rapo_to_come(settings: Settings) -> bool:
    return settings.trainer.name == "rapo" and _to_come(settings, "rapo")


def _divisible(settings: Settings, size: int) -> None:
    """Check that sizes shared among the processes divide evenly, in the stages that are still to come."""
    shared_sizes = {}
    if "cold_start" in settings.models and _to_come(settings, "cold_start"):
        shared_sizes["cold_start.batch_size"] = settings.cold_start.batch_size
    if _rapo_to_come(settings):
        shared_sizes["trainer.images_per_step"] = settings.trainer.images_per_step
        shared_sizes["trainer.edited_pairs"] = settings.trainer.edited_pairs
    for key, value in shared_sizes.items():
        if value % size:
            raise InputError(f"{key}={value}: must be divisible by the {size} processes")
    if "trainer.images_per_step" not in shared_sizes:
        return
    trainer = settings.trainer
    completions = trainer.groups_per_step * trainer.num_samples // size
    if trainer.minibatches > completions:
        raise InputError(
            f"trainer.minibatches={trainer.minibatches}: a process has {completions} completions in a step; "
            "give at most that many"
        )


def _check_data(data: DataSettings, settings: Settings, train: TrainingSamples) -> None:
    """Check that the set's labels can be read, and its splits hold pictures.

    Every training and validation picture must have an opinion. The pictures are opened later.
    """
    if data.name in scene_sets.SCENE_SETS:
        return
    for mixed in mix.mixed_sets(data).values() if data.mix else [data]:
        root_of(mixed)
    rated = {"train", "validation"} if data is settings.data else set()
    with quiet():
        for split in sorted({data.split, *rated}):
            is_train = data is settings.data and split == "train"
            samples = train() if is_train else load_samples(data, split, seed=settings.seed, store=Path(settings.store))
            if split in rated:
                require_opinions(samples, data, split)


def _check_critiques(settings: Settings, train: TrainingSamples) -> None:
    """Check what the cold start's critiques need.

    An AesCoT file must be readable and have words if the prompt asks for them; at least one picture of the file
    cold_start.data must exist. Where critiques are to be written, expert and judge must have the keys that they need,
    and the expert `attributes` the ratings of training pictures.
    """
    cold_start = settings.cold_start
    if cold_start.data is not None:
        path = Path(cold_start.data)
        if not path.is_file():
            near = way_to_file(str(path))
            raise InputError(f"cold_start.data={path}: no such file; give an AesCoT jsonl or null{near}")
        records = read_records(path)
        if not any(os.path.exists(row["image"]) for row in records):
            raise InputError(f"cold_start.data={path}: none of its pictures is there; give their paths as they lie")
        require_words(records, settings.model.prompt, path)
    elif settings.data.name == "aescot":
        path = root_of(settings.data)
        require_words(read_records(path), settings.model.prompt, path)
    else:
        expert = replace(settings.expert, name=cold_start.expert or settings.expert.name)
        for chat in (expert, settings.judge):
            if chat.name == "openai":
                key_of(chat)
        if expert.name == "attributes" and settings.data.name not in scene_sets.SCENE_SETS:
            require_ratings(train(), "expert=attributes")


def _train_samples(settings: Settings) -> Sequence[Sample]:
    """Return the training pictures from the run's list, or else from the labels."""
    listed = RunFolder(settings.out).manifest(f"{settings.data.name}-train")
    if not _to_come(settings, "data") and listed.exists():
        return read_run_manifest(listed)
    with quiet():
        return load_samples(settings.data, "train", seed=settings.seed, store=Path(settings.store))


def _check_rewards(settings: Settings, train: TrainingSamples) -> None:
    """Check what rewards of the critique need: known dimensions, and an initial model that can read words."""
    weights = settings.reward.critique_weights if _rapo_to_come(settings) else {}
    data = settings.data
    needs_ratings = "faithfulness" in weights and data.name not in scene_sets.SCENE_SETS
    if needs_ratings and not any(known_ratings(sample) for sample in train()):
        raise InputError(
            f"reward.faithfulness.weight={weights['faithfulness']:g}: data={data.name} has no ratings of "
            f"single dimensions; {ratings_hint(data.name)}, or 0"
        )
    learns_blank = "cold_start" in settings.models and settings.cold_start.blank_pictures > 0
    reading_settings = [f"reward.read_back.weight={weights['read_back']:g}"] if "read_back" in weights else []
    reading_settings += ["model.answer_from=words"] if settings.model.answer_from == "words" else []
    if reading_settings and settings.trainer.init_from in ("base", "cold_start") and not learns_blank:
        raise InputError(
            f"{reading_settings[0]}: the start has never scored words without a picture; "
            "give cold_start.blank_pictures=0.25, or trainer.init_from=DIR with a model that has"
        )


def _check_models(settings: Settings) -> None:
    """Check the models that the remaining stages load, and the inputs of pretraining."""
    model, init_from = settings.model, settings.trainer.init_from
    will_train = _cold_start_to_come(settings) or _rapo_to_come(settings)
    will_ask = _to_come(settings, "evaluation") and _to_come(settings, "predictions_base")
    if model.quantize == "nf4" and will_train:
        require_nf4()
    if model.base == "shipped":
        tiny.shipped()
    if model.base == "pretrain" and model.pretrain.data == "photographs":
        _check_photographs(settings)
    paths = {"model.path": model.path} if will_train or will_ask else {}
    if _rapo_to_come(settings) and init_from not in ("base", "cold_start"):
        paths["trainer.init_from"] = init_from
    for key, path in paths.items():
        if path is not None:
            max_pixels = settings.data.max_pixels or model.max_pixels
            question = question_of(model.prompt, model.sub_scores)
            backbone = backbones.check_model(path, question=question, max_pixels=max_pixels, key=key)
            if model.lora.rank > 0:
                backbones.add_adapter(backbone, model.lora)


def _check_photographs(settings: Settings) -> None:
    """Check that there are photographs for a pretraining on photographs."""
    if settings.data.name in scene_sets.SCENE_SETS:
        raise InputError(
            f"model.pretrain.data=photographs: data={settings.data.name} holds made scenes; give a set of photographs, "
            "as data=folder data.root=DIR, or model.pretrain.data=scenes"
        )


def _wait_for_server(settings: Settings) -> None:
    """Wait until one of the servers that RAPO will ask answers; InputError after rollout.patience seconds.

    A server that is started together with the run takes minutes to load its model. Without this check, a server that
    was never started would be noticed only after the cold start.
    """
    rollout, pause = settings.rollout, 1.0
    if rollout.name == "local" or not _rapo_to_come(settings):
        return
    started, addresses, has_warned = time.monotonic(), ", ".join(rollout.url), False
    while not any(is_healthy(url.rstrip("/")) for url in rollout.url):
        if time.monotonic() + pause > started + rollout.patience:
            raise InputError(
                f"rollout.url={addresses}: no server answers within rollout.patience={rollout.patience:g} seconds; "
                "start one: aes-r1 serve --model DIR"
            )
        if not has_warned:
            log.warning(
                "rollout.url=%s: no server answers yet; the run waits for one up to rollout.patience=%g seconds",
                *(addresses, rollout.patience),
            )
            has_warned = True
        time.sleep(pause)


def _check_score_rewards(settings: Settings, train: TrainingSamples) -> None:
    """Check that the function of reward.custom loads, that the judge has its key, and that raters' opinions are known.

    Each is checked only if a reward needs it.
    """
    data, reward = settings.data, settings.reward
    if reward.custom is not None:
        load_reward(reward.custom)
    if reward.judge.weight > 0:
        key_of(reward.judge)
        affordable_price(reward.judge)
    needs_spread = settings.trainer.curriculum and data.name not in scene_sets.SCENE_SETS
    if needs_spread and all(sample.mos_std is None for sample in train()):
        raise InputError(
            f"trainer.curriculum=true: data={data.name} has no standard deviations of opinions; give mos_std in your "
            "labels (docs/datasets.md), or false"
        )
    if reward.distribution.weight == 0 or data.name in scene_sets.SCENE_SETS:
        return
    if not any(rater_shares(sample.attributes.get("votes"), sample.mos, sample.mos_std) for sample in train()):
        raise InputError(
            f"reward.distribution.weight={reward.distribution.weight:g}: data={data.name} knows only the means of "
            "its raters; give mos_std or count_1, count_2, .. in your labels (docs/datasets.md), or 0"
        )


def _check_sub_scores(settings: Settings, train: TrainingSamples) -> None:
    """Check that people have rated each dimension of model.sub_scores in some training picture."""
    names, data = settings.model.sub_scores, settings.data
    if not names or data.name in scene_sets.SCENE_SETS:
        return
    rated = set().union(*map(known_ratings, train()))
    for name in names:
        if name not in rated:
            raise InputError(
                f"model.sub_scores={name}: data={data.name} has no ratings of it; {ratings_hint(data.name)}, or leave "
                "it out"
            )


def check_counts(job: Job) -> None:
    """Raise InputError unless there are enough pictures for a step of RAPO."""
    trainer, pair = job.settings.trainer, job.settings.reward.pair
    if trainer.name == "rapo" and pair.weight > 0 and trainer.images_per_step > len(job.pairs):
        raise InputError(
            f"reward.pair.margin={pair.margin:g}: {len(job.pairs)} pairs of {len(job.train)} training pictures have "
            f"opinions so far apart, and trainer.images_per_step={trainer.images_per_step}; give a smaller margin, or "
            "fewer a step"
        )
    require_a_step(len(job.train), trainer)
