"""The fake device counts exactly the operations at which a CUDA device would make the host wait."""

from __future__ import annotations

import pytest
import torch

from aes_r1.model.transfer import to_device
from tests.pretend_device import DEVICE, PretendDevice

WAITS = {
    "reading a number": lambda there, here: int(there.sum()),
    "a condition": lambda there, here: bool(there[0] > 1),
    "a boolean mask": lambda there, here: there[there > 1],
    "writing by a mask": lambda there, here: there.__setitem__(there > 1, there[:2].clone()),
    "nonzero": lambda there, here: there.nonzero(),
    "masked_select": lambda there, here: there.masked_select(there > 1),
    "the gradient of masked_scatter": lambda there, here: (
        torch.zeros_like(there).masked_scatter(there > 1, there.clone().requires_grad_()).sum().backward()
    ),
    "unique": lambda there, here: there.unique(),
    "repeating": lambda there, here: there.repeat_interleave(there.long()),
    "an index of the host": lambda there, here: there[here.long() % 2],
    "a copy there": lambda there, here: here.to(DEVICE),
    "a copy there without pinned memory": lambda there, here: here.to(DEVICE, non_blocking=True),
    "a copy back": lambda there, here: there.cpu(),
    "a constant made on the host": lambda there, here: there + torch.tensor([1.0, 2.0, 3.0]),
}
FREE = {
    "arithmetic": lambda there, here: (there * 2 + 1).softmax(dim=0),
    "send": lambda there, here: there[to_device(here.long() % 2, DEVICE)],
    "where": lambda there, here: torch.where(there > 1, there, 0.0),
    "masked_fill": lambda there, here: there.masked_fill(there > 1, 0.0),
    "index_select": lambda there, here: there.index_select(0, torch.arange(2, device=DEVICE)),
    "host work beside": lambda there, here: here.nonzero().tolist(),
    "what is made there": lambda there, here: torch.full((3,), 2.0, device=DEVICE) + there,
}


@pytest.mark.parametrize("action", WAITS.values(), ids=WAITS.keys())
def test_waits_are_counted(action):
    with PretendDevice() as device:
        action(device.put(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([1.0, 2.0, 3.0]))
        assert device.waits.total() >= 1


@pytest.mark.parametrize("action", FREE.values(), ids=FREE.keys())
def test_what_is_free_is_not(action):
    with PretendDevice() as device:
        action(device.put(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([1.0, 2.0, 3.0]))
        assert not device.waits
