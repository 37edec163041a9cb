"""Define the Job, which every stage of a run shares: settings, folders, processes, pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch

from aes_r1.data.pairs import Pair, draw_pairs
from aes_r1.data.sample import Sample
from aes_r1.evaluation import health
from aes_r1.inference.asking import asking_of
from aes_r1.inference.predictions import Process
from aes_r1.model import backbone as backbones
from aes_r1.model.backbone import Backbone
from aes_r1.rollout.sampler import Sampler, sample_completions
from aes_r1.rollout.served import ServedPolicy
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.stopping import Stopped, StopRequest
from aes_r1.runs.store import missing
from aes_r1.runs.watchdog import Heartbeat
from aes_r1.settings import DataSettings, Settings, as_dict
from aes_r1.tracking.tracker import Tracker


class StopWhileWaiting(Exception):
    """End a wait for another job's lock in the store, because a process of this job was asked to stop."""


class Job:
    """Hold what the stages of one run share; this is process `rank` of `size`."""

    tracker: Tracker
    stop: StopRequest
    health: health.HealthMonitor

    def __init__(
        self, settings: Settings, folder: Path, device: torch.device, rank: int, size: int, watch: Heartbeat | None
    ) -> None:
        self.settings, self.run, self.device, self.rank, self.size = settings, RunFolder(folder), device, rank, size
        self.watch = watch
        self.served: ServedPolicy | None = None
        if settings.rollout.name == "vllm":
            self.served = ServedPolicy(settings.rollout, name=str(folder), rank=rank, size=size)
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
        """Return the path of the list of a split's pictures; a number tells further sets of the same name apart."""
        named = [other for other in [self.settings.data, *self.settings.evaluation.also] if other.name == data.name]
        number = named.index(data)
        return self.run.manifest(f"{data.name}{f'_{number + 1}' if number else ''}-{split}")

    def test_sets(self) -> list[DataSettings]:
        """Return the sets of the evaluation: the run's own, then the others."""
        return [self.settings.data, *self.settings.evaluation.also]

    def process(self) -> Process:
        """Return this process's place among those that share the pictures of an evaluation."""
        return Process(self.rank, self.size, self.wait_or_leave, self.stop_requested)

    def sampler(self, backbone: Backbone) -> Sampler:
        """Return the sampler for `backbone` as it is now: this process, or the servers, which get its weights.

        Collective. Weights have to be whole.
        """
        if self.served is None:
            return sample_completions
        return self.served.sampler_of(
            backbone, self.question, max_new_tokens=self.asking.max_new_tokens, wait=self.wait
        )

    def wait(self) -> None:
        """Wait for every process, without a time limit: one of them may be busy alone for hours."""
        if self.watch is not None:
            self.watch.wait()

    def stop_requested(self) -> bool:
        """Return whether this process was asked to stop, or another one has announced that it was. Not collective."""
        return bool(self.stop) if self.watch is None else self.watch.stop_announced(bool(self.stop))

    def wait_or_leave(self) -> None:
        """Wait for every process, then raise Stopped when any was asked to stop. Collective.

        Processes that still work learn of the request through `stop_requested`.
        """
        if self.watch is not None:
            self.watch.wait(meanwhile=self.stop_requested)
        self.raise_if_stopping()

    def raise_if_stopping(self) -> None:
        """Raise Stopped on every process if any was asked to stop. Collective.

        Call it only where the work since the last save may be repeated.
        """
        requests = [(bool(self.stop), self.stop.requeue)] * self.size
        if self.size > 1:
            torch.distributed.all_gather_object(requests, requests[0])
        if any(stop for stop, _ in requests):
            raise Stopped(any(requeue for _, requeue in requests))

    def keep_waiting(self) -> None:
        """Raise StopWhileWaiting when the job should stop; the store calls this while it waits for a lock."""
        if self.stop_requested():
            raise StopWhileWaiting

    def on_rank_zero(self, work: Callable[[], object]) -> None:
        """Run `work` on rank 0 while the others wait; raise Stopped everywhere when any was asked to stop. Collective.

        `work` may raise StopWhileWaiting.
        """
        if self.rank == 0:
            with contextlib.suppress(StopWhileWaiting):
                work()
        self.wait_or_leave()

    def build_collectively(self, kind: str, digest: str, make: Callable[[Path], None]) -> bool:
        """Build something in the store with every process inside `make`; return whether it was built now. Collective.

        Rank 0 holds the lock, decides and renames.
        """
        folder: list[Path | None] = [None]
        with contextlib.ExitStack() as stack:

            def look() -> None:
                folder[0] = stack.enter_context(missing(self.store, kind, digest, waiting=self.keep_waiting))

            self.on_rank_zero(look)  # rank 0 may wait hours for another job's lock, longer than a collective's timeout
            if self.size > 1:
                torch.distributed.broadcast_object_list(folder, src=0)
            if folder[0] is not None:
                make(folder[0])
                self.wait()  # rank 0 renames the folder after every process has finished
        self.wait()  # no process looks for it before it is renamed
        return folder[0] is not None

    def load(self, path: str) -> Backbone:
        """Load the model at `path`, a folder or a hub name, as the settings say."""
        return backbones.load(
            path,
            dtype=self.settings.model.dtype,
            max_pixels=self.max_pixels,
            gradient_checkpointing=self.settings.model.gradient_checkpointing,
            fused_kernels=self.settings.model.kernels == "liger",
        )
