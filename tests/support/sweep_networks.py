"""Networks for sweeps, by name."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn


def wide() -> nn.Module:
    """Build one layer of 32 units from its own seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 32, 5, padding=2))


def partly_dead() -> nn.Module:
    """Build three rectified units, of which nothing turns the second on."""
    convolution = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        convolution.weight.fill_(1.0)
        convolution.weight[1] = 0.0
        convolution.bias.copy_(torch.tensor([0.0, -1.0, 0.5])) if convolution.bias is not None else None
    return nn.Sequential(convolution, nn.ReLU())


class _FailsElsewhere(nn.Module):
    """Fail in every process but the first, once it has gradients to compute for several pictures."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 and os.environ.get("LOCAL_RANK", "0") != "0":
            raise ValueError("only the second process fails")
        return x


def fails_elsewhere() -> nn.Module:
    """Build a network that works in the first process only."""
    return nn.Sequential(_FailsElsewhere(), nn.Conv2d(3, 4, 1))
