"""Started by torchrun: the same steps of both loops under one engine after another, written down by rank 0.

    torchrun --nproc-per-node=2 -m tests.trainer.distributed_steps steps START OUT ENGINE [ENGINE ..]
    torchrun --nproc-per-node=1 -m tests.trainer.distributed_steps resume START OUT ENGINE [ENGINE ..]

START holds model/ and pictures/. `steps` writes OUT/ENGINE.pt (metrics, Adam's first moments, weights) and what a run
keeps, OUT/ENGINE/checkpoints and OUT/ENGINE/best; `resume`
loads the checkpoint that it left into a new engine, of any number of processes, writes OUT/ENGINE_resumed_SIZE.pt and
exports OUT/ENGINE_model_SIZE.
"""

from __future__ import annotations

import contextlib
import copy
import signal
import sys
from functools import partial
from pathlib import Path

import torch

from aes_r1.data.pairs import draw_pairs
from aes_r1.model import backbone as backbones
from aes_r1.prompts import PAIR_PROMPT, RATING_PROMPT
from aes_r1.recipe import group_values
from aes_r1.runs.stopping import Stopped, StopRequest
from aes_r1.settings import (
    EngineSettings,
    ErrorSettings,
    InformationSettings,
    LoraSettings,
    RankSettings,
    ReadBackSettings,
    RewardSettings,
    TrainerSettings,
)
from aes_r1.trainer import checkpoint, launch, rapo
from aes_r1.trainer import engine as engines
from aes_r1.trainer import micro_batches as planning
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.micro_batches import micro_batches
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.reference import build_reference
from tests.trainer.cold_starts import train_cold_start
from tests.trainer.twelve import of_pairs, records, samples

BUDGET = 157  # tokens of a pass: outputs of one image, three or four of them as they are long
NOT_NUMBERS = ("time/", "perf/")


def engine_settings(name: str) -> EngineSettings:
    """Return the settings of "single", "zero2", "zero3_offload" and so on, as in conf/engine.

    A suffix changes the steps: "_bf16" half precision, "_budget" micro-batches of at most BUDGET tokens, "_lora" an
    adapter, "_hard" clipped gradients and several steps per rollout, "_parts" rewards of the critiques themselves,
    "_held" the grounded recipe, "_pairs" edited twins, "_compared" prompts of two pictures, "_refilled" further images
    for groups without spread.
    """
    for suffix in ("_bf16", "_budget", "_lora", "_hard", "_parts", "_held", "_pairs", "_compared", "_refilled"):
        name = name.removesuffix(suffix)
    if name == "single":
        return EngineSettings()
    config = group_values("engine", name)["config"]
    # A threshold of 0 parts even the smallest weight, as a large model's are parted.
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return EngineSettings(name=name, config=config)


def dtype_of(name: str) -> str:
    return "bfloat16" if name.endswith("_bf16") else "float32"


def first_moments(engine) -> dict[str, torch.Tensor]:
    """Return Adam's first moments by name: a tenth of the gradient after one step, and linear in later ones."""
    named = [(name, parameter) for name, parameter in engine.model.named_parameters() if parameter.requires_grad]
    if isinstance(engine, engines.SingleEngine):
        masters = dict(engine.master_weights)
        states = {name: engine.optimizer.state[masters.get(weight, weight)] for name, weight in named}
        return {name: state["exp_avg"].clone() for name, state in states.items()}
    from deepspeed.utils import safe_get_full_optimizer_state

    if engine.stage < 3:  # DeepSpeed links a parameter to its state before Adam has any
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    return {name: safe_get_full_optimizer_state(parameter, "exp_avg").clone() for name, parameter in named}


CLIPPED = 0.02  # far below the gradient norms of "_hard"
# Where the reference is kept. The numbers are always those of one process that keeps it on its device.
REFERENCE_KEPT = {"zero2_hard": "sharded", "zero3_hard": "host", "zero2_bf16": "sharded", "zero1": "host"}


