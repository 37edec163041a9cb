"""Define the Job, which every stage of a run shares: settings, folders, processes, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from aes_r1.data.pairs import Pair, draw_pairs
from aes_r1.data.sample import Sample
from aes_r1.inference.asking import asking_of
from aes_r1.inference.stage import is_answered
from aes_r1.model import backbone as backbones
from aes_r1.model.backbone import Backbone
from aes_r1.rollout.sampler import Sampler, sample_completions
from aes_r1.rollout.served import ServedPolicy
from aes_r1.runs.folder import RunFolder, is_model
from aes_r1.runs.processes import Processes
from aes_r1.settings import DataSettings, Settings, as_dict
from aes_r1.tracking.tracker import Tracker


class Job:
    """Hold what the stages of one run share; its pictures come from the first stage (data_stage.load_data).

    served: the policy on servers that draw the completions; None where the processes draw them.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        device: torch.device,
        processes: Processes,
        tracker: Tracker,
        served: ServedPolicy | None = None,
    ) -> None:
        self.settings, self.run, self.device = settings, RunFolder(folder), device
        self.processes, self.rank, self.size = processes, processes.rank, processes.size
        self.tracker, self.served = tracker, served
        self.store = Path(settings.store)
        self.asking = asking_of(as_dict(settings))
        self.question, self.max_pixels = self.asking.question, self.asking.max_pixels
        self.train: Sequence[Sample] = []
        self.validation: Sequence[Sample] = []
        self.tests: list[Sequence[Sample]] = []

    @cached_property
    def pairs(self) -> list[Pair]:
        """The pairs of training pictures that RAPO asks about; none where it asks about single pictures."""
        pair = self.settings.reward.pair
        return draw_pairs(self.train, margin=pair.margin, seed=self.settings.seed) if pair.weight > 0 else []

    def manifest(self, data: DataSettings, split: str) -> Path:
        """Return the path of the list of a split's pictures."""
        return self.run.manifest(f"{data.name}-{split}")

    def test_sets(self) -> list[DataSettings]:
        """Return the sets of the evaluation: the run's own, then the others."""
        return [self.settings.data, *self.settings.evaluation.also]

    def model_made(self, name: str) -> str | None:
        """Return the model `name` (base, cold_start) that the run has made; None if it has to be made (again).

        A model that the store has lost, or that is in another store, is made again only if a later stage needs it.
        """
        model: str | None = self.run.stage_values(name).get("model")
        return model if model is not None and (is_model(Path(model)) or not self._awaits(name)) else None

    def _awaits(self, model: str) -> bool:
        """Return whether a stage that is still to come needs `model` (base, cold_start)."""
        settings, run = self.settings, self.run
        *_, last = (name for name in settings.models if name != "rapo")
        if "rapo" in settings.models:
            is_start = (last if settings.trainer.init_from == "cold_start" else settings.trainer.init_from) == model
            starts = is_start and not run.stage_done("rapo")
        else:
            starts = last == model and not run.model.exists()
        is_asked = model in settings.evaluation.stages and not run.stage_done("evaluation")
        teaches = model != last and self.model_made(last) is None  # the cold start is trained from the base model
        return starts or teaches or (is_asked and not is_answered(run, model))

    def sampler(self, backbone: Backbone) -> Sampler:
        """Return the sampler for the current weights of `backbone`: this process, or the servers, which receive them.

        Collective. The weights must be whole.
        """
        if self.served is None:
            return sample_completions
        return self.served.sampler_of(
            backbone, self.question, max_new_tokens=self.asking.max_new_tokens, wait=self.processes.wait
        )

    def load(self, path: str) -> Backbone:
        """Load the model at `path`, a folder or a hub name, as the settings say."""
        return backbones.load(
            path,
            dtype=self.settings.model.dtype,
            max_pixels=self.max_pixels,
            gradient_checkpointing=self.settings.model.gradient_checkpointing,
            fused_kernels=self.settings.model.kernels == "liger",
        )
