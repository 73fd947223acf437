"""Whether tensors are finite, at the cost of one pass: `torch.isfinite` takes four and a mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def is_finite(values: Tensor) -> bool:
    """Say whether all values are finite, in one pass over them; this waits for the device.

    Example:
        >>> is_finite(torch.ones(2)), is_finite(torch.tensor([1.0, float("nan")])), is_finite(torch.tensor([-float("inf"), 0.0]))
        (True, False, False)
    """
    if values.is_complex() or not values.numel():
        return bool(torch.isfinite(values).all())
    return all(math.isfinite(end) for end in torch.stack(torch.aminmax(values.detach())).tolist())