def take_steps(start: Path, out: Path, name: str, *, stop_after: int | None = None) -> dict:
    """Return metrics, first moments and weights of two steps of each loop; with half precision a plain gradient too.

    stop_after: the step of RAPO after which the run is stopped; another call goes on with the second.
    """
    settings = engine_settings(name)
    device = launch.start(settings)
    results = {"gradient": one_gradient(start, out, name)} if name.endswith("_bf16") else {}
    model = start / ("comparer" if name.endswith("_compared") else "model")
    backbone = backbones.load(model, dtype=dtype_of(name), max_pixels=9216)
    reference = None
    if name.endswith("_lora"):
        backbone = backbones.add_adapter(backbone, LoraSettings(rank=2), seed=0)
    else:
        rank, size = launch.world()
        kept, frozen = REFERENCE_KEPT.get(name, "device"), copy.deepcopy(backbone)
        reference = build_reference(kept, frozen, device=device, rank=rank, size=size)
    clip = CLIPPED if name.endswith("_hard") else 1e9
    engine = engines.build_engine(settings, backbone.model, weight_decay=0.01, max_grad_norm=clip, device=device)
    with contextlib.closing(engine):
        results |= steps_of_both_loops(backbone, reference, engine, start, out, name, stop_after=stop_after)
    return results


def one_gradient(start: Path, out: Path, name: str) -> dict:
    """Return norm and direction (first moments) of the gradient of the cold start's loss on all twelve records."""
    settings = engine_settings(name)
    backbone = backbones.load(start / "model", dtype=dtype_of(name), max_pixels=9216)
    with contextlib.closing(
        engines.build_engine(settings, backbone.model, weight_decay=0.01, max_grad_norm=1e9, device=torch.device("cpu"))
    ) as engine:
        norms: list[float] = []
        sft(
            backbone,
            engine,
            start,
            out / name / "gradient",
            lambda number, values: norms.append(values["policy/grad_norm"]),
            batch_size=12,
        )
        adds_up_in = getattr(engine.optimizer, "gradient_accumulation_dtype", None)  # DeepSpeed's alone
        return {"norm": norms[0], "moments": first_moments(engine), "adds_up_in": adds_up_in}


def steps_of_both_loops(
    backbone, reference, engine, start: Path, out: Path, name: str, *, stop_after: int | None = None
) -> dict:
    results: dict = {"sft": [], "rapo": [], "passes": [], "answered": [], "ids": []}
    suffixes = ("_budget", "_lora", "_hard", "_parts", "_held", "_pairs", "_compared", "_refilled")
    budget, adapted, hard, parts, held, pairs, compared, refilled = (name.endswith(suffix) for suffix in suffixes)
    reward = RewardSettings(
        error=ErrorSettings(sigma=0.3), read_back=ReadBackSettings(0.5), information=InformationSettings(1.0)
    )
    if refilled:
        reward = RewardSettings(
            rank=RankSettings(weight=0), error=ErrorSettings(weight=0), custom=f"{start / 'mine.py'}:high"
        )
    stop = StopRequest()

    def kept(values: dict) -> dict:
        return {key: value for key, value in values.items() if not key.startswith(NOT_NUMBERS)}

    def counted(*arguments, **named) -> list[list[int]]:
        pieces = micro_batches(*arguments, **named)
        results["passes"].append(engine.all_gather_objects([len(pieces)]))
        return pieces

    def answered(step: int, rows: list[dict]) -> None:
        results["answered"].append(engine.all_gather_objects([sum(row["score"] is not None for row in rows)]))
        results["ids"].append(engine.all_gather_objects([row["id"] for row in rows if row["k"] == 0]))

    def log(number: int, values: dict) -> None:
        results["rapo"].append(kept(values))
        if number == stop_after:
            stop.signal = signal.SIGTERM

    planning.micro_batches = counted
    train = partial(
        rapo.train_rapo,
        Policy(backbone, reference, PAIR_PROMPT if compared else RATING_PROMPT),
        engine,
        draw_pairs(samples(start / "pictures"), margin=0.2, seed=0) if compared else samples(start / "pictures"),
        trainer=TrainerSettings(
            num_samples=4,
            images_per_step=4,
            edited_pairs=2 if pairs else 0,
            dynamic_sampling=6 if refilled else 0,
            max_steps=2,
            warmup_steps=0,
            lr=3e-3 if adapted else 6e-4 if hard else 3e-4,
            kl_coef=0.05,
            max_new_tokens=48 if compared else 24,
            temperature=1.3,
            micro_batch_size=4,
            micro_batch_tokens=BUDGET if budget else None,
            save_every=100,
            eval_every=100,
            completions_every=1,
            minibatches=2 if hard else 1,
            inner_epochs=2 if hard else 1,
            credit="parts" if parts else "answer" if held else "all",
            critique_kl_coef=0.1 if held else None,
        ),
        reward=of_pairs() if compared else reward,
        context=TrainingContext(
            seed=0,
            folder=out / name / "checkpoints",
            log=log,
            log_completions=answered,
            evaluate=lambda step: {"eval/twelve/srcc": 0.5},
            stop=stop,
        ),
    )
    with contextlib.nullcontext() if stop_after is None else contextlib.suppress(Stopped):
        train()
    results["rapo_moments"] = first_moments(engine)
    if budget or hard or parts or held or pairs or compared or refilled:
        return results
    if adapted:
        with engine.gathered_parameters():
            if engine.rank == 0:
                backbones.merge_adapter(backbone).save(out / f"{name}_model")
        engine.barrier()
        return results
    results["rapo_weights"] = whole_weights(backbone, engine)
    sft(backbone, engine, start, out / name / "sft", lambda number, values: results["sft"].append(kept(values)))
    results["moments"] = first_moments(engine)
    results["weights"] = whole_weights(backbone, engine)
    results["one_more"] = one_more_step(backbone, engine, start, out / name / "more")
    return results


