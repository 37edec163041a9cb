"""Run the cold start: obtain critiques, then fine-tune on them; runs share the result through the store."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from aes_r1.data.records import read_records
from aes_r1.data.sample import Sample
from aes_r1.data.scene_sets import SCENE_SETS
from aes_r1.data.splits import stratified_draw
from aes_r1.inference.token_entropy import measure_entropy
from aes_r1.model import backbone as backbones
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline.cold_start_records import comparisons_of, critiques_of, records_of
from aes_r1.pipeline.job import Job
from aes_r1.pipeline.origin import content_name
from aes_r1.pipeline.picture_contents import contents_of
from aes_r1.runs.files import append_rows, iter_rows, sha256_of, write_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import fingerprint
from aes_r1.runs.kinds import ENTROPY, typed
from aes_r1.runs.progress import progress_bars
from aes_r1.settings import ColdStartSettings, InputError, LoraSettings, Settings, as_dict
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.engine import Engine, build_engine
from aes_r1.trainer.sft import sft_epochs, sft_steps, train_sft
from aes_r1.trainer.skipped import warn
from aes_r1.trainer.taught import require_teachable, taught_records

# Settings that do not change the result: where the critiques come from (their content is hashed), speed and safety.
# The epochs that are hashed are those that min_steps led to.
_NOT_IDENTITY = ("data", "expert", "pictures", "micro_batch_size", "save_every", "min_steps")
# Steps of the tiny model on photographs. Measured on 35 photographs: 40% of the answers could not be read after 2
# steps, 10% after 44, and none after 83.
TINY_STEPS = 80
log = logging.getLogger("aes_r1")


def cold_start(job: Job, base: str) -> str:
    """Return the folder, in the store, of `base` after supervised fine-tuning on critiques (paper, stage 1).

    A finished cold start is found where the run recorded it, and its inputs are not read again. If the store has lost
    it, it is made again when a later stage needs it. The run's log is then left unchanged: it already holds the rows of
    the cold start's steps, and perhaps rows of RAPO after them.
    """
    model = job.model_made("cold_start")
    if model is not None:
        return model
    records_path = critiques_of(job)
    records = records_of(job, records_path)
    # Rank 0 names it for all, because the cache of another machine need not hold a hub model yet.
    base_name = job.processes.from_rank_zero(lambda: content_name(base, job.store)) or base
    pairs = comparisons_of(job, records)
    count = len(records) + len(pairs)
    recipe = recipe_for(job.settings, count)
    total = sft_steps(count, recipe)
    digest = _digest(job, base_name, records_path, records, recipe)
    final = RunFolder(job.store / "cold_starts" / digest)
    recorded = job.run.stage_values("cold_start")
    if recorded:
        _require_same(Path(recorded["model"]).parent, final.path)
    make = partial(_make, job, base, records_path, records, pairs, recipe)
    made_here = job.processes.build_collectively(job.store, "cold_starts", digest, make)
    if job.rank == 0:
        shutil.rmtree(final.checkpoints, ignore_errors=True)
        if not recorded and not made_here:
            _log_again(job, final)
        if not recorded and final.entropy_file.exists():
            shutil.copy(final.entropy_file, job.run.entropy_file)
        counts = {"model": str(final.model), "records": count, "epochs": recipe.epochs, "steps": total}
        job.run.finish_stage("cold_start", {**counts, "min_steps": least_steps(job.settings)})
    return str(final.model)


def _require_same(lost: Path, again: Path) -> None:
    """Raise InputError unless the cold start `again` is the one that the run used and the store has lost, `lost`."""
    if lost.name != again.name:
        raise InputError(
            f"{lost}: the cold start that this run began from is gone and cannot be made again, because its critiques, "
            "their pictures or its base model have changed or an older version named it; restore the folder, or give "
            "trainer.resume=never"
        )


def recipe_for(settings: Settings, count: int) -> ColdStartSettings:
    """Return the cold start's settings with the number of epochs that min_steps requires for `count` records."""
    return dataclasses.replace(
        settings.cold_start, epochs=sft_epochs(count, settings.cold_start, least_steps(settings))
    )


