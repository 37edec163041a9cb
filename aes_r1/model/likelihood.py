"""Compute log-probability and entropy of completion tokens in float32, in one chunked pass over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import EncodedPrompt, PromptBatch
from aes_r1.model.shared_prefix import grouped_hidden_states, plain_hidden_states
from aes_r1.model.transfer import to_device

# Number of logits in one chunk by device, 134 MB on a CPU and 537 MB on a GPU; up to three such tensors exist at once.
# On a GPU a product with fewer than about a thousand tokens is bound by reading the head's weights; the value allows
# 883 tokens for a vocabulary of 152,064.
CHUNK_LOGITS = {"cpu": 2**25, "cuda": 2**27}


def token_likelihood(
    hidden: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    banned: Tensor | None = None,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each target and the entropy of each distribution, in nats.

    hidden: [M, D]; targets: [M]; head maps [m, D] to logits [m, V]; banned: [V] bool, tokens with probability 0. The
    distribution is softmax(logits / temperature) in float32. Logits exist for one chunk at a time and are recomputed
    for the gradient, so memory is chunk_tokens * V for every M (None: as many tokens as CHUNK_LOGITS allows). Entropy
    carries a gradient only with `entropy_gradient`. Returns (log-probabilities [M], entropies [M]).
    """

    if chunk_tokens is None:
        vocabulary = len(banned) if banned is not None else head.weight.shape[0]  # type: ignore[attr-defined]  # Linear
        chunk_tokens = max(256, CHUNK_LOGITS.get(hidden.device.type, CHUNK_LOGITS["cpu"]) // vocabulary)

    def chunk(states: Tensor, part_targets: Tensor, results: list[Tensor]) -> tuple[Tensor, Tensor]:
        return _Scores.apply(head(states), part_targets, banned, temperature, results, entropy_gradient)

    chunks = []
    for start in range(0, len(targets), chunk_tokens):
        states, part_targets = hidden[start : start + chunk_tokens], targets[start : start + chunk_tokens]
        if torch.is_grad_enabled() and len(targets) > chunk_tokens:
            chunks.append(checkpoint(chunk, states, part_targets, [], use_reentrant=False))
        else:
            chunks.append(chunk(states, part_targets, []))
    if not chunks:
        empty = hidden.float().sum(dim=-1)  # [0], part of the graph: a backward pass reaches every weight
        return empty, empty.detach()
    return torch.cat([logps for logps, _ in chunks]), torch.cat([entropy for _, entropy in chunks])


class _Scores(torch.autograd.Function):
    """Compute log-probabilities of `targets` [m] and entropies from logits [m, V], in at least 32 bits.

    A pass over the m * V numbers costs as much as the head's own product, so there are as few as possible, with at most
    two copies of the logits. results: an empty list that the first forward pass fills with its results; a recomputation
    reads them instead of computing again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        banned: Tensor | None,
        temperature: float,
        results: list[Tensor],
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        if not results:
            scaled = _scaled(logits, banned, temperature)
            largest = scaled.amax(dim=-1, keepdim=True)
            weights = scaled.sub_(largest).exp()
            # log_softmax is too inaccurate on a CPU: over 152,064 terms its error is 4e-4 where a model is confident.
            mass = weights.sum(dim=-1, keepdim=True)
            logps = (scaled.gather(1, targets[:, None]) - mass.log())[:, 0]
            if banned is not None:
                logps = logps.masked_fill(banned[targets], float("-inf"))
            entropy = mass.log()[:, 0] - weights.mul_(scaled).sum(dim=-1) / mass[:, 0]
            results += [logps, entropy, largest + mass.log()]
        logps, entropy, total = results
        ctx.save_for_backward(logits, targets, total, banned, entropy)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)  # the gradient of a result that no loss uses is None, and is not computed
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, entropy_gradient: Tensor | None) -> tuple:
        logits, targets, total, banned, entropy = ctx.saved_tensors
        log_probabilities = _scaled(logits, banned, ctx.temperature).sub_(total)
        gradient = total.new_zeros(len(targets), 1) if gradient is None else gradient[:, None] / ctx.temperature
        if entropy_gradient is None:
            of_logits = log_probabilities.exp_().mul_(-gradient)
        else:  # d entropy / d logit_v = -p_v (log p_v + entropy) / temperature
            probabilities = log_probabilities.exp()
            of_entropy = entropy_gradient[:, None] / ctx.temperature
            # Multiplied by the probability first: a banned token's huge negative number must become 0 and not overflow.
            of_logits = log_probabilities.add_(entropy[:, None]).mul_(probabilities).mul_(-of_entropy)
            of_logits.sub_(probabilities.mul_(gradient))
        if banned is not None:
            gradient = gradient.masked_fill(banned[targets][:, None], 0.0)
        of_logits.scatter_add_(1, targets[:, None], gradient)
        return of_logits.to(logits.dtype), None, None, None, None, None


def _scaled(logits: Tensor, banned: Tensor | None, temperature: float) -> Tensor:
    """Return a copy of logits / temperature in at least 32 bits, with `banned` tokens at half the lowest number.

    The exponential of that is 0. They are not set to minus infinity, because the entropy would then be NaN.
    """
    accurate = torch.promote_types(logits.dtype, torch.float32)
    copy = logits.to(accurate, copy=True)
    if temperature != 1.0:
        copy.div_(temperature)
    return copy if banned is None else copy.masked_fill_(banned, torch.finfo(accurate).min / 2)


def completion_table(completions: Sequence[Sequence[int]], pad_token: int) -> tuple[Tensor, Tensor]:
    """Right-pad R lists of tokens; return the tokens and the mask of the real ones, [R, T >= 1], on the host."""
    shape = len(completions), max(1, *map(len, completions))
    tokens, mask = torch.full(shape, pad_token, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    for row, completion in enumerate(completions):
        tokens[row, : len(completion)] = torch.tensor(completion)
        mask[row, : len(completion)] = True
    return tokens, mask


def completion_likelihood(
    backbone: Backbone,
    prompts: PromptBatch,
    tokens: Tensor,
    mask: Tensor,
    image_of: Tensor,
    *,
    temperature: float = 1.0,
    shared_prefix: bool = True,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy of every completion token, given its picture and prompt.

    tokens, mask: [R, T], right-padded; image_of: [R] in 0..N-1. Keep mask and image_of on the CPU: on a GPU reading
    them would force a synchronisation. Returns two [R, T] float32 tensors, 0 where the mask is False.
    """
    shared = shared_prefix and backbone.shares_prefix
    hidden_states = grouped_hidden_states if shared else plain_hidden_states
    hidden = hidden_states(backbone.core, prompts, tokens, mask, image_of)
    banned = backbone.banned_on(hidden.device)
    positions = to_device(mask.flatten().nonzero()[:, 0], hidden.device)
    targets = tokens.flatten().index_select(0, positions)

    def score(states: Tensor, head: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        return token_likelihood(
            states, targets, head, banned=banned, temperature=temperature, entropy_gradient=entropy_gradient
        )

    logps, entropy = backbone.core.lm_head(hidden, score=score)
    zeros = torch.zeros(mask.numel(), dtype=torch.float32, device=hidden.device)
    return zeros.index_copy(0, positions, logps).view_as(mask), zeros.index_copy(0, positions, entropy).view_as(mask)


def likelihood_of_pairs(
    scorer: Backbone,
    completions: Sequence[Sequence[int]],
    pictures: Callable[[int], EncodedPrompt],
    pairs: Sequence[tuple[int, int]],
    *,
    batch_size: int,
) -> Iterator[Tensor]:
    """Yield the log-probabilities, in nats, of completions under pictures, in batches of `batch_size` pairs.

    completions: lists of tokens; pictures(index): the prompt with a picture, made for each batch that needs it; pairs:
    (index of a completion, index of a picture). A batch is [B, T] float32, 0 beyond a completion's end.
    """
    for start in range(0, len(pairs), batch_size):
        rows, indices = zip(*pairs[start : start + batch_size], strict=True)
        used, image_of = torch.unique(torch.tensor(indices), return_inverse=True)
        prompts = scorer.collate([pictures(index) for index in used.tolist()])
        tokens, mask = completion_table([completions[row] for row in rows], scorer.pad_token)
        logps, _ = completion_likelihood(scorer, prompts.to(scorer.device), tokens.to(scorer.device), mask, image_of)
        yield logps
