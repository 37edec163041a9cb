"""Estimate the cost of a run before it starts, without a GPU or weights: `python -m aes_r1.plan +experiment=paper`."""

from __future__ import annotations

from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    require_conf()  # before the imports, which read it

import math
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from aes_r1 import command
from aes_r1.aescot.estimate import CALL_SECONDS, estimate_ratings
from aes_r1.data.counts import counted
from aes_r1.model import cost
from aes_r1.model.cost import Shape
from aes_r1.plan_memory import (
    PHASES,
    cures,
    disk,
    host_memory,
    largest_micro_batch,
    mean_answer,
    memory_per_gpu,
    most_disk,
    outputs_per_pass,
    own_images,
    pass_tokens,
    passes_over,
    peak,
    phase_memory,
    shown_in_rapo,
    trained_parameters,
    zero_stage,
)
from aes_r1.plan_seconds import (
    asking_seconds,
    cold_start_seconds,
    decoding_seconds,
    evaluation_seconds,
    step_flops,
    step_seconds,
)
from aes_r1.settings import CONF, PAPER_PIXELS, InputError, LoraSettings, PlanSettings
from aes_r1.trainer.step_images import rapo_steps, require_a_step


@dataclass(frozen=True)
class Plan:
    """Hold the estimated cost of a run. A step is one of RAPO: rollout, reference and all its updates.

    trained: parameters that RAPO trains; memory: bytes per GPU by part; flops: operations of one step by phase, all
    GPUs; seconds: of one step by phase and for ZeRO's communication; runaway_seconds: of decoding when one answer of
    the step reaches trainer.max_new_tokens; steps: of RAPO; stage_hours: of each stage of the run; usd: price of all
    stages, None if plan.usd_per_gpu_hour is; host, disk: bytes of the node by part. largest_micro_batch: completions
    per GPU and forward pass that fit beside the rest; 0 when not even one fits.
    """

    shape: Shape
    trained: int
    memory: dict[str, int]
    flops: dict[str, float]
    seconds: dict[str, float]
    runaway_seconds: float
    steps: int
    stage_hours: dict[str, float]
    usd: float | None
    largest_micro_batch: int
    host: dict[str, int]
    disk: dict[str, int]


def plan(settings: PlanSettings, shape: Shape) -> Plan:
    """Estimate time, memory, disk and price of the run of `settings` for a model of `shape`."""
    trainer, assumed = settings.trainer, settings.plan
    trained = trained_parameters(settings, shape)
    seconds = step_seconds(settings, shape, flops := step_flops(settings, shape))
    steps = rapo_steps(assumed.pictures, trainer) if "rapo" in settings.models else 0
    validations = math.ceil(steps / trainer.eval_every)
    hours = {
        "cold start": cold_start_seconds(settings, shape) / 3600,
        "RAPO": steps * sum(seconds.values()) / 3600,
        "its validations": validations * asking_seconds(settings, shape, trainer.eval_pictures, 1) / 3600,
        "evaluation": evaluation_seconds(settings, shape) / 3600,
    }
    price = assumed.usd_per_gpu_hour
    return Plan(
        shape=shape,
        trained=trained,
        memory=memory_per_gpu(settings, shape, trained, outputs_per_pass(settings)),
        flops=flops,
        seconds=seconds,
        runaway_seconds=decoding_seconds(settings, shape, flops, trainer.max_new_tokens),
        steps=steps,
        stage_hours=hours,
        usd=None if price is None else sum(hours.values()) * assumed.gpus * price,
        largest_micro_batch=largest_micro_batch(settings, shape, trained),
        host=host_memory(settings, shape, trained),
        disk=disk(settings, shape, trained),
    )


def cheapest(settings: PlanSettings, shape: Shape) -> str:
    """Name the recipe that fits with the fewest hours: all weights, an adapter, or an adapter on 4-bit weights.

    Model, sizes of a step and card stay as they are. The memory leaves out the evaluation, which quantises nothing.
    """
    limit, model = settings.plan.memory_gb, settings.model
    lora = model.lora if model.lora.rank > 0 else LoraSettings(rank=64, alpha=128.0)
    recipes = {
        "all weights (model.lora.rank=0)": {"lora": LoraSettings(), "quantize": "none"},
        f"an adapter (model.lora.rank={lora.rank})": {"lora": lora, "quantize": "none", "reference": "device"},
    }
    if settings.engine.name == "single" and settings.rollout.name == "local":
        recipes[f"an adapter on 4-bit weights (model.lora.rank={lora.rank} model.quantize=nf4)"] = {
            "lora": lora, "quantize": "nf4", "reference": "device",
        }  # fmt: skip
    candidates = []
    for recipe, changes in recipes.items():
        changed = replace(settings, model=replace(model, **changes))  # type: ignore[arg-type]  # of several kinds
        planned = plan(changed, shape)
        candidates.append((peak(planned.memory) / 1e9, sum(planned.stage_hours.values()), recipe, planned))
    fitting = [candidate for candidate in candidates if candidate[3].largest_micro_batch >= 1]
    if not fitting:
        memory, _, recipe, _ = min(candidates, key=lambda candidate: candidate[0])
        return f"no recipe of this model fits {limit:g} GB; the smallest is {recipe}: {memory:.1f} GB"
    memory, hours, recipe, _ = min(fitting, key=lambda candidate: candidate[1])
    return f"cheapest recipe that fits {limit:g} GB: {recipe}, {hours:.1f} hours, at most {memory:.1f} GB"


