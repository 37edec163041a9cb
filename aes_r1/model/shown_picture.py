"""Reconstruct the picture that a model sees from the output of its image processor."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image


def shown_picture(image_processor: Any, pixel_values: np.ndarray, grid: np.ndarray) -> Image.Image:
    """Return the resized RGB picture whose patches are `pixel_values`, exact in every pixel.

    image_processor: the family's, which made pixel_values [rows, ...] with a grid [3] (time, rows and columns of
    patches); of a processor that cuts square tiles, pixel_values must be a single tile. The processor does not resize
    the returned picture and makes the same pixel_values of it.
    """
    channels = len(image_processor.image_mean)
    if pixel_values.ndim == 4:
        (levels,) = pixel_values
    else:
        _, rows, columns = (int(length) for length in grid)
        merge, patch = image_processor.merge_size, image_processor.patch_size
        patches = pixel_values.reshape(rows // merge, columns // merge, merge, merge, channels, -1, patch, patch)
        first = patches[:, :, :, :, :, 0]  # the other frames of a picture repeat the first
        levels = first.transpose(4, 0, 2, 5, 1, 3, 6).reshape(channels, rows * patch, columns * patch)
    mean, std = (np.array(values)[:, None, None] for values in (image_processor.image_mean, image_processor.image_std))
    levels = (levels * std + mean) / image_processor.rescale_factor
    return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
