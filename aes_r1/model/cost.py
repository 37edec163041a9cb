"""What a model costs before it is run: parameters, floating-point operations, bytes in memory, on disk and on the way.

Parameters are counted on the model itself, built without memory (meta device). Operations count matrix products alone,
a multiplication and an addition as two, attention over the tokens that are really seen. `element` is always the bytes
of one number: 4 in float32, 2 in bfloat16.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aes_r1.model.families import FAMILIES, is_vision, tokens_per_row
from aes_r1.settings import InputError


@dataclass(frozen=True)
class Shape:
    """The numbers of an architecture that costs depend on. Widths in elements, parameters in units."""

    parameters: int
    vision_parameters: int
    layers: int
    width: int
    heads: int  # of the query, in one language layer
    query_width: int  # heads * head width
    key_width: int  # key-value heads * head width
    hidden: int  # feed-forward width
    vocabulary: int
    layer_matrix_parameters: int  # of all language layers together
    vision_layers: int
    vision_width: int
    vision_hidden: int
    vision_per_token: float  # patches that become one language token


def load_config(path: str | None, name: str, shapes: Path) -> Any:
    """The architecture: of `path` when it is a folder, else the published one that is kept in `shapes`/NAME.json."""
    from transformers import AutoConfig

    if path is not None and Path(path).is_dir():
        return AutoConfig.from_pretrained(path)
    file = shapes / f"{name}.json"
    if not file.exists():
        known = ", ".join(sorted(one.stem for one in shapes.glob("*.json")))
        raise InputError(f"model={name}: its shape is not known; give model.path=FOLDER or one of {known}")
    return AutoConfig.for_model(**json.loads(file.read_text()))


def shape_of(config: Any) -> Shape:
    """Raises InputError for a family that is not ours."""
    from transformers import AutoModelForImageTextToText

    if config.model_type not in FAMILIES:
        raise InputError(f"model: a {config.model_type} model; give one of {', '.join(FAMILIES)}")
    # Anew from its fields: that of a loaded model also names an attention that is made for the loaded one.
    config = type(config).from_dict(config.to_dict())
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    model.tie_weights()
    text, vision = config.get_text_config(), config.vision_config
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    named = list(model.named_parameters())
    layers = [p for name, p in named if "language_model.layers." in name and p.dim() == 2]
    return Shape(
        parameters=sum(p.numel() for _, p in named),
        vision_parameters=sum(p.numel() for name, p in named if is_vision(name)),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=text.num_attention_heads,
        query_width=text.num_attention_heads * head_width,
        key_width=text.num_key_value_heads * head_width,
        hidden=text.intermediate_size,
        vocabulary=text.vocab_size,
        layer_matrix_parameters=sum(p.numel() for p in layers),
        vision_layers=getattr(vision, "depth", None) or vision.num_hidden_layers,
        vision_width=vision.hidden_size,
        vision_hidden=vision.intermediate_size,
        vision_per_token=_patches_per_token(config),
    )


def _patches_per_token(config: Any) -> float:
    if config.model_type == "internvl":
        side = config.vision_config.image_size[0] // config.vision_config.patch_size[0]
        return side * side / config.image_seq_length
    return 1 / tokens_per_row(config)


def lora_parameters(shape: Shape, rank: int) -> int:
    """Trained parameters of an adapter on all seven projections of every language layer."""
    wide, query, key, hidden = shape.width, shape.query_width, shape.key_width, shape.hidden
    return shape.layers * rank * (2 * (wide + query) + 2 * (wide + key) + 3 * (wide + hidden))


def language_flops(shape: Shape, tokens: float, attended: float, scored: float) -> float:
    """Forward through the language layers.

    tokens: fed; attended: query-key pairs, summed over the tokens; scored: tokens that meet the head.
    """
    return (
        2 * shape.layer_matrix_parameters * tokens
        + 4 * shape.layers * shape.query_width * attended
        + 2 * shape.width * shape.vocabulary * scored
    )


def vision_flops(shape: Shape, picture_tokens: float) -> float:
    """Forward through the vision tower and its projector for one picture, attention over the whole picture."""
    patches = picture_tokens * shape.vision_per_token
    return 2 * shape.vision_parameters * patches + 4 * shape.vision_layers * shape.vision_width * patches**2


def scoring_flops(
    shape: Shape, prompts: Sequence[int], lengths: Sequence[Sequence[int]], *, shared_prefix: bool
) -> float:
    """Forward through language layers and head that scores completions.

    prompts: tokens of each image's prompt; lengths: tokens of each of its completions. A prompt is computed once per
    image, or once per completion.
    """
    total = 0.0
    for prompt, answers in zip(prompts, lengths, strict=True):
        copies = 1 if shared_prefix else len(answers)
        total += language_flops(shape, copies * prompt, copies * prompt * (prompt + 1) / 2, 0)
        tokens = sum(answers)
        attended = sum(answer * prompt + answer * (answer + 1) / 2 for answer in answers)
        total += language_flops(shape, tokens, attended, tokens)
    return total


def update_flops(
    shape: Shape,
    prompts: Sequence[int],
    pictures: Sequence[float],
    lengths: Sequence[Sequence[int]],
    *,
    shared_prefix: bool,
    adapter: bool,
    vision: bool,
    recomputed: bool = False,
) -> float:
    """Operations of one update over these completions: a forward pass, and a gradient of states and of weights.

    pictures: tokens of each image's picture; adapter: the language layers' weights are fixed and need no gradient (its
    own operations, a few percent, are left out); vision: the vision tower is trained, else it is not run here.
    recomputed: count the forward pass again that gradient checkpointing repeats. Else as `scoring_flops`.
    """
    language = scoring_flops(shape, prompts, lengths, shared_prefix=shared_prefix)
    copies = [1 if shared_prefix else len(answers) for answers in lengths]
    seen = sum(count * vision_flops(shape, tokens) for count, tokens in zip(copies, pictures, strict=True))
    return (2 + (not adapter) + recomputed) * language + (3 + recomputed) * (seen if vision else 0.0)


def language_activation_bytes(shape: Shape, tokens: int, element: int, *, checkpointed: bool) -> int:
    """Bytes that the language layers keep for the backward pass of `tokens` tokens.

    Per token and layer: both norms (input in float32, its normalised form twice), the projections' shared input, query
    and key before and after rotation, value, attention output, gate, its activation, up and their product. With
    gradient checkpointing one state per layer and all of a single layer. The last norm keeps two states.
    """
    norms = 2 * (2 * 4 * shape.width + element * shape.width)
    attention = element * (3 * shape.query_width + 4 * shape.key_width)
    feed_forward = element * 4 * shape.hidden
    layer = norms + attention + feed_forward
    last_norm = 2 * 4 * shape.width
    if checkpointed:
        return tokens * (shape.layers * element * shape.width + layer + last_norm)
    return tokens * (shape.layers * layer + last_norm)


def vision_activation_bytes(shape: Shape, patches: float, element: int, *, checkpointed: bool) -> int:
    """The same for the vision tower: per patch and layer two norms, query, key, value, output and the feed-forward."""
    layer = 2 * (2 * 4 + element) * shape.vision_width + element * (7 * shape.vision_width + 4 * shape.vision_hidden)
    if checkpointed:
        return round(patches * (shape.vision_layers * element * shape.vision_width + layer))
    return round(patches * shape.vision_layers * layer)


def copied_for_rollout_bytes(shape: Shape, element: int, *, adapted: bool) -> int:
    """Bytes that a rollout copies: query, key and value side by side; with an adapter every matrix of the layers."""
    if adapted:
        return shape.layer_matrix_parameters * element
    return shape.layers * shape.width * (shape.query_width + 2 * shape.key_width) * element


def cache_bytes(shape: Shape, tokens: float, element: int) -> int:
    """Keys and values of `tokens` tokens in every layer."""
    return round(2 * shape.layers * shape.key_width * element * tokens)


def decode_weight_bytes(shape: Shape, element: int) -> int:
    """Weights that the decoding of one token reads: the language layers' matrices and the head."""
    return element * (shape.layer_matrix_parameters + shape.width * shape.vocabulary)


