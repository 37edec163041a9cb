"""Define the workload of every system: the same weights, pictures, question, K, N and completion length."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
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
    """Describe one point of the comparison. picture: (width, height) in pixels; lora: rank, 0 trains all weights."""

    model: str
    K: int
    N: int
    new_tokens: int
    picture: tuple[int, int]
    dtype: str = "float32"
    lora: int = 0
    micro_batch: int = 0  # completions per forward and backward; 0: all of the step
    micro_batch_tokens: int = 0  # for ours only: tokens per forward and backward, instead of micro_batch
    gradient_checkpointing: bool = False
    kl_coef: float = 0.01
    tower: bool | None = None  # whether the vision tower is trained; None: only without an adapter
    lengths: str = "equal"  # "equal": all new_tokens; "lognormal": see `drawn_lengths`
    reference: str = "device"  # where full training keeps its frozen reference

    @property
    def rows(self) -> int:
        return self.K * self.N

    @property
    def name(self) -> str:
        """Return a name for a row or a file."""
        trained = f"lora{self.lora}" if self.lora else "full"
        tower = "tower" if self.trains_tower else "frozen_tower"
        return f"{self.model}_{trained}_{tower}_K{self.K}_N{self.N}_T{self.new_tokens}_{self.lengths}"

    @property
    def trains_tower(self) -> bool:
        return not self.lora if self.tower is None else self.tower

    def lengths_of(self, step: int) -> list[int]:
        """Return the tokens of each of the step's completions, image by image; they are the same in every system."""
        if self.lengths == "equal":
            return [self.new_tokens] * self.rows
        return drawn_lengths(step, self.rows, self.new_tokens)

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def parse(text: str) -> Workload:
        return Workload.of(json.loads(text))

    @staticmethod
    def of(row: dict[str, Any]) -> Workload:
        """Return the workload of a row of results, which has more fields."""
        values = {one.name: row[one.name] for one in fields(Workload) if one.name in row}
        return Workload(**{**values, "picture": tuple(values["picture"])})

    def pictures(self, folder: Path, count: int) -> list[Path]:
        """Write `count` seeded pictures of noise with a gradient, unless they exist, and return their paths."""
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


def drawn_lengths(step: int, rows: int, limit: int) -> list[int]:
    """Draw the tokens of `rows` completions of a step: lognormal, median .4 and mean .45 of `limit`, sigma .5.

    Lengths are cut at `limit`. One in thirty is cut, so the longest of 64 has `limit` tokens in most steps, as in real
    runs.
    """
    drawn = np.random.default_rng([step, rows, limit]).lognormal(np.log(0.4 * limit), 0.5, rows)
    return np.clip(np.rint(drawn), 1, limit).astype(int).tolist()


def config_of(name: str) -> dict[str, Any]:
    """Return an architecture by name as transformers' config fields: one of SIZES or a published one of conf/shapes."""
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


def model_folder(workload: Workload, folder: Path) -> Path:
    """Write a folder with the workload's config, tokenizer and picture processor, unless it exists; use `draw_weights`.

    Its weight file has a single placeholder number, because drawing billions of weights is faster than reading them.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, GenerationConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from aes_r1.aescot.scenes_expert import expert_corpus
    from aes_r1.model.tiny import build_tokenizer

    shape = config_of(workload.model)
    digest = hashlib.sha256(json.dumps([shape, workload.dtype, RATING_PROMPT]).encode()).hexdigest()[:8]
    path = folder / f"{workload.model}-{workload.dtype}-{digest}"
    if (path / "preprocessor_config.json").exists():
        return path
    written = folder / f".{path.name}.{os.getpid()}"  # several processes may write at the same time
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
        **shape["text_config"],
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = AutoConfig.for_model(**{**shape, **ids, "text_config": text})
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    config.save_pretrained(written)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(written)
    save_file({"stand_in": torch.zeros(1)}, written / "model.safetensors")
    tokenizer.save_pretrained(written)
    patch = shape["vision_config"]["patch_size"]
    area = workload.picture[0] * workload.picture[1]
    processor = Qwen2VLImageProcessorPil(patch_size=patch)
    processor.size = {"shortest_edge": min(56 * 56, area), "longest_edge": max(area, 56 * 56)}
    processor.save_pretrained(written)
    try:
        written.rename(path)
    except OSError:  # another process was faster
        shutil.rmtree(written)
    return path


def draw_weights() -> None:
    """Make transformers draw the seeded weights of a `model_folder` on the device instead of reading them.

    Every load of the same folder gets the same numbers: a policy, a reference, another system's process.
    """
    import torch
    from transformers import AutoConfig, GenerationConfig, Qwen2_5_VLForConditionalGeneration

    def drawn(cls, path, *_, config=None, dtype=None, output_loading_info=False, **__):
        config = AutoConfig.from_pretrained(path) if config is None else config
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # a CPU draws for minutes
            model = cls._from_config(config, dtype=dtype)
        model.generation_config = GenerationConfig.from_pretrained(path)
        model.eval()
        nothing: dict[str, list] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
        return (model, nothing) if output_loading_info else model

    Qwen2_5_VLForConditionalGeneration.from_pretrained = classmethod(drawn)
