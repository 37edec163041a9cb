"""Run the RAPO stage: starting model, training data, logging, validation, and the models that are kept."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from aes_r1.aescot.failures import ServerGone
from aes_r1.aescot.reward_judge import RewardJudge
from aes_r1.data.sample import Sample
from aes_r1.data.splits import stratified_draw
from aes_r1.evaluation.metrics import correlations
from aes_r1.model import backbone as backbones
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline.critique_validation import critique_metrics
from aes_r1.pipeline.evaluation_stage import predictions
from aes_r1.pipeline.job import Job
from aes_r1.pipeline.rapo_log import RapoLog
from aes_r1.pipeline.readable_start import require_readable_answers
from aes_r1.prompts import PAIR_PROMPT
from aes_r1.rollout.failures import ServersGone
from aes_r1.runs.files import copy_folder, replacing_folder, write_text_atomically
from aes_r1.runs.identity import run_fingerprint
from aes_r1.runs.progress import progress_bars
from aes_r1.settings import PAPER_PIXELS, reward_file
from aes_r1.trainer import checkpoint
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.engine import Engine, build_engine
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.rapo import train_rapo
from aes_r1.trainer.reference import build_reference
from aes_r1.trainer.step_images import rapo_steps

log = logging.getLogger("aes_r1")


def starting_point(job: Job, models: dict[str, str]) -> str:
    """Return the model from which RAPO starts, which is also its reference (trainer.init_from)."""
    init_from = job.settings.trainer.init_from
    if init_from == "cold_start":
        return models.get("cold_start", models["base"])
    return models["base"] if init_from == "base" else init_from


def rapo(job: Job, initial: str) -> str:
    """Train `initial` with RAPO and return the run's final model (paper, stage 2)."""
    if job.run.stage_done("rapo"):
        _free_room(job)  # a kill may have prevented this earlier
        return str(job.run.model)
    _keep_custom_reward(job)
    with contextlib.ExitStack() as resources:
        policy = _policy(job, job.load(initial), resources)
        engine = _engine(job, policy.backbone)
        resources.callback(engine.close)
        judge = _judge(job, resources)
        with _last_save_in_error(job):
            return _train(job, initial, policy, engine, judge)


def _keep_custom_reward(job: Job) -> None:
    """Copy the file of reward.custom into the run at its first start."""
    custom = job.settings.reward.custom
    if custom is not None and job.rank == 0:
        write_text_atomically(job.run.custom_reward_file, reward_file(custom).read_text(encoding="utf-8"))


def _policy(job: Job, backbone: Backbone, resources: contextlib.ExitStack) -> Policy:
    """Return the policy of `backbone`, with an adapter or, if needed, with a frozen copy as reference."""
    settings, lora = job.settings, job.settings.model.lora
    reference = None
    if lora.rank > 0:
        quantized = settings.model.quantize == "nf4"
        backbone = backbones.add_adapter(backbone, lora, seed=settings.seed, quantized=quantized)
    else:
        if settings.trainer.needs_reference or settings.reward.needs_reference:
            copied = copy.deepcopy(backbone)
            reference = build_reference(
                settings.model.reference, copied, device=job.device, rank=job.rank, size=job.size
            )
            resources.callback(reference.close)
        backbones.freeze(backbone.model, vision=settings.model.freeze_vision)
    return Policy(
        backbone,
        reference,
        PAIR_PROMPT if settings.reward.pair.weight > 0 else job.question,
        answer_from=settings.model.answer_from,
        shared_prefix=settings.model.shared_prefix,
        served=job.served,
    )


def _engine(job: Job, backbone: Backbone) -> Engine:
    trainer = job.settings.trainer
    return build_engine(
        job.settings.engine,
        backbone.model,
        weight_decay=trainer.weight_decay,
        max_grad_norm=trainer.max_grad_norm,
        betas=(trainer.betas[0], trainer.betas[1]),
        eps=trainer.eps,
        device=job.device,
    )


def _judge(job: Job, resources: contextlib.ExitStack) -> RewardJudge | None:
    """Return the judge of reward.judge, which only rank 0 asks; None without one."""
    settings = job.settings
    if settings.reward.judge.weight == 0 or job.rank != 0:
        return None
    max_pixels = settings.data.max_pixels or PAPER_PIXELS
    judge = RewardJudge(settings.reward.judge, job.run.judge_rewards_file, max_pixels=max_pixels, question=job.question)
    return resources.enter_context(judge)