def least_steps(settings: Settings) -> int:
    """Return cold_start.min_steps, or its default for this model and data if it is null."""
    if settings.cold_start.min_steps is not None:
        return settings.cold_start.min_steps
    tiny_on_photographs = settings.model.path is None and settings.data.name not in SCENE_SETS
    return TINY_STEPS if tiny_on_photographs else 0


def _announced(settings: Settings, critiques: int, pairs: int, recipe: ColdStartSettings) -> str:
    """Return the line that says how many steps the cold start takes, and why if cold_start.epochs would take fewer."""
    count, and_comparisons = critiques + pairs, f" and {pairs} comparisons" if pairs else ""
    cold_start = settings.cold_start
    line = f"{critiques} critiques{and_comparisons}, {sft_steps(count, recipe)} steps"
    if recipe.epochs == cold_start.epochs:
        is_short = settings.model.path is None and recipe.epochs > 0 and sft_steps(count, recipe) < TINY_STEPS
        return f"{line}; {TINY_STEPS} teach the tiny model the format (cold_start.min_steps)" if is_short else line
    too_few = f"cold_start.epochs={cold_start.epochs} is {sft_steps(count, cold_start)} of them"
    return f"{line} in {recipe.epochs} passes, because {too_few} and cold_start.min_steps is {least_steps(settings)}"


def _digest(job: Job, base_name: str, records_path: Path, records: list[dict], cold_start: ColdStartSettings) -> str:
    """Return the identity of the cold start: a hash of everything that decides its weights.

    The file of the records is hashed, and the names of their pictures if only a part of the file is used. The content
    of pictures is hashed too, unless their names already identify it.
    """
    settings, lora = job.settings, adapter_of(cold_start, job.settings)
    recipe = {key: value for key, value in as_dict(cold_start).items() if key not in _NOT_IDENTITY}
    if cold_start.blank_pictures == 0:
        del recipe["blank_pictures"]  # so that the store's cold starts from before this key keep their names
    if cold_start.pairs == 0:
        del recipe["pairs"]
    else:
        recipe["pair_margin"] = settings.reward.pair.margin
    of_probe, pictures = [], [row["image"] for row in records]
    if cold_start.probe_every is not None:  # the entropy probe's pictures; its result is kept with the cold start
        pictures += [sample.image for sample in _probed(job)]
        of_probe = [sha256_of(job.manifest(settings.data, "validation")), settings.trainer.max_new_tokens]
    is_given = settings.cold_start.data is not None
    is_part = settings.data.name == "aescot" or (is_given and len(records) < len(read_records(records_path)))
    return fingerprint(
        base_name,
        sha256_of(records_path),
        *([row["image"] for row in records] if is_part else ()),
        recipe,
        settings.seed,
        job.max_pixels,
        settings.model.prompt,
        settings.model.dtype,
        *([[settings.model.sub_scores, [row["sub_scores"] for row in records]]] if settings.model.sub_scores else ()),
        *([_adapter_identity(lora)] if lora.rank > 0 else ()),
        *([settings.model.quantize] if settings.model.quantize != "none" else ()),
        *of_probe,
        *contents_of(job, pictures),
    )


def adapter_of(cold_start: ColdStartSettings, settings: Settings) -> LoraSettings:
    """Return the adapter that the cold start trains: only in the language model if the vision tower is frozen."""
    lora = settings.model.lora
    return dataclasses.replace(lora, target="language") if cold_start.freeze_vision else lora


def _adapter_identity(lora: LoraSettings) -> dict:
    """Return what decides an adapter's weights; target=language is left out, so that names without that key hold."""
    return {key: value for key, value in as_dict(lora).items() if (key, value) != ("target", "language")}


