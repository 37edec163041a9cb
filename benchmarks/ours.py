"""Run this project's real training loop, which waits for the parent before each step.

python -m benchmarks.ours WORKLOAD_JSON WORK_FOLDER plain|fast
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aes_r1.data.sample import Sample
from aes_r1.model import backbone as backbones
from aes_r1.model import families
from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout.sampler import Rollout, sample_completions
from aes_r1.runs.stopping import StopRequest
from aes_r1.settings import LoraSettings, RewardSettings, TrainerSettings
from aes_r1.trainer import completions, rapo
from aes_r1.trainer.context import PhaseTimer, TrainingContext
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.reference import Reference, build_reference
from aes_r1.trainer.single_engine import SingleEngine
from benchmarks.player import Turn, wait_to_build
from benchmarks.workload import Workload, draw_weights, model_folder


def forced_noise(noise: Tensor, lengths: list[int]) -> Tensor:
    """Change `noise` [R, T] so that each completion ends at its own length, and one of T tokens does not end.

    The sampler takes the first token at which the cumulated probability exceeds the noise, and the end of the turn is
    the first token that may be drawn. Noise 0 draws it; noise above its probability (1 in 680) never does.
    """
    noise = 0.2 + 0.8 * noise
    for row, length in enumerate(lengths):
        if length < noise.shape[1]:
            noise[row, length - 1] = 0.0
    return noise


def force_lengths(turn: Turn) -> None:
    """Give the training loop a sampler that draws completions of the turn's lengths and marks where decoding begins.

    Decoding begins when the head receives the first states, those after the prompts.
    """

    def forced(backbone: Backbone, prompts: PromptBatch, *, noise: Tensor | None, **how: Any) -> Rollout:
        assert noise is not None
        first_allowed = int((~backbone.banned).nonzero()[0, 0])
        assert first_allowed == backbone.end_token, "lengths are forced by the end of the turn standing first"

        def stamp(*_: Any) -> None:
            if turn.decoding is None:
                watch.remove()
                turn.decode_begins()

        watch = backbone.core.lm_head.register_forward_pre_hook(stamp)
        rollout = sample_completions(backbone, prompts, noise=forced_noise(noise, turn.lengths), **how)
        watch.remove()
        turn.mask = rollout.mask
        return rollout

    # The loop takes no other sampler but that of Policy.served, which pushes weights and draws in a thread.
    # Both would be measured, so the function is exchanged, in a process that does nothing else.
    completions.sample_completions = forced


class StampedTimer(PhaseTimer):
    """Time phases as the loop's own timer does, and tell `turn` where the rollout and the update begin and end."""

    def __init__(self, device: torch.device, turn: Turn) -> None:
        super().__init__(device)
        self.turn = turn

    def begin(self, phase: str) -> None:
        if phase == "update":
            self.turn.update_begins()
        self.turn.phase_begins(phase)

    def end(self, phase: str) -> None:
        self.turn.phase_ends(phase)
        if phase == "rollout":
            self.turn.rollout_done(lambda: self.turn.mask.sum(dim=1).tolist())
        elif phase == "update":
            self.turn.done()


def build_models(
    workload: Workload, work: Path, device: torch.device, *, fused: bool
) -> tuple[Backbone, Reference | None]:
    """Return the backbone with the weights that are to be trained, and the reference of the KL term if there is one."""
    backbone = backbones.load(
        model_folder(workload, work),
        dtype=workload.dtype,
        max_pixels=max(workload.picture[0] * workload.picture[1], backbones.MIN_PIXELS),
        gradient_checkpointing=workload.gradient_checkpointing,
        fused_kernels=fused,
    )
    reference = None
    if workload.lora:
        backbone = backbones.add_adapter(backbone, LoraSettings(rank=workload.lora))
    elif workload.kl_coef:
        reference = build_reference(workload.reference, copy.deepcopy(backbone), device=device, rank=0, size=1)
    for name, parameter in backbone.core.named_parameters():
        if families.is_vision(name):
            parameter.requires_grad_(workload.trains_tower)
    return backbone, reference


def count_encoding(backbone: Backbone, turn: Turn) -> None:
    """Add a step's mean time of encoding to every step: the loop encodes ahead on a thread, which no phase contains."""
    encode, spent = backbone.encode, []

    def timed_encode(picture, question):
        began = time.thread_time()
        prompt = encode(picture, question)
        spent.append(time.thread_time() - began)
        turn.extra_seconds = turn.workload.N * sum(spent) / len(spent)
        return prompt

    backbone.encode = timed_encode


def settings_of(workload: Workload) -> TrainerSettings:
    """Return the settings of the training loop for the workload."""
    return TrainerSettings(
        num_samples=workload.K,
        images_per_step=workload.N,
        max_steps=1000,
        lr=1e-6,
        lr_schedule="constant",
        warmup_steps=0,
        kl_coef=workload.kl_coef,
        max_new_tokens=workload.new_tokens,
        micro_batch_size=workload.micro_batch or workload.rows,
        micro_batch_tokens=workload.micro_batch_tokens or None,
        mask_truncated=False,
        save_every=10**9,
        eval_every=10**9,
        completions_every=10**9,
    )


def main() -> None:
    workload, work, path = Workload.parse(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    fast = path == "fast"
    fused = fast and torch.cuda.is_available() and importlib.util.find_spec("liger_kernel") is not None
    wait_to_build({"shared_prefix": str(fast).lower(), "kernels": "liger" if fused else "plain"})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    draw_weights()
    backbone, reference = build_models(workload, work, device, fused=fused)
    turn = Turn(workload)
    force_lengths(turn)
    engine = SingleEngine(backbone.model, weight_decay=0.0, max_grad_norm=1.0, device=device)
    paths = workload.pictures(work / "pictures", workload.N * 4)
    samples = [Sample(file.stem, str(file), i / len(paths), "made", "train") for i, file in enumerate(paths)]
    count_encoding(backbone, turn)
    with tempfile.TemporaryDirectory() as folder:
        turn.wait()
        rapo.train_rapo(
            Policy(backbone, reference, RATING_PROMPT, shared_prefix=fast),
            engine,
            samples,
            trainer=settings_of(workload),
            reward=RewardSettings(),
            context=TrainingContext(
                seed=0,
                folder=Path(folder),
                log=lambda step, values: turn.wait(),
                stop=StopRequest(),
                timer=partial(StampedTimer, turn=turn),
            ),
        )


if __name__ == "__main__":
    main()