def prompt_pass_bytes(shape: Shape, tokens: int, element: int) -> int:
    """Bytes that a pass without gradient holds at once, beside weights and cache: one layer's feed-forward.

    Per token: the state that goes around it, its normalised form, gate, activated gate, up and their product, and what
    comes out.
    """
    return tokens * element * (3 * shape.width + 4 * shape.hidden)


def attention_score_bytes(shape: Shape, rows: int, answer: int, prompt: int, *, checkpointed: bool) -> int:
    """Bytes of attention scores where PyTorch writes them out: its "math" path, which no fused kernel can replace.

    rows: outputs in one pass; answer, prompt: tokens of the longest ones. Each of `heads` heads has a score for every
    pair of an answer's token and what it may look at, in float32, three times over (scores, with the mask, softmax).
    With gradient checkpointing they exist for one layer at a time.
    """
    layers = 1 if checkpointed else shape.layers
    return 3 * 4 * layers * rows * shape.heads * answer * (prompt + answer)


def live_weight_bytes(parameters: int, element: int, *, most: int, ahead: int) -> int:
    """Bytes of whole weights that ZeRO-3 holds in a pass: at most `most` gathered parameters and `ahead` on the way."""
    return element * min(parameters, most + ahead)


def reduce_bytes(largest: int, element: int, *, bucket: int, buckets: int) -> int:
    """Bytes of the buffers in which DeepSpeed sums gradients over processes.

    bucket: elements of one buffer; largest: elements of the largest trained weight, whose gradient stands beside the
    buffer when it does not fit in.
    """
    return element * (buckets * bucket + (largest if largest > bucket else 0))