def advice(estimate: Plan, settings: PlanSettings) -> list[str]:
    """Write one line for each obstacle, with what would help."""
    trainer, limit = settings.trainer, settings.plan.memory_gb
    lines = []
    if estimate.largest_micro_batch == 0:
        memory = memory_per_gpu(settings, estimate.shape, estimate.trained, 1)
        phases = phase_memory(memory)
        phase = max(phases, key=lambda name: phases[name])
        elsewhere = {name for other, names in PHASES.items() if other != phase for name in names}
        largest = max((name for name in memory if name not in elsewhere), key=lambda name: memory[name])
        peaks_after_changes = cures(settings, estimate.shape)
        enough = {setting: size for setting, size in peaks_after_changes.items() if size <= limit * 1e9}
        cures_in_words = ", ".join(
            f"{setting} ({size / 1e9:.1f})" for setting, size in (enough or peaks_after_changes).items()
        )
        lines.append(
            f"no micro-batch fits: one completion needs {peak(memory) / 1e9:.1f} of {limit:g} in the {phase}, "
            f"most of it {largest} ({memory[largest] / 1e9:.1f}); "
            + (f"enough by itself: {cures_in_words}" if enough else f"none is enough by itself: {cures_in_words}")
        )
    elif estimate.largest_micro_batch < outputs_per_pass(settings):
        lines.append(
            f"{outputs_per_pass(settings)} completions in a pass do not fit {limit:g}; "
            f"give {_size_of_pass(settings, estimate.largest_micro_batch)} or less"
        )
    else:
        lines.append(f"largest micro-batch that fits: {estimate.largest_micro_batch}")
        traffic, step = estimate.seconds["ZeRO traffic"], sum(estimate.seconds.values())
        larger_fits = estimate.largest_micro_batch > outputs_per_pass(settings)
        if 4 * traffic > step and zero_stage(settings) == 3 and larger_fits:
            lines.append(
                f"gathering weights takes {traffic:.1f} of {step:.1f} seconds, in every pass anew; fewer, larger "
                f"passes gather less: {_size_of_pass(settings, estimate.largest_micro_batch)}"
            )
    if trainer.micro_batch_tokens is not None:
        rows = own_images(settings) * trainer.num_samples
        lines.append(
            f"trainer.micro_batch_tokens={trainer.micro_batch_tokens}: {outputs_per_pass(settings)} of the longest "
            f"completions a pass; of mean ones all {rows} of a GPU in {passes_over(settings, rows)}"
        )
    happens = {
        "the servers' GPUs and memory (decoding is charged to the trainer's GPUs)": settings.rollout.name == "vllm",
        "what the reference computes for rewards of critiques": settings.reward.needs_reference,
        f"up to {trainer.dynamic_sampling} further drawings in a step": trainer.dynamic_sampling > 0,
        "pictures that are asked about again after edits": settings.evaluation.sensitivity > 0,
    }
    uncounted = [words for words, does in happens.items() if does]
    return [*lines, f"not counted: {'; '.join(uncounted)}"] if uncounted else lines


def judging(settings: PlanSettings, steps: int) -> str:
    """Write what the judge of reward.judge is asked in a run of `steps`, its price, and the time that it takes."""
    judge, trainer = settings.reward.judge, settings.trainer
    of_step = trainer.images_per_step * trainer.num_samples
    ratings = estimate_ratings(
        judge,
        questions=steps * of_step,
        critique_tokens=mean_answer(settings),
        max_pixels=settings.data.max_pixels or PAPER_PIXELS,
    )
    tokens = ratings["prompt_tokens"] + ratings["completion_tokens"]
    price = "" if ratings["usd"] is None else f", {ratings['usd']:,.2f} USD"
    return (
        f"reward.judge asks {ratings['calls']:,} questions at most ({of_step} a step): {tokens / 1e6:.2f} million "
        f"tokens{price}; at {CALL_SECONDS:g} seconds a call {ratings['minutes'] / steps:.1f} minutes a step, not "
        "counted above"
    )


def _usd(amount: float) -> str:
    """Write a price, with its cents where they count."""
    return f"{amount:,.2f} USD" if amount < 10 else f"{amount:,.0f} USD"


def _size_of_pass(settings: PlanSettings, outputs: int) -> str:
    """Return the setting, as it is typed, with which a pass holds `outputs` of the longest completions."""
    if settings.trainer.micro_batch_tokens is None:
        return f"trainer.micro_batch_size={outputs}"
    return f"trainer.micro_batch_tokens={pass_tokens(settings, outputs, settings.trainer.max_new_tokens)}"


