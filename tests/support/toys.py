"""Tiny networks and paths that the tests share. Importable by spawned workers; absent from the wheel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

SHARED = Path(__file__).resolve().parents[3] / "shared"

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the folder ../shared with real weights and photos is absent"
)


class ToyNet(nn.Module):
    """Three convolutions, a batch norm, rectifiers in place, and a classifier: a network in small."""

    def __init__(self, channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, padding=1),
        )
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.features(x).mean((2, 3)))
        return y


def toy(channels: int = 3, classes: int = 5, seed: int = 0) -> ToyNet:
    """Build a `ToyNet` from its own seed, leaving the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ToyNet(channels, classes)


def adam(lr: float = 0.05) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """Return what makes an Adam of parameters."""
    return partial(torch.optim.Adam, lr=lr)


class Passes(nn.Module):
    """Two convolutions that record how many pictures every pass has, and how far it goes; copies share the list."""

    class Shared(list[tuple[int, str]]):
        def __deepcopy__(self, memo: dict[int, object]) -> Passes.Shared:
            return self

    def __init__(self) -> None:
        super().__init__()
        self.passes = Passes.Shared()
        self.first, self.second = nn.Conv2d(3, 40, 1), nn.Conv2d(40, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes.append((len(x), "first"))
        x = self.first(x)
        self.passes.append((len(x), "second"))
        y: torch.Tensor = self.second(x)
        return y
