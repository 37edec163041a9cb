"""The whole job as a chain of stages: data -> base model -> cold start -> RAPO -> evaluation -> report.

Each stage leaves RUN/stages/NAME.json when it is done and is not repeated. What does not depend on the run (made
pictures, the pretrained tiny model, cold starts) lives in the store, so that every run and sweep point shares it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aes_r1.aescot.build import build_aescot, expert_corpus
from aes_r1.aescot.start import deciding
from aes_r1.data.loader import check_pictures, load_samples
from aes_r1.data.manifest import list_hashes, read_manifest, write_manifest
from aes_r1.data.records import read_records, unique_samples
from aes_r1.data.sample import Sample
from aes_r1.evaluation import health
from aes_r1.evaluation.entropy import measure_entropy
from aes_r1.evaluation.evaluate import predict
from aes_r1.evaluation.metrics import correlations
from aes_r1.evaluation.predictions import Rows
from aes_r1.evaluation.report import write_report
from aes_r1.evaluation.stages import asking, exchange_critiques, measure, record_stage
from aes_r1.evaluation.terminal import print_headline
from aes_r1.model import backbone as backbones
from aes_r1.model.backbone import Backbone
from aes_r1.prompts import RATING_PROMPT, SCORE_ONLY_PROMPT
from aes_r1.settings import DataSettings, InputError, Settings, as_dict, claim_run_folder, fingerprint
from aes_r1.store import made_once
from aes_r1.tracking import Tracker
from aes_r1.trainer import checkpoint, pretrain
from aes_r1.trainer.engine import build_engine, start, world
from aes_r1.trainer.rapo import rapo_steps, train_rapo
from aes_r1.trainer.run_folder import (
    cut_rows,
    failure_file,
    finish_stage,
    log_to,
    progress_bars,
    read_rows,
    sha256_of,
    stage_done,
    start_over,
    watch_over,
)
from aes_r1.trainer.sft import sft_steps, train_sft
from aes_r1.trainer.stopping import Stopped, StopRequest, stop_requests
from aes_r1.trainer.watch import Watch

log = logging.getLogger("aes_r1")


def run(settings: Settings) -> None:
    """Run every stage that is missing in `settings.out`; raises InputError, Stopped or whatever a stage raises."""
    folder = Path(settings.out)
    rank, size = world()
    if rank == 0:
        if settings.trainer.resume == "never" and folder.exists():
            start_over(folder)
        claim_run_folder(folder, settings)
    log_to(folder, rank)
    torch.manual_seed(settings.seed)
    device = start(settings.engine)
    watch = watch_over(folder, rank, size) if size > 1 else None
    job = Job(settings, folder, device, rank, size, watch)
    with stop_requests() as stop, failure_file(folder, rank, watch):
        notes = checkpoint.progress_of(folder / "checkpoints")
        tracker = Tracker(
            folder if rank == 0 else None,
            settings.tracker,
            as_dict(settings),
            run_name=settings.run_name,
            run_id=notes.get("wandb_run_id"),
        )
        job.tracker, job.stop = tracker, stop
        with tracker:
            job.run()


def _first(samples: Sequence[Sample], limit: int | None) -> Sequence[Sample]:
    return samples[:limit]


class Job:
    """One run on its way through the stages."""

    tracker: Tracker
    stop: StopRequest
    signs: health.Watch

    def __init__(
        self, settings: Settings, folder: Path, device: torch.device, rank: int, size: int, watch: Watch | None
    ) -> None:
        self.settings, self.folder, self.device, self.rank, self.size = settings, folder, device, rank, size
        self.watch = watch
        self.store = Path(settings.store)
        self.question = RATING_PROMPT if settings.model.prompt == "critique" else SCORE_ONLY_PROMPT
        self.max_pixels = settings.data.max_pixels or settings.model.max_pixels
        self.train: Sequence[Sample] = []
        self.validation: Sequence[Sample] = []
        self.tests: list[Sequence[Sample]] = []

    def run(self) -> None:
        settings = self.settings
        self.load_data()
        models = {"base": self.base_model()}
        if settings.cold_start.epochs > 0 and settings.trainer.init_from != "base":
            models["cold_start"] = self.cold_start(models["base"])
        if settings.trainer.name == "rapo":
            models["rapo"] = self.rapo(self.starting_point(models))
        elif self.rank == 0:
            self.keep_final(models)
        self.evaluate(models)
        self.report()
        self._wait()  # rank 0 is the last to leave, or the others' store would leave with it

    # -- data: labels and pictures, checked once -----------------------------------------------------------------------
    def load_data(self) -> None:
        data = self.settings.data
        wanted = [(data, "train"), (data, "validation")]
        wanted += [(test, test.split) for test in self._test_sets()]
        lists: list[Sequence[Sample]] = []
        for test, split in wanted:
            path = self._manifest(test, split)
            if self.rank == 0 and not path.exists():
                samples = load_samples(test, split, seed=self.settings.seed, store=self.store)
                kept, dropped = check_pictures(samples, workers=test.workers, strict=test.strict)
                for row in dropped:
                    log.warning("left out %s: %s", row["path"], row["reason"])
                if not kept:
                    raise InputError(f"data={test.name}: no picture of the {split} split can be read")
                write_manifest(kept, path)
                self.tracker.manifest(test.name, split, path, sha256_of(path))
            self._wait()
            lists.append(read_manifest(path))
        self.train, self.validation, *self.tests = lists
        if self.rank == 0 and not stage_done(self.folder, "data"):
            counts = {f"{s.name}/{split}": len(samples) for (s, split), samples in zip(wanted, lists, strict=True)}
            log.info("data: %s", ", ".join(f"{name} {count}" for name, count in counts.items()))
            finish_stage(self.folder, "data", counts)

    def _manifest(self, data: DataSettings, split: str) -> Path:
        """RUN/manifests/NAME-SPLIT.jsonl; a number tells further sets of the same name apart."""
        named = [one for one in [self.settings.data, *self.settings.evaluation.also] if one.name == data.name]
        number = named.index(data)
        return self.folder / "manifests" / f"{data.name}{f'_{number + 1}' if number else ''}-{split}.jsonl"

    def _test_sets(self) -> list[DataSettings]:
        return [self.settings.data, *self.settings.evaluation.also]

    # -- base model: given, or the tiny one, built and pretrained on plain facts ---------------------------------------
    def base_model(self) -> str:
        model = self.settings.model
        if model.path is not None:
            return model.path
        digest = fingerprint(as_dict(model.pretrain), self.max_pixels, pretrain.source_digest())
        path = self.store / "models" / digest
        if self.rank == 0 and not path.exists():
            log.info("base model: pretraining the tiny Qwen2.5-VL on facts about %d scenes", model.pretrain.pictures)

            def make(target: Path) -> None:
                with progress_bars() as bar:
                    update = bar("pretraining")

                    def report(done: int, total: int, text: str) -> None:
                        update(done, total, text)
                        self._leave_if_alone_and_asked()

                    pretrain.pretrain_tiny(
                        target,
                        corpus=expert_corpus(),
                        pretrain=model.pretrain,
                        max_pixels=self.max_pixels,
                        report=report,
                    )

            made_once(self.store, "models", digest, make)
        self._wait()
        if self.rank == 0:
            finish_stage(self.folder, "base", {"model": str(path)})
        return str(path)

    # -- cold start: critiques, then supervised fine-tuning ------------------------------------------------------------
    def cold_start(self, base: str) -> str:
        settings, cold_start = self.settings, self.settings.cold_start
        records_path = self._critiques()
        records = read_records(records_path)
        if cold_start.data is not None:
            records = self._readable(records)
        elif settings.data.name == "aescot":  # its training split, whose pictures were checked
            training = {one.image for one in self.train}
            records = [row for row in records if row["image"] in training]
        if not records:
            raise InputError(
                f"cold_start.data={records_path}: no record whose picture can be read; give an AesCoT file with one"
            )
        digest = fingerprint(
            base,
            sha256_of(records_path),
            *([row["image"] for row in records] if settings.data.name == "aescot" else ()),
            as_dict(cold_start),
            settings.seed,
            self.max_pixels,
            settings.model.prompt,
            settings.model.dtype,
        )
        final = self.store / "cold_starts" / digest
        total = sft_steps(len(records), cold_start)

        def make(target: Path) -> None:
            log.info("cold start: %d critiques, %d steps", len(records), total)
            backbone = self._load(base)
            backbones.freeze(backbone.model, vision=cold_start.freeze_vision)
            engine = build_engine(
                settings.engine,
                backbone.model,
                weight_decay=cold_start.weight_decay,
                max_grad_norm=cold_start.max_grad_norm,
                device=self.device,
            )
            rows = target / "metrics.jsonl"

            def going_on(step: int) -> None:
                for file in (rows, target / "entropy.jsonl"):
                    if self.rank == 0:
                        cut_rows(file, step or -1)  # step 0 is measured, too, before the first

            with progress_bars() as bar:
                update = bar("cold start")

                def record(step: int, values: dict[str, float]) -> None:
                    update(step, total, f"loss {values['sft/loss']:.3f}")
                    if self.rank == 0:
                        with rows.open("a") as file:
                            file.write(json.dumps({"step": step, **values}) + "\n")

                train_sft(
                    backbone,
                    engine,
                    records,
                    question=self.question,
                    cold_start=cold_start,
                    with_critique=settings.model.prompt == "critique",
                    seed=settings.seed,
                    folder=target / "checkpoints",
                    log=record,
                    stop=self.stop,
                    evaluate=lambda step: self._probe(backbone, step, target / "entropy.jsonl"),
                    going_on=going_on,
                )
            with engine.gathered():
                if self.rank == 0:
                    backbone.save(target / "model")

        self._make_together("cold_starts", digest, make)
        if self.rank == 0:
            shutil.rmtree(final / "checkpoints", ignore_errors=True)
        if self.rank == 0 and not stage_done(self.folder, "cold_start"):
            self.tracker.resume("sft", 0)
            for line in (final / "metrics.jsonl").read_text().splitlines():
                values = json.loads(line)
                self.tracker.log("sft", values.pop("step"), values)
            if (final / "entropy.jsonl").exists():
                shutil.copy(final / "entropy.jsonl", self.folder / "entropy.jsonl")
            finish_stage(
                self.folder, "cold_start", {"model": str(final / "model"), "records": len(records), "steps": total}
            )
        return str(final / "model")

    def _probe(self, backbone: Backbone, step: int, path: Path) -> None:
        """Append the token entropy of validation answers after `step` of the cold start to `path`."""
        if self.rank == 0:
            pictures = self.validation[: self.settings.cold_start.probe_pictures]
            length, seed = self.settings.trainer.max_new_tokens, self.settings.seed
            backbone.model.eval()
            found = measure_entropy(backbone, pictures, question=self.question, max_new_tokens=length, seed=seed)
            with path.open("a") as file:
                file.write(json.dumps({"step": step, **found}) + "\n")

    def _readable(self, records: list[dict]) -> list[dict]:
        """The records whose pictures can be opened; the others are named and left out, or end a strict run."""
        data = self.settings.data
        _, dropped = check_pictures(unique_samples(records), workers=data.workers, strict=data.strict)
        for row in dropped if self.rank == 0 else []:
            log.warning("left out %s: %s", row["path"], row["reason"])
        gone = {row["path"] for row in dropped}
        return [row for row in records if row["image"] not in gone]

    def _critiques(self) -> Path:
        """The AesCoT file of the cold start: given, or written by the expert about training pictures."""
        settings = self.settings
        if settings.cold_start.data is not None:
            path = Path(settings.cold_start.data)
            if not path.is_file():
                raise InputError(f"cold_start.data={path}: no such file; give an AesCoT jsonl or null")
            return path
        if settings.data.name == "aescot":
            return Path(str(settings.data.root)).expanduser().resolve()
        samples = self.train[: settings.cold_start.pictures]
        expert = dataclasses.replace(settings.expert, name=settings.cold_start.expert or settings.expert.name)
        manifest = sha256_of(self._manifest(settings.data, "train"))
        judge = settings.judge
        if judge.name == "scenes" and not all("factors" in one.attributes for one in samples):
            log.info(
                "judge=scenes knows made scenes alone: critiques of %s pass the other filters only", samples[0].dataset
            )
            judge = dataclasses.replace(judge, name="none")
        seen = [self.max_pixels] if "openai" in (expert.name, judge.name) else []
        digest = fingerprint(manifest, len(samples), deciding(expert), deciding(judge), settings.seed, *seen)

        def make(target: Path) -> None:
            log.info("AesCoT: %s writes critiques of %d pictures", expert.name, len(samples))
            build_aescot(
                samples, expert=expert, judge=judge, seed=settings.seed, out=target, max_pixels=self.max_pixels
            )
            stopped = json.loads((target / "distill_report.json").read_text())["stopped"]
            if stopped is not None:
                raise InputError(f"critiques of the cold start: {stopped}; a higher ceiling goes on from there")

        if self.rank == 0:
            made_once(self.store, "aescot", digest, make)
        self._wait()
        return self.store / "aescot" / digest / "aescot.jsonl"

    # -- RAPO ----------------------------------------------------------------------------------------------------------
    def starting_point(self, models: dict[str, str]) -> str:
        wanted = self.settings.trainer.init_from
        if wanted == "cold_start":
            return models.get("cold_start", models["base"])
        return models["base"] if wanted == "base" else wanted

    def rapo(self, initial: str) -> str:
        settings, trainer = self.settings, self.settings.trainer
        final = self.folder / "model"
        if stage_done(self.folder, "rapo"):
            return str(final)
        if trainer.images_per_step % self.size:
            raise InputError(
                f"trainer.images_per_step={trainer.images_per_step}: must be divisible by the {self.size} processes"
            )
        backbone = self._load(initial)
        lora = settings.model.lora
        reference = None
        if lora.rank > 0:
            backbone = backbones.add_adapter(backbone, lora, seed=settings.seed)
        else:
            if trainer.kl_coef > 0:
                reference = copy.deepcopy(backbone)
                reference.model.requires_grad_(False).eval().to(self.device)
            backbones.freeze(backbone.model, vision=settings.model.freeze_vision)
        engine = build_engine(
            settings.engine,
            backbone.model,
            weight_decay=trainer.weight_decay,
            max_grad_norm=trainer.max_grad_norm,
            device=self.device,
        )
        total = rapo_steps(len(self.train), trainer)

        def going_on(step: int) -> None:
            self.tracker.resume("rapo", step)
            metrics, completions = (
                [row for row in read_rows(self.folder / f"{name}.jsonl") if row["stage"] == "rapo"]
                for name in ("metrics", "completions")
            )
            self.signs = health.Watch(self.tracker.alert, list(metrics), list(completions))
            log.info(
                "RAPO: %d steps of %d images x %d outputs%s",
                total,
                trainer.images_per_step,
                trainer.num_samples,
                f", going on after step {step}" if step else "",
            )

        pictures = {one.id: one.image for one in self.train}

        def log_completions(step: int, rows: list[dict]) -> None:
            self.signs.log_completions(step, rows)
            self.tracker.completions("rapo", step, rows, pictures)

        with progress_bars() as bar:
            update = bar("RAPO")

            def record(step: int, values: dict[str, float]) -> None:
                shown = (
                    f"reward {values['reward/total']:.3f}  KL {values.get('policy/kl_k3', 0):.4f}  "
                    f"entropy {values['policy/entropy']:.2f}"
                )
                update(step, total, shown)
                validation = {name: value for name, value in values.items() if name.startswith("eval/")}
                if validation and self.rank == 0:
                    log.info("step %d: %s  %s", step, shown, "  ".join(f"{n} {v:.3f}" for n, v in validation.items()))
                self.tracker.log("rapo", step, values)
                if self.rank == 0:
                    self.signs.step(step, values)

            train_rapo(
                backbone,
                reference,
                engine,
                self.train,
                question=self.question,
                trainer=trainer,
                reward=settings.reward,
                shared_prefix=settings.model.shared_prefix,
                seed=settings.seed,
                folder=self.folder / "checkpoints",
                log=record,
                log_completions=log_completions,
                evaluate=lambda: self._validate(backbone),
                stop=self.stop,
                going_on=going_on,
                notes=self.tracker.notes(),
            )
        with engine.gathered():
            if self.rank == 0:
                backbones.merged(backbone).save(final)
        if self.rank == 0:
            self.tracker.checkpoint("rapo", total, final)
            finish_stage(self.folder, "rapo", {"model": str(final), "steps": total, "init_from": initial})
        self._wait()
        return str(final)

    def keep_final(self, models: dict[str, str]) -> None:
        """Without RAPO the cold start (or the base model) is the final model."""
        final = self.folder / "model"
        if not final.exists():
            source = models.get("cold_start", models["base"])
            if Path(source).is_dir():
                beside = self.folder / ".model.partial"
                shutil.rmtree(beside, ignore_errors=True)
                shutil.copytree(source, beside)
                beside.rename(final)

    def _validate(self, backbone: Backbone) -> dict[str, float]:
        """SRCC and PLCC on validation pictures, by data set, one output at the evaluation temperature."""
        rows = self._predictions(backbone, self.validation[: self.settings.trainer.eval_pictures], ["sample"])
        values = {}
        for dataset in sorted({row["dataset"] for row in rows}):
            mine = [row for row in rows if row["dataset"] == dataset]
            cell = correlations(
                [math.nan if row["score"] is None else row["score"] for row in mine],
                [row["mos"] for row in mine],
                n_bootstrap=0,
            )
            for name in ("srcc", "plcc", "mae"):
                value = cell[name]["value"]
                values[f"eval/{dataset}/{name}"] = math.nan if value is None else value
            values[f"eval/{dataset}/parse_failure_rate"] = cell["parse_failure_rate"]
        return values

    # -- evaluation and report -----------------------------------------------------------------------------------------
    def evaluate(self, models: dict[str, str]) -> None:
        if stage_done(self.folder, "evaluation"):
            return
        evaluation = self.settings.evaluation
        sets = {
            self._manifest(test, test.split).stem: partial(_first, samples, evaluation.limit)
            for test, samples in zip(self._test_sets(), self.tests, strict=True)
        }
        for stage, model in models.items():
            if stage not in evaluation.stages or stage_done(self.folder, f"predictions_{stage}"):
                continue
            self._leave_if_asked()
            log.info("evaluation of %s: %d pictures", stage, sum(len(samples()) for samples in sets.values()))
            self._ask(stage, model, sets)
            self._wait()
        if self.rank == 0:
            manifests = {name: digest for samples in sets.values() for name, digest in list_hashes(samples()).items()}
            measures = measure(
                self.folder,
                sets,
                manifests=manifests,
                n_bootstrap=evaluation.n_bootstrap,
                seed=self.settings.seed,
                seen={one.dataset for one in self.train},
            )
            (self.folder / "evaluation.json").write_text(json.dumps(measures, indent=2) + "\n")
            self.tracker.summarise(measures)
            finish_stage(self.folder, "evaluation", {})
        self._wait()

    def _ask(self, stage: str, model: str, sets: Mapping[str, Callable[[], Sequence[Sample]]]) -> None:
        """One stage's model asked about every set; its critiques exchanged, to see whether it uses them."""
        evaluation = self.settings.evaluation
        backbone = self._load(model)
        backbone.model.to(self.device).eval()
        with progress_bars() as bar:

            def rows_of(name: str) -> Rows:
                update, total = bar(f"{stage} on {name}"), len(sets[name]()[self.rank :: self.size])

                def progress(done: int) -> None:
                    update(done, total, "")
                    self._leave_if_alone_and_asked()

                return asking(backbone, progress, **self._how(evaluation.protocols))

            count = record_stage(
                self.folder,
                stage,
                sets,
                rows_of,
                rows_per_picture=len(evaluation.protocols),
                rank=self.rank,
                size=self.size,
                wait=self._wait,
            )
        if self.rank != 0:
            return
        if evaluation.interventions and self.settings.model.prompt == "critique":
            exchange_critiques(
                self.folder,
                stage,
                backbone,
                question=self.question,
                pictures=evaluation.interventions,
                batch_size=evaluation.batch_size,
                seed=self.settings.seed,
            )
        finish_stage(self.folder, f"predictions_{stage}", {"rows": count})
        shutil.rmtree(self.folder / "parts" / stage)

    def _how(self, protocols: Sequence[str]) -> dict[str, Any]:
        """How evaluation asks: the keywords of `predict`."""
        evaluation = self.settings.evaluation
        return {
            "question": self.question,
            "protocols": protocols,
            "n_samples": evaluation.n_samples,
            "temperature": evaluation.temperature,
            "max_new_tokens": evaluation.max_new_tokens or self.settings.trainer.max_new_tokens,
            "batch_size": evaluation.batch_size,
            "batch_invariant": evaluation.batch_invariant,
            "seed": self.settings.seed,
        }

    def _predictions(self, backbone: Backbone, samples: Sequence[Sample], protocols: Sequence[str]) -> list[dict]:
        rows = list(predict(backbone, samples[self.rank :: self.size], **self._how(protocols)))
        if self.size == 1:
            return rows
        gathered: list[list[dict]] = [[] for _ in range(self.size)]
        torch.distributed.all_gather_object(gathered, rows)
        place = {(one.dataset, one.id): position for position, one in enumerate(samples)}
        return sorted((row for part in gathered for row in part), key=lambda row: place[row["dataset"], row["id"]])

    def report(self) -> None:
        if self.rank == 0:
            page = write_report(self.folder)
            print_headline(json.loads((self.folder / "evaluation.json").read_text()))
            print(f"report: {page}")
            finish_stage(self.folder, "report", {"page": str(page)})

    # -- processes -----------------------------------------------------------------------------------------------------
    def _wait(self) -> None:
        """Wait for every process, without a time limit: one of them may be busy alone for hours."""
        if self.watch is not None:
            self.watch.wait()

    def _leave_if_asked(self) -> None:
        """Between what is repeated anyway: leave when any process was asked to. Collective."""
        asked = [(bool(self.stop), self.stop.requeue)] * self.size
        if self.size > 1:
            torch.distributed.all_gather_object(asked, asked[0])
        if any(stop for stop, _ in asked):
            raise Stopped(any(requeue for _, requeue in asked))

    def _leave_if_alone_and_asked(self) -> None:
        """In the middle of what is repeated anyway; several processes agree between stages instead."""
        if self.size == 1:
            self._leave_if_asked()

    def _make_together(self, kind: str, digest: str, make: Callable[[Path], None]) -> None:
        """Like made_once, with every process inside `make`; rank 0 holds the lock and renames."""
        if self.size == 1:
            made_once(self.store, kind, digest, make)
            return
        final, beside = self.store / kind / digest, self.store / kind / f".{digest}.partial"
        there = [final.exists()]
        torch.distributed.broadcast_object_list(there, src=0)
        if there[0]:
            return
        if self.rank == 0:

            def together(target: Path) -> None:
                self._wait()
                make(target)

            made_once(self.store, kind, digest, together)
        else:
            self._wait()
            make(beside)
        self._wait()

    def _load(self, path: str) -> Backbone:
        return backbones.load(
            path,
            dtype=self.settings.model.dtype,
            max_pixels=self.max_pixels,
            gradient_checkpointing=self.settings.model.gradient_checkpointing,
        )
