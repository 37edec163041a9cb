"""Log-probability and entropy of completion tokens, in float32, in one chunked pass over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.shared_prefix import grouped_hidden_states, plain_hidden_states
from aes_r1.model.transfer import to_device

CHUNK_LOGITS = 2**25  # logits that exist at once: 134 MB in float32, a few times over


def token_likelihood(
    hidden: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    banned: Tensor | None = None,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, in nats.

    hidden [M, D]; targets [M]; head maps [m, D] to logits [m, V]; banned [V] bool: tokens with probability 0. The
    distribution is softmax(logits / temperature), taken in float32. Logits exist for one chunk at a time and are
    computed again for the gradient, so memory is chunk_tokens * V whatever M is (None: as many as CHUNK_LOGITS allows).
    Entropy carries no gradient.
    Returns (log-probabilities [M], entropies [M]).
    """

    def chunk(part: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(part).float() / temperature
        if banned is not None:
            logits = logits.masked_fill(banned, float("-inf"))
        # Not log_softmax: on a CPU that adds up 152,064 terms so coarsely that it errs by 4e-4 where a model is sure.
        total = logits.logsumexp(dim=-1)
        with torch.no_grad():
            logps = logits - total[:, None]
            entropy = -(logps.exp() * logps.masked_fill(logps == float("-inf"), 0.0)).sum(dim=-1)
        return logits.gather(1, wanted[:, None])[:, 0] - total, entropy

    if chunk_tokens is None:
        vocabulary = len(banned) if banned is not None else head.weight.shape[0]  # type: ignore[attr-defined]
        chunk_tokens = max(256, CHUNK_LOGITS // vocabulary)
    pieces = []
    for start in range(0, len(targets), chunk_tokens):
        part, wanted = hidden[start : start + chunk_tokens], targets[start : start + chunk_tokens]
        if torch.is_grad_enabled() and len(targets) > chunk_tokens:
            pieces.append(checkpoint(chunk, part, wanted, use_reentrant=False))
        else:
            pieces.append(chunk(part, wanted))
    if not pieces:
        nothing = hidden.float().sum(dim=-1)  # [0], but part of the graph: a backward pass meets every weight
        return nothing, nothing.detach()
    return torch.cat([logps for logps, _ in pieces]), torch.cat([entropy for _, entropy in pieces])


def completion_likelihood(
    backbone: Backbone,
    prompts: PromptBatch,
    tokens: Tensor,
    mask: Tensor,
    image_of: Tensor,
    *,
    temperature: float = 1.0,
    shared_prefix: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of every completion token given its picture and prompt.

    tokens, mask: [R, T], right-padded; image_of: [R] in 0..N-1. Keep mask and image_of on the CPU: on a GPU
    reading them would force a synchronisation. Returns two [R, T] float32 tensors, 0 beyond the mask.
    """
    shared = shared_prefix and backbone.shares_prefix
    hidden_states = grouped_hidden_states if shared else plain_hidden_states
    hidden = hidden_states(backbone.core, prompts, tokens, mask, image_of)
    banned = backbone.banned_on(hidden.device)
    places = to_device(mask.flatten().nonzero()[:, 0], hidden.device)
    targets = tokens.flatten().index_select(0, places)

    def score(states: Tensor, head: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        return token_likelihood(states, targets, head, banned=banned, temperature=temperature)

    logps, entropy = backbone.core.lm_head(hidden, score=score)
    empty = torch.zeros(mask.numel(), dtype=torch.float32, device=hidden.device)
    return empty.index_copy(0, places, logps).view(mask.shape), empty.index_copy(0, places, entropy).view(mask.shape)
