"""The workload of every system: the same weights, pictures, question, K, N and completion length."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aes_r1.prompts import RATING_PROMPT

# Language layers, width, heads, key-value heads, feed-forward width, vocabulary; vision layers, width, heads,
# feed-forward width; patch size.
SIZES = {
    "tiny": ((3, 128, 4, 2, 320, 768), (3, 96, 3, 256), 12),
    "50m": ((12, 512, 8, 2, 1536, 8192), (6, 320, 5, 1280), 14),
}
SHAPES = Path(__file__).parents[1] / "conf" / "shapes"


@dataclass(frozen=True)
class Workload:
    """One point of the comparison. picture: (width, height) in pixels; lora: rank, 0 trains all weights."""

    model: str
    K: int
    N: int
    new_tokens: int
    picture: tuple[int, int]
    dtype: str = "float32"
    lora: int = 0
    micro_batch: int = 0  # completions per forward and backward; 0: all of the step
    gradient_checkpointing: bool = False
    kl_coef: float = 0.01

    @property
    def rows(self) -> int:
        return self.K * self.N

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def parse(text: str) -> Workload:
        values = json.loads(text)
        return Workload(**{**values, "picture": tuple(values["picture"])})

    def pictures(self, folder: Path, count: int) -> list[Path]:
        """`count` seeded noise pictures with a gradient, written once."""
        folder.mkdir(parents=True, exist_ok=True)
        width, height = self.picture
        paths = []
        for index in range(count):
            path = folder / f"{width}x{height}_{index}.png"
            if not path.exists():
                rng = np.random.default_rng([index, width, height])
                slope = np.linspace(0, 130, width).astype(int)[None, :, None]
                Image.fromarray((rng.integers(0, 120, (height, width, 3)) + slope).astype(np.uint8)).save(path)
            paths.append(path)
        return paths


def config_of(name: str) -> dict[str, Any]:
    """Architecture by name as transformers' config fields: a small one of SIZES or a published one of conf/shapes."""
    if name not in SIZES:
        return json.loads((SHAPES / f"{name}.json").read_text())
    language, vision, patch = SIZES[name]
    layers, width, heads, kv_heads, hidden, vocabulary = language
    depth, vision_width, vision_heads, vision_hidden = vision
    half = width // heads // 2
    sections = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    return {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": True,
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections},
        },
        "vision_config": {
            "depth": depth,
            "hidden_size": vision_width,
            "intermediate_size": vision_hidden,
            "num_heads": vision_heads,
            "patch_size": patch,
            "out_hidden_size": width,
            "fullatt_block_indexes": list(range(1, depth, 2)),
            "window_size": patch * 8,
        },
    }


def random_model(workload: Workload, folder: Path) -> Path:
    """A folder with seeded random weights of the workload's model, tokenizer and picture processor, written once."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from aes_r1.aescot.build import expert_corpus
    from aes_r1.model.tiny import build_tokenizer

    fields = config_of(workload.model)
    digest = hashlib.sha256(json.dumps([fields, workload.dtype, RATING_PROMPT]).encode()).hexdigest()[:8]
    path = folder / f"{workload.model}-{workload.dtype}-{digest}"
    if (path / "preprocessor_config.json").exists():
        return path
    tokenizer = build_tokenizer(expert_corpus())
    ids = {
        field: tokenizer.convert_tokens_to_ids(token)
        for field, token in {
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>",
            "vision_end_token_id": "<|vision_end|>",
        }.items()
    }
    text = {
        **fields["text_config"],
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = AutoConfig.for_model(**{**fields, **ids, "text_config": text})
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # billions of draws take a CPU minutes
        model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, workload.dtype))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    patch = fields["vision_config"]["patch_size"]
    area = workload.picture[0] * workload.picture[1]
    processor = Qwen2VLImageProcessorPil(patch_size=patch)
    processor.size = {"shortest_edge": min(56 * 56, area), "longest_edge": max(area, 56 * 56)}
    processor.save_pretrained(path)
    return path
