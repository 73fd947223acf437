"""Whether tensors are finite, in one pass: `torch.isfinite` takes four and a mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def is_finite(values: Tensor) -> bool:
    """Return whether all values are finite, in one pass; waits for the device.

    Example:
        >>> is_finite(torch.ones(2)), is_finite(torch.tensor([1.0, float("nan")]))
        (True, False)
    """
    if values.is_complex() or not values.numel():
        return bool(torch.isfinite(values).all())
    return all(math.isfinite(end) for end in torch.stack(torch.aminmax(values.detach())).tolist())
