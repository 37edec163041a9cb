"""Build the tiny Qwen2.5-VL: a real Qwen2_5_VLForConditionalGeneration of about a million parameters.

It replaces a pretrained backbone on machines that have none. trainer/pretrain.py teaches it to read pictures, and from
then on it is loaded like any other model. The package contains one such base model (shipped/README.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from aes_r1.model import shared_prefix
from aes_r1.model.backbone import Backbone
from aes_r1.runs.files import sha256_of
from aes_r1.settings import InputError

SHIPPED = Path(__file__).parent / "shipped"
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 768
PATCH = 12
INITIAL_STD = 0.08  # about 1/sqrt(128), its width; the usual 0.02 suits far wider models and learns slowly here


def build_tokenizer(corpus: Iterable[str]) -> Any:
    """Train a byte-level BPE of VOCABULARY tokens on `corpus`, with Qwen's special tokens and chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # Each digit is a token of its own, as in Qwen: a score is read and written digit by digit.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in SPECIAL_TOKENS if token not in ("<|im_end|>", "<|endoftext|>")],
        chat_template=CHAT_TEMPLATE,
    )


def build_tiny_model(tokenizer: Any, *, max_pixels: int, seed: int) -> Backbone:
    """Build the tiny architecture with random weights from `seed`, its tokenizer and its image processor."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _TOKEN_FIELDS.items()}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 128,
            "initializer_range": INITIAL_STD,
            "intermediate_size": 320,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "initializer_range": INITIAL_STD,
            "intermediate_size": 256,
            "num_heads": 3,
            "patch_size": PATCH,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [0, 1, 2],
            "window_size": PATCH * 8,
        },
        tie_word_embeddings=True,
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
        patches = model.model.visual.patch_embed.proj.weight
        torch.nn.init.normal_(patches, std=patches[0].numel() ** -0.5)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    shared_prefix.install(model)
    image_processor = Qwen2VLImageProcessorPil(patch_size=PATCH)
    return Backbone(model, tokenizer, image_processor).with_max_pixels(max_pixels)


_TOKEN_FIELDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


def shipped(folder: Path = SHIPPED) -> Path:
    """Return the folder of the packaged base model; raise InputError unless every file has its hash in SHA256SUMS."""
    way_out = "install aes-r1 again (in a clone: git checkout and git status tell), or give model.base=pretrain"
    try:
        for line in (folder / "SHA256SUMS").read_text().splitlines():
            checksum, name = line.split()
            if sha256_of(folder / name) != checksum:
                raise InputError(f"model.base=shipped: {folder / name} is not the file that was shipped; {way_out}")
    except OSError as error:
        raise InputError(f"model.base=shipped: {error.filename}: {error.strerror}; {way_out}") from error
    return folder
