"""Relative-absolute policy optimisation (paper, section 3.4).

Differs from textbook GRPO in its reward (relative ranking among all N images of the step, joined with absolute error),
in clip-higher, in a failed parse being no score at all, and in the prompt and picture of a group being computed once.

    python -m aes_r1.train +experiment=rapo
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aes_r1.data.prefetch import prefetch
from aes_r1.data.sample import Sample, open_picture
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.transfer import send
from aes_r1.prompts import parse_score
from aes_r1.reward.total import total_reward
from aes_r1.rollout.sampler import Rollout, row_noise, sample
from aes_r1.runs.stopping import Stopped, StopRequest
from aes_r1.settings import RewardSettings, TrainerSettings
from aes_r1.trainer import checkpoint
from aes_r1.trainer.credit import critique_mask, token_advantages, token_kl_coef
from aes_r1.trainer.engine import Engine, now, peak_memory_gb
from aes_r1.trainer.micro_batches import micro_batches
from aes_r1.trainer.objective import group_advantage, learning_rate, loss_divisor, policy_loss, zero_spread
from aes_r1.trainer.order import distinct_indices_of_step
from aes_r1.trainer.reference import Reference
from aes_r1.trainer.skipped import Skips

REMEDY = "lower trainer.lr, raise trainer.kl_coef, or train with model.dtype=float32"


class Piece(NamedTuple):
    """One forward pass: r rows [r] of the rollout, their tokens [r, longest], and whether they count in the loss."""

    rows: Tensor
    mask: Tensor
    counts: bool


def rapo_steps(count: int, trainer: TrainerSettings) -> int:
    """Optimizer steps of the whole run over `count` images."""
    return trainer.max_steps or math.ceil(count * trainer.epochs / trainer.images_per_step)


def train_rapo(
    backbone: Backbone,
    reference: Reference | None,
    engine: Engine,
    images: Sequence[Sample],
    *,
    question: str,
    trainer: TrainerSettings,
    reward: RewardSettings,
    shared_prefix: bool,
    seed: int,
    folder: Path,
    log: Callable[[int, dict[str, float]], None],
    log_completions: Callable[[int, list[dict]], None],
    evaluate: Callable[[], dict[str, float]],
    stop: StopRequest,
    going_on: Callable[[int], None] = lambda _: None,
    notes: dict[str, str] | None = None,
) -> None:
    """Train `backbone` in place; `reference` is the frozen start (None: no KL, or an adapter is switched off for it).

    Resumes from `folder`, RUN/checkpoints; the model of the best validation is kept beside it, in RUN/best.

    `evaluate()` gives validation metrics by glossary name; `going_on(step)` is called once with the steps that are
    done; `notes` are kept in every checkpoint. Raises Stopped after a checkpoint when asked to stop.
    """
    total = rapo_steps(len(images), trainer)
    progress = checkpoint.load_latest(folder, engine) or {"step": 0}
    best = progress.get("best")
    skips = Skips(progress.get("skipped_in_a_row", 0))
    going_on(progress["step"])
    own = range(engine.rank, trainer.images_per_step, engine.size)
    device = engine.device
    pools = {name: number for number, name in enumerate(sorted({one.dataset for one in images}))}
    likelihood: dict[str, Any] = {"temperature": trainer.temperature, "shared_prefix": shared_prefix}

    # -- data ----------------------------------------------------------------------------------------------------------
    def images_of(step: int) -> list[Sample]:
        chosen = distinct_indices_of_step(step, per_step=trainer.images_per_step, count=len(images), seed=seed)
        return [images[chosen[position]] for position in own]

    upcoming = (one for step in range(progress["step"], total) for one in images_of(step))
    encoded = prefetch(
        upcoming, lambda one: backbone.encode(open_picture(one.image), question), workers=1, ahead=2 * len(own)
    )

    for step in range(progress["step"], total):
        started = now(device)
        batch = images_of(step)
        read = [next(encoded) for _ in batch]
        rollout_started = now(device)
        prompts = backbone.collate(read).to(device)
        mos = engine.gather(torch.tensor([one.mos for one in batch], device=device))
        pool = engine.gather(torch.tensor([pools[one.dataset] for one in batch], device=device))

        # -- rollout ---------------------------------------------------------------------------------------------------
        backbone.model.eval()
        noise = row_noise(
            [("rollout", seed, step, one.id, k) for one in batch for k in range(trainer.num_samples)],
            trainer.max_new_tokens,
        )
        with engine.gathered():
            prompts = backbone.see(prompts)
            rollout = sample(
                backbone,
                prompts,
                num_samples=trainer.num_samples,
                max_new_tokens=trainer.max_new_tokens,
                temperature=trainer.temperature,
                noise=noise,
            )
        answers = [tokens[mask] for tokens, mask in zip(rollout.tokens.cpu(), rollout.mask.cpu(), strict=True)]
        texts = [backbone.decode(tokens) for tokens in answers]
        parsed = [parse_score(text) for text in texts]
        rollout_seconds = now(device) - rollout_started

        # -- reward: over the images of all processes, so that N is global ---------------------------------------------
        own_scores = torch.tensor([math.nan if score is None else score for score in parsed], device=device)
        scores = engine.gather(own_scores.reshape(len(batch), trainer.num_samples))
        guesses = None
        if reward.failed_parse == "random":
            keys = [("guess", seed, step, one.id, k) for one in batch for k in range(trainer.num_samples)]
            guesses = engine.gather(row_noise(keys, 1).to(scores).reshape(len(batch), trainer.num_samples))
        rewards, parts = total_reward(scores, mos, reward, pool=pool, progress=step / total, guesses=guesses)

        # -- credit ----------------------------------------------------------------------------------------------------
        advantages = group_advantage(rewards, scale=trainer.scale_advantage)
        flat_groups = zero_spread(rewards)
        mine = slice(engine.rank * len(batch), (engine.rank + 1) * len(batch))
        own_advantages = advantages[mine]
        said = critique_mask(
            [backbone.pieces(tokens) for tokens in answers], parsed, length=rollout.mask.shape[1], device=device
        )
        credit = token_advantages(own_advantages, None, said, trainer.credit)
        kl_coef = token_kl_coef(trainer.kl_coef, trainer.critique_kl_coef, said)
        in_loss = rollout.mask.clone()
        if trainer.mask_truncated:
            in_loss &= ~rollout.truncated[:, None]
        if trainer.drop_zero_spread:
            in_loss &= ~flat_groups[mine].repeat_interleave(trainer.num_samples)[:, None]

        # -- reference -------------------------------------------------------------------------------------------------
        reference_started = now(device)
        every_row = torch.arange(len(in_loss))
        cut = _cutter(trainer, rollout, prompts, engine, shared_prefix and backbone.shares_prefix)
        everything = cut(every_row)
        minibatches = [(rows, cut(rows)) for rows in every_row.chunk(trainer.minibatches)]
        ref_logps = old_logps = None
        if trainer.needs_reference:
            with _reference_weights(backbone, reference) as frozen:
                ref_logps = _score(frozen, prompts, rollout, everything, trainer, likelihood)
        if trainer.inner_epochs * trainer.minibatches > 1:
            old_logps = rollout.logps  # of the policy that drew the tokens, so no pass more is needed
        update_started = now(device)

        # -- loss and step ---------------------------------------------------------------------------------------------
        backbone.model.train()
        lr = learning_rate(step, total, base=trainer.lr, schedule=trainer.lr_schedule, warmup=trainer.warmup_steps)
        sums: dict[str, Tensor] = {}
        gaps: list[Tensor] = []
        skipped = 0
        for number, (minibatch, pieces) in enumerate(minibatches * trainer.inner_epochs):
            in_minibatch = in_loss[send(minibatch, device)]
            own_divisor = loss_divisor(in_minibatch, trainer.aggregation, trainer.max_new_tokens)
            divisor = engine.total(own_divisor).clamp(min=1)  # of everyone, and no output at all divides by 1
            for chosen, mask, counts in pieces:
                groups, image_of = torch.unique(chosen // trainer.num_samples, return_inverse=True)
                rows, longest = send(chosen, device), mask.shape[1]
                logps, entropy = completion_likelihood(
                    backbone, prompts.select(groups), rollout.tokens[rows, :longest], mask, image_of, **likelihood
                )
                loss, metrics = policy_loss(
                    logps,
                    logps.detach() if old_logps is None else old_logps[rows, :longest],
                    None if ref_logps is None else ref_logps[rows, :longest],
                    credit[rows, :longest],
                    in_loss[rows, :longest] & counts,
                    clip_low=trainer.clip_low,
                    clip_high=trainer.clip_high,
                    kl_coef=kl_coef[rows, :longest] if isinstance(kl_coef, Tensor) else kl_coef,
                    aggregation=trainer.aggregation,
                    normalizer=divisor,
                )
                engine.backward(loss)
                if counts and number == 0:  # until the first update the trainer's weights are the sampler's
                    gaps.append((logps.detach() - rollout.logps[rows, :longest]).abs())  # 0 beyond the mask
                if counts:
                    _accumulate(sums, metrics, entropy, int(mask.sum()))
                    sums["loss"] = sums.get("loss", 0.0) + loss.detach()
            grad_norm = float(engine.step(lr))
            skipped += skips.count(grad_norm)
        update_seconds = now(device) - update_started

        # -- log -------------------------------------------------------------------------------------------------------
        values = {
            **{f"reward/{name}": float(part.mean()) for name, part in {"total": rewards, **parts}.items()},
            **_policy_metrics(sums, engine),
            "policy/grad_norm": grad_norm,
            "policy/skipped_steps": skipped,
            **_rollout_metrics(scores, flat_groups, rollout, engine),
            **_mismatch(gaps, minibatches[0][1], engine),
            "lr": lr,
            "time/rollout_s": rollout_seconds,
            "time/reference_s": update_started - reference_started,
            "time/update_s": update_seconds,
            "time/wait_s": rollout_started - started,
            "time/step_s": now(device) - started,
            "perf/tokens_per_s": float(engine.total(rollout.mask.sum())) / (now(device) - started),
            "perf/peak_memory_gb": peak_memory_gb(),
        }
        if step == 0 or (step + 1) % trainer.completions_every == 0:
            own_parts = {name: part[mine].flatten().tolist() for name, part in {"total": rewards, **parts}.items()}
            log_completions(
                step + 1,
                [
                    {
                        "id": batch[row // trainer.num_samples].id,
                        "image": batch[row // trainer.num_samples].image,
                        "mos": batch[row // trainer.num_samples].mos,
                        "k": row % trainer.num_samples,
                        "text": texts[row],
                        "score": parsed[row],
                        **{f"reward_{name}": part[row] for name, part in own_parts.items()},
                        "advantage": float(own_advantages.flatten()[row]),
                        "truncated": bool(rollout.truncated[row]),
                    }
                    for row in range(len(texts))
                ],
            )

        # -- evaluate --------------------------------------------------------------------------------------------------
        last = step + 1 == total
        score: float | None = None
        if last or (step + 1) % trainer.eval_every == 0:
            evaluated = now(device)
            backbone.model.eval()
            with engine.gathered():
                validation = evaluate()
            score = _validation_score(validation)
            values |= {**validation, "time/evaluate_s": now(device) - evaluated}
        log(step + 1, values)

        # -- save ------------------------------------------------------------------------------------------------------
        stopping, before = engine.agreed(bool(stop)), best
        best = checkpoint.better(best, step + 1, score)
        if best is not None and best != before:
            checkpoint.save_best(folder, best["step"], best["score"], engine, backbone)
        if stopping or last or skips.too_many or (step + 1) % trainer.save_every == 0:
            progress = {"best": best, "skipped_in_a_row": skips.in_a_row, **(notes or {})}
            checkpoint.save(folder, step + 1, engine, progress, keep=trainer.keep_checkpoints, backbone=backbone)
        if not last:
            skips.end_if_too_many(step + 1, folder, REMEDY)
        if stopping and not last:
            raise Stopped(engine.agreed(stop.requeue))
    skips.end_if_too_many(total, folder, REMEDY)


@contextlib.contextmanager
def _reference_weights(backbone: Backbone, reference: Reference | None) -> Iterator[Backbone]:
    """The frozen start: a copy of its own, or the policy with its adapter switched off."""
    if reference is not None:
        with reference.gathered() as frozen:
            yield frozen
        return
    with backbone.model.disable_adapter():
        yield backbone


def _cutter(
    trainer: TrainerSettings, rollout: Rollout, prompts: PromptBatch, engine: Engine, shared: bool
) -> Callable[[Tensor], list[Piece]]:
    """The step's cut into forward passes, rows -> pieces, on the host. Collective where pieces differ in size.

    Lengths leave the device once per step, here, so that no pass has to ask for them. ZeRO gathers weights and sums
    gradients in every pass, so all processes take as many: whoever has fewer pieces scores its shortest row again.
    """
    lengths = rollout.mask.sum(dim=1).tolist()

    def cut(rows: Tensor) -> list[Piece]:
        pieces = micro_batches(
            rows.tolist(),
            lengths,
            prompts.prompt_tokens,
            num_samples=trainer.num_samples,
            shared_prefix=shared,
            size=trainer.micro_batch_size,
            max_tokens=trainer.micro_batch_tokens,
        )
        own = len(pieces)
        if engine.size > 1 and trainer.micro_batch_tokens is not None:
            most = int(engine.maximum(torch.tensor(own, device=engine.device)))
            pieces += [[min(rows.tolist(), key=lambda row: lengths[row])]] * (most - own)
        tokens = [torch.tensor([lengths[row] for row in piece]) for piece in pieces]
        masks = [torch.arange(int(counts.max())) < counts[:, None] for counts in tokens]
        return [
            Piece(torch.tensor(one), mask, at < own) for at, (one, mask) in enumerate(zip(pieces, masks, strict=True))
        ]

    return cut


@torch.no_grad()
def _score(
    backbone: Backbone,
    prompts: PromptBatch,
    rollout: Rollout,
    pieces: list[Piece],
    trainer: TrainerSettings,
    likelihood: dict,
) -> Tensor:
    """[R, T] log-probabilities of the rollout's tokens under `backbone`, without gradient."""
    scored = torch.zeros(rollout.mask.shape, dtype=torch.float32, device=rollout.mask.device)
    for chosen, mask, _ in pieces:
        groups, image_of = torch.unique(chosen // trainer.num_samples, return_inverse=True)
        rows, longest = send(chosen, scored.device), mask.shape[1]
        scored[rows, :longest], _ = completion_likelihood(
            backbone, prompts.select(groups), rollout.tokens[rows, :longest], mask, image_of, **likelihood
        )
    return scored


def _accumulate(sums: dict[str, Tensor], metrics: dict[str, Tensor], entropy: Tensor, count: int) -> None:
    """Add one micro-batch's means, weighted by its tokens; tensors stay on the device."""
    weighted = {
        name: value * metrics["tokens"] for name, value in metrics.items() if name not in ("tokens", "ratio_max")
    }
    added = {
        **weighted,
        "tokens": metrics["tokens"],
        "entropy": entropy.sum(),
        "completion_tokens": entropy.new_full((), count),
    }
    for name, value in added.items():
        sums[name] = sums.get(name, torch.zeros_like(value)) + value
    sums["ratio_max"] = torch.maximum(sums.get("ratio_max", metrics["ratio_max"]), metrics["ratio_max"])


def _policy_metrics(sums: dict[str, Tensor], engine: Engine) -> dict[str, float]:
    loss = engine.total(sums.pop("loss"))  # a sum over micro-batches, already divided by the whole step's divisor
    names = sorted(name for name in sums if name != "ratio_max")
    totals = dict(zip(names, engine.total(torch.stack([sums[name].float() for name in names])).tolist(), strict=True))
    tokens, completion_tokens = max(totals.pop("tokens"), 1.0), max(totals.pop("completion_tokens"), 1.0)
    return {
        "policy/loss": float(loss),
        "policy/entropy": totals.pop("entropy") / completion_tokens,
        **{f"policy/{name}": value / tokens for name, value in totals.items()},
        "policy/ratio_max": float(engine.maximum(sums["ratio_max"])),
    }


def _mismatch(gaps: list[Tensor], pieces: list[Piece], engine: Engine) -> dict[str, float]:
    """How far the trainer's log-probabilities are from the sampler's, over all processes' tokens of `pieces`.

    gaps: |difference| of each counted piece, [r, longest], 0 beyond its mask.
    """
    tokens = sum(int(piece.mask.sum()) for piece in pieces if piece.counts)
    sums = torch.stack([gap.sum() for gap in gaps]).sum()
    total, count = engine.total(torch.stack([sums, sums.new_tensor(tokens)])).tolist()
    return {
        "rollout/mismatch_mean": total / count,
        "rollout/mismatch_max": float(engine.maximum(torch.stack([gap.max() for gap in gaps]).max())),
    }


def _validation_score(validation: dict[str, float]) -> float | None:
    """Mean SRCC over the validation sets, by which the best model is kept; None where nothing was validated.

    A set whose answers have no SRCC (all alike, or too few) counts as 0, as answers that rank nothing do. Left out, it
    would leave a mean over other sets, which no other step's could be compared with.
    """
    found = [0.0 if math.isnan(value) else value for name, value in validation.items() if name.endswith("/srcc")]
    return sum(found) / len(found) if found else None


def _rollout_metrics(scores: Tensor, flat_groups: Tensor, rollout: Rollout, engine: Engine) -> dict[str, float]:
    answered = scores[~scores.isnan()]
    rows = float(scores.numel())
    return {
        "rollout/parse_failure_rate": 1 - len(answered) / rows,
        "rollout/truncated_rate": float(engine.total(rollout.truncated.sum())) / rows,
        "rollout/zero_spread_groups": float(flat_groups.float().mean()),
        "rollout/length_mean": float(engine.total(rollout.mask.sum())) / rows,
        "rollout/score_mean": float(answered.mean()) if len(answered) else math.nan,
        "rollout/score_std": float(answered.std()) if len(answered) > 1 else math.nan,
    }
