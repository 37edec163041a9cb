"""Collect what differs between backbone families: how a picture is prepared, placed among the tokens and encoded.

The Qwen families cut a picture into patches at its own aspect ratio and use three-dimensional positions. The others
resize it to one square and use one-dimensional positions. Qwen3-VL also adds features of inner vision layers to the
states of its first language layers, and in Gemma 3 the tokens of a picture attend to each other in both directions.
Everything else is the same for all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from aes_r1.model.packed_attention import Segments, attention
from aes_r1.model.transfer import to_device
from aes_r1.settings import InputError

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl", "qwen2_vl", "qwen3_5", "smolvlm", "idefics3", "gemma3")
SQUARE = ("internvl", "smolvlm", "idefics3", "gemma3")  # families that resize a picture to one square
VISION_PARTS = (".visual.", ".vision_tower.", ".multi_modal_projector.", ".vision_model.", ".connector.")
LANGUAGE_PARTS = ("language_model", "text_model")  # names of the language model among the parts of a family's model
# Language models with plain causal softmax attention, without which a group cannot share its prompt.
PLAIN_ATTENTION_TYPES = ("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen2", "qwen3", "llama")


def is_vision(parameter_name: str) -> bool:
    """Return whether a parameter belongs to the vision tower or its projector."""
    return any(part in f".{parameter_name}" for part in VISION_PARTS)


def can_share_prefix(config: Any) -> bool:
    """Return whether the language layers use plain attention: a known type, and no layer with a sliding window."""
    text = config.get_text_config()
    layers = getattr(text, "layer_types", None) or ["full_attention"]
    return text.model_type in PLAIN_ATTENTION_TYPES and set(layers) == {"full_attention"}


def load_image_processor(model_type: str, path: Any) -> Any:
    """Load the family's PIL image processor, so that training and evaluation resize alike on every machine.

    The whole picture is shown once: families that could also cut it into several tiles do not.
    """
    if model_type == "internvl":
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

        return GotOcr2ImageProcessorPil.from_pretrained(path, crop_to_patches=False)
    if model_type == "gemma3":
        from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

        return Gemma3ImageProcessorPil.from_pretrained(path, do_pan_and_scan=False)
    if model_type == "smolvlm":
        from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

        return SmolVLMImageProcessorPil.from_pretrained(path, do_image_splitting=False)
    if model_type == "idefics3":
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

        return Idefics3ImageProcessorPil.from_pretrained(path, do_image_splitting=False)
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(path)


def prepare(config: Any, image_processor: Any, picture: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Return one RGB picture as (pixels [rows, ...] float32, grid [3] with product rows, number of its tokens).

    Raises InputError if the processor makes a square of another size than the vision tower takes.
    """
    pixels = image_processor(images=[picture], return_tensors="np")
    values = np.asarray(pixels["pixel_values"], dtype=np.float32)
    if config.model_type in SQUARE:
        values = values.reshape(-1, *values.shape[-3:])  # Idefics3 and SmolVLM number the pictures of a prompt, too
        side = _first(config.vision_config.image_size)
        if values.shape[-2:] != (side, side):
            height, width = values.shape[-2:]
            raise InputError(
                f"preprocessor_config.json: makes pictures of {width}x{height} pixels, the vision tower takes "
                f"{side}x{side}; take both from one repository"
            )
        return values, np.array([len(values), 1, 1]), len(values) * tokens_per_square(config)
    grid = np.asarray(pixels["image_grid_thw"][0])
    return values, grid, int(np.prod(grid)) // image_processor.merge_size**2


def tokens_per_square(config: Any) -> int:
    """Return the number of language tokens of a picture in a family of SQUARE."""
    if config.model_type == "internvl":
        return config.image_seq_length
    if config.model_type == "gemma3":
        return config.mm_tokens_per_image
    side = _first(config.vision_config.image_size) // _first(config.vision_config.patch_size)
    return side**2 // config.scale_factor**2


def _first(size: Any) -> int:
    """Return a size that a config gives as one number or as a pair of equal ones."""
    return size if isinstance(size, int) else size[0]


def tokens_per_row(config: Any) -> float:
    """Return how many language tokens one row of pixel values becomes."""
    if config.model_type in SQUARE:
        return tokens_per_square(config)
    return 1 / config.vision_config.spatial_merge_size**2


def patches_per_token(config: Any) -> float:
    """Return how many patches of the vision tower become one language token."""
    if config.model_type not in SQUARE:
        return 1 / tokens_per_row(config)
    side = _first(config.vision_config.image_size) // _first(config.vision_config.patch_size)
    return side**2 / tokens_per_square(config)


def template_placeholder(config: Any, tokenizer: Any) -> str:
    """Return the token by which the family's chat template marks a picture."""
    marked = config.boi_token_id if config.model_type == "gemma3" else config.image_token_id
    return tokenizer.convert_ids_to_tokens(marked)


