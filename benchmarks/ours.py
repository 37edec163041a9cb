"""Take this project's steps: the real training loop, which waits for the parent before each step.

python -m benchmarks.ours WORKLOAD_JSON WORK_FOLDER plain|fast
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from pathlib import Path

import torch

from aes_r1.data.sample import Sample
from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout import sampler
from aes_r1.runs.stopping import StopRequest
from aes_r1.settings import LoraSettings, RewardSettings, TrainerSettings
from aes_r1.trainer.context import PhaseTimer, TrainingContext
from aes_r1.trainer.engine import SingleEngine
from aes_r1.trainer.rapo import train_rapo
from aes_r1.trainer.reference import Reference
from benchmarks.player import Turn
from benchmarks.workload import Workload, random_model


def stamp_decoding(turn: Turn) -> None:
    """Record the time between the prompt pass and the decode loop."""
    decoder_of = sampler._decoder_of

    def stamped(backbone):
        class Stamped(decoder_of(backbone)):  # type: ignore[misc]
            def __init__(self, *given) -> None:
                super().__init__(*given)
                turn.decode_begins()

        return Stamped

    sampler._decoder_of = stamped


class StampedTimer(PhaseTimer):
    """The loop's own timer, which also tells the parent where the rollout ends and where the update begins and ends."""

    turn: Turn

    def begin(self, phase: str) -> None:
        if phase == "update":
            self.turn.update_begins()

    def end(self, phase: str) -> None:
        if phase == "rollout":
            self.turn.rollout_done()
        elif phase == "update":
            self.turn.done()


def main() -> None:
    workload, work, path = Workload.parse(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast = path == "fast"
    backbone = backbones.load(
        random_model(workload, work),
        dtype=workload.dtype,
        max_pixels=max(workload.picture[0] * workload.picture[1], backbones.MIN_PIXELS),
        gradient_checkpointing=workload.gradient_checkpointing,
    )
    backbone.banned[backbone.end_token] = True  # every completion runs to the forced length
    reference = None
    if workload.lora:
        backbone = backbones.add_adapter(backbone, LoraSettings(rank=workload.lora))
    elif workload.kl_coef:
        reference = Reference(copy.deepcopy(backbone), device)
    turn = Turn()
    stamp_decoding(turn)
    StampedTimer.turn = turn
    engine = SingleEngine(backbone.model, weight_decay=0.0, max_grad_norm=1.0, device=device)
    paths = workload.pictures(work / "pictures", workload.N * 4)
    samples = [Sample(file.stem, str(file), i / len(paths), "made", "train") for i, file in enumerate(paths)]
    encode, spent = backbone.encode, []

    def timed_encode(picture, question):  # the loop encodes ahead on a thread; its work belongs to the step
        began = time.thread_time()
        prompt = encode(picture, question)
        spent.append(time.thread_time() - began)
        turn.extra_seconds = workload.N * sum(spent) / len(spent)
        return prompt

    backbone.encode = timed_encode  # type: ignore[method-assign]
    trainer = TrainerSettings(
        num_samples=workload.K,
        images_per_step=workload.N,
        max_steps=1000,
        lr=1e-6,
        lr_schedule="constant",
        warmup_steps=0,
        kl_coef=workload.kl_coef,
        max_new_tokens=workload.new_tokens,
        micro_batch_size=workload.micro_batch or workload.rows,
        mask_truncated=False,
        save_every=10**9,
        eval_every=10**9,
        completions_every=10**9,
    )
    with tempfile.TemporaryDirectory() as folder:
        turn.wait()
        train_rapo(
            backbone,
            reference,
            engine,
            samples,
            question=RATING_PROMPT,
            trainer=trainer,
            reward=RewardSettings(),
            shared_prefix=fast,
            context=TrainingContext(
                seed=0,
                folder=Path(folder),
                log=lambda step, values: turn.wait(),
                stop=StopRequest(),
                timer=StampedTimer,
            ),
        )


if __name__ == "__main__":
    main()
