"""Which axis of an activation counts units."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def unit_axis(shape: Sequence[int]) -> int:
    """Return the axis of the units: channels of (C, H, W), features of tokens (T, F) or of a vector (F,).

    Example:
        >>> unit_axis((64, 8, 8)), unit_axis((197, 768)), unit_axis((1000,))
        (0, 1, 0)
    """
    return 1 if len(shape) == 2 else 0


def position_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the lengths of the axes that are not units: (H, W), (T,) or ().

    Example:
        >>> position_axes((64, 8, 9)), position_axes((197, 768)), position_axes((1000,))
        ((8, 9), (197,), ())
    """
    axis = unit_axis(shape)
    return (*shape[:axis], *shape[axis + 1 :])


def units_last(activation: Tensor) -> Tensor:
    """Move the units of an activation (N, V, …) to the last axis: (N, V, positions…, units).

    Example:
        >>> import torch
        >>> units_last(torch.zeros(2, 1, 64, 8, 9)).shape
        torch.Size([2, 1, 8, 9, 64])
    """
    return activation.movedim(2 + unit_axis(activation.shape[2:]), -1)


def at_positions(activation: Tensor) -> Tensor:
    """Flatten an activation (N, V, …) to (N, V, positions, units); a vector has one position.

    Example:
        >>> import torch
        >>> at_positions(torch.zeros(2, 1, 64, 8, 9)).shape, at_positions(torch.zeros(2, 1, 10)).shape
        (torch.Size([2, 1, 72, 64]), torch.Size([2, 1, 1, 10]))
    """
    last = units_last(activation)
    return last.reshape(*last.shape[:2], -1, last.shape[-1])
