"""A vision-language backbone: its weights, its processor, and how both are loaded, frozen, adapted and saved."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from aes_r1.model import families, shared_prefix
from aes_r1.model.transfer import send
from aes_r1.settings import InputError, LoraSettings

MIN_PIXELS = 56 * 56
log = logging.getLogger("aes_r1")


@dataclass(frozen=True)
class EncodedPrompt:
    """One picture and its question, ready for the model.

    input_ids: [P] int64, one placeholder per picture token.
    pixel_values: [rows, ...] float32, patches or tiles as the family cuts them.  grid: [3], rows = its product.
    """

    input_ids: np.ndarray
    pixel_values: np.ndarray
    grid: np.ndarray


@dataclass(frozen=True)
class PromptBatch:
    """N prompts, left-padded to P tokens.

    input_ids, valid: [N, P]; position_ids: [3, N, P] (M-RoPE: time, row, column); next_position: [N], where a
    completion continues; pixel_values: [all rows, ...]; grid: [N, 3].
    grid stays on the host, where prompt_tokens and pixel_rows (N numbers each) are too, so that neither a selection nor
    the vision tower has to ask the device. features: what the vision tower says about the
    pictures ([V, D] per used layer) where its weights are fixed, so that it runs once for every use of the batch.
    """

    input_ids: Tensor
    valid: Tensor
    position_ids: Tensor
    next_position: Tensor
    pixel_values: Tensor
    grid: Tensor
    prompt_tokens: tuple[int, ...]
    pixel_rows: tuple[int, ...]
    tokens_per_row: float
    features: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str) -> PromptBatch:
        moved: dict[str, Any] = {name: send(getattr(self, name), device) for name in _TENSORS}
        return dataclasses.replace(self, **moved)

    def select(self, images: Tensor) -> PromptBatch:
        """The prompts of `images` ([n] indices, on the host), padding that none of them needs cut away."""
        chosen = images.tolist()
        index = send(torch.tensor(chosen), self.input_ids.device)
        prompt_tokens = tuple(self.prompt_tokens[image] for image in chosen)
        first = self.input_ids.shape[1] - max(prompt_tokens)
        features = self.features
        if features is not None:
            tokens = self._rows(chosen, self.tokens_per_row)
            features = tuple(layer[tokens] for layer in features)
        return dataclasses.replace(
            self,
            input_ids=self.input_ids[index, first:],
            valid=self.valid[index, first:],
            position_ids=self.position_ids[:, index, first:],
            next_position=self.next_position[index],
            pixel_values=self.pixel_values[self._rows(chosen, 1.0)],
            grid=self.grid[chosen],
            prompt_tokens=prompt_tokens,
            pixel_rows=tuple(self.pixel_rows[image] for image in chosen),
            features=features,
        )

    @property
    def padded(self) -> bool:
        return min(self.prompt_tokens) < self.input_ids.shape[1]

    def _rows(self, images: list[int], per_row: float) -> Tensor:
        """Where the pixel rows of `images` stand among all rows, or, with `per_row` tokens a row, their tokens."""
        counts = [round(rows * per_row) for rows in self.pixel_rows]
        starts = [sum(counts[:image]) for image in images]
        places = [torch.arange(start, start + counts[image]) for start, image in zip(starts, images, strict=True)]
        return send(torch.cat(places), self.pixel_values.device)


_TENSORS = ("input_ids", "valid", "position_ids", "next_position", "pixel_values")


class Backbone:
    """Weights and processor of one model.

    `model` is a transformers image-text-to-text model, `banned` a [vocabulary] bool mask of tokens that a completion
    never holds (every special token but the end of the turn): it is applied in sampling and in scoring alike.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image_token = model.config.image_token_id
        self.shares_prefix = families.can_share_prefix(model.config)
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

    def banned_on(self, device: torch.device) -> Tensor:
        """`banned` on `device`, where it stays from then on."""
        if self.banned.device != device:
            self.banned = self.banned.to(device)
        return self.banned

    @property
    def core(self) -> Any:
        """The transformers model below any adapter."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def encode(self, picture: Image.Image, question: str) -> EncodedPrompt:
        """One RGB picture and its question as tokens and patches (chat template of the tokenizer)."""
        config = self.core.config
        pixels, grid, count = families.prepare(config, self.image_processor, picture)
        text = _prompt_text(self.tokenizer, question)
        once = self.tokenizer.convert_ids_to_tokens(self.image_token)
        text = text.replace(once, families.placeholder(config, self.tokenizer, count), 1)
        ids = np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)
        return EncodedPrompt(ids, pixels, grid)

    def collate(self, prompts: list[EncodedPrompt]) -> PromptBatch:
        """Left-pad `prompts` into one batch (on the CPU) with the positions that the model would give them."""
        width = max(len(prompt.input_ids) for prompt in prompts)
        input_ids = torch.full((len(prompts), width), self.pad_token, dtype=torch.long)
        valid = torch.zeros((len(prompts), width), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            input_ids[row, width - len(prompt.input_ids) :] = torch.from_numpy(prompt.input_ids)
            valid[row, width - len(prompt.input_ids) :] = True
        grid = torch.from_numpy(np.stack([prompt.grid for prompt in prompts])).long()
        position_ids = families.positions(self.core, input_ids, valid, grid).masked_fill(~valid, 0)
        return PromptBatch(
            input_ids=input_ids,
            valid=valid,
            position_ids=position_ids,
            next_position=position_ids.amax(dim=(0, 2)) + 1,
            pixel_values=torch.from_numpy(np.concatenate([prompt.pixel_values for prompt in prompts])),
            grid=grid,
            prompt_tokens=tuple(len(prompt.input_ids) for prompt in prompts),
            pixel_rows=tuple(len(prompt.pixel_values) for prompt in prompts),
            tokens_per_row=families.tokens_per_row(self.core.config),
        )

    @torch.no_grad()
    def see(self, prompts: PromptBatch) -> PromptBatch:
        """`prompts` with the vision tower's features, where its weights are fixed; as they are where they train."""
        trained = any(p.requires_grad and families.is_vision(name) for name, p in self.core.named_parameters())
        if trained:
            return prompts
        features = families.vision_features(self.core, prompts.pixel_values, prompts.grid)
        return dataclasses.replace(prompts, features=features)

    def encode_answer(self, text: str) -> list[int]:
        """Tokens of a completion, the end of the turn included."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end_token]

    def decode(self, tokens: Tensor) -> str:
        """Text of one completion ([T] tokens up to and without the end of the turn)."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def pieces(self, tokens: Tensor) -> list[str]:
        """The vocabulary's own string of each of [T] tokens: ASCII stands for itself, other bytes for one sign each."""
        return self.tokenizer.convert_ids_to_tokens(tokens.tolist())

    def save(self, folder: Path) -> None:
        """Write the Hugging Face form: safetensors, config, tokenizer, processor; an adapter is merged first."""
        model = self.model
        if hasattr(model, "merge_and_unload"):
            raise InputError(f"{folder}: merge the adapter (merged()) before saving")
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    def with_max_pixels(self, max_pixels: int) -> Backbone:
        """The same backbone seeing pictures of at most `max_pixels`; one image setting for every stage.

        InternVL's square tile is part of its architecture and stays.
        """
        if self.core.config.model_type == "internvl":
            return self
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
    """Load a model of families.FAMILIES from a folder or hub name, pictures read by a PIL processor everywhere.

    Raises InputError when `path` holds no such model.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the run has its own
    try:
        kind = AutoConfig.from_pretrained(path).model_type
        if kind not in families.FAMILIES:
            raise InputError(f"model.path={path}: a {kind} model; give one of {', '.join(families.FAMILIES)}")
        model = AutoModelForImageTextToText.from_pretrained(path, dtype=getattr(torch, dtype))
        tokenizer = AutoTokenizer.from_pretrained(path)
        image_processor = families.load_image_processor(kind, path)
    except OSError as error:
        raise InputError(f"model.path={path}: {str(error).splitlines()[0]}; give a model folder or hub name") from error
    shared_prefix.install(model)
    if not families.can_share_prefix(model.config):
        text = model.config.get_text_config().model_type
        log.info("model.path=%s: %s layers cannot share a group's prompt; each output computes its own", path, text)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Backbone(model, tokenizer, image_processor).with_max_pixels(max_pixels)


def freeze(model: nn.Module, *, vision: bool) -> None:
    """Train everything, or everything but the vision tower and its projector ."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (vision and families.is_vision(name)))


def add_adapter(backbone: Backbone, lora: LoraSettings, *, seed: int = 0) -> Backbone:
    """Wrap the language model's projections with a LoRA adapter (peft), drawn from `seed`; base weights are frozen."""
    from peft import LoraConfig, get_peft_model

    modules = "|".join(lora.target_modules)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float scales as well
        lora_dropout=lora.dropout,
        target_modules=rf".*language_model.*\.({modules})",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone.model = get_peft_model(backbone.model, config)
    return backbone


def merged(backbone: Backbone) -> Backbone:
    """The backbone with its adapter folded into the weights, if it has one."""
    if hasattr(backbone.model, "merge_and_unload"):
        backbone.model = backbone.model.merge_and_unload()
    return backbone


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
