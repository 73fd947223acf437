"""Optimizers in the form that moves a picture's weights fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

_FUSED: tuple[Any, ...] = (torch.optim.Adam, torch.optim.AdamW)


def made_fast(maker: Callable[..., torch.optim.Optimizer], parameters: Iterable[nn.Parameter], **arguments: Any) -> torch.optim.Optimizer:
    """Make an optimizer; Adam on a CPU reads and writes the weights once instead of ten times.

    On other devices torch's own choice stays: fused optimizers cannot be clipped where a gradient scaler is used.

    Args:
        maker: of the optimizer.
        parameters: that it moves.
        arguments: of the optimizer; a form that is asked for is kept.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> made_fast(torch.optim.Adam, [weight], lr=0.1).defaults["fused"], made_fast(torch.optim.SGD, [weight], lr=0.1).defaults["fused"]
        (True, None)
    """
    listed = list(parameters)
    on_cpu = all(parameter.device.type == "cpu" and parameter.is_floating_point() for parameter in listed)
    if maker in _FUSED and on_cpu and not {"fused", "foreach", "differentiable"} & set(arguments):
        arguments["fused"] = True
    return maker(listed, **arguments)
