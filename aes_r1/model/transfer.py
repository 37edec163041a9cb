"""Copy tensors from the host to the device without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy `tensor` to `device` without blocking the host (pinned memory, non_blocking).

    A copy from ordinary memory makes the host wait until everything queued on the device is done; a copy from pinned
    memory does not. PyTorch keeps the pinned copy until the device has read it.
    """
    if tensor.device.type != "cpu" or torch.device(device).type == "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