def sft(backbone, engine, start: Path, folder: Path, log=lambda number, values: None, *, batch_size: int = 6) -> None:
    changes = {"epochs": 1, "lr": 3e-4, "warmup_ratio": 0.0, "batch_size": batch_size, "micro_batch_size": 2}
    train_cold_start(backbone, engine, records(start / "pictures"), folder, log=log, **changes)


def one_more_step(backbone, engine, start: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights after another step over all records; they depend on all of Adam's state."""
    sft(backbone, engine, start, folder, batch_size=12)
    return whole_weights(backbone, engine)


def whole_weights(backbone, engine) -> dict[str, torch.Tensor]:
    with engine.gathered_parameters():
        return {key: value.detach().clone() for key, value in backbone.model.named_parameters()}


def resume(start: Path, out: Path, name: str) -> dict:
    """Return progress, weights and first moments that a new engine loads from the checkpoint of `take_steps`."""
    settings = engine_settings(name)
    device = launch.start(settings)
    backbone = backbones.load(start / "model", dtype=dtype_of(name), max_pixels=9216)
    engine = engines.build_engine(settings, backbone.model, weight_decay=0.01, max_grad_norm=1e9, device=device)
    with contextlib.closing(engine):
        progress = checkpoint.load_latest(out / name / "sft", engine)
        progress = {key: progress[key] for key in ("step", "processes")}
        results = {"progress": progress, "weights": whole_weights(backbone, engine), "moments": first_moments(engine)}
        with engine.gathered_parameters():
            if engine.rank == 0:
                backbone.save(out / f"{name}_model_{engine.size}")
        engine.barrier()
        results["one_more"] = one_more_step(backbone, engine, start, out / name / f"more_{engine.size}")
    return results


def main() -> None:
    torch.set_num_threads(1)
    mode, start, out, *names = sys.argv[1:]
    rank, size = launch.world()
    for name in names:
        results = (take_steps if mode == "steps" else resume)(Path(start), Path(out), name)
        if name.endswith("_refilled"):
            take_steps(Path(start), Path(out) / "parts", name, stop_after=1)
            results["resumed"] = take_steps(Path(start), Path(out) / "parts", name)
        if rank == 0:
            torch.save(results, Path(out) / (f"{name}.pt" if mode == "steps" else f"{name}_resumed_{size}.pt"))


if __name__ == "__main__":
    main()
