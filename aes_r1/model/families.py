"""Collect what differs between backbone families: how a picture is prepared, placed among the tokens and encoded.

Qwen2.5-VL and Qwen3-VL cut a picture into patches at its own aspect ratio and use three-dimensional positions. InternVL
resizes it to one square tile and uses one-dimensional positions. Qwen3-VL also adds features of inner vision layers to
the states of its first language layers. Everything else is the same for all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from aes_r1.model.packed_attention import Segments, attention
from aes_r1.model.transfer import to_device

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl")
VISION_PARTS = (".visual.", ".vision_tower.", ".multi_modal_projector.")
# Language models with plain causal softmax attention: only with it can a group share its prompt.
PLAIN_ATTENTION_TYPES = ("qwen2_5_vl_text", "qwen3_vl_text", "qwen2", "qwen3", "llama")


def is_vision(parameter_name: str) -> bool:
    """Return whether a parameter belongs to the vision tower or its projector."""
    return any(part in f".{parameter_name}" for part in VISION_PARTS)


def can_share_prefix(config: Any) -> bool:
    """Return whether the language layers use plain attention: a known type, and no layer with a sliding window."""
    text = config.get_text_config()
    layers = getattr(text, "layer_types", None) or ["full_attention"]
    return text.model_type in PLAIN_ATTENTION_TYPES and set(layers) == {"full_attention"}


def load_image_processor(model_type: str, path: Any) -> Any:
    """Load the family's PIL image processor, so that training and evaluation resize alike on every machine."""
    if model_type == "internvl":
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

        return GotOcr2ImageProcessorPil.from_pretrained(path, crop_to_patches=False)
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(path)


def prepare(config: Any, image_processor: Any, picture: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Return one RGB picture as (pixels [rows, ...] float32, grid [3] with product rows, number of its tokens)."""
    pixels = image_processor(images=[picture], return_tensors="np")
    values = np.asarray(pixels["pixel_values"], dtype=np.float32)
    if config.model_type == "internvl":
        return values, np.array([len(values), 1, 1]), len(values) * config.image_seq_length
    grid = np.asarray(pixels["image_grid_thw"][0])
    return values, grid, int(np.prod(grid)) // image_processor.merge_size**2


def tokens_per_row(config: Any) -> float:
    """Return how many language tokens one row of pixel values becomes."""
    if config.model_type == "internvl":
        return config.image_seq_length
    return 1 / config.vision_config.spatial_merge_size**2


def placeholder(config: Any, tokenizer: Any, count: int) -> str:
    """Return the text that replaces the chat template's single placeholder for a picture of `count` tokens."""
    text = tokenizer.convert_ids_to_tokens(config.image_token_id) * count
    return f"<img>{text}</img>" if config.model_type == "internvl" else text


def positions(core: Any, input_ids: Tensor, valid: Tensor, grid: Tensor) -> Tensor:
    """Return the positions [3, N, P] (time, row, column) of left-padded prompts.

    For a family with one-dimensional positions the three are equal.
    """
    if core.config.model_type == "internvl":
        return (valid.long().cumsum(dim=1) - 1).clamp(min=0)[None].expand(3, -1, -1)
    return core.model.get_rope_index(
        input_ids,
        mm_token_type_ids=(input_ids == core.config.image_token_id).int(),
        image_grid_thw=grid,
        attention_mask=valid.long(),
    )[0]


def for_language_model(core: Any, position_ids: Tensor) -> Tensor:
    """Convert positions [3, N, P] to the form that the family's language model takes."""
    return position_ids[0] if core.config.model_type == "internvl" else position_ids


def vision_features(core: Any, pixel_values: Tensor, grid: Tensor) -> tuple[Tensor, ...]:
    """Run the vision tower: return features [V, D] for the V placeholder tokens, then those of deeper layers, if any.

    grid: [N, 3], on the host. The Qwen towers derive indices and lengths from it; they are computed here because the
    tower's own code would force a host-device synchronisation in every layer.
    """
    pixel_values = pixel_values.to(next(vision_tower(core).parameters()).dtype)
    if core.config.model_type == "internvl":
        return (core.model.get_image_features(pixel_values=pixel_values).pooler_output.flatten(0, 1),)
    tower = core.model.visual
    output = tower(pixel_values, grid_thw=grid, **_tower_inputs(tower, grid, pixel_values.device))
    return (output.pooler_output, *(getattr(output, "deepstack_features", None) or ()))


def _tower_inputs(visual: Any, grid: Tensor, device: torch.device) -> dict[str, Any]:
    """Return the keyword arguments that a Qwen tower derives from `grid`: indices on the device, lengths on the host.

    cu_seqlens names one segment for everything, so that the tower calls `attend_in_segments` once per layer; the true
    segments are in `pictures` and `windows`.
    """
    from transformers import vision_utils

    merge = visual.spatial_merge_size
    inputs: dict[str, Any] = {"position_ids": to_device(vision_utils.get_vision_position_ids(grid, merge), device)}
    inputs["pictures"] = _segments(vision_utils.get_vision_cu_seqlens(grid), device)
    inputs["cu_seqlens"] = torch.tensor([0, int(grid.prod(dim=1).sum())])
    if visual.config.model_type.startswith("qwen2_5_vl"):
        window_index, ends = vision_utils.get_vision_window_index(
            grid, spatial_merge_size=merge, window_size=visual.window_size, patch_size=visual.patch_size
        )
        inputs |= {"windows": _segments(ends, device), "cu_window_seqlens": inputs["cu_seqlens"]}
        return {**inputs, "window_index": to_device(window_index, device)}
    indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=merge,
    )
    return {**inputs, "interp_indices": to_device(indices, device), "interp_weights": to_device(weights, device)}


