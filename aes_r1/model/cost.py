"""Compute what a model costs before it runs: parameters, operations, and bytes in memory, on disk and in transfer.

Parameters are counted on the model itself, built on the meta device without memory. Only matrix products count as
operations, with a multiplication and an addition as two, and attention only over the tokens that are attended to.
`element` is always the bytes of one number: 4 in float32, 2 in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aes_r1.model.families import FAMILIES, LANGUAGE_PARTS, is_vision, patches_per_token
from aes_r1.model.files import config_of
from aes_r1.runs.files import read_json
from aes_r1.settings import InputError, values_of


@dataclass(frozen=True)
class Shape:
    """Hold the numbers of an architecture on which costs depend: widths in elements, sizes in parameters."""

    parameters: int
    vision_parameters: int
    layers: int
    width: int
    heads: int  # query heads in one language layer
    query_width: int  # heads * head width
    key_width: int  # key-value heads * head width
    hidden: int  # feed-forward width
    vocabulary: int
    layer_matrix_parameters: int  # of all language layers together
    vision_layers: int
    vision_width: int
    vision_hidden: int
    vision_per_token: float  # patches per language token
    vision_linear_sides: int = 0  # inputs plus outputs, summed over the linear layers of vision tower and projector


def published_paths(conf: Path) -> dict[str, str]:
    """Return {hub name: recipe} of the models of which `conf`/shapes holds the configuration."""
    stems = sorted(file.stem for file in (conf / "shapes").glob("*.json"))
    return {values_of(conf / f"model/{stem}.yaml")["path"]: stem for stem in stems}


def load_config(path: str | None, name: str, conf: Path) -> Any:
    """Return the configuration of the model at `path`, or of the recipe `name` where `path` is None.

    The configurations of the models in `conf`/model are kept in `conf`/shapes, so that the hub need not be asked.
    Raises InputError for a path that is no model, and for a recipe without a configuration in `conf`/shapes.
    """
    from transformers import AutoConfig

    if path is not None and path not in published_paths(conf):
        config = config_of(path, "model.path")
        return AutoConfig.from_pretrained(path) if Path(path).is_dir() else AutoConfig.for_model(**config)
    shapes = {file.stem: file for file in sorted((conf / "shapes").glob("*.json"))}
    stem = name if path is None else published_paths(conf)[path]
    if stem not in shapes:
        raise InputError(
            f"model={name}: its shape is not known; give model.path=FOLDER or one of {', '.join(shapes)}. The tiny "
            "model needs none"
        )
    return AutoConfig.for_model(**read_json(shapes[stem]))


def shape_of(config: Any) -> Shape:
    """Return the shape of a configuration; raise InputError for a family that is not in FAMILIES."""
    from transformers import AutoModelForImageTextToText

    if config.model_type not in FAMILIES:
        raise InputError(f"model: a {config.model_type} model; give one of {', '.join(FAMILIES)}")
    # Copy the configuration: that of a loaded model names an attention that works only with the loaded model.
    config = type(config).from_dict(config.to_dict())
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    model.tie_weights()
    text, vision = config.get_text_config(), config.vision_config
    width = getattr(vision, "embed_dim", None) or vision.hidden_size  # Qwen2-VL names its output's width hidden_size
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    parameters = list(model.named_parameters())
    layers = [p for name, p in parameters if any(f"{part}.layers." in name for part in LANGUAGE_PARTS) and p.dim() == 2]
    return Shape(
        parameters=sum(p.numel() for _, p in parameters),
        vision_parameters=sum(p.numel() for name, p in parameters if is_vision(name)),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=text.num_attention_heads,
        query_width=text.num_attention_heads * head_width,
        key_width=text.num_key_value_heads * head_width,
        hidden=text.intermediate_size,
        vocabulary=text.vocab_size,
        layer_matrix_parameters=sum(p.numel() for p in layers),
        vision_layers=getattr(vision, "depth", None) or vision.num_hidden_layers,
        vision_width=width,
        vision_hidden=getattr(vision, "intermediate_size", None) or int(width * vision.mlp_ratio),
        vision_per_token=patches_per_token(config),
        vision_linear_sides=sum(
            layer.in_features + layer.out_features
            for name, layer in model.named_modules()
            if isinstance(layer, torch.nn.Linear) and is_vision(name)
        ),
    )


def lora_parameters(shape: Shape, rank: int, *, vision: bool = False) -> int:
    """Return the number of trained parameters of an adapter on all seven projections of every language layer.

    vision: the adapter is in all linear layers of vision tower and projector as well.
    """
    if vision:
        return lora_parameters(shape, rank) + rank * shape.vision_linear_sides
    width, query, key, hidden = shape.width, shape.query_width, shape.key_width, shape.hidden
    return shape.layers * rank * (2 * (width + query) + 2 * (width + key) + 3 * (width + hidden))


def language_flops(shape: Shape, tokens: float, attended: float, scored: float) -> float:
    """Return the operations of a forward pass through the language layers and the head.

    tokens: the number of input tokens; attended: query-key pairs, summed over the tokens; scored: tokens for which the
    head computes logits.
    """
    return (
        2 * shape.layer_matrix_parameters * tokens
        + 4 * shape.layers * shape.query_width * attended
        + 2 * shape.width * shape.vocabulary * scored
    )


def vision_flops(shape: Shape, picture_tokens: float) -> float:
    """Return the operations of a forward pass of one picture through vision tower and projector.

    Every patch attends to the whole picture.
    """
    patches = picture_tokens * shape.vision_per_token
    return 2 * shape.vision_parameters * patches + 4 * shape.vision_layers * shape.vision_width * patches**2


def scoring_flops(
    shape: Shape, prompts: Sequence[int], lengths: Sequence[Sequence[int]], *, shared_prefix: bool
) -> float:
    """Return the operations of a forward pass through language layers and head that scores completions.

    prompts: tokens of each image's prompt; lengths: tokens of each of its completions. With shared_prefix a prompt is
    computed once per image, otherwise once per completion.
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
    pictures: Sequence[Sequence[float]],
    lengths: Sequence[Sequence[int]],
    *,
    shared_prefix: bool,
    adapter: bool,
    vision: bool,
    recomputed: bool = False,
) -> float:
    """Return the operations of one update: a forward pass, and the gradients of activations and weights.

    pictures: tokens of each picture in each prompt; adapter: the language layers' weights are frozen and need no
    gradient (the adapter's own operations, a few percent, are not counted); vision: the vision tower is trained,
    otherwise it does not run here; recomputed: count the second forward pass of gradient checkpointing. The other
    arguments are those of `scoring_flops`.
    """
    language = scoring_flops(shape, prompts, lengths, shared_prefix=shared_prefix)
    copies = [1 if shared_prefix else len(answers) for answers in lengths]
    vision_pass = sum(
        count * vision_flops(shape, tokens)
        for count, of_prompt in zip(copies, pictures, strict=True)
        for tokens in of_prompt
    )
    return (2 + (not adapter) + recomputed) * language + (3 + recomputed) * (vision_pass if vision else 0.0)


