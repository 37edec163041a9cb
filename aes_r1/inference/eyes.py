"""Compute what a model sees of a picture: the pooled output of its vision tower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from aes_r1.model.backbone import Backbone
from aes_r1.model.families import prepare, vision_features
from aes_r1.model.tower import Tower


@torch.no_grad()
def eyes_features(eyes: Backbone | Tower, pictures: Sequence[Image.Image]) -> np.ndarray:
    """Return [n, 2 D] float64: mean and standard deviation over a picture's tokens of the tower's D outputs.

    Each output is the input of the language model in place of one picture token; outputs of deeper layers, which some
    families add to these, are left out. Pictures have the size at which the model is asked.
    """
    pixels, grids, counts = zip(
        *(prepare(eyes.core.config, eyes.image_processor, picture) for picture in pictures), strict=True
    )
    rows = torch.from_numpy(np.concatenate(pixels)).to(eyes.device)
    states = vision_features(eyes.core, rows, torch.from_numpy(np.stack(grids)).long())[0].double().cpu()
    by_picture = states.split(list(counts))
    pooled = [torch.cat([outputs.mean(dim=0), outputs.std(dim=0, correction=0)]) for outputs in by_picture]
    return torch.stack(pooled).numpy()
