"""Started by torchrun: steps under one engine after another of which one is not finite on rank 1 alone.

    torchrun --nproc-per-node=2 -m tests.trainer.skipped_steps FOLDER ENGINE [ENGINE ..]

FOLDER holds model/ and pictures/; every rank writes FOLDER/ENGINE_RANK.pt.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT
from aes_r1.runs.stopping import StopRequest
from aes_r1.settings import ErrorSettings, RewardSettings, TrainerSettings
from aes_r1.trainer import completions, launch, rapo, sft, update
from aes_r1.trainer import engine as engines
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.policy import Policy
from tests.trainer.cold_starts import train_cold_start
from tests.trainer.distributed_steps import dtype_of, engine_settings
from tests.trainer.twelve import records, samples

# A term without a gradient is NaN or infinite; the loss is finite and its gradient NaN; the gradient overflows.
KINDS = ("nan loss", "infinite loss", "nan gradient", "infinite gradient")
TOGETHER = ("nan loss", "infinite gradient")  # of two processes


def toy(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


class _Harmed(torch.autograd.Function):
    """The identity, whose gradient is `value`."""

    @staticmethod
    def forward(context, loss: Tensor, value: float) -> Tensor:
        context.value = value
        return loss.clone()

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.full_like(gradient, context.value), None


def harmed(loss: Tensor, kind: str) -> Tensor:
    value = math.nan if kind.startswith("nan") else math.inf
    return _Harmed.apply(loss, value) if kind.endswith("gradient") else loss + value


def toy_steps(engine, kind: str | None, *, steps: tuple[int, ...] = (0, 1, 2)) -> dict:
    """Three optimizer steps of two micro-batches; the second is harmed as `kind` says, or left out when None."""
    norms = []
    dtype = next(engine.model.parameters()).dtype
    for step in steps:
        if step == 1 and kind is None:
            continue
        for micro in range(2):
            inputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(10 * step + micro + 100 * engine.rank))
            model = engine.model if isinstance(engine, engines.SingleEngine) else engine.engine
            loss = model(inputs.to(dtype)).float().square().mean() / 2
            if step == 1 and micro == 0 and engine.rank == engine.size - 1:
                loss = harmed(loss, kind)
            engine.backward(loss)
        norms.append(float(engine.step(0.01)))
    with engine.gathered_parameters():
        weights = {name: value.detach().clone() for name, value in engine.model.named_parameters()}
    return {"norms": norms, "weights": weights}


def assert_equal(results: dict, wanted: dict) -> None:
    """The same weights to the bit, and the same norms of the steps that were taken."""
    assert [norm for norm in results["norms"] if math.isfinite(norm)] == wanted["norms"]
    for name, value in wanted["weights"].items():
        assert torch.equal(results["weights"][name], value), name


def nan_at(plain: Callable, *calls: int, only: bool = True) -> Callable:
    """`policy_loss` with a NaN among its advantages at these calls, counted from 1, where `only` says so."""
    count = [0]

    def faulty(logps, old, reference, advantages, mask, **named):
        count[0] += 1
        if only and count[0] in calls:
            advantages = advantages.clone()
            advantages[0] = math.nan
        return plain(logps, old, reference, advantages, mask, **named)

    return faulty


def shifted(engine, drawn: list[int]) -> Callable:
    """`sample` with log-probabilities that are 1 too high on rank 0, 2 on rank 1; `drawn` is told the tokens."""
    plain = completions.sample_completions

    def sampled(*arguments, **named):
        rollout = plain(*arguments, **named)
        drawn.append(int(rollout.mask.sum()))
        return dataclasses.replace(rollout, logps=rollout.logps + (1.0 + engine.rank) * rollout.mask)

    return sampled


def rapo_rows(backbone, engine, pictures: Path, folder: Path, *, watch=lambda: None, **changes) -> list[dict]:
    """What RAPO logs; outputs that cannot be read guess, so that even a random model's differ in reward."""
    rows: list[dict] = []
    rapo.train_rapo(
        Policy(backbone, None, RATING_PROMPT),
        engine,
        samples(pictures),
        trainer=TrainerSettings(
            **{
                "num_samples": 4,
                "images_per_step": 4,
                "max_steps": 3,
                "lr": 1e-2,
                "kl_coef": 0.0,
                "max_new_tokens": 4,
                "micro_batch_size": 8,
                "mask_truncated": False,
                "save_every": 100,
                "eval_every": 100,
                **changes,
            }
        ),
        reward=RewardSettings(error=ErrorSettings(sigma=0.3), failed_parse="random"),
        context=TrainingContext(
            seed=0,
            folder=folder,
            log=lambda step, values: (rows.append(values), watch()),
            log_completions=lambda step, completions: None,
            stop=StopRequest(),
        ),
    )
    return rows


