"""Save and load the vision tower of a model without its language model and tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from aes_r1.model import families
from aes_r1.model.backbone import MIN_PIXELS, Backbone
from aes_r1.model.files import written_to
from aes_r1.model.weights import whole
from aes_r1.settings import InputError

FAMILIES = ("qwen2_5_vl", "qwen3_vl")


@dataclass(frozen=True)
class Tower:
    """Hold a vision tower where `families.vision_features` looks for it, and the processor of its pictures."""

    core: Any
    image_processor: Any

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return next(families.vision_tower(self.core).parameters()).device

    @property
    def width(self) -> int:
        """Return D, the number of features of a picture token."""
        config: Any = families.vision_tower(self.core).config
        return int(config.out_hidden_size)


def require_tower(family: str) -> None:
    """Raise InputError for a family whose tower cannot be saved and loaded alone."""
    if family not in FAMILIES:
        raise InputError(f"a {family} model has no tower of its own to save; take a Qwen2.5-VL or Qwen3-VL")


def save_tower(backbone: Backbone, folder: Path) -> None:
    """Write the tower of `backbone` and its processor in Hugging Face form. InputError for a family without one."""
    require_tower(backbone.core.config.model_type)
    tower: Any = families.vision_tower(backbone.core)
    with written_to(folder):
        tower.save_pretrained(folder)
        backbone.image_processor.save_pretrained(folder)


def load_tower(folder: Path, *, family: str, max_pixels: int, device: torch.device) -> Tower:
    """Load what `save` wrote of a model of `family`, for pictures of at most `max_pixels`, in float32.

    InputError where weights are missing or do not fit.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a tower is loaded in a moment
    tower = whole(partial(_class_of(family).from_pretrained, dtype=torch.float32), folder).to(device).eval()
    core = SimpleNamespace(config=SimpleNamespace(model_type=family), model=SimpleNamespace(visual=tower))
    families.attend_to_windows_at_once(core)
    processor = families.load_image_processor(family, folder)
    processor.size = {"shortest_edge": min(MIN_PIXELS, max_pixels), "longest_edge": max_pixels}
    return Tower(core, processor)


def _class_of(family: str) -> Any:
    if family == "qwen2_5_vl":
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

        return Qwen2_5_VisionTransformerPretrainedModel
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

    return Qwen3VLVisionModel
