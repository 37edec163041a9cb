"""Hold a vision-language backbone: weights and processor, and how both are loaded, frozen, adapted and saved."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from aes_r1.model import accelerator, families, files, kernels, quantize, shared_prefix, template
from aes_r1.model.prompt_batch import EncodedPrompt, PromptBatch
from aes_r1.model.weights import whole
from aes_r1.prompts import order_of
from aes_r1.runs.files import read_json
from aes_r1.settings import InputError, LoraSettings

MIN_PIXELS = 56 * 56
# Exceptions that transformers raises for files from which it cannot build a model.
_LOADING_FAILS = (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError)
log = logging.getLogger("aes_r1")


class Backbone:
    """Hold the weights and the processor of one model.

    `model` is a transformers image-text-to-text model. `banned` is a [vocabulary] bool mask of the tokens that a
    completion never contains: every special token except the end of the turn. Sampling and scoring apply it alike.
    `answer_prefix` is the beginning of the answer that the chat template writes into every prompt: `<think>` where the
    template opens that tag, otherwise empty.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.answer_prefix = template.opening(tokenizer)
        self.image_processor = image_processor
        self.image_token = model.config.image_token_id
        self.shares_prefix = families.can_share_prefix(model.config)
        self.end_token: int = families.end_of_turn(model.config, tokenizer)  # type: ignore[assignment]  # it was checked
        self.pad_token = tokenizer.pad_token_id
        banned = torch.zeros(model.config.get_text_config().vocab_size, dtype=torch.bool)
        banned[[i for i in tokenizer.all_special_ids if i < len(banned)]] = True
        banned[len(tokenizer) :] = True  # rows that only pad the embedding belong to no token
        banned[self.end_token] = False
        self.banned = banned
        self._banned_on: dict[torch.device, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return next(self.model.parameters()).device

    def banned_on(self, device: torch.device) -> Tensor:
        """Return `banned` on `device`; the copy is kept for later calls. `banned` itself stays on the host."""
        if device not in self._banned_on:
            self._banned_on[device] = self.banned.to(device)
        return self._banned_on[device]

    @property
    def core(self) -> Any:
        """Return the transformers model without the adapter that may wrap it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def encode(self, picture: Image.Image, question: str) -> EncodedPrompt:
        """Encode one RGB picture and its question; see `encode_pictures`."""
        return self.encode_pictures([picture], question)

    def encode_pictures(self, pictures: Sequence[Image.Image], question: str) -> EncodedPrompt:
        """Encode RGB pictures, in order, and a question about them as tokens and patches, by the chat template.

        Raises InputError if the template does not contain each picture exactly once, in as many tokens as it needs.
        """
        config = self.core.config
        prepared = [families.prepare(config, self.image_processor, picture) for picture in pictures]
        counts = [count for _, _, count in prepared]
        text = template.prompt_text(self.tokenizer, question, pictures=len(pictures))
        placeholder = families.template_placeholder(config, self.tokenizer)
        repeated = [families.placeholder(config, self.tokenizer, count) for count in counts]
        text = template.with_pictures(self.tokenizer, text, placeholder=placeholder, pictures=repeated)
        ids = np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)
        tokens = int((ids == self.image_token).sum())
        if tokens != sum(counts):
            raise InputError(
                f"{self.tokenizer.name_or_path}: a prompt holds {tokens} of the {sum(counts)} tokens of its pictures; "
                "its tokenizer does not know the placeholder as one token, so take the files of the model's own "
                "repository"
            )
        return EncodedPrompt(
            ids, np.concatenate([pixels for pixels, _, _ in prepared]), np.stack([grid for _, grid, _ in prepared])
        )

    def collate(self, prompts: Sequence[EncodedPrompt]) -> PromptBatch:
        """Left-pad `prompts` into one batch on the CPU, with the positions that the model would give them."""
        width = max(len(prompt.input_ids) for prompt in prompts)
        input_ids = torch.full((len(prompts), width), self.pad_token, dtype=torch.long)
        valid = torch.zeros((len(prompts), width), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            input_ids[row, width - len(prompt.input_ids) :] = torch.from_numpy(prompt.input_ids)
            valid[row, width - len(prompt.input_ids) :] = True
        grid = torch.from_numpy(np.concatenate([prompt.image_grid_thw for prompt in prompts])).long()
        position_ids = families.positions(self.core, input_ids, valid, grid).masked_fill(~valid, 0)
        return PromptBatch(
            input_ids=input_ids,
            attention_mask=valid,
            position_ids=position_ids,
            next_position_ids=position_ids.amax(dim=(0, 2)) + 1,
            pixel_values=torch.from_numpy(np.concatenate([prompt.pixel_values for prompt in prompts])),
            image_grid_thw=grid,
            prompt_tokens=tuple(len(prompt.input_ids) for prompt in prompts),
            pictures=tuple((torch.from_numpy(p.input_ids) == self.image_token).nonzero()[:, 0] for p in prompts),
            picture_counts=tuple(len(prompt.image_grid_thw) for prompt in prompts),
            pixel_rows=tuple(len(prompt.pixel_values) for prompt in prompts),
            tokens_per_row=families.tokens_per_row(self.core.config),
        )

    @torch.no_grad()
    def with_vision_features(self, prompts: PromptBatch) -> PromptBatch:
        """Return `prompts` with the vision tower's features if the tower is frozen, otherwise unchanged."""
        trained = any(p.requires_grad and families.is_vision(name) for name, p in self.core.named_parameters())
        if trained:
            return prompts
        features = families.vision_features(self.core, prompts.pixel_values, prompts.image_grid_thw)
        return dataclasses.replace(prompts, features=features)

    def encode_answer(self, text: str) -> list[int]:
        """Return the tokens of a completion with the end of the turn; an `answer_prefix` at its start is skipped."""
        return [*self.encode_words(text), self.end_token]

    def encode_words(self, text: str) -> list[int]:
        """Return the tokens of `text`, the start of an answer, without the tag that the prompt has already opened."""
        following = text.removeprefix(self.answer_prefix.rstrip())
        return self.tokenizer(following, add_special_tokens=False)["input_ids"]

    def decode(self, tokens: Tensor) -> str:
        """Return the whole answer of a completion ([T] tokens without the end of the turn), with `answer_prefix`."""
        return self.answer_prefix + self.words(tokens)

    def words(self, tokens: Tensor) -> str:
        """Return the text of [T] tokens, without `answer_prefix`."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def special_tokens(self) -> list[str]:
        """Return the strings that the tokenizer reads as special tokens anywhere in a text, the longest first."""
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        return sorted(added.union(self.tokenizer.all_special_tokens), key=lambda text: (-len(text), text))

    def pieces(self, tokens: Tensor) -> list[str]:
        """Return the vocabulary's string for each of [T] tokens: ASCII unchanged, every other byte as one character."""
        return self.tokenizer.convert_ids_to_tokens(tokens.tolist())

    def save(self, folder: Path) -> None:
        """Write the model in Hugging Face form: safetensors, config, tokenizer and processor.

        Raises InputError if the model still has an adapter; call `merge_adapter` first.
        """
        model = self.model
        if hasattr(model, "merge_and_unload"):
            raise InputError(f"{folder}: merge the adapter (merge_adapter()) before saving")
        with files.written_to(folder):
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            self.image_processor.save_pretrained(folder)

    def save_half(self, folder: Path) -> None:
        """Write the model in Hugging Face form with bfloat16 weights and the adapter merged; the model is unchanged.

        Needs 2 bytes of host memory per parameter.
        """
        first_names: dict[int, str] = {}  # tied weights share memory: the first name at each address
        tied = {
            name: first_names.setdefault(weight.data_ptr(), name) for name, weight in self.core.state_dict().items()
        }
        halves: dict[str, Tensor] = {}
        for name, weight in _merged_weights(self.model):
            converted = halves.get(tied.get(name, name))
            halves[name] = weight.to("cpu", torch.bfloat16) if converted is None else converted
        with files.written_to(folder):
            self.core.save_pretrained(folder, state_dict=halves)
            config = folder / "config.json"  # save_pretrained wrote the dtype of the model there
            values = read_json(config)
            config.write_text(json.dumps(_in_bfloat16(values), indent=2) + "\n", encoding="utf-8")
            self.tokenizer.save_pretrained(folder)
            self.image_processor.save_pretrained(folder)

    def with_max_pixels(self, max_pixels: int) -> Backbone:
        """Limit pictures to `max_pixels` pixels and return this backbone; every stage uses the same limit.

        A family that resizes every picture to one square keeps it, because it is part of the architecture.
        """
        if self.core.config.model_type in families.SQUARE:
            return self
        self.image_processor.size = {
            "shortest_edge": min(MIN_PIXELS, max_pixels),
            "longest_edge": max_pixels,
        }
        return self


def prompt_text(path: str, question: str) -> str:
    """Return `question` in the chat template of the model at `path`, with one placeholder for the picture."""
    return template.prompt_text(template.load_tokenizer(path), question)


def load(
    path: str | Path,
    *,
    dtype: str,
    max_pixels: int,
    gradient_checkpointing: bool = False,
    fused_kernels: bool = False,
    key: str | None = "model.path",
    weights: bool = True,
) -> Backbone:
    """Load a model of families.FAMILIES from a folder or hub name; a PIL processor reads its pictures on every machine.

    Raises InputError, naming the setting `key`, if `path` holds no such model or its weights are incomplete. With
    weights=False the parameters stay on the meta device: they have names and shapes, but no values.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the run shows its own progress
    accelerator.settle()
    files.check_model_files(path, key)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        tokenizer = template.checked(template.load_tokenizer(path), config)
        image_processor = families.load_image_processor(config.model_type, path)
        model = _load_weights(path, config, dtype=dtype, device=None if weights else "meta")
    except InputError as error:  # its message begins with the path
        raise InputError(f"{files.prefix(key)}{error}") from error
    except UnpicklingError as error:
        cure = "it is not run; give a repository with safetensors"
        raise InputError(
            f"{files.prefix(key)}{path}: pytorch_model.bin is a pickle of more than tensors, or damaged; {cure}"
        ) from error
    except (StrictDataclassError, *_LOADING_FAILS) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{files.prefix(key)}{path}: cannot be loaded ({reason}); give a whole model folder or hub name"
        ) from error
    shared_prefix.install(model)
    if not families.can_share_prefix(model.config):
        text = model.config.get_text_config().model_type
        log.info("%s=%s: %s layers cannot share a group's prompt; each completion computes its own", key, path, text)
    if fused_kernels:
        kernels.fuse(model)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Backbone(model, tokenizer, image_processor).with_max_pixels(max_pixels)


def check_model(path: str | Path, *, question: str, max_pixels: int, key: str | None = "model.path") -> Backbone:
    """Load the model at `path` without its weights' values and check that it can be asked `question` about a picture.

    Raises InputError, naming `key`, if it cannot. The weights are checked by name and shape alone.
    """
    backbone = load(path, dtype="float32", max_pixels=max_pixels, key=key, weights=False)
    try:
        backbone.encode(Image.new("RGB", (64, 64)), question)
    except InputError as error:  # begins with the path
        raise InputError(f"{files.prefix(key)}{error}") from error
    if backbone.answer_prefix and order_of(question) == "score_first":
        raise InputError(
            f"{files.prefix(key)}{path}: its chat template opens <think> in the prompt, so no answer can begin with "
            "the score; give model.prompt=critique"
        )
    return backbone


def _load_weights(path: str | Path, config: Any, *, dtype: str, device: str | None) -> Any:
    """Load the model with its weights; raise InputError unless they fill exactly its architecture and are finite."""
    from transformers import AutoModelForImageTextToText

    if device is not None and not Path(path).is_dir():  # a check downloads no weights
        with torch.device(device):
            return AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    load = partial(
        AutoModelForImageTextToText.from_pretrained,
        config=config,
        dtype=getattr(torch, dtype),
        device_map=device,
        trust_remote_code=False,
    )
    return whole(load, path, values=device is None)


def freeze(model: nn.Module, *, vision: bool) -> None:
    """Train all parameters, or with `vision` all except the vision tower and its projector."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (vision and families.is_vision(name)))


def add_adapter(backbone: Backbone, lora: LoraSettings, *, seed: int = 0, quantized: bool = False) -> Backbone:
    """Wrap the language model's projections with a LoRA adapter (peft) drawn from `seed`; freeze the base weights.

    With lora.target "all" every linear layer of vision tower and projector gets one, too. `quantized`: the weights of
    the language layers become 4-bit ones when the model is moved to its device. Raises InputError if the
    language model has none of the modules that the settings name.
    """
    from peft import LoraConfig, get_peft_model

    modules = "|".join(lora.target_modules)
    target = rf".*({'|'.join(families.LANGUAGE_PARTS)}).*\.({modules})"
    if not any(re.fullmatch(target, name) for name, _ in backbone.model.named_modules()):
        raise InputError(f"model.lora.target_modules={lora.target_modules}: the language model has none of them")
    if lora.target == "all":
        linear = [name for name, module in backbone.model.named_modules() if isinstance(module, nn.Linear)]
        target = "|".join([target, *(re.escape(name) for name in linear if families.is_vision(name))])
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float scales as well
        lora_dropout=lora.dropout,
        target_modules=target,
        task_type="CAUSAL_LM",
    )
    if quantized:
        quantize.quantise(backbone.model)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )  # peft asks for it
        # Give the adapter the dtype of the weights, as DeepSpeed does: in float32 its products would not run on tensor
        # cores and its inputs would have to be cast. The engines update float32 copies of 16-bit weights.
        backbone.model = get_peft_model(backbone.model, config, autocast_adapter_dtype=False)
    return backbone


