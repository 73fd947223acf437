"""Contrast of pictures before the squash, bounded by that of photos."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featviz_pl.numerics.checks import finite_number

# Median over 500 photos of ImageNet, center squares resampled to a side, of std(logit(clip(photo, 0.02, 0.98))).
PHOTO_CONTRAST = {32: 1.11, 64: 1.20, 96: 1.24, 128: 1.26, 160: 1.28, 224: 1.30}


def contrast_limit(contrast: Any, size: tuple[int, int]) -> Tensor | None:
    """Return the largest standard deviation before the sigmoid: a number, or ``"photos"`` for that of photos of a size.

    Raises:
        ValueError: when it is not above 0.
        TypeError: when it is neither a number nor ``"photos"``.

    Example:
        >>> contrast_limit("photos", (224, 300)), contrast_limit(None, (8, 8))
        (tensor(1.3000), None)
    """
    if contrast is None:
        return None
    if contrast == "photos":
        sides = [math.log(side) for side in PHOTO_CONTRAST]
        contrast = float(np.interp(math.log(min(size)), sides, list(PHOTO_CONTRAST.values())))
    elif isinstance(contrast, str):
        raise ValueError(f"contrast must be a number above 0, 'photos' or None, got {contrast!r}")
    return torch.tensor(finite_number("contrast", contrast, above=0.0), dtype=torch.float32)


def contrast_scale(latent: Tensor, limit: Tensor) -> Tensor:
    """Return ``min(1, limit / std(latent))`` for each picture, over all pixels and colors.

    Shape:
        (N, C, H, W) -> (N, 1, 1, 1)

    Example:
        >>> contrast_scale(torch.tensor([[[[-4.0, 4.0]]], [[[-0.5, 0.5]]]]), torch.tensor(1.0)).flatten().tolist()
        [0.25, 1.0]
    """
    limit = limit.to(latent)
    variance = latent.var((1, 2, 3), correction=0, keepdim=True)
    bounded = variance.clamp_min(limit.square())  # no gradient below the limit, and none is infinite at a variance of 0
    return torch.where(variance > limit.square(), limit / bounded.sqrt(), torch.ones_like(bounded))
