"""Draw K completions per image: compute prompt and picture once, then run an explicit decode loop.

The caller passes the noise: one uniform number per token, from a separate generator for each completion. So, up to
rounding, a completion depends only on seed, step, image and k, and not on its batch or the number of processes.
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
from aes_r1.model.quantize import quantised_layers
from aes_r1.model.transfer import to_device
from aes_r1.rollout.decode import Draw, PlainDecoder, SharedDecoder
from aes_r1.rollout.graph import CapturedDecoder, CompiledDecoder, can_compile


@dataclass(frozen=True)
class Rollout:
    """Hold R = N * K completions, image by image.

    tokens: [R, T], right-padded, with the end of the turn if it was reached; mask: [R, T], True on completion tokens;
    logps: [R, T], float32 log-probabilities under the sampling distribution, 0 beyond the mask; truncated: [R], True
    where the end of the turn was not reached.
    """

    tokens: Tensor
    mask: Tensor
    logps: Tensor
    truncated: Tensor


Sampler = Callable[..., Rollout]  # `sample_completions`, or the method of that name of served.ServedPolicy


def keyed_uniform_noise(keys: list[tuple], length: int) -> Tensor:
    """Return [R, length] uniform numbers in [0, 1), each row from a Philox generator keyed by the hash of its key."""
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

    The logits are divided by temperature. noise [N * K, max_new_tokens] in [0, 1) picks each token by inverse CDF; None
    takes the most likely token (greedy). Special tokens other than the end of the turn are never drawn.
    """
    core, device = backbone.core, backbone.device
    prompts = prompts.to(device)
    rows = len(prompts) * num_samples
    noise = None if noise is None else to_device(noise, device)

    decoder = _decoder_of(backbone)(core, prompts, num_samples, max_new_tokens)
    growing = GrowingCompletions(
        rows, max_new_tokens, backbone=backbone, draw=decoder.draw, temperature=temperature, noise=noise
    )

    def token() -> None:
        growing.take(core.lm_head(decoder.step(growing.chosen)))

    growing.take(core.lm_head(decoder.after_prompt))
    for step in range(1, max_new_tokens):
        if step % decoder.sync_every == 0:
            decoded = len(growing.running)
            running = int(growing.running.sum())  # the only host-device synchronisation
            if running == 0:
                break
            if decoder.worth_dropping(decoded - running, decoded):
                # Sorting finds the running rows; nonzero() would force another synchronisation.
                running_rows = growing.running.logical_not().argsort(stable=True)[:running]
                decoder.keep(running_rows)
                growing.keep(running_rows)
        decoder.advance(token)
    return growing.rollout()


class GrowingCompletions:
    """Hold R completions of at most T tokens while they are drawn; `take` never synchronises with the device.

    decoded_rows: [r], indices of the rows that are still decoded; running: [r] bool, which of them have not ended;
    chosen: [r], their latest tokens; position: [1], the index of the next token.
    """

    def __init__(
        self, rows: int, length: int, *, backbone: Backbone, draw: Draw, temperature: float, noise: Tensor | None
    ) -> None:
        device = backbone.device
        self.pad, self.end, self.banned = backbone.pad_token, backbone.end_token, backbone.banned_on(device)
        self.draw, self.temperature, self.noise = draw, temperature, noise
        self.tokens = torch.full((rows, length), self.pad, dtype=torch.long, device=device)
        self.logps = torch.zeros((rows, length), dtype=torch.float32, device=device)
        self.mask = torch.zeros((rows, length), dtype=torch.bool, device=device)
        self.decoded_rows = torch.arange(rows, device=device)
        self.running = torch.ones(rows, dtype=torch.bool, device=device)
        self.chosen = torch.zeros(rows, dtype=torch.long, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)

    def take(self, logits: Tensor) -> None:
        """Draw the next token of every decoded row from `logits` [r, V]."""
        noise = None if self.noise is None else self.noise[self.decoded_rows, self.position]
        chosen, logps = self.draw(logits, self.banned, self.temperature, noise)
        self.tokens[self.decoded_rows, self.position] = torch.where(self.running, chosen, self.pad)
        self.logps[self.decoded_rows, self.position] = torch.where(self.running, logps, 0.0)
        self.mask[self.decoded_rows, self.position] = self.running
        self.running &= chosen != self.end
        self.chosen.copy_(chosen)
        self.position += 1

    def keep(self, rows: Tensor) -> None:
        """Continue with only these of the decoded rows."""
        self.decoded_rows, self.running, self.chosen = self.decoded_rows[rows], self.running[rows], self.chosen[rows]

    def rollout(self) -> Rollout:
        """Return the completions so far, cut to the longest."""
        ended = (self.tokens == self.end) & self.mask
        length = int(self.mask.any(dim=0).sum())
        return Rollout(self.tokens[:, :length], self.mask[:, :length], self.logps[:, :length], ~ended.any(dim=1))


def _decoder_of(backbone: Backbone) -> type[SharedDecoder] | type[PlainDecoder]:
    """Choose the decoder: on a CPU, slices of the cache cost less than masks, and there are no kernel launches to save.

    A model with 4-bit weights is decoded by its own layers, because the other decoders would copy all weights in 16
    bits.
    """
    if not backbone.shares_prefix or quantised_layers(backbone.core):
        return PlainDecoder
    if backbone.device.type != "cuda":
        return SharedDecoder
    return CompiledDecoder if can_compile() else CapturedDecoder