def optimizer_step_bytes(elements: int, *, gradient_copied: bool) -> int:
    """Bytes that an AdamW step over `elements` parameters adds for a moment: the square root of the second moment.

    gradient_copied: the gradient lies there in half precision and is first copied to float32, as ZeRO does.
    """
    return elements * (8 if gradient_copied else 4)


def traffic_bytes(
    weights: int,
    gradients: int,
    *,
    processes: int,
    stage: int,
    passes: int,
    gathers: int,
    steps: int,
    rollouts: int = 0,
    reference_passes: int = 0,
) -> float:
    """Bytes that each process receives from the others under ZeRO `stage` while it takes `steps` optimizer steps.

    weights, gradients: bytes of all weights and of all gradients, as they are sent; passes: forward and backward passes
    of a process; gathers: how often one such pass needs the weights (3: forward, forward again for the recomputed
    activations, backward; 2 without recomputation); rollouts: gathers of the whole model to decode with it;
    reference_passes: passes of a reference that is divided like the weights. Every process has its own share of what
    is gathered or summed, so it receives (processes - 1) / processes of it.
    """
    others = (processes - 1) / processes
    if stage == 3:
        return others * ((gathers * passes + rollouts + reference_passes) * weights + passes * gradients)
    if stage in (1, 2):  # each process updates its share; the updated weights then go to all
        return others * (passes * gradients + steps * gradients)
    return others * 2 * passes * gradients  # summed on every process


def checkpoint_bytes(trained: int, fixed: int, element: int, *, weights_again: bool) -> int:
    """Bytes on disk of one checkpoint: float32 weights and two moments of what is trained, 12 bytes per parameter.

    fixed: parameters that are not trained, written as they are; weights_again: the trained weights as the model holds
    them are written beside the optimizer's float32 ones. Measured for 19.9 M float32 parameters under ZeRO-3, which
    does not write them again: 12.0 bytes per parameter.
    """
    return (12 + element * weights_again) * trained + element * fixed


def reference_bytes(weights: int, processes: int, place: str) -> tuple[int, int]:
    """Bytes on one GPU of a reference of `weights` bytes: (all the time, more of it while it scores).

    place: none; device, whole on every GPU; sharded, divided among them, its layers gathered as they are needed, which
    needs no more than the update does; host, in host memory, whole on the GPU for its pass.
    """
    return {"none": (0, 0), "device": (weights, 0), "sharded": (weights // processes, 0), "host": (0, weights)}[place]


def longest_answer(mean: int, ratio: float, limit: int) -> int:
    """Tokens of the longest answer of a step: `ratio` times the mean one, at most `limit`."""
    return min(math.ceil(mean * ratio), limit)