def _make(
    job: Job,
    base: str,
    records_path: Path,
    records: list[dict],
    pairs: list[dict],
    cold_start: ColdStartSettings,
    target: Path,
) -> None:
    """Train `base` on `records`, of the file `records_path`, and on the comparisons `pairs`; save it in `target`.

    Collective.
    """
    settings, lora = job.settings, adapter_of(cold_start, job.settings)
    if job.rank == 0:
        log.info("cold start: %s", _announced(settings, len(records), len(pairs), cold_start))
    backbone = job.load(base)
    require_teachable(records, backbone, records_path)
    if lora.rank > 0:
        backbone = backbones.add_adapter(backbone, lora, seed=settings.seed, quantized=settings.model.quantize == "nf4")
    else:
        backbones.freeze(backbone.model, vision=cold_start.freeze_vision)
    engine = build_engine(
        settings.engine,
        backbone.model,
        weight_decay=cold_start.weight_decay,
        max_grad_norm=cold_start.max_grad_norm,
        device=job.device,
    )
    with contextlib.closing(engine):
        taught = [*taught_records(records, settings.model.prompt, backbone), *pairs]
        _train(job, backbone, engine, taught, cold_start, RunFolder(target))


def _train(
    job: Job, backbone: Backbone, engine: Engine, records: list[dict], cold_start: ColdStartSettings, result: RunFolder
) -> None:
    """Take all steps, log and measure them, and save the model in `result`."""
    settings = job.settings
    total = sft_steps(len(records), cold_start)
    recorded = job.run.stage_done("cold_start")  # the run's record holds these steps, and may hold RAPO's

    def on_resume(step: int) -> None:
        if step and job.rank == 0:
            log.info("cold start: resumed after step %d", step)
        for file in (result.metrics_file, result.entropy_file):
            if job.rank == 0:
                _cut_rows(file, step or -1)  # -1 keeps nothing: step 0 is measured before the first step
        if not recorded:
            _log_again(job, result)  # the rows may come from another run

    with progress_bars(shown=job.rank == 0) as bar:
        update = bar("cold start")

        def record(step: int, values: dict[str, float]) -> None:
            update(step, total, f"loss {values['sft/loss']:.3f}")
            if job.rank == 0:
                append_rows(result.metrics_file, [{"step": step, **values}])
                warn(step, values["sft/skipped_steps"])
            if recorded:
                return
            if values["sft/skipped_steps"]:
                job.tracker.alert("not finite", f"Step {step} of the cold start: its optimizer step was skipped.")
            job.tracker.log("sft", step, values)

        train_sft(
            backbone,
            engine,
            records,
            question=job.question,
            cold_start=cold_start,
            context=TrainingContext(
                folder=result.checkpoints,
                identity=result.path.name,
                seed=settings.seed,
                stop=job.processes.stop,
                log=record,
                evaluate=lambda step: _probe(job, backbone, step, result.entropy_file),
                on_resume=on_resume,
            ),
        )
    with engine.gathered_parameters():
        if job.rank == 0:
            backbones.merge_adapter(backbone).save(result.model)


def _log_again(job: Job, result: RunFolder) -> None:
    """Replace the cold start's rows in the run's log with the rows of the steps so far."""
    job.tracker.resume("sft", 0)
    for row in result.metrics() if job.rank == 0 else []:
        step = row.pop("step")
        values = {name: math.nan if value is None else value for name, value in row.items()}
        job.tracker.log("sft", step, values)


def _cut_rows(path: Path, step: int) -> None:
    """Delete the rows of the file `path` that come after `step`, the step after which training resumes."""
    if path.exists():
        write_rows(path, [row for row in typed(iter_rows(path), ENTROPY) if row["step"] <= step])


def _probe(job: Job, backbone: Backbone, step: int, path: Path) -> dict[str, float]:
    """Measure the token entropy of validation answers after `step`, append it to `path`, and return its metrics."""
    if job.rank != 0:
        return {}
    length, seed = job.settings.trainer.max_new_tokens, job.settings.seed
    backbone.model.eval()
    measured = measure_entropy(backbone, _probed(job), question=job.question, max_new_tokens=length, seed=seed)
    append_rows(path, [{"step": step, **measured}])
    return {"sft/entropy": measured["entropy"], "sft/answered": measured["answered"]}


def _probed(job: Job) -> Sequence[Sample]:
    """Return the validation pictures whose answers the cold start's entropy is measured on."""
    return stratified_draw(job.validation, job.settings.cold_start.probe_pictures, job.settings.seed)