def language_activation_bytes(shape: Shape, tokens: int, element: int, *, checkpointed: bool) -> int:
    """Return the bytes that the language layers keep for the backward pass of `tokens` tokens.

    Per token and layer these are: both norms (the input in float32, its normalised form twice), the input of the
    projections, query and key before and after rotation, value, attention output, gate, activated gate, up and their
    product. With gradient checkpointing each layer keeps one state, and one layer at a time keeps everything. The last
    norm keeps two states.
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
    """Return the bytes that the vision tower keeps for the backward pass of `patches` patches.

    Per patch and layer these are two norms, query, key, value, output and the feed-forward.
    """
    layer = 2 * (2 * 4 + element) * shape.vision_width + element * (7 * shape.vision_width + 4 * shape.vision_hidden)
    if checkpointed:
        return round(patches * (shape.vision_layers * element * shape.vision_width + layer))
    return round(patches * shape.vision_layers * layer)


def copied_for_rollout_bytes(shape: Shape, element: int, *, adapted: bool) -> int:
    """Return the bytes of weights that a rollout copies.

    These are query, key and value, joined; with an adapter, every matrix of the language layers.
    """
    if adapted:
        return shape.layer_matrix_parameters * element
    return shape.layers * shape.width * (shape.query_width + 2 * shape.key_width) * element


def cache_bytes(shape: Shape, tokens: float, element: int) -> int:
    """Return the bytes of the keys and values of `tokens` tokens in every layer."""
    return round(2 * shape.layers * shape.key_width * element * tokens)


def decode_weight_bytes(shape: Shape, element: int) -> int:
    """Return the bytes of the weights that decoding one token reads: the language layers' matrices and the head."""
    return element * (shape.layer_matrix_parameters + shape.width * shape.vocabulary)