def placeholder(config: Any, tokenizer: Any, count: int) -> str:
    """Return the text that replaces the chat template's single placeholder for a picture of `count` tokens.

    It is the text that the family's processor in transformers writes.
    """
    text = tokenizer.convert_ids_to_tokens(config.image_token_id) * count
    if config.model_type == "internvl":
        return f"<img>{text}</img>"
    if config.model_type == "gemma3":
        begin, end = tokenizer.convert_ids_to_tokens([config.boi_token_id, config.eoi_token_id])
        return f"\n\n{begin}{text}{end}\n\n"
    if config.model_type in ("smolvlm", "idefics3"):
        return f"<fake_token_around_image><global-img>{text}<fake_token_around_image>"
    return text


def end_of_turn(config: Any, tokenizer: Any) -> int | None:
    """Return the token that ends an answer: the tokenizer's eos_token, but in Gemma the one that its template writes.

    Gemma's own eos_token ends a document.
    """
    if config.model_type == "gemma3" and "<end_of_turn>" in tokenizer.get_vocab():
        return tokenizer.convert_tokens_to_ids("<end_of_turn>")
    return tokenizer.eos_token_id


def positions(core: Any, input_ids: Tensor, valid: Tensor, grid: Tensor) -> Tensor:
    """Return the positions [3, N, P] (time, row, column) of left-padded prompts.

    For a family with one-dimensional positions the three are equal.
    """
    if core.config.model_type in SQUARE:
        return (valid.long().cumsum(dim=1) - 1).clamp(min=0)[None].expand(3, -1, -1)
    return core.model.get_rope_index(
        input_ids,
        mm_token_type_ids=(input_ids == core.config.image_token_id).int(),
        image_grid_thw=grid,
        attention_mask=valid.long(),
    )[0]


def for_language_model(core: Any, position_ids: Tensor) -> Tensor:
    """Convert positions [3, N, P] to the form that the family's language model takes."""
    return position_ids[0] if core.config.model_type in SQUARE else position_ids


def attention_mask(
    core: Any, embeddings: Tensor, valid: Tensor, picture_mask: Tensor, cache: Any = None
) -> Tensor | dict[str, Tensor | None]:
    """Return the mask that the family's language model takes for a prompt with its picture.

    embeddings [N, S, D]; valid [N, S] bool, False on padding; picture_mask [N, S] bool, True on picture tokens. It is
    `valid` itself, except in Gemma 3.
    """
    if core.config.model_type != "gemma3":
        return valid
    from transformers.models.gemma3.modeling_gemma3 import (
        create_masks_for_vision_model,
        get_block_sequence_ids_for_mask,
    )

    return create_masks_for_vision_model(
        config=core.config.get_text_config(),
        inputs_embeds=embeddings,
        attention_mask=valid,
        past_key_values=cache,
        position_ids=None,
        block_sequence_ids=get_block_sequence_ids_for_mask(picture_mask.long()),
    )


def vision_features(core: Any, pixel_values: Tensor, grid: Tensor) -> tuple[Tensor, ...]:
    """Run the vision tower: return features [V, D] for the V placeholder tokens, then those of deeper layers, if any.

    grid: [N, 3], on the host. The Qwen towers derive indices and lengths from it; they are computed here because the
    tower's own code would force a host-device synchronisation in every layer.
    """
    pixel_values = pixel_values.to(next(vision_tower(core).parameters()).dtype)
    if core.config.model_type in ("smolvlm", "idefics3"):  # both take [pictures, tiles of each, ...]
        return (torch.cat(core.model.get_image_features(pixel_values=pixel_values[:, None]).pooler_output),)
    if core.config.model_type in SQUARE:
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
    if visual.config.model_type.startswith("qwen2_vl"):
        return inputs
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
    if model.config.model_type in SQUARE:
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
    language = language_model(model)
    if hasattr(language, "_deepstack_process"):
        language._deepstack_process = add_deep_features
    if "dynamic" in language.rotary_emb.rope_type:
        language.rotary_emb.rope_type = "default"


def vision_tower(core: Any) -> torch.nn.Module:
    """Return the vision encoder of a transformers model."""
    names = ("visual", "vision_tower", "vision_model")
    return next(getattr(core.model, name) for name in names if hasattr(core.model, name))


def language_model(core: Any) -> Any:
    """Return the language model, without its head, of a transformers model."""
    return next(getattr(core.model, name) for name in LANGUAGE_PARTS if hasattr(core.model, name))


def deep_inputs(features: tuple[Tensor, ...], picture_mask: Tensor) -> dict[str, Any]:
    """Return the keyword arguments that pass deeper features to the language model.

    picture_mask: that of `add_deep_features`.
    """
    if len(features) == 1:
        return {}
    return {"visual_pos_masks": picture_mask, "deepstack_visual_embeds": list(features[1:])}


def own_inputs(core: Any, input_ids: Tensor, pixel_values: Tensor, grid: Tensor) -> dict[str, Any]:
    """Return the keyword arguments by which transformers' own forward takes one prompt [1, S] with its picture."""
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "pixel_values": pixel_values}
    on_picture = (input_ids == core.config.image_token_id).int()
    if core.config.model_type == "gemma3":
        inputs["token_type_ids"] = on_picture
    elif core.config.model_type in ("smolvlm", "idefics3"):
        inputs["pixel_values"] = pixel_values[None]
    elif core.config.model_type not in SQUARE:
        inputs |= {"image_grid_thw": grid, "mm_token_type_ids": on_picture}
    return inputs
