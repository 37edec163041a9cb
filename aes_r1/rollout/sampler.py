"""Draw K completions per image: prompt and picture computed once, then an explicit decode loop.

Noise is handed in: one uniform number per token, from a generator of its own per completion. So a completion depends on
seed, step, image and k alone, never on its batch, its neighbours or the number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.transfer import to_device
from aes_r1.rollout.decode import PlainDecoder, SharedDecoder
from aes_r1.rollout.graph import CapturedDecoder


@dataclass(frozen=True)
class Rollout:
    """R = N * K completions, image by image.

    tokens [R, T]: right-padded, the end of the turn included where it was reached; mask [R, T]: True on completion
    tokens; logps [R, T]: float32 log-probabilities under the sampling distribution, 0 beyond the mask; truncated [R]:
    the end of the turn was not reached.
    """

    tokens: Tensor
    mask: Tensor
    logps: Tensor
    truncated: Tensor


Sampler = Callable[..., Rollout]  # `sample_completions`, or the method of that name of served.ServedPolicy


def keyed_uniform_noise(keys: list[tuple], length: int) -> Tensor:
    """[R, length] uniform numbers in [0, 1), each row from a Philox generator keyed by the hash of its key."""
    rows = np.empty((len(keys), length), dtype=np.float32)
    for row, key in enumerate(keys):
        digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        rows[row] = generator.random(length, dtype=np.float32)
    return torch.from_numpy(rows)


@torch.no_grad()
def sample_completions(
    backbone: Backbone,
    prompts: PromptBatch,
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    noise: Tensor | None,
) -> Rollout:
    """Draw `num_samples` completions for each of N prompts.

    temperature scales the logits; noise [N * K, max_new_tokens] in [0, 1) picks each token by inverse CDF, None takes
    the most likely token (greedy). Special tokens other than the end of the turn are never drawn.
    """
    core, device = backbone.core, backbone.device
    prompts = prompts.to(device)
    rows = len(prompts) * num_samples
    banned = backbone.banned_on(device)
    noise = None if noise is None else to_device(noise, device)

    decoder = _decoder_of(backbone)(core, prompts, num_samples, max_new_tokens)
    hidden = decoder.after_prompt
    position = prompts.next_position_ids.repeat_interleave(num_samples)

    tokens = torch.full((rows, max_new_tokens), backbone.pad_token, dtype=torch.long, device=device)
    logps = torch.zeros((rows, max_new_tokens), dtype=torch.float32, device=device)
    mask = torch.zeros((rows, max_new_tokens), dtype=torch.bool, device=device)
    alive = torch.arange(rows, device=device)  # rows that the cache still holds
    running = torch.ones(rows, dtype=torch.bool, device=device)  # of those, the ones without an end yet

    for step in range(max_new_tokens):
        chosen, chosen_logps = _draw(
            core.lm_head(hidden), banned, temperature, None if noise is None else noise[alive, step]
        )
        tokens[alive, step] = torch.where(running, chosen, backbone.pad_token)
        logps[alive, step] = torch.where(running, chosen_logps, 0.0)
        mask[alive, step] = running
        running = running & (chosen != backbone.end_token)
        left = int(running.sum())  # the only host-device synchronisation of a token
        if left == 0 or step + 1 == max_new_tokens:
            break
        if decoder.worth_dropping(len(running) - left, len(running)):
            kept = running.logical_not().argsort(stable=True)[:left]  # nonzero() would force one more
            decoder.keep(kept)
            alive, position, chosen, running = alive[kept], position[kept], chosen[kept], running[kept]
        hidden = decoder.step(chosen, position + step)

    ended = (tokens == backbone.end_token) & mask
    length = int(mask.any(dim=0).sum())
    return Rollout(tokens[:, :length], mask[:, :length], logps[:, :length], ~ended.any(dim=1))


def _decoder_of(backbone: Backbone) -> type[SharedDecoder] | type[PlainDecoder]:
    """On a CPU slices of the cache are cheaper than masks, and launching costs nothing that a graph could save."""
    if not backbone.shares_prefix:
        return PlainDecoder
    return CapturedDecoder if backbone.device.type == "cuda" else SharedDecoder


def _draw(logits: Tensor, banned: Tensor, temperature: float, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token per row of `logits` [R, V] by inverse CDF at `noise` [R], or the likeliest: (tokens [R], log-p [R])."""
    logits = logits.float().div(temperature).masked_fill_(banned, float("-inf"))
    if noise is None:
        chosen = logits.argmax(dim=-1)
    else:
        cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
        threshold = noise[:, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return chosen, logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(dim=-1)