def merge_adapter(backbone: Backbone) -> Backbone:
    """Fold the adapter, if there is one, into the weights and return the backbone.

    4-bit layers become 16-bit or 32-bit ones, in the dtype of the computation.
    """
    if quantize.quantised_layers(backbone.core):
        backbone.model = quantize.merge_layers(backbone.core)
    if hasattr(backbone.model, "merge_and_unload"):
        backbone.model = backbone.model.merge_and_unload()
    return backbone


def _merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of every weight as the model without an adapter has it, with the adapter's product added."""
    if not hasattr(model, "merge_and_unload"):
        yield from model.state_dict().items()
        return
    core = model.get_base_model()
    merged = {f"{name}.": layer for name, layer in quantize.layers_to_merge(core)}
    for name, weight in core.state_dict().items():
        owner = next((prefix for prefix in merged if name.startswith(prefix)), None)
        if owner is None:
            yield name, weight
        elif (key := name.removeprefix(owner).removeprefix("base_layer.")) == "weight":
            yield owner + key, quantize.merged_weight(merged[owner])
        elif key == "bias":
            yield owner + key, weight


def _in_bfloat16(config: Any) -> Any:
    """Return the content of a config.json with every dtype in it replaced by bfloat16."""
    if not isinstance(config, dict):
        return config
    return {key: "bfloat16" if key == "dtype" else _in_bfloat16(value) for key, value in config.items()}