@contextlib.contextmanager
def _last_save_in_error(job: Job) -> Iterator[None]:
    """Add to the error about unreachable servers the step from which the same command will resume.

    The new error has one of the two base classes, because a subclass may need other arguments than a message.
    """
    try:
        yield
    except (ServersGone, ServerGone) as error:
        saved = max(checkpoint.steps(job.run.checkpoints), default=0)
        kind = ServersGone if isinstance(error, ServersGone) else ServerGone
        raise kind(f"{error}; the same command goes on after step {saved} of RAPO, the last saved") from error


def _train(job: Job, initial: str, policy: Policy, engine: Engine, judge: RewardJudge | None) -> str:
    """Train, log and validate; leave the trained weights as the run's final model."""
    settings, trainer, final, backbone = job.settings, job.settings.trainer, job.run.model, policy.backbone
    images = job.pairs or job.train
    total = rapo_steps(len(images), trainer)
    with progress_bars(shown=job.rank == 0) as bar:
        steps = RapoLog(job, total, bar("RAPO"))

        def on_resume(step: int) -> None:
            steps.resume(step)
            if step == 0:
                backbone.model.eval()
                with engine.gathered_parameters():
                    sample = job.sampler(backbone)
                    require_readable_answers(job, backbone, sample)
                    steps.start(critique_metrics(job, backbone, _validated(job), sample))

        train_rapo(
            policy,
            engine,
            images,
            trainer=trainer,
            reward=settings.reward,
            context=TrainingContext(
                folder=job.run.checkpoints,
                identity=run_fingerprint(settings),
                seed=settings.seed,
                stop=job.processes.stop,
                log=steps.step,
                evaluate=lambda _: _validate(job, backbone),
                log_completions=steps.completions,
                on_resume=on_resume,
                extra_state=job.tracker.extra_state(),
                judge=judge,
                trace_file=job.run.trace(trainer.profile) if trainer.profile and job.rank == 0 else None,
            ),
        )
    with engine.gathered_parameters():
        if job.rank == 0:
            backbones.merge_adapter(backbone).save(final)
    if job.rank == 0:
        job.tracker.checkpoint("rapo", total, final)
        outcome = {"model": str(final), "steps": total, "init_from": initial, **job.tracker.extra_state()}
        job.run.finish_stage("rapo", outcome)
        _free_room(job)
    job.processes.wait()
    return str(final)


def _free_room(job: Job) -> None:
    """Delete what a finished run's checkpoints need only for resuming, unless trainer.keep_optimizer."""
    if job.rank == 0 and not job.settings.trainer.keep_optimizer:
        checkpoint.keep_only_models(job.run.checkpoints, final=job.run.stage_values("rapo")["steps"])


def _validate(job: Job, backbone: Backbone) -> dict[str, float]:
    """Return eval/*, which are SRCC, PLCC, MAE and parse_failure_rate of each validation set, and critique/*.

    Each picture gets one completion at the evaluation temperature. Collective; the weights must be whole.
    """
    sample = job.sampler(backbone)
    rows = predictions(job, backbone, _validated(job), ["sample"], sample)
    values = critique_metrics(job, backbone, _validated(job), sample)
    for dataset in sorted({row["dataset"] for row in rows}):
        of_dataset = [row for row in rows if row["dataset"] == dataset]
        cell = correlations(
            [math.nan if row["score"] is None else row["score"] for row in of_dataset],
            [row["mos"] for row in of_dataset],
            n_bootstrap=0,
        )
        metrics = {"parse_failure_rate": cell["parse_failure_rate"]}
        for name in ("srcc", "plcc", "mae"):
            metrics[name] = cell[name]["value"]
        values |= {f"eval/{dataset}/{name}": math.nan if value is None else value for name, value in metrics.items()}
    return values


def _validated(job: Job) -> Sequence[Sample]:
    return stratified_draw(job.validation, job.settings.trainer.eval_pictures, job.settings.seed)


def keep_final(job: Job, models: dict[str, str]) -> None:
    """Keep the cold start (or the base model) as the final model of a run without RAPO."""
    final = job.run.model
    if not final.exists():
        source = models.get("cold_start", models["base"])
        if Path(source).is_dir():
            with replacing_folder(final) as draft:
                copy_folder(Path(source), draft)
