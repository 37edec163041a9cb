"""A vision-language backbone: its weights, its processor, and how both are loaded, frozen, adapted and saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from aes_r1.model import shared_prefix
from aes_r1.settings import InputError, LoraSettings

MIN_PIXELS = 56 * 56


@dataclass(frozen=True)
class EncodedPrompt:
    """One picture and its question, ready for the model.

    input_ids: [P] int64, one `<|image_pad|>` per merged picture patch.
    pixel_values: [patches, channels * temporal * patch * patch] float32.  grid: [3] (time, rows, columns) of patches.
    """

    input_ids: np.ndarray
    pixel_values: np.ndarray
    grid: np.ndarray


@dataclass(frozen=True)
class PromptBatch:
    """N prompts, left-padded to P tokens.

    input_ids, valid: [N, P]; position_ids: [3, N, P] (M-RoPE: time, row, column); next_position: [N], where a
    completion continues; pixel_values: [all patches, D]; grid: [N, 3].
    """

    input_ids: Tensor
    valid: Tensor
    position_ids: Tensor
    next_position: Tensor
    pixel_values: Tensor
    grid: Tensor

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str) -> PromptBatch:
        return PromptBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def select(self, images: Tensor) -> PromptBatch:
        """The prompts of `images` ([n] indices), padding that none of them needs cut away."""
        patches = self.grid.prod(dim=1)
        starts = patches.cumsum(0) - patches
        rows = torch.cat([torch.arange(int(starts[i]), int(starts[i] + patches[i])) for i in images.tolist()])
        first = int(self.valid[images].int().argmax(dim=1).min())
        return PromptBatch(
            input_ids=self.input_ids[images, first:],
            valid=self.valid[images, first:],
            position_ids=self.position_ids[:, images, first:],
            next_position=self.next_position[images],
            pixel_values=self.pixel_values[rows.to(self.pixel_values.device)],
            grid=self.grid[images],
        )


class Backbone:
    """Weights and processor of one model.

    `model` is a transformers image-text-to-text model, `banned` a [vocabulary] bool mask of tokens that a completion
    never holds (every special token but the end of the turn): it is applied in sampling and in scoring alike.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.end_token = tokenizer.eos_token_id
        self.pad_token = tokenizer.pad_token_id
        banned = torch.zeros(model.config.get_text_config().vocab_size, dtype=torch.bool)
        banned[[i for i in tokenizer.all_special_ids if i < len(banned)]] = True
        banned[len(tokenizer) :] = True  # rows that pad the embedding have no token
        banned[self.end_token] = False
        self.banned = banned

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def core(self) -> Any:
        """The transformers model below any adapter."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def encode(self, picture: Image.Image, question: str) -> EncodedPrompt:
        """One RGB picture and its question as tokens and patches (chat template of the tokenizer)."""
        pixels = self.image_processor(images=[picture], return_tensors="np")
        grid = pixels["image_grid_thw"][0]
        text = _prompt_text(self.tokenizer, question)
        count = int(np.prod(grid)) // self.image_processor.merge_size**2
        text = text.replace("<|image_pad|>", "<|image_pad|>" * count)
        ids = np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)
        return EncodedPrompt(ids, np.asarray(pixels["pixel_values"], dtype=np.float32), np.asarray(grid))

    def collate(self, prompts: list[EncodedPrompt]) -> PromptBatch:
        """Left-pad `prompts` into one batch (on the CPU) with the positions that the model would give them."""
        width = max(len(prompt.input_ids) for prompt in prompts)
        input_ids = torch.full((len(prompts), width), self.pad_token, dtype=torch.long)
        valid = torch.zeros((len(prompts), width), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            input_ids[row, width - len(prompt.input_ids) :] = torch.from_numpy(prompt.input_ids)
            valid[row, width - len(prompt.input_ids) :] = True
        grid = torch.from_numpy(np.stack([prompt.grid for prompt in prompts])).long()
        position_ids, _ = self.core.model.get_rope_index(
            input_ids,
            mm_token_type_ids=(input_ids == self.image_token).int(),
            image_grid_thw=grid,
            attention_mask=valid.long(),
        )
        position_ids = position_ids.masked_fill(~valid, 0)
        return PromptBatch(
            input_ids=input_ids,
            valid=valid,
            position_ids=position_ids,
            next_position=position_ids.amax(dim=(0, 2)) + 1,
            pixel_values=torch.from_numpy(np.concatenate([prompt.pixel_values for prompt in prompts])),
            grid=grid,
        )

    def encode_answer(self, text: str) -> list[int]:
        """Tokens of a completion, the end of the turn included."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end_token]

    def decode(self, tokens: Tensor) -> str:
        """Text of one completion ([T] tokens up to and without the end of the turn)."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        """Write the Hugging Face form: safetensors, config, tokenizer, processor; an adapter is merged first."""
        model = self.model
        if hasattr(model, "merge_and_unload"):
            raise InputError(f"{folder}: merge the adapter (merged()) before saving")
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    def with_max_pixels(self, max_pixels: int) -> Backbone:
        """The same backbone seeing pictures of at most `max_pixels`; one image setting for every stage."""
        self.image_processor.size = {
            "shortest_edge": min(MIN_PIXELS, max_pixels),
            "longest_edge": max_pixels,
        }
        return self


def prompt_text(path: str, question: str) -> str:
    """What the model at `path` is asked: `question` in its chat template, one `<|image_pad|>` for the picture."""
    from transformers import AutoTokenizer

    return _prompt_text(AutoTokenizer.from_pretrained(path), question)


def _prompt_text(tokenizer: Any, question: str) -> str:
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def load(path: str | Path, *, dtype: str, max_pixels: int, gradient_checkpointing: bool = False) -> Backbone:
    """Load a Qwen2.5-VL style model from a folder or hub name, pictures read by the PIL processor everywhere.

    Raises InputError when `path` holds no such model.
    """
    from transformers import AutoModelForImageTextToText, AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the run has its own
    try:
        model = AutoModelForImageTextToText.from_pretrained(path, dtype=getattr(torch, dtype))
        tokenizer = AutoTokenizer.from_pretrained(path)
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(path)
    except OSError as error:
        raise InputError(f"model.path={path}: {str(error).splitlines()[0]}; give a model folder or hub name") from error
    shared_prefix.install(model)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Backbone(model, tokenizer, image_processor).with_max_pixels(max_pixels)


def freeze(model: nn.Module, *, vision: bool) -> None:
    """Train everything, or everything but the vision tower and its projector (the merger inside `visual`)."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (vision and ".visual." in f".{name}"))


def add_adapter(backbone: Backbone, lora: LoraSettings) -> Backbone:
    """Wrap the language model's projections with a LoRA adapter (peft); the base weights are frozen."""
    from peft import LoraConfig, get_peft_model

    modules = "|".join(lora.target_modules)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float scales as well
        lora_dropout=lora.dropout,
        target_modules=rf".*language_model.*\.({modules})",
        task_type="CAUSAL_LM",
    )
    backbone.model = get_peft_model(backbone.model, config)
    return backbone


def merged(backbone: Backbone) -> Backbone:
    """The backbone with its adapter folded into the weights, if it has one."""
    if hasattr(backbone.model, "merge_and_unload"):
        backbone.model = backbone.model.merge_and_unload()
    return backbone


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