def _segments(ends: Tensor, device: torch.device) -> Segments:
    """Return segments that attend to themselves, from their boundaries [segments + 1]."""
    return Segments(ends.diff().tolist(), causal=False, device=device)


def attend_in_segments(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    pictures: Segments | None = None,
    windows: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """Compute the attention of one layer of a Qwen tower, [1, heads, S, width] to [1, S, heads, width].

    One call covers all `pictures`, or all `windows` in a layer with window attention; transformers calls a kernel for
    each of them, about 700 times for a picture at 7B. Without segments, which is the case when transformers itself
    calls the tower, SDPA is used.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    segments = windows if module.in_windows else pictures
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return attention(query, key, value, segments, scaling=scaling)[None], None


def attend_to_windows_at_once(model: Any) -> None:
    """Make the Qwen tower of a transformers model use `attend_in_segments` as its attention."""
    if model.config.model_type == "internvl":
        return
    from transformers import AttentionInterface

    AttentionInterface.register("in_segments", attend_in_segments)
    tower = model.model.visual
    tower.config._attn_implementation = "in_segments"
    for number, block in enumerate(tower.blocks):
        block.attn.in_windows = number not in getattr(tower, "fullatt_block_indexes", range(len(tower.blocks)))


def at_pictures(features: Tensor, picture_mask: Tensor) -> Tensor:
    """Return [B, S, D]: the rows of `features` [V, D], in order, where `picture_mask` [B, S] is True.

    Other rows are arbitrary. Every token is given an index, because indexing with a mask forces a synchronisation, in
    the forward or the backward pass, to count the True elements.
    """
    order = (picture_mask.flatten().cumsum(dim=0) - 1).clamp(min=0)
    return features.index_select(0, order).reshape(*picture_mask.shape, -1)


def add_deep_features(states: Tensor, picture_mask: Tensor, features: Tensor) -> Tensor:
    """Add features [V, D] to states [B, S, D], as Qwen3-VL's `_deepstack_process` does, without a synchronisation.

    picture_mask: [B, S], True at the tokens of pictures; or, if B is 1, the [V] indices of these tokens.
    """
    if picture_mask.dtype != torch.bool:
        return states.index_add(1, picture_mask, features.to(states.dtype)[None])
    return torch.where(picture_mask[..., None], states + at_pictures(features.to(states.dtype), picture_mask), states)


def avoid_device_syncs(model: Any) -> None:
    """Patch two places where a transformers language model forces a host-device synchronisation.

    Rotary frequencies of the type "dynamic" depend on the longest position, which is read from the device in each pass.
    Up to max_position_embeddings, which prompts here never reach, they equal the default ones.
    """
    language = model.model.language_model
    if hasattr(language, "_deepstack_process"):
        language._deepstack_process = add_deep_features
    if "dynamic" in language.rotary_emb.rope_type:
        language.rotary_emb.rope_type = "default"


def vision_tower(core: Any) -> torch.nn.Module:
    """Return the vision encoder of a transformers model."""
    return core.model.vision_tower if core.config.model_type == "internvl" else core.model.visual


def deep_inputs(features: tuple[Tensor, ...], picture_mask: Tensor) -> dict[str, Any]:
    """Return the keyword arguments that pass deeper features to the language model.

    picture_mask: that of `add_deep_features`.
    """
    if len(features) == 1:
        return {}
    return {"visual_pos_masks": picture_mask, "deepstack_visual_embeds": list(features[1:])}
