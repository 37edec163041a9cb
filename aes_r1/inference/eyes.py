"""What a model's own eyes see of a picture: the output of its vision tower, pooled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from aes_r1.model.backbone import Backbone
from aes_r1.model.families import vision_features
from aes_r1.prompts import SCORE_ONLY_PROMPT


@torch.no_grad()
def eyes_features(backbone: Backbone, pictures: Sequence[Image.Image]) -> np.ndarray:
    """Return [n, 2 D] float64: mean and standard deviation over a picture's tokens of the tower's D outputs.

    These outputs are all that the language model gets to know of a picture, at the size at which the model is asked.
    """
    batch = backbone.collate([backbone.encode(picture, SCORE_ONLY_PROMPT) for picture in pictures])
    states = (
        vision_features(backbone.core, batch.pixel_values.to(backbone.device), batch.image_grid_thw)[0].double().cpu()
    )
    pooled = [
        torch.cat([own.mean(dim=0), own.std(dim=0, correction=0)])
        for own in states.split([len(places) for places in batch.pictures])
    ]
    return torch.stack(pooled).numpy()
