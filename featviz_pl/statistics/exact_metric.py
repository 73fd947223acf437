"""The base of both metrics: checked pictures, and states that keep their precision."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

_CHUNK = 16  # pictures that become float64 together, so that a large batch does not fill the memory


class ExactMetric(Metric):
    """A metric whose float64 states are not cast with the module around it."""

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        """Move as asked, but never cast: torchmetrics itself lets ``.to(dtype)`` through."""

        def move(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        return super()._apply(move, exclude_state)


def check_batch(images: Tensor, channels: int) -> Tensor:
    """Return pictures (N, C, H, W) in [0, 1] as they are, or raise."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor (N, {channels}, H, W) in [0, 1], got {type(images).__name__}")
    if not images.is_floating_point():
        raise ValueError(f"images: {images.dtype} holds no values in [0, 1]; divide levels from 0 to 255 by 255")
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"images must be a batch (N, {channels}, H, W), got shape {tuple(images.shape)}")
    if images.shape[1] != channels:
        raise ValueError(f"images: {images.shape[1]} channels do not fit channels={channels}")
    low, high = (float(bound) for bound in torch.aminmax(images))
    if not (low >= 0.0 and high <= 1.0):
        hint = "pass pictures before they are normalised"
        raise ValueError(f"images must lie in [0, 1], got values from {low:g} to {high:g}; {hint}")
    return images


def parts(images: Tensor) -> Sequence[Tensor]:
    """Divide a batch into parts that become float64 one after the other."""
    return tuple(images.split(_CHUNK))


def plain(values: Any) -> Tensor:
    """Return a float64 copy on the CPU that is no inference tensor."""
    with torch.inference_mode(False):
        return torch.as_tensor(values, dtype=torch.float64).detach().to("cpu", copy=True)


def drawing_axis(axis: Any) -> tuple[Any, Any]:
    """Return figure and axis to draw on, made by matplotlib unless an axis is given."""
    if axis is not None:
        return axis.get_figure(), axis
    try:
        return tuple(importlib.import_module("matplotlib.pyplot").subplots())
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("plot() needs matplotlib; pip install matplotlib") from error
