"""Tiny random relatives of the backbone families, saved as their published models are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from aes_r1.model import tiny
from aes_r1.prompts import RATING_PROMPT, answer

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.08,
    "vocab_size": tiny.VOCABULARY,
}
TOWER = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "initializer_range": 0.08,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
INTERN_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>")
SMOL_TOKENS = ("<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>")
GEMMA_TOKENS = (
    *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
)
# As in HuggingFaceTB/SmolVLM2-2.2B-Instruct.
SMOL_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# As in google/gemma-3-4b-it, for a conversation without a system prompt.
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def tokenizer_of(family: str):
    """A small tokenizer with the family's special tokens and chat template."""
    words = "a dull picture with flat light . a strong picture with deep shadow . "
    tokenizer = tiny.build_tokenizer([RATING_PROMPT, answer(words, 0.25), answer(words, 0.87)] * 20)
    if family.startswith("internvl"):
        # The vocabulary is smaller than the embedding, so three more tokens fit.
        tokenizer.add_special_tokens({"additional_special_tokens": list(INTERN_TOKENS)}, False)
        template = tiny.CHAT_TEMPLATE
        tokenizer.chat_template = template.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")
    elif family in ("smolvlm", "idefics3"):
        tokenizer.add_special_tokens({"additional_special_tokens": list(SMOL_TOKENS)}, False)
        tokenizer.eos_token = "<end_of_utterance>"
        tokenizer.chat_template = SMOL_TEMPLATE
    elif family == "gemma3":
        tokenizer.add_special_tokens({"additional_special_tokens": list(GEMMA_TOKENS)}, False)
        tokenizer.bos_token, tokenizer.eos_token = "<bos>", "<eos>"
        tokenizer.chat_template = GEMMA_TEMPLATE
    return tokenizer


def save_sibling(family: str, folder: Path) -> Path:
    """Write a random relative of a family of families.FAMILIES, or `internvl_windows` (sliding windows)."""
    from transformers import AutoModelForImageTextToText

    tokenizer = tokenizer_of(family)
    make = {"smolvlm": _smol, "idefics3": _smol, "gemma3": _gemma}.get(
        family, _intern if family.startswith("internvl") else _qwen
    )
    ends = {
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config, processor = make(family, tokenizer, {**TEXT, **ends})
    torch.manual_seed(3)
    model = AutoModelForImageTextToText.from_config(config)
    if family == "gemma3":  # the projection of pictures begins at 0, which would hide every picture
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.5)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return folder


def _intern(family: str, tokenizer: Any, text: dict) -> tuple[Any, Any]:
    from transformers import AutoConfig
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    text = {**text, "model_type": "qwen2", "rope_parameters": ROPE}
    if family == "internvl_windows":
        text |= {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
    vision = {**TOWER, "image_size": [56, 56], "patch_size": [14, 14]}
    config = AutoConfig.for_model(
        "internvl", text_config=text, vision_config=vision, image_seq_length=4,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), tie_word_embeddings=False,
    )  # fmt: skip
    return config, GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=False)


def _qwen(family: str, tokenizer: Any, text: dict) -> tuple[Any, Any]:
    from transformers import AutoConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 12,
        "out_hidden_size": 64, "initializer_range": 0.08,
    }  # fmt: skip
    if family in ("qwen3_vl", "qwen3_5"):
        rope = {**ROPE, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
        text |= {"head_dim": 16, "rope_parameters": rope}
        vision |= {"num_position_embeddings": 64}
    else:
        text |= {"rope_parameters": {**ROPE, "mrope_section": [2, 3, 3]}}
    if family == "qwen3_vl":
        vision |= {"deepstack_visual_indexes": [0, 1]}
    elif family == "qwen3_5":
        rope |= {"partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
        text |= {
            "layer_types": ["linear_attention", "full_attention", "linear_attention"], "linear_key_head_dim": 8,
            "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        }  # fmt: skip
    elif family == "qwen2_vl":
        vision = {
            "depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 12,
            "initializer_range": 0.08,
        }  # fmt: skip
    else:
        vision |= {"fullatt_block_indexes": [1], "window_size": 96}
    ids = {field: tokenizer.convert_tokens_to_ids(token) for field, token in tiny._TOKEN_FIELDS.items()}
    config = AutoConfig.for_model(family, text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    return config, Qwen2VLImageProcessorPil(patch_size=12)


def _smol(family: str, tokenizer: Any, text: dict) -> tuple[Any, Any]:
    from transformers import AutoConfig
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    text = {**text, "model_type": "llama", "rope_parameters": ROPE}
    vision = {**TOWER, "image_size": 56, "patch_size": 14}
    config = AutoConfig.for_model(
        family, text_config=text, vision_config=vision, scale_factor=2, tie_word_embeddings=False,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    processor = SmolVLMImageProcessorPil if family == "smolvlm" else Idefics3ImageProcessorPil
    # The published files ask for tiles.
    return config, processor(size={"longest_edge": 112}, max_image_size={"longest_edge": 56}, do_image_splitting=True)


def _gemma(_family: str, tokenizer: Any, text: dict) -> tuple[Any, Any]:
    from transformers import AutoConfig
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    text = {
        **text, "model_type": "gemma3_text", "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }  # fmt: skip
    vision = {
        **TOWER,
        "model_type": "siglip_vision_model",
        "image_size": 56,
        "patch_size": 14,
        "vision_use_head": False,
    }
    begin, end, picture = tokenizer.convert_tokens_to_ids(["<start_of_image>", "<end_of_image>", "<image_soft_token>"])
    config = AutoConfig.for_model(
        "gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4, boi_token_index=begin,
        eoi_token_index=end, image_token_index=picture,
    )  # fmt: skip
    return config, Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
