"""What the eyes see: mean and spread of the tower's output over the tokens of each picture alone."""

import numpy as np
import pytest
import torch

from aes_r1.inference.eyes import eyes_features
from aes_r1.model.families import vision_features
from aes_r1.prompts import RATING_PROMPT
from tests.conftest import picture


@pytest.mark.slow
def test_features_are_pooled_over_the_tokens_of_each_picture(backbone):
    pictures = [picture(*size, seed=i) for i, size in enumerate(((192, 192), (224, 160), (96, 200)))]
    found = eyes_features(backbone, pictures)
    assert found.dtype == np.float64
    for row, one in zip(found, pictures, strict=True):
        batch = backbone.collate([backbone.encode(one, RATING_PROMPT)])
        with torch.no_grad():
            states = vision_features(backbone.core, batch.pixel_values, batch.image_grid_thw)[0].double().numpy()
        expected = np.concatenate([states.mean(axis=0), states.std(axis=0)])
        assert np.abs(row - expected).max() < 1e-5
    assert len({len(one) for one in found}) == 1
