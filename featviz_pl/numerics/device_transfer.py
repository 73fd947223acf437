"""Move what is drawn or computed on the CPU to the device of the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.numerics.jit_tracing import untraced


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device without waiting for the copy, as a constant of a graph that is being traced.

    Example:
        >>> to_device(torch.ones(2), torch.device("cpu")).tolist()
        [1.0, 1.0]
    """
    with untraced():
        # Memory that is not pinned is read before the call returns. Only CUDA promises that.
        return tensor.to(device, non_blocking=device.type == "cuda")


def numbers_on(device: torch.device, numbers: Sequence[float], dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor of plain numbers on a device.

    Example:
        >>> numbers_on(torch.device("cpu"), [3, 5])
        tensor([3, 5])
    """
    with untraced():
        return to_device(torch.tensor(numbers, dtype=dtype, device="cpu"), device)
