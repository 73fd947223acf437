"""The network that the benchmarks of speed show to everybody: one of torchvision's, or a tiny one for quick runs."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._device import add_accelerator_argument

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's networks; the peers take them for granted
TINY = "tiny"
LAYERS = ("features.5", "features.9", "features.12")  # of squeezenet1_0
QUICK_LAYER = "features.2"  # of the tiny network


class Tiny(nn.Module):
    """Two convolutions and a classifier, for runs that only show that everything works."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 64, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(pictures).mean((2, 3)))
        return logits


def build(name: str, weights: str = "none") -> nn.Module:
    """Build a network in evaluation mode.

    Args:
        name: of torchvision's, or ``"tiny"``.
        weights: a file of a state dict, the name of an enum's member, or ``"none"`` for random ones, the same each
            time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        if name == TINY:
            return Tiny().eval()
        import torchvision

        named = None if weights == "none" or Path(weights).is_file() else weights
        module: nn.Module = torchvision.models.get_model(name, weights=named)
    if Path(weights).is_file():
        module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return module.eval()


def truncated(network: nn.Module, layer: str, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Return a frozen, channels_last copy of the network's `features` up to a layer, with nothing of this library in it.

    >>> len(truncated(build("tiny"), "features.2"))
    3
    """
    features: Any = network.features
    layers = nn.Sequential(*copy.deepcopy(list(features)[: int(layer.split(".")[1]) + 1]))
    return layers.requires_grad_(False).to(dtype).to(memory_format=torch.channels_last)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which network is shown pictures of what size, and where."""
    parser.add_argument("--network", default="squeezenet1_0", help="of torchvision, or tiny (default: squeezenet1_0)")
    parser.add_argument("--weights", default="none", help="file, name of torchvision's, or none (default: none)")
    parser.add_argument(
        "--layers", nargs="+", default=list(LAYERS), help=f"to render units of (default: {' '.join(LAYERS)})"
    )
    parser.add_argument("--size", type=int, default=224, help="of the pictures, in pixels (default: 224)")
    add_accelerator_argument(parser)


SMALL: dict[str, Any] = {
    "network": TINY,
    "weights": "none",
    "layers": [QUICK_LAYER],
    "size": 32,
    "precisions": ["32-true"],
}
