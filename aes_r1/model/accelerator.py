"""Tell DeepSpeed that there is no GPU before anything imports it (transformers imports it to save a model)."""

from __future__ import annotations

import os

import torch


def settle() -> None:
    """Keep DeepSpeed from probing for devices, and from warning that it found none, where there is no GPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