def prompt_pass_bytes(shape: Shape, tokens: int, element: int) -> int:
    """Return the peak bytes of a pass without gradient beside weights and cache: the feed-forward of one layer.

    Per token these are the residual state, its normalised form, gate, activated gate, up, their product, and the
    output.
    """
    return tokens * element * (3 * shape.width + 4 * shape.hidden)


def attention_score_bytes(shape: Shape, rows: int, answer: int, prompt: int, *, checkpointed: bool) -> int:
    """Return the bytes of attention scores in PyTorch's "math" path, which runs where no fused kernel applies.

    rows: completions in one pass; answer, prompt: tokens of the longest ones. Each head has a float32 score for every
    pair of an answer token and a token that it may attend to, three times: the scores, the masked scores and the
    softmax. With gradient checkpointing they exist for one layer at a time.
    """
    layers = 1 if checkpointed else shape.layers
    return 3 * 4 * layers * rows * shape.heads * answer * (prompt + answer)


def live_weight_bytes(parameters: int, element: int, *, most: int, ahead: int) -> int:
    """Return the bytes of the full weights that ZeRO-3 holds in a pass: at most `most` gathered and `ahead` prefetched.

    most, ahead: numbers of parameters.
    """
    return element * min(parameters, most + ahead)


def reduce_bytes(largest: int, element: int, *, bucket: int, buckets: int) -> int:
    """Return the bytes of the buffers in which DeepSpeed sums gradients over processes.

    bucket: elements of one buffer; largest: elements of the largest trained weight, whose gradient needs memory of its
    own if it does not fit into the buffer.
    """
    return element * (buckets * bucket + (largest if largest > bucket else 0))


def optimizer_step_bytes(elements: int, *, gradient_copied: bool) -> int:
    """Return the temporary bytes of an AdamW step over `elements` parameters: the square root of the second moment.

    gradient_copied: the gradient is kept in half precision and is first copied to float32, as ZeRO does.
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
    """Return the bytes that each process receives from the others under ZeRO `stage` in `steps` optimizer steps.

    weights, gradients: bytes of all weights and of all gradients, in the dtype in which they are sent; passes: forward
    and backward passes of one process; gathers: how often one such pass needs the weights (3: forward, forward again
    for the recomputed activations, backward; 2 without recomputation); rollouts: gathers of the whole model to decode
    with it; reference_passes: passes of a reference model that is sharded like the weights. Every process already has
    its own share of what is gathered or summed, so it receives (processes - 1) / processes of it.
    """
    share_of_others = (processes - 1) / processes
    if stage == 3:
        return share_of_others * ((gathers * passes + rollouts + reference_passes) * weights + passes * gradients)
    if stage in (1, 2):  # each process updates its share and sends the updated weights to all
        return share_of_others * (passes * gradients + steps * gradients)
    return share_of_others * 2 * passes * gradients  # an all-reduce of the gradients on every process


def checkpoint_bytes(trained: int, fixed: int, element: int, *, weights_again: bool) -> int:
    """Return the bytes of one checkpoint on disk: float32 weights and two moments, 12 bytes per trained parameter.

    fixed: parameters that are not trained and are written as they are; weights_again: the trained weights are also
    written in the model's dtype, beside the optimizer's float32 ones. Measured for 19.9 M float32 parameters under
    ZeRO-3, which does not write them again: 12.0 bytes per parameter.
    """
    return (12 + element * weights_again) * trained + element * fixed


def reference_bytes(weights: int, processes: int, kept: str) -> tuple[int, int]:
    """Return the bytes of a reference of `weights` bytes on one GPU: (permanently, additionally while it scores).

    kept: "none"; "device", whole on every GPU; "sharded", divided among the GPUs, with its layers gathered as they are
    needed, which takes no more memory than the update does; "host", in host memory, whole on the GPU during its pass.
    """
    return {"none": (0, 0), "device": (weights, 0), "sharded": (weights // processes, 0), "host": (0, weights)}[kept]


def longest_answer(mean: int, ratio: float, limit: int) -> int:
    """Return the tokens of the longest answer of a step: `ratio` times the mean, at most `limit`."""
    return min(math.ceil(mean * ratio), limit)