def _memory_table(estimate: Plan, settings: PlanSettings) -> Table:
    table = Table("memory per GPU", "10^9 bytes", title=f"{outputs_per_pass(settings)} completions in a pass")
    phase_of = {name: phase for phase, names in PHASES.items() for name in names}
    for name, size in estimate.memory.items():
        if size:
            table.add_row(f"{name} ({phase_of[name]})" if name in phase_of else name, f"{size / 1e9:.2f}")
    for phase, size in phase_memory(estimate.memory).items():
        table.add_row(f"together in the {phase}", f"{size / 1e9:.2f} of {settings.plan.memory_gb:g}")
    return table


def _step_table(estimate: Plan) -> Table:
    table = Table("phase of a step", "10^15 FLOP", "seconds")
    for name, seconds in estimate.seconds.items():
        table.add_row(name, f"{estimate.flops[name] / 1e15:.2f}" if name in estimate.flops else "", f"{seconds:.1f}")
    table.add_row("step", f"{sum(estimate.flops.values()) / 1e15:.2f}", f"{sum(estimate.seconds.values()):.1f}")
    return table


def print_plan(estimate: Plan, settings: PlanSettings, console: Console) -> None:
    """Print `estimate` as tables."""
    assumed, trainer = settings.plan, settings.trainer
    gpus = f"{assumed.gpus} GPU{'s' * (assumed.gpus > 1)}"
    twins = f" and {trainer.edited_pairs} edited twins" if trainer.edited_pairs else ""

    def say(line: str) -> None:
        console.print(line, highlight=False)

    path = settings.model.path
    model = settings.model.name if path is None else cost.published_paths(CONF).get(path, path)
    say(
        f"{model}: {estimate.shape.parameters / 1e9:.3f} B parameters, "
        f"{estimate.trained / 1e9:.3f} B trained; "
        f"{settings.engine.name}, {gpus}, N {trainer.images_per_step}{twins}, K {trainer.num_samples}"
    )
    console.print(_memory_table(estimate, settings))
    console.print(_step_table(estimate))
    for line in advice(estimate, settings):
        say(line)
    say(cheapest(settings, estimate.shape))
    mean, limit = mean_answer(settings, shown_in_rapo(settings)), trainer.max_new_tokens
    longest = cost.longest_answer(mean, assumed.longest_answer, limit)
    runaway = f"; a single one that runs to {limit} makes it {estimate.runaway_seconds:.1f} seconds"
    say(
        f"decoding is charged to the longest of a step's answers: {longest} tokens (the mean {mean} times "
        f"{assumed.longest_answer:g}, at most trainer.max_new_tokens={limit}){runaway if longest < limit else ''}"
    )
    price = "" if estimate.usd is None else f", {_usd(estimate.usd)}"
    stages = ", ".join(f"{stage} {hours:.1f}" for stage, hours in estimate.stage_hours.items())
    if "rapo" not in settings.models:
        say("memory on the GPU and seconds per step are those of RAPO, which this run does not have")
    say(
        f"{estimate.steps} steps of RAPO; hours on {gpus}: {stages}, "
        f"together {sum(estimate.stage_hours.values()):.1f}{price}"
    )
    if settings.reward.judge.weight > 0 and estimate.steps > 0:
        say(judging(settings, estimate.steps))
    say(
        f"assumed card (plan.card): {assumed.card}, {assumed.memory_gb:g} GB, {assumed.peak_tflops:g} TFLOP/s, "
        f"{assumed.bandwidth_gb_s:g} GB/s"
    )
    say(
        f"assumed (plan.*): {assumed.pictures} pictures, {assumed.critiques} critiques, {assumed.test_pictures} test "
        f"pictures; MFU {assumed.mfu:g}, decoding at {assumed.decode_efficiency:g} of {assumed.bandwidth_gb_s:g} GB/s, "
        f"ZeRO at {assumed.interconnect_gb_s:g} GB/s"
    )
    on_host = ", ".join(f"{name} {size / 1e9:.0f}" for name, size in estimate.host.items() if size)
    say(f"host memory of the node, 10^9 bytes: {on_host}")
    on_disk = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in estimate.disk.items() if size)
    say(f"disk, 10^9 bytes: at most {most_disk(estimate.disk) / 1e9:.0f} ({on_disk})")


def run(settings: PlanSettings) -> None:
    """Print the cost of the run of `settings`."""
    if settings.engine.name == "single" and settings.plan.gpus > 1:
        raise InputError(
            f"plan.gpus={settings.plan.gpus}: engine=single is one process; give plan.gpus=1 or engine=zero2"
        )
    settings = counted(settings)
    require_a_step(settings.plan.pictures, settings.trainer)
    config = cost.load_config(settings.model.path, settings.model.name, CONF)
    print_plan(plan(settings, cost.shape_of(config)), settings, Console(markup=False, emoji=False))


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    command.run("aes_r1.plan", run, config_name="plan", schema=PlanSettings)


if __name__ == "__main__":
    main()
