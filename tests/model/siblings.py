"""Tiny random relatives of the backbone families, saved as their published models are."""

from __future__ import annotations

from pathlib import Path

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
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
INTERN_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>")


def tokenizer_of(family: str):
    """A small tokenizer with the family's special tokens and chat template."""
    words = "a dull picture with flat light . a strong picture with deep shadow . "
    tokenizer = tiny.build_tokenizer([RATING_PROMPT, answer(words, 0.25), answer(words, 0.87)] * 20)
    if family.startswith("internvl"):
        # The vocabulary is smaller than the embedding, so three more tokens fit.
        tokenizer.add_special_tokens({"additional_special_tokens": list(INTERN_TOKENS)}, False)
        template = tiny.CHAT_TEMPLATE
        tokenizer.chat_template = template.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")
    return tokenizer


def save_sibling(family: str, folder: Path) -> Path:
    """Write a random `qwen2_5_vl`, `qwen3_vl`, `internvl` or `internvl_windows` (sliding windows) into `folder`."""
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = tokenizer_of(family)
    ends = {
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if family.startswith("internvl"):
        text = {**TEXT, **ends, "model_type": "qwen2", "rope_parameters": ROPE}
        if family == "internvl_windows":
            text |= {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
        vision = {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [56, 56], "patch_size": [14, 14], "initializer_range": 0.08,
        }  # fmt: skip
        config = AutoConfig.for_model(
            "internvl", text_config=text, vision_config=vision, image_seq_length=4,
            image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), tie_word_embeddings=False,
        )  # fmt: skip
        processor = GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=False)
    else:
        vision = {
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 12,
            "out_hidden_size": 64, "initializer_range": 0.08,
        }  # fmt: skip
        if family == "qwen3_vl":
            vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
            rope = {**ROPE, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
            text = {**TEXT, **ends, "head_dim": 16, "rope_parameters": rope}
        else:
            vision |= {"fullatt_block_indexes": [1], "window_size": 96}
            text = {**TEXT, **ends, "rope_parameters": {**ROPE, "mrope_section": [2, 3, 3]}}
        ids = {field: tokenizer.convert_tokens_to_ids(token) for field, token in tiny._TOKEN_FIELDS.items()}
        config = AutoConfig.for_model(family, text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
        processor = Qwen2VLImageProcessorPil(patch_size=12)
    torch.manual_seed(3)
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return folder
