"""What a model costs before it is run: parameters, floating-point operations, bytes of activations and cache.

Parameters are counted on the model itself, built without memory (meta device). Operations count matrix products alone,
a multiplication and an addition as two, attention over the tokens that are really seen.
"""

from __future__ import annotations

import json
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


def cache_bytes(shape: Shape, tokens: float, element: int) -> int:
    """Keys and values of `tokens` tokens in every layer."""
    return round(2 * shape.layers * shape.key_width * element * tokens)