def loops(folder: Path, name: str) -> dict:
    """Skipped steps as logged, and weights after each of three steps, of both loops; the second step is harmed."""
    settings = engine_settings(name)
    device = launch.start(settings)
    results = {}
    for loop in ("sft", "rapo"):
        backbone = backbones.load(folder / "model", dtype=dtype_of(name), max_pixels=9216)
        engine = engines.build_engine(settings, backbone.model, weight_decay=0.01, max_grad_norm=1.0, device=device)
        last = engine.rank == engine.size - 1
        weights: list[dict] = []

        def look(engine=engine, weights=weights) -> None:
            with engine.gathered_parameters():
                weights.append({key: value.detach().clone() for key, value in engine.model.named_parameters()})

        if loop == "rapo":
            plain, drawn = (update.policy_loss, completions.sample_completions), []
            update.policy_loss, completions.sample_completions = (
                nan_at(update.policy_loss, 2, only=last),
                shifted(engine, drawn),
            )
            rows = rapo_rows(backbone, engine, folder / "pictures", folder / f"{name}_rapo", watch=look)
            update.policy_loss, completions.sample_completions = plain
            results["mismatch"] = {
                "mean": [row["rollout/mismatch_mean"] for row in rows],
                "max": [row["rollout/mismatch_max"] for row in rows],
                "tokens": engine.all_gather_objects([drawn]),
            }
            skipped = [row["policy/skipped_steps"] for row in rows]
        else:
            rows = []
            train_cold_start(
                backbone,
                engine,
                records(folder / "pictures"),
                folder / f"{name}_sft",
                log=lambda step, values, rows=rows, look=look: (rows.append(values), look()),
                on_resume=lambda step, last=last: _harm_sft(2 if last else 0),
                epochs=1,
                lr=1e-2,
                micro_batch_size=2,
            )
            skipped = [row["sft/skipped_steps"] for row in rows]
        results[loop] = {"skipped": skipped, "weights": weights}
    return results


_PLAIN_LIKELIHOOD = sft.completion_likelihood


def _harm_sft(call: int) -> None:
    """NaN log-probabilities at this call of the cold start's, from 1 on."""
    count = [0]

    def faulty(*arguments, **named):
        count[0] += 1
        logps, entropy = _PLAIN_LIKELIHOOD(*arguments, **named)
        return (logps * math.nan if count[0] == call else logps), entropy

    sft.completion_likelihood = faulty


def toys(folder: Path, name: str) -> dict:
    settings = engine_settings(name)
    device = launch.start(settings)
    dtype = getattr(torch, dtype_of(name))

    def built():
        return engines.build_engine(settings, toy(dtype), weight_decay=0.1, max_grad_norm=1.0, device=device)

    if name.startswith("zero3"):  # the biases stay whole on every process, the weights are parted
        settings.config["zero_optimization"]["stage3_param_persistence_threshold"] = 10
    results = {kind: toy_steps(built(), kind) for kind in TOGETHER}
    results["without"] = toy_steps(built(), None)
    # The very first step is skipped, then saved and loaded: no optimizer state exists yet.
    first = built()
    norms = toy_steps(first, "nan loss", steps=(1,))["norms"]
    at = folder / f"{name}_first"
    if first.rank == 0:
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir()
    first.barrier()
    first.save(at)
    second = built()
    second.load(at, processes=second.size)
    after = toy_steps(second, None, steps=(2,))
    results["first"] = {"norms": norms + after["norms"], "weights": after["weights"]}
    results["one"] = toy_steps(built(), None, steps=(2,))
    return results


def main() -> None:
    torch.set_num_threads(1)
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    rank, _ = launch.world()
    for name in names:
        torch.save({**toys(folder, name), **loops(folder, name)}, folder / f"{name}_{rank}.pt")


if __name__ == "__main__":
    main()
